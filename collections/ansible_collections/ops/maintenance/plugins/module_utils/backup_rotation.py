# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotate backups: keep what the policy wants, promote the monthly copy, archive, and only then remove, while a newer one is proven."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from . import backup_archive
from .backup_policy import Plan, month_of, months_without_copy, plan
from .backup_proven import fingerprint, has_changed, is_short
from .backup_sets import HOUR, Backup, check_date_format, list_backups
from .errors import MaintenanceError, refuse
from .host import Host
from .judge import human_bytes, human_seconds
from .log_lines import zone_of
from .paths import open_root, read_state, sha256_of
from .record import Action, Finding, Json, Metric, Outcome, status_of

PROOFS = "backup_proofs.json"

_RULE: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "set": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "pattern": {"type": "str", "required": True},
    "layout": {"type": "str", "choices": ["files", "folders", "dated_folders"], "default": "files"},
    "date_format": {"type": "str", "default": ""},
    "manifest": {"type": "str", "default": ""},
    "keep_daily": {"type": "int", "default": 30},
    "keep_weekly": {"type": "int", "default": 0},
    "keep_monthly": {"type": "int", "default": 0},
    "minimum_age_days": {"type": "float", "default": 1.0},
    "minimum_copies": {"type": "int", "default": 3},
    "demanded_level": {"type": "int", "choices": [1, 2, 3, 4, 5], "default": 2},
    "maximum_proof_age_hours": {"type": "float", "default": 26.0},
    "monthly_to": {"type": "path", "default": ""},
    "archive_to": {"type": "path", "default": ""},
    "archive_name": {"type": "str", "default": "monthly_backup_%Y%m.tar.gz"},
}

OPTIONS: dict[str, t.Any] = {
    "rules": {"type": "list", "elements": "dict", "required": True, "options": _RULE},
    "timezone": {"type": "str", "default": ""},
}

Rule = t.Mapping[str, t.Any]
_SHOWN = 15


class _Proven(t.NamedTuple):
    """The proof that allows removals: its backup's path and time; no time when there is none, and then why."""

    path: str
    moment: float | None
    why: str


@dataclass
class _Run:
    params: t.Mapping[str, t.Any]
    check_mode: bool
    host: Host
    zone: tzinfo | None
    proofs: t.Mapping[str, t.Any]
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    @property
    def now(self) -> float:
        return self.host.now().timestamp()

    def act(self, subject: str, operation: str, summary: str) -> None:
        self.actions.append(Action(subject, operation, "due" if self.check_mode else "changed", summary))

    @property
    def is_late(self) -> bool:
        return bool(0 < self.params["deadline"] <= self.now)


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Apply every rule; see :class:`record.Outcome`.

    :raises InputError: a rule cannot be used; nothing was looked at.
    """
    refuse([*input_problems(params), *_absent_roots(params)])
    zone = zone_of(params["timezone"]) if params["timezone"] else None
    work = _Run(params, check_mode, host, zone, read_state(params["state_dir"], PROOFS).get("sets", {}))
    for rule in params["rules"]:
        try:
            _apply(rule, work)
        except (OSError, MaintenanceError) as error:
            said = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
            work.findings.append(_finding(rule, "rotation", "critical", f"stopped, nothing more was removed: {said}",
                                          advice="Mend what is said, then run again."))  # fmt: skip
    if not params["rules"]:
        work.findings.append(Finding("backup.rotation", "unknown", "backups", "no rule is declared",
                                     advice="Declare how long backups are kept in backup_rotation_rules."))  # fmt: skip
    removed = sum(action.operation == "remove_backup" for action in work.actions)
    return Outcome(
        subject="backups", operation="backup_rotation", status=status_of(work.actions, check_mode),
        summary=f"{len(params['rules'])} rules, {removed} backups {'would be ' if check_mode else ''}removed",
        findings=work.findings, metrics=work.metrics, actions=work.actions,
    )  # fmt: skip


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return a sentence for each thing that cannot be used."""
    problems: list[str] = []
    names: set[str] = set()
    for rule in params["rules"]:
        problems += _rule_problems(rule, names)
        names.add(rule["name"])
    return problems


