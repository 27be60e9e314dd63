# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worked before an update and does not after it, and the way back."""

from __future__ import annotations

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import apt_downgrade, apt_packages
from ansible_collections.ops.maintenance.plugins.module_utils import package_regression as regression

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
