# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the pending updates a run would install, in which version, and why the others not: the plan."""

from __future__ import annotations

import fnmatch
import typing as t
from dataclasses import dataclass, field

from .apt_packages import Pending, Simulation, Update
from .errors import InputError
from .package_versions import is_within

OPTIONS: dict[str, t.Any] = {
    "scope": {"type": "str", "choices": ["security", "all", "listed", "none"], "default": "security"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "hold": {"type": "list", "elements": "str", "default": []},
    "blocklist": {"type": "list", "elements": "str", "default": []},
    "pins": {"type": "dict", "default": {}},
    "new_packages": {"type": "bool", "default": True},
    "approval_required": {"type": "bool", "default": False},
    "approved": {"type": "list", "elements": "str", "default": []},
    "elsewhere": {"type": "dict", "default": {}},
}


class Rehearses(t.Protocol):
    """What planning asks of a package manager."""

    def rehearse(self, specs: t.Sequence[str]) -> Simulation:
        """Say what installing exactly these would do."""


@dataclass(frozen=True)
class Planned:
    """One package that the run would bring to a version; ``installed`` is empty for a new dependency."""

    name: str
    installed: str
    version: str
    security: bool
    archives: tuple[str, ...]
    dependency: bool = False

    @property
    def spec(self) -> str:
        """Return the package and its exact version as apt takes it."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Plan:
    """What would be installed, what else that needs, and what was left out and why.

    :param held: packages that a hold, the blocklist or a pin keeps where they are.
    :param blocked: in scope, but it cannot be installed: name to reason.
    :param waiting: in scope, but not yet its turn (phased, less urgent than asked for): name to reason.
    :param reasons: why each of ``held`` is kept, in words.
    """

    wanted: tuple[Planned, ...] = ()
    pulled: tuple[Planned, ...] = ()
    held: tuple[str, ...] = ()
    blocked: t.Mapping[str, str] | None = None
    waiting: t.Mapping[str, str] = field(default_factory=dict)
    reasons: t.Mapping[str, str] = field(default_factory=dict)

    @property
    def left(self) -> dict[str, str]:
        """Return everything in scope that stays pending, with the reason."""
        return {**self.waiting, **(self.blocked or {}), **self.reasons}


def held_by(name: str, patterns: t.Iterable[str]) -> bool:
    """Whether a pattern names a package, with or without its architecture."""
    plain = name.partition(":")[0]
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(plain, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Rules:
    """What the inventory and the package database do not let happen.

    :param on_hold: packages that the package database holds.
    :param approved: what may be updated, ``NAME`` or ``NAME=VERSION``; ``None`` means that nobody has to approve.
    :param elsewhere: packages that another step updates, with what is said of them.
    """

    hold: t.Sequence[str] = ()
    blocklist: t.Sequence[str] = ()
    pins: t.Mapping[str, str] = field(default_factory=dict)
    new_packages: bool = True
    on_hold: t.Collection[str] = ()
    approved: t.Sequence[str] | None = None
    elsewhere: t.Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, params: t.Mapping[str, t.Any], on_hold: t.Collection[str] = ()) -> Rules:
        """Take them from a module's options."""
        pins = {name: str(pin) for name, pin in (params.get("pins") or {}).items()}
        return cls(
            params["hold"],
            params.get("blocklist") or (),
            pins,
            params.get("new_packages", True),
            on_hold,
            params.get("approved") or () if params.get("approval_required") else None,
            params.get("elsewhere") or {},
        )

    def waits(self, name: str, version: str) -> str:
        """Say why an update that nothing forbids is not this run's, empty when it is."""
        if name in self.elsewhere:
            return self.elsewhere[name]
        for entry in self.approved or ():
            pattern, equals, wanted = entry.partition("=")
            if held_by(name, [pattern]) and (not equals or fnmatch.fnmatchcase(version, wanted)):
                return ""
        return "" if self.approved is None else f"{version} is not approved"

    def keeps(self, name: str) -> str:
        """Say why a package is kept in whatever version it has, empty when it is not."""
        if name in self.on_hold or held_by(name, self.hold):
            return "held"
        return "on the blocklist" if held_by(name, [entry for entry in self.blocklist if "=" not in entry]) else ""

    def forbids(self, name: str, version: str) -> str:
        """Say why a package may not become this version, empty when it may."""
        for entry in self.blocklist:
            pattern, equals, versions = entry.partition("=")
            if equals and held_by(name, [pattern]) and fnmatch.fnmatchcase(version, versions):
                return f"version {version} is on the blocklist"
        for pattern, pin in self.pins.items():
            if held_by(name, [pattern]) and not is_within(version, pin):
                return f"pinned to {pin}"
        return ""

    def objection(self, name: str, installed: str, version: str) -> str:
        """Say why a package that another one pulls in may not come, empty when it may."""
        kept, forbidden = self.keeps(name), self.forbids(name, version)
        waits = self.waits(name, version) if installed or name in self.elsewhere else ""
        if installed and kept == "held":
            return f"needs the held {name}"
        if kept:
            return f"needs {name}, which is {kept}"
        if forbidden:
            return f"needs {name} {version}: {forbidden}"
        if waits:
            return f"needs {name}: {waits}"
        return "" if installed or self.new_packages else f"needs the new package {name}"


class Choice(t.NamedTuple):
    """What is chosen of an update: a version, or why none."""

    version: str = ""
    held: str = ""
    waiting: str = ""


def choose_version(update: Update, scope: str, rules: Rules) -> Choice:
    """Choose the newest version that the scope asks for and the rules allow.

    Within ``security`` a package goes to the newest version that a security archive carries, not beyond.
    """
    kept = "held" if update.held else rules.keeps(update.name)
    if kept:
        return Choice(held=kept)
    said = ""
    for version, security in update.choices():
        if scope == "security" and not security:
            continue
        forbidden = rules.forbids(update.name, version)
        if not forbidden:
            if update.waits_for_phase(version):
                return Choice(waiting=f"phased: {update.phased} percent of the hosts get it now, and this host is not among them")
            return Choice(version)
        said = said or forbidden
    return Choice(held=said or "held")


def in_scope(updates: t.Iterable[Update], scope: str, packages: t.Sequence[str]) -> list[Update]:
    """Return the updates that the scope asks for."""
    if scope == "none":
        return []
    if scope == "security":
        return [update for update in updates if update.is_security]
    return [update for update in updates if scope == "all" or update.name in packages]


def make_plan(pending: Pending, params: t.Mapping[str, t.Any], backend: Rehearses, postponed: t.Mapping[str, str] | None = None) -> Plan:
    """Plan what the package manager itself says it can install together, removing nothing and touching no hold.

    :param postponed: packages that the caller leaves for another run, with the reason.
    """
    rules = Rules.of(params, pending.held)
    chosen: list[Planned] = []
    held: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for update in in_scope(pending.updates, params["scope"], params["packages"]):
        choice = choose_version(update, params["scope"], rules)
        waits = choice.waiting or (postponed or {}).get(update.name, "") or rules.waits(update.name, choice.version)
        if choice.held and update.name not in rules.elsewhere:
            held[update.name] = choice.held
        elif waits:
            waiting[update.name] = waits
        else:
            chosen.append(Planned(update.name, update.installed, choice.version, update.is_security, update.archives))
    blocked: dict[str, str] = {}
    backend = _Remembering(backend)
    wanted = _installable(chosen, rules, backend, blocked)
    pulled = _pulled(wanted, backend, blocked)
    if blocked and wanted and _refusal(wanted, rules, backend):
        blocked.update({item.name: "cannot be installed together with the others" for item in wanted})
        wanted, pulled = [], []
    return Plan(tuple(wanted), tuple(pulled), tuple(held), blocked, waiting, held)


class _Remembering:
    """Asks the package manager the same thing only once."""

    def __init__(self, backend: Rehearses) -> None:
        self.backend = backend
        self.known: dict[tuple[str, ...], Simulation] = {}

    def rehearse(self, specs: t.Sequence[str]) -> Simulation:
        """Say what installing exactly these would do."""
        key = tuple(specs)
        if key not in self.known:
            self.known[key] = self.backend.rehearse(specs)
        return self.known[key]


def _installable(items: list[Planned], rules: Rules, backend: Rehearses, blocked: dict[str, str]) -> list[Planned]:
    """Keep what can be installed; what cannot is found by halves and named with the reason."""
    if not items:
        return []
    refusal = _refusal(items, rules, backend)
    if not refusal:
        return items
    if len(items) == 1:
        blocked[items[0].name] = refusal
        return []
    middle = len(items) // 2
    halves = items[:middle], items[middle:]
    return [kept for half in halves for kept in _installable(half, rules, backend, blocked)]


def _refusal(items: t.Sequence[Planned], rules: Rules, backend: Rehearses) -> str:
    rehearsed = backend.rehearse([item.spec for item in items])
    if rehearsed.problem:
        return rehearsed.problem
    removed = rehearsed.of("Remv", "Purg")
    if removed:
        return f"would remove {', '.join(step.name for step in removed)}"
    named = {item.name for item in items}
    said = (rules.objection(s.name, s.installed, s.version) for s in rehearsed.of("Inst") if s.name not in named)
    return "; ".join(sorted(set(filter(None, said))))


def _pulled(wanted: t.Sequence[Planned], backend: Rehearses, blocked: t.Mapping[str, str]) -> list[Planned]:
    if not wanted:
        return []
    named = {item.name for item in wanted}
    return [
        Planned(step.name, step.installed, step.version, False, step.archives, dependency=True)
        for step in backend.rehearse([item.spec for item in wanted]).of("Inst")
        if step.name not in named and step.name not in blocked
    ]


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = []
    if params["scope"] == "listed" and not params["packages"]:
        problems.append("scope is 'listed', but packages names none; name them or choose another scope.")
    for option in ("packages", "hold", "blocklist", "pins", "approved"):
        bad = [name for name in params.get(option) or () if _is_no_name(name)]
        problems += [f"{option} has {name!r}, expected a package name; correct it." for name in bad]
    for name, pin in (params.get("pins") or {}).items():
        if not isinstance(pin, str) or not pin.rstrip("*") or any(c.isspace() for c in pin):
            expected = "a version or the beginning of one as text, such as '15.*'"
            problems.append(str(InputError.of(f"pins of {name}", pin, expected, "correct it")))
    return problems


def _is_no_name(name: t.Any) -> bool:
    return not isinstance(name, str) or not name or name.startswith(("-", "=")) or any(c.isspace() for c in name)
