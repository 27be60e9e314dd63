# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance log entry of a run, what is recommended, and what the next maintenance has to do."""

from __future__ import annotations

from collections.abc import Iterator

from . import report_values as v
from . import report_words as words
from .report_attacks import same_attack
from .report_checklist import sign_off
from .report_lines import Line, Lines
from .report_model import Action, Failure, Finding, Host, Item, Log, Recommendation, Run, System

_EMERGENCY = ("emergency", "outage", "rollback", "restore")
_SECURITY_STEPS = {"patching", "security_review", "security"}
_UNIT_OPERATIONS = ("stop", "start", "restart")
"""What is done to a unit; the action's subject names it."""
_NO_PERSON = "not applicable: this is a preview"


def log_entry(
    now: Lines,
    run: Run,
    systems: list[System],
    hosts: list[Host],
    actions: list[Action],
    failures: list[Failure],
    found: list[Finding],
) -> Log:
    """Fill in the maintenance log; what only a person can say is signed by one or open."""
    status, why = _status(run, hosts, failures)
    performed, verified = (_NO_PERSON, _NO_PERSON) if run.check_mode else _people(now)
    return Log(
        date=run.started[:10],
        window="; ".join(_window(system, len(systems) > 1) for system in systems) or "not declared",
        type=_type(now, run),
        services_affected=_services(systems, actions, _effective(run)),
        changes_made=list(_changes(actions, _effective(run))),
        performed_by=performed,
        verified_by=verified,
        issues_encountered=[*_failed(failures), *_issues(found)],
        rollback_required=_NO_PERSON if run.check_mode else _rollback(hosts),
        status=status,
        status_reason=why,
    )


def _window(system: System, several: bool) -> str:
    window = system.window
    prefix = f"{system.title} " if several else ""
    if not window.planned_start:
        return f"{prefix}not declared"
    start = v.local(window.planned_start, window.timezone, "%H:%M")
    return f"{prefix}{start} - {v.local(window.planned_end, window.timezone, '%H:%M %Z')}"


def _type(now: Lines, run: Run) -> str:
    """Say the kind of maintenance: as declared, else from the cadence and the parts that were asked for."""
    options = v.mapping(now.run.get("options"))
    declared = v.text(options.get("type")).capitalize()
    if declared in ("Security", "Routine", "Emergency"):
        return declared
    if any(word in run.cadence for word in _EMERGENCY):
        return "Emergency"
    asked = {v.text(tag) for tag in v.items(options.get("tags"))} - {"all", ""}
    return "Security" if asked and asked <= _SECURITY_STEPS else "Routine"


def _effective(run: Run) -> tuple[str, ...]:
    """Return the statuses of actions that changed something, or in a preview would."""
    return ("due",) if run.check_mode else ("changed",)


def _services(systems: list[System], actions: list[Action], effective: tuple[str, ...]) -> list[str]:
    """Return the services that were stopped, started or restarted: those declared first, then what else was touched."""
    touched = [a for a in actions if a.status in (*effective, "failed")]
    units = dict.fromkeys((a.system, a.subject.removesuffix(".service")) for a in touched if a.operation in _UNIT_OPERATIONS)
    rebooted = {a.system for a in touched if a.operation == "reboot" and a.status in effective}
    declared = [(s.system, name.removesuffix(".service")) for s in systems for name in s.services]
    named = [place for place in declared if place in units or place[0] in rebooted]
    return list(dict.fromkeys(name for _system, name in [*named, *units]))


def _changes(actions: list[Action], effective: tuple[str, ...]) -> Iterator[str]:
    hosts: dict[str, list[str]] = {}
    for action in actions:
        if action.status in effective:
            hosts.setdefault(words.change(action.operation, action.subject, action.summary), []).append(action.host)
    for change, where in hosts.items():
        names = list(dict.fromkeys(where))
        yield f"{change} ({', '.join(names) if len(names) <= 3 else v.plural(len(names), 'host')})"


def _people(now: Lines) -> tuple[str, str]:
    """Return who performed and who verified: persons who signed, never the account that ran the automation."""
    performed, verified = sign_off("performed_by", now), sign_off("verified_by", now)
    named = v.text(now.run.get("performed_by"))
    same = verified.state == "signed" and verified.signed_by.casefold() == performed.signed_by.casefold()
    performed_text = _person(performed) or f"open{f' (named at the start: {named}; not signed)' if named else ''}"
    if same:
        return performed_text, f"open ({verified.signed_by} signed, but another person than the one who performed it has to)"
    return performed_text, _person(verified) or "open"


