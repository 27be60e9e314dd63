# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which local accounts are in use, which are not any more, and whose they are."""

from __future__ import annotations

import os
import tempfile
import typing as t
from dataclasses import dataclass
from datetime import date, datetime, timezone

from . import security_account_disable, security_accounts, security_authorized_keys, security_last_seen
from .errors import InputError, MaintenanceError, out_of_range
from .judge import from_limit, limits, many
from .record import Finding
from .security_account_disable import Person
from .security_accounts import ADMIN_GROUPS, Account, Shadow
from .security_common import Review, unknown, why_unread
from .security_last_seen import LastSeen, said

OPTIONS: dict[str, t.Any] = {
    "roster": {
        "type": "list",
        "elements": "dict",
        "options": {
            "account": {"type": "str", "required": True},
            "owner": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["person", "service", "break_glass"], "default": "person"},
            "admin": {"type": "bool", "default": False},
            "until": {"type": "str", "default": ""},
        },
    },
    "inactive_warning_days": {"type": "int", "default": 30},
    "inactive_critical_days": {"type": "int", "default": 90},
    **security_account_disable.OPTIONS,
}
IDS = ("security.inactive_accounts", "security.account_owner", "security.expired_accounts", security_account_disable.ID)

_DAY = 86400.0
_NO_SHELL = ("nologin", "false", "sync", "halt", "shutdown")
_SUBJECT = "accounts"


@dataclass(frozen=True)
class Accounts:
    """What was read of the accounts: those of people judged one by one.

    :param roots: accounts with uid 0 and a password.
    """

    all: t.Mapping[str, Account]
    people: t.Mapping[str, Person]
    seen: LastSeen
    gaps: str
    roots: tuple[str, ...] = ()


def look(review: Review) -> list[Finding]:
    """Judge who uses the host, whose the accounts are, and disable what is declared."""
    try:
        found = read(review)
    except (OSError, MaintenanceError) as error:
        return [
            unknown(name, _SUBJECT, f"the accounts could not be read: {why_unread(error)}", "Read them with become: true.") for name in IDS
        ]
    findings = [_inactive(review, found), _expired(review, found)]
    if review.params["roster"] is not None:
        findings.append(_owners(review, found))
    return findings + security_account_disable.work(review, found.all, found.people, found.roots)


def read(review: Review) -> Accounts:
    """Read accounts, shadow file, keys and traces of use."""
    accounts = security_accounts.accounts(review.etc)
    lowest, highest = security_accounts.uid_range(review.etc)
    gaps = []
    beside = security_accounts.directories(review.etc)
    if beside:
        gaps.append(f"accounts of {', '.join(beside)}: only local files are read")
    try:
        shadows = security_accounts.shadows(review.etc)
    except (OSError, MaintenanceError) as error:
        shadows = {}
        gaps.append(f"the shadow file could not be read: {why_unread(error)}")
    kinds = {entry["account"]: entry["kind"] for entry in review.params["roster"] or ()}
    within = {name for name, account in accounts.items() if has_own_uid(account, lowest, highest)}
    candidates = {name: account for name, account in accounts.items() if name in within or has_shell(account)}
    places = security_authorized_keys.places(review)
    gaps += places.gaps
    keys, unread = security_authorized_keys.key_files(candidates, places.patterns)
    opened = {
        name
        for name, account in candidates.items()
        if is_open(account, shadows.get(name), bool(keys.get(name)) or name in unread, review.now)
    }
    roots = {name for name in candidates if not account_number(accounts[name])}
    # Somebody can log in to it, so it is one of a person until the roster says otherwise, whatever its uid.
    of_people = {name: candidates[name] for name in candidates if name in within or (name in opened - roots and name in shadows)}
    seen = security_last_seen.gather(
        review.host, os.path.dirname(review.etc), {name: account_number(account) for name, account in of_people.items()}, _period(review)
    )
    people = {
        name: Person(
            name=name,
            account=account,
            kind=kinds.get(name, "person"),
            shadow=shadows.get(name),
            is_open=name in opened,
            idle=idle(seen, name, shadows.get(name), review.now.timestamp()),
            has_own_uid=name in within,
            has_keys=lets_in(keys.get(name, ())),
        )
        for name, account in of_people.items()
    }
    able = tuple(sorted(name for name in roots & opened if security_account_disable.has_password(shadows.get(name))))
    return Accounts(accounts, people, seen, "; ".join(gaps), able)


