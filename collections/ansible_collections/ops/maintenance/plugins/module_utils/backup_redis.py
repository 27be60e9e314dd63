# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of Redis, as RDB file or append-only file: checked by Redis's own tools, loaded by a throw-away server that reaches nothing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
import typing as t

from . import backup_proof
from .backup_adaptor import Around, Climb
from .backup_repository import Tool, work_folder
from .backup_sets import Backup, Declared, File, Listing, list_backups, may_be_behind
from .backup_stream import one_pass
from .errors import MaintenanceError
from .host import Ran
from .judge import human_seconds
from .postgresql_programs import identity
from .record import clean

_MAGIC = b"REDIS"
_USER = "redis"
_LOAD_SECONDS = 3600.0
_KEYS_READ = re.compile(r"\[info\] (\d+) keys read")
_LOADED = re.compile(r"Done loading RDB, keys loaded: (\d+), keys expired: (\d+)")
_SOUND_AOF = ("All AOF files and manifest are valid", "AOF is valid")
_SETTINGS = """
port 0
daemonize no
dir {folder}
unixsocket {folder}/redis.sock
unixsocketperm 700
save ""
appendonly {appendonly}
appenddirname "appendonlydir"
appendfilename "{appendfilename}"
dbfilename dump.rdb
aof-load-truncated no
rdbchecksum yes
databases 1024
maxmemory 0
maxmemory-policy noeviction
protected-mode yes
logfile ""
"""


class Redis:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = {}
    needs_root = True

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:  # noqa: ARG002
        """See :class:`backup_adaptor.Adaptor`."""
        if declared["sentinel"] and declared["sentinel"]["column"] not in ("time", "value"):
            yield f"sentinel.column of set {declared['name']} is {declared['sentinel']['column']!r}, expected time or value; the table is the key's name."

    def listed(self, declared: Declared, around: Around) -> Listing:
        """See :class:`backup_adaptor.Adaptor`."""
        return list_backups(declared, around.zone)

    def climb(self, climb: Climb) -> None:
        """See :class:`backup_adaptor.Adaptor`."""
        if not _read(climb):
            return
        try:
            with work_folder(climb.scratch, climb.backup.size, _user()) as folder:
                started = time.monotonic()
                parts = _brought(climb.backup, folder)
                _checked(climb, parts)
                if climb.level >= 3 and climb.stands(2):
                    climb.say(3, "ok", f"copied to the scratch folder in {human_seconds(time.monotonic() - started)}")
                if climb.level >= 4 and climb.stands(3):
                    _loaded(climb, parts, folder)
                if climb.level >= 3:
                    climb.restore_seconds = time.monotonic() - started
        except (MaintenanceError, OSError) as error:
            level = next(level for level in range(1, 6) if level == 5 or not any(said.level == level for said in climb.verdicts))
            climb.say(level, "unknown", str(error))


class _Parts(t.NamedTuple):
    rdb: str
    manifest: str
    aof: str
    keys: list[int]


def _user() -> str:
    with contextlib.suppress(MaintenanceError):
        identity(_USER)
        return _USER
    return "nobody"


def _read(climb: Climb) -> bool:
    """Read every byte once: manifest, own checksum of a packed file, or what earlier runs saw."""
    declared = {**climb.declared, "kind": "files", "level": min(climb.level, 2), "required_files": []}
    proof = backup_proof.prove(declared, climb.backup, climb.scratch, climb.known, climb.around.now)
    climb.digests.update(proof.digests)
    climb.basis.update(part for part in proof.basis.split(", ") if part)
    for finding in proof.findings:
        level = 1 if finding.id == "backup.structure" else 2
        if finding.state != "ok" or level == 2:
            climb.say(level, finding.state, finding.summary.partition(": ")[2])
    return climb.stands(1)


def _brought(backup: Backup, folder: str) -> _Parts:
    """Copy the parts of a backup, unpacked, to where the throw-away server will look for them."""
    rdb = manifest = aof = ""
    for file in backup.files:
        name = _plain_name(file)
        if name.endswith(".manifest"):
            manifest = _copy(file, os.path.join(folder, "appendonlydir", name))
        elif re.search(r"\.(base|incr)\.(rdb|aof)$", name):
            _copy(file, os.path.join(folder, "appendonlydir", name))
        elif _begins(file).startswith(_MAGIC) and not name.endswith(".aof"):
            rdb = _copy(file, os.path.join(folder, "dump.rdb"))
        elif name.endswith(".aof"):
            aof = _copy(file, os.path.join(folder, "appendonly.aof"))
        elif len(backup.files) == 1:
            rdb = _copy(file, os.path.join(folder, "dump.rdb"))
    return _Parts(rdb, manifest, aof, [])


def _plain_name(file: File) -> str:
    return re.sub(r"\.(gz|xz|bz2|zst)$", "", os.path.basename(file.path))


def _begins(file: File) -> bytes:
    with one_pass(file.path) as reading:
        return reading.reader.peek(len(_MAGIC))


