# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Local accounts, sudo rules and authorised keys, read from their files into plain data that can be compared."""

from __future__ import annotations

import base64
import binascii
import contextlib
import glob
import hashlib
import os
import re
import typing as t

from .errors import MaintenanceError
from .paths import open_folder, open_regular
from .record import clean
from .security_common import READ_LIMIT_BYTES, read_small, shown, why_unread

ADMIN_GROUPS = frozenset(("root", "sudo", "wheel", "admin", "docker", "lxd", "disk", "shadow"))
"""Groups whose members can become root."""

_KEY_TYPE = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[\w@.-]+$")
_VALUE = re.compile(r'="((?:[^"\\]|\\.)*)"')
_INCLUDE = re.compile(r"^[#@]include(dir)?\s+(.+)$")
_DEPTH_LIMIT = 16

Account = dict[str, t.Any]


def accounts(etc: str) -> dict[str, Account]:
    """Return every local account: uid, gid, shell, home and groups."""
    groups = _rows(os.path.join(etc, "group"), 4)
    names = {row[2]: row[0] for row in groups}
    found: dict[str, Account] = {}
    for name, _unused, uid, gid, _unused, home, shell in _rows(os.path.join(etc, "passwd"), 7):
        found.setdefault(name, {"uid": uid, "gid": gid, "home": home, "shell": shell, "groups": {names.get(gid, gid)}})
    for group, _unused, _unused, members in groups:
        for member in filter(None, members.split(",")):
            if member in found:
                found[member]["groups"].add(group)
    return {name: {**account, "groups": sorted(account["groups"])} for name, account in found.items()}


def _rows(path: str, fields: int) -> list[list[str]]:
    text = read_small(path).decode("utf-8", "backslashreplace")
    rows = [line.split(":") for line in text.splitlines() if line.strip() and not line.startswith(("#", "+", "-"))]
    return [row for row in rows if len(row) == fields]


def root_twins(found: t.Mapping[str, Account]) -> list[str]:
    """Return the accounts other than root that are root by their uid."""
    return sorted(name for name, account in found.items() if account["uid"].strip().lstrip("0") == "" and name != "root")


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


def directories(etc: str) -> list[str]:
    """Return the services beside the local files that this host asks for accounts; a million of theirs are none of ours."""
    with contextlib.suppress(OSError, MaintenanceError):
        for line in read_small(os.path.join(etc, "nsswitch.conf")).decode("utf-8", "backslashreplace").splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["passwd:"]:
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


def keys_of(text: str) -> list[str]:
    """Return the fingerprints in an authorised-keys file as ``ssh-keygen -l`` shows them, with options and comment."""
    found = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = key_of(line)
        if key is None:
            found.append(f"not a key: {clean(line, 60)}")
            continue
        options = f"{_VALUE.sub(_digest, key.options)} " if key.options else ""
        found.append(clean(f"{options}{key.fingerprint} {key.comment}".strip(), 200))
    return sorted(found)


class Key(t.NamedTuple):
    """One line of an authorised-keys file."""

    options: str
    kind: str
    blob: bytes
    comment: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def key_of(line: str) -> Key | None:
    """Take a line apart; None where it is no key. A kind of key that an option's text names is not taken for the key's own."""
    words = line.split()
    for place, word in enumerate(words[:-1]):
        if _KEY_TYPE.match(word):
            try:
                blob = base64.b64decode(words[place + 1], validate=True)
            except (binascii.Error, ValueError):
                continue
            return Key(" ".join(words[:place]), word, blob, " ".join(words[place + 2 :]))
    return None


def _digest(value: re.Match[str]) -> str:
    """Stand in for an option's value, which may hold a secret (command, environment), so that a change still shows."""
    return f'="sha256:{hashlib.sha256(value[1].encode()).hexdigest()[:12]}"'


def authorized_keys(found: t.Mapping[str, Account]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the keys by account, and by account why its keys could not be read."""
    texts, unread = key_files(found)
    return {name: [line for text in files for line in keys_of(text)] for name, files in texts.items()}, unread


def key_files(found: t.Mapping[str, Account]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the text of the authorised-keys files by account, and by account why they could not be read."""
    keys: dict[str, list[str]] = {}
    unread: dict[str, str] = {}
    at_home = {name: account for name, account in found.items() if os.path.isabs(account["home"])}
    for name, account in at_home.items():
        for file in ("authorized_keys", "authorized_keys2"):
            path = os.path.join(account["home"], ".ssh", file)
            try:
                keys.setdefault(name, []).append(_read_keys(account["home"], file))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, MaintenanceError, ValueError) as error:
                unread[name] = f"{shown(path)}: {why_unread(error)}"
    return {name: texts for name, texts in keys.items() if name not in unread}, unread


def _read_keys(home: str, file: str) -> str:
    """Read a file of keys below a home; nothing that the account's owner may have replaced is followed, as root would read it."""
    if os.path.islink(home) and os.lstat(home).st_uid == 0:
        home = os.path.realpath(home)
    with open_folder(home) as home_fd, open_folder(".ssh", home_fd) as folder_fd, open_regular(file, folder_fd) as source:
        return source.read(READ_LIMIT_BYTES).decode("utf-8", "backslashreplace")


def sudoers_leftovers(folder: str) -> list[str]:
    """Return files of the include folder that sudo ignores because of their name."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "*")) if "." in os.path.basename(path) or path.endswith("~"))
