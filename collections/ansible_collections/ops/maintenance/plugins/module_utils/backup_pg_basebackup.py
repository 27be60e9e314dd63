# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of pg_basebackup, as a plain folder or as tar archives: verified against their manifest, started from a copy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import typing as t

from . import backup_physical as physical
from . import postgresql_programs
from .backup_adaptor import Around, Climb
from .backup_kinds import Verdict
from .backup_sets import Declared, Listing, list_backups
from .backup_stream import DamagedError, UnsupportedError, one_pass, tar_members
from .errors import MaintenanceError
from .judge import human_bytes, human_seconds
from .paths import open_regular
from .postgresql_scratch import Cluster, scratch_cluster
from .record import clean

MANIFEST = "backup_manifest"
_TAR = re.compile(r"^(base|pg_wal|\d+)\.tar(\.gz|\.zst|\.lz4)?$")
_RESERVE_BYTES = 256 * 1024 * 1024
_VERIFIED = "backup successfully verified"
_USER = "postgres"


class PgBasebackup:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = {}
    needs_root = True

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
        """See :class:`backup_adaptor.Adaptor`."""
        yield from physical.problems(declared, params)
        if declared["layout"] == "files":
            yield f"layout of set {declared['name']} is 'files', expected folders or dated_folders; each backup is a folder of its own."

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List the folders; links to tablespaces belong to a backup."""
        listing = list_backups(declared, around.zone)
        listing.strange = [text for text in listing.strange if "/pg_tblspc/" not in text]
        return listing

    def climb(self, climb: Climb) -> None:
        """See :class:`backup_adaptor.Adaptor`."""
        path = climb.backup.path
        tars = sorted(name for name in os.listdir(path) if _TAR.match(name))
        try:
            manifest = _manifest(path)
            if any(os.path.basename(file.path).startswith("INCREMENTAL.") for file in climb.backup.files):
                climb.say(1, "unknown", "it is an incremental backup; combine it with pg_combinebackup first, then verify that")
            elif tars:
                _from_tars(climb, path, tars, manifest)
            else:
                _from_folder(climb, path, manifest)
        except (DamagedError, UnsupportedError) as error:
            climb.say(1, "critical" if isinstance(error, DamagedError) else "unknown", str(error))
        except (MaintenanceError, OSError) as error:
            level = next(level for level in range(1, 6) if level == 5 or not any(said.level == level for said in climb.verdicts))
            climb.say(level, "unknown", str(error))


class _Manifest(t.NamedTuple):
    bytes: int
    files: int
    unchecked: int


def _manifest(path: str) -> _Manifest:
    try:
        with open_regular(os.path.join(path, MANIFEST)) as source:
            document = json.load(source)
        files = document["Files"]
        unchecked = sum(1 for file in files if file["Size"] and not file.get("Checksum"))
        return _Manifest(sum(int(file["Size"]) for file in files), len(files), unchecked)
    except FileNotFoundError:
        raise DamagedError("half written", f"{path} has no {MANIFEST}: pg_basebackup did not end, or made none") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError("damaged", f"{path}/{MANIFEST} cannot be read ({clean(str(error), 100)})") from None


def _from_folder(climb: Climb, path: str, manifest: _Manifest) -> None:
    try:
        major = physical.major_of(path)
    except MaintenanceError as error:
        climb.say(1, "critical", str(error))
        return
    _verify(climb, path, major, manifest)
    if climb.level < 3 or not climb.stands(2):
        return
    with _room(climb, manifest), scratch_cluster(climb.scratch.path, major, _USER) as cluster:
        started = time.monotonic()
        physical.copy_tree(path, cluster, os.path.join(cluster.folder, "spaces"))
        climb.restore_seconds = time.monotonic() - started
        physical.prove_running(cluster, climb)


def _from_tars(climb: Climb, path: str, tars: t.Sequence[str], manifest: _Manifest) -> None:
    base = next((name for name in tars if name.startswith("base.")), "")
    if not base:
        climb.say(1, "critical", f"{path} has no base.tar")
        return
    major = _major_in(os.path.join(path, base))
    with _room(climb, manifest), scratch_cluster(climb.scratch.path, major, _USER) as cluster:
        started = time.monotonic()
        for name in tars:
            _extract(os.path.join(path, name), _place(name, cluster))
        _link_spaces(cluster, path)
        climb.restore_seconds = time.monotonic() - started
        _verify(climb, cluster.data, major, manifest)
        if climb.level >= 3 and climb.stands(2):
            # Verified, but not followed: it leads to the source's own folders.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(cluster.data, "tablespace_map"))
            physical.prove_running(cluster, climb)


@contextlib.contextmanager
def _room(climb: Climb, manifest: _Manifest) -> t.Iterator[None]:
    status = os.statvfs(climb.scratch.path)
    free = status.f_bavail * status.f_frsize - _RESERVE_BYTES
    if manifest.bytes > free:
        raise MaintenanceError(f"{climb.scratch.path} has {human_bytes(free)} to spare, restoring needs {human_bytes(manifest.bytes)}")
    yield


def _major_in(path: str) -> int:
    with one_pass(path) as reading:
        for member in tar_members(reading.reader):
            data = reading.reader.read(member.size) if member.name.strip("./") == "PG_VERSION" else b""
            if data:
                return int(data.split()[0].split(b".")[0])
            reading.reader.seek(reading.reader.tell() + member.size)
    raise DamagedError("wrong content", f"{path} holds no PG_VERSION: it is no base backup of PostgreSQL")


def _place(name: str, cluster: Cluster) -> str:
    part = name.split(".")[0]
    if part == "base":
        return cluster.data
    return os.path.join(cluster.data, "pg_wal") if part == "pg_wal" else os.path.join(cluster.folder, "spaces", part)


def _extract(path: str, folder: str) -> None:
    """Unpack regular files and folders; links are ours to make."""
    with one_pass(path) as reading:
        for member in tar_members(reading.reader):
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if ".." in parts:
                raise DamagedError("damaged", f"{path} has a member that leads outside of it: {member.name!r}")
            place = os.path.join(folder, *parts)
            if member.isdir():
                os.makedirs(place, mode=0o700, exist_ok=True)
            elif member.isreg():
                os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
                written = 0
                with open(place, "wb") as target:
                    for piece in reading.reader.pieces(member.size):
                        written += target.write(piece)
                if written < member.size:
                    raise DamagedError("half written", f"{path} ends inside {member.name!r}: it is cut off")
        reading.finish()


def _link_spaces(cluster: Cluster, path: str) -> None:
    """Let each tablespace be found where it was unpacked, and nowhere else."""
    spaces = os.path.join(cluster.folder, "spaces")
    for name in os.listdir(spaces) if os.path.isdir(spaces) else ():
        link = os.path.join(cluster.data, "pg_tblspc", name)
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
            os.symlink(os.path.join(spaces, name), link)
    if not os.path.lexists(os.path.join(cluster.data, MANIFEST)):
        with open_regular(os.path.join(path, MANIFEST)) as source, open(os.path.join(cluster.data, MANIFEST), "wb") as target:
            target.write(source.read())


def _verify(climb: Climb, data: str, major: int, manifest: _Manifest) -> None:
    """Rung 1: every file there in its size. Rung 2: every byte against its checksum, the write-ahead log parsed."""
    program = postgresql_programs.find_program("pg_verifybackup", major)
    climb.verdicts += _asked([program, "--skip-checksums", "--no-parse-wal", data], 1, f"{manifest.files} files in their sizes")
    climb.verdicts += _identity(climb, data, major)
    if climb.level < 2 or not climb.stands(1):
        return
    if manifest.unchecked:
        climb.say(2, "unknown", f"its manifest holds no checksum for {manifest.unchecked} files, so nothing can be compared")
        return
    started = time.monotonic()
    climb.verdicts += _asked([program, data], 2, f"{human_bytes(manifest.bytes)} agree with the manifest")
    climb.read_seconds = time.monotonic() - started
    climb.content_bytes = manifest.bytes
    climb.basis.add(MANIFEST)


def _asked(argv: t.Sequence[str], level: int, good: str) -> list[Verdict]:
    started = time.monotonic()
    ran = postgresql_programs.run_program([argv[0], "--exit-on-error", *argv[1:]], timeout=14400)
    if ran.rc == 0 and _VERIFIED in ran.stdout:
        return [Verdict(level, "ok", f"pg_verifybackup: {good}, in {human_seconds(time.monotonic() - started)}")]
    said = [line for line in (ran.stderr or ran.stdout).splitlines() if "error:" in line] or [ran.why()]
    if "Permission denied" in said[0]:
        return [Verdict(level, "unknown", clean(said[0], 300))]
    return [Verdict(level, "critical", clean(line, 300)) for line in said[:10]]


def _identity(climb: Climb, data: str, major: int) -> list[Verdict]:
    wanted = (climb.declared["repository"] or {}).get("id", "")
    if not wanted:
        return []
    found = physical.control_data(data, major).get("Database system identifier", "")
    if found == wanted:
        return []
    return [Verdict(1, "critical", f"it is a backup of another cluster: system identifier {found}, expected {wanted}")]
