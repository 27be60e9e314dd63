# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Local accounts, sudo rules, read from their files into plain data that can be compared."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import typing as t

from .errors import MaintenanceError
from .security_common import read_small, shown

ADMIN_GROUPS = frozenset(("root", "sudo", "wheel", "admin", "docker", "lxd", "disk", "shadow"))
"""Groups whose members can become root."""

_INCLUDE = re.compile(r"^[#@]include(dir)?\s+(.+)$")
_DEPTH_LIMIT = 16

Account = dict[str, t.Any]


def accounts(etc: str) -> dict[str, Account]:
    """Return every local account: uid, gid, shell, home and groups."""
    groups = _rows(os.path.join(etc, "group"), 4)
    names = _by_number(groups)
    found: dict[str, Account] = {}
    for name, _unused, uid, gid, _unused, home, shell in _rows(os.path.join(etc, "passwd"), 7):
        found.setdefault(name, {"uid": uid, "gid": gid, "home": home, "shell": shell, "groups": set(names.get(_number(gid), [gid]))})
    for _unused, _unused, gid, members in groups:
        for member in filter(None, members.split(",")):
            if member in found:
                found[member]["groups"].update(names[_number(gid)])
    return {name: {**account, "groups": sorted(account["groups"])} for name, account in found.items()}


def _number(text: str) -> str:
    return text.strip().lstrip("0") or "0"


def _by_number(rows: t.Iterable[t.Sequence[str]]) -> dict[str, list[str]]:
    """Return the names of each number, for to the kernel all names of one number are the same."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(_number(row[2]), []).append(row[0])
    return {number: list(dict.fromkeys(found)) for number, found in names.items()}


def shared_numbers(etc: str) -> list[str]:
    """Return the uids and gids that have several names; root's twins are told apart from these."""
    users = {uid: names for uid, names in _by_number(_rows(os.path.join(etc, "passwd"), 7)).items() if uid != "0"}
    groups = _by_number(_rows(os.path.join(etc, "group"), 4))
    kinds = (("uid", users), ("gid", groups))
    return [f"{kind} {number}: {', '.join(names)}" for kind, found in kinds for number, names in sorted(found.items()) if len(names) > 1]


def _rows(path: str, fields: int) -> list[list[str]]:
    text = read_small(path).decode("utf-8", "backslashreplace")
    rows = [line.split(":") for line in text.splitlines() if line.strip() and not line.startswith(("#", "+", "-"))]
    return [row for row in rows if len(row) == fields]


def root_twins(found: t.Mapping[str, Account]) -> list[str]:
    """Return the accounts other than root that are root by their uid."""
    return sorted(name for name, account in found.items() if _number(account["uid"]) == "0" and name != "root")


def empty_passwords(etc: str) -> list[str]:
    """Return the accounts that need no password (unlike locked ones, whose hash no password has)."""
    open_ones = {row[0] for row in _rows(os.path.join(etc, "shadow"), 9) if not row[1]}
    open_ones |= {row[0] for row in _rows(os.path.join(etc, "passwd"), 7) if not row[1]}
    return sorted(open_ones)


class Shadow(t.NamedTuple):
    """What the shadow file says of an account, times as days since the epoch (-1 where it says none)."""

    word: str
    changed: int
    longest: int
    expires: int


def shadows(etc: str) -> dict[str, Shadow]:
    """Return the rows of the shadow file by account; the first row of a name counts, as it does for log-ins."""
    found: dict[str, Shadow] = {}
    for row in _rows(os.path.join(etc, "shadow"), 9):
        changed, longest, expires = (int(row[place]) if row[place].isascii() and row[place].isdigit() else -1 for place in (2, 4, 7))
        found.setdefault(row[0], Shadow(row[1], changed, longest, expires))
    return found


def uid_range(etc: str) -> tuple[int, int]:
    """Return the first and last uid of people, as login.defs has them."""
    bounds = {"UID_MIN": 1000, "UID_MAX": 60000}
    with contextlib.suppress(OSError, MaintenanceError):
        for line in read_small(os.path.join(etc, "login.defs")).decode("utf-8", "backslashreplace").splitlines():
            words = line.split()
            if len(words) == 2 and words[0] in bounds and words[1].isascii() and words[1].isdigit():
                bounds[words[0]] = int(words[1])
    return bounds["UID_MIN"], bounds["UID_MAX"]


def directories(etc: str, database: str = "passwd") -> list[str]:
    """Return the services beside the local files that this host asks for accounts; a million of theirs are none of ours.

    :param database: what they are asked for, as nsswitch.conf calls it.
    """
    with contextlib.suppress(OSError, MaintenanceError):
        for line in read_small(os.path.join(etc, "nsswitch.conf")).decode("utf-8", "backslashreplace").splitlines():
            words = line.split("#")[0].split()
            if words[:1] == [f"{database}:"]:
                return [word for word in words[1:] if word not in ("files", "compat", "systemd") and not word.startswith("[")]
    return []


def sudo_rules(path: str, depth: int = 0) -> dict[str, list[str]]:
    """Return the lines that count of a sudoers file and of all that it includes, by file.

    :raises MaintenanceError: files include each other without end, or one is not a regular file.
    """
    if depth > _DEPTH_LIMIT:
        raise MaintenanceError(f"{shown(path)} is included more than {_DEPTH_LIMIT} files deep; look for a loop.")
    found: dict[str, list[str]] = {path: []}
    text = re.sub(r"\\\n\s*", "", read_small(path).decode("utf-8", "backslashreplace"))
    for line in text.splitlines():
        include = _INCLUDE.match(line.strip())
        if include:
            for inner in _included(include[2].strip('" '), bool(include[1]), os.path.dirname(path)):
                found.update(sudo_rules(inner, depth + 1))
            continue
        rule = " ".join(re.sub(r"(?:^|\s)#(?!\d).*$", "", line).split())
        if rule:
            found[path].append(rule)
    return found


def _included(target: str, is_folder: bool, beside: str) -> list[str]:
    path = os.path.join(beside, target)
    if not is_folder:
        return [path]
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    return [os.path.join(path, name) for name in names if "." not in name and not name.endswith("~")]


def flat_rules(rules: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """Return every rule once, with its file before it."""
    return sorted({f"{path}: {rule}" for path, lines in rules.items() for rule in lines})


def sudoers_leftovers(folder: str) -> list[str]:
    """Return files of the include folder that sudo ignores because of their name."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "*")) if "." in os.path.basename(path) or path.endswith("~"))
