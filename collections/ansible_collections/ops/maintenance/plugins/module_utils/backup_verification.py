# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say of every declared set of backups to what level its newest one is proven, and what the set lacks."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from . import application_drill, backup_keys, backup_objectives, backup_self_test
from .backup_adaptor import Climb
from .backup_adaptors import ADAPTORS
from .backup_inputs import OPTIONS, check_declared, input_problems, needs_root
from .backup_listed import judge_listing
from .backup_memory import HISTORY, PROOFS, capacity, forget, keep, remember
from .backup_older import older
from .backup_proof import LEVELS, Proof, Scratch, prove, prove_whole
from .backup_proven import has_changed
from .backup_sets import HOUR, Backup, Declared, Listing, list_backups
from .backup_work import MAKE_ONE, Run, finding_of, why_not_fresh
from .errors import MaintenanceError, VerifyError
from .host import Host
from .judge import human_seconds
from .log_lines import zone_of
from .paths import read_state
from .record import Action, Finding, Metric, Outcome, status_of

__all__ = ["HISTORY", "OPTIONS", "PROOFS", "check_declared", "input_problems", "level_of", "run"]


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
    work = Run(params, check_mode, host, zone, history, proofs.get("sets", {}))
    with backup_keys.fetched(_to_read(params, declared_sets), params["scratch"]) as keys:
        failed = [set_["name"] for set_ in params["sets"] if not _verified(set_, keys.get(set_["name"]), work)]
        _applications(work, {**declared_sets, **{name: key.declared for name, key in keys.items()}})
    capacity(work)
    if not params["sets"]:
        work.findings.append(
            finding_of(
                "backup.present",
                "unknown",
                "backups",
                "no set of backups is declared",
                advice="Declare what is backed up in backup_verification_sets.",
            )
        )
    if params["self_test"]:
        _self_test(work)
    if not check_mode:
        keep(work)
    outcome = _outcome(work)
    if failed:
        raise VerifyError(
            f"The emergency backup of {', '.join(failed)} did not bring a fresh backup; go no further before there is one.",
            outcome,
        )
    return outcome


def _to_read(params: t.Mapping[str, t.Any], declared_sets: t.Mapping[str, Declared]) -> list[Declared]:
    """Return the sets whose backups are opened in this run: by themselves, or for an application."""
    names = {declared["name"] for declared in params["sets"] if declared["level"]}
    for application in params["applications"]:
        names |= {application["database"], *(part["set"] for part in application["files"])}
    return [declared for name, declared in declared_sets.items() if name in names]


def level_of(declared: Declared, params: t.Mapping[str, t.Any]) -> int:
    """Return the level that a set is verified to in this run: its own, unless the run asks for another or caps it."""
    wanted = params["level"] if params["level"] >= 0 else declared["level"]
    return int(min(wanted, params["maximum_level"]))


def _outcome(work: Run) -> Outcome:
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


# One set -------------------------------------------------------------------------------------------------------------


def _verified(declared: Declared, key: backup_keys.Key | None, work: Run) -> bool:
    """Judge one set with the key that was fetched for it."""
    name, before = declared["name"], len(work.findings)
    asked = {**declared, "decrypt_command": key.declared["decrypt_command"]} if key else declared
    succeeded = _verify_set(asked, work)
    encrypted = any(found.id == "backup.encryption" and found.state == "ok" for found in work.findings[before:])
    found = backup_keys.finding(declared, key if declared["level"] else None, work.proofs.get(name, {}).get("level", -1), encrypted)
    work.findings += [found] if found else []
    return succeeded


