#!/bin/bash
# A host as the review wants it: sshd, firewall and web server guarded; the certificate is good for so many days.
set -euo pipefail
days=$1
mkdir -p /etc/ssl/demo /srv/release
cd /etc/ssl/demo
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 -new "${key[@]}" -keyout ca.key -out ca.crt -days 90 -subj /CN=ca -addext basicConstraints=critical,CA:true 2>/dev/null
openssl req -new "${key[@]}" -keyout site.key -out site.csr -subj /CN=localhost 2>/dev/null
echo "subjectAltName=DNS:localhost" >ext
openssl x509 -req -in site.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -extfile ext -out site.crt 2>/dev/null
rm -f ext site.csr
chmod 600 ./*.key

cat >/etc/nginx/sites-enabled/default <<'EOF'
server {
  listen 443 ssl;
  listen [::]:443 ssl;
  server_tokens off;
  ssl_certificate /etc/ssl/demo/site.crt;
  ssl_certificate_key /etc/ssl/demo/site.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  add_header Strict-Transport-Security "max-age=31536000";
  add_header Content-Security-Policy "default-src 'self'; frame-ancestors 'none'";
  add_header X-Content-Type-Options nosniff;
  add_header Referrer-Policy same-origin;
  location / { return 200 ok; }
}
EOF
systemctl restart nginx

cat >/etc/ssh/sshd_config.d/10-guard.conf <<'EOF'
PermitRootLogin no
PasswordAuthentication no
DisableForwarding yes
X11Forwarding no
LoginGraceTime 30
MaxAuthTries 3
Banner /etc/issue.net
ClientAliveInterval 300
MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com
EOF
sleep 1.1 # a file that changed in the same second counts as read
systemctl restart ssh

# The rules for the host beside sshd.
sed -i -E '/^(UMASK|PASS_MAX_DAYS)/d' /etc/login.defs
printf 'UMASK 027\nPASS_MAX_DAYS 90\n' >>/etc/login.defs
grep -q pam_umask /etc/pam.d/common-session || echo 'session optional pam_umask.so' >>/etc/pam.d/common-session
echo '* hard core 0' >/etc/security/limits.d/core.conf
printf '[Coredump]\nStorage=none\nProcessSizeMax=0\n' >/etc/systemd/coredump.conf
for file in /etc/issue /etc/issue.net; do
  echo 'Only for authorized users. All access is monitored and logged; by use you consent to this policy. Unauthorized use is prohibited' >$file
done

cat >/etc/nftables.conf <<'EOF'
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    tcp dport { 22, 443 } accept
  }
}
EOF
systemctl enable --quiet --now nftables

echo one >/srv/release/program
echo two >/srv/release/gone
printf '#!/bin/sh\n' >/usr/local/bin/tool
chmod 755 /usr/local/bin/tool
for minute in 1 2 3; do
  echo "$(date -u -d "-$minute hour" +%Y-%m-%dT%H:%M:%S+00:00) host sshd[$minute]: Accepted publickey for mia from 192.0.2.5 port 4 ssh2"
done >/var/log/auth.log
