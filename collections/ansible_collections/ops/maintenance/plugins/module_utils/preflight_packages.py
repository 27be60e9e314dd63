# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the package manager of a host is free and in order: dpkg, or rpm with dnf."""

from __future__ import annotations

import os

from . import apt_lock, dnf_lock, dnf_packages
from .errors import MaintenanceError
from .host import Host
from .judge import many
from .record import Finding

DPKG = "/var/lib/dpkg"
APT_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")

ID = "preflight.package_manager"


def look(timeout: float, host: Host) -> Finding:
    """Judge the package manager that the host has; nothing is changed, and no lock is taken."""
    if os.path.isdir(DPKG):
        subject, problem_of, mend = "dpkg", _dpkg_problem, "dpkg --configure -a"
    elif host.which("rpm"):
        subject, problem_of, mend = "rpm", _rpm_problem, "dnf check, then dnf history and dnf distro-sync of what is named"
    else:
        words = "Not applicable: this host has neither dpkg nor rpm, the package managers that maintenance works with."
        return Finding(ID, "ok", "packages", words, not_covered="any other package manager")
    try:
        problem = problem_of(timeout, host)
    except PermissionError:
        words = f"This account (uid {os.geteuid()}) may not see whether the package manager is free."
        return Finding(ID, "unknown", subject, words, advice="Run it with become: true.")
    except MaintenanceError as error:
        return Finding(ID, "critical", subject, str(error), advice="Mend the package database before the maintenance.")
    return Finding(
        ID,
        "critical" if problem else "ok",
        subject,
        f"The package manager is not free: {problem}." if problem else "The package manager is free.",
        threshold=f"critical after {timeout} seconds",
        advice=f"Wait for it, or mend it with: {mend}" if problem else "",
        not_covered="unmet dependencies (dnf check)" if subject == "rpm" else "",
    )


def _dpkg_problem(timeout: float, host: Host) -> str:
    waited = apt_lock.wait(host, timeout, lambda: apt_lock.holder(APT_LOCKS))
    if not waited.free:
        return f"{waited.holder} holds the lock"
    try:
        interrupted = any(name.isdigit() for name in os.listdir(os.path.join(DPKG, "updates")))
    except FileNotFoundError:
        interrupted = False
    return "an earlier installation was interrupted" if interrupted else ""


def _rpm_problem(timeout: float, host: Host) -> str:
    """Look at the locks of rpm and dnf, and for packages that an interrupted transaction left in two versions.

    :raises MaintenanceError: the package database is not there, or cannot be read.
    """
    folder, _lock = dnf_lock.places(host)
    if not os.path.isdir(folder):
        raise MaintenanceError(f"The package database of rpm is not in {folder}, where rpm looks for it.")
    waited = apt_lock.wait(host, timeout, lambda: dnf_lock.holder(host))
    if not waited.free:
        return f"{waited.holder} holds the lock"
    rows = dnf_packages.rpm_rows(host)
    if not rows:
        raise MaintenanceError(f"The package database in {folder} names no package, which no installed system has.")
    packages = dnf_packages.installed_of(rows, dnf_packages.several_versions(host, rows))
    twice = sorted(name for name, package in packages.items() if package.flag != "ok")
    return f"an earlier transaction was interrupted, {many(len(twice), 'package')} in two versions: {', '.join(twice[:5])}" if twice else ""
