# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether rpm's packages are whole: transactions that were interrupted, scriptlets that failed, dependencies that are not met."""

from __future__ import annotations

import re
import typing as t

from . import dnf_history, dnf_packages
from .host import Host
from .judge import many
from .record import Action, Finding, clean
from .rpm_versions import newness

COMPLETE, FIX = "complete", "fix_broken"
_UNMET = re.compile(r"^\s+(.+) is needed by (?:\(installed\) )?(\S+)$", re.M)
Evra = dnf_history.Evra
Step = tuple[list[str], ...]
"""What dnf does in one transaction, each part as a command of its own would be."""


class Health(t.NamedTuple):
    """What is not whole.

    :param left: packages whose transaction did not end, or whose scriptlet failed, as dnf takes them.
    :param extra: older versions that stand beside a newer one.
    :param along: what the interrupted transaction would have brought, and what has to come when the older versions go.
    :param unmet: what packages need and nothing provides.
    :param unfixable: why dnf cannot repair it without a person.
    """

    left: tuple[str, ...] = ()
    extra: tuple[Evra, ...] = ()
    along: tuple[Evra, ...] = ()
    unmet: tuple[str, ...] = ()
    unfixable: str = ""

    def repairs(self) -> list[str]:
        """Return which repairs would help, in order."""
        if self.unfixable:
            return []
        return ([COMPLETE] if self.left or self.extra else []) + ([FIX] if self.unmet else [])

    def steps(self, repair: str) -> list[Step]:
        """Return the steps of a repair; the first of them may make the second one needless."""
        if repair == FIX:
            return [(["install", *self.unmet],)]
        upgrade = [["upgrade", *map(dnf_packages.nevra, self.along)]] if self.along else []
        older: list[Step] = [(["remove", "--duplicates"], *upgrade)] if self.extra else []
        return older + ([(["reinstall", *self.left],)] if self.left else [])

    def said(self, repair: str) -> str:
        """Say the steps of a repair in words."""
        return "; ".join(f"dnf -y {' and '.join(' '.join(part) for part in step)}" for step in self.steps(repair))


def look(host: Host, conf: t.Mapping[str, str]) -> Health:
    """Ask rpm and dnf's history; changes nothing."""
    rows = dnf_packages.rpm_rows(host)
    flags = dnf_history.flags()
    extra = beside_newer(rows, dnf_packages.several_versions(host, rows))
    left = tuple(dnf_packages.nevra(row) for row in rows if row in flags and row not in extra)
    unmet = parse_unmet(host.run(["rpm", "-Va", "--nofiles", "--nodigest", "--nosignature", "--noscripts"], timeout=600).stdout)
    along, unfixable = _needed_along(host, conf, extra, flags) if extra else ((), "")
    if unmet and not unfixable:
        answer = dnf_packages.ask(host, {"conf": conf, "specs": list(unmet)})
        unfixable = clean(answer.get("problem", "").strip(), 300)
    return Health(left, extra, along, unmet, unfixable)


def _needed_along(
    host: Host, conf: t.Mapping[str, str], extra: t.Sequence[Evra], flags: t.Collection[Evra]
) -> tuple[tuple[Evra, ...], str]:
    """Return what has to be updated for the older versions to go, or why that cannot be done without removing something else.

    Nothing comes but what the interrupted transaction would have brought.
    """
    removal = dnf_packages.rehearse_removal(host, conf, extra)
    older = set(map(dnf_packages.nevra, extra))
    names = {(package[0], package[1]) for package in removal.packages if dnf_packages.nevra(package) not in older}
    if removal.problem or not names:
        return (), removal.problem
    along = tuple(sorted(flag for flag in flags if flag[:2] in names))
    answer = dnf_packages.ask(host, {"conf": conf, "complete": {"remove": list(extra), "upgrade": list(along)}})
    if "problem" in answer:
        return (), clean(answer["problem"].strip(), 300)
    kept = {(name, arch) for name, arch, _evr in answer["install"]}
    lost = [package for package in answer["remove"] if (package[0], package[1]) not in kept and dnf_packages.nevra(package) not in older]
    foreign = [package for package in answer["install"] if (package[0], package[1], dnf_packages.plain_evr(package[2])) not in flags]
    if lost or foreign:
        said = [f"{word} {', '.join(map(dnf_packages.nevra, some[:5]))}" for word, some in (("remove", lost), ("install", foreign)) if some]
        return (), f"it would {' and '.join(said)}"
    return along, ""


def beside_newer(rows: t.Sequence[Evra], several: t.Collection[str]) -> tuple[Evra, ...]:
    """Return the older ones of packages that are there in two versions, though they may not be."""
    newest: dict[tuple[str, str], str] = {}
    for name, arch, evr in rows:
        newest[name, arch] = max(evr, newest.get((name, arch), evr), key=newness)
    return tuple(row for row in rows if row[0] not in several and newest[row[0], row[1]] != row[2])


def parse_unmet(text: str) -> tuple[str, ...]:
    """Read the dependencies that ``rpm -Va --nofiles`` names as not met."""
    return tuple(sorted({match[1] for match in _UNMET.finditer(text)}))


def interrupted_finding(health: Health, allowed: bool) -> Finding:
    """Judge whether a transaction was interrupted or left dependencies unmet."""
    older = [dnf_packages.nevra(package) for package in health.extra]
    said = [f"{many(len(older), 'older version')} beside a newer one ({', '.join(older[:5])})"] if older else []
    said += [f"{many(len(health.left), 'package')} half done ({', '.join(health.left[:5])})"] if health.left else []
    said += [f"dependencies are not met: {', '.join(health.unmet[:5])}"] if health.unmet else []
    said += [f"dnf cannot repair that by itself: {health.unfixable}"] if health.unfixable else []
    if not said:
        return Finding("patching.interrupted", "ok", "package database", "No transaction was interrupted, no dependency is unmet.")
    advice = "This run repairs it first." if allowed else "Allow the repair (patching_repair), or look what dnf history and dnf check say."
    return Finding("patching.interrupted", "critical", "package database", f"{'; '.join(said)}.", advice=advice)


def obstacle(health: Health, allowed: bool) -> str:
    """Say why nothing may be installed before this is repaired, empty when something may."""
    return "a transaction was interrupted and its repair is not allowed" if health.extra and not allowed else ""


def repair_action(health: Health, repair: str, status: str, said: str = "") -> Action:
    """Return a repair as an action, with the commands that it is."""
    return Action("package database", repair, status, clean(health.said(repair) + (f": {said}" if said else ""), 500))


def repair(host: Host, check_mode: bool) -> list[Action]:
    """Run the repairs that are due, one after the other, and look again whether they helped."""
    health = look(host, {})
    due = health.repairs()
    if check_mode:
        return [repair_action(health, one, "due") for one in due]
    said = {one: _run(host, health, one) for one in due}
    left = look(host, {}).repairs() if due else []
    return [repair_action(health, one, "failed" if one in left else "changed", why if one in left else "") for one, why in said.items()]


def _run(host: Host, health: Health, repair: str) -> str:
    """Take a repair's steps as long as they are needed; return what the last one said."""
    said = ""
    for step in health.steps(repair):
        if len(step) == 1:
            said = host.run(["dnf", "-y", *step[0]], timeout=3600).why()
        else:  # only its shell does several things in one transaction
            script = "".join(f"{' '.join(part)}\n" for part in (*step, ["run"], ["exit"]))
            said = host.run(["dnf", "-y", "shell"], stdin=script, timeout=3600).why()
        if repair == COMPLETE and not look(host, {}).repairs():
            break
    return said
