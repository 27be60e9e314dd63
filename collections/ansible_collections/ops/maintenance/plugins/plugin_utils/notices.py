# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stakeholders are told of a maintenance window: subject and plain text, from facts that may hold anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.record import clean

# what chat programs turn into a call to everybody, or into a link or mention with a text of its own
_MENTION = re.compile(r"@(?=(?:all|channel|everyone|here)\b)", re.IGNORECASE)
_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a"})
_SUBJECT_LIMIT = 200


@dataclass(frozen=True)
class Facts:
    """What a notice may tell; ``end`` is the end of the window, ``new_end`` when the work is now expected to be over."""

    system: str
    title: str
    zone: tzinfo
    start: datetime | None
    end: datetime
    new_end: datetime | None = None
    reason: str = ""
    services: Iterable[Any] = ()
    planned: Iterable[Any] = ()
    contacts: Mapping[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Notice:
    """A notice, and the name by which it is remembered so that nobody gets it twice."""

    id: str
    kind: str
    system: str
    subject: str
    text: str


def line(value: Any, limit: int = 500) -> str:
    """Make one harmless line of any value: no line breaks, nothing that a terminal, a mail program or a chat acts on."""
    shown = " ".join(clean(str(value), limit).split())
    return _MENTION.sub("@ ", shown).translate(_BRACKETS)


def spoken(moment: datetime, zone: tzinfo) -> str:
    """Say a time on the wall clock of the window and in UTC."""
    return f"{moment.astimezone(zone):%A %Y-%m-%d %H:%M %Z} ({moment.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC)"


def length(span: timedelta) -> str:
    """Say a length in hours and minutes."""
    hours, minutes = divmod(round(span.total_seconds() / 60), 60)
    parts = [f"{count} {unit}{'s' * (count != 1)}" for count, unit in ((hours, "hour"), (minutes, "minute")) if count]
    return " ".join(parts) or "0 minutes"


def announcement(facts: Facts) -> Notice:
    """Tell of a window before it starts."""
    start = facts.start or facts.end
    subject = f"Planned maintenance of {facts.title}: {start.astimezone(facts.zone):%A %Y-%m-%d %H:%M %Z}"
    lines = [
        f"{facts.title} will be maintained.",
        "",
        *_window(facts),
        f"Planned length: {length(facts.end - start)}",
        *_services(facts),
        *_listed("What is planned", facts.planned),
    ]
    return _notice("announcement", facts, start.isoformat(), subject, lines)


def overrun(facts: Facts, run_id: str) -> Notice:
    """Tell that a run still works after the end of its window; once for a system and run."""
    subject = f"Maintenance of {facts.title} takes longer than planned"
    lines = [f"The maintenance of {facts.title} is not over, although its window is.", "", *_window(facts), *_revised(facts)]
    return _notice("overrun", facts, run_id, subject, [*lines, *_services(facts), *_listed("Still to do or put off", facts.planned)])


def extension(facts: Facts) -> Notice:
    """Tell of an extension that a person decided."""
    new_end = facts.new_end or facts.end
    subject = f"Maintenance of {facts.title} extended to {new_end.astimezone(facts.zone):%A %Y-%m-%d %H:%M %Z}"
    lines = [f"The maintenance window of {facts.title} is extended.", "", *_window(facts), *_revised(facts), *_services(facts)]
    return _notice("extension", facts, new_end.isoformat(), subject, lines)


def incident(facts: Facts, run_id: str) -> Notice:
    """Call those together who recover a system; once for a system and run. ``planned`` is what does not work."""
    subject = f"INCIDENT on {facts.title}: {facts.reason}"
    lines = [
        f"{facts.title} is being recovered from an incident.",
        "",
        f"Told at: {spoken(facts.end, facts.zone)}",
        f"Reason: {facts.reason}",
    ]
    return _notice("incident", facts, run_id, subject, [*lines, *_services(facts), *_listed("What does not work", facts.planned)])


def test_notice(facts: Facts, now: datetime) -> Notice:
    """Tell that this is a test; once a day for a system. Who has it can prove it with the code in it."""
    day = now.strftime("%Y-%m-%d")
    subject = f"TEST of the notices of {facts.title}: nothing has happened"
    lines = [
        f"This is a test: so the maintenance of {facts.title} would tell you of its work.",
        "Nothing is planned, nothing is wrong, nothing has to be done.",
        "",
        f"Sent: {spoken(now, facts.zone)}",
        f"Code, for whoever asks whether this arrived: {code_of(facts.system, day)}",
    ]
    return _notice("test", facts, day, subject, lines)


def code_of(system: str, day: str) -> str:
    """Return what a recipient of a test can name; not secret, but not guessed by somebody who did not get it."""
    return hashlib.sha256(f"test {system} {day}".encode()).hexdigest()[:6].upper()


def _notice(kind: str, facts: Facts, about: str, subject: str, lines: list[str]) -> Notice:
    text = "\n".join(line(one) if one.strip() else "" for one in [*lines, *_contacts(facts)]) + "\n"
    return Notice(f"{kind} {line(facts.system)} {about}", kind, line(facts.system), line(subject, _SUBJECT_LIMIT), text)


def _window(facts: Facts) -> Iterator[str]:
    if facts.start:
        yield f"Window starts: {spoken(facts.start, facts.zone)}"
    yield f"Window ends: {spoken(facts.end, facts.zone)}"


def _revised(facts: Facts) -> Iterator[str]:
    if facts.new_end:
        yield f"Expected to be over: {spoken(facts.new_end, facts.zone)}"
    if facts.reason:
        yield f"Reason: {facts.reason}"


def _services(facts: Facts) -> Iterator[str]:
    names = ", ".join(str(name) for name in facts.services)
    yield f"Services affected: {names or 'none is declared'}"


def _listed(heading: str, items: Iterable[Any]) -> Iterator[str]:
    shown = [f"- {item}" for item in items]
    if shown:
        yield from ("", f"{heading}:", *shown)


def _contacts(facts: Facts) -> Iterator[str]:
    yield from _listed("Contacts", (f"{role}: {who}" for role, who in facts.contacts.items()))
