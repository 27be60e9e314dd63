# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of the configuration in version control: encrypted files, and an index of names with keyed hashes; never a value in clear."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import typing as t

from . import git_lock, sqlite_restore
from .app_folder import AppFolder
from .backup_encryption import command_problems, encryption_of_file
from .backup_stream import piped
from .environment_file import is_one, variables
from .errors import MaintenanceError
from .host import Host
from .judge import many
from .paths import ensure_private_folder, open_regular, write_atomic
from .record import Action, Finding, Json
from .snapshot_copies import work_tree_of

VERSION_CONTROL: dict[str, t.Any] = {
    "tree": {"type": "path", "default": ""},
    "encrypt_command": {"type": "list", "elements": "str", "default": []},
    "push": {"type": "bool", "default": False},
}

INDEX = "configuration.json"
_KEY = "configuration.key"
_LIMIT = 4 * 1024 * 1024
_LEAST = 6
_GIT = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}


class Version(t.NamedTuple):
    """A committed state: its id, the paths that changed in it, and why it was not pushed."""

    id: str
    changed: t.Sequence[str] = ()
    unpushed: str = ""


def problems(declared: t.Mapping[str, t.Any] | None, paths: t.Sequence[str]) -> t.Iterator[str]:
    """Say what cannot be meant, one sentence each, from the input alone."""
    if not declared or not (declared["tree"] or declared["encrypt_command"] or declared["push"]):
        return
    tree = declared["tree"]
    if not os.path.isabs(tree) or os.path.normpath(tree) != tree or tree == "/":
        yield f"version_control.tree is {tree!r}, expected the full path of a work tree that only root can write; correct it."
    if any(tree == path or tree.startswith(path + "/") or path.startswith(tree + "/") for path in paths):
        yield f"version_control.tree is {tree!r}, which holds or lies in what paths name; name a work tree of its own."
    if not declared["encrypt_command"]:
        yield "version_control.encrypt_command is empty, expected a program that encrypts; nothing is committed in clear."
    yield from command_problems(declared["encrypt_command"], "version_control.encrypt_command")


def described(content: bytes, entry: t.Mapping[str, Json], key: bytes) -> dict[str, Json]:
    """Describe a file without giving anything of it away: whoever has the index, but not the key of this host, cannot try values."""

    def keyed(value: bytes) -> str:
        return hmac.new(key, value, hashlib.sha256).hexdigest()[:32]

    names = {name: keyed(name.encode() + b"=" + value) for name, value in sorted(variables(content).items())}
    return {
        "mode": f"{entry['mode']:04o}",
        "uid": entry["uid"],
        "gid": entry["gid"],
        "hash": keyed(entry["sha256"].encode()),
        "variables": names,
    }


def _name_of(path: str) -> str:
    """Name the sealed file of a path; git takes nothing below a folder with the name of its own."""
    parts = ["git" if part.lower() == ".git" else part for part in path.lstrip("/").split("/")]
    return "/".join(parts) + ".sealed"


class Versions:
    """The work tree that versions are committed to."""

    def __init__(self, declared: t.Mapping[str, t.Any], state_dir: str, host: Host) -> None:
        self.tree: str = declared["tree"]
        self._declared = declared
        self._host = host
        if not os.path.isdir(self.tree) or os.path.islink(self.tree):
            raise MaintenanceError(f"version_control.tree {self.tree} is no folder; make a work tree there with git init.")
        ensure_private_folder(self.tree)
        self._key = _key(state_dir)
        self.findings: list[Finding] = []

    def commit(self, files: t.Sequence[t.Mapping[str, Json]], folder: str, run: str) -> Version:
        """Commit what differs from the last version.

        :param files: regular files of a manifest; ``folder`` is where the snapshot keeps them.
        :raises MaintenanceError: something would be committed in clear, or git failed.
        """
        self.findings += git_lock.free(self.tree, self._host, self._git)
        before = self._index()
        now: dict[str, Json] = {}
        written: list[str] = []
        values: set[bytes] = set()
        for entry in files:
            with open_regular(os.path.join(folder, entry["file"])) as source:
                content = source.read(_LIMIT)
            values |= {value for value in variables(content).values() if len(value) >= _LEAST}
            now[entry["path"]] = described(content, entry, self._key)
            name = _name_of(entry["path"])
            if before.get(entry["path"]) != now[entry["path"]] or not os.path.isfile(os.path.join(self.tree, name)):
                self._seal(os.path.join(folder, entry["file"]), name)
                written.append(name)
        changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
        if changed or written:
            write_atomic(os.path.join(self.tree, INDEX), json.dumps(now, indent=1, sort_keys=True).encode())
            self._refuse_clear(written, values)
            self._git("add", "--", *written, INDEX)
            who = ["-c", "user.name=ops.maintenance", "-c", "user.email=ops.maintenance@localhost", "-c", "commit.gpgSign=false"]
            self._git(*who, "commit", "--quiet", "--message", f"Configuration before {run}", "--", *written, INDEX)
        return Version(self._git("rev-parse", "HEAD").strip(), changed, self._pushed())

    def _index(self) -> dict[str, Json]:
        """Return the committed index; one that a run did not come to commit says nothing of what is kept."""
        path = os.path.join(self.tree, INDEX)
        committed = self._host.run(["git", "-C", self.tree, "rev-parse", "--verify", "--quiet", f"HEAD:{INDEX}"], env=_GIT).stdout
        if not os.path.lexists(path) or self._git("hash-object", "--", INDEX) != committed:
            return {}
        try:
            with open_regular(path) as source:
                found = json.loads(source.read())
        except (OSError, ValueError, MaintenanceError) as error:
            raise MaintenanceError(f"The index {path} cannot be read ({error}); commit a sound one.") from None
        return found if isinstance(found, dict) else {}

    def _seal(self, source: str, name: str) -> None:
        target = os.path.join(self.tree, name)
        sqlite_restore.make_folders(os.path.dirname(target))
        with open(source, "rb") as reading:
            sealed = b"".join(
                piped(iter(lambda: reading.read(1024 * 1024), b""), self._declared["encrypt_command"], source, "be encrypted")
            )
        write_atomic(target, sealed)
        if not encryption_of_file(target):
            os.unlink(target)
            raise MaintenanceError(f"What {self._declared['encrypt_command'][0]} made of {source} is not encrypted; nothing was committed.")

    def _refuse_clear(self, names: t.Sequence[str], values: t.Collection[bytes]) -> None:
        """Look for values in what a program is said to have encrypted; the index holds none by the way it is made."""
        for name in names:
            with open_regular(os.path.join(self.tree, name)) as source:
                content = source.read()
            if any(value in content for value in values):
                os.unlink(os.path.join(self.tree, name))
                raise MaintenanceError(f"{name} would hold a value of an environment file in clear; it was removed and not committed.")

    def _pushed(self) -> str:
        if not self._declared["push"]:
            return ""
        try:
            self._git("push", "--quiet", timeout=120)
        except MaintenanceError as error:
            return str(error)
        return ""

    def _git(self, *argv: str, timeout: float = 60) -> str:
        ran = self._host.run(["git", "-C", self.tree, *argv], timeout=timeout, env=_GIT)
        if ran.rc != 0:
            raise MaintenanceError(f"The version of the configuration was not kept in {self.tree}: {ran.why()}.")
        return ran.stdout