def _person(item: Item) -> str:
    return f"{item.signed_by}, signed {v.local(item.signed_at, form='%Y-%m-%d %H:%M %Z')}" if item.state == "signed" else ""


def _failed(failures: list[Failure]) -> list[str]:
    seen: dict[str, list[str]] = {}
    for failure in failures:
        if failure.has_finding:
            continue
        seen.setdefault(f"failed: {words.change(failure.operation, failure.subject, failure.summary)}", []).append(failure.host)
    return [f"{what} ({', '.join(hosts) if len(hosts) <= 3 else v.plural(len(hosts), 'host')})" for what, hosts in seen.items()]


def _issues(found: list[Finding]) -> Iterator[str]:
    again = same_attack(found)
    yield from dict.fromkeys(f"{f.state}: {f.summary}" for f in found if f.place not in again)


def _rollback(hosts: list[Host]) -> str:
    needed = [h.host for h in hosts if h.rollback_required or h.outcome in ("rolled_back", "rollback_failed")]
    if needed:
        return f"Yes ({', '.join(needed[:5])}{f' and {len(needed) - 5} more' if len(needed) > 5 else ''})"
    judged = [h for h in hosts if h.rollback_required is not None]
    return "No" if judged and len(judged) == len([h for h in hosts if h.outcome not in ("refused", "not_attempted")]) else "Not known"


def _status(run: Run, hosts: list[Host], failures: list[Failure]) -> tuple[str, str]:
    """Say Success only when the run ended, every host was completed and no task failed; a preview is never one."""
    status, why = _how_it_ended(run, hosts, failures)
    if not run.check_mode or status == "In progress":
        return status, why
    said = "Preview failed" if status == "Failed" else "Preview"
    return said, f"nothing was changed{f'; {why}' if why else ''}"


def _how_it_ended(run: Run, hosts: list[Host], failures: list[Failure]) -> tuple[str, str]:
    if run.state == "running":
        return "In progress", "the run has not ended yet"
    if run.state == "interrupted":
        return "Failed", "the run was interrupted"
    left = [host for host in hosts if host.outcome not in ("completed", "previewed", "")]
    if left:
        return "Failed", f"{v.plural(len(left), 'host')} not completed"
    serious = [failure for failure in failures if not failure.handled]
    if serious:
        return "Failed", f"{v.plural(len(serious), 'task')} failed"
    down = [host for host in hosts if host.services_restored is False]
    if down:
        return "Failed", f"services not restored on {', '.join(h.host for h in down[:5])}"
    if run.state != "completed" or not hosts:
        return "Failed", "the run ended with an error" if hosts else "no host was maintained"
    critical = sum(1 for host in hosts if host.verdict == "critical")
    return "Success", f"critical findings on {v.plural(critical, 'host')}" if critical else ""


def recommendations(found: list[Finding]) -> list[Recommendation]:
    """Return each advice once, worst first, with what it is for and on how many hosts."""
    again = same_attack(found)
    by_place = {finding.place: finding for finding in found}
    hosts: dict[str, set[str]] = {}
    because: dict[str, dict[str, None]] = {}
    states: dict[str, str] = {}
    for finding in found:
        advice = by_place[again.get(finding.place, finding.place)].advice
        if advice:
            states.setdefault(advice, finding.state)
            because.setdefault(advice, {})[finding.id] = None
            hosts.setdefault(advice, set()).add(f"{finding.system} {finding.host}")
    return [Recommendation(text, state, ", ".join(because[text]), len(hosts[text])) for text, state in states.items()]


def special_activities(system: str, plan: Line, actions: list[Action], found: list[Finding], to_sign: list[Item]) -> list[str]:
    """Return what the next maintenance has beside its routine: declared, deferred, due to be signed, waivers to renew."""
    special = v.texts(plan.get("special_activities"))
    deferred: dict[str, list[str]] = {}
    for action in actions:
        if action.system == system and action.status == "deferred":
            deferred.setdefault(words.deferred(action.operation, action.subject), []).append(action.host)
    special += [f"{what} ({', '.join(hosts) if len(hosts) <= 3 else v.plural(len(hosts), 'host')})" for what, hosts in deferred.items()]
    waivers = dict.fromkeys(
        f"review the waiver of {f.id}: {f.waiver}" for f in found if f.system == system and f.waiver and f.state != "ok"
    )
    special += list(waivers)
    unsigned = [item for item in to_sign if item.system == system]
    if unsigned:
        special.append(f"{v.plural(len(unsigned), 'duty', 'duties')} still to sign")
    return special