def _copy(file: File, path: str) -> str:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with one_pass(file.path) as reading, open(path, "wb") as target:
        for piece in reading.reader.pieces(1 << 62):
            target.write(piece)
        reading.finish()
    return path


# Rungs 1 and 2 -------------------------------------------------------------------------------------------------------


def _checked(climb: Climb, parts: _Parts) -> None:
    if not (parts.rdb or parts.manifest or parts.aof):
        climb.say(1, "critical", f"{climb.backup.path} holds neither an RDB file nor an append-only file")
    if parts.rdb:
        with open(parts.rdb, "rb") as source:
            if source.read(len(_MAGIC)) != _MAGIC:
                climb.say(1, "critical", "wrong content: it is no RDB file of Redis by its first bytes")
                return
        ran = _tool("redis-check-rdb", climb).run(parts.rdb)
        for level, state, text in read_check_rdb(ran.rc, ran.stdout + "\n" + ran.stderr):
            climb.say(level, state, text)
        found = _KEYS_READ.search(ran.stdout)
        if found:
            parts.keys.append(int(found.group(1)))
    for path in (parts.manifest, parts.aof):
        if path:
            if "first look" in climb.basis:
                climb.notes.append("values in the commands of the append-only file, which have no checksum of their own")
            ran = _tool("redis-check-aof", climb).run(path)
            for level, state, text in read_check_aof(ran):
                climb.say(level, state, text)


def _tool(name: str, climb: Climb) -> Tool:
    repository = {"os_user": "", "environment_file": "", "timeout_seconds": _LOAD_SECONDS}
    return Tool(name, {**climb.declared, "repository": repository, "deadline": climb.around.params["deadline"]})


def read_check_rdb(rc: int, said: str) -> list[tuple[int, str, str]]:
    """Return (level, state, text) of what ``redis-check-rdb`` said: its CRC is level 2, and one that was never made proves nothing."""
    lines = [re.sub(r"^\[offset \d+\] ", "", line.strip()) for line in said.splitlines()]
    looks_good = any("RDB looks OK" in line for line in lines)
    if rc != 0 or not looks_good:
        wrong = [line for line in lines if line and not line.startswith(("Checking", "AUX", "Selecting", "---", "[info]", "[additional"))]
        if any("CRC error" in line for line in lines):
            return [(1, "ok", "redis-check-rdb read it to its end"), (2, "critical", "redis-check-rdb: RDB CRC error")]
        return [(1, "critical" if rc else "unknown", f"redis-check-rdb: {clean(wrong[0] if wrong else f'it ended with {rc}', 200)}")]
    found = _KEYS_READ.search(said)
    verdicts = [(1, "ok", f"redis-check-rdb: looks OK, {found.group(1) if found else 'no number of'} keys")]
    if any("Checksum OK" in line for line in lines):
        return [*verdicts, (2, "ok", "redis-check-rdb: checksum OK")]
    return [*verdicts, (2, "warning", "it was saved without a checksum (rdbchecksum no), so damage of its values does not show")]


def read_check_aof(ran: Ran) -> list[tuple[int, str, str]]:
    """Return (level, state, text) of what ``redis-check-aof`` said; commands have no checksum, only a form."""
    lines = [line.strip() for line in (ran.stdout + "\n" + ran.stderr).splitlines() if line.strip()]
    if ran.rc == 0 and any(words in line for line in lines for words in _SOUND_AOF):
        return [(1, "ok", "redis-check-aof: every file is valid")]
    if any("CRC error" in line for line in lines):
        return [(1, "ok", "redis-check-aof read it to its end"), (2, "critical", "redis-check-aof: RDB CRC error in its base file")]
    words = ("not valid", "Cannot open", "Expected", "error", "Unexpected", "Error", "empty", "truncated")
    wrong = [line for line in lines if any(word in line for word in words)]
    return [(1, "critical", f"redis-check-aof: {clean(wrong[0] if wrong else ran.why(), 200)}")]


# Rungs 4 and 5 -------------------------------------------------------------------------------------------------------


def _loaded(climb: Climb, parts: _Parts, folder: str) -> None:
    program = _tool("redis-server", climb).program
    for is_log in [wanted for wanted, there in ((False, parts.rdb), (True, parts.manifest or parts.aof)) if there]:
        with _server(program, folder, is_log, parts) as server:
            said = server.wait()
            keys = _keyspace(server.ask("INFO", "keyspace"))
            found = _LOADED.search(said)
            expired = int(found.group(2)) if found else 0
            expected = 0 if is_log else sum(parts.keys)
            what = "append-only file" if is_log else "RDB file"
            if keys + expired == 0 or (expected and keys + expired != expected):
                climb.say(
                    4,
                    "critical",
                    f"a throw-away Redis loaded {keys} keys of the {what} ({expired} had expired), expected {expected or 'some'}",
                )
                return
            climb.say(4, "ok", f"a throw-away Redis loaded {keys} keys of the {what} ({expired} had expired meanwhile)")
            if climb.level >= 5:
                _content(climb, server, keys + expired)


