# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say of every declared set of backups to what level its newest one is proven, and what the set lacks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import typing as t
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone, tzinfo

from . import application_drill, backup_objectives, backup_self_test
from .backup_adaptor import Around, Climb
from .backup_adaptors import ADAPTORS, CHOICES, set_options
from .backup_encryption import command_problems
from .backup_older import older
from .backup_proof import LEVELS, Proof, Scratch, prove, prove_whole
from .backup_sets import (
    HOUR,
    Backup,
    Declared,
    Listing,
    check_date_format,
    list_backups,
    local,
    made_within,
    missing_days,
    too_old,
)
from .errors import InputError, MaintenanceError, VerifyError, out_of_range, refusal, refuse
from .forecast import Point, appended, days_until
from .host import Host
from .judge import below_limit, from_limit, human_bytes, human_seconds, limits
from .log_lines import zone_of
from .paths import open_root, read_state, write_state
from .postgresql import SERVER
from .record import Action, Finding, Metric, Outcome, status_of

PROOFS = "backup_proofs.json"
HISTORY = "backup_history.json"

_SENTINEL = {
    "table": {"type": "str", "required": True},
    "column": {"type": "str", "required": True},
    "order": {"type": "str", "default": ""},
}
_SET: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": CHOICES, "default": "files"},
    "root": {"type": "path", "default": ""},
    "pattern": {"type": "str", "default": "*"},
    "layout": {"type": "str", "choices": ["files", "folders", "dated_folders"], "default": "files"},
    "date_format": {"type": "str", "default": ""},
    "maximum_age_hours": {"type": "float", "default": 26.0},
    "expected": {
        "type": "dict",
        "options": {
            "every": {"type": "str", "choices": ["hourly", "daily", "weekly"], "required": True},
            "days": {"type": "int", "default": 7},
            "keep_count": {"type": "int", "default": 0},
        },
    },
    "level": {"type": "int", "choices": [0, 1, 2, 3, 4, 5], "default": 4},
    "manifest": {"type": "str", "default": ""},
    "required_tables": {"type": "list", "elements": "str", "default": []},
    "required_files": {"type": "list", "elements": "str", "default": []},
    "application_id": {"type": "int", "default": 0},
    "count_tables": {"type": "list", "elements": "str", "default": []},
    "count_change_percent": {"type": "float", "default": 20.0},
    "sentinel": {"type": "dict", "options": _SENTINEL},
    "source": {"type": "path", "default": ""},
    "maximum_rpo_hours": {"type": "float", "default": 0.0},
    "retention": {
        "type": "dict",
        "options": {
            "maximum_age_days": {"type": "float", "required": True},
            "minimum_count": {"type": "int", "default": 3},
        },
    },
    "minimum_size_bytes": {"type": "int", "default": 1},
    "size_change_percent": {"type": "float", "default": 50.0},
    "emergency": {"type": "bool", "default": False},
    "every_level": {"type": "int", "choices": [0, 1, 2], "default": 0},
    "maximum_rto_minutes": {"type": "float", "default": 0.0},
    "minimum_history_days": {"type": "float", "default": 0.0},
    "encrypted": {"type": "bool", "default": False},
    "decrypt_command": {"type": "list", "elements": "str", "default": []},
    **set_options(),
}

OPTIONS: dict[str, t.Any] = {
    "sets": {"type": "list", "elements": "dict", "required": True, "options": _SET},
    "servers": {"type": "list", "elements": "dict", "default": [], "options": SERVER},
    "applications": {"type": "list", "elements": "dict", "default": [], "options": application_drill.APPLICATION},
    "scratch": {"type": "path", "default": "/var/lib/ops_maintenance/scratch"},
    "kinds": {"type": "list", "elements": "str", "default": []},
    "level": {"type": "int", "choices": [-1, 0, 1, 2, 3, 4, 5], "default": -1},
    "maximum_level": {"type": "int", "choices": [0, 1, 2, 3, 4, 5], "default": 5},
    "timezone": {"type": "str", "default": ""},
    "emergency_command": {"type": "list", "elements": "str", "default": []},
    "emergency_timeout_seconds": {"type": "float", "default": 1800.0},
    "capacity_warning_percent": {"type": "float", "default": 85.0},
    "capacity_critical_percent": {"type": "float", "default": 95.0},
    "capacity_warning_days": {"type": "float", "default": 14.0},
    "settle_seconds": {"type": "float", "default": 2.0},
}

