"""The real ufw and the real iptables, old and new, in a network of their own: what they let in is told, and a clean host stays silent."""

from __future__ import annotations

import glob
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_firewall, security_review
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

OPTIONS = {**security_review.OPTIONS, "state_dir": {"type": "path"}}
PACKAGES = sorted(glob.glob("/opt/packages/ufw/*.deb"))


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def flush():
    run("nft", "flush", "ruleset")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        if not os.path.exists(f"/proc/net/{'ip6' if '6' in tool else 'ip'}_tables_names"):
            continue
        run(tool, "-P", "INPUT", "ACCEPT")
        run(tool, "-F")


@pytest.fixture(scope="module", autouse=True)
def tools():
    """Install them, and take them away again: other tests expect a host without a firewall."""
    before = run("dpkg-query", "--show", "--showformat=${binary:Package}\n").split()
    run("dpkg", "--install", *PACKAGES)
    yield
    flush()
    after = run("dpkg-query", "--show", "--showformat=${binary:Package}\n").split()
    run("dpkg", "--purge", *sorted(set(after) - set(before)))


@pytest.fixture
def look(tmp_path):
    flush()

    def judged(*declared, **given):
        params = {"firewall": "required", "firewall_rules": list(declared), "state_dir": str(tmp_path), **given}
        found = security_firewall.look(Review(filled(OPTIONS, params), Host(), False, Host().now()))
        return {one.id.removeprefix("security."): one for one in found}

    shutil.copytree("/etc/ufw", tmp_path / "ufw")
    yield judged
    shutil.copytree(tmp_path / "ufw", "/etc/ufw", dirs_exist_ok=True)


def ufw(*rules):
    run("ufw", "--force", "enable")
    for rule in rules:
        run("ufw", *shlex.split(rule))


RULES = (
    "allow proto tcp from 192.168.1.0/24 to any port 22",
    "allow 80,443/tcp",
    "limit 53",
    "allow in on lo to any port 9999 proto tcp",
    "deny 25",
    "route allow proto tcp from any to any port 8443",
)
DECLARED = ("allow tcp/22 from 192.168.1.0/24", "allow tcp/80", "allow tcp/443", "allow any/53")


def states(found):
    return {name: one.state for name, one in found.items() if name != "firewall_boot"}  # there is no systemd here


CLEAN = {"firewall": "ok", "firewall_rules": "ok", "firewall_drift": "ok"}


def test_a_real_ufw_as_declared_stays_silent_until_a_rule_comes_or_goes_or_it_is_switched_off(look):
    ufw(*RULES)
    found = look(*DECLARED)
    assert states(found) == CLEAN, found
    assert "first sight" in found["firewall_drift"].summary
    assert states(look(*DECLARED)) == CLEAN
    ufw("allow 'WWW Full'", "allow OpenSSH", "delete allow 80,443/tcp", "delete limit 53")
    found = look(*DECLARED)
    assert states(found) == {"firewall": "ok", "firewall_rules": "warning", "firewall_drift": "warning"}
    assert list(found["firewall_rules"].evidence) == [
        "declared, but not let in: tcp/53 from any",
        "declared, but not let in: udp/53 from any",
        "let in, but not declared: tcp/22 from any",
    ]
    run("ufw", "disable")
    found = look(*DECLARED)
    assert states(found) == {"firewall": "critical", "firewall_rules": "warning", "firewall_drift": "warning"}
    assert "ufw is installed and not active" in found["firewall"].summary
    assert not security_firewall._ufw_starts("/etc")


def test_a_rule_that_ufw_does_not_tell_is_found(look):
    ufw("allow 22/tcp")
    assert security_firewall._ufw_starts("/etc")
    assert states(look("allow tcp/22")) == CLEAN
    for chain, port in (("INPUT", "4444"), ("ufw-before-input", "5555")):
        run("iptables", "-I", chain, "-p", "tcp", "--dport", port, "-j", "ACCEPT")
        found = look("allow tcp/22")
        assert f"let in, but not declared: tcp/{port} from any" in found["firewall_rules"].evidence
        assert found["firewall_drift"].state == "warning"
    assert "4444" not in run("ufw", "status")
    run("iptables", "-I", "ufw-before-input", "-j", "ACCEPT")
    assert look("allow tcp/22")["firewall"].state == "critical"


def test_a_ufw_that_lets_everything_in_is_critical(look):
    ufw("default allow incoming")
    assert look()["firewall"].state == "critical"


def closed_by(tool):
    for family in ("iptables", "ip6tables"):
        run(f"{family}-{tool}", "-P", "INPUT", "DROP")
        run(f"{family}-{tool}", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        run(f"{family}-{tool}", "-A", "INPUT", "-p", "tcp", "-m", "multiport", "--dports", "22,443", "-j", "ACCEPT")


@pytest.mark.parametrize("tool", ["nft", "legacy"])
def test_rules_of_iptables_are_seen_through_the_real_one(look, tool):
    """The iptables of Debian speaks to nftables and does not tell what iptables-legacy set: the kernel obeys both."""
    if tool == "legacy" and subprocess.run(["iptables-legacy", "-L"], check=False, capture_output=True).returncode:
        pytest.skip("this kernel has no tables of the old kind")
    closed_by(tool)
    assert states(look("allow tcp/22", "allow tcp/443")) == CLEAN
    run(f"iptables-{tool}", "-A", "INPUT", "-p", "udp", "--dport", "1194", "-j", "ACCEPT")
    found = look("allow tcp/22", "allow tcp/443")
    assert list(found["firewall_rules"].evidence) == ["let in, but not declared: udp/1194 from any"]
    assert found["firewall_drift"].state == "warning"
    run(f"ip6tables-{tool}", "-P", "INPUT", "ACCEPT")
    found = look("allow tcp/22", "allow tcp/443")
    assert (found["firewall"].state, "IPv6" in found["firewall"].summary) == ("critical", True)


def test_a_table_that_iptables_cannot_tell_is_told_by_nft(look):
    run("nft", "add table ip filter; add chain ip filter INPUT { type filter hook input priority 5; policy accept; }")
    run("nft", "add rule ip filter INPUT ip protocol tcp tcp dport 4444 meta cpu 0 accept")
    found = look()["firewall_rules"]
    assert [*found.evidence] == ["let in, but not declared: tcp/4444 from any"], found


def test_a_rule_of_nft_that_iptables_tells_as_another_is_not_taken_for_it(look):
    """iptables-save leaves out the set, so that a rule against a few addresses looks like one against everybody."""
    closed_by("nft")
    run("iptables-nft", "-P", "INPUT", "ACCEPT")
    run("nft", "add rule ip filter INPUT ip saddr { 192.0.2.1, 192.0.2.2 } drop")
    assert look("allow tcp/22", "allow tcp/443")["firewall"].state == "unknown"


def test_who_may_not_read_the_rules_knows_nothing(tmp_path):
    """Without the right to administer the network every tool refuses."""
    script = (
        "import json, sys; from test_security_firewall import *; "
        "params = {'firewall': 'required', 'state_dir': sys.argv[1]}; "
        "found = security_firewall.look(Review(filled(OPTIONS, params), Host(), False, Host().now())); "
        "print(json.dumps([one.state for one in found]))"
    )
    told = run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", script, str(tmp_path))
    assert json.loads(told) == ["unknown"]
