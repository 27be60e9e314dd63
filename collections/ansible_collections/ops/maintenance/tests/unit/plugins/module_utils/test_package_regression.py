# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worked before an update and does not after it, and the way back."""

from __future__ import annotations

import contextlib
import pathlib
import socket

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import apt_downgrade, apt_packages
from ansible_collections.ops.maintenance.plugins.module_utils import package_regression as regression
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran

BEFORE = {
    "services": ["app.service", "hostnamed.service", "once.service", "web.service"],
    "failed": ["old.service"],
    "listening": ["tcp/0.0.0.0:22", "tcp/0.0.0.0:80", "tcp/127.0.0.1:6010"],
    "mounts": ["/", "/data"],
    "kernel": "6.1.0-9-amd64",
}
ENABLED = {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "enabled"}


def said(units=None, **now) -> list[str]:
    return [one.said for one in regression.compare_with(BEFORE, {**BEFORE, **now}, units or {})]


def test_same_and_more_is_no_regression():
    assert said() == []
    assert said(failed=[], services=[*BEFORE["services"], "new.service"], kernel="6.1.0-10-amd64", mounts=["/", "/data", "/new"]) == []


def test_service_that_failed_vanished_or_does_not_come_up_is_one():
    assert said(failed=["old.service", "web.service"]) == ["web.service has failed"]
    units = {"web.service": ENABLED, "app.service": {**ENABLED, "ActiveState": "activating", "SubState": "auto-restart"}}
    assert said(units, services=["hostnamed.service", "once.service"]) == [
        "app.service does not come up (auto-restart)",
        "web.service runs no more",
    ]
    assert said({"web.service": {"LoadState": "not-found"}}, services=BEFORE["services"][:3]) == ["web.service is gone"]


def test_service_that_is_started_on_demand_may_have_ended():
    static = {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "static"}
    assert said({"hostnamed.service": static}, services=["app.service", "once.service", "web.service"]) == []


def test_ports_mounts_and_an_older_kernel_are_regressions_and_a_session_is_not():
    assert said(listening=["tcp/0.0.0.0:22"]) == ["nothing listens on tcp/0.0.0.0:80 any more"]
    assert said(mounts=["/"]) == ["/data is not mounted any more"]
    assert "the newer 6.1.0-9-amd64" in said(kernel="6.1.0-8-amd64")[0]


class Still(Host):
    """A host without systemd's units and without waiting."""

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile

    def run(self, argv, **_more):
        return Ran(argv, 0, "", "")

    def sleep(self, _seconds):
        self.meanwhile()


TABLES = {
    "tcp": [("00000000:0016", "0A"), ("0100007F:0019", "01"), ("00000000:C000", "0A")],
    "tcp6": [],
    "udp": [
        ("00000000:0035", "07"),  # domain
        ("0100007F:0143", "07"),  # chronyd's orders
        ("00000000:0202", "01"),  # connected: a client
        ("00000000:0044", "07"),  # the client of DHCP
        ("00000000:02A1", "07"),  # port 673, an RPC program's for this once
        ("00000000:C000", "07"),  # handed out
    ],
    "udp6": [("00000000000000000000000000000000:006F", "07")],
}


