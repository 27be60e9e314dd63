# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Python environments and Node.js projects have in common: findings, and an update that can be put back."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from . import osv
from .app_folder import Copies
from .dependencies_known import with_news
from .errors import InputError, MaintenanceError, VerifyError, out_of_range, refusal
from .host import Host
from .judge import many
from .paths import write_state
from .record import Action, Finding, Metric, Outcome, status_of, unknown

LIMITS: dict[str, t.Any] = {
    "registry_timeout_seconds": {"type": "int", "default": 60},
    "test_timeout_seconds": {"type": "int", "default": 900},
    "minimum_seconds": {"type": "int", "default": 600},
}

AUDIT: dict[str, t.Any] = {
    "audit": {"type": "bool", "default": True},
    "advisories": {"type": "path", "default": ""},
    "advisories_stale_after_days": {"type": "int", "default": 14},
    "own_packages": {"type": "list", "elements": "str", "default": []},
}


class Change(t.NamedTuple):
    """One package and its versions before and after; ``before`` is empty for a new one."""

    name: str
    before: str
    after: str


@dataclass
class Assessed:
    """What is known about one environment or project, and what its update would change."""

    subject: str
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


class Updater(t.Protocol):
    """One environment or project."""

    def assess(self) -> Assessed:
        """Look, without changing anything."""

    def paths(self) -> list[str]:
        """Return what must be copied before a change."""

    def frozen(self) -> dict[str, str]:
        """Return the installed packages and versions."""

    def update(self, changes: t.Sequence[Change]) -> None:
        """Make the changes; raise when that fails."""

    def check(self) -> str:
        """Return what is wrong after the change, empty when nothing is."""


def vulnerable_finding(
    identifier: str, subject: str, lines: t.Sequence[str], count: int, asked: str = "", milder: int = 0, **more: t.Any
) -> Finding:
    """Judge a number of known vulnerabilities; ``lines`` show them.

    :param asked: the least severity that counts, in words.
    :param milder: how many there are below that.
    """
    besides = _besides(milder)
    if not count:
        return Finding(identifier, "ok", subject, f"No known vulnerability{asked} affects it.{besides}", 0, "count", **more)
    return Finding(
        identifier,
        "warning",
        subject,
        f"{count} known vulnerabilities{asked} affect it.{besides}",
        count,
        "count",
        f"warning from 1{asked}",
        advice="Name the package for the update, or raise its allowed range where that keeps the fix out.",
        evidence=list(lines),
        **more,
    )


def _besides(milder: int) -> str:
    return f" {milder} milder ones do not count." if milder else ""


@dataclass
class Audited:
    """What an advisory source said.

    :param skipped: packages that it could not judge.
    :param as_of: how old an offline source is; empty for one that was asked just now.
    :param old: the source is too old to be believed when it names nothing.
    """

    advisories: list[osv.Advisory]
    skipped: list[str] = field(default_factory=list)
    as_of: str = ""
    old: bool = False

    @property
    def packages(self) -> list[str]:
        """Return the names of the affected packages."""
        return sorted({advisory.package for advisory in self.advisories})


def offline_audit(
    declared: t.Mapping[str, t.Any], installed: t.Collection[tuple[str, str]], ecosystem: osv.Ecosystem, host: Host
) -> Audited:
    """Compare what is installed with the declared advisory database.

    :raises InputError: the database cannot be read or holds no record of the ecosystem.
    """
    path = declared["advisories"]
    database = osv.load(path, {name for name, _version in installed}, ecosystem)
    if not database.records:
        raise InputError.of("advisories", path, f"OSV records of {ecosystem.name}", f"fetch the database of {ecosystem.name}")
    advisories, unclear = osv.match(database, installed)
    return Audited(advisories, unclear, database.modified, database.is_older(host.now(), declared["advisories_stale_after_days"]))


def audit_finding(identifier: str, subject: str, audited: Audited, own: t.Collection[str]) -> Finding:
    """Judge what an advisory source said; what it skipped or is too old to know is not called sound.

    :param own: packages of one's own, which no advisory can name.
    """
    skipped = [name for name in audited.skipped if name not in own]
    lines = [f"{a.package} {a.version}: {', '.join(a.ids[:3])}, fixed in {a.fixed or 'none'}" for a in audited.advisories]
    more: dict[str, t.Any] = {
        "basis": "stale" if audited.as_of else "exact",
        "as_of": audited.as_of,
        "not_covered": uncompared_words(skipped),
    }
    if not lines and audited.old:
        said = f"No vulnerability is known, but the advisories end at {audited.as_of or 'no date'}."
        return unknown(identifier, subject, said, "Fetch the advisory database anew.", **more)
    if not lines and skipped:
        return uncompared_finding(identifier, subject, len(skipped), **more)
    return vulnerable_finding(identifier, subject, lines, len(lines), **more)


def uncompared_words(names: t.Sequence[str]) -> str:
    """Say which packages no advisory source could judge, empty when there are none."""
    return f"packages that could not be compared: {', '.join(names[:20])}" if names else ""


def uncompared_finding(identifier: str, subject: str, count: int, asked: str = "", milder: int = 0, **more: t.Any) -> Finding:
    """Say that nothing is known to be vulnerable, of what could be compared, which was not all."""
    said = f"No vulnerability{asked} is known, but {many(count, 'package')} could not be compared.{_besides(milder)}"
    return unknown(identifier, subject, said, "Name those of your own (own_packages), and look at the others by hand.", **more)


