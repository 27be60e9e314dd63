# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a run: JSON lines, each on disk before the run goes on, chained by hashes. See docs/journal.md."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import fsync_folder, open_regular
from ansible_collections.ops.maintenance.plugins.module_utils.record import clean, plain
from ansible_collections.ops.maintenance.plugins.plugin_utils.control import process_started
from ansible_collections.ops.maintenance.plugins.plugin_utils.redact import redact

SCHEMA = "ops.maintenance.record/1"
KINDS = ("run", "plan", "record", "step", "outcome", "signature", "end")
GENESIS = "0" * 64
LINE_LIMIT_BYTES = 64 * 1024
_FINDINGS_LIMIT_BYTES = 1024 * 1024
_TEXT_LIMIT = 4000
_WORST_FIRST = ("critical", "warning", "unknown", "ok")
_RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
_STAMP = re.compile(r"-(\d{8}T\d{6}Z)-[0-9a-f]{4}$")
_NOT_NAME = re.compile(r"[^a-z0-9_]+")

Line = dict[str, Any]


def new_run_id(cadence: str, now: datetime) -> str:
    """Make an id such as ``weekly-20261121T020000Z-3fa9``."""
    name = _NOT_NAME.sub("_", cadence.lower()).strip("_")[:40] or "run"
    return f"{name}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def check_run_id(run_id: str) -> str:
    """Return an id that was handed in when it can be a file name.

    :raises InputError: it cannot.
    """
    if not _RUN_ID.match(run_id):
        expected = "at most 100 letters, digits, dots, dashes and underscores"
        raise InputError.of("run id", run_id, expected, "leave it out to have one made")
    return run_id


