# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this host ready for maintenance: room, load, memory, package manager, clock, tools, backups. All problems at once."""

from __future__ import annotations

import os
import re
import typing as t
from datetime import datetime

from . import preflight_packages, undo
from .backup_proven import deepest
from .errors import InputError, refuse
from .host import Host
from .judge import below_limit, from_limit, human_bytes, human_seconds, limits
from .paths import read_state
from .record import Finding, Metric, Outcome

OPTIONS: dict[str, t.Any] = {
    "room": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "free_bytes": {"type": "int", "default": 0},
            "files": {"type": "list", "elements": "path", "default": []},
            "factor": {"type": "float", "default": 1.0},
        },
    },
    "disk_warning_percent": {"type": "float", "default": 85.0},
    "disk_critical_percent": {"type": "float", "default": 95.0},
    "load_warning_percent": {"type": "float", "default": 80.0},
    "load_critical_percent": {"type": "float", "default": 200.0},
    "memory_available_warning_percent": {"type": "float", "default": 10.0},
    "memory_available_critical_percent": {"type": "float", "default": 3.0},
    "clock": {"type": "str", "default": "required", "choices": ["required", "wanted", "off"]},
    "tools": {"type": "list", "elements": "str", "default": []},
    "package_manager": {"type": "bool", "default": True},
    "package_lock_timeout_seconds": {"type": "int", "default": 120},
    "proofs": {"type": "dict", "default": {}},
    "backups": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "set": {"type": "str", "required": True},
            "maximum_age_hours": {"type": "float", "required": True},
            "level": {"type": "int", "default": 4},
        },
    },
}
_CLOCK_SLACK_SECONDS = 300
MOUNTS = "/proc/self/mounts"
_REAL = frozenset(
    """ext2 ext3 ext4 xfs btrfs zfs f2fs jfs reiserfs vfat exfat ntfs overlay nfs nfs4 cifs smb3 fuse.sshfs fuse.glusterfs
    ceph glusterfs 9p virtiofs bcachefs fuseblk""".split()  # noqa: SIM905 - one word a line says less
)


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:  # noqa: ARG001 - nothing is changed anyway
    """Look at everything and report every problem; nothing is changed."""
    refuse(input_problems(params))
    started = host.now().timestamp()
    outcome = Outcome("host", "preflight", "ok", "")
    outcome.findings += _disks(params, outcome)
    outcome.findings += [_room(wanted) for wanted in params["room"]]
    outcome.findings += [_load(params, outcome), _memory(params, outcome)]
    if params["clock"] != "off":
        outcome.findings.append(_clock(params["clock"]))
    if params["package_manager"]:
        outcome.findings.append(preflight_packages.look(params["package_lock_timeout_seconds"], host))
    outcome.findings += [_tool(name, host) for name in params["tools"]]
    # check mode writes no proofs, so what this very run proved is handed over
    proofs = params["proofs"] or (read_state(params["state_dir"], "backup_proofs.json") if params["backups"] else {})
    outcome.findings += [judge_backup(wanted, proofs, host.now().timestamp()) for wanted in params["backups"]]
    stopping = [finding for finding in outcome.findings if finding.state == "critical"]
    outcome.summary = " ".join(finding.summary for finding in stopping) or "the host is ready for maintenance"
    outcome.returned = {"ready": not stopping, "reasons": [finding.summary for finding in stopping], "time": started}
    return outcome


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = []
    for name, value in params.items():
        if name.endswith("_percent") and not 0 <= value <= 1000:
            problems.append(str(InputError.of(name, value, "a percentage from 0 to 1000", "correct it")))
        if name.endswith("_seconds") and value < 0:
            problems.append(str(InputError.of(name, value, "a number of seconds from 0", "correct it")))
    problems += [
        str(InputError.of("room", wanted, "an absolute path, free_bytes and factor from 0", "correct it"))
        for wanted in params["room"]
        if wanted["free_bytes"] < 0 or not 0 <= wanted["factor"] <= 1000 or not os.path.isabs(wanted["path"])
    ]
    return problems + [
        str(InputError.of("backups", wanted, "maximum_age_hours above 0 and a level from 0 to 5", "correct it"))
        for wanted in params["backups"]
        if not wanted["maximum_age_hours"] > 0 or not 0 <= wanted["level"] <= 5
    ]


# -- room ---------------------------------------------------------------------------------------------------------------------


