# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the files of accounts and groups hold together: what pwck and grpck refuse, for what is no entry nobody judges as an account."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t

from . import security_accounts
from .errors import MaintenanceError
from .judge import many
from .record import Finding, clean
from .security_common import Review, read_small, unknown, why_unread

IDS = ("security.account_files",)

_FIELDS = {"passwd": 7, "shadow": 9, "group": 4, "gshadow": 4}
_BAD_NAME = re.compile(r"[-+~]|.*[\s:,/]|\Z")
_SUBJECT = "account files"
_SHADOWED = "x"

Rows = t.Sequence[t.Sequence[str]]


def rows_of(name: str, text: str) -> tuple[list[list[str]], list[str]]:
    """Return the entries of one of the files, and its lines that are none; lines that ask a directory service are neither."""
    rows, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        row = line.split(":")
        if len(row) == _FIELDS[name]:
            rows.append(row)
        elif line.strip() and not line.startswith(("+", "-")):
            faults.append(f"{name}, line {number}: {many(len(row), 'field')} where {_FIELDS[name]} belong")
    rows = [row for row in rows if not row[0].startswith(("+", "-"))]
    names = [row[0] for row in rows]
    faults += [f"in {name} {one} is there {names.count(one)} times" for one in dict.fromkeys(names) if names.count(one) > 1]
    faults += [f"in {name} {one!r} is no name" for one in dict.fromkeys(names) if _BAD_NAME.match(one)]
    return rows, faults


def faults_of(texts: t.Mapping[str, str], today: int, has_directory: bool = False) -> list[str]:
    """Return what does not hold together.

    :param texts: passwd and group, and shadow and gshadow where they are there.
    :param today: days since the epoch.
    :param has_directory: whether accounts and groups come from elsewhere too, so that one that is missing here may be there.
    """
    rows, faults = {}, []
    for name in texts:
        rows[name], found = rows_of(name, texts[name])
        faults += found
    users, groups = rows["passwd"], rows["group"]
    for row in users:
        faults += [f"in passwd {row[0]} has {number!r} where a number belongs" for number in row[2:4] if not _is_number(number)]
        if row[1] not in (_SHADOWED, "", "*", "!"):
            faults.append(f"in passwd the password of {row[0]} is kept where everybody may read it")
    faults += [f"in group {row[0]} has {row[2]!r} where a number belongs" for row in groups if not _is_number(row[2])]
    if not has_directory:
        faults += _missing(users, groups)
    if "shadow" in rows:
        faults += _pairs("passwd", users, "shadow", rows["shadow"])
        late = [row[0] for row in rows["shadow"] if _is_number(row[2]) and int(row[2]) > today + 1]
        faults += [f"in shadow the password of {name} was changed on a day that is still to come" for name in late]
    if "gshadow" in rows:
        faults += _pairs("group", groups, "gshadow", rows["gshadow"]) + _members(groups, rows["gshadow"])
    return [clean(fault, 200) for fault in faults]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _missing(users: Rows, groups: Rows) -> list[str]:
    numbers, names = {row[2] for row in groups}, {row[0] for row in users}
    faults = [f"in passwd the group {row[3]} of {row[0]} is not there" for row in users if _is_number(row[3]) and row[3] not in numbers]
    return faults + [
        f"in group the member {member} of {row[0]} is not there"
        for row in groups
        for member in row[3].split(",")
        if member and member not in names
    ]


def _pairs(open_name: str, entries: Rows, closed_name: str, passwords: Rows) -> list[str]:
    known, kept = {row[0] for row in entries}, {row[0] for row in passwords}
    faults = [f"{row[0]} of {closed_name} is not in {open_name}" for row in passwords if row[0] not in known]
    return faults + [f"{row[0]} of {open_name} is not in {closed_name}" for row in entries if row[1] == _SHADOWED and row[0] not in kept]


def _members(groups: Rows, passwords: Rows) -> list[str]:
    """Compare members as sets, for only one of the two files is asked who is in a group."""
    kept = {row[0]: set(filter(None, row[3].split(","))) for row in passwords}
    return [
        f"{row[0]} has other members in gshadow than in group"
        for row in groups
        if row[0] in kept and set(filter(None, row[3].split(","))) != kept[row[0]]
    ]


def look(review: Review) -> list[Finding]:
    """Read the files and judge them."""
    texts: dict[str, str] = {}
    unread: list[str] = []
    for name in _FIELDS:
        try:
            texts[name] = read_small(os.path.join(review.etc, name)).decode("utf-8", "backslashreplace")
        except FileNotFoundError:
            if name in ("passwd", "group"):
                return [unknown(IDS[0], _SUBJECT, f"there is no {name}", "Restore it from its backup.")]
            if name == "shadow":
                unread.append("there is no shadow")
        except (OSError, MaintenanceError) as error:
            unread.append(f"{name} could not be read: {why_unread(error)}")
    if not {"passwd", "group"} <= set(texts):
        return [unknown(IDS[0], _SUBJECT, "; ".join(unread), "Make it a file that can be read.")]
    beside = security_accounts.directories(review.etc)
    gaps = [*unread, f"accounts and groups of {', '.join(beside)}"] if beside else unread
    found = faults_of(texts, int(review.now.timestamp() // 86400), bool(beside))
    state = "warning" if found else "unknown" if unread else "ok"
    advice = {"ok": "", "unknown": "Run with become: true so that all can be read, and restore what is missing."}
    return [
        Finding(
            IDS[0],
            state,
            _SUBJECT,
            f"{many(len(found), 'entry does', 'entries do')} not hold together",
            value=len(found),
            unit="count",
            threshold="warning from 1 (CIS Debian Linux 12, 7.2.1, 7.2.3, 7.2.7, 7.2.8, 5.4.1.6)",
            not_covered="; ".join(gaps),
            advice=advice.get(state, "Correct it with vipw, vigr, pwck and grpck; until then these entries are judged by nobody."),
            evidence=found[:20],
        )
    ]


def passes_bad_sample(review: Review) -> str:
    """Plant an account without a group and a line that is no entry; return them when they count as sound."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as etc:
        for name, text in (("passwd", "planted:x:1:1::/:/bin/sh\nplanted:x\n"), ("group", "root:x:0:\n")):
            with open(os.path.join(etc, name), "w", encoding="utf-8") as sample:
                sample.write(text)
        [found] = look(Review(review.params, review.host, True, review.now, etc))
        return "" if found.value == 2 else "an account without a group and half a line as sound"