def canonical(value: Any) -> bytes:
    """Return the form of a value that is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def seal(line: Line, previous: str) -> tuple[bytes, str]:
    """Chain a line to the one before.

    :returns: the line as it is written, without its line break, and its hash.
    """
    body = {**line, "previous": previous}
    digest = hashlib.sha256(canonical(body)).hexdigest()
    return canonical({**body, "hash": digest}), digest


class JournalWriter:
    """Appends lines to a new file; each is on disk when :meth:`append` returns.

    :param path: must not exist yet, so two runs can never share a chain.
    """

    def __init__(self, path: str, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self.seq = 0
        self._previous = GENESIS
        self._size = 0
        folder = os.path.dirname(path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fsync_folder(folder)
        except FileExistsError:
            raise MaintenanceError(f"The journal {path} exists already; give every run its own id.") from None
        except OSError as error:
            raise MaintenanceError(
                f"The journal {path} cannot be created ({error.strerror}); correct the folder or name another one "
                "with OPS_MAINTENANCE_JOURNAL_DIR."
            ) from error

    def append(self, kind: str, fields: Line, now: datetime | None = None) -> Line:
        """Write one line and wait until it is on disk.

        :raises MaintenanceError: it could not be written; the file ends with the line before, as if nothing happened.
        """
        line = {
            **bounded(redact(plain(fields, _TEXT_LIMIT))),
            "schema": SCHEMA,
            "kind": kind,
            "run_id": self.run_id,
            "seq": self.seq + 1,
            "time": (now or datetime.now(UTC)).astimezone(UTC).isoformat(),
        }
        data, digest = seal(line, self._previous)
        self._write(data + b"\n")
        self.seq += 1
        self._previous = digest
        return {**line, "hash": digest}

    def _write(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise MaintenanceError(f"The journal {self.path} could not be written ({error.strerror}).") from error
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def bounded(line: Line, limit: int = LINE_LIMIT_BYTES) -> Line:
    """Shorten a line that is too long; findings go last, the worst of them never.

    What was left out is named in ``shortened``, and findings that were left out leave one that says so.
    """
    if len(canonical(line)) <= limit:
        return line
    line = dict(line)
    shortened: list[str] = []
    for shorten in (_without_states, _without_evidence, _with_few("metrics"), _with_few("actions"), _with_short_texts):
        said = shorten(line)
        if said:
            shortened.append(said)
            line["shortened"] = shortened
        if len(canonical(line)) <= limit:
            return line
    # findings are kept beyond the limit of a line, up to a limit of their own
    if len(canonical(line)) > _FINDINGS_LIMIT_BYTES:
        shortened.append(_with_few_findings(line))
    return line


def _without_states(line: Line) -> str:
    """Empty ``before`` and ``after``, of the record and of its actions."""
    for part in [line, *(dict_ for dict_ in line.get("actions", []) if isinstance(dict_, dict))]:
        part.update({key: {} for key in ("before", "after") if part.get(key)})
    return "before and after left out"


def _without_evidence(line: Line) -> str:
    count = 0
    for finding in line.get("findings", []):
        count += len(finding.get("evidence", [])[3:])
        finding["evidence"] = finding.get("evidence", [])[:3]
    return f"{count} lines of evidence left out" if count else ""


def _with_few(name: str, keep: int = 40) -> Any:
    def shorten(line: Line) -> str:
        items = line.get(name) or []
        if len(items) <= keep:
            return ""
        line[name] = items[:keep]
        return f"{len(items) - keep} of {len(items)} {name} left out"

    return shorten


def _with_short_texts(line: Line) -> str:
    for key, value in line.items():
        if key != "findings":
            line[key] = _short(value)
    return "long texts and lists shortened"


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value, 300)
    if isinstance(value, dict):
        return {key: _short(item) for key, item in list(value.items())[:100]}
    return [_short(item) for item in value[:100]] if isinstance(value, list) else value


def _with_few_findings(line: Line) -> str:
    """Keep the worst findings that fit."""
    kept: list[Line] = []
    room = _FINDINGS_LIMIT_BYTES - LINE_LIMIT_BYTES
    for item in sorted(line["findings"], key=lambda item: _WORST_FIRST.index(item["state"])):
        room -= len(canonical(item))
        if room < 0:
            break
        kept.append(item)
    summary = f"{len(line['findings']) - len(kept)} findings did not fit into a line of the journal; the worst are kept."
    advice = "Look at the host itself, or split what one task looks at."
    line["findings"] = [*kept, finding("journal.shortened", "unknown", str(line.get("operation", "")), summary, advice)]
    return summary


def finding(found_id: str, state: str, subject: str, summary: str, advice: str) -> Line:
    """Make a finding of the journal itself."""
    return {
        "id": found_id,
        "state": state,
        "subject": clean(subject),
        "summary": clean(summary),
        "value": None,
        "unit": "",
        "threshold": "",
        "basis": "exact",
        "as_of": "",
        "not_covered": "",
        "advice": advice,
        "evidence": [],
    }


@dataclass
class Journal:
    """A journal as it was read.

    :param lines: every line that could be read, in order.
    :param broken_at: number of the first line whose chain does not fit (0: none), with ``broken_why``.
    :param torn: the last line was cut off while it was being written; it is not among ``lines``.
    :param end: the line that closed the run, ``None`` without one. Only signatures may follow it.
    """

    path: str
    lines: list[Line] = field(default_factory=list)
    broken_at: int = 0
    broken_why: str = ""
    torn: bool = False
    last_hash: str = GENESIS
    end: Line | None = None

    @property
    def run_id(self) -> str:
        """Id of the run, from its first line."""
        return str(self.lines[0].get("run_id", "")) if self.lines else ""

    @property
    def complete(self) -> bool:
        """Whether the run came to its end, and the chain is whole."""
        return self.end is not None and not self.torn and not self.broken_at

    @property
    def state(self) -> str:
        """``completed``, ``failed``, ``running``, or ``interrupted``."""
        if self.end is not None:
            return str(self.end.get("status", "failed"))
        return "running" if self._is_alive() else "interrupted"

    def _is_alive(self) -> bool:
        """Whether the process of this run still runs on this machine."""
        control = self.lines[0].get("control") if self.lines else None
        if not isinstance(control, dict) or control.get("host") != socket.gethostname():
            return False
        try:
            return process_started(int(control["pid"])) == str(control["pid_started"]) != ""
        except (KeyError, TypeError, ValueError):
            return False

    @property
    def interrupted(self) -> dict[str, str] | None:
        """Up to where a run came that has no end: ``when``, and ``where`` in words. ``None`` where it has one."""
        if self.end is not None:
            return None
        if not self.lines:
            return {"when": "", "where": "before anything was recorded", "seq": "0"}
        last = next((line for line in reversed(self.lines) if line["kind"] != "signature"), self.lines[-1])
        step = " ".join(str(last[key]) for key in ("role", "task") if last.get(key))
        where = f"{last['kind']} {step}".strip() + (f" on {last['host']}" if last.get("host") else "")
        return {"when": str(last.get("time", "")), "where": where, "seq": str(last.get("seq", ""))}


def read_journal(path: str) -> Journal:
    """Read a journal, whatever state it is in.

    :raises MaintenanceError: there is no such file, it cannot be read, or it is not a journal at all.
    """
    journal = Journal(path)
    try:
        with open_regular(path) as source:
            for number, raw in enumerate(source, 1):
                _take(journal, number, raw)
    except FileNotFoundError:
        raise MaintenanceError(f"There is no journal {path}; give the path of a .jsonl file of a run.") from None
    except OSError as error:
        raise MaintenanceError(f"The journal {path} cannot be read: {error.strerror}.") from error
    if journal.broken_at and not journal.lines:
        raise MaintenanceError(f"{path} is not a journal of a maintenance run; give the path of a .jsonl file of a run.")
    return journal


def _take(journal: Journal, number: int, raw: bytes) -> None:
    if not raw.endswith(b"\n"):
        journal.torn = True
        return
    raw = raw[:-1]
    try:
        line = json.loads(raw)
        digest = str(line["hash"])
        journal.broken_why = journal.broken_why or _misfit(journal, line, raw, digest)
        if line["kind"] not in KINDS:
            raise ValueError(line["kind"])
    except (ValueError, KeyError, TypeError, RecursionError):
        journal.broken_why = journal.broken_why or "it is not a line of a journal"
    else:
        journal.lines.append(line)
        journal.last_hash = digest
        if line["kind"] == "end":
            journal.end = line
    if journal.broken_why and not journal.broken_at:
        journal.broken_at = number


def _misfit(journal: Journal, line: Line, raw: bytes, digest: str) -> str:
    """Say what does not fit in a line's chain, empty when all fits.

    The bytes themselves are hashed: they are canonical already, and an edit that JSON would not show is one, too.
    """
    last = journal.lines[-1] if journal.lines else None
    if line["previous"] != journal.last_hash or line["seq"] != (last["seq"] + 1 if last else 1):
        return "a line before it is missing or was changed"
    if last is not None and (line["run_id"] != last["run_id"] or (journal.end is not None and line["kind"] != "signature")):
        return "it does not belong to this run"
    if hashlib.sha256(raw.replace(b'"hash":"%s",' % digest.encode(), b"", 1)).hexdigest() != digest:
        return "its content was changed after it was written"
    return ""


def journals(folder: str) -> Iterator[Path]:
    """Yield the journals of a folder, newest first by the start in their names."""

    def started(path: Path) -> tuple[str, float]:
        stamp = _STAMP.search(path.stem)
        changed = path.stat().st_mtime
        return stamp.group(1) if stamp else f"{datetime.fromtimestamp(changed, UTC):%Y%m%dT%H%M%SZ}", changed

    files = [path for path in Path(folder).glob("*.jsonl") if path.is_file() and not path.is_symlink()]
    yield from sorted(files, key=started, reverse=True)


def latest_journal(folder: str, cadence: str = "") -> str | None:
    """Return the path of the newest journal (of a cadence), ``None`` when there is none."""
    return next((str(path) for path in journals(folder) if not cadence or path.stem.startswith(f"{cadence}-")), None)


def append_signature(path: str, fields: Line, now: datetime) -> Line:
    """Add a person's signature to the journal of a run that is over; the chain goes on.

    :raises MaintenanceError: the run still goes on, or the journal is damaged; nothing was written.
    """
    with open_locked(path) as target:
        journal = read_journal(path)
        if journal.state == "running":
            raise MaintenanceError(f"The run of {path} is still going; sign it when it is done.")
        if journal.broken_at or journal.torn:
            why = f"line {journal.broken_at}: {journal.broken_why}" if journal.broken_at else "its last line was cut off"
            raise MaintenanceError(f"The journal {path} is damaged ({why}), so it cannot be signed; keep it as it is and find out why.")
        line = {
            **bounded(redact(plain(fields, _TEXT_LIMIT))),
            "schema": SCHEMA,
            "kind": "signature",
            "run_id": journal.run_id,
            "seq": len(journal.lines) + 1,
            "time": now.astimezone(UTC).isoformat(),
        }
        data, digest = seal(line, journal.last_hash)
        target.write(data + b"\n")
        target.flush()
        os.fsync(target.fileno())
    return {**line, "hash": digest}


@contextlib.contextmanager
def open_locked(path: str) -> Iterator[BinaryIO]:
    """Open a journal to append to it, one process at a time."""
    try:
        file_fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise MaintenanceError(f"The journal {path} cannot be opened: {error.strerror}.") from error
    with os.fdopen(file_fd, "ab") as target:
        fcntl.flock(target, fcntl.LOCK_EX)
        yield target
