# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that let somebody in: where sshd looks for them, and what those files hold."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import typing as t
from dataclasses import dataclass

from . import security_sshd, security_sshd_config, security_sshd_started
from .errors import MaintenanceError
from .paths import open_folder, open_regular
from .record import clean
from .security_accounts import Account
from .security_common import READ_LIMIT_BYTES, Review, shown, why_unread

_KEY_TYPE = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[\w@.-]+$")
_VALUE = re.compile(r'="((?:[^"\\]|\\.)*)"')
_TOKEN = re.compile(r"%(.)")
_FILES, _COMMAND, _AUTHORITIES = "authorizedkeysfile", "authorizedkeyscommand", "trustedusercakeys"
_DEFAULT = (".ssh/authorized_keys", ".ssh/authorized_keys2")


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


@dataclass(frozen=True)
class Places:
    """Where sshd looks for the keys of an account.

    :param patterns: files as sshd names them, with its tokens, relative to a home where they do not begin with a slash.
    :param gaps: what lets somebody in besides them, or why that is not known.
    :param is_known: whether sshd said it; else these are what it does without a word about it.
    """

    patterns: tuple[str, ...] = _DEFAULT
    gaps: tuple[str, ...] = ()
    is_known: bool = True


def places(review: Review) -> Places:
    """Follow what sshd really uses, for everybody and for those whom Match blocks treat apart."""
    started = security_sshd_started.started(review.etc, "/proc" if review.etc == "/etc" else "")
    try:
        config = security_sshd_config.read(started.path)
    except FileNotFoundError:
        return Places()
    except (OSError, MaintenanceError) as error:
        return Places(gaps=(f"where sshd looks for keys: {shown(started.path)}: {why_unread(error)}",), is_known=False)
    told = {*config.keywords, *(word.split("=")[0].split()[0].lower() for word in started.given if word.strip("= "))}
    if not told & {_FILES, _COMMAND, _AUTHORITIES}:
        return Places()
    declared = review.params.get("sshd_connections") or []
    made_up, unclear = security_sshd_config.connections(config.blocks)
    gaps = [f"where sshd looks for keys: {gap}" for gap in started.gaps]
    gaps += [f"where sshd looks for keys: {block}: declare a connection for it in sshd_connections" for block in unclear if not declared]
    answers, asked = [], list(dict.fromkeys(["", *declared, *made_up]))
    for connection in asked:
        try:
            answers.append(security_sshd.ask(review, started.given, connection))
        except MaintenanceError as error:
            gaps.append(f"where sshd looks for keys{f' for {connection}' if connection else ''}: {error}")
    gaps += [said for options in answers for said in _elsewhere(options)]
    patterns = [word for options in answers for line in options.get(_FILES, _DEFAULT) for word in line.split() if word != "none"]
    return Places(tuple(dict.fromkeys(patterns)) if answers else _DEFAULT, tuple(dict.fromkeys(gaps)), len(answers) == len(asked))


def _elsewhere(options: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """Name what lets somebody in without a key in a file; of a command, not what it is given."""
    commands = [words[0] for line in options.get(_COMMAND, ()) if (words := line.split()) and words[0] != "none"]
    authorities = [line for line in options.get(_AUTHORITIES, ()) if line != "none"]
    said = [f"keys that the AuthorizedKeysCommand {clean(command, 100)} gives" for command in commands]
    return said + [f"certificates of the authorities in {clean(path, 100)}" for path in authorities]


def authorized_keys(found: t.Mapping[str, Account], patterns: t.Sequence[str] = _DEFAULT) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the keys by account, and by account why its keys could not be read."""
    texts, unread = key_files(found, patterns)
    return {name: [line for text in files for line in keys_of(text)] for name, files in texts.items()}, unread


def key_files(found: t.Mapping[str, Account], patterns: t.Sequence[str] = _DEFAULT) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the text of the authorised-keys files by account, and by account why they could not be read."""
    keys: dict[str, list[str]] = {}
    unread: dict[str, str] = {}
    for name, account in found.items():
        for base, inner in dict.fromkeys(_located(pattern, name, account) for pattern in patterns):
            if not os.path.isabs(base):
                continue
            try:
                keys.setdefault(name, []).append(_read_keys(base, inner))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, MaintenanceError, ValueError) as error:
                unread[name] = f"{shown(os.path.join(base, inner))}: {why_unread(error)}"
    return {name: texts for name, texts in keys.items() if name not in unread}, unread


def _located(pattern: str, name: str, account: Account) -> tuple[str, str]:
    """Return the folder that the administrator named, or the home, and the path below it, in which no link is followed."""
    home = account["home"]
    values = {"u": name, "h": home, "U": account["uid"], "%": "%"}
    if not pattern.startswith(("/", "%h")):
        pattern = f"%h/{pattern}"
    path = os.path.normpath(_TOKEN.sub(lambda found: values.get(found[1], found[0]), pattern))
    fixed = home if pattern.startswith("%h") else os.path.dirname(pattern.split("%")[0])
    if path.startswith(f"{os.path.normpath(home)}/"):
        fixed = home
    return fixed, os.path.relpath(path, fixed) if os.path.isabs(fixed) else path


def _read_keys(base: str, inner: str) -> str:
    """Read a file of keys; nothing that the account's owner may have replaced is followed, as root would read it."""
    if os.path.islink(base) and os.lstat(base).st_uid == 0:
        base = os.path.realpath(base)
    *folders, name = inner.split("/")
    with contextlib.ExitStack() as opened:
        folder_fd = opened.enter_context(open_folder(base))
        for folder in folders:
            folder_fd = opened.enter_context(open_folder(folder, folder_fd))
        source = opened.enter_context(open_regular(name, folder_fd))
        return source.read(READ_LIMIT_BYTES).decode("utf-8", "backslashreplace")
