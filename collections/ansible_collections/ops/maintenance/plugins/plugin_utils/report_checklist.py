# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tick checklist items: the automated ones by evidence only, the others by a person's signature only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from . import report_values as v
from . import report_words as words
from .report_lines import Line, Lines
from .report_model import Finding, Item

PHASES = ("pre", "during", "post", "")
ACTIVITIES = (
    ("System updates and security patches", ("patching",)),
    ("Database maintenance and optimization", ("database_maintenance",)),
    ("Log analysis and cleanup", ("log_rotation",)),
    ("Performance analysis", ("performance_review",)),
    ("Security review", ("security_review",)),
    ("Backup verification", ("backup_verification",)),
)
"""The activities that a maintenance report always lists, with the roles that do them."""

_NOT_DONE = {
    "due": "due, but not done in this run",
    "deferred": "deferred to the next window",
    "skipped": "skipped",
    "failed": "failed",
}
_PREVIEW = {**_NOT_DONE, "due": "due; a preview changes nothing"}
_ABSENT = ("unreachable", "not_attempted", "refused")


def checklist(lines: Lines) -> list[Item]:
    """Return the items of every system's checklist, in the order of the plan, by phase."""
    found = [_item(system, entry, lines) for system, plan in lines.plans.items() for entry in v.mappings(plan.get("checklist"))]
    return sorted(found, key=lambda item: (item.system, PHASES.index(item.phase)))


def _item(system: str, entry: Line, lines: Lines) -> Item:
    phase = v.text(entry.get("phase"))
    item = Item(
        system=system,
        id=v.text(entry.get("id")),
        text=v.text(entry.get("text")) or v.text(entry.get("id")),
        kind="attestation" if entry.get("kind") == "attestation" else "automated",
        phase=phase if phase in PHASES else "",
        state="missing",
        reason="",
        evidence=[],
    )
    if item.kind == "attestation":
        return signed(item, lines)
    return _proven(item, v.texts(entry.get("evidence")), lines)


def signed(item: Item, lines: Lines) -> Item:
    """Fill in who signed a duty, or leave it open."""
    item.state, item.reason = "open", "waits for a person's signature"
    for line in lines.signatures:
        signer = v.text(line.get("signed_by")).strip()
        if signer and line.get("duty") == item.id and v.text(line.get("system")) in ("", item.system):
            item.state, item.reason = "signed", ""
            item.signed_by, item.signed_at, item.note = signer, v.iso(line.get("signed_at")), v.text(line.get("note"))
    return item


def _proven(item: Item, patterns: list[str], lines: Lines) -> Item:
    """Tick an item only when each of its patterns matched something and all that matched is ok."""
    if not patterns:
        item.reason = "the checklist names no evidence for it"
        return item
    findings, records, unmatched = _matches(item.system, patterns, lines)
    item.evidence = list(_evidence(findings, records))
    problems = [*_problems(findings, records, lines.is_preview)]
    absent = sorted(set(_absent_hosts(item.system, lines)) - {f.host for f in findings} - {v.text(r.get("host")) for r in records})
    if problems:
        item.state, item.reason = _worst_problem(problems)
    elif unmatched:
        item.reason = f"no evidence: nothing reported {', '.join(unmatched)}"
    elif absent:
        item.reason = f"no evidence from {', '.join(absent[:5])}{f' and {len(absent) - 5} more' if len(absent) > 5 else ''}"
    else:
        item.state = _fine(lines)
        item.reason = "all of it is ok; only the maintenance itself ticks it" if lines.is_preview else ""
    return item


def _fine(lines: Lines) -> str:
    """Return the state of an item whose evidence is all there; only the maintenance itself ticks it, not its preview."""
    return "previewed" if lines.is_preview else "done"


def _matches(system: str, patterns: list[str], lines: Lines) -> tuple[list[Finding], list[Line], list[str]]:
    ids = {f.id for f in lines.latest.values() if f.system == system}
    operations = {v.text(r.get("operation")) for r in lines.records if lines.system(r) == system}
    hit = {name for name in ids | operations if any(fnmatchcase(name, pattern) for pattern in patterns)}
    records = [r for r in lines.records if lines.system(r) == system and v.text(r.get("operation")) in hit]
    # what a matched operation found counts as well as findings matched by id
    of_records = {v.text(f.get("id")) for r in records for f in v.mappings(r.get("findings"))}
    findings = [f for f in lines.latest.values() if f.system == system and f.id in hit | of_records]
    unmatched = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in hit)]
    return findings, records, unmatched


