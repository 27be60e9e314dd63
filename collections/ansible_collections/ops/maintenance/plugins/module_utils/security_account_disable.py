# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disable accounts that a person named and that are proven to be unused: locked and expired, never removed."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import typing as t
from dataclasses import dataclass
from fnmatch import fnmatchcase

from . import security_accounts, security_sudo_rights
from .errors import InputError, MaintenanceError, out_of_range
from .judge import many
from .record import Action, Finding
from .security_accounts import Account, Shadow
from .security_common import Review, unknown, why_unread
from .security_sudo_rights import Rights

OPTIONS: dict[str, t.Any] = {
    "disable_accounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "account": {"type": "str", "required": True},
            "approved_by": {"type": "str", "required": True},
            "reason": {"type": "str", "required": True},
            "inactive_days": {"type": "int", "default": 90},
            "end_sessions": {"type": "bool", "default": False},
        },
    },
    "protected_accounts": {"type": "list", "elements": "str", "default": []},
}
ID = "security.disabled_accounts"

_NO_LOGINUID = "4294967295"
_END_SECONDS = 3.0


class Idle(t.NamedTuple):
    """How long an account is unused.

    :param moment: its latest known use.
    :param proven_days: certainly so long, for traces reach back that far.
    :param possible_days: perhaps so long, by the latest known use or its creation.
    """

    moment: float | None
    proven_days: float
    possible_days: float


@dataclass(frozen=True)
class Person:
    """One account of a person.

    :param is_open: whether somebody could log in.
    :param has_own_uid: whether its uid is one that people get; others can be meant for services.
    :param has_keys: whether an authorised key certainly lets somebody in to a shell.
    """

    name: str
    account: Account
    kind: str
    shadow: Shadow | None
    is_open: bool
    idle: Idle
    has_own_uid: bool = True
    has_keys: bool = False

    @property
    def is_disabled(self) -> bool:
        """Whether it is locked and expired already."""
        return self.shadow is not None and self.shadow.word.startswith("!") and 0 <= self.shadow.expires <= 1


@dataclass
class Administrators:
    """Who may become root, as long as accounts are disabled.

    :param rights: what the rules of sudo let them do.
    :param left: everybody who certainly still can.
    """

    rights: Rights
    left: set[str]

    @classmethod
    def of(cls, rights: Rights, roots: t.Collection[str], people: t.Mapping[str, Person]) -> Administrators:
        """Count only those who can log in, and have a password where sudo asks for one."""
        able = {
            name
            for name, person in people.items()
            if person.is_open and (has_password(person.shadow) or (name in rights.free and person.has_keys))
        }
        return cls(rights, {*roots, *(able & rights.certain)})

    def objection(self, name: str) -> str:
        """Say why an account has to stay; empty where it may go."""
        if name not in self.rights.possible or self.left - {name}:
            return ""
        if name in self.left:
            return "it is the last open administrator"
        return "it may be an administrator, and of no other that is open this is certain"


def has_password(shadow: Shadow | None) -> bool:
    """Whether a password certainly fits an account, as sudo and the console ask for."""
    return shadow is not None and shadow.word[:1] not in ("", "!", "*")


def work(review: Review, accounts: t.Mapping[str, Account], people: t.Mapping[str, Person], roots: t.Collection[str] = ()) -> list[Finding]:
    """Disable what the rules name and nothing speaks against; nothing where no rule is declared.

    :param roots: accounts with uid 0 and a password, which are never disabled.
    """
    rules = review.params["disable_accounts"]
    if not rules:
        return []
    try:
        admins = Administrators.of(security_sudo_rights.read(review.etc, accounts), roots, people)
    except (OSError, MaintenanceError) as error:
        why = f"nobody was disabled, for who is an administrator is not known: {why_unread(error)}"
        return [unknown(ID, "accounts", why, "Make the rules of sudo readable and correct (visudo --check), then look again.")]
    refused: list[str] = []
    done: list[str] = []
    failed: list[str] = []
    ours = users_of_this_run(review.etc) | set(review.params["protected_accounts"])
    for rule in rules:
        for name in sorted(name for name in accounts if fnmatchcase(name, rule["account"])):
            person = people.get(name)
            if person is None or not person.has_own_uid:
                refused.append(f"{name}: its uid is not one of a person; system and service accounts are never disabled")
                continue
            if person.is_disabled or name in done:
                continue
            why = _objection(rule, person, ours, admins)
            if why:
                refused.append(f"{name}: {why}")
                continue
            admins.left.discard(name)
            (done if _disable(review, rule, person) else failed).append(name)
    return [_verdict(review, refused, done, failed)]


def _objection(rule: t.Mapping[str, t.Any], person: Person, ours: t.Container[str], admins: Administrators) -> str:
    """Say what speaks against disabling an account; empty when nothing does."""
    if person.kind != "person":
        return f"the roster calls it a {person.kind} account, which is never disabled"
    if person.name in ours:
        return "this run is connected through it, or it is protected"
    needed = admins.objection(person.name)
    if needed:
        return needed
    if person.shadow is None:
        return "its shadow entry could not be read"
    if person.idle.proven_days < rule["inactive_days"]:
        return f"it is proven unused for {person.idle.proven_days:.0f} of {rule['inactive_days']} days"
    if not rule["end_sessions"] and processes(person.account["uid"]):
        return "it has running processes, so it is in use"
    return ""


