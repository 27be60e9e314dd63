# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of systemd: does it stay over a reboot, what does it take, is it sound, and archived files beyond declared limits go."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import typing as t
from dataclasses import dataclass, field

from .errors import InputError, MaintenanceError, VerifyError, out_of_range, refuse
from .host import Host
from .judge import human_bytes, many
from .record import Action, Finding, Metric, Outcome, clean, status_of

OPTIONS: dict[str, t.Any] = {
    "expected": {"type": "bool", "default": True},
    "persistent": {"type": "bool", "default": True},
    "reach_days": {"type": "float"},
    "max_use_mb": {"type": "float"},
    "vacuum_size_mb": {"type": "float"},
    "vacuum_days": {"type": "float"},
    "rotate_first": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": True},
    "timeout_seconds": {"type": "float", "default": 900.0},
}

SUBJECT = "journal of systemd"
PERSISTENT, VOLATILE = "/var/log/journal", "/run/log/journal"
_PLACES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_ARCHIVED = re.compile(r"@(?:[0-9a-f]{32}-[0-9a-f]{16}-)?([0-9a-f]{16})(?:-[0-9a-f]{16}\.journal~|\.journal)$")
_VERDICT = re.compile(r"(PASS|FAIL): (\S+)(?: \((.*)\))?")
_DAY = 86400.0
_MB = 1024 * 1024
_FRESH = 8 * _MB
"""What a file of the journal takes from the beginning; rotating one that is no larger wins nothing."""


class JournalFile(t.NamedTuple):
    """A file of the journal; ``begun`` is the time of its first entry where its name says it (archived files)."""

    path: str
    used: int
    begun: float | None


@dataclass
class Journal:
    """What there is of the journal, and how it is configured."""

    settings: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: list[JournalFile] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Bytes on disk, all files."""
        return sum(one.used for one in self.files)

    @property
    def archived(self) -> list[JournalFile]:
        """Files that are not written to any more."""
        return [one for one in self.files if one.begun is not None]

    def setting(self, name: str, default: str = "") -> str:
        """Return a setting in effect."""
        return self.settings.get(name, (default, ""))[0]


def effective_settings(root: str = "") -> dict[str, tuple[str, str]]:
    """Return journald's settings with the file that each comes from: the main file, then all drop-ins by name, those in /etc before others."""
    main = [path for path in (f"{root}{place}/journald.conf" for place in _PLACES) if os.path.exists(path)][:1]
    drop_ins: dict[str, str] = {}
    for place in _PLACES:
        for path in glob.glob(f"{root}{place}/journald.conf.d/*.conf"):
            drop_ins.setdefault(os.path.basename(path), path)
    settings: dict[str, tuple[str, str]] = {}
    for path in [*main, *(drop_ins[name] for name in sorted(drop_ins))]:
        if os.path.isfile(path):  # a link to /dev/null switches a drop-in off
            with open(path, encoding="utf-8", errors="replace") as source:
                settings.update({name: (value, path) for name, value in parse_settings(source.read(_MB)).items()})
    return {name: pair for name, pair in settings.items() if pair[0]}


def parse_settings(text: str) -> dict[str, str]:
    """Read the [Journal] section of a configuration file; an empty value takes a setting back."""
    settings, section = {}, ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Journal]" and "=" in line and line[0] not in "#;":
            name, _equals, value = line.partition("=")
            settings[name.strip()] = value.strip()
    return settings


def parse_verify(text: str) -> tuple[list[str], list[str]]:
    """Read what ``journalctl --verify`` says: sound files, and damaged ones with the reason."""
    sound, damaged = [], []
    for verdict, path, why in _VERDICT.findall(text):
        if verdict == "PASS":
            sound.append(path)
        else:
            damaged.append(clean(f"{path}: {why or 'damaged'}", 300))
    return sound, damaged