def _period(review: Review) -> float:
    days: list[int] = [rule["inactive_days"] for rule in review.params["disable_accounts"]]
    days += [review.params["inactive_critical_days"], review.params["inactive_warning_days"]]
    return _DAY * max(days)


def account_number(account: Account) -> int:
    """Return the uid; -1 where it is no number."""
    uid = account["uid"].strip()
    return int(uid) if uid.isascii() and uid.isdigit() else -1


def has_own_uid(account: Account, lowest: int, highest: int) -> bool:
    """Whether the uid is one that people get."""
    return lowest <= account_number(account) <= highest


def has_shell(account: Account) -> bool:
    """Whether a log-in leads to something; no shell at all is /bin/sh."""
    return os.path.basename(account["shell"]) not in _NO_SHELL


def lets_in(texts: t.Iterable[str]) -> bool:
    """Whether one of these files of authorised keys holds a key that leads to a shell, and not to one command."""
    keys = (security_authorized_keys.key_of(line) for text in texts for line in text.splitlines() if not line.lstrip().startswith("#"))
    return any(key and "command=" not in key.options.lower() for key in keys)


def is_open(account: Account, shadow: Shadow | None, has_keys: bool, now: datetime) -> bool:
    """Whether somebody could log in to an account; one that cannot be told is."""
    if not has_shell(account):
        return False
    if shadow is None:
        return True
    expired = 0 <= shadow.expires <= now.timestamp() / _DAY
    return not expired and (has_keys or shadow.word[:1] not in ("!", "*"))


def idle(seen: LastSeen, name: str, shadow: Shadow | None, now: float) -> security_account_disable.Idle:
    """Return how long an account is certainly unused; no trace at all is no use, but only as far back as traces reach."""
    moment = seen.moments.get(name)
    begin = moment or (shadow.changed * _DAY if shadow and shadow.changed > 0 else 0.0)
    proven = 0.0 if seen.since is None else max(0.0, now - max(begin, seen.since))
    return security_account_disable.Idle(moment, proven / _DAY, (now - begin) / _DAY)


def _inactive(review: Review, found: Accounts) -> Finding:
    warning, critical = review.params["inactive_warning_days"], review.params["inactive_critical_days"]
    judged = {name: person for name, person in found.people.items() if person.is_open and person.kind == "person"}
    unused = {name: person for name, person in judged.items() if person.idle.proven_days >= warning}
    untold = sorted(name for name, person in judged.items() if name not in unused and person.idle.possible_days >= warning)
    active = sorted(set(judged) - set(unused) - set(untold))
    for name, count in (("active", len(active)), ("inactive", len(unused)), ("untold", len(untold))):
        review.count(f"security.accounts_{name}", _SUBJECT, count)
    longest = max((person.idle.proven_days for person in unused.values()), default=0.0)
    state = from_limit(longest, warning, critical)
    if state == "ok" and (untold or "shadow" in found.gaps):
        state = "unknown"
    gaps = [found.gaps, *found.seen.problems]
    if untold:
        reach = "nothing tells of log-ins" if found.seen.since is None else f"log-ins are known since {said(found.seen.since)} only"
        gaps.append(f"{reach}, which does not tell whether these are in use: {', '.join(untold[:20])}")
    advice = {
        "unknown": "Let the host keep log-ins (libpam-lastlog2, libpam-wtmpdb or a persistent journal), or declare these as service accounts.",
        "ok": "",
    }
    return Finding(
        "security.inactive_accounts",
        state,
        _SUBJECT,
        f"{many(len(unused), 'account')} unused for {warning} days or more, {len(active)} active, {len(untold)} not known",
        value=len(unused),
        unit="count",
        threshold=limits("days without a log-in", warning, critical),
        not_covered="; ".join(filter(None, gaps)),
        advice=advice.get(state, "Ask their owners; then disable them with security_review_disable_accounts."),
        evidence=[
            *(_said(person) for person in sorted(unused.values(), key=lambda person: -person.idle.proven_days)[:17]),
            f"active: {', '.join(active) or 'none'}",
            f"sources: {', '.join(found.seen.sources) or 'none'}",
        ],
    )


def _said(person: Person) -> str:
    days = f"at least {person.idle.proven_days:.0f} days"
    if person.idle.moment is None:
        return f"{person.name}: never used as far as is known, {days}"
    return f"{person.name}: last used on {said(person.idle.moment)}, {days} ago"


