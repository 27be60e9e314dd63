# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of PostgreSQL databases: custom, directory, tar and plain format, compressed and encrypted ones too."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from . import backup_pg_archive as archive
from . import backup_pg_compare as compare
from . import backup_pg_restore as restoring
from . import postgresql
from .backup_adaptor import Around, Climb
from .backup_kinds import Target, Verdict
from .backup_pg_restore import Place, RestoreError
from .backup_pg_text import Text
from .backup_proof import FileProof, Manifest, checksum, is_payload, prove_file, read_manifest, unreadable, whole_verdicts
from .backup_sets import Backup, Declared, File, Listing, list_backups
from .backup_stream import DamagedError, OnePass, UnsupportedError, one_pass
from .errors import MaintenanceError
from .judge import human_bytes, human_seconds
from .postgresql import Server

_PEEK = 65536
# How much larger the text of a packed dump is, for the check of disk space before it is known.
_PACKED = 8
_ENGINE_USER = "postgres"


class Postgresql:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = {
        "database": {"type": "str", "default": ""},
        "source_server": {"type": "str", "default": ""},
        "restore_into": {"type": "str", "default": ""},
        "restore_database": {"type": "str", "default": ""},
        "restore_jobs": {"type": "int", "default": 2},
        "minimum_rows": {"type": "dict", "default": {}},
    }
    needs_root = True

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
        """See :class:`backup_adaptor.Adaptor`."""
        names = [server["name"] for server in params["servers"]]
        of_set = f"of set {declared['name']}"
        for option in ("source_server", "restore_into"):
            if declared[option] and declared[option] not in names:
                yield f"{option} {of_set} is {declared[option]!r}, expected one of the declared servers ({', '.join(names) or 'none'}); declare it."
        if declared["source_server"] and not declared["database"]:
            yield f"database {of_set} is empty, expected the name of the database on {declared['source_server']}; give it."
        if declared["restore_database"] and not declared["restore_into"]:
            yield f"restore_database {of_set} is given without restore_into; name the server, or leave both out."
        if declared["restore_database"] and declared["restore_database"] == declared["database"]:
            yield f"restore_database {of_set} is the name of the source itself, expected another; nothing is ever restored over it."
        if declared["restore_jobs"] < 1:
            yield f"restore_jobs {of_set} is {declared['restore_jobs']}, expected 1 or more; correct it."
        for name, floor in declared["minimum_rows"].items():
            if not str(floor).isdigit():
                yield f"minimum_rows of {name!r} {of_set} is {floor!r}, expected a number of rows; correct it."

    def listed(self, declared: Declared, around: Around) -> Listing:
        """See :class:`backup_adaptor.Adaptor`."""
        return list_backups(declared, around.zone)

    def climb(self, climb: Climb) -> None:
        """See :class:`backup_adaptor.Adaptor`."""
        declared, backup = climb.declared, climb.backup
        manifest = read_manifest(declared, backup)
        dumps, rest = _dumps_of(declared, backup, manifest)
        if not dumps:
            climb.say(1, "critical", f"no file in {backup.path} matches {declared['pattern']!r}")
        climb.verdicts += [verdict for verdict in whole_verdicts(declared, backup, manifest) if "manifest lists" in verdict.text]
        for file in rest:
            _note(prove_file(file, declared, climb.scratch, climb.known, manifest, climb.around.now), climb)
        for path, files in dumps:
            Attempt(path, files, manifest, climb).run()


def _dumps_of(declared: Declared, backup: Backup, manifest: Manifest | None) -> tuple[list[tuple[str, list[File]]], list[File]]:
    """Tell the dumps of a backup (single files, and folders in directory format) from what else lies with them."""
    dumps: list[tuple[str, list[File]]] = []
    rest = []
    folders: dict[str, list[File]] = {}
    for file in backup.files:
        if manifest is not None and file.path == manifest.path:
            continue
        folder = os.path.dirname(file.path)
        if declared["layout"] != "files" and archive.is_directory_dump(folder):
            folders.setdefault(folder, []).append(file)
        elif declared["layout"] == "folders" or is_payload(file, declared):
            dumps.append((file.path, [file]))
        else:
            rest.append(file)
    return [*dumps, *folders.items()], rest


