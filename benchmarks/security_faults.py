#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults for the comparison with Lynis: how each is planted, and by which of its findings a tool would tell it.

Most of the first half are planted by molecule/security/faults.sh, which was written for our review. Those of the second half were taken
from the tests that Lynis runs on such a host, as far as they can tell in a container, whether our review asks for them or not. A tool is given
credit only where it says what is wrong: "a new account" is no word about two accounts that share a uid.
"""

from __future__ import annotations

from typing import NamedTuple

# What both ask for is put right first, so that a new complaint can only come from a planted fault.
SOUND = r"""
useradd --create-home --uid 2001 anna && useradd --create-home --uid 2002 ben
awk -F: '{print $6}' /etc/passwd | while read -r home; do case $home in /home/*|/root|/var/lib/?*) chmod go-rwx "$home";; esac; done
chmod 600 /etc/crontab /etc/ssh/sshd_config
chmod 700 /etc/cron.d /etc/cron.daily /etc/cron.hourly /etc/cron.weekly /etc/cron.monthly
sed -i -e 's/^PASS_MIN_DAYS.*/PASS_MIN_DAYS 1/' /etc/login.defs
sleep 1.1 && systemctl restart ssh # its file has another mode now
mkdir -p /srv/app && echo 'port = 80' >/srv/app/settings.ini
"""


class Fault(NamedTuple):
    """A fault.

    :param ours: ids of our findings that would tell it, without ``security.``; ``mark`` has to be in the text as well.
    :param lynis: tests of Lynis that would tell it, as ``test`` or ``test|part of what it says``.
    :param plant: commands; none where molecule/security/faults.sh plants it.
    """

    name: str
    ours: tuple[str, ...]
    mark: str
    lynis: tuple[str, ...]
    plant: str = ""


FAULTS = (
    Fault("file that everybody may write", ("world_writable",), "/srv/open", ()),
    Fault("planted set-user-id program", ("privileged_files",), "planted", ()),
    Fault("capability on a program", ("privileged_files",), "cap_setuid", ()),
    Fault("program of a package altered", ("package_files",), "/usr/bin/xz", ()),
    Fault("release altered: changed, removed and new files", ("tree_integrity",), "program", ()),
    Fault("root may log in over SSH", ("sshd_policy",), "permitrootlogin", ("SSH-7408|PermitRootLogin",)),
    Fault("weak cipher in sshd", ("sshd_policy",), "aes128-cbc", ("SSH-7408|Ciphers",)),
    Fault("password for one account by a Match block", ("sshd_policy",), "user=backup", ("SSH-7408|PasswordAuthentication",)),
    Fault("sshd does not use its configuration yet", ("sshd_reload",), "", ()),
    Fault("unexpected service on a port", ("listening",), "8099", ("NETW-3012",)),
    Fault("firewall rules gone", ("firewall",), "", ("FIRE",)),
    Fault("TLS 1.0 and 1.1 offered", ("tls_protocols",), "", ("HTTP-6710",)),
    Fault("security headers no longer sent", ("http_headers",), "strict-transport-security", ()),
    Fault("second account with uid 0", ("root_accounts",), "toor", ("AUTH-9204",)),
    Fault("sudo to everything without a password", ("sudo_nopasswd", "sudo"), "backup", ("AUTH-9250", "AUTH-9252")),
    Fault("thirty failed log-ins within a minute", ("brute_force",), "203.0.113.9", ()),
    Fault(
        "new key for root",
        ("ssh_keys",),
        "new key of root",
        (),
        "mkdir -p -m 700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /tmp/key && cat /tmp/key.pub >>/root/.ssh/authorized_keys && rm /tmp/key*",
    ),
    Fault("new administrator", ("accounts", "admin_groups"), "ben,sudo", (), "gpasswd --add ben sudo"),
    Fault(
        "token in a file that everybody may read",
        ("exposed_secrets",),
        "settings.ini",
        (),
        # put together here, so that no scanner takes this file for the leak
        "printf 'token = gh%s%s\\n' p_ 0123456789abcdefghijABCDEFGHIJ012345 >>/srv/app/settings.ini && chmod 644 /srv/app/settings.ini",
    ),
    Fault(
        "served certificate ends in five days",
        ("certificate_expiry",),
        "",
        ("CRYP-7902",),
        "cd /etc/ssl/demo && openssl req -new -key site.key -out r -subj /CN=localhost && openssl x509 -req -in r -CA ca.crt -CAkey ca.key "
        "-CAcreateserial -days 5 -extfile <(echo subjectAltName=DNS:localhost) -out site.crt && rm r && systemctl reload nginx",
    ),
    # From here on: what Lynis looks for.
    Fault("account without a password", ("empty_password",), "anna", ("AUTH-9283",), "passwd --delete anna"),
    Fault("password kept as MD5", ("password_hash",), "ben", ("AUTH-9229",), "usermod --password '$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/' ben"),
    Fault("two accounts with one uid", ("shared_ids",), "uid 2001", ("AUTH-9208",), "useradd --non-unique --uid 2001 twin"),
    Fault("two groups with one id", ("shared_ids",), "gid 2001", ("AUTH-9222",), "groupadd --non-unique --gid 2001 twins"),
    Fault("files of sudo that others may read", ("sudo_syntax", "file_mode"), "sudoers", ("AUTH-9252",), "chmod 666 /etc/sudoers"),
    Fault("account file that pwck refuses", ("account_files",), "nohome", ("AUTH-9228",)),
    Fault("/tmp without its sticky bit", ("world_writable",), "/tmp", ("FILE-6362",), "chmod -t /tmp"),  # noqa: S108 - of a container that goes away
    Fault("crontab that everybody may read and write", ("file_mode",), "crontab", ("FILE-7524",), "chmod 666 /etc/crontab"),
    Fault("home that everybody may write", ("file_mode",), "/home/ben", ("HOME-9304",), "chmod 777 /home/ben"),
    Fault("home that belongs to another", ("file_owner",), "/home/anna", ("HOME-9306",), "chown ben /home/anna"),
    Fault("weak umask for all", ("host_policy",), "host.umask", ("AUTH-9328",)),
    Fault("passwords that never age", ("host_policy",), "host.password_age", ("AUTH-9286",)),
    Fault("core dumps allowed", ("host_policy",), "host.core_dumps", ("KRNL-5820",)),
    Fault("no banner before log-in", ("host_policy",), "host.banner", ("BANN-7126",)),
    Fault(
        "ten tries to log in over SSH",
        ("sshd_policy",),
        "maxauthtries",
        ("SSH-7408|MaxAuthTries",),
        "echo 'MaxAuthTries 10' >/etc/ssh/sshd_config.d/00-tries.conf",
    ),
)