_MAKE_ONE = "Make a backup now, and look why the job did not."
_FEW_LINES = 15


@dataclass
class _Run:
    """What all sets share during one call."""

    params: t.Mapping[str, t.Any]
    check_mode: bool
    host: Host
    zone: tzinfo | None
    history: dict[str, t.Any]
    proofs: dict[str, t.Any]
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    @property
    def now(self) -> float:
        return self.host.now().timestamp()

    @property
    def around(self) -> Around:
        return Around(self.params, self.host, self.zone, self.check_mode)


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every set; see :class:`record.Outcome`.

    :raises InputError: a declaration cannot be used; nothing was looked at.
    :raises VerifyError: an emergency backup was asked for and did not come about.
    """
    zone = zone_of(params["timezone"]) if params["timezone"] else None
    check_declared(params)
    wanted = [declared for declared in params["sets"] if not params["kinds"] or declared["kind"] in params["kinds"]]
    declared_sets = {declared["name"]: declared for declared in params["sets"]}
    params = {**params, "known": set(declared_sets), "sets": [{**declared, "level": level_of(declared, params)} for declared in wanted]}
    history, proofs = read_state(params["state_dir"], HISTORY), read_state(params["state_dir"], PROOFS)
    work = _Run(params, check_mode, host, zone, history, proofs.get("sets", {}))
    failed = [set_["name"] for set_ in params["sets"] if not _verify_set(set_, work)]
    _applications(work, declared_sets)
    _capacity(work)
    if not params["sets"]:
        work.findings.append(_finding("backup.present", "unknown", "backups", "no set of backups is declared",
                                      advice="Declare what is backed up in backup_verification_sets."))  # fmt: skip
    if params["self_test"]:
        _self_test(work)
    if not check_mode:
        _keep(work)
    outcome = _outcome(work)
    if failed:
        raise VerifyError(
            f"The emergency backup of {', '.join(failed)} did not bring a fresh backup; "
            "go no further before there is one.", outcome,
        )  # fmt: skip
    return outcome


def level_of(declared: Declared, params: t.Mapping[str, t.Any]) -> int:
    """Return the level that a set is verified to in this run: its own, unless the run asks for another or caps it."""
    wanted = params["level"] if params["level"] >= 0 else declared["level"]
    return int(min(wanted, params["maximum_level"]))


def _outcome(work: _Run) -> Outcome:
    names = [declared["name"] for declared in work.params["sets"]]
    proven = [f"{name} L{work.proofs[name]['level']}" for name in names if name in work.proofs]
    return Outcome(
        subject="backups",
        operation="backup_verification",
        status=status_of(work.actions, work.check_mode),
        summary=f"{len(names)} sets, proven: {', '.join(proven) or 'none'}",
        after={"levels": {name: work.proofs[name]["level"] for name in names if name in work.proofs}},
        findings=work.findings,
        metrics=work.metrics,
        actions=work.actions,
        returned={"proofs": {name: work.proofs[name] for name in names if name in work.proofs}},
    )


def _finding(id_: str, state: str, subject: str, summary: str, *, advice: str = "", **more: t.Any) -> Finding:
    return Finding(id=id_, state=state, subject=subject, summary=summary, advice="" if state == "ok" else advice, **more)


# Declarations --------------------------------------------------------------------------------------------------------

_POSITIVE = ("maximum_age_hours", "minimum_size_bytes", "size_change_percent")
_NOT_NEGATIVE = ("maximum_rpo_hours", "maximum_rto_minutes", "minimum_history_days", "count_change_percent", "application_id")


def check_declared(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what cannot be used, all of it at once.

    :raises InputError: one sentence for each problem.
    """
    problems = input_problems(params)
    for declared in params["sets"]:
        if not refusal(_check_paths, declared, params):
            problems += refusal(_check_places, declared, params)
    refuse(problems)


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [
        problem
        for declared in params["sets"]
        for check in (_check_names, _check_numbers, _check_paths)
        for problem in refusal(check, declared, params)
    ]
    problems += [f"kinds has {kind!r}, expected {', '.join(CHOICES)}; correct it." for kind in params["kinds"] if kind not in CHOICES]
    for declared in params["sets"]:
        problems += command_problems(declared["decrypt_command"], f"decrypt_command of set {declared['name']}")
        if declared["kind"] in ADAPTORS:
            problems += ADAPTORS[declared["kind"]].problems(declared, params)
    problems += application_drill.problems(params)
    names = Counter(declared["name"] for declared in params["sets"])
    problems += [f"The set name {name!r} is used {count} times; give each its own." for name, count in names.items() if count > 1]
    amounts = ("capacity_warning_percent", "capacity_critical_percent", "capacity_warning_days", "settle_seconds")
    problems += out_of_range(params, amounts)
    if params["timezone"]:
        problems += refusal(zone_of, params["timezone"])
    if params["emergency_timeout_seconds"] <= 0:
        problems.append(
            str(InputError.of("emergency_timeout_seconds", params["emergency_timeout_seconds"], "seconds above 0", "correct it"))
        )
    if any(declared["emergency"] for declared in params["sets"]) and not params["emergency_command"]:
        problems.append("A set has emergency: true, but emergency_command is empty; give the command as a list.")
    return problems