def _note(item: FileProof, climb: Climb) -> None:
    climb.verdicts += item.verdicts
    if item.digest:
        climb.digests[item.file.path] = item.digest
    if item.basis:
        climb.basis.add(item.basis)


class Attempt:
    """One dump on its way up.

    :param path: its file, or its folder in directory format.
    """

    def __init__(self, path: str, files: t.Sequence[File], manifest: Manifest | None, climb: Climb) -> None:
        self.path = path
        self.files = files
        self.climb = climb
        self.declared = climb.declared
        self.form = archive.DIRECTORY if os.path.isdir(path) else ""
        self.text = Text(self._on_role)
        self._manifest = manifest
        self._place: Place | None = None
        self._refused: RestoreError | None = None
        self._stack = contextlib.ExitStack()
        self._restorable = path
        self._seconds: float | None = None

    def run(self) -> None:
        """Climb; what was made for it is gone afterwards."""
        started = time.monotonic()
        with self._stack:
            if not self._read():
                return
            if self.form != archive.PLAIN:
                self.climb.read_seconds = (self.climb.read_seconds or 0.0) + time.monotonic() - started
            self._judge_text()
            self.climb.content_bytes = (self.climb.content_bytes or 0) + self.text.size
            if self.climb.level >= 3 and self.climb.stands(2):
                self._restored()
            if self.climb.level >= 4 and self.climb.stands(3):
                self._inspected()
            if self.climb.meanwhile and self._place is not None and self.climb.stands(4):
                self.climb.meanwhile(self._place)

    def say(self, level: int, state: str, text: str) -> None:
        """Note what a rung said of this dump."""
        self.climb.say(level, state, text)

    # -- rungs 1 and 2 --

    def _read(self) -> bool:
        """Read every byte once for checksum, structure and text; False when that failed."""
        try:
            for file in self.files:
                item = FileProof(file)
                with one_pass(file.path, self.declared["decrypt_command"]) as reading:
                    if self.form != archive.DIRECTORY:
                        self._one_file(reading)
                    item.digest = reading.finish()
                    item.seen.has_own_checksum = bool(reading.compression)
                item.verdicts.append(checksum(item, self.climb.known.get(file.path), self._manifest, self.declared))
                _note(item, self.climb)
            if self.form == archive.DIRECTORY:
                self._archive()
        except (DamagedError, UnsupportedError, OSError) as error:
            self.climb.verdicts.append(unreadable(self.path, error))
            return False
        return True

    def _one_file(self, reading: OnePass) -> None:
        first = reading.reader.peek(_PEEK)
        self.form = archive.format_of(first, self.path)
        is_packed = bool(reading.compression or reading.encryption)
        if self.form == archive.PLAIN:
            self._plain(reading, first, is_packed)
        elif not is_packed:
            self._archive(reading)
        elif self.climb.level >= 3:
            self._unpacked(reading)
        else:
            archive.read_archive(self.path, reading.reader, self.text)
            self.climb.notes.append("packed archive: its table of contents was not listed, all of it was read instead")

    def _archive(self, reading: OnePass | None = None) -> None:
        """List the table of contents (rung 1), then read all of the archive, which a listing does not (rung 2)."""
        contents = archive.contents_of(self._restorable)
        expected = self.declared["database"]
        if expected and contents.database and contents.database != expected:
            self.say(1, "critical", f"wrong database: the archive is of {contents.database!r}, expected {expected!r}")
        else:
            self.say(1, "ok", f"{self.form} format, {contents.entries} entries, made by pg_dump {contents.program_major}")
        try:
            archive.read_archive(self._restorable, reading.reader if reading else None, self.text)
        except DamagedError as error:
            if reading is None or not archive.is_out_of_order(error):
                self.say(2, "critical", f"{error.kind}: {error}")
                return
            self.text = Text(self._on_role)
            try:
                archive.read_archive(self._restorable, None, self.text)
            except DamagedError as again:
                self.say(2, "critical", f"{again.kind}: {again}")
                return
        self.text.server_major = self.text.server_major or contents.server_major
        self.text.program_major = self.text.program_major or contents.program_major
        if self.text.copies and self.text.copies != contents.data_tables:
            self.say(2, "critical", f"damaged: {self.text.copies} of {contents.data_tables} tables give rows")

    def _unpacked(self, reading: OnePass) -> None:
        """Unpack an archive that was packed as a whole into the scratch folder, for pg_restore wants to go back in it."""
        target = self._stack.enter_context(self.climb.scratch.target(sum(file.size for file in self.files), False))
        self._copy(target, reading)
        if target.problem:
            self._refused = RestoreError("unknown", target.problem)
            raise UnsupportedError(f"{self.path} could not be unpacked: {target.problem}")
        self._restorable = target.path_of("archive")
        self._archive()

    def _copy(self, target: Target, reading: OnePass) -> None:
        target.restore("archive", reading.reader.pieces(1 << 62))

    def _plain(self, reading: OnePass, first: bytes, is_packed: bool) -> None:
        """Read the text, and let psql work it in at the same time where it is to be restored."""
        head = Text()
        head.feed(first)
        psql = self._psql(head, is_packed) if self.climb.level >= 3 else None
        started = time.monotonic()
        for piece in reading.reader.pieces(1 << 62):
            self.text.feed(bytes(piece))
            if psql is not None and self.text.commands:
                psql.close()
                psql = None
            if psql is not None:
                psql.write(piece)
        if psql is not None:
            try:
                psql.finish()
                self._seconds = time.monotonic() - started
            except RestoreError as error:
                self._refused = error

    def _psql(self, head: Text, is_packed: bool) -> restoring.Psql | None:
        estimate = sum(file.size for file in self.files) * (_PACKED if is_packed else 1)
        if not self._find_place(head, estimate):
            return None
        try:
            psql = restoring.Psql(t.cast("Place", self._place))
        except (MaintenanceError, OSError) as error:
            self._refused = RestoreError("unknown", str(error))
            return None
        self._stack.callback(psql.close)
        return psql

    def _judge_text(self) -> None:
        """Say what the text showed: of a plain dump that is rung 1, of an archive it came of reading all of it."""
        is_plain = self.form == archive.PLAIN
        if not is_plain and not self.climb.stands(2):
            return
        kind, problem = self.text.problem()
        rung = 1 if is_plain else 2
        if problem:
            self.say(rung, "critical", f"{kind}: {self.path}: {problem}")
        missing = [name for name in self.declared["required_tables"] if compare.table_named(name, self._tables()) is None]
        if missing:
            self.say(1, "critical", f"wrong database: {self.path} lacks the tables {', '.join(missing)}")
        if is_plain:
            if self.text.commands:
                self.say(1, "warning", f"it holds psql commands that pg_dump does not write ({', '.join(sorted(set(self.text.commands)))})")
            rows = sum(self.text.rows.values())
            self.say(1, "ok", f"plain format with its end mark, {len(self.text.tables)} tables, {rows} rows, {human_bytes(self.text.size)}")

    def _tables(self) -> set[compare.Table]:
        return {(parts[0], parts[1]) if len(parts) == 2 else ("public", parts[0]) for parts in self.text.tables if len(parts) in (1, 2)}

    # -- rung 3 --

    def _on_role(self, name: str) -> None:
        if self._place is not None:
            self._place.make_role(name)

    def _server(self, option: str) -> Server | None:
        name = self.declared[option]
        return next((server for server in self.climb.around.params["servers"] if server["name"] == name), None) if name else None

    def _find_place(self, head: Text, text_bytes: float) -> bool:
        """Make the database to restore into, after a look at the room there is."""
        try:
            self._place = self._stack.enter_context(self._make_place(head, text_bytes))
        except RestoreError as error:
            self._refused = error
        except MaintenanceError as error:
            self._refused = RestoreError("critical", f"refused: {error}")
        return self._place is not None

    def _make_place(self, head: Text, text_bytes: float) -> contextlib.AbstractContextManager[Place]:
        if head.is_cluster:
            raise RestoreError("unknown", "a dump of a whole cluster (pg_dumpall) is not restored here; dump each database with pg_dump")
        server = self._server("restore_into")
        needed = restoring.needed_bytes(text_bytes)
        if server is not None:
            if head.creates_database or head.connects:
                raise RestoreError(
                    "unknown", "the dump was made with --create, so it names its own database; it is not let near a server that is in use"
                )
            return restoring.scratch_database(
                server, head.encoding, needed, self.declared["restore_database"], self._server("source_server")
            )
        free = _free_bytes(self.climb.scratch.path)
        if needed > free:
            raise RestoreError(
                "unknown", f"{self.climb.scratch.path} has {human_bytes(free)} to spare, restoring needs about {human_bytes(needed)}"
            )
        major = restoring.major_for(head.server_major, head.program_major)
        return restoring.throw_away(self.climb.scratch.path, major, head.encoding, _ENGINE_USER, head.creates_database)

    def _restored(self) -> None:
        if self.form != archive.PLAIN and self._find_place(self.text, self.text.size):
            self._run_pg_restore(t.cast("Place", self._place))
        if self._refused is None and self.text.commands:
            self._refused = RestoreError(
                "unknown", f"it was not restored, for it holds psql commands ({', '.join(sorted(set(self.text.commands)))})"
            )
        if self._refused is not None or self._seconds is None:
            state, said = (self._refused.state, str(self._refused)) if self._refused else ("unknown", "it was not restored")
            self.say(3, state, said)
            return
        self.climb.restore_seconds = (self.climb.restore_seconds or 0.0) + self._seconds
        self.say(3, "ok", f"{human_bytes(self.text.size)} of SQL restored in {human_seconds(self._seconds)}")

    def _run_pg_restore(self, place: Place) -> None:
        for role in sorted(self.text.roles):
            place.make_role(role)
        started = time.monotonic()
        try:
            restoring.restore_archive(self._restorable, self.form, place, self.declared["restore_jobs"])
            self._seconds = time.monotonic() - started
        except RestoreError as error:
            self._refused = error
        except (MaintenanceError, OSError) as error:
            self._refused = RestoreError("unknown", str(error))

    # -- rungs 4 and 5 --

    def _inspected(self) -> None:
        place = t.cast("Place", self._place)
        try:
            place.database = place.database or restoring.only_database(place)
            with place.session() as session:
                self.climb.verdicts += compare.sound(session, self.declared, self.text.rows, place.major)
                if self.climb.level >= 5 and self.climb.stands(4):
                    self.climb.verdicts += self._compared(session)
        except MaintenanceError as error:
            self.say(4 if self.climb.level == 4 or not self.climb.stands(4) else 5, "unknown", str(error))

    def _compared(self, session: postgresql.Session) -> list[Verdict]:
        declared, around = self.declared, self.climb.around
        if not (declared["count_tables"] or declared["sentinel"] or declared["minimum_rows"]):
            return [Verdict(5, "unknown", "nothing is declared to compare (count_tables, minimum_rows, sentinel)")]
        try:
            kept = compare.measured(session, declared)
        except MaintenanceError as error:
            return [Verdict(5, "critical", str(error))]
        live, source = None, self._server("source_server")
        if source is not None:
            try:
                with postgresql.connect(source, declared["database"], read_only=True, statement_timeout_seconds=900.0) as other:
                    live = compare.measured(other, declared)
            except MaintenanceError as error:
                return [Verdict(5, "unknown", f"the source could not be asked: {error}")]
        verdicts, behind = compare.compared(kept, live, declared, self.text.roles, around.now, around.zone)
        if behind is not None:
            self.climb.rpo_seconds = max(self.climb.rpo_seconds or 0.0, behind)
        return verdicts


def _free_bytes(path: str) -> int:
    status = os.statvfs(path)
    return int(status.f_bavail * status.f_frsize)