def _problems(findings: list[Finding], records: list[Line], is_preview: bool) -> Iterator[tuple[int, str, str]]:
    """Yield (rank, state of the item, reason) for whatever keeps an item from being ticked."""
    why = _PREVIEW if is_preview else _NOT_DONE
    for record in records:
        status = v.text(record.get("status"))
        if status not in ("ok", "changed"):
            where = f"{words.operation(v.text(record.get('operation')))} on {v.text(record.get('host'))}"
            state = "failed" if status == "failed" else "not_done"
            yield (5 if status == "failed" else 1), state, f"{where}: {why.get(status, 'status unknown')}"
        for action in v.mappings(record.get("actions")):
            if action.get("status") in ("failed", "deferred"):
                what = words.change(v.text(action.get("operation")), v.text(action.get("subject")), "")
                yield 1, "not_done", f"{what} on {v.text(record.get('host'))}: {why[action['status']]}"
    for finding in findings:
        if finding.state != "ok":
            where = f"{finding.id} on {finding.host}" if finding.host else finding.id
            if finding.waiver:
                yield 0, "waived", f"{where} is {finding.state}, waived by {finding.waiver}"
            else:
                yield 1 + v.RANK[finding.state], "failed", f"{where} is {finding.state}: {finding.summary}"


def _worst_problem(problems: list[tuple[int, str, str]]) -> tuple[str, str]:
    worst = max(problems, key=lambda problem: problem[0])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return worst[1], v.text(worst[2] + more)


def _absent_hosts(system: str, lines: Lines) -> Iterator[str]:
    for (owner, host), outcome in lines.outcomes.items():
        if owner == system and outcome.get("outcome") in _ABSENT:
            yield host


def _evidence(findings: list[Finding], records: list[Line]) -> Iterator[str]:
    """Sum up what was matched: each finding id with its states, each operation with its statuses."""
    seen: dict[str, dict[str, int]] = {}
    pairs = [(f.id, f.state) for f in findings] + [(v.text(r.get("operation")), v.text(r.get("status"))) for r in records]
    for name, state in pairs:
        counts = seen.setdefault(name, {})
        counts[state] = counts.get(state, 0) + 1
    for name, counts in list(seen.items())[:20]:
        yield f"{name}: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def activities(lines: Lines) -> list[Item]:
    """Return the activities every report lists, ticked by what their tasks returned on every planned host."""
    return [_activity(title, roles, lines) for title, roles in ACTIVITIES]


def _activity(title: str, roles: tuple[str, ...], lines: Lines) -> Item:
    records = [r for r in lines.records if v.text(r.get("role")).rpartition(".")[2] in roles]
    item = Item("", roles[0], title, "automated", "", "missing", "not part of this run: no task of it left a record", [])
    if not records:
        return item
    item.evidence = list(_evidence([], records))
    item.attention = _attention(f for f in lines.latest.values() if f.role.rpartition(".")[2] in roles)
    problems = list(_problems([], records, lines.is_preview))
    without = sorted(set(lines.system_of) - {v.text(r.get("host")) for r in records})
    if problems:
        item.state, item.reason = _worst_problem(problems)
    elif without:
        item.reason = f"no record of it from {', '.join(without[:5])}{f' and {len(without) - 5} more' if len(without) > 5 else ''}"
    else:
        item.state = _fine(lines)
        item.reason = v.plural(len({v.text(r.get("host")) for r in records}), "host")
    return item


def _attention(found: Iterable[Finding]) -> str:
    """Say what an activity found that needs attention: that it was done does not mean that all is well."""
    states = [f.state for f in found if f.state != "ok" and not f.waiver]
    parts = [f"{states.count(state):,} {state}" for state in ("critical", "warning", "unknown") if state in states]
    return f"{' and '.join(parts)} {'finding' if len(states) == 1 else 'findings'}" if parts else ""


def duties(lines: Lines) -> list[Item]:
    """Return the duties that only a person can sign, of every system."""
    found = []
    for system, plan in lines.plans.items():
        for entry in v.items(plan.get("duties")):
            known = v.mapping(entry)
            name = v.text(known.get("id")) or v.text(known.get("duty")) or v.text(entry)
            item = Item(system, name, v.text(known.get("text")) or name, "attestation", "", "open", "", [])
            item = signed(item, lines)
            due = v.text(known.get("due"))
            if item.state == "open" and due:
                item.reason += f", due {due}"
            found.append(item)
    return found


def sign_off(duty: str, lines: Lines) -> Item:
    """Return who signed the whole run for one of the duties ``performed_by``, ``verified_by`` or ``recommendations``."""
    item = signed(Item("", duty, duty, "attestation", "", "open", "", []), lines)
    if item.state == "open":
        for system in lines.plans:
            item = signed(Item(system, duty, duty, "attestation", "", "open", "", []), lines)
            if item.state == "signed":
                break
    return item


def open_items(found: Iterable[Item]) -> list[Item]:
    """Return the items that a person still has to sign."""
    return [item for item in found if item.state == "open"]