def mounts(text: str) -> dict[str, str]:
    """Return mount points and their kinds from ``/proc/self/mounts``, without the kernel's own file systems."""
    found = {}
    for line in text.splitlines():
        parts = line.split(" ")
        if len(parts) >= 3 and (parts[2] in _REAL or parts[0].startswith("/dev/")):
            found[re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), parts[1])] = parts[2]
    return found


def _disks(params: dict[str, t.Any], outcome: Outcome) -> list[Finding]:
    findings, seen = [], set()
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as source:
        points = mounts(source.read())
    for point in sorted(points):
        try:
            device, size = os.stat(point).st_dev, os.statvfs(point)
        except OSError as error:
            advice = "Look at the mount; the network or the device may be gone."
            summary = f"{point} cannot be asked: {error.strerror}."
            findings.append(Finding(id="preflight.disk", state="unknown", subject=point, summary=summary, advice=advice))
            continue
        # a bind mount of one file, as containers have them, is not a disk of its own
        if device in seen or size.f_blocks == 0 or not os.path.isdir(point):
            continue
        seen.add(device)
        used = 100.0 * (size.f_blocks - size.f_bfree) / max(1, size.f_blocks - size.f_bfree + size.f_bavail)
        inodes = 100.0 * (size.f_files - size.f_favail) / size.f_files if size.f_files else 0.0
        outcome.metrics.append(Metric("disk.used", point, round(used, 1), "percent"))
        findings.append(judge_disk(point, used, inodes, size.f_bavail * size.f_frsize, params))
    if not findings:
        advice = "Look at it by hand: df."
        findings.append(Finding(id="preflight.disk", state="unknown", subject="host", summary="No file system was found.", advice=advice))
    return findings


def judge_disk(point: str, used: float, inodes: float, free: int, params: t.Mapping[str, t.Any]) -> Finding:
    """Judge how full a file system is, in bytes and in inodes."""
    limit = (params["disk_warning_percent"], params["disk_critical_percent"])
    fuller = max(used, inodes)
    state = from_limit(fuller, *limit)
    what = "of its inodes" if inodes > used else "of its space"
    return Finding(
        id="preflight.disk",
        state=state,
        subject=point,
        summary=f"{point} has {fuller:.0f} percent {what} in use, {human_bytes(free)} free.",
        value=round(fuller, 1),
        unit="percent",
        threshold=limits("percent", *limit),
        advice="Make room before maintenance: old logs, old backups, package cache." if state != "ok" else "",
    )


def _room(wanted: dict[str, t.Any]) -> Finding:
    sizes = {path: _size(path) for path in wanted["files"]}
    missing = [path for path, size in sizes.items() if size is None]
    needed = wanted["free_bytes"] + int(wanted["factor"] * sum(size or 0 for size in sizes.values()))
    folder = wanted["path"]
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    there = os.statvfs(folder)
    free = there.f_bavail * there.f_frsize
    enough = free >= needed
    advice = "Correct the paths of the files." if enough else "Make room there, or move the snapshots to another file system."
    return Finding(
        id="preflight.room",
        state="critical" if not enough else "unknown" if missing else "ok",
        subject=wanted["path"],
        summary=f"{wanted['path']} has {human_bytes(free)} free; this run may write {human_bytes(needed)} there.",
        value=free,
        unit="bytes",
        threshold=f"critical below {needed} bytes",
        basis="estimated",
        not_covered=f"the size of {', '.join(missing)}: no such file" if missing else "",
        advice=advice if missing or not enough else "",
    )


def _size(path: str) -> int | None:
    return os.path.getsize(path) if os.path.isfile(path) else None


# -- load, memory, clock ------------------------------------------------------------------------------------------------------


def _load(params: dict[str, t.Any], outcome: Outcome) -> Finding:
    finding = judge_load(os.getloadavg()[1], len(os.sched_getaffinity(0)), params)
    outcome.metrics.append(Metric("host.load", "host", finding.value, "percent"))
    return finding


def judge_load(five_minutes: float, processors: int, params: t.Mapping[str, t.Any]) -> Finding:
    """Judge the load over five minutes relative to the processors."""
    percent = round(100.0 * five_minutes / processors, 1)
    limit = (params["load_warning_percent"], params["load_critical_percent"])
    state = from_limit(percent, *limit)
    return Finding(
        id="preflight.load",
        state=state,
        subject="host",
        summary=f"Load over 5 minutes is {five_minutes:.2f} on {processors} processors ({percent:g} percent).",
        value=round(percent, 1),
        unit="percent",
        threshold=limits("percent", *limit),
        advice="See what runs (top), and wait for it to end." if state != "ok" else "",
    )


