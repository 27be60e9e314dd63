"""Random damage to copies of an intact backup, and at which level of the ladder it is found: docs/backup-levels.md has to say the same.

What is damaged is also restored with the backup's own tool: that, and not the verifier, says whether data changed.
"""

from __future__ import annotations

import collections
import hashlib
import os
import random
import re
import shutil
import stat
import time

SEED = 20261121
FAULTS = ("bit flip", "truncation", "zeroed block", "swapped", "empty", "wrong database", "stale", "unreadable", "half written")
FORMATS = (
    "custom", "custom, uncompressed", "directory", "directory, uncompressed", "tar", "plain", "plain, gzip", "plain, zstd", "plain, xz",
    "SQLite", "SQLite, gzip", "files, tar", "files, tar, gzip", "files, tree", "Redis RDB", "Redis AOF", "pg_basebackup",
    "pg_basebackup, tar", "pg_basebackup, tar, gzip", "pgBackRest", "Barman", "restic", "Borg", "command",
)  # fmt: skip
LEVEL_OF = {
    "backup.present": 0, "backup.age": 0, "backup.size": 0, "backup.structure": 1, "backup.checksum": 2, "backup.restore": 3,
    "backup.integrity": 4, "backup.content": 5,
}  # fmt: skip
LEVELS = os.path.join(os.path.dirname(__file__), "../../collections/ansible_collections/ops/maintenance/docs/backup-levels.md")
_BLOCK = 512


def noise_of(format_, fault, number):
    """The random numbers of one case; they do not depend on the cases before it."""
    return random.Random(f"{SEED} {format_} {fault} {number}")


# Damage --------------------------------------------------------------------------------------------------------------


