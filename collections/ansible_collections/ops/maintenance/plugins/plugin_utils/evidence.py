# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One archive that proves a run: journal, reports, waivers in force, and a manifest with the checksum of each.

The same run makes the same bytes. Whoever has the archive alone can see whether anything in it was changed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import open_regular

from . import report, waivers
from .journal import Journal, read_journal
from .redact import redact
from .store import Store

SCHEMA = "ops.maintenance.evidence/1"
MANIFEST, SUMS, JOURNAL, WAIVERS = "manifest.json", "SHA256SUMS", "journal.jsonl", "waivers.json"
LIMIT_BYTES = 512 * 1024 * 1024

_PARTS = {JOURNAL, WAIVERS, *(f"report.{suffix}" for suffix, _render in report.FORMATS.values())}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")


def files_of(path: str, store_url: str, waiver_file: str) -> dict[str, bytes]:
    """Return everything that an archive of a run holds, by name.

    :param path: the journal.
    :raises MaintenanceError: the journal is none, or one of the parts cannot be made.
    """
    journal = read_journal(path)
    with open_regular(path) as source:
        raw = source.read()
    last = datetime.fromisoformat(str(journal.lines[-1]["time"]))
    made = report.report_of(path, store_url, running=journal.state == "running", generated=last)
    files = {JOURNAL: raw, WAIVERS: _json(_waivers(journal, waiver_file))}
    files |= {f"report.{suffix}": render(made).encode("utf-8", "backslashreplace") for suffix, render in report.FORMATS.values()}
    files[MANIFEST] = _json(_manifest(journal, made.verdict, files))
    files[SUMS] = "".join(f"{_sum(content)}  {name}\n" for name, content in sorted(files.items())).encode()
    return files


def _waivers(journal: Journal, path: str) -> dict[str, Any]:
    """Return the waivers in force on the day of the run, as its file has them now, and those that the run applied."""
    day = date.fromisoformat(str(journal.lines[0].get("started", ""))[:10])
    in_force, faults = waivers.load(path, day) if path else ([], [])
    applied = [
        {"id": found["id"], "subject": found["subject"], **found["waived"]}
        for line in journal.lines
        for found in line.get("findings") or []
        if isinstance(found.get("waived"), dict)
    ]
    listed = [{**asdict(waiver), "expires": waiver.expires.isoformat()} for waiver in in_force]
    return {"in_force": redact(listed), "faults": redact([fault["summary"] for fault in faults]), "applied": redact(applied)}


def _manifest(journal: Journal, verdict: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    first = journal.lines[0]
    return {
        "schema": SCHEMA,
        "run_id": journal.run_id,
        "cadence": first.get("cadence"),
        "started": first.get("started"),
        "until": journal.lines[-1]["time"],
        "state": journal.state,
        "verdict": verdict,
        "journal_lines": len(journal.lines),
        "journal_last_hash": journal.last_hash,
        "signatures": [
            {name: line.get(name) for name in ("duty", "system", "signed_by", "signed_at")}
            for line in journal.lines
            if line["kind"] == "signature"
        ],
        "files": [{"name": name, "bytes": len(content), "sha256": _sum(content)} for name, content in sorted(files.items())],
    }


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def pack(run_id: str, files: Mapping[str, bytes]) -> bytes:
    """Make the archive: sorted names, no owner, the time of nothing but the run, so that the same files are the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{run_id}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, 0
            archive.addfile(member, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as target:
        target.write(plain.getvalue())
    return packed.getvalue()


def unpack(path: str) -> tuple[str, dict[str, bytes]]:
    """Read an archive into memory; nothing of it is written anywhere.

    :raises MaintenanceError: it is no archive of evidence, or too large for one.
    """
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    try:
        with open_regular(path) as source, gzip.GzipFile(fileobj=source) as packed:
            content = packed.read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise MaintenanceError(f"{path} holds more than {LIMIT_BYTES} bytes, expected the evidence of a run; look what it is.")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                folder, _slash, name = member.name.partition("/")
                if not member.isreg() or member.issparse() or not _PLAIN.fullmatch(folder) or not _PLAIN.fullmatch(name) or name in files:
                    raise MaintenanceError(f"{path} holds {member.name!r}, expected each file of one run once; it is not to be trusted.")
                folders.add(folder)
                files[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except FileNotFoundError:
        raise MaintenanceError(f"There is no archive {path}; correct the path.") from None
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise MaintenanceError(f"{path} cannot be read as an archive of evidence: {error}; it is damaged, or something else.") from error
    if len(folders) != 1:
        raise MaintenanceError(f"{path} holds {len(folders)} runs, expected one; it is not to be trusted.")
    return folders.pop(), files


def faults_of(path: str, store_url: str = "", journal_of: Callable[[str], str] = lambda _run_id: "") -> tuple[dict[str, Any], list[str]]:
    """Return the manifest of an archive and everything that does not fit: sums, files, the chain of the journal, journal and store of the run.

    :param journal_of: returns where the journal of a run lies on this machine, empty when it does not.

    :raises MaintenanceError: it is no archive of evidence.
    """
    run_id, files = unpack(path)
    try:
        manifest = json.loads(files[MANIFEST])
        listed = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
        if manifest["schema"] != SCHEMA or manifest["run_id"] != run_id:
            raise ValueError(run_id)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise MaintenanceError(f"{path} has no manifest of {SCHEMA} for {run_id}; it is not to be trusted.") from error
    there = {name: _sum(content) for name, content in files.items() if name not in (MANIFEST, SUMS)}
    faults = [f"{name} is missing" for name in sorted((set(listed) | _PARTS) - set(there))]
    faults += [f"{name} is not in the manifest" for name in sorted(set(there) - set(listed))]
    faults += [f"{name} was changed" for name in sorted(set(there) & set(listed)) if there[name] != listed[name]]
    sums = "".join(f"{_sum(content)}  {name}\n" for name, content in sorted(files.items()) if name != SUMS).encode()
    faults += [] if files.get(SUMS) == sums else [f"{SUMS} does not fit the files"]
    if JOURNAL in files:
        faults += _journal_faults(files[JOURNAL], manifest, store_url, journal_of(run_id))
    return manifest, faults


def _is_beginning(journal: Journal, own: Journal) -> bool:
    """Whether a journal is the run's own, up to where that was when it was packed; each hash stands for all lines before."""
    count = len(journal.lines)
    return 0 < count <= len(own.lines) and own.lines[count - 1].get("hash") == journal.last_hash


def _journal_faults(raw: bytes, manifest: Mapping[str, Any], store_url: str, own: str) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = Path(folder) / JOURNAL
        path.write_bytes(raw)
        journal = read_journal(str(path))
    faults = [f"line {journal.broken_at} of the journal does not fit: {journal.broken_why}"] if journal.broken_at else []
    if (journal.last_hash, journal.run_id) != (manifest.get("journal_last_hash"), manifest["run_id"]):
        faults.append("the journal is not the one that the manifest names")
    if manifest.get("state") != journal.state and (journal.end is not None or manifest.get("state") in ("completed", "failed")):
        faults.append("the manifest tells of another end of the run than the journal")
    if own and not _is_beginning(journal, read_journal(own)):
        faults.append(f"the journal is not the one that lies in {own}")
    if store_url and journal.state != "running":
        with Store(store_url) as store:
            faults += [said] if (said := store.mismatch(journal.lines)) and journal.end is not None else []
    return faults
