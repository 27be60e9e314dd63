# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who becomes root by the rules of sudo: who certainly does, and who perhaps does; what is not understood is never guessed."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass, field

from . import security_accounts
from .errors import MaintenanceError
from .record import clean
from .security_accounts import Account

_DEPTH_LIMIT = 8
_ALIAS = re.compile(r"(?P<kind>User|Runas|Host|Cmnd|Cmd)_Alias\s+(?P<list>.*)$")
_NEXT_ALIAS = re.compile(r"\s*(?<!\\):\s*(?=[A-Z][A-Z0-9_]*\s*=)")
_ITEM = r'!*\s*%?(?:"[^"]*"|(?:[^\s,=!"\\]|\\.)+)'
_LIST = rf"{_ITEM}(?:\s*,\s*{_ITEM})*"
_RULE = re.compile(rf"(?P<users>{_LIST})\s+(?P<hosts>{_LIST})\s*=\s*(?P<commands>\S.*)$")
_COMMA = re.compile(r"(?<!\\),(?![^()]*\))")
_RUN_AS = re.compile(r"\([^()]*\)")
_COMMAND = re.compile(r"(?:\((?P<run_as>[^()]*)\))?\s*(?P<tags>(?:[A-Z_]+:\s*)*)(?P<command>.*)$")
_OTHERS_PASSWORD = re.compile(r"Defaults.*\b(?:targetpw|rootpw|runaspw|runas_default)\b")


@dataclass
class Rights:
    """Accounts by what the rules let them do.

    :param certain: may run everything as root, on every host and without an exception.
    :param free: those of them who need no password for it.
    :param possible: may run something as somebody else, or it is not clear.
    """

    certain: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)
    possible: set[str] = field(default_factory=set)


def read(etc: str, accounts: t.Mapping[str, Account]) -> Rights:
    """Read the rules of this host; where there is no sudo, nobody becomes root by it.

    :raises MaintenanceError: a rule is not understood, or rules come from a directory service too.
    :raises OSError: a file of rules cannot be read.
    """
    path = os.path.join(etc, "sudoers")
    beside = security_accounts.directories(etc, "sudoers")
    if beside:
        raise MaintenanceError(f"rules of sudo come from {', '.join(beside)} too, which is not read.")
    if not os.path.lexists(path):
        return Rights()
    return rights([rule for lines in security_accounts.sudo_rules(path).values() for rule in lines], accounts)


def rights(rules: t.Sequence[str], accounts: t.Mapping[str, Account]) -> Rights:
    """Tell who may become root by these lines.

    :raises MaintenanceError: one is not understood.
    """
    known = {kind: aliases(rules, kind) for kind in ("User", "Runas", "Host", "Cmnd")}
    found, excepted = Rights(), set()
    for rule in rules:
        if rule.startswith("Defaults") or _ALIAS.match(rule):
            continue
        parts = _RULE.match(rule)
        if parts is None or re.search(r"[()]", _RUN_AS.sub("", parts["commands"])):
            raise MaintenanceError(f"this rule of sudo is not understood: {clean(rule, 120)}")
        named, is_clear = _named(_expanded(parts["users"], known["User"]), accounts)
        found.possible |= named if is_clear else set(accounts)
        if "!" in parts["commands"]:
            excepted |= named if is_clear else set(accounts)
        everywhere = _expanded(parts["hosts"], known["Host"])
        if is_clear and "ALL" in everywhere and not any(host.startswith("!") for host in everywhere):
            may, is_free = _everything(parts["commands"], known)
            found.certain |= named if may else set()
            found.free |= named if is_free else set()
    if any(_OTHERS_PASSWORD.match(rule) for rule in rules):
        excepted = set(accounts)
    found.certain -= excepted
    found.free -= excepted
    return found


def aliases(rules: t.Iterable[str], kind: str) -> dict[str, str]:
    """Return the lists behind the names of one kind of alias (User, Runas, Host, Cmnd)."""
    found = {}
    for rule in rules:
        alias = _ALIAS.match(rule)
        if alias and alias["kind"].replace("Cmd", "Cmnd") == kind:
            for part in _NEXT_ALIAS.split(alias["list"]):
                name, _equals, members = part.partition("=")
                found[name.strip()] = members.strip()
    return found


def means_all(command: str, known: t.Mapping[str, str], depth: int = 0) -> bool:
    """Whether a command is ALL, or an alias of it."""
    if command == "ALL":
        return True
    parts = known.get(command, "").split(",") if depth < _DEPTH_LIMIT else []
    return any(means_all(part.strip(), known, depth + 1) for part in parts)


def _expanded(text: str, known: t.Mapping[str, str], depth: int = 0) -> list[str]:
    """Return the members of a list with its aliases replaced by theirs."""
    found = []
    for item in (item.strip() for item in re.findall(_ITEM, text)):
        inner = known.get(item.lstrip("! ")) if depth < _DEPTH_LIMIT else None
        if inner is None:
            found.append(item)
        else:
            found += [("!" if item.startswith("!") else "") + one for one in _expanded(inner, known, depth + 1)]
    return found


def _named(users: t.Sequence[str], accounts: t.Mapping[str, Account]) -> tuple[set[str], bool]:
    """Return the accounts that a list of users means, and whether that is clear."""
    named: set[str] = set()
    is_clear = True
    for user in users:
        name = re.sub(r"\\(.)", r"\1", user.replace('"', ""))
        if name.startswith(("!", "+", "%#", "%:")):  # exceptions, netgroups and groups from elsewhere
            is_clear = False
        elif name == "ALL":
            named |= set(accounts)
        elif name.startswith("%"):
            named |= {account for account, row in accounts.items() if name[1:] in row["groups"]}
        elif name.startswith("#"):
            named |= {account for account, row in accounts.items() if row["uid"].strip().lstrip("0") == name[1:].lstrip("0")}
        else:
            named |= {name} & set(accounts)
    return named, is_clear


def _everything(commands: str, known: t.Mapping[str, t.Mapping[str, str]]) -> tuple[bool, bool]:
    """Whether a list of commands lets run all as root, and whether without a password; tags and users hold until others come."""
    as_root, is_free, may, may_freely = True, False, False, False
    for part in _COMMA.split(commands):
        command = t.cast("re.Match[str]", _COMMAND.match(part.strip()))
        if command["run_as"] is not None:
            users = _expanded(command["run_as"].partition(":")[0], known["Runas"])
            as_root = bool({"ALL", "root", "#0"} & set(users)) and not any(user.startswith("!") for user in users)
        for tag in re.findall(r"[A-Z_]+", command["tags"]):
            is_free = tag == "NOPASSWD" or (is_free and tag != "PASSWD")
        if as_root and means_all(command["command"].strip(), known["Cmnd"]):
            may, may_freely = True, may_freely or is_free
    return may, may_freely
