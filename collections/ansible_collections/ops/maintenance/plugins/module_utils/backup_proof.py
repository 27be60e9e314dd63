# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Climb the ladder with one backup: the level that it reaches is the level at which it was proven."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import time
import typing as t
from dataclasses import dataclass, field

from . import held_folder
from .backup_kinds import KINDS, Seen, Target, Verdict
from .backup_sets import SIDECARS, Backup, Declared, File, matches
from .backup_stream import DamagedError, UnsupportedError, one_pass
from .errors import MaintenanceError
from .judge import human_bytes, human_seconds
from .paths import ensure_private_folder, open_regular
from .record import Finding, Metric

if t.TYPE_CHECKING:
    from .backup_adaptor import Adaptor, Climb

LEVELS = (
    "present, fresh, plausible size",
    "its own structure check",
    "every byte read against a checksum",
    "restored into a throw-away target",
    "opened and completely checked",
    "content compared with the source",
)
_IDS = ("", "backup.structure", "backup.checksum", "backup.restore", "backup.integrity", "backup.content")
_ADVICE = (
    "",
    "Do not rely on this backup: make a new one now and look why the job wrote this.",
    "Do not rely on this backup: make a new one now, and check the storage that it lies on.",
    "Give the scratch folder room (backup_verification_scratch) and verify again.",
    "Do not rely on this backup: make a new one now and check the source database too.",
    "Compare backup and source by hand before relying on it; correct the job or what is declared.",
)
_MANIFEST_LINE = re.compile(rb"^(\\?)([0-9a-fA-F]{64}) [ *](.+)$")
# One file that could not be looked at keeps the backup from this level, whatever the others say.
_WORST_FIRST = ("critical", "unknown", "warning")
_RESERVE_BYTES = 64 * 1024 * 1024
_NO_BASIS = "bytes that changed before this first look: no checksum was made with the backup"

Known = t.Mapping[str, t.Mapping[str, t.Any]]
"""What earlier runs noted of each file: sha256, size, mtime_ns, first_seen."""


@dataclass
class Proof:
    """How far one backup came."""

    reached: int = 0
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    basis: str = ""
    rpo_seconds: float | None = None
    rto_seconds: float | None = None


@dataclass
class FileProof:
    file: File
    verdicts: list[Verdict] = field(default_factory=list)
    digest: str = ""
    basis: str = ""
    seen: Seen = field(default_factory=Seen)
    restore_seconds: float = 0.0


PREFIX = "verify-"
"""How the name of everything begins that lies in the scratch folder."""