def _check_names(declared: Declared, _params: t.Mapping[str, t.Any]) -> None:
    name = declared["name"]
    if not name.strip():
        raise InputError.of("name", name, "a name that only this set has", "give each set its own")
    check_date_format(declared["date_format"], f"date_format of set {name}")
    if declared["layout"] == "dated_folders" and not declared["date_format"]:
        raise InputError.of(f"date_format of set {name}", "", "the format of the folders' names", "give one such as %Y%m%d")


def _check_numbers(declared: Declared, _params: t.Mapping[str, t.Any]) -> None:
    for option in _POSITIVE:
        if not declared[option] > 0:
            raise InputError.of(f"{option} of set {declared['name']}", declared[option], "a number above 0", "correct it")
    for option in _NOT_NEGATIVE:
        if not declared[option] >= 0:
            raise InputError.of(f"{option} of set {declared['name']}", declared[option], "0 or more", "correct it")
    for option, key, least in (("expected", "days", 1), ("expected", "keep_count", 0),
                               ("retention", "maximum_age_days", 1), ("retention", "minimum_count", 1)):  # fmt: skip
        value = (declared[option] or {}).get(key)
        if value is not None and not value >= least:
            raise InputError.of(f"{option}.{key} of set {declared['name']}", value, f"{least} or more", "correct it")


def _check_paths(declared: Declared, params: t.Mapping[str, t.Any]) -> None:
    for option, path in (
        (f"root of set {declared['name']}", declared["root"] or ("" if _needs_root(declared) else "/")),
        (f"source of set {declared['name']}", declared["source"] or "/"),
        ("scratch", params["scratch"]),
    ):
        if not os.path.isabs(path):
            raise InputError.of(option, path, "an absolute path", "write it from the root on")
    _check_apart(declared, params, os.path.normpath)


def _check_places(declared: Declared, params: t.Mapping[str, t.Any]) -> None:
    if declared["root"] and os.path.lexists(declared["root"]):
        with open_root(declared["root"], f"root of set {declared['name']}"):
            pass
    _check_apart(declared, params, os.path.realpath)


def _check_apart(declared: Declared, params: t.Mapping[str, t.Any], leads_to: t.Callable[[str], str]) -> None:
    scratch = leads_to(params["scratch"])
    for place, what in ((declared["root"], "root"), (declared["source"], "source")):
        place = leads_to(place) if place else ""
        if place and os.path.commonpath([place, scratch]) in (place, scratch):
            raise InputError.of(
                "scratch", params["scratch"], f"a folder apart from the {what} of set {declared['name']} ({place})",
                "a restore drill never goes near the source; name another folder",
            )  # fmt: skip


def _needs_root(declared: Declared) -> bool:
    adaptor = ADAPTORS.get(declared["kind"])
    return adaptor is None or adaptor.needs_root


# One set -------------------------------------------------------------------------------------------------------------


