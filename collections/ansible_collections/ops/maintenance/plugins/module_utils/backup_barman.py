# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of Barman: its catalogue and checks parsed, a backup verified, recovered and started by a throw-away PostgreSQL."""

from __future__ import annotations

import os
import re
import time
import typing as t

from . import backup_physical as physical
from .backup_adaptor import Around, Climb
from .backup_kinds import Verdict
from .backup_repository import OPTIONS, Json, Ladder, Tool, entry, name_of, problems_of, timed
from .backup_sets import Declared, Listing
from .errors import MaintenanceError
from .judge import human_bytes
from .postgresql_programs import installed_majors
from .postgresql_scratch import scratch_cluster
from .record import clean

_USER = "barman"
_UNFINISHED = ("WAITING_FOR_WALS", "STARTED", "SYNCING", "EMPTY")
# Checks that speak of what was kept; the others speak of the server now.
_OF_THE_STORE = ("directories", "systemid_coherence", "compression_settings")
_VERIFIED = "backup successfully verified"
_SEGMENT = re.compile(r"([0-9A-F]{24})(?:\.[a-z0-9]+)?$")


class Barman:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = OPTIONS
    needs_root = False

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
        """See :class:`backup_adaptor.Adaptor`."""
        yield from problems_of(declared, needs=("member",))
        yield from physical.problems(declared, params)

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List the backups that are done; what failed, or waits for write-ahead log, is none."""
        tool, server, listing = _tool(timed(declared, around)), declared["repository"]["member"], Listing()
        for backup in sorted(_asked(tool, "list-backups", server)[server], key=lambda item: item["backup_id"]):
            path, status = f"{server}::{backup['backup_id']}", backup.get("status", "FAILED")
            if status in _UNFINISHED:
                listing.unfinished.append(f"{path} ({status})")
            elif status != "DONE":
                listing.strange.append(f"{path} is {status}")
            else:
                listing.backups.append(entry(path, int(backup["size_bytes"]), float(backup["end_time_timestamp"]), around.zone))
        listing.backups.sort(key=lambda item: (item.moment, item.path))
        return listing

    def climb(self, climb: Climb) -> None:
        """See :class:`backup_adaptor.Adaptor`."""
        ladder = Ladder(climb)
        tool, server, name = _tool(ladder.declared), ladder.declared["repository"]["member"], name_of(climb.backup)
        shown: Json = {}
        with ladder.looking(1):
            shown = _asked(tool, "show-backup", server, name)[server]
            checked = tool.run("--format", "json", "check", server)
            files = tool.run("list-files", "--target", "standalone", server, name)
            ladder.rung(1, [*judge_check(tool.json_of(checked)[server]), *judge_log(shown, files.stdout if files.rc == 0 else None)])
            ladder.rung(1, _identity(shown, ladder.declared))
            kind = str((shown.get("base_backup_information") or {}).get("encryption") or "")
            ladder.encryption("ok" if kind else "critical", f"barman says of its encryption: {kind or 'none'}")
        if ladder.wants(2):
            with ladder.looking(2):
                ladder.rung(2, _verified(tool, server, name))
        if ladder.wants(3):
            with ladder.looking(3):
                _restored(ladder, tool, server, name, shown)


def _tool(declared: Declared) -> Tool:
    repository = {**declared["repository"], "os_user": declared["repository"]["os_user"] or _USER}
    return _Configured("barman", {**declared, "repository": repository})


class _Configured(Tool):
    """Barman with its configuration."""

    def __init__(self, name: str, declared: Declared) -> None:
        # pg_verifybackup lies beside the server's programs, which Debian keeps out of the path.
        folders = [f"/usr/lib/postgresql/{major}/bin" for major in reversed(installed_majors())]
        super().__init__(name, declared, {"PATH": ":".join(["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", *folders])})
        path = declared["repository"]["configuration"]
        self._always = ["--config", path] if path else []

    def run(self, *args: str, cwd: str = "/", env: t.Mapping[str, str] | None = None) -> t.Any:
        """See :class:`backup_repository.Tool`."""
        return super().run(*self._always, *args, cwd=cwd, env=env)


def _asked(tool: Tool, *args: str) -> Json:
    ran = tool.run("--format", "json", *args)
    document = tool.json_of(ran)
    if ran.rc != 0 or "_ERROR" in document:
        said = document.get("_ERROR") or [tool.why(ran)]
        raise MaintenanceError(f"barman {args[0]}: {clean(str(said[0]), 300)}")
    return document


def judge_check(checks: Json) -> list[Verdict]:
    """Say which checks of the server failed: those of the store condemn its backups, the others warn."""
    verdicts = []
    for name, check in sorted(checks.items()):
        if check.get("status") != "OK":
            hint = f" ({check['hint']})" if check.get("hint") else ""
            state = "critical" if name in _OF_THE_STORE else "warning"
            verdicts.append(Verdict(1, state, f"barman check: {name.replace('_', ' ')} is {check.get('status')}{clean(hint, 200)}"))
    if not checks:
        return [Verdict(1, "unknown", "barman check said nothing")]
    return verdicts or [Verdict(1, "ok", f"barman check: {len(checks)} checks are OK")]


def judge_log(shown: Json, files: str | None) -> list[Verdict]:
    """Make sure that the write-ahead log from the start of a backup to its end is among the files that are there."""
    if shown.get("status") != "DONE":
        return [Verdict(1, "critical", f"its status is {shown.get('status')}")]
    about = shown["base_backup_information"]
    if files is None:
        return [Verdict(1, "unknown", "barman list-files could not list its files")]
    there = set()
    for line in files.splitlines():
        found = _SEGMENT.search(line.strip())
        if found and os.path.exists(line.strip()):
            there.add(found.group(1))
    lost = [name for name in _segments(about["begin_wal"], about["end_wal"]) if name not in there]
    if lost:
        return [
            Verdict(
                1, "critical", f"{len(lost)} segments of its write-ahead log are not there, first {lost[0]}: it cannot become consistent"
            )
        ]
    return [Verdict(1, "ok", f"write-ahead log {about['begin_wal']} to {about['end_wal']} is there")]


def _segments(first: str, last: str) -> list[str]:
    """Name the first and the last segment, and those between where they share all but the final two digits."""
    if first[:22] != last[:22]:
        return sorted({first, last})
    return [f"{first[:22]}{number:02X}" for number in range(int(first[22:], 16), int(last[22:], 16) + 1)]


def _identity(shown: Json, declared: Declared) -> list[Verdict]:
    wanted, found = declared["repository"]["id"], str(shown.get("system_id") or "")
    if wanted and found and wanted != found:
        return [Verdict(1, "critical", f"it is a backup of another cluster: system identifier {found}, expected {wanted}")]
    return [Verdict(1, "unknown", "this Barman does not say the system identifier of a backup")] if wanted and not found else []


def _verified(tool: Tool, server: str, name: str) -> list[Verdict]:
    ran = tool.run("verify-backup", server, name)
    return read_verified(ran.rc, ran.stdout + "\n" + ran.stderr, tool.why(ran))


def read_verified(rc: int, text: str, why: str) -> list[Verdict]:
    """Judge what ``barman verify-backup`` said: only its own words that all was verified count, not that it ended with 0."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    if rc == 0 and _VERIFIED in said:
        return [Verdict(2, "ok", "barman verify-backup: every file agrees with the manifest")]
    if any("pg_verifybackup not found" in line for line in said):
        return [Verdict(2, "unknown", "barman verify-backup finds no pg_verifybackup; install PostgreSQL's programs of that version")]
    wrong = [line for line in said if "pg_verifybackup: error" in line] or [
        line for line in said if "error" in line.lower() or "manifest" in line.lower()
    ]
    if any("manifest" in line and "not" in line and ("exist" in line or "found" in line) for line in wrong):
        return [Verdict(2, "unknown", f"it has no manifest to compare with (barman generate-manifest makes one): {clean(wrong[0], 200)}")]
    return [Verdict(2, "critical", f"barman verify-backup: {clean(line, 300)}") for line in (wrong or [why])[:10]]


def _restored(ladder: Ladder, tool: Tool, server: str, name: str, shown: Json) -> None:
    climb = ladder.climb
    status = os.statvfs(climb.scratch.path)
    free = status.f_bavail * status.f_frsize
    if climb.backup.size > free:
        raise MaintenanceError(f"{climb.scratch.path} has {human_bytes(free)} to spare, restoring needs {human_bytes(climb.backup.size)}")
    with scratch_cluster(climb.scratch.path, int(shown["postgresql_version"]) // 10000, tool.os_user) as cluster:
        started = time.monotonic()
        # Tablespaces would go to where the source has them, unless they are told otherwise.
        spaces = [f"{space['name']}:{cluster.folder}/spaces/{space['name']}" for space in shown.get("tablespaces") or ()]
        moved = [part for space in spaces for part in ("--tablespace", space)]
        ran = tool.run("recover", "--target-immediate", *moved, server, name, cluster.data)
        climb.restore_seconds = time.monotonic() - started
        if ran.rc != 0:
            climb.say(3, "critical", f"barman recover: {tool.why(ran)}")
            return
        physical.prove_running(cluster, climb, physical.setting(f'cp "{cluster.data}/barman_wal/%f" "%p"'))
