# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_firewall, security_firewall_rules
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled
from ansible_collections.ops.maintenance.plugins.module_utils.security_firewall_rules import Opening, Ruleset

OPTIONS = {**security_firewall.OPTIONS, "state_dir": {"type": "path"}, "accept_baseline": {"type": "bool", "default": False}}
LEFT_TCP = {"payload": {"protocol": "tcp", "field": "dport"}}
SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}


def match(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


def nft(*rules, policy="drop", family="inet", chains=()):
    """What nft prints for one table with a chain for input, as JSON and plainly."""
    told = [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": family, "name": "filter"}}]
    base = {"family": family, "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}
    told += [{"chain": base}] + [{"chain": {"family": family, "table": "filter", "name": name}} for name, _rules in chains]
    for name, its in [("input", rules), *chains]:
        told += [{"rule": {"family": family, "table": "filter", "chain": name, "handle": 4, "expr": list(rule)}} for rule in its]
    body = "".join(f"\t\t{json.dumps(rule)}\n" for rule in rules)
    plain = f"table {family} filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy {policy};\n{body}\t}}\n}}\n"
    return json.dumps({"nftables": told}), plain


LOOPBACK = [match({"meta": {"key": "iifname"}}, "lo"), {"accept": None}]
ESTABLISHED = [match({"ct": {"key": "state"}}, ["established", "related"], "in"), {"accept": None}]
SSH = [
    match(SOURCE, {"prefix": {"addr": "192.168.1.0", "len": 24}}),
    match(LEFT_TCP, 22),
    {"counter": {"packets": 3, "bytes": 9}},
    {"accept": None},
]
WEB = [match(LEFT_TCP, {"set": [80, 443, {"range": [8000, 8010]}]}), {"accept": None}]
USUAL = (LOOPBACK, ESTABLISHED, SSH, WEB)
DECLARED = ["allow tcp/22 from 192.168.1.0/24", "allow tcp/80", "allow tcp/443", "allow tcp/8000-8010"]


class Walls(Host):
    """A host with the tools whose answers are given; one that is None ends with an error."""

    def __init__(self, enabled=("nftables",), **tools):
        self.enabled, self.tools = enabled, tools

    def which(self, name):
        return f"/usr/sbin/{name}" if name.replace("-", "_") in self.tools else None

    def run(self, argv, **_):
        if argv[0] == "systemctl":
            units = [word.removesuffix(".service") for word in argv[3:]]
            states = {unit: "enabled" if unit in self.enabled else "disabled" for unit in units}
            return Ran(argv, 0, "\n".join(f"Id={unit}.service\nUnitFileState={state}\n" for unit, state in states.items()), "")
        answer = self.tools[argv[0].replace("-", "_")]
        if answer is None:
            return Ran(argv, 1, "", "Operation not permitted (you must be root)")
        if argv[0] == "nft":
            return Ran(argv, 0, answer[0] if "-j" in argv else answer[1], "")
        return Ran(argv, 0, answer, "")


@pytest.fixture(autouse=True)
def both_families(monkeypatch):
    monkeypatch.setattr(security_firewall, "_families", lambda: ("IPv4", "IPv6"))


def reviewed(tmp_path, host, **given_options):
    params = filled(OPTIONS, {"state_dir": str(tmp_path / "state"), "firewall": "required", **given_options})
    found = security_firewall.look(Review(params, host, False, Host().now()))
    return {finding.id.removeprefix("security."): finding for finding in found}


def test_a_closed_firewall_as_declared_stays_silent(tmp_path):
    found = reviewed(tmp_path, Walls(nft=nft(*USUAL)), firewall_rules=DECLARED)
    assert {name: finding.state for name, finding in found.items()} == dict.fromkeys(
        ("firewall", "firewall_rules", "firewall_drift", "firewall_boot"), "ok"
    )


@pytest.mark.parametrize(
    ("ruleset", "state"),
    [
        (nft(*USUAL, policy="accept"), "critical"),
        (nft(*USUAL, [{"drop": None}], policy="accept"), "ok"),
        (nft(*USUAL, [{"reject": {"type": "icmpx"}}], policy="accept"), "ok"),
        (nft(*USUAL, [{"accept": None}]), "critical"),
        (nft(*USUAL, [{"counter": None}, {"accept": None}]), "critical"),
        (nft(*USUAL, family="ip"), "critical"),
        (nft([{"jump": {"target": "rest"}}], chains=[("rest", [[{"accept": None}]])]), "critical"),
    ],
)
def test_what_no_rule_expects_has_to_be_refused_over_both_families(tmp_path, ruleset, state):
    assert reviewed(tmp_path, Walls(nft=ruleset))["firewall"].state == state


def test_a_host_without_ipv6_needs_no_rules_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(security_firewall, "_families", lambda: ("IPv4",))
    assert reviewed(tmp_path, Walls(nft=nft(*USUAL, family="ip")))["firewall"].state == "ok"


def test_no_firewall_at_all_is_never_ok(tmp_path):
    empty = ('{"nftables": [{"metainfo": {}}]}', "")
    assert reviewed(tmp_path, Walls(nft=empty))["firewall"].state == "critical"
    found = reviewed(tmp_path, Walls(nft=empty), firewall="review")["firewall"]
    assert (found.state, found.summary) == ("warning", "there is no firewall")


@pytest.mark.parametrize("host", [Walls(), Walls(nft=None), Walls(nft=("no json", "")), Walls(nft=("[]", "")), Walls(ufw=None)])
def test_a_firewall_that_cannot_be_read_is_unknown(tmp_path, host):
    assert reviewed(tmp_path, host)["firewall"].state == "unknown"


def test_rules_are_held_against_the_declared_list_both_ways(tmp_path):
    host = Walls(nft=nft(LOOPBACK, ESTABLISHED, WEB, [match(LEFT_TCP, 22), {"accept": None}]))
    found = reviewed(tmp_path, host, firewall_rules=DECLARED)["firewall_rules"]
    assert found.state == "warning"
    assert list(found.evidence) == [
        "declared, but not let in: tcp/22 from 192.168.1.0/24",
        "let in, but not declared: tcp/22 from any",
    ]


def test_a_rule_without_a_protocol_opens_udp_too(tmp_path):
    """flow-sec-9: without ``proto tcp`` the rule for ssh lets UDP in as well."""
    rules = "*filter\n:INPUT DROP [0:0]\n-A INPUT -s 192.168.1.0/24 -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    declared = ["allow tcp/22 from 192.168.1.0/24"]
    assert reviewed(tmp_path, Walls(iptables_save=rules), firewall_rules=declared)["firewall_rules"].state == "ok"
    both = rules.replace("COMMIT", "-A INPUT -s 192.168.1.0/24 -p udp -m udp --dport 22 -j ACCEPT\nCOMMIT")
    found = reviewed(tmp_path, Walls(iptables_save=both), firewall_rules=declared)["firewall_rules"]
    assert list(found.evidence) == ["let in, but not declared: udp/22 from 192.168.1.0/24"]


# As iptables-save of Debian 12 tells a ufw with "limit 53/udp", "allow 22/tcp" and a rule in before.rules.
UFW = """# Generated by iptables-save v1.8.9 (nf_tables) on Thu Nov 26 08:06:31 2026
*filter
:INPUT DROP [0:0]
:ufw-before-input - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
:ufw-user-limit - [0:0]
:ufw-user-limit-accept - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -p tcp -m tcp --dport 4444 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -d 239.255.255.250/32 -p udp -m udp --dport 1900 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p udp -m udp --dport 53 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
-A ufw-user-input -p udp -m udp --dport 53 -j ufw-user-limit-accept
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-user-limit -j REJECT --reject-with icmp-port-unreachable
-A ufw-user-limit-accept -j ACCEPT
COMMIT
"""


def test_what_ufw_lets_in_is_told_by_the_rules_it_made_and_its_own_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(security_firewall, "_families", lambda: ("IPv4",))
    host = Walls(ufw="Status: active\n", iptables_save=UFW, enabled=["ufw"])
    found = reviewed(tmp_path, host, firewall_rules=["allow tcp/22", "allow udp/53"])
    assert found["firewall"].state == "ok"
    assert list(found["firewall_rules"].evidence) == ["let in, but not declared: tcp/4444 from any"]
    inactive = Walls(ufw="Status: inactive\n", iptables_save="")
    found = reviewed(tmp_path, inactive)["firewall"]
    assert (found.state, found.summary) == ("critical", "there is no firewall (ufw is installed and not active)")


def test_ufw_counts_at_boot_only_where_it_is_told_to_start(tmp_path):
    """Its service is enabled from the installation on."""
    (tmp_path / "ufw").mkdir()
    host = Walls(ufw="Status: active\n", iptables_save=UFW, enabled=["ufw"])
    for text, state in (("ENABLED=no\n", "warning"), ("ENABLED=yes\n", "ok")):
        (tmp_path / "ufw" / "ufw.conf").write_text(f"# ENABLED=yes\n{text}")
        params = filled(OPTIONS, {"state_dir": str(tmp_path / "state"), "firewall": "required"})
        found = security_firewall.look(Review(params, host, False, Host().now(), str(tmp_path)))
        assert [one.state for one in found if one.id == "security.firewall_boot"] == [state]


@pytest.mark.parametrize("declared", ["allow any/53", "allow tcp/53", "allow udp/53"])
def test_a_rule_for_any_protocol_stands_for_tcp_and_udp(declared):
    rules = Ruleset(openings={Opening("tcp", "53", "any"), Opening("udp", "53", "any")})
    assert security_firewall.as_declared(rules, [declared]).state == ("ok" if "any" in declared else "warning")
    rules = Ruleset(openings={Opening("any", "53", "any")})
    assert security_firewall.as_declared(rules, [declared]).state == ("ok" if "any" in declared else "warning")


def test_rules_of_the_old_iptables_count_beside_those_of_the_new_one(tmp_path, monkeypatch):
    names = tmp_path / "names"
    names.write_text("filter\n")
    monkeypatch.setattr(security_firewall, "_families", lambda: ("IPv4",))
    monkeypatch.setattr(security_firewall, "_TABLES", {"ip": ("iptables", str(names))})
    old = (
        "# Generated by iptables-save v1.8.9 on Thu\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 7777 -j ACCEPT\nCOMMIT\n"
    )
    found = reviewed(tmp_path, Walls(iptables_save=UFW, iptables_legacy_save=old), firewall_rules=["allow tcp/22", "allow udp/53"])
    assert "let in, but not declared: tcp/7777 from any" in found["firewall_rules"].evidence
    blind = reviewed(tmp_path, Walls(iptables_save=UFW), firewall_rules=["allow tcp/22", "allow udp/53", "allow tcp/4444"])
    assert (blind["firewall_rules"].state, "iptables-legacy" in blind["firewall_rules"].not_covered) == ("unknown", True)


def test_ports_that_docker_publishes_pass_the_rules_by_and_are_told(tmp_path):
    """flow-sec-9: what Docker publishes never meets the rules for input."""
    rules = (
        "*nat\n:DOCKER - [0:0]\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n"
        "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
    )
    found = reviewed(tmp_path, Walls(iptables_save=rules, ip6tables_save="*filter\n:INPUT DROP [0:0]\nCOMMIT\n"), firewall_rules=[])
    assert found["firewall"].state == "ok"
    assert "published by Docker past these rules: tcp/8080" in found["firewall"].evidence
    assert list(found["firewall_rules"].evidence) == ["let in, but not declared: tcp/8080 from any"]


def test_rules_of_iptables_that_nft_cannot_tell_are_not_taken_for_none(tmp_path):
    told, plain = nft([{"xt": {"type": "match", "name": "tcp"}}, {"accept": None}], policy="accept")
    found = reviewed(tmp_path, Walls(nft=(told, plain)), firewall_rules=[])
    assert (found["firewall"].state, found["firewall_rules"].state) == ("unknown", "unknown")
    saved = "# iptables-save v1.8.9 (nf_tables)\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP\nCOMMIT\n"
    told = told.replace('"inet"', '"ip"')  # what iptables makes lies in tables of one family
    host = Walls(nft=(told, plain.replace("inet", "ip")), iptables_save=saved, ip6tables_save=saved)
    found = reviewed(tmp_path, host, firewall_rules=["allow tcp/22"])
    assert (found["firewall"].state, found["firewall_rules"].state) == ("ok", "ok")


def test_chains_that_are_jumped_to_are_followed_and_a_circle_ends():
    rules = Ruleset()
    saved = (
        "*filter\n:INPUT DROP [0:0]\n:web - [0:0]\n-A INPUT -s 10.0.0.0/8 -j web\n-A web -j web\n"
        "-A web -p tcp -m multiport --dports 80,443 -j ACCEPT\nCOMMIT\n"
    )
    security_firewall_rules.read_iptables(saved, "ip", rules)
    assert rules.closed == {"IPv4": True}
    assert rules.openings == {Opening("tcp", "80", "10.0.0.0/8"), Opening("tcp", "443", "10.0.0.0/8")}


def test_drift_is_told_and_counters_and_banned_addresses_are_not(tmp_path):
    assert "first sight" in reviewed(tmp_path, Walls(nft=nft(*USUAL)))["firewall_drift"].summary
    assert reviewed(tmp_path, Walls(nft=nft(*USUAL)))["firewall_drift"].value == 0
    told, plain = nft(*USUAL)
    banned = plain + "table inet f2b-table {\n\tset addr-set-sshd {\n\t\telements = { 192.0.2.1 }\n\t}\n}\n"
    assert reviewed(tmp_path, Walls(nft=(told, banned)))["firewall_drift"].value == 0
    found = reviewed(tmp_path, Walls(nft=nft(*USUAL, [match(LEFT_TCP, 4444), {"accept": None}])))["firewall_drift"]
    assert found.state == "warning"
    assert any("4444" in line and line.startswith("added") for line in found.evidence)
    swapped = reviewed(tmp_path, Walls(nft=nft(*reversed(USUAL))))["firewall_drift"]
    assert (swapped.state, swapped.value) == ("warning", 1)


def test_rules_that_nothing_loads_at_boot_are_a_warning(tmp_path):
    assert reviewed(tmp_path, Walls(nft=nft(*USUAL), enabled=()))["firewall_boot"].state == "warning"

    class NoSystemd(Walls):
        def run(self, argv, **more):
            if argv[0] == "systemctl":
                raise MaintenanceError("The command systemctl is not installed.")
            return super().run(argv, **more)

    assert reviewed(tmp_path, NoSystemd(nft=nft(*USUAL)))["firewall_boot"].state == "unknown"


@pytest.mark.parametrize("text", ["tcp/22", "allow 22", "allow tcp/22 from everywhere", "allow tcp/22 from 192.168.1.0/33", "deny tcp/22"])
def test_rules_that_cannot_be_meant_are_refused(text):
    assert len(security_firewall.validate({"firewall_rules": [text]})) == 1
    assert security_firewall.validate({"firewall_rules": DECLARED}) == []
    assert security_firewall.validate({"firewall_rules": None}) == []


@given(st.text(max_size=200))
def test_any_text_of_a_tool_is_read_or_refused(text):
    rules = Ruleset()
    security_firewall_rules.read_iptables(text, "ip", rules)
    with pytest.raises(MaintenanceError):
        security_firewall_rules.nft_told(text)


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_firewall.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_firewall, "read_iptables", lambda _text, _family, rules: rules.closed.update(IPv4=True, IPv6=True))
    assert security_firewall.passes_bad_sample(review)