def _verify_set(declared: Declared, work: _Run) -> bool:
    """Judge one set; False when its emergency backup was needed and failed."""
    name = declared["name"]
    try:
        listing = _listed(declared, work)
        newest = _newest(listing, work)
        succeeded = True
        if declared["emergency"] and _why_not_fresh(newest, declared, work.now):
            succeeded = _emergency(declared, newest, work)
            listing = _listed(declared, work)
            newest = _newest(listing, work)
    except (OSError, MaintenanceError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        work.findings.append(_finding("backup.present", "unknown", name, f"L0: the set could not be looked at: {said}",
                                      advice="Correct the root's permissions or the declaration."))  # fmt: skip
        _forget(declared, work)
        return True
    _judge_listing(declared, listing, newest, work)
    work.findings += backup_objectives.conflicts(declared)
    if newest is not None:
        _climb(declared, listing, newest, work)
    else:
        _forget(declared, work)
        work.findings.append(_level_finding(declared, None, -1, "critical", "there is no backup"))
    return succeeded


def _listed(declared: Declared, work: _Run) -> Listing:
    """List a set; a root that does not exist simply holds no backup."""
    adaptor = ADAPTORS.get(declared["kind"])
    if _needs_root(declared) and not os.path.lexists(declared["root"]):
        return Listing(strange=[f"{declared['root']} does not exist"])
    return adaptor.listed(declared, work.around) if adaptor else list_backups(declared, work.zone)


def _newest(listing: Listing, work: _Run) -> Backup | None:
    """Return the newest finished backup; one that still grows goes to the unfinished ones."""
    past = [backup for backup in listing.backups if backup.moment <= work.now + HOUR]
    if not past:
        return None
    newest, settle = past[-1], work.params["settle_seconds"]
    last_written = max((file.mtime_ns for file in newest.files), default=0) / 1e9
    if settle > 0 and abs(work.now - last_written) < 10 * settle:
        work.host.sleep(settle)
        if any(_changed(file) for file in newest.files):
            listing.unfinished.append(newest.path)
            listing.backups.remove(newest)
            return past[-2] if len(past) > 1 else None
    return newest


def _changed(file: t.Any) -> bool:
    try:
        status = os.lstat(file.path)
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns)


def _why_not_fresh(newest: Backup | None, declared: Declared, now: float) -> str:
    if newest is None:
        return "there is no backup"
    if newest.size < declared["minimum_size_bytes"]:
        return f"the newest backup holds {newest.size} bytes"
    if now - newest.moment > declared["maximum_age_hours"] * HOUR:
        return f"the newest backup is {human_seconds(now - newest.moment)} old"
    return ""


def _emergency(declared: Declared, before: Backup | None, work: _Run) -> bool:
    """Run the site's backup command and believe only what lies there afterwards."""
    why = _why_not_fresh(before, declared, work.now)
    command = work.params["emergency_command"]
    if work.check_mode:
        work.actions.append(Action(declared["name"], "emergency_backup", "due", f"{why}; {command[0]} would run"))
        return True
    try:
        ran = work.host.run(command, timeout=work.params["emergency_timeout_seconds"])
        said = "" if ran.rc == 0 else ran.why()
    except MaintenanceError as error:
        said = str(error)
    if not said:
        said = _why_not_fresh(_newest(_listed(declared, work), work), declared, work.now)
    work.actions.append(Action(declared["name"], "emergency_backup", "failed" if said else "changed", said or f"{why}; a new one was made"))
    work.findings.append(
        _finding("backup.emergency", "critical" if said else "warning", declared["name"],
                 f"{why}; the emergency backup {'failed: ' + said if said else 'brought a fresh one'}",
                 advice="Look why the regular backup job did not run." if not said else _MAKE_ONE)
    )  # fmt: skip
    return not said


# Rung 0: what the listing shows --------------------------------------------------------------------------------------


def _judge_listing(declared: Declared, listing: Listing, newest: Backup | None, work: _Run) -> None:
    work.findings.append(_present(declared, listing, newest))
    if newest is not None:
        work.findings += [_age(declared, newest, work), _size(declared, listing, newest)]
        work.metrics += [
            Metric("backup.age_hours", declared["name"], round((work.now - newest.moment) / HOUR, 2), "hours"),
            Metric("backup.size_bytes", declared["name"], newest.size, "bytes"),
        ]
        work.findings += _duration(declared, listing)
        # A repository's tool tells of its encryption itself.
        work.findings += backup_objectives.encryption(declared, newest) if _needs_root(declared) else []
    future = [backup.path for backup in listing.backups if backup.moment > work.now + HOUR]
    if future:
        work.findings.append(
            _finding("backup.clock", "warning", declared["name"], f"{len(future)} backups are dated in the future",
                     advice="Correct the clock, the time zone or the names; they were not taken for the newest.",
                     evidence=future[:_FEW_LINES])
        )  # fmt: skip
    if declared["expected"]:
        work.findings.append(_completeness(declared, listing, work))
    if declared["retention"] or (declared["expected"] and declared["expected"]["keep_count"]):
        work.findings.append(_retention(declared, listing, work))