class Scratch:
    """The private folder that backups are restored into, one at a time; nothing stays there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._made: list[str] = []
        while not os.path.lexists(path):
            self._made.append(path)
            path = os.path.dirname(path)
        ensure_private_folder(self.path)
        os.chmod(self.path, 0o700)

    @contextlib.contextmanager
    def target(self, needed: int, keep_digests: bool) -> t.Iterator[Target]:
        """Give an empty target, removed afterwards whatever happens."""
        status = os.statvfs(self.path)
        budget = max(status.f_bavail * status.f_frsize - _RESERVE_BYTES, 0)
        with held_folder.held(self.path, PREFIX) as work:
            target = Target(os.path.join(work, "restored"), budget, keep_digests)
            if needed > budget:
                target.problem = f"{self.path} has {human_bytes(budget)} to spare, restoring needs at least {human_bytes(needed)}"
            try:
                yield target
            finally:
                target.flush()

    def sweep(self) -> None:
        """Remove what a killed run left behind; such copies may hold what nobody else may see."""
        held_folder.sweep(self.path, PREFIX)

    def close(self) -> None:
        """Remove the folder itself, and its parents, where this run made them."""
        for path in self._made:
            with contextlib.suppress(OSError):
                os.rmdir(path)


def prove(declared: Declared, backup: Backup, scratch: Scratch, known: Known, now: float) -> Proof:
    """Climb from level 1 to the demanded one; rung 0 is judged from the listing before."""
    manifest = read_manifest(declared, backup)
    files = [prove_file(file, declared, scratch, known, manifest, now) for file in backup.files]
    proof = Proof(digests={item.file.path: item.digest for item in files if item.digest})
    proof.basis = ", ".join(sorted({item.basis for item in files if item.basis}))
    whole = whole_verdicts(declared, backup, manifest)
    for level in range(1, declared["level"] + 1):
        finding = _rung(level, backup, files, whole if level == 1 else [])
        proof.findings.append(finding)
        if finding.state in ("critical", "unknown"):
            break
        proof.reached = level
    _measure(proof, files, declared)
    return proof


def prove_whole(adaptor: Adaptor, climb: Climb) -> Proof:
    """Climb by an adaptor; a rung that it said nothing of is unknown."""
    adaptor.climb(climb)
    name = climb.declared["name"]
    proof = Proof(digests=climb.digests, basis=", ".join(sorted(climb.basis)), rpo_seconds=climb.rpo_seconds)
    proof.findings += climb.findings
    for level in range(1, climb.level + 1):
        said = [verdict for verdict in climb.verdicts if verdict.level == level]
        said = said or [Verdict(level, "unknown", f"nothing was looked at at this level ({LEVELS[level]})")]
        unsure = level == 2 and "first look" in climb.basis
        finding = _summed_up(level, climb.backup, said, climb.content_bytes, climb.notes if level == 1 else [], unsure)
        if level in climb.sampled:
            finding = dataclasses.replace(finding, basis="sampled", not_covered=climb.sampled[level])
        proof.findings.append(finding)
        if finding.state in ("critical", "unknown"):
            break
        proof.reached = level
    if proof.reached >= 3 and climb.restore_seconds is not None:
        proof.rto_seconds = climb.restore_seconds
    measured = (("read", climb.read_seconds), ("rto", proof.rto_seconds), ("rpo", proof.rpo_seconds))
    proof.metrics = [Metric(f"backup.{what}_seconds", name, round(value, 3), "seconds") for what, value in measured if value is not None]
    return proof


def _measure(proof: Proof, files: t.Sequence[FileProof], declared: Declared) -> None:
    behind = [item.seen.rpo_seconds for item in files if item.seen.rpo_seconds is not None]
    if proof.reached >= 3:
        proof.rto_seconds = sum(item.restore_seconds for item in files)
        proof.metrics.append(Metric("backup.rto_seconds", declared["name"], round(proof.rto_seconds, 3), "seconds"))
    if behind:
        proof.rpo_seconds = max(behind)
        proof.metrics.append(Metric("backup.rpo_seconds", declared["name"], proof.rpo_seconds, "seconds"))


def whole_verdicts(declared: Declared, backup: Backup, manifest: Manifest | None) -> list[Verdict]:
    """Judge what only the backup as a whole can show: that the files that matter are among its files."""
    verdicts = []
    if not any(is_payload(file, declared) for file in backup.files):
        verdicts.append(Verdict(1, "critical", f"no file in {backup.path} matches {declared['pattern']!r}"))
    if manifest is not None and (_is_inside(declared) or declared["layout"] == "folders"):
        there = {name for file in backup.files for name in (os.path.relpath(file.path, backup.path), *_names_in(manifest, file.path))}
        lost = sorted(name for name in manifest.digests if os.path.normpath(name) not in there)
        verdicts += [Verdict(1, "critical", f"the manifest lists {name!r}, which is not there") for name in lost[:10]]
    return verdicts


def is_payload(file: File, declared: Declared) -> bool:
    if declared["layout"] == "files":
        return True
    if declared["kind"] == "sqlite" and file.path.endswith(SIDECARS):
        return False
    return matches(os.path.basename(file.path), declared["pattern"].rsplit("/", 1)[-1])


def prove_file(file: File, declared: Declared, scratch: Scratch, known: Known, manifest: Manifest | None, now: float) -> FileProof:
    item = FileProof(file)
    payload = is_payload(file, declared)
    if (manifest is not None and file.path == manifest.path) or not (payload or file.size):
        return item
    kind = KINDS[declared["kind"] if payload else "files"]
    level = int(declared["level"]) if payload else min(int(declared["level"]), 2)
    needed = file.size if level >= 3 else 0
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(scratch.target(needed, level >= 4)) if level >= 3 else Target(None)
        started = time.monotonic()
        try:
            with one_pass(file.path, declared["decrypt_command"]) as reading:
                item.seen = kind.read(reading, declared, target)
                item.digest = reading.finish()
        except (DamagedError, UnsupportedError, OSError) as error:
            item.verdicts.append(unreadable(file.path, error))
            return item
        item.restore_seconds = time.monotonic() - started
        target.flush()
        item.verdicts += kind.quick(file.path, declared) if level < 3 else []
        item.verdicts.append(checksum(item, known.get(file.path), manifest, declared))
        if level >= 3:
            item.verdicts.append(_restored(item, target))
        if level >= 4 and not target.problem:
            item.verdicts += kind.open(target, declared)
            item.restore_seconds = time.monotonic() - started
        if level >= 5 and not target.problem and not _fails(item.verdicts):
            item.verdicts += kind.content(target, item.seen, declared, now)
    return item


def _fails(verdicts: t.Iterable[Verdict]) -> bool:
    return any(verdict.state in ("critical", "unknown") for verdict in verdicts)


def unreadable(path: str, error: Exception) -> Verdict:
    """Say why a file could not be read: that is rung 1."""
    if isinstance(error, DamagedError):
        return Verdict(1, "critical", f"{error.kind}: {error}")
    if isinstance(error, OSError):
        state = "unknown" if error.errno in (errno.EACCES, errno.EPERM) else "critical"
        return Verdict(1, state, f"unreadable: {path}: {error.strerror}")
    return Verdict(1, "unknown", str(error))


def _restored(item: FileProof, target: Target) -> Verdict:
    if target.problem:
        return Verdict(3, "unknown", target.problem)
    seconds = human_seconds(item.restore_seconds)
    return Verdict(3, "ok", f"{item.seen.files} files, {human_bytes(target.written)} restored in {seconds}")


# Checksums -----------------------------------------------------------------------------------------------------------


class Manifest(t.NamedTuple):
    path: str
    digests: dict[str, str]
    problem: str


def read_manifest(declared: Declared, backup: Backup) -> Manifest | None:
    if not declared["manifest"]:
        return None
    name = declared["manifest"].replace("{name}", os.path.basename(backup.path))
    folder = backup.path if _is_inside(declared) else os.path.dirname(backup.path)
    return manifest_at(os.path.join(folder, name))


def manifest_at(path: str) -> Manifest:
    """Read a file of checksums as ``sha256sum`` writes it."""
    try:
        with open_regular(path) as source:
            lines = source.read(64 * 1024 * 1024).splitlines()
    except FileNotFoundError:
        return Manifest(path, {}, f"the declared manifest {path} is not there")
    except (OSError, MaintenanceError) as error:
        return Manifest(path, {}, f"the manifest {path} cannot be read: {error}")
    found = {}
    for line in lines:
        match = _MANIFEST_LINE.match(line)
        if match:
            raw = match.group(3)
            if match.group(1):
                raw = re.sub(rb"\\(.)", lambda sign: b"\n" if sign.group(1) == b"n" else sign.group(1), raw)
            found[os.fsdecode(raw)] = match.group(2).decode().lower()
    problem = "" if found else f"the manifest {path} holds no line of the form that sha256sum writes"
    return Manifest(path, found, problem)


def _is_inside(declared: Declared) -> bool:
    """Whether the manifest lies in the backup's folder, not beside the backup."""
    return declared["layout"] == "dated_folders" or (declared["layout"] == "folders" and "{name}" not in declared["manifest"])