def journal_files(root: str = "") -> list[JournalFile]:
    """List the files of the journal, of all machines and both places."""
    found = []
    for folder in (root + PERSISTENT, root + VOLATILE):
        for path in sorted([*glob.glob(f"{folder}/*.journal*"), *glob.glob(f"{folder}/*/*.journal*")]):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    name = _ARCHIVED.search(os.path.basename(path))
                    found.append(JournalFile(path, status.st_blocks * 512, int(name.group(1), 16) / 1e6 if name else None))
    return found


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("reach_days", "max_use_mb"))
    problems += out_of_range(params, ("vacuum_size_mb",), least=1)
    problems += out_of_range(params, ("vacuum_days",), least=1)
    problems += out_of_range(params, ("timeout_seconds",), least=1)
    reach, days = params["reach_days"], params["vacuum_days"]
    if reach is not None and days is not None and days < reach:
        problems.append(str(InputError.of("vacuum_days", days, f"at least reach_days ({reach:g})", "correct one of them")))
    return problems


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Assess the journal, vacuum it where it is beyond the limits, assess it again."""
    refuse(input_problems(params))
    if host.which("journalctl") is None:
        return _absent(params["expected"])
    now = host.now().timestamp()
    before = Journal(effective_settings(), journal_files())
    due = _due(params, before, now)
    actions = [_vacuum(params, check_mode, host, before, due)] if due else []
    after = before if check_mode else Journal(before.settings, journal_files())
    findings = [_persistence(params, after, host, now), _limits(params, after), _usage(params, after, _due(params, after, now))]
    if params["verify"]:
        findings.append(_verified(params, host))
    return Outcome(
        SUBJECT, "journald_upkeep", status_of(actions, check_mode),
        f"{human_bytes(after.used)} in {many(len(after.files), 'file')}, {human_bytes(before.used - after.used)} reclaimed",
        before={"used_bytes": before.used, "files": len(before.files)},
        after={"used_bytes": after.used, "files": len(after.files)},
        findings=findings,
        metrics=[Metric("journald.used", SUBJECT, after.used, "bytes"), Metric("journald.reclaimed", SUBJECT, before.used - after.used, "bytes")],
        actions=actions,
    )  # fmt: skip


def _absent(expected: bool) -> Outcome:
    if expected:
        advice = "Install systemd's journal, or declare that this system does not use it."
        found = Finding(
            "journald.persistence", "unknown", SUBJECT, "journalctl is not installed, so nothing could be looked at.", advice=advice
        )
        return Outcome(SUBJECT, "journald_upkeep", "ok", found.summary, findings=[found])
    found = Finding("journald.persistence", "ok", SUBJECT, "journalctl is not installed, and none is expected here.")
    return Outcome(SUBJECT, "journald_upkeep", "skipped", found.summary, findings=[found])


def _due(params: t.Mapping[str, t.Any], journal: Journal, now: float) -> list[str]:
    """Say which declared limits archived files are beyond."""
    due = []
    size, days = params["vacuum_size_mb"], params["vacuum_days"]
    may_shrink = journal.archived or (params["rotate_first"] and any(one.used > _FRESH for one in journal.files))
    if size is not None and journal.used > size * _MB and may_shrink:
        due.append(f"{human_bytes(journal.used)} in all, declared are {size:g} MB")
    old = [one for one in journal.archived if days is not None and one.begun is not None and now - one.begun > days * _DAY]
    if old:
        due.append(f"{many(len(old), 'archived file')} begun more than {days:g} days ago")
    return due


def _vacuum(params: t.Mapping[str, t.Any], check_mode: bool, host: Host, before: Journal, due: t.Sequence[str]) -> Action:
    what = {"used_bytes": before.used, "archived": len(before.archived), "due": list(due)}
    if check_mode:
        return Action(SUBJECT, "vacuum", "due", "; ".join(due), before=what)
    if params["deadline"] and host.now().timestamp() + 60 > params["deadline"]:
        return Action(SUBJECT, "vacuum", "deferred", "put off until a longer window", before=what)
    if params["rotate_first"]:
        _done(host, ["journalctl", "--rotate"], params["timeout_seconds"])
    argv = ["journalctl"]
    if params["vacuum_size_mb"] is not None:
        argv.append(f"--vacuum-size={int(params['vacuum_size_mb'] * 1024)}K")
    if params["vacuum_days"] is not None:
        argv.append(f"--vacuum-time={int(params['vacuum_days'] * _DAY)}s")
    _done(host, argv, params["timeout_seconds"])
    after = Journal(files=journal_files())
    still = [one for one in after.archived if one in before.archived]
    if _due({**params, "rotate_first": False}, Journal(files=still), host.now().timestamp()):
        raise VerifyError(
            f"journalctl vacuumed, but {clean(still[0].path)} and {len(still) - 1} more still lie beyond the limits; run it by hand."
        )
    after_what = {"used_bytes": after.used, "archived": len(after.archived)}
    return Action(SUBJECT, "vacuum", "changed", f"{human_bytes(before.used - after.used)} reclaimed", before=what, after=after_what)


def _done(host: Host, argv: t.Sequence[str], timeout: float) -> None:
    ran = host.run(argv, timeout=timeout)
    if ran.rc:
        raise MaintenanceError(f"{' '.join(argv)} failed: {ran.why()}; nothing more was done.")


def _persistence(params: t.Mapping[str, t.Any], journal: Journal, host: Host, now: float) -> Finding:
    """Whether the journal outlives a reboot, and how far back it reaches."""
    storage = journal.setting("Storage", "auto")
    on_disk = any(one.path.startswith(PERSISTENT) for one in journal.files)
    if not journal.files:
        return Finding(
            "journald.persistence", "unknown", SUBJECT, f"There is no file of the journal (Storage={storage}), so nothing could be looked at.",
            advice="See whether systemd-journald runs and Storage is not none.",
        )  # fmt: skip
    first = _first_entry(host)
    days = (now - first) / _DAY if first is not None else None
    faults = []
    if params["persistent"] and not on_disk:
        faults.append(f"it is volatile (Storage={storage}) and gone after a reboot")
    if params["reach_days"] is not None and (days is None or days < params["reach_days"]):
        faults.append(f"it does not reach back {params['reach_days']:g} days")
    reach = f"reaches back {days:.1f} days" if days is not None else "its first entry could not be read"
    return Finding(
        "journald.persistence", "warning" if faults else "ok", SUBJECT,
        f"The journal lies {'on disk' if on_disk else 'in memory'} and {reach}{': ' if faults else ''}{', '.join(faults)}.",
        value=round(days, 2) if days is not None else None, unit="days",
        threshold=f"warning below {params['reach_days']:g} days" if params["reach_days"] is not None else "",
        advice=f"Make {PERSISTENT} or set Storage=persistent; raise its limits." if faults else "",
    )  # fmt: skip


def _first_entry(host: Host) -> float | None:
    lines = host.lines(["journalctl", "--quiet", "--no-pager", "--output=short-unix"])
    try:
        with contextlib.suppress(MaintenanceError, ValueError, IndexError):
            return float(next(lines, b"").split()[0])
        return None
    finally:
        lines.close()  # type: ignore[attr-defined]


def _limits(params: t.Mapping[str, t.Any], journal: Journal) -> Finding:
    """Which limits are configured, and where."""
    names = [
        name for name in ("SystemMaxUse", "SystemKeepFree", "RuntimeMaxUse", "MaxRetentionSec", "MaxFileSec") if name in journal.settings
    ]
    evidence = [clean(f"{name}={journal.settings[name][0]} ({journal.settings[name][1]})", 200) for name in names]
    said = "Its own default holds: 10 percent of the file system, 4 GB at most" if "SystemMaxUse" not in names else evidence[0]
    wanted, configured = params["max_use_mb"], bytes_of(journal.setting("SystemMaxUse"))
    beyond = wanted is not None and (configured is None or configured > wanted * _MB)
    return Finding(
        "journald.limits", "warning" if beyond else "ok", SUBJECT, f"{said}.", value=configured, unit="bytes",
        threshold=f"warning above {wanted:g} MB or when not set" if wanted is not None else "", evidence=evidence,
        advice=f"Set SystemMaxUse={wanted:g}M in a drop-in below /etc/systemd/journald.conf.d." if beyond else "",
    )  # fmt: skip


def bytes_of(text: str) -> int | None:
    """Read a size as systemd writes it, None where it is none: K, M, G, T are powers of 1024."""
    found = re.match(r"(\d+(?:\.\d+)?)\s*([KMGTPE]?)B?$", text.strip())
    return int(float(found.group(1)) * 1024 ** " KMGTPE".index(found.group(2) or " ")) if found else None


def _usage(params: t.Mapping[str, t.Any], journal: Journal, due: t.Sequence[str]) -> Finding:
    limit = min((size for size in (params["max_use_mb"], params["vacuum_size_mb"]) if size is not None), default=None)
    beyond = limit is not None and journal.used > limit * _MB
    parts = f"{human_bytes(sum(one.used for one in journal.archived))} of them archived"
    return Finding(
        "journald.usage", "warning" if beyond or due else "ok", SUBJECT, f"The journal takes {human_bytes(journal.used)}, {parts}.",
        value=journal.used, unit="bytes", threshold=f"warning above {limit:g} MB" if limit is not None else "", evidence=list(due),
        advice="Run outside check mode; set rotate_first where files in use are too large, and SystemMaxUse." if beyond or due else "",
    )  # fmt: skip


def _verified(params: t.Mapping[str, t.Any], host: Host) -> Finding:
    ran = host.run(["journalctl", "--verify"], timeout=params["timeout_seconds"])
    sound, damaged = parse_verify(ran.stdout + "\n" + ran.stderr)
    if not sound and not damaged:
        return Finding(
            "journald.verify", "unknown", SUBJECT, f"journalctl --verify named no file: {ran.why()}.",
            advice="Run journalctl --verify by hand and read what it says.",
        )  # fmt: skip
    return Finding(
        "journald.verify", "warning" if damaged else "ok", SUBJECT, f"{many(len(sound), 'file')} sound, {len(damaged)} damaged.",
        value=len(damaged), unit="count", threshold="warning from 1 count", evidence=damaged,
        advice="Keep a copy, run journalctl --rotate, look at the disk; entries after the damage are lost to readers." if damaged else "",
    )  # fmt: skip
