"""Every planted fault arrives under its own id, check mode says the same and leaves no trace, and the clean twin stays silent."""

from __future__ import annotations

import pytest
from helpers import findings, of_kind, runs

testinfra_hosts = ["security-clean"]
FAULTY = ("security-bookworm", "security-trixie")
CHECK, CONVERGE, AGAIN = 1, 2, 3  # the run before them accepted the sound state

PLANTED = [
    ("world_writable", "/srv", "critical", "/srv/open is 0666"),
    ("privileged_files", "/usr", "critical", "/usr/local/bin/planted\\n"),
    ("privileged_files", "/usr", "critical", "cap_setuid=ep"),
    ("package_files", "xz-utils", "critical", "/usr/bin/xz has another content"),
    ("tree_integrity", "/srv/release", "critical", "changed program"),
    ("tree_integrity", "/srv/release", "critical", "removed gone"),
    ("tree_integrity", "/srv/release", "critical", "added new"),
    ("sshd_policy", "sshd.permit_root_login", "critical", "permitrootlogin is yes"),
    ("sshd_policy", "sshd.ciphers", "warning", "aes128-cbc"),
    ("sshd_policy", "sshd.password_authentication", "warning", "for user=backup"),
    ("sshd_reload", "sshd", "warning", "/etc/ssh/sshd_config.d/05-careless.conf"),
    ("listening", "ports", "warning", "tcp/0.0.0.0:8099, reachable from anywhere, held by python3"),
    ("firewall", "firewall", "critical", ""),
    ("firewall_rules", "firewall", "warning", "declared, but not let in: tcp/22 from any"),
    ("firewall_drift", "firewall", "warning", "removed inet filter input"),
    ("certificate_expiry", "/etc/ssl/demo/site.crt", "critical", ""),
    ("certificate_expiry", "localhost:443", "critical", ""),
    ("tls_protocols", "localhost:443", "warning", ""),
    ("http_headers", "https://localhost/", "warning", "strict-transport-security is missing"),
    ("http_headers", "https://localhost/", "warning", "which tells what runs there"),
    ("brute_force", "log-ins", "warning", "203.0.113.9"),
    ("root_accounts", "accounts", "critical", "toor"),
    ("sudo", "sudo", "critical", "NOPASSWD"),
    ("account_files", "account files", "warning", "the group 9999 of nohome is not there"),
    ("account_files", "account files", "warning", "nohome of passwd is not in shadow"),
    ("host_policy", "host.umask", "warning", "login.defs: umask 0022"),
    ("host_policy", "host.password_age", "warning", "new accounts: PASS_MAX_DAYS is 99999"),
    ("host_policy", "host.core_dumps", "warning", "the hard limit of core for * is"),
    ("host_policy", "host.banner", "warning", "issue says nothing"),
]


def found(host: str, run: int, name: str = "", subject: str = "") -> list[dict]:
    return findings(f"security.{name}" if name else "", host=host, subject=subject, journal=runs()[run])


@pytest.mark.parametrize("host_name", FAULTY)
@pytest.mark.parametrize(("name", "subject", "state", "evidence"), PLANTED)
def test_a_planted_fault_arrives(host_name, name, subject, state, evidence):
    told = found(host_name, CONVERGE, name, subject)
    assert told, sorted((one["id"], one["subject"]) for one in found(host_name, CONVERGE))
    assert {one["state"] for one in told} == {state}
    assert any(evidence in line for one in told for line in [*one["evidence"], one["summary"]]), told


@pytest.mark.parametrize("host_name", [*FAULTY, "security-clean"])
def test_check_mode_says_the_same_and_so_does_a_second_run(host_name):
    verdicts = [[(one["id"], one["subject"], one["state"]) for one in found(host_name, run)] for run in (CHECK, CONVERGE, AGAIN)]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert not [record["actions"] for record in of_kind("record", runs()[CONVERGE], host=host_name) if record["actions"]]


def test_the_clean_twin_stays_silent():
    told = found("security-clean", CONVERGE)
    asked = {f"security.{name}" for name, *_rest in PLANTED}
    assert {one["id"] for one in told} >= asked - {"security.brute_force"} | {"security.failed_logins"}
    # What the kernel is told of dumps is the machine's, and no container can set it.
    told = [one for one in told if not one["summary"].startswith("fs.suid_dumpable")]
    # Where this OpenSSL cannot speak TLS 1.0 and 1.1, whether they are offered is unknown, never ok.
    loud = [(one["id"], one["state"], one["summary"]) for one in told if one["state"] != "ok"]
    assert [one for one in loud if one[:2] != ("security.tls_protocols", "unknown")] == []


@pytest.mark.parametrize("host_name", FAULTY)
def test_changed_configuration_is_told_and_no_fault(host_name):
    (told,) = found(host_name, CONVERGE, "package_conffiles")
    assert told["state"] == "ok"
    assert "/etc/logrotate.conf has another content" in told["evidence"]


@pytest.mark.parametrize("host_name", FAULTY)
def test_no_hostile_name_can_drive_a_terminal(host_name):
    assert not [one for one in found(host_name, CONVERGE) if "\x1b" in str(one) or any("\n" in line for line in one["evidence"])]


def test_each_record_fits_into_a_line_of_the_journal(host):
    assert host.file("/root/converged").exists
    for record in of_kind("record", runs()[CONVERGE]):
        assert len(str(record)) < 65536