def available_percent(meminfo: str) -> float | None:
    """Return the share of memory that programs could still get, from ``/proc/meminfo``."""
    values = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    try:
        return 100.0 * int(values["MemAvailable"].split()[0]) / int(values["MemTotal"].split()[0])
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None


def _memory(params: dict[str, t.Any], outcome: Outcome) -> Finding:
    with open("/proc/meminfo", encoding="ascii") as source:
        percent = available_percent(source.read())
    limit = (params["memory_available_warning_percent"], params["memory_available_critical_percent"])
    common: dict[str, t.Any] = {"id": "preflight.memory", "subject": "host", "unit": "percent"}
    if percent is None:
        return Finding(state="unknown", summary="The kernel does not say how much memory is available.", advice="Look by hand.", **common)
    state = below_limit(percent, *limit)
    outcome.metrics.append(Metric("host.memory_available", "host", round(percent, 1), "percent"))
    return Finding(
        state=state,
        summary=f"{percent:.0f} percent of the memory is available.",
        value=round(percent, 1),
        threshold=limits("percent", *limit, low=True),
        advice="See what uses it (top), before the work needs it." if state != "ok" else "",
        **common,
    )


def _clock(wish: str) -> Finding:
    common: dict[str, t.Any] = {"id": "preflight.clock", "subject": "host"}
    if undo.systemd_is_here():
        shown = undo.run(["timedatectl", "show", "--property", "NTPSynchronized", "--value"], timeout=15).stdout.strip()
        if shown == "yes":
            return Finding(state="ok", summary="The clock is synchronised.", value="yes", **common)
        if shown == "no":
            state = "critical" if wish == "required" else "warning"
            advice = "Start chrony or systemd-timesyncd; ages of backups and certificates depend on the clock."
            return Finding(state=state, summary="The clock is not synchronised.", value="no", advice=advice, **common)
    advice = "Install systemd-timesyncd or chrony, or set preflight_clock to 'off' where the machine below keeps the time."
    return Finding(state="unknown", summary="Nothing says whether the clock is synchronised.", advice=advice, **common)


# -- packages, tools, backups -------------------------------------------------------------------------------------------------


def _tool(name: str, host: Host) -> Finding:
    path = host.which(name)
    return Finding(
        id="preflight.tool",
        state="ok" if path else "critical",
        subject=name,
        summary=f"{name} is {path}." if path else f"The tool {name} is missing.",
        advice="" if path else "Install it, or take it out of preflight_tools.",
    )


def judge_backup(wanted: t.Mapping[str, t.Any], proofs: t.Mapping[str, t.Any], now: float) -> Finding:
    """Judge whether a backup set has a fresh backup that was proven at the demanded level."""
    common: dict[str, t.Any] = {"id": "preflight.backup", "subject": wanted["set"], "unit": "seconds"}
    threshold = f"critical from {wanted['maximum_age_hours']:g} hours or below level L{wanted['level']}"
    sets = proofs.get("sets", proofs)
    proof = sets.get(wanted["set"]) if isinstance(sets, dict) else None
    if not isinstance(proof, dict) or not proof.get("path"):
        advice = "Run backup_verification for it, and read its findings; maintenance needs a backup to go back to."
        summary = f"No backup of set {wanted['set']} was ever proven on this host."
        return Finding(state="critical", summary=summary, threshold=threshold, advice=advice, **common)
    try:
        age, level = now - _epoch(proof["time"]), deepest(proof)
    except (AttributeError, KeyError, TypeError, ValueError):
        summary = f"What is kept of the newest backup of {wanted['set']} cannot be read."
        return Finding(state="critical", summary=summary, threshold=threshold, advice="Run backup_verification again.", **common)
    if age < -_CLOCK_SLACK_SECONDS:
        summary = f"The newest backup of {wanted['set']} is dated in the future, so its age is not known."
        return Finding(state="critical", summary=summary, threshold=threshold, advice="Correct the clock or the name.", **common)
    age = max(0.0, age)
    bad = age >= wanted["maximum_age_hours"] * 3600 or level < wanted["level"]
    return Finding(
        state="critical" if bad else "ok",
        summary=f"The newest backup of {wanted['set']} is {human_seconds(age)} old and proven at level L{level}.",
        value=round(age),
        threshold=threshold,
        advice="Make a new backup and prove it, then start again." if bad else "",
        evidence=[str(proof["path"])],
        **common,
    )


def _epoch(value: t.Any) -> float:
    return float(value) if isinstance(value, (int, float)) else datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