def _absent_roots(params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    for rule in params["rules"]:
        try:
            with open_root(rule["root"], f"root of rule {rule['name']!r}"):
                pass
        except MaintenanceError as error:
            yield str(error)


def _rule_problems(rule: Rule, names: t.Collection[str]) -> t.Iterator[str]:
    of_rule = f"of rule {rule['name']!r}"
    if rule["name"] in names or not rule["name"].strip():
        yield f"name {of_rule} is used twice or empty, expected one of its own; correct it."
    try:
        check_date_format(rule["date_format"], f"date_format {of_rule}")
    except MaintenanceError as error:
        yield str(error)
    if rule["layout"] == "dated_folders" and not rule["date_format"]:
        yield f"date_format {of_rule} is empty, expected the format of the folders' names; give one such as %Y%m%d."
    if rule["minimum_copies"] < 1:
        yield f"minimum_copies {of_rule} is {rule['minimum_copies']}, expected 1 or more, for the last copy never goes; correct it."
    if min(rule["keep_daily"], rule["keep_weekly"], rule["keep_monthly"], rule["minimum_age_days"]) < 0:
        yield f"A keep count or the minimum age {of_rule} is negative, expected 0 or more; correct it."
    if not rule["keep_daily"] + rule["keep_weekly"] + rule["keep_monthly"]:
        yield f"keep_daily, keep_weekly and keep_monthly {of_rule} are all 0, expected one of them; say how many to keep."
    for option in ("monthly_to", "archive_to"):
        place = rule[option]
        if place and (not os.path.isabs(place) or _is_inside(place, rule["root"])):
            yield f"{option} {of_rule} is {place!r}, expected an absolute path outside of {rule['root']}; what is kept there must not be rotated."
    if rule["archive_to"] and not ("%Y" in rule["archive_name"] and "%m" in rule["archive_name"]):
        yield f"archive_name {of_rule} is {rule['archive_name']!r}, expected %Y and %m in it; an archive of one month never takes another's place."
    if rule["archive_to"] and not rule["archive_name"].endswith((".tar", ".tar.gz", ".tgz")):
        yield f"archive_name {of_rule} is {rule['archive_name']!r}, expected .tar, .tar.gz or .tgz at its end; correct it."


def _is_inside(path: str, root: str) -> bool:
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    return os.path.commonpath([real, real_root]) == real_root


def _finding(rule: Rule, what: str, state: str, summary: str, *, advice: str = "", **more: t.Any) -> Finding:
    return Finding(id=f"backup.{what}", state=state, subject=rule["name"], summary=summary, advice="" if state == "ok" else advice, **more)


# One rule ------------------------------------------------------------------------------------------------------------


def _apply(rule: Rule, work: _Run) -> None:
    backups = list_backups({**rule, "kind": "files"}, work.zone).backups
    proven = _proven(rule, work)
    held = _promoted(rule, backups, proven, work) if rule["monthly_to"] else set()
    made = plan(backups, rule, work.now, proven=proven.path, proven_moment=proven.moment)
    if rule["monthly_to"]:
        _keep_for_promotion(made, months_without_copy(backups, held))
    if made.remove and rule["archive_to"]:
        made.remove = _archived(rule, made.remove, work)
    removed = [backup for backup in made.remove if _removed(rule, backup, work)]
    _report(rule, backups, made, removed, proven, work)


def _proven(rule: Rule, work: _Run) -> _Proven:
    """Return the newest proof of the rule's set that holds still: the last one, or an earlier one that went deeper."""
    last = work.proofs.get(rule["set"])
    if not last or not last.get("path"):
        return _Proven("", None, f"no backup of set {rule['set']!r} is proven now")
    found = _judged(last, rule, work)
    if last["level"] >= rule["demanded_level"] or is_short(last):
        return found
    earlier = [_judged(proof, rule, work) for proof in last.get("deeper", []) if proof["level"] >= rule["demanded_level"]]
    return next((proven for proven in earlier if not proven.why), earlier[0] if earlier else found)


def _judged(proof: t.Mapping[str, Json], rule: Rule, work: _Run) -> _Proven:
    """Say whether a proof still holds: deep enough, recent, and of a backup that is unchanged."""
    path = str(proof["path"])
    if proof["level"] < rule["demanded_level"]:
        return _Proven(path, None, f"the newest is proven to L{proof['level']}, L{rule['demanded_level']} is demanded")
    age = work.now - datetime.fromisoformat(proof["verified"]).timestamp()
    if age > rule["maximum_proof_age_hours"] * HOUR or not proof.get("is_fresh"):
        return _Proven(path, None, f"the newest proof is {human_seconds(age)} old or of a backup that is too old")
    digests = proof.get("sha256") or {}
    if not os.path.lexists(path):
        return _Proven(path, None, f"{path}, which was proven, is gone")
    for file, digest in digests.items():
        if not os.path.isfile(file) or sha256_of(file) != digest:
            return _Proven(path, None, f"{file} is not what was proven any more")
    if not digests and (not proof.get("files") or proof["files"] != fingerprint(path)):
        return _Proven(path, None, f"{path} is not what was proven any more")
    return _Proven(path, datetime.fromisoformat(proof["time"]).timestamp(), "")


def _report(rule: Rule, backups: t.Sequence[Backup], made: Plan, removed: t.Sequence[Backup], proven: _Proven, work: _Run) -> None:
    freed = sum(backup.size for backup in removed)
    left = len(made.remove) - len(removed)
    text = f"{len(backups) - len(removed)} backups stay, {len(removed)} {'would be' if work.check_mode else 'were'} removed ({human_bytes(freed)})"
    state, advice = "ok", ""
    if proven.why:
        state, text = "warning", f"nothing is removed: {proven.why}"
        advice = "Prove the newest backup (backup_verification), then run again."
    elif left:
        state, text, advice = "warning", f"{text}, {left} were left", "Run again; they changed, or the window closed before."
    evidence = [f"removed: {backup.path}" for backup in removed] + [
        f"kept, {made.reasons[backup.path]}: {backup.path}" for backup in made.keep if backup.path in made.reasons
    ]
    work.findings.append(
        _finding(rule, "rotation", state, text, advice=advice, value=len(removed), unit="count", evidence=evidence[:_SHOWN])
    )
    work.metrics.append(Metric("backup.rotated_bytes", rule["name"], freed, "bytes"))


def _removed(rule: Rule, backup: Backup, work: _Run) -> bool:
    """Remove one backup, unless it is no longer what was listed; never through a link, never outside the root."""
    if work.is_late:
        work.actions.append(Action(backup.path, "remove_backup", "deferred", "the window has closed"))
        return False
    if not _is_inside(backup.path, rule["root"]) or any(has_changed(file) for file in backup.files):
        return False
    if not work.check_mode:
        if stat.S_ISDIR(os.lstat(backup.path).st_mode):
            shutil.rmtree(backup.path)
        else:
            os.unlink(backup.path)
            if "{name}" in rule["manifest"]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(os.path.dirname(backup.path), rule["manifest"].replace("{name}", os.path.basename(backup.path))))
    work.act(backup.path, "remove_backup", f"of {backup.day.isoformat()}, {human_bytes(backup.size)}")
    return True