def checksum(item: FileProof, before: t.Mapping[str, t.Any] | None, manifest: Manifest | None, declared: Declared) -> Verdict:
    file = item.file
    if before and before.get("mtime_ns") == file.mtime_ns and before.get("sha256") != item.digest:
        return Verdict(2, "critical", f"{file.path} changed since {before.get('first_seen')} though its time stamp did not: silent damage")
    if manifest is not None:
        return _against_manifest(item, manifest)
    if before and before.get("sha256") == item.digest:
        item.basis = "first seen"
        return Verdict(2, "ok", f"unchanged since it was first seen at {before.get('first_seen')} (no manifest declared)")
    if before and declared["date_format"]:
        return Verdict(2, "warning", f"{file.path} was rewritten since {before.get('first_seen')}; a dated backup ought to stay as it is")
    if item.seen.has_own_checksum:
        item.basis = "own CRC"
        return Verdict(2, "ok", "read completely, its own CRC agrees; SHA-256 noted for the next time")
    item.basis = "first look"
    return Verdict(2, "ok", "read completely; SHA-256 noted, there is nothing yet to compare it with")


def _names_in(manifest: Manifest, path: str) -> tuple[str, ...]:
    """Return the names that a manifest may have for a file."""
    relative = os.path.relpath(path, os.path.dirname(manifest.path))
    return relative, "./" + relative, os.path.basename(path), path