def _present(declared: Declared, listing: Listing, newest: Backup | None) -> Finding:
    evidence = [f"still being written: {path}" for path in listing.unfinished[:5]] + listing.strange[:5]
    if newest is None:
        return _finding(
            "backup.present", "critical", declared["name"],
            f"L0: no backup matches {declared['pattern']!r} below {declared['root']}", advice=_MAKE_ONE, evidence=evidence,
        )  # fmt: skip
    if listing.unfinished or listing.strange:
        return _finding(
            "backup.present", "warning", declared["name"],
            f"L0: {len(listing.backups)} backups, newest finished one {newest.path}; "
            f"{len(listing.unfinished)} half written, {len(listing.strange)} of the wrong kind", evidence=evidence,
            advice="Look whether the backup job is still running or died; remove what it left behind.",
        )  # fmt: skip
    return _finding("backup.present", "ok", declared["name"],
                    f"L0: {len(listing.backups)} backups, newest {newest.path}", value=len(listing.backups), unit="count")  # fmt: skip


def _age(declared: Declared, newest: Backup, work: _Run) -> Finding:
    age, limit = (work.now - newest.moment) / HOUR, declared["maximum_age_hours"]
    return _finding(
        "backup.age", "critical" if age > limit else "ok", declared["name"],
        f"L0: the newest backup was made {human_seconds(max(age, 0) * HOUR)} ago", value=round(age, 2), unit="hours",
        threshold=f"critical above {limit:g} hours", advice=_MAKE_ONE, evidence=[newest.path],
    )  # fmt: skip


def _size(declared: Declared, listing: Listing, newest: Backup) -> Finding:
    earlier = [backup.size for backup in listing.backups if backup.size and backup.moment < newest.moment][-7:]
    state, text = "ok", f"L0: {human_bytes(newest.size)}"
    if newest.size < declared["minimum_size_bytes"]:
        state = "critical"
        text = f"L0: the newest backup is {'empty' if not newest.size else 'only ' + human_bytes(newest.size)}"
    elif earlier:
        usual = statistics.median(earlier)
        change = (newest.size - usual) / usual * 100
        text += f", {change:+.0f} percent of the usual {human_bytes(usual)}"
        state = from_limit(abs(change), declared["size_change_percent"])
    return _finding(
        "backup.size", state, declared["name"], text, value=newest.size, unit="bytes", evidence=[newest.path],
        threshold=f"critical below {declared['minimum_size_bytes']} bytes, "
        f"warning from {declared['size_change_percent']:g} percent change",
        advice="Look what the backup lacks or suddenly holds before relying on it.",
    )  # fmt: skip


def _duration(declared: Declared, listing: Listing) -> list[Finding]:
    """Compare how long the newest backup took with those before, where names and time stamps tell."""
    took = [backup.took_seconds for backup in listing.backups if backup.took_seconds is not None][-8:]
    if len(took) < 4:
        return []
    usual = statistics.median(took[:-1])
    slow = took[-1] > 2 * usual and took[-1] - usual > 60
    return [_finding(
        "backup.duration", "warning" if slow else "ok", declared["name"],
        f"making the newest backup took {human_seconds(took[-1])}, usually {human_seconds(usual)}",
        value=round(took[-1], 1), unit="seconds", basis="estimated", threshold="warning from twice the usual time",
        advice="Look at what grew or what else runs at that time.",
    )]  # fmt: skip


def _completeness(declared: Declared, listing: Listing, work: _Run) -> Finding:
    expected, name = declared["expected"], declared["name"]
    days = expected["days"]
    if expected["every"] != "daily":
        each = {"hourly": 24, "weekly": 1 / 7}[expected["every"]]
        made, wanted = len(made_within(listing.backups, work.now, days)), max(int(days * each), 1)
        return _finding(
            "backup.completeness", "critical" if made < wanted else "ok", name,
            f"{made} of {wanted} {expected['every']} backups in the last {days} days", value=made, unit="count",
            threshold=f"critical below {wanted}", advice=_MAKE_ONE,
        )  # fmt: skip
    missing = missing_days(listing.backups, work.now, work.zone, days)
    text = f"{days - len(missing)} of {days} daily backups"
    if missing:
        text += ", none of " + ", ".join(day.isoformat() for day in missing)
    return _finding(
        "backup.completeness", "ok" if not missing else "critical" if len(missing) == days else "warning", name, text,
        value=days - len(missing), unit="count", threshold=f"warning below {days}",
        advice="Look in the job's log why it made none on these days; a gap is lost history.",
        evidence=[f"days are those of {local(work.now, work.zone).tzname()}"],
    )  # fmt: skip


