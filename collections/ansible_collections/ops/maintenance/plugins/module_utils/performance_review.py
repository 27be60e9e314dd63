# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host does: its own metrics over the last days, what it uses now, and when its disks will be full.

Dropping the kernel's caches is left out on purpose: cache is not part of the memory in use that is judged here, the host
only gets slower, and a leak stays hidden. Who holds the memory is reported instead.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .errors import InputError, MaintenanceError, refusal, refuse
from .forecast import Point, appended, days_until
from .host import Host
from .judge import below_limit, from_limit, human_bytes, limits
from .kept_state import keep_state
from .log_lines import Clock, zone_of
from .paths import read_state
from .performance_host import Mount, ask_mount, parse_cpu, parse_memory, parse_mounts, processes, top
from .performance_series import judge_series, read_series
from .record import Finding, Metric, Outcome

HISTORY = "performance_history.json"
SAMPLE_SECONDS = 1.0

OPTIONS: dict[str, t.Any] = {
    "series": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "field": {"type": "str", "required": True},
            "unit": {"type": "str", "default": "percent"},
            "warning": {"type": "float"},
            "critical": {"type": "float"},
            "span_days": {"type": "float", "default": 7.0},
            "expected_interval_seconds": {"type": "float", "default": 0.0},
        },
    },
    "timezone": {"type": "str", "default": "UTC"},
    "cpu_warning_percent": {"type": "float", "default": 90.0},
    "load_warning_percent": {"type": "float", "default": 80.0},
    "load_critical_percent": {"type": "float", "default": 200.0},
    "memory_warning_percent": {"type": "float", "default": 85.0},
    "memory_critical_percent": {"type": "float", "default": 95.0},
    "swap_warning_percent": {"type": "float", "default": 50.0},
    "disk_warning_percent": {"type": "float", "default": 85.0},
    "disk_critical_percent": {"type": "float", "default": 95.0},
    "disk_warning_days": {"type": "float", "default": 14.0},
    "disk_ignore": {"type": "list", "elements": "str", "default": []},
    "top_count": {"type": "int", "default": 10},
}


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at everything once; nothing is changed on the host."""
    refuse(input_problems(params))
    clock = Clock(host.now().timestamp(), zone_of(params["timezone"]))
    outcome = Outcome("host", "performance_review", "ok", "")
    history = read_state(params["state_dir"], HISTORY)
    _now(params, host, outcome)
    _disks(params, host, history, outcome)
    for declared in params["series"]:
        now = host.now().timestamp()
        findings, metrics = judge_series(declared, read_series(declared, now, clock), now)
        outcome.findings += findings
        outcome.metrics += metrics
    if params["self_test"]:
        proven = _self_test()
        if proven.state != "ok":
            outcome.findings = [dataclasses.replace(found, state="unknown", advice=proven.advice) for found in outcome.findings]
        outcome.findings.append(proven)
    if not check_mode:
        outcome.findings += keep_state(params["state_dir"], HISTORY, history)
    bad = [finding for finding in outcome.findings if finding.state != "ok"]
    outcome.summary = "; ".join(f"{finding.subject}: {finding.summary}" for finding in bad[:3]) or "nothing is short"
    return outcome


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [
        str(InputError.of(name, value, "0 or more", "correct it"))
        for name, value in params.items()
        if isinstance(value, float) and name.endswith(("_percent", "_days")) and not value >= 0
    ]
    names = [declared["name"] for declared in params["series"]]
    problems += [f"{len(names) - len(set(names))} series share a name; give each its own."] if len(set(names)) < len(names) else []
    for declared in params["series"]:
        if not declared["span_days"] > 0 or not declared["expected_interval_seconds"] >= 0:
            problems.append(f"Series {declared['name']} has a span or an interval below 0; correct it.")
        problems += [f"Path {path!r} of series {declared['name']} is not absolute; write it from the root on."
                     for path in declared["paths"] if not os.path.isabs(path)]  # fmt: skip
    if not 0 <= params["top_count"] <= 20:
        problems.append(str(InputError.of("top_count", params["top_count"], "0 to 20", "correct it")))
    return problems + refusal(zone_of, params["timezone"])


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as source:
        return source.read()


def _finding(id_: str, value: float, what: str, warning: float, critical: float | None, advice: str, **more: t.Any) -> Finding:
    state = from_limit(value, warning, critical)
    return Finding(
        id=id_, state=state, subject=more.pop("subject", "host"), summary=what, value=round(value, 1), unit="percent",
        threshold=limits("percent", warning, critical), advice="" if state == "ok" else advice, **more,
    )  # fmt: skip


def _unknown(id_: str, subject: str, why: str) -> Finding:
    return Finding(id=id_, state="unknown", subject=subject, summary=why, advice="Make it available to the review, then run it again.")


# Processor, load, memory, processes ----------------------------------------------------------------------------------


def _now(params: t.Mapping[str, t.Any], host: Host, outcome: Outcome) -> None:
    try:
        worked, total = parse_cpu(_text("/proc/stat"))
        before, started = processes(), host.now()
        host.sleep(SAMPLE_SECONDS)
        after, seconds = processes(), max((host.now() - started).total_seconds(), 0.1)
        worked_after, total_after = parse_cpu(_text("/proc/stat"))
    except (OSError, ValueError, IndexError) as error:
        outcome.findings.append(_unknown("performance.cpu", "host", f"/proc cannot be read: {error}"))
        return
    busy = 100.0 * (worked_after - worked) / max(total_after - total, 1)
    by_cpu, by_memory = top(before, after, seconds, params["top_count"])
    consumers = [f"{process.name} (pid {process.pid}): {percent:.0f} percent of one processor" for process, percent in by_cpu]
    holders = [f"{process.name} (pid {process.pid}): {human_bytes(process.memory)}" for process in by_memory]
    outcome.findings.append(
        _finding("performance.cpu", busy, f"{busy:.0f} percent busy over {SAMPLE_SECONDS:g} s", params["cpu_warning_percent"], None,
                 "Look at the processes listed; a single second may be chance, the series say more.",
                 basis="sampled", evidence=consumers)
    )  # fmt: skip
    outcome.metrics.append(Metric("performance.cpu_now", "host", round(busy, 1), "percent"))
    _load(params, outcome)
    _memory(params, outcome, holders)
    outcome.findings.append(
        Finding(id="performance.processes", state="ok", subject="host", evidence=[*consumers[:10], *holders[:10]],
                summary=f"{len(after)} processes; most processor time {_first(consumers)}; most memory {_first(holders)}",
                value=len(after), unit="count")
    )  # fmt: skip


def _first(lines: t.Sequence[str]) -> str:
    return lines[0] if lines else "nobody"


def _load(params: t.Mapping[str, t.Any], outcome: Outcome) -> None:
    one, five, fifteen = os.getloadavg()
    count = os.cpu_count() or 1
    percent = 100.0 * five / count
    outcome.findings.append(
        _finding("performance.load", percent, f"load {five:.2f} over 5 minutes on {count} processors "
                 f"(1 min {one:.2f}, 15 min {fifteen:.2f})", params["load_warning_percent"], params["load_critical_percent"],
                 "Look what waits for processor or disk; move heavy jobs away from the window.")
    )  # fmt: skip
    outcome.metrics.append(Metric("performance.load_percent", "host", round(percent, 1), "percent"))


def _memory(params: t.Mapping[str, t.Any], outcome: Outcome, holders: t.Sequence[str]) -> None:
    try:
        memory = parse_memory(_text("/proc/meminfo"))
    except (OSError, MaintenanceError) as error:
        outcome.findings.append(_unknown("performance.memory", "host", str(error)))
        return
    used, swap = memory.used_percent, memory.swap_percent
    outcome.findings += [
        _finding("performance.memory", used, f"{used:.0f} percent in use, {human_bytes(memory.available)} available",
                 params["memory_warning_percent"], params["memory_critical_percent"],
                 "Look at the processes listed; restart one that leaks by decision. Dropping caches would not free this.",
                 evidence=holders),
        _finding("performance.swap", swap, f"{swap:.0f} percent of {human_bytes(memory.swap_total)} swap in use",
                 params["swap_warning_percent"], None, "Find who was pushed out; add memory or limit the largest process."),
    ]  # fmt: skip
    outcome.metrics += [
        Metric("performance.memory_now", "host", round(used, 1), "percent"),
        Metric("performance.swap_now", "host", round(swap, 1), "percent"),
    ]


# Disks ---------------------------------------------------------------------------------------------------------------


def _disks(params: t.Mapping[str, t.Any], host: Host, history: dict[str, t.Any], outcome: Outcome) -> None:
    try:
        mounts = [mount for mount in parse_mounts(_text("/proc/self/mountinfo")) if mount.point not in params["disk_ignore"]]
    except OSError as error:
        outcome.findings.append(_unknown("performance.disk", "host", f"the mounts cannot be listed: {error.strerror}"))
        return
    if not mounts:
        outcome.findings.append(_unknown("performance.disk", "host", "no mounted file system with a capacity was found"))
    used = history.setdefault("used", {})
    for mount in mounts:
        if not os.path.isdir(mount.point) and not mount.is_network:
            continue  # a single file mounted over another, as containers do
        try:
            size = ask_mount(mount)
        except MaintenanceError as error:
            outcome.findings.append(_unknown("performance.disk", mount.point, str(error)))
            continue
        taken, free = (size.f_blocks - size.f_bfree) * size.f_frsize, size.f_bavail * size.f_frsize
        if not taken + free:
            continue
        used[mount.point] = appended(used.get(mount.point, []), host.now().timestamp(), taken)
        outcome.findings += judge_disk(params, mount, taken, free, used[mount.point])
        if size.f_files:
            outcome.findings.append(_inodes(params, mount, 100.0 * (size.f_files - size.f_ffree) / size.f_files))
        percent = round(100.0 * taken / (taken + free), 1)
        outcome.metrics.append(Metric("performance.disk_used", mount.point, percent, "percent"))


def judge_disk(params: t.Mapping[str, t.Any], mount: Mount, taken: float, free: float, points: t.Sequence[Point]) -> list[Finding]:
    """Judge how full a file system is now, and when it will be full."""
    percent = 100.0 * taken / (taken + free)
    not_covered, forecast = "", []
    try:
        left = days_until(points, taken + free)
        state = "ok" if left is None else below_limit(left, params["disk_warning_days"])
        forecast = [
            Finding(
                id="performance.forecast", state=state, subject=mount.point, basis="estimated", unit="days",
                value=None if left is None else round(left, 1), threshold=limits("days", params["disk_warning_days"], low=True),
                summary="it does not fill up" if left is None else f"full in about {left:.0f} days at the pace of {len(points)} runs",
                advice="" if state == "ok" else "Find what grows, clean it up or give it room before then.",
            )
        ]  # fmt: skip
    except ValueError as error:
        not_covered = f"when it will be full: {error}"
    use = _finding(
        "performance.disk", percent, f"{percent:.0f} percent used, {human_bytes(free)} free", params["disk_warning_percent"],
        params["disk_critical_percent"], "Find what fills it and remove or move it; a full disk stops databases.",
        subject=mount.point, not_covered=not_covered, evidence=[f"file system {mount.kind}"],
    )  # fmt: skip
    return [use, *forecast]


def _inodes(params: t.Mapping[str, t.Any], mount: Mount, percent: float) -> Finding:
    return _finding(
        "performance.inodes", percent, f"{percent:.0f} percent of the files it can hold", params["disk_warning_percent"],
        params["disk_critical_percent"], "Find the folder with very many files and remove what is not needed.", subject=mount.point,
    )  # fmt: skip


def _self_test() -> Finding:
    """Judge a disk, a memory and a series that are known to be bad."""
    params = {name: spec.get("default") for name, spec in OPTIONS.items()}
    disk = judge_disk(params, Mount("/full", "0:0", "ext4"), 99.0, 1.0, [])[0].state
    memory = parse_memory("MemTotal: 100 kB\nMemAvailable: 3 kB\n").used_percent
    is_sound = disk == "critical" and from_limit(memory, 85, 95) == "critical"
    return Finding(
        id="performance.self_test", state="ok" if is_sound else "unknown", subject="performance_review",
        summary="the planted shortages were found" if is_sound else "a planted shortage was not found",
        advice="" if is_sound else "Do not trust the verdicts of this run; report this defect.",
    )  # fmt: skip