def _owners(review: Review, found: Accounts) -> Finding:
    """Judge whether each account of people, and each that may become root, has somebody who answers for it."""
    known = {entry["account"] for entry in review.params["roster"]}
    risen = {name for name, account in found.all.items() if set(account["groups"]) & ADMIN_GROUPS - {"root", "disk", "shadow"}}
    orphans = sorted((set(found.people) | risen) - known)
    return Finding(
        "security.account_owner",
        "warning" if orphans else "ok",
        _SUBJECT,
        f"{many(len(orphans), 'account')} without an owner in the roster",
        value=len(orphans),
        unit="count",
        threshold="warning from 1",
        not_covered=found.gaps,
        advice="Find out whose they are; name the owner in security_review_roster, or remove them." if orphans else "",
        evidence=orphans[:20],
    )


def _expired(review: Review, found: Accounts) -> Finding:
    """Judge accounts whose time is over: by the roster and still open, or by the shadow file and still privileged."""
    today = review.now.date()
    over = [
        f"{entry['account']}: its time in the roster ended on {entry['until']}, and it is open"
        for entry in review.params["roster"] or ()
        if entry["until"] and date.fromisoformat(entry["until"]) < today and entry["account"] in found.people
        if found.people[entry["account"]].is_open
    ]
    days = review.now.timestamp() / _DAY
    expired = [person for person in found.people.values() if person.shadow and 0 <= person.shadow.expires <= days]
    risen = [
        f"{person.name}: expired, and still in {', '.join(sorted(set(person.account['groups']) & ADMIN_GROUPS))}"
        for person in expired
        if set(person.account["groups"]) & ADMIN_GROUPS
    ]
    state = "critical" if over else "warning" if risen else "unknown" if "shadow" in found.gaps else "ok"
    advice = {"ok": "", "unknown": "Run with become: true so that the shadow file can be read."}
    return Finding(
        "security.expired_accounts",
        state,
        _SUBJECT,
        f"{many(len(expired), 'account')} expired, {len(over)} open although the roster says that their time is over",
        value=len(over) + len(risen),
        unit="count",
        threshold="critical when open beyond the roster's day, warning when expired in a group of administrators",
        not_covered=found.gaps,
        advice=advice.get(state, "Disable them, and take them out of the groups of administrators."),
        evidence=[*over, *risen, *(f"{person.name}: expired" for person in expired)][:20],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = out_of_range(params, ("inactive_warning_days", "inactive_critical_days"), least=1)
    if params["inactive_critical_days"] < params["inactive_warning_days"]:
        wrong.append(
            f"inactive_critical_days is {params['inactive_critical_days']}, expected at least inactive_warning_days "
            f"({params['inactive_warning_days']}); correct one of them."
        )
    for entry in params["roster"] or ():
        where = f"roster, account {entry['account']!r}"
        if not entry["owner"].strip():
            wrong.append(str(InputError.of(f"owner in {where}", entry["owner"], "the name of a person or team", "name it")))
        try:
            date.fromisoformat(entry["until"] or "2000-01-01")
        except ValueError:
            wrong.append(str(InputError.of(f"until in {where}", entry["until"], "a day such as 2027-01-31", "correct it")))
    return wrong + security_account_disable.validate(params)


def passes_bad_sample(review: Review) -> str:
    """Plant an account that was never used; return the sample when it counts as one in use."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as root:
        etc = os.path.join(root, "etc")
        os.mkdir(etc)
        for name, text in (
            ("passwd", "planted:x:1000:1000::/nonexistent:/bin/sh\n"),
            ("group", "planted:x:1000:\n"),
            ("shadow", "planted:$y$x:1:0:9:7:::\n"),
        ):
            with open(os.path.join(etc, name), "w", encoding="utf-8") as sample:
                sample.write(text)
        planted = read(Review({**review.params, "roster": None}, review.host, True, review.now, etc))
        seen = LastSeen(since=0.0)
        person = planted.people["planted"]
        never = Person(**{**person.__dict__, "idle": idle(seen, "planted", person.shadow, datetime.now(timezone.utc).timestamp())})
        silent = Review({**review.params, "roster": []}, review.host, True, review.now, etc)
        judged = Accounts(planted.all, {"planted": never}, seen, "")
        if _inactive(silent, judged).state != "critical":
            return "an account that was never used as one in use"
        return "" if _owners(silent, judged).state == "warning" else "an account without an owner as one that has one"