def _retention(declared: Declared, listing: Listing, work: _Run) -> Finding:
    rule = declared["retention"] or {"maximum_age_days": float("inf"), "minimum_count": 1}
    wanted = max((declared["expected"] or {}).get("keep_count", 0), rule["minimum_count"])
    holding = [backup for backup in listing.backups if backup.size]
    old = too_old(listing.backups, work.now, rule["maximum_age_days"], wanted)
    text = f"{len(holding)} backups kept"
    if old:
        text += f", {len(old)} of them older than {rule['maximum_age_days']:g} days"
    if len(holding) < wanted:
        text += f", {wanted} are wanted"
    return _finding(
        "backup.retention", "warning" if old or len(holding) < wanted else "ok", declared["name"], text,
        value=len(holding), unit="count",
        threshold=f"warning below {wanted} kept, or older than {rule['maximum_age_days']:g} days",
        advice="Let the backup job's own clean-up run; nothing is deleted here. The newest ones always stay."
        if old else "Look why backups are missing, or who removed them, before anything else is removed.",
        evidence=[backup.path for backup in old[:_FEW_LINES]],
    )  # fmt: skip


# Rungs 1 to 5 --------------------------------------------------------------------------------------------------------


def _climb(declared: Declared, listing: Listing, newest: Backup, work: _Run) -> None:
    name = declared["name"]
    known = work.history.setdefault("files", {}).get(name, {})
    last = _usual_seconds(work.history.setdefault("seconds", {}).get(name), declared["level"])
    proof, state, why = Proof(), "critical", ""
    started = work.now
    if not newest.size:
        proof.reached, why = -1, "the newest backup is empty"
    elif declared["level"] and 0 < work.params["deadline"] < started + last:
        state, why = "unknown", f"verifying takes {human_seconds(last)}, which does not fit before the deadline"
        work.actions.append(Action(name, "backup_proof", "deferred", why))
    elif declared["level"]:
        proof = _proven(declared, newest, known, work)
        state, why = proof.findings[-1].state, proof.findings[-1].summary
        kept = work.history["seconds"].get(name)
        kept = kept if isinstance(kept, dict) else {}
        work.history["seconds"][name] = {**kept, str(declared["level"]): round(work.now - started, 3)}
    work.findings += proof.findings
    work.findings += backup_objectives.measured(declared, proof, work.proofs.get(name, {}), work.host.now().isoformat(timespec="seconds"))
    work.metrics += [*proof.metrics, Metric("backup.level", name, proof.reached, "level")]
    work.findings.append(_level_finding(declared, newest, proof.reached, state, why))
    _remember(declared, listing, newest, proof, work)
    _older(declared, listing, newest, known, work)


def _older(declared: Declared, listing: Listing, newest: Backup, known: t.Mapping[str, t.Any], work: _Run) -> None:
    level = min(declared["every_level"], work.params["maximum_level"])
    rest = [backup for backup in reversed(listing.backups) if backup.path != newest.path and backup.moment <= work.now + HOUR]
    if not level or not rest:
        return
    deadline = work.params["deadline"]
    finding, digests = older(
        {**declared, "every_level": level}, rest, lambda asked, backup: _proven(asked, backup, known, work), lambda: 0 < deadline < work.now
    )
    work.findings.append(finding)
    stamp, files = work.host.now().isoformat(timespec="seconds"), work.history["files"].setdefault(declared["name"], {})
    for file in (file for backup in rest for file in backup.files if file.path in digests):
        before = files.get(file.path, {})
        if (before.get("sha256"), before.get("mtime_ns")) != (digests[file.path], file.mtime_ns):
            files[file.path] = {"sha256": digests[file.path], "mtime_ns": file.mtime_ns, "size": file.size, "first_seen": stamp}


