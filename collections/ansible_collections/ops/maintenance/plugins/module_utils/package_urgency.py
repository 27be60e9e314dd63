# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the host how urgent its pending security updates are: advisories, changelogs in the cache, what earlier runs kept."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime

from . import apt_archives, osv, package_deadlines, package_osv, package_severity
from .apt_packages import LISTS_DIR, Pending, Update
from .errors import MaintenanceError
from .host import Host
from .package_deadlines import Deadlines
from .package_severity import Advisory, Severity
from .record import Finding

_OS_RELEASE = re.compile(r'^([A-Z_]+)="?([^"\n]*)"?$', re.M)


def deadlines(params: t.Mapping[str, t.Any], pending: Pending, host: Host, check_mode: bool, lists: str = LISTS_DIR) -> Deadlines:
    """Return the deadlines of the pending security updates, and keep on the host when each was first seen.

    :param lists: folder of the package lists in use.
    """
    updates = pending.security
    sources = source_names(host, [update.name for update in updates]) if params["advisories"] else {}
    advisories, problem, as_of = _advisories(params["advisories"], sources, host.now()) if updates else ([], "", "")
    severities = {
        update.name: package_severity.severity_of(
            update,
            params["severities"],
            [
                Severity(package_severity.level_of(update.severity), "archive", package_severity.moment(update.issued)),
                package_severity.of_advisories(update, sources.get(update.name, ""), advisories),
                _of_cached_changelog(host, update),
            ],
        )
        for update in updates
    }
    now = host.now()
    state, unread = package_deadlines.read(params["state_dir"])
    published = {name: time for name, time in apt_archives.published(lists).items() if name in pending.security_archives}
    state = package_deadlines.remember(state, updates, published, now)
    due = package_deadlines.judge(updates, severities, state, now, params)
    unkept: list[Finding] = []
    if not check_mode and not unread and not pending.blind():
        open_window = {"window": now.isoformat()} if params["deadline"] else {}
        unkept = package_deadlines.keep(params["state_dir"], {**state, **open_window})
    return Deadlines(due, problem or unread, as_of, tuple(unkept))


def _advisories(path: str, sources: t.Mapping[str, str], now: datetime) -> tuple[list[Advisory], str, str]:
    """Return the advisories, why there are none, and how old they are where that is too old."""
    if not path:
        return [], "", ""
    try:
        if not package_osv.is_database(path):
            return package_severity.load_advisories(path, os_release().get("VERSION_CODENAME", "")), "", ""
        database = package_osv.load(path, ecosystem(os_release()), {*sources, *sources.values()})
    except MaintenanceError as error:
        return [], str(error), ""
    old = osv.is_older(database.modified, now, package_osv.STALE_DAYS)
    said = f"the advisories end at {database.modified or 'no date'}" if old else ""
    unreadable = f"{database.unreadable} advisories could not be read" if database.unreadable else ""
    return database.advisories, "", "; ".join(filter(None, (said, unreadable)))


def os_release(path: str = "/etc/os-release") -> dict[str, str]:
    """Return what the system says of itself; nothing where it says nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return dict(_OS_RELEASE.findall(source.read()))
    except OSError:
        return {}


def ecosystem(release: t.Mapping[str, str]) -> str:
    """Return what OSV calls a release: ``Debian:12``, ``Ubuntu:22.04``."""
    return f"{release.get('ID', '').capitalize()}:{release.get('VERSION_ID', '')}"


def source_names(host: Host, names: t.Sequence[str]) -> dict[str, str]:
    """Return the source package of each package, as advisories name them; nothing where the host has no dpkg."""
    if not names or not host.which("dpkg-query"):
        return {}
    ran = host.run(["dpkg-query", "-W", "-f", "${binary:Package}\t${source:Package}\n", "--", *names])
    pairs = (line.split("\t", 1) for line in ran.stdout.splitlines() if "\t" in line)
    found = dict(pairs)
    return {name: found.get(name) or found.get(name.partition(":")[0], "") for name in names} | {
        name.partition(":")[0]: source for name, source in found.items() if name.partition(":")[0] in names
    }


def _of_cached_changelog(host: Host, update: Update) -> Severity:
    deb = apt_archives.cached(update.name, update.security_version)
    text = apt_archives.changelog_of(host, deb, update.name) if deb else ""
    return package_severity.of_changelog(text, update.installed) if text else Severity()