def _against_manifest(item: FileProof, manifest: Manifest) -> Verdict:
    if manifest.problem:
        return Verdict(2, "unknown", manifest.problem)
    path = item.file.path
    expected = next((manifest.digests[name] for name in _names_in(manifest, path) if name in manifest.digests), "")
    if not expected:
        return Verdict(2, "unknown", f"{path} is not listed in {manifest.path}")
    if expected != item.digest:
        return Verdict(2, "critical", f"{path} has SHA-256 {item.digest[:16]}…, its manifest says {expected[:16]}…")
    item.basis = "manifest"
    return Verdict(2, "ok", f"agrees with {os.path.basename(manifest.path)}")


def _rung(level: int, backup: Backup, files: t.Sequence[FileProof], whole: t.Sequence[Verdict]) -> Finding:
    """Sum up what the files said at one level; the worst speaks."""
    verdicts = [*whole, *(verdict for item in files for verdict in item.verdicts if verdict.level == level)]
    content = sum(item.seen.content_bytes for item in files)
    if level == 1 and not verdicts:
        verdicts = [Verdict(1, "ok", f"{len(files)} files read through, {human_bytes(content)} of content")]
    notes = [note for item in files for note in item.seen.notes] if level == 1 else []
    unsure = level == 2 and any(item.basis == "first look" for item in files)
    return _summed_up(level, backup, verdicts, content, notes, unsure)


def _summed_up(
    level: int, backup: Backup, verdicts: t.Sequence[Verdict], content: int | None, notes: t.Sequence[str], unsure: bool
) -> Finding:
    states = {verdict.state for verdict in verdicts}
    state = next((name for name in _WORST_FIRST if name in states), "ok")
    speaking = next((verdict.text for verdict in verdicts if verdict.state == state), LEVELS[level])
    advice = _ADVICE[level]
    if state == "unknown" and level != 3:
        advice = "Make what could not be looked at available to the verifier, then verify again."
    return Finding(
        id=_IDS[level],
        state=state,
        subject=backup.path,
        summary=f"L{level}: {speaking}",
        value=content if level == 1 else None,
        unit="bytes" if level == 1 and content is not None else "",
        basis="estimated" if unsure else "exact",
        not_covered=_NO_BASIS if unsure else "; ".join(notes[:3]),
        advice="" if state == "ok" else advice,
        evidence=[verdict.text for verdict in verdicts][:20],
    )
