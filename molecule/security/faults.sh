#!/bin/bash
# What an intruder, a careless hand and neglect leave behind.
set -euo pipefail
echo open >/srv/open && chmod 666 /srv/open
cp /bin/true /usr/local/bin/$'planted\n\e[31m' && chmod 4755 /usr/local/bin/planted*
python3 - <<'EOF'
import os, struct
os.setxattr("/usr/local/bin/tool", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 7, 0, 0, 0))
EOF
echo >>/usr/bin/xz
echo three >/srv/release/program
rm /srv/release/gone
echo new >/srv/release/new
echo "# ours" >>/etc/logrotate.conf

cat >/etc/ssh/sshd_config.d/05-careless.conf <<'EOF'
PermitRootLogin yes
Ciphers aes256-ctr,aes128-cbc
Match User backup
  PasswordAuthentication yes
EOF
printf '[Unit]\n[Service]\nExecStart=/usr/bin/python3 -m http.server 8099\n' >/run/systemd/system/planted.service
systemctl daemon-reload
systemctl start planted
nft flush ruleset
systemctl disable --quiet nftables

sed -i -e '/add_header/d' -e 's/server_tokens off/server_tokens on/' -e 's/TLSv1.2 TLSv1.3/TLSv1 TLSv1.1 TLSv1.2/' \
  -e '/ssl_protocols/a ssl_ciphers "ALL:@SECLEVEL=0";' /etc/nginx/sites-enabled/default
systemctl restart nginx

echo 'toor:x:0:0::/root:/bin/sh' >>/etc/passwd
echo 'nohome:x:2009:9999::/nowhere:/bin/sh' >>/etc/passwd
sed -i -e 's/^UMASK.*/UMASK 022/' -e 's/^PASS_MAX_DAYS.*/PASS_MAX_DAYS 99999/' /etc/login.defs
rm /etc/security/limits.d/core.conf
: >/etc/issue
echo 'backup ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/backup && chmod 440 /etc/sudoers.d/backup
for second in $(seq 10 40); do
  echo "$(date -u -d -1hour +%Y-%m-%dT%H:%M:)$second+00:00 host sshd[77]: Failed password for root from 203.0.113.9 port 4 ssh2"
done >>/var/log/auth.log