# The monthly copy ----------------------------------------------------------------------------------------------------


def _promoted(rule: Rule, backups: t.Sequence[Backup], proven: _Proven, work: _Run) -> set[tuple[int, int]]:
    """Copy the proven backup of a month that has no copy yet; return the months that have one."""
    folder = rule["monthly_to"]
    names = os.listdir(folder) if os.path.isdir(folder) else []
    held = {(int(name[:4]), int(name[4:6])) for name in names if name[:6].isdigit() and name[6:7] == "-"}
    newest = next((backup for backup in backups if backup.path == proven.path), None)
    if newest is not None and proven.moment is not None and month_of(newest.day) not in held and not work.is_late:
        target = os.path.join(folder, f"{newest.day:%Y%m}-{os.path.basename(newest.path)}")
        if not work.check_mode:
            for file in newest.files:
                relative = os.path.relpath(file.path, newest.path)
                backup_archive.copy(file.path, target if relative == "." else os.path.join(target, relative))
        work.act(newest.path, "promote_backup", f"proven monthly copy {target}")
        held.add(month_of(newest.day))
    missing = sorted(months_without_copy(backups, held))
    shown = ", ".join(f"{year}-{month:02d}" for year, month in missing)
    work.findings.append(
        _finding(rule, "monthly", "warning" if missing else "ok",
                 f"no monthly copy of {shown}: none of its backups was proven in time" if missing else f"{len(held)} months have their copy",
                 value=len(held), unit="count", advice="Prove a backup of that month by hand and copy it; its daily ones are kept until then.")
    )  # fmt: skip
    return held