def damaged(data, fault, noise, reach=None):
    """Return bytes with damage of one sort done to them, somewhere in the first ``reach``."""
    if fault == "empty":
        return b""
    if fault == "truncation":
        return data[: noise.randrange(1, len(data))]
    data, reach = bytearray(data), min(reach or len(data), len(data))
    if fault == "bit flip":
        data[noise.randrange(reach)] ^= 1 << noise.randrange(8)
        return data
    size = max(min(_BLOCK, reach // 4), 8)
    start, other = noise.randrange(reach - size), noise.randrange(reach - size)
    if fault == "zeroed block":
        data[start : start + size] = bytes(size)
    else:
        assert fault == "swapped", fault
        data[start : start + size], data[other : other + size] = data[other : other + size], data[start : start + size]
    return data


def damage_file(path, fault, noise, reach=None):
    """Damage a file, its time stamps kept; what is zero already is not zeroed once more."""
    status = os.lstat(path)
    os.chmod(path, stat.S_IMODE(status.st_mode) | 0o600)
    if fault == "unreadable":
        os.unlink(path)
        os.symlink(os.path.basename(path), path)  # a link to itself cannot be opened, even by root
        return
    with open(path, "rb") as source:
        data = source.read()
    bad = next(bad for bad in (damaged(data, fault, noise, reach) for _attempt in range(100)) if bad != data)
    with open(path, "wb") as target:
        target.write(bad)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _holds_more_than_zeros(path, reach):
    with open(path, "rb") as source:
        data = source.read(reach or -1)
    return data.count(0) < 0.95 * len(data)


def damage_one_of(paths, fault, noise, reach=None):
    """Damage one file of several of the same sort; two of them change places where that is the fault."""
    paths = sorted(path for path in paths if fault != "zeroed block" or _holds_more_than_zeros(path, reach))
    if fault == "swapped" and len(paths) > 1:
        one, other = noise.sample(paths, 2)
        os.rename(one, f"{one}.x")
        os.rename(other, one)
        os.rename(f"{one}.x", other)
    else:
        damage_file(noise.choice(paths), fault, noise, reach)


# What was found ------------------------------------------------------------------------------------------------------


def found_at(outcome):
    """Return the lowest level whose finding is not ok; None when nothing was noticed."""
    levels = [LEVEL_OF[found.id] for found in outcome.findings if found.state != "ok" and found.id in LEVEL_OF]
    return min(levels, default=None)


class Row:
    """At which level each case of one format was found.

    :ivar missed: cases in which data changed and nothing was noticed, described so that they can be done again.
    """

    def __init__(self, format_, has_manifest):
        assert format_ in FORMATS
        self.format = format_
        self.has_manifest = has_manifest
        self.cases = collections.defaultdict(list)
        self.missed = []

    def add(self, fault, level, changed, proven=None, what=""):
        """Note one case.

        :param level: where it was found; None when it was not.
        :param changed: whether what it restores to differs, asked only of what was not found.
        :param proven: where it was found against a manifest.
        """
        number = len(self.cases[fault])
        self.cases[fault].append((level, changed, proven))
        if (level is None and changed) or (self.has_manifest and proven is None):
            self.missed.append(f"{self.format}: {fault}, case {number}, seed {SEED}: {what}")

    def cell(self, fault):
        """Say at which level all of it was found at the latest, and behind a semicolon the same against a manifest."""
        cases = self.cases[fault]
        if not cases:
            return "-"
        text = _at_the_latest([(level, changed) for level, changed, _proven in cases])
        return f"{text}; {_at_the_latest([(proven, True) for _level, _changed, proven in cases])}" if self.has_manifest else text

    def __str__(self):
        """Count the cases of each fault by level."""
        counts = {}
        for fault, cases in self.cases.items():
            said = collections.Counter(
                f"L{level}" if level is not None else "unseen" if changed else "harmless" for level, changed, _ in cases
            )
            counts[fault] = ", ".join(f"{number} {name}" for name, number in sorted(said.items()))
        return f"{self.format}: {counts}"


def _at_the_latest(cases):
    levels = [level for level, _changed in cases if level is not None]
    text = [f"L{max(levels)}"] if levels else []
    if any(level is None and changed for level, changed in cases):
        text.append("some unseen" if levels else "unseen")
    return ", ".join(text) or "harmless"


def campaign(format_, plan, place, look, content, proven=None):
    """Damage a copy for every part of every fault of a plan, and look at it; return the row.

    :param plan: by fault, the damage to do: a function of the copy's path and of random numbers.
    :param place: returns the path of a fresh copy.
    :param look: returns what the verifier finds at a level, having seen nothing before.
    :param content: returns what the backup's own tool restores, None where it cannot.
    :param proven: returns what the verifier finds with a manifest.
    """
    row, intact = Row(format_, has_manifest=proven is not None), place()
    truth = content(intact)
    assert truth is not None
    assert found_at(look(intact, 5)) is None, "an intact backup raises nothing"
    assert proven is None or found_at(proven(intact)) is None, "an intact backup raises nothing"
    for fault, damages in plan.items():
        for number, damage in enumerate(damages):
            started = time.monotonic()
            path = place()
            damage(path, noise_of(format_, fault, number))
            level = found_at(look(path, 2))
            changed = level is None and content(path) != truth
            if changed:
                level = found_at(look(path, 5))
            row.add(fault, level, changed, proven and found_at(proven(path)), getattr(damage, "what", ""))
            print(
                f"{format_}, {fault} {number}, {getattr(damage, 'what', '')}: {row.cases[fault][-1]} in {time.monotonic() - started:.1f} s"
            )
    return row


def part(name, files, reach=None):
    """Return damages of files of one sort; a function for each fault, to put into a plan.

    :param files: returns the files of a copy among which to choose.
    """

    def of(fault):
        def damage(path, noise):
            damage_one_of(files(path), fault, noise, reach)

        damage.what = name
        return damage

    return of


# What is documented --------------------------------------------------------------------------------------------------


def release():
    """The place of this system's Debian release in a cell that names several: 12, then 13."""
    with open("/etc/os-release", encoding="utf-8") as source:
        return {"12": 0, "13": 1}[re.search(r'^VERSION_ID="(\d+)"', source.read(), re.M).group(1)]


def documented():
    """Return by format and fault what the table of the documentation says."""
    with open(LEVELS, encoding="utf-8") as source:
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in source if line.startswith("|")]
    start = next(number for number, line in enumerate(lines) if line == ["format", *FAULTS])
    table = {}
    for name, *cells in lines[start + 2 :]:
        if len(cells) != len(FAULTS):
            break
        table[name] = dict(zip(FAULTS, cells, strict=True))
    return table


def compare(*rows, varies=False):
    """Make sure that the documentation says of every format what was found, and that nothing was missed but what it admits.

    :param varies: whether the backup differs from run to run, so that what is documented is the latest level of many runs.
    """
    place, table, wrong = release(), documented(), []
    for row in rows:
        print(row)
        for fault in FAULTS:
            found, said = row.cell(fault), table.get(row.format, {}).get(fault, "")
            print(f"backup-levels | {place} | {row.format} | {fault} | {found}")
            said_here = said.split(" / ")[place] if " / " in said else said
            if said_here != found and not (varies and _no_later(found, said_here)):
                wrong.append(f"{row.format}, {fault}: docs/backup-levels.md says {said!r}, found was {found!r}")
    assert not wrong, "\n".join([*wrong, f"(seed {SEED}; scripts/backup_levels.py writes what was found into the table)"])


def _no_later(found, said):
    """Whether each half of a cell was found no later than documented."""
    halves = [[_rank(half) for half in cell.split("; ")] for cell in (found, said)]
    return len(halves[0]) == len(halves[1]) and all(mine <= theirs for mine, theirs in zip(*halves, strict=True))


def _rank(half):
    """Return how late something was found: behind every level comes what was not."""
    level = re.match(r"L(\d)", half)
    return ("unseen" in half, int(level.group(1)) if level else -1)


# Content -------------------------------------------------------------------------------------------------------------


def tree_of(folder):
    """Return the SHA-256 of every file below a folder, by its path there."""
    found = {}
    for where, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with open(path, "rb") as source:
                found[os.path.relpath(path, folder)] = hashlib.sha256(source.read()).hexdigest()
    return found


def first_look(verify, **declared):
    """Return what the verifier finds when it has not seen the backup before."""
    shutil.rmtree(verify.state_dir, ignore_errors=True)
    return verify(size_change_percent=100000.0, **declared).outcome