def _keyspace(said: t.Any) -> int:
    return sum(int(number) for number in re.findall(r"keys=(\d+)", said.decode("utf-8", "replace")))


def _content(climb: Climb, server: _Server, keys: int) -> None:
    declared = climb.declared
    wanted = declared["minimum_rows"].get("keys")
    if wanted is None and not declared["sentinel"]:
        climb.say(5, "unknown", "nothing is declared to compare (minimum_rows.keys, sentinel)")
        return
    if wanted is not None:
        climb.say(5, "ok" if keys >= int(wanted) else "critical", f"{keys} keys in the backup, at least {wanted} are declared")
    if declared["sentinel"]:
        key = declared["sentinel"]["table"]
        value = server.ask("GET", key)
        if value is None:
            climb.say(5, "critical", f"the key {key!r} is not in the backup")
        elif declared["sentinel"]["column"] == "value":
            climb.say(5, "ok", f"the key {key!r} is in the backup")
        else:
            _time(climb, key, value)


def _time(climb: Climb, key: str, value: bytes) -> None:
    try:
        made = float(value)
    except ValueError:
        climb.say(5, "critical", f"the key {key!r} does not hold a time in seconds since the epoch")
        return
    climb.rpo_seconds = max(climb.backup.moment - made, 0.0)
    limit = may_be_behind(climb.declared)
    text = f"the time in {key!r} is {human_seconds(climb.rpo_seconds)} before the backup (limit {human_seconds(limit)})"
    climb.say(5, "critical" if climb.rpo_seconds > limit else "ok", text)


class _Server:
    """A throw-away Redis: on a private socket, without port, modules, replication or saving."""

    def __init__(self, child: subprocess.Popen[bytes], folder: str) -> None:
        self._child = child
        self._folder = folder
        self._path = os.path.join(folder, "redis.sock")

    def wait(self) -> str:
        """Wait until it has loaded all; return what it said.

        :raises MaintenanceError: it ended, or did not load in time.
        """
        ends = time.monotonic() + _LOAD_SECONDS
        while time.monotonic() < ends:
            if self._child.poll() is not None:
                lines = [line for line in self.said().splitlines() if " # " in line or "rror" in line]
                raise _RefusedError(f"a throw-away Redis does not load it: {clean(lines[-1] if lines else 'it said nothing', 200)}")
            with contextlib.suppress(OSError, MaintenanceError):
                if self.ask("PING") == b"PONG":
                    return self.said()
            time.sleep(0.05)
        raise MaintenanceError("the throw-away Redis did not load it in time")

    def said(self) -> str:
        """Return its log."""
        with open(os.path.join(self._folder, "redis.log"), encoding="utf-8", errors="backslashreplace") as source:
            return source.read()

    def ask(self, *words: str) -> t.Any:
        """Send one command and return its answer.

        :raises MaintenanceError: it refused.
        """
        command = b"*%d\r\n" % len(words)
        for word in words:
            encoded = word.encode("utf-8", "surrogateescape")
            command += b"$%d\r\n%s\r\n" % (len(encoded), encoded)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
            opened.settimeout(60.0)
            opened.connect(self._path)
            opened.sendall(command)
            with opened.makefile("rb") as answer:
                line = answer.readline().rstrip(b"\r\n")
                if line[:1] == b"$":
                    size = int(line[1:])
                    return answer.read(size) if size >= 0 else None
                if line[:1] in (b"+", b":"):
                    return line[1:]
        raise MaintenanceError(f"the throw-away Redis answered {clean(line[:100].decode('utf-8', 'replace'))}")


class _RefusedError(MaintenanceError):
    """Redis itself does not take the backup."""


@contextlib.contextmanager
def _server(program: str, folder: str, is_log: bool, parts: _Parts) -> t.Iterator[_Server]:
    appendfilename = "appendonly.aof"
    if parts.manifest:
        appendfilename = os.path.basename(parts.manifest)[: -len(".manifest")]
    path = os.path.join(folder, "redis.conf")
    with open(path, "w", encoding="utf-8") as target:
        target.write(_SETTINGS.format(folder=folder, appendonly="yes" if is_log else "no", appendfilename=appendfilename))
    owner = identity(_user())
    for where, _folders, names in os.walk(folder):
        for name in ["", *names]:
            if owner:
                os.chown(os.path.join(where, name), owner["user"], owner["group"], follow_symlinks=False)
    if len(os.path.join(folder, "redis.sock")) > 100:
        raise MaintenanceError("the path of the scratch folder is too long for a socket; name a shorter one")
    with open(os.path.join(folder, "redis.log"), "wb") as log:
        child = subprocess.Popen([program, path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env={"LC_ALL": "C"},
                                 start_new_session=True, **owner)  # fmt: skip
    try:
        yield _Server(child, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "redis.sock"))
        if is_log:
            shutil.rmtree(os.path.join(folder, "appendonlydir"), ignore_errors=True)