def run_all(
    kind: str,
    declared: t.Iterable[t.Mapping[str, t.Any]],
    make: t.Callable[[t.Mapping[str, t.Any]], Updater],
    params: t.Mapping[str, t.Any],
    check_mode: bool,
    host: Host,
) -> Outcome:
    """Assess each, update what is due, and sum up in one record. One that cannot be looked at does not hide the others."""
    findings: list[Finding] = []
    metrics: list[Metric] = []
    actions: list[Action] = []
    for item in declared:
        try:
            updater = make(item)
            assessed = updater.assess()
        except MaintenanceError as error:
            findings.append(unknown(f"{kind}.readable", item["path"], str(error), "Correct the inventory or repair what it names."))
            continue
        if assessed.changes:
            done = _update(kind, updater, assessed, params, check_mode, host)
            actions += done
            if any(action.status == "changed" for action in done):
                assessed = updater.assess()
            findings += _taken_back(kind, assessed.subject, done)
        findings += assessed.findings
        metrics += assessed.metrics
    findings = with_news(kind, findings, params, check_mode)
    failed = [action.summary for action in actions if action.status == "failed"]
    # An update that was taken back leaves the host as it was: a finding, and no reason to end a run.
    standing = [action for action in actions if action.status != "failed"]
    said = f"{many(len(findings), 'finding')}, {many(len(actions), 'package')} to change or changed"
    return Outcome(
        subject=kind,
        operation=f"{kind}_dependencies",
        status=status_of(standing, check_mode) if findings else "skipped",
        summary="; ".join(failed[:3]) or (said if findings else "not configured"),
        findings=findings,
        metrics=metrics,
        actions=actions,
    )


def _update(kind: str, updater: Updater, assessed: Assessed, params: t.Mapping[str, t.Any], check_mode: bool, host: Host) -> list[Action]:
    changes = assessed.changes
    if params["deadline"] and params["deadline"] - host.now().timestamp() < params["minimum_seconds"]:
        return _actions(assessed, changes, "deferred", "does not fit into the window")
    if check_mode:
        return _actions(assessed, changes, "due", "is due")
    copies = Copies(host, updater.paths())
    if copies.leftover():
        said = f"was not begun: {copies.leftover()} is left from an interrupted update and holds the state before; put it back or remove it"
        return _actions(assessed, changes, "failed", said)
    before = updater.frozen()
    name = assessed.subject.strip("/").replace("/", "_")
    write_state(params["state_dir"], f"{kind}_{name}.json", {"path": assessed.subject, "packages": before})
    copies.take()
    try:
        updater.update(changes)
        problem = updater.check()
        if problem:
            raise VerifyError(problem)
    except MaintenanceError as error:
        copies.put_back()
        if updater.frozen() != before:
            raise MaintenanceError(f"The update of {assessed.subject} failed ({error}) and could not be taken back.") from error
        return _actions(assessed, changes, "failed", f"was taken back: {error}")
    after = updater.frozen()
    copies.drop()
    moved = [Change(n, before.get(n, ""), after.get(n, "")) for n in sorted(before.keys() | after.keys())]
    return _actions(assessed, [c for c in moved if c.before != c.after], "changed", "was made and tested")


def _taken_back(kind: str, subject: str, actions: t.Sequence[Action]) -> list[Finding]:
    failed = [action.summary for action in actions if action.status == "failed"]
    if not failed:
        return []
    said = f"It was not updated and is as before. {failed[0]}"
    advice = "Read why, correct the range or the package, or take the package out of the update."
    return [Finding(f"{kind}.update", "critical", subject, said, len(failed), "count", advice=advice, evidence=failed[:20])]


def _actions(assessed: Assessed, changes: t.Sequence[Change], status: str, said: str) -> list[Action]:
    return [
        Action(
            f"{assessed.subject}: {change.name}",
            "upgrade" if change.before else "install",
            status,
            f"{change.name} {change.before or 'new'} -> {change.after or 'removed'} {said}",
            {"version": change.before},
            {"version": change.after if status != "failed" else change.before},
        )
        for change in changes
    ]


def check_names(option: str, names: t.Sequence[str]) -> None:
    """Refuse what is not a package name and could be taken for an option, a path or an address."""
    for name in names:
        bare = name[1:] if name.startswith("@") else name
        if not bare or not all(c.isalnum() or c in "-_./" for c in bare) or bare[0] in "-./" or ".." in bare:
            raise InputError.of(option, name, "a package name", "correct the inventory")


def input_problems(params: t.Mapping[str, t.Any], option: str) -> list[str]:
    """Return what cannot be meant of the declared environments or projects, one sentence each, from the input alone."""
    problems = out_of_range(params, LIMITS)
    for declared in params[option]:
        names = [name for name in declared["update"] if name != "*" or option != "projects"]
        problems += [problem for name in names for problem in refusal(check_names, f"{option}.update", [name])]
        if not os.path.isabs(declared["path"]):
            problems.append(str(InputError.of(f"{option}.path", declared["path"], "an absolute path", "write it from the root on")))
    return problems


def existing(path: str) -> bool:
    """Whether a regular file is there."""
    return os.path.isfile(path)