def _disable(review: Review, rule: t.Mapping[str, t.Any], person: Person) -> bool:
    shadow = t.cast("Shadow", person.shadow)
    before = {"locked": shadow.word[:1] == "!", "expires_day": shadow.expires}
    after: dict[str, t.Any] = {"locked": True, "expires_day": 1}
    undo = undo_words(person.name, shadow)
    said = f"disabled as {rule['approved_by']} approved: {rule['reason']}; to undo: {shlex.join(undo)}"
    status, summary = "due", f"would be {said}"
    if not review.check_mode:
        try:
            status, summary = _changed(review, person.name, rule["end_sessions"], person.account["uid"]), said
        except (MaintenanceError, OSError) as error:
            status, summary, after = "failed", f"it could not be disabled: {error}", {}
    review.actions.append(Action(person.name, "disable_account", status, summary, before, after))
    return status != "failed"


def _changed(review: Review, name: str, end_sessions: bool, uid: str) -> str:
    ran = review.host.run(["usermod", "--lock", "--expiredate", "1", "--", name])
    shadow = security_accounts.shadows(review.etc).get(name)
    if ran.rc or shadow is None or not shadow.word.startswith("!") or shadow.expires != 1:
        raise MaintenanceError(f"{ran.why()}; look at the account with chage --list")
    if end_sessions:
        _end(review, uid)
    return "changed"


def undo_words(name: str, shadow: Shadow) -> list[str]:
    """Return the command that puts an account back as it was."""
    expires = "" if shadow.expires < 0 else str(shadow.expires)
    unlock = [] if shadow.word[:1] == "!" else ["--unlock"]
    return ["usermod", *unlock, "--expiredate", expires, "--", name]


def _end(review: Review, uid: str) -> None:
    """End what still runs for an account, the hard way where it does not listen."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes(uid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)
        until = review.host.now().timestamp() + _END_SECONDS
        while processes(uid) and review.host.now().timestamp() < until:
            review.host.sleep(0.05)
    if processes(uid):
        raise MaintenanceError("it is locked, but processes of it still run; end them by hand")


def processes(uid: str, proc: str = "/proc") -> list[int]:
    """Return the processes that run for a user, by their real user id; those that have ended are none."""
    found = []
    for pid in filter(str.isdigit, os.listdir(proc)):
        real, state, _parent = _status_of(pid, proc)
        if real == uid and state != "Z":
            found.append(int(pid))
    return found


def _status_of(pid: str, proc: str) -> tuple[str, str, str]:
    """Return real user id, state and parent of a process."""
    values = {}
    with contextlib.suppress(OSError), open(os.path.join(proc, pid, "status"), encoding="utf-8", errors="replace") as status:
        values = {key: value.split() for key, _colon, value in (line.partition(":") for line in status)}
    first = {name: (values.get(name) or [""])[0] for name in ("Uid", "State", "PPid")}
    return first["Uid"], first["State"], first["PPid"]


def users_of_this_run(etc: str = "/etc", proc: str = "/proc") -> set[str]:
    """Return who is connected: whom sudo names, whom the session was begun for, and the users of all processes above this one."""
    uids = {str(os.getuid()), os.environ.get("SUDO_UID", "")}
    with contextlib.suppress(OSError), open(os.path.join(proc, "self/loginuid"), encoding="ascii") as source:
        uids.add(source.read().strip())
    pid, steps = str(os.getpid()), 0
    while pid not in ("", "0") and steps < 64:
        real, _state, pid = _status_of(pid, proc)
        uids.add(real)
        steps += 1
    uids -= {"", _NO_LOGINUID}
    names = {name for name, account in security_accounts.accounts(etc).items() if account["uid"] in uids}
    return names | set(filter(None, (os.environ.get(name, "") for name in ("SUDO_USER", "LOGNAME", "USER"))))


def _verdict(review: Review, refused: t.Sequence[str], done: t.Sequence[str], failed: t.Sequence[str]) -> Finding:
    state = "critical" if failed else "warning" if refused else "ok"
    was = "would be" if review.check_mode else "were"
    return Finding(
        ID,
        state,
        "accounts",
        f"{many(len(done), 'account')} {was} disabled, {len(refused)} that a rule names {was} not, {len(failed)} could not be",
        value=len(done),
        unit="count",
        threshold="warning from one account that a rule names and something speaks against",
        advice="Correct security_review_disable_accounts, or what speaks against it." if state != "ok" else "",
        evidence=[
            *(f"failed: {name}" for name in failed),
            *(f"not disabled, {line}" for line in refused),
            *(f"disabled: {name}" for name in done),
        ],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = []
    for rule in params["disable_accounts"]:
        where = f"disable_accounts, account {rule['account']!r}"
        if not rule["account"].strip("*?[] "):
            wrong.append(
                str(InputError.of("disable_accounts.account", rule["account"], "a name or a pattern that names some", "narrow it"))
            )
        unsaid = (name for name in ("approved_by", "reason") if not rule[name].strip())
        wrong += [str(InputError.of(f"{name} in {where}", rule[name], "some words", "say who approved it and why")) for name in unsaid]
        wrong += [f"{problem} It is in {where}." for problem in out_of_range(rule, ("inactive_days",))]
    return wrong