def _key(state_dir: str) -> bytes:
    path = os.path.join(state_dir, _KEY)
    ensure_private_folder(state_dir)
    if not os.path.lexists(path):
        write_atomic(path, secrets.token_bytes(32))
    with open_regular(path) as source:
        return source.read(64)


def keep(
    declared: t.Mapping[str, t.Any],
    files: t.Sequence[t.Mapping[str, Json]],
    folder: str,
    manifest: t.Mapping[str, Json],
    state_dir: str,
    host: Host,
) -> tuple[list[Finding], list[Action]]:
    """Commit the configuration of a snapshot, and say which version it is."""
    versions = Versions(declared, state_dir, host)
    version = versions.commit(files, folder, manifest["id"])
    words = f"configuration {manifest['configuration']} is {version.id[:12]}, encrypted; {many(len(version.changed), 'path')} changed"
    more = (
        {"advice": "Let it be pushed; until then it is lost with this host.", "not_covered": version.unpushed} if version.unpushed else {}
    )
    state = "warning" if version.unpushed else "ok"
    finding = Finding("snapshot.version_control", state, declared["tree"], words, evidence=list(version.changed), **more)
    return [*versions.findings, finding], [Action(declared["tree"], "commit", "changed", words)] if version.changed else []


def clear_secrets(host: Host, files: t.Sequence[t.Mapping[str, Json]], folder: str) -> list[Finding]:
    """Say which environment files of the snapshot their own version control keeps in clear; nothing where none lies in a work tree."""
    found, unasked = in_clear(host, files, folder)
    if found:
        advice = "Take it out of version control and its history, and replace every secret in it."
        words = f"{found[0]} is kept in clear by the version control of its folder"
        return [Finding("snapshot.clear_secrets", "critical", found[0], words, evidence=[*found, *unasked], advice=advice)]
    if unasked:
        advice = "Ask git ls-files in its folder by hand."
        return [Finding("snapshot.clear_secrets", "unknown", "configuration", unasked[0], evidence=unasked, advice=advice)]
    return []


def in_clear(host: Host, files: t.Sequence[t.Mapping[str, Json]], folder: str) -> tuple[list[str], list[str]]:
    """Return the environment files that the version control of their own folder keeps in clear, and what could not be asked."""
    found, unasked = [], []
    for entry in files:
        path = entry["path"]
        with open_regular(os.path.join(folder, entry["file"])) as source:
            if not is_one(path, source.read(_LIMIT)):
                continue
        if not work_tree_of(os.path.dirname(path)):
            continue
        try:
            ran = AppFolder(host, os.path.dirname(path), "paths").run(
                ["git", "ls-files", "--error-unmatch", "--", os.path.basename(path)], timeout=60, env=_GIT
            )
        except MaintenanceError as error:
            unasked.append(f"{path}: {error}")
            continue
        if ran.rc == 0:
            found.append(path)
        elif "did not match" not in ran.stderr:
            unasked.append(f"{path}: {ran.why()}")
    return found, unasked