def _keep_for_promotion(made: Plan, months: t.Collection[tuple[int, int]]) -> None:
    """Keep the newest backup of every month that has no monthly copy."""
    for month in months:
        of_month = [backup for backup in made.remove if month_of(backup.day) == month and backup.size]
        if of_month and not any(month_of(backup.day) == month for backup in made.keep):
            made.reasons[of_month[-1].path] = "its month has no monthly copy"
            made.remove.remove(of_month[-1])
            made.keep.append(of_month[-1])


# The archive ---------------------------------------------------------------------------------------------------------


def _archived(rule: Rule, backups: t.Sequence[Backup], work: _Run) -> list[Backup]:
    """Archive what is to be removed, by month; return what is proven to lie in an archive."""
    safe: list[Backup] = []
    made: list[str] = []
    months: dict[str, list[Backup]] = {}
    for backup in backups:
        months.setdefault(os.path.join(rule["archive_to"], backup.day.strftime(rule["archive_name"])), []).append(backup)
    for target, of_month in sorted(months.items()):
        there = [path for path in _versions(target) if os.path.lexists(path)]
        held = {name: digest for path in there for name, digest in backup_archive.held_in(path).items()}
        missing = [backup for backup in of_month if not _is_held(backup, rule["root"], held)]
        if missing and not work.is_late:
            path = next(path for path in _versions(target) if not os.path.lexists(path))
            if not work.check_mode:
                backup_archive.pack(missing, rule["root"], path)
            work.act(path, "archive_backups", f"{len(missing)} backups, read back and compared")
            made.append(path)
            missing = []
        safe += [backup for backup in of_month if backup not in missing]
    same = os.path.isdir(rule["archive_to"]) and os.stat(rule["archive_to"]).st_dev == os.stat(rule["root"]).st_dev
    work.findings.append(
        _finding(rule, "archive", "warning" if same else "ok",
                 f"{len(safe)} backups lie in archives, {len(made)} archives {'would be ' if work.check_mode else ''}made"
                 + (f"; {rule['archive_to']} is on the same file system as {rule['root']}" if same else ""),
                 value=len(made), unit="count", advice="Archive to other storage: one failure would take backups and archives.", evidence=made)
    )  # fmt: skip
    return [backup for backup in backups if backup in safe]


def _versions(target: str) -> t.Iterator[str]:
    """Yield the names that archives of one month may have: the plain one, then numbered ones, for none is written over."""
    end = next((end for end in (".tar.gz", ".tgz") if target.endswith(end)), ".tar")
    yield target
    yield from (f"{target[: -len(end)]}_{number}{end}" for number in range(2, 100))


def _is_held(backup: Backup, root: str, held: t.Mapping[str, str]) -> bool:
    if not held:
        return False
    return all(held.get(os.path.relpath(file.path, root)) == sha256_of(file.path) for file in backup.files)