def _usual_seconds(kept: t.Any, level: int) -> float:
    """Return how long verifying to a level took last time: a drill takes longer than a reading."""
    if isinstance(kept, dict):
        return max((float(seconds) for at, seconds in kept.items() if int(at) <= level), default=0.0)
    return float(kept or 0.0)


def _proven(declared: Declared, newest: Backup, known: t.Mapping[str, t.Any], work: _Run) -> Proof:
    try:
        scratch = Scratch(work.params["scratch"])
    except (OSError, MaintenanceError) as error:
        unusable = _finding(
            "backup.restore", "unknown", newest.path, f"L3: the scratch folder cannot be used: {error}",
            advice="Name a private folder with room as backup_verification_scratch.",
        )  # fmt: skip
        return Proof(findings=[unusable])
    try:
        if not work.check_mode:
            scratch.sweep()
        if declared["kind"] in ADAPTORS:
            return prove_whole(ADAPTORS[declared["kind"]], Climb(declared, newest, work.around, scratch, known))
        return prove(declared, newest, scratch, known, work.now)
    finally:
        scratch.close()


def _level_finding(declared: Declared, newest: Backup | None, reached: int, state: str, why: str) -> Finding:
    demanded = declared["level"]
    text = f"proven to L{reached} ({LEVELS[reached]})"
    if reached < demanded:
        text = f"{'not even L0' if reached < 0 else f'L{reached}'} of the demanded L{demanded} ({LEVELS[demanded]}): {why}"
    return _finding(
        "backup.level", state if reached < demanded else "ok", newest.path if newest else declared["name"], text,
        value=reached, unit="level", threshold=f"below L{demanded}",
        advice="Do not count on restoring it to that level; see the finding of the next rung.",
    )  # fmt: skip


def _remember(declared: Declared, listing: Listing, newest: Backup, proof: Proof, work: _Run) -> None:
    name, stamp = declared["name"], work.host.now().isoformat(timespec="seconds")
    files = work.history["files"].setdefault(name, {})
    there = {file.path for backup in listing.backups for file in backup.files}
    for path in [path for path in files if path not in there]:
        del files[path]
    is_sound = all(finding.state in ("ok", "warning") for finding in proof.findings)
    for file in newest.files:
        digest = proof.digests.get(file.path)
        before = files.get(file.path, {})
        if digest and is_sound and (before.get("sha256"), before.get("mtime_ns")) != (digest, file.mtime_ns):
            files[file.path] = {"sha256": digest, "mtime_ns": file.mtime_ns, "size": file.size, "first_seen": stamp}
    levels = dict(work.proofs.get(name, {}).get("levels", {}))
    levels.update({str(level): stamp for level in range(proof.reached + 1)})
    work.proofs[name] = {
        "path": newest.path,
        "kind": declared["kind"],
        "time": datetime.fromtimestamp(newest.moment, timezone.utc).isoformat(timespec="seconds"),
        "age_seconds": round(work.now - newest.moment),
        "is_fresh": not _why_not_fresh(newest, declared, work.now),
        "bytes": newest.size,
        "level": proof.reached,
        "demanded": declared["level"],
        "levels": levels,
        "checksum_basis": proof.basis,
        "sha256": proof.digests if len(proof.digests) <= 50 else {},
        "source": declared["source"],
        "rpo_seconds": proof.rpo_seconds,
        "rto_seconds": proof.rto_seconds,
        "measured": backup_objectives.remembered(proof, work.proofs.get(name, {}), stamp),
        "verified": stamp,
        "run_id": work.params["run_id"],
    }


def _forget(declared: Declared, work: _Run) -> None:
    """Nothing is proven now; when each level was last reached stays."""
    levels = work.proofs.get(declared["name"], {}).get("levels", {})
    work.proofs[declared["name"]] = {
        "path": "", "level": -1, "demanded": declared["level"], "levels": levels, "is_fresh": False, "sha256": {},
        "measured": work.proofs.get(declared["name"], {}).get("measured", {}),
        "source": declared["source"], "verified": work.host.now().isoformat(timespec="seconds"),
        "run_id": work.params["run_id"],
    }  # fmt: skip


