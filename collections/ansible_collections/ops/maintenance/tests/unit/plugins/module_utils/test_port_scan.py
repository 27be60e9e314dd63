# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import port_scan
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled


def report(*ports, address="192.0.2.10", end='exit="success"', timed_out=False, name="http"):
    lines = "".join(
        f'<port protocol="tcp" portid="{port}"><state state="{state}"/><service name="{name}"/></port>' for port, state in ports
    )
    late = ' timedout="true"' if timed_out else ""
    return (
        f'<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun><host{late}><address addr="{address}" addrtype="ipv4"/>'
        f"<ports>{lines}</ports></host><runstats><finished {end}/></runstats></nmaprun>"
    )


class Scanner(Host):
    """A machine whose nmap answers what it is given; None: there is no nmap."""

    def __init__(self, *answers, rc=0):
        self.answers, self.rc, self.asked = list(answers), rc, []

    def run(self, argv, **_):
        self.asked.append(argv)
        answer = self.answers.pop(0)
        if answer is None:
            raise MaintenanceError("The command nmap is not installed; install it or change the inventory.")
        return Ran(argv, self.rc, answer, "")


def scanned(host, check_mode=False, **given_options):
    options = {"addresses": ["192.0.2.10"], "authorised_by": "Mia, 2026-11-02", "expected": ["tcp/22", "tcp/443"], **given_options}
    return port_scan.run(filled(port_scan.OPTIONS, options), check_mode, host)


def test_expected_ports_are_ok_and_others_are_critical():
    found = scanned(Scanner(report((22, "open"), (443, "open"), (80, "closed")))).findings[0]
    assert (found.state, found.value) == ("ok", 0)
    outcome = scanned(Scanner(report((22, "open"), (5432, "open"))), check_mode=True)
    assert (outcome.state, outcome.is_change) == ("critical", False)
    assert list(outcome.findings[0].evidence) == [
        "open, not expected: tcp/5432 (http)",
        "expected, not open: tcp/443",
        "allowed by Mia, 2026-11-02",
    ]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (Scanner(None), "not installed"),
        (Scanner("", rc=1), "nmap ended with 1"),
        (Scanner("no report"), "could not be read"),
        (Scanner(report((22, "open"), end='exit="error" errormsg="no route"')), "no route"),
        (Scanner(report((22, "open")).replace("<runstats>", "<x>").replace("</runstats>", "</x>")), "did not finish"),
        (Scanner(report((22, "open"), timed_out=True)), "in time"),
        (Scanner(report((22, "open"), address="192.0.2.11")), "does not tell of it"),
        (Scanner(report((22, "open")).replace("<!DOCTYPE nmaprun>", '<!DOCTYPE n [<!ENTITY a "aaaa">]>')), "entities"),
    ],
)
def test_what_was_not_scanned_as_a_whole_is_unknown(host, said):
    found = scanned(host).findings[0]
    assert (found.state, said in found.summary) == ("unknown", True)


def test_each_family_is_scanned_by_itself():
    host = Scanner(report((22, "open")), report((22, "open"), address="2001:db8::10"))
    outcome = scanned(host, addresses=["192.0.2.10", "2001:0db8::10"])
    assert outcome.state == "ok"
    assert ["-6" in argv for argv in host.asked] == [False, True]


def test_where_no_expected_port_answers_it_may_be_another_machine():
    found = scanned(Scanner(report((80, "closed")))).findings[0]
    assert (found.state, "another machine" in found.summary) == ("unknown", True)
    assert scanned(Scanner(report((80, "closed"))), expected=[]).state == "ok"


def as_root(monkeypatch):
    monkeypatch.setattr(port_scan.os, "geteuid", lambda: 0)


UDP = (
    '<port protocol="udp" portid="53"><state state="open"/><service name="domain"/></port>'
    '<port protocol="udp" portid="123"><state state="open|filtered"/></port><extraports state="open|filtered" count="3"/>'
)


def test_udp_ports_are_judged_where_they_answer_and_named_where_not(monkeypatch):
    as_root(monkeypatch)
    host = Scanner(report((22, "open")).replace("</ports>", UDP + "</ports>"))
    found = scanned(host, udp_ports="53,123,161-163").findings[0]
    assert host.asked[0][5:9] == ["-sS", "-sU", "-p", "T:1-65535,U:53,123,161-163"]
    assert (found.state, found.evidence[0]) == ("critical", "open, not expected: udp/53 (domain)")
    assert "4 UDP ports that gave no answer" in found.not_covered


@pytest.mark.parametrize(("system", "state"), [("Linux 5.4", "ok"), ("F5 BIG-IP", "warning"), ("", "unknown")])
def test_the_system_is_judged_and_not_only_listed(system, state, monkeypatch):
    """neff-quarterly-01: nmap -sS -O, compared with what is declared."""
    as_root(monkeypatch)
    match = f'<os><osmatch name="{system}" accuracy="96"/><osmatch name="Linux 2.6" accuracy="85"/></os>' if system else "<os/>"
    host = Scanner(report((22, "open")).replace("</host>", match + "</host>"))
    ports, found = scanned(host, detect_os=True).findings
    assert host.asked[0][5:7] == ["-sS", "-O"]
    assert (ports.state, found.id, found.state) == ("ok", "security.scanned_os", state)


@pytest.mark.parametrize("options", [{"udp_ports": "53"}, {"detect_os": True}])
def test_what_needs_root_is_unknown_without_it(options, monkeypatch):
    monkeypatch.setattr(port_scan.os, "geteuid", lambda: 1000)
    host = Scanner()
    outcome = scanned(host, **options)
    assert ({finding.state for finding in outcome.findings}, host.asked) == ({"unknown"}, [])
    assert "need root" in outcome.findings[0].summary


def test_a_hostile_banner_is_inert():
    found = scanned(Scanner(report((8080, "open"), name="x&#x9b;31m&lt;script&gt;"))).findings[0]
    assert found.evidence[0] == "open, not expected: tcp/8080 (x\\x9b31m<script>)"


@pytest.mark.parametrize(
    "address", ["app.example.com", "192.0.2.0/24", "192.0.2.1-9", "224.0.0.1", "0.0.0.0", "-iL/etc/passwd", "fe80::1%eth0", ""]
)
def test_what_may_be_another_machine_is_refused(address):
    """neff-quarterly-01: behind a CDN, a name leads to the provider."""
    host = Scanner()
    with pytest.raises(InputError):
        scanned(host, addresses=[address])
    assert host.asked == []


def test_a_scan_needs_a_named_authorisation_and_ports_that_can_be_meant():
    with pytest.raises(InputError, match="authorised_by"):
        scanned(Scanner(), authorised_by=" ")
    for wrong in (
        {"ports": "all"},
        {"ports": "1-70000"},
        {"expected": ["443"]},
        {"expected": ["tcp/70000"]},
        {"udp_ports": "x"},
        {"detect_os": True, "expected_os": " "},
        {"seconds": 0.0},
    ):
        with pytest.raises(InputError):
            scanned(Scanner(), **wrong)


def test_no_address_is_unknown():
    assert scanned(Scanner(), addresses=[]).state == "unknown"


@given(st.text())
def test_any_text_is_read_or_refused(text):
    with pytest.raises(MaintenanceError):
        port_scan.parse(text, ["192.0.2.10"])