@pytest.fixture
def proc(tmp_path):
    for folder in ("net", "self", "sys/net/ipv4"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    (tmp_path / "self/mountinfo").write_text("")
    for name, rows in TABLES.items():
        write_table(tmp_path, name, rows)
    return tmp_path


def write_table(proc, name, rows):
    (proc / "net" / name).write_text("".join(["head\n", *(f" 1: {local} 00:00 {kind} 0\n" for local, kind in rows)]))


SERVING = ["tcp/0.0.0.0:22", "udp/0.0.0.0:53", "udp/127.0.0.1:323", "udp/:::111"]


def test_ports_of_both_protocols_count_and_those_of_clients_do_not(proc):
    assert regression.listening(str(proc)) == SERVING
    for name in ("tcp6", "udp6"):
        (proc / "net" / name).unlink()  # no IPv6
    assert regression.listening(str(proc)) == SERVING[:3]


def test_port_of_a_resolver_that_was_only_asking_is_not_remembered_and_one_that_stays_is(proc):
    asking, serving = ("00000000:1F40", "07"), ("00000000:04AA", "07")
    write_table(proc, "udp", [*TABLES["udp"], asking, serving])
    host = Still(meanwhile=lambda: write_table(proc, "udp", [*TABLES["udp"], serving]))
    assert regression.remember(host, str(proc))["listening"] == sorted([*SERVING, "udp/0.0.0.0:1194"])


@pytest.mark.parametrize(
    ("before", "now", "gone"),
    [
        ("udp/2001:db8::5:123", "udp/2001:db8::7:123", False),  # another temporary address
        ("udp/2001:db8::5:123", "udp/2001:db8::7:53", True),
        ("udp/192.0.2.1:53", "udp/127.0.0.1:53", True),  # now for the host alone
        ("udp/0.0.0.0:53", "udp/192.0.2.1:53", True),
        ("udp/:::53", "udp/192.0.2.1:53", True),
        ("tcp/192.0.2.1:53", "tcp/192.0.2.7:53", True),
        ("tcp/192.0.2.1:53", "udp/192.0.2.1:53", True),
    ],
)
def test_a_port_over_udp_may_move_to_another_address_of_the_host(before, now, gone):
    listening = BEFORE["listening"]
    found = regression.compare_with({**BEFORE, "listening": [*listening, before]}, {**BEFORE, "listening": [*listening, now]}, {})
    assert bool(found) is gone


def test_a_real_socket_over_udp_is_seen_while_it_waits():
    least = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        for port in range(least - 1, 1024, -1):
            with contextlib.suppress(OSError):
                waiting.bind(("127.0.0.1", port))
                break
        mine = f"udp/127.0.0.1:{waiting.getsockname()[1]}"
        before = {**BEFORE, "listening": regression.listening("/proc")}
        assert mine in before["listening"]
    now = {**before, "listening": regression.listening("/proc")}
    said_of_it = [one.said for one in regression.compare_with(before, now, {})]
    assert f"nothing listens on {mine} any more" in said_of_it


def test_units_are_read_by_their_state():
    text = (
        "cron.service loaded active running Regular background program\n"
        "bad.service loaded failed failed A bad one\n"
        "once.service loaded active exited Done\n"
        "gone.service not-found inactive dead gone.service\n\n"
    )
    assert regression.parse_units(text) == (["cron.service"], ["bad.service"])


def test_finding_names_the_packages_the_cause_and_the_way_back():
    found = [regression.Regression("web.service has failed", "web.service")]
    judged = regression.finding(found, ["openssl", "web"], ["web"], ["web=1.0"], "apt-get install --allow-downgrades")
    assert judged.state == "critical"
    assert all(word in judged.summary for word in ("openssl, web", "web.service has failed", "web is the likely cause"))
    assert "apt-get install --allow-downgrades web=1.0" in judged.advice
    assert "snapshot" in regression.finding(found, ["web"], [], [], "apt-get").advice
    assert regression.finding([], ["web"], [], [], "apt-get").state == "ok"
    assert regression.unseen("no systemd").state == "unknown"


def test_old_versions_that_were_not_looked_for_are_not_called_gone():
    found = [regression.Regression("web.service has failed", "web.service")]
    judged = regression.finding(found, ["web"], [], [], "dnf downgrade", "dnf could not say which old versions are offered")
    assert (judged.state, "old versions" in judged.not_covered) == ("critical", True)
    assert "No old version" not in judged.advice
    assert "dnf downgrade" in judged.advice


POLICY = """web:
  Installed: 1.1
  Candidate: 1.1
  Version table:
 *** 1.1 500
        500 copy:/srv stable-security/main amd64 Packages
        100 /var/lib/dpkg/status
     1.0 500
        500 copy:/srv stable/main amd64 Packages
"""


@pytest.mark.parametrize(
    ("old", "cache", "spec"),
    [("1.0", "", "web=1.0"), ("0.9", "/cache/web_0.9_all.deb", "/cache/web_0.9_all.deb"), ("0.9", "", "")],
)
def test_way_back_is_an_archive_else_the_cache_else_nothing(old, cache, spec):
    policies = apt_packages.parse_policy(POLICY, {})
    plan = [{"name": "web", "installed": old, "version": "1.1"}, {"name": "new", "installed": "", "version": "1"}]
    found = apt_downgrade.ways(plan, policies, lambda _name, _version: cache)
    assert [way.spec for way in found] == [spec]