def _keep(work: _Run) -> None:
    names = work.params["known"]
    for part in ("files", "seconds"):
        work.history[part] = {name: kept for name, kept in work.history.get(part, {}).items() if name in names}
    stamp = work.host.now().isoformat(timespec="seconds")
    sets = {name: proof for name, proof in work.proofs.items() if name in names}
    write_state(work.params["state_dir"], HISTORY, work.history)
    write_state(work.params["state_dir"], PROOFS, {"updated": stamp, "run_id": work.params["run_id"], "sets": sets})


# Whole applications --------------------------------------------------------------------------------------------------


def _applications(work: _Run, sets: t.Mapping[str, Declared]) -> None:
    """Drill every declared application, one after the other."""
    for application in work.params["applications"]:
        if 0 < work.params["deadline"] <= work.now:
            work.actions.append(Action(application["name"], "application_drill", "deferred", "the deadline was reached"))
            work.findings.append(_finding("drill.application", "unknown", application["name"], "deferred: the deadline was reached",
                                          advice="Give the drill more time."))  # fmt: skip
            continue
        try:
            scratch = Scratch(work.params["scratch"])
        except (OSError, MaintenanceError) as error:
            work.findings.append(_finding("drill.files", "unknown", application["name"], f"the scratch folder cannot be used: {error}",
                                          advice="Name a private folder with room as backup_verification_scratch."))  # fmt: skip
            continue
        drill = application_drill.Drill(application, sets, lambda declared: _newest(_listed(declared, work), work), work.around, scratch)
        try:
            drill.run()
        finally:
            scratch.close()
        work.findings += drill.findings
        work.metrics += drill.metrics


# The file systems that backups lie on --------------------------------------------------------------------------------


def _capacity(work: _Run) -> None:
    used = work.history.setdefault("used", {})
    seen: set[int] = set()
    for root in filter(None, (declared["root"] for declared in work.params["sets"])):
        with contextlib.suppress(OSError):
            device = os.stat(root).st_dev
            if device in seen:
                continue
            seen.add(device)
            status = os.statvfs(root)
            taken = (status.f_blocks - status.f_bfree) * status.f_frsize
            free = status.f_bavail * status.f_frsize
            used[root] = appended(used.get(root, []), work.now, taken)
            work.findings.append(_capacity_finding(root, taken, free, used[root], work))
            work.metrics.append(Metric("backup.free_bytes", root, free, "bytes"))


def _capacity_finding(root: str, taken: float, free: float, points: t.Sequence[Point], work: _Run) -> Finding:
    percent = taken / (taken + free) * 100 if taken + free else 0.0
    params = work.params
    state = from_limit(percent, params["capacity_warning_percent"], params["capacity_critical_percent"])
    text, not_covered = f"{percent:.0f} percent used, {human_bytes(free)} free", ""
    try:
        left = days_until(points, taken + free)
    except ValueError as error:
        left, not_covered = None, f"when it will be full: {error}"
    if left is not None:
        text += f", full in about {left:.0f} days"
        state = max(state, below_limit(left, params["capacity_warning_days"]), key=("ok", "warning", "critical").index)
    return _finding(
        "backup.capacity", state, root, text, value=round(percent, 1), unit="percent", not_covered=not_covered,
        threshold=limits("percent", params["capacity_warning_percent"], params["capacity_critical_percent"])
        + f", warning below {params['capacity_warning_days']:g} days until full",
        advice="Give the backups more room, or shorten their retention, before the next ones fail.",
    )  # fmt: skip


# The verifier itself -------------------------------------------------------------------------------------------------


def _self_test(work: _Run) -> None:
    """Make every verdict unknown when the verifier passes a backup that is known to be bad."""
    try:
        scratch = Scratch(work.params["scratch"])
        try:
            problems = backup_self_test.problems(scratch, work.now)
        finally:
            scratch.close()
    except (OSError, MaintenanceError) as error:
        problems = [f"the samples could not be made: {error}"]
    if problems:
        advice = "Report this defect; verify the backups by other means until it is mended."
        work.findings = [dataclasses.replace(finding, state="unknown", advice=advice) for finding in work.findings]
        for proof in work.proofs.values():
            proof["level"] = min(proof["level"], 0)
    work.findings.append(
        _finding("backup.self_test", "unknown" if problems else "ok", "backup_verification",
                 problems[0] if problems else "every planted bad backup was found, the good ones passed",
                 advice="Do not trust the verdicts on backups of this run.", evidence=problems)
    )  # fmt: skip
