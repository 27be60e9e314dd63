# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the files of installed packages are as their packages brought them: dpkg's own sums read in one pass, or ``rpm -Va``."""

from __future__ import annotations

import os
import tempfile
import typing as t

from . import security_dpkg, security_rpm, security_walk
from .errors import MaintenanceError
from .judge import many
from .record import Finding
from .security_common import Review, shown, unknown, why_unread
from .security_dpkg import Checked

OPTIONS: dict[str, t.Any] = {"package_integrity": {"type": "bool", "default": False}}
IDS = ("security.package_files", "security.package_conffiles")
_SUBJECT = "packages"
_ROOT_CAVEAT = "an intruder with root can change the recorded sums too"
_MOST_PACKAGES = 30


def look(review: Review, root: str = "/") -> list[Finding]:
    """Check every installed package with what its package manager recorded."""
    try:
        if os.path.exists(os.path.join(root, security_dpkg.STATUS)):
            checked = security_dpkg.check(root, security_walk.until(review.params))
        elif review.host.which("rpm"):
            checked = security_rpm.check(review.host, review.params["integrity_seconds"])
        else:
            what_to_do = "Turn package_integrity off for this host, or install the package manager's own tool."
            return [unknown(IDS[0], _SUBJECT, "this host has neither dpkg's database nor rpm", what_to_do)]
    except (OSError, MaintenanceError) as error:
        advice = "Run with become: true, or repair the package database."
        return [unknown(IDS[0], _SUBJECT, f"the packages could not be checked: {why_unread(error)}", advice)]
    review.count("security.package_files", _SUBJECT, checked.looked)
    return verdicts(checked)


def verdicts(checked: Checked) -> list[Finding]:
    """Return a finding for each changed package, so that one can be waived, or one for all of them."""
    findings = [_changed(name, lines, _SEVERITY[name in checked.grave]) for name, lines in sorted(checked.changed.items())[:_MOST_PACKAGES]]
    hidden = len(checked.changed) - len(findings)
    if hidden:
        advice = "So many changed packages are an intrusion, a damaged disk or an interrupted upgrade: look at them first."
        findings.append(Finding(IDS[0], "critical", _SUBJECT, f"{hidden} more packages have changed files", advice=advice))
    if not findings or checked.unread:
        findings.append(_all_of_them(checked))
    return [*findings, _conffiles(checked)]


_SEVERITY = {True: "critical", False: "warning"}


def _changed(name: str, lines: t.Sequence[str], state: str) -> Finding:
    return Finding(
        IDS[0],
        state,
        name,
        f"{many(len(lines), 'file is', 'files are')} not as the package brought them",
        value=len(lines),
        unit="count",
        threshold="critical for another content, warning for a missing file",
        not_covered=_ROOT_CAVEAT,
        advice="Compare with the package, install it again, and find out who changed it; waive what was changed on purpose.",
        evidence=list(lines[:20]),
    )


def _all_of_them(checked: Checked) -> Finding:
    unsummed = f"{many(len(checked.without_sums), 'package')} without sums: {', '.join(checked.without_sums[:10])}"
    gaps = [*checked.unread[:5], *([unsummed] if checked.without_sums else []), _ROOT_CAVEAT]
    state = "unknown" if checked.unread or not checked.looked else "ok"
    what = many(checked.looked, "file")
    return Finding(
        IDS[0],
        state,
        _SUBJECT,
        f"{what} of {many(checked.packages, 'package')} looked at" + ("" if state == "ok" else ", not all that there are"),
        value=len(checked.unread),
        unit="count",
        threshold="critical for another content, warning for a missing file",
        not_covered="; ".join(gaps),
        advice="" if state == "ok" else "Run with become: true, or raise security_review_integrity_seconds.",
    )


def _conffiles(checked: Checked) -> Finding:
    return Finding(
        IDS[1],
        "ok",
        _SUBJECT,
        f"{many(len(checked.conffiles), 'configuration file')} not as packaged, which is what they are for",
        value=len(checked.conffiles),
        unit="count",
        threshold="none; declare a tree (security_review_trees) for what must not change",
        evidence=[shown(line) for line in checked.conffiles[:20]],
    )


def passes_bad_sample(_review: Review) -> str:
    """Plant a package with a changed file; return it when it is not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as root:
        info = os.path.join(root, security_dpkg.INFO)
        os.makedirs(info)
        for path, text in (
            (os.path.join(root, security_dpkg.STATUS), "Package: planted\nStatus: install ok installed\nArchitecture: all\n"),
            (os.path.join(info, "planted.md5sums"), "d41d8cd98f00b204e9800998ecf8427e  planted\n"),
            (os.path.join(root, "planted"), "no longer empty"),
        ):
            with open(path, "w", encoding="ascii") as sample:
                sample.write(text)
        return "" if security_dpkg.check(root, security_walk.until({"integrity_seconds": 10})).changed else "a changed file of a package"