def _verify_set(declared: Declared, work: Run) -> bool:
    """Judge one set; False when its emergency backup was needed and failed."""
    name = declared["name"]
    try:
        listing = _listed(declared, work)
        newest = _newest(listing, work)
        succeeded = True
        if declared["emergency"] and why_not_fresh(newest, declared, work.now):
            succeeded = _emergency(declared, newest, work)
            listing = _listed(declared, work)
            newest = _newest(listing, work)
    except (OSError, MaintenanceError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        work.findings.append(
            finding_of(
                "backup.present",
                "unknown",
                name,
                f"L0: the set could not be looked at: {said}",
                advice="Correct the root's permissions or the declaration.",
            )
        )
        forget(declared, work)
        return True
    judge_listing(declared, listing, newest, work)
    work.findings += backup_objectives.conflicts(declared)
    if newest is not None:
        _climb(declared, listing, newest, work)
    else:
        forget(declared, work)
        work.findings.append(_level_finding(declared, None, -1, "critical", "there is no backup"))
    return succeeded


def _listed(declared: Declared, work: Run) -> Listing:
    """List a set; a root that does not exist simply holds no backup."""
    adaptor = ADAPTORS.get(declared["kind"])
    if needs_root(declared) and not os.path.lexists(declared["root"]):
        return Listing(strange=[f"{declared['root']} does not exist"])
    return adaptor.listed(declared, work.around) if adaptor else list_backups(declared, work.zone)


def _newest(listing: Listing, work: Run) -> Backup | None:
    """Return the newest finished backup; one that still grows goes to the unfinished ones."""
    past = [backup for backup in listing.backups if backup.moment <= work.now + HOUR]
    if not past:
        return None
    newest, settle = past[-1], work.params["settle_seconds"]
    last_written = max((file.mtime_ns for file in newest.files), default=0) / 1e9
    if settle > 0 and abs(work.now - last_written) < 10 * settle:
        work.host.sleep(settle)
        if any(has_changed(file) for file in newest.files):
            listing.unfinished.append(newest.path)
            listing.backups.remove(newest)
            return past[-2] if len(past) > 1 else None
    return newest


def _emergency(declared: Declared, before: Backup | None, work: Run) -> bool:
    """Run the site's backup command and believe only what lies there afterwards."""
    why = why_not_fresh(before, declared, work.now)
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
        said = why_not_fresh(_newest(_listed(declared, work), work), declared, work.now)
    work.actions.append(Action(declared["name"], "emergency_backup", "failed" if said else "changed", said or f"{why}; a new one was made"))
    work.findings.append(
        finding_of(
            "backup.emergency",
            "critical" if said else "warning",
            declared["name"],
            f"{why}; the emergency backup {'failed: ' + said if said else 'brought a fresh one'}",
            advice="Look why the regular backup job did not run." if not said else MAKE_ONE,
        )
    )
    return not said


# Rungs 1 to 5 --------------------------------------------------------------------------------------------------------


def _climb(declared: Declared, listing: Listing, newest: Backup, work: Run) -> None:
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
    remember(declared, listing, newest, proof, work)
    _older(declared, listing, newest, known, work)


def _older(declared: Declared, listing: Listing, newest: Backup, known: t.Mapping[str, t.Any], work: Run) -> None:
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


def _proven(declared: Declared, newest: Backup, known: t.Mapping[str, t.Any], work: Run) -> Proof:
    try:
        scratch = Scratch(work.params["scratch"])
    except (OSError, MaintenanceError) as error:
        unusable = finding_of(
            "backup.restore",
            "unknown",
            newest.path,
            f"L3: the scratch folder cannot be used: {error}",
            advice="Name a private folder with room as backup_verification_scratch.",
        )
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
    return finding_of(
        "backup.level",
        state if reached < demanded else "ok",
        newest.path if newest else declared["name"],
        text,
        value=reached,
        unit="level",
        threshold=f"below L{demanded}",
        advice="Do not count on restoring it to that level; see the finding of the next rung.",
    )


# Whole applications --------------------------------------------------------------------------------------------------


def _applications(work: Run, sets: t.Mapping[str, Declared]) -> None:
    """Drill every declared application, one after the other."""
    for application in work.params["applications"]:
        if 0 < work.params["deadline"] <= work.now:
            work.actions.append(Action(application["name"], "application_drill", "deferred", "the deadline was reached"))
            work.findings.append(
                finding_of(
                    "drill.application",
                    "unknown",
                    application["name"],
                    "deferred: the deadline was reached",
                    advice="Give the drill more time.",
                )
            )
            continue
        try:
            scratch = Scratch(work.params["scratch"])
        except (OSError, MaintenanceError) as error:
            work.findings.append(
                finding_of(
                    "drill.files",
                    "unknown",
                    application["name"],
                    f"the scratch folder cannot be used: {error}",
                    advice="Name a private folder with room as backup_verification_scratch.",
                )
            )
            continue
        drill = application_drill.Drill(application, sets, lambda declared: _newest(_listed(declared, work), work), work.around, scratch)
        try:
            drill.run()
        finally:
            scratch.close()
        work.findings += drill.findings
        work.metrics += drill.metrics


# The verifier itself -------------------------------------------------------------------------------------------------


def _self_test(work: Run) -> None:
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
            proof.update(level=min(proof["level"], 0), deeper=[])
    work.findings.append(
        finding_of(
            "backup.self_test",
            "unknown" if problems else "ok",
            "backup_verification",
            problems[0] if problems else "every planted bad backup was found, the good ones passed",
            advice="Do not trust the verdicts on backups of this run.",
            evidence=problems,
        )
    )
