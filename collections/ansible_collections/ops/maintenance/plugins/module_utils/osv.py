# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advisories in the OSV format, offline: which installed packages of an ecosystem (PyPI, npm) are affected."""

from __future__ import annotations

import json
import os
import re
import typing as t
import zipfile
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .errors import InputError

_VERSION = re.compile(
    r"^v?(?:(\d+)!)?(\d+(?:\.\d+)*)"
    r"(?:[-_.]?(alpha|beta|preview|pre|rc|a|b|c)[-_.]?(\d*))?"
    r"(?:-(\d+)|([-_.]?(?:post|rev|r)[-_.]?)(\d*))?"
    r"(?:([-_.]?dev[-_.]?)(\d*))?(?:\+[a-z0-9._-]+)?$",
    re.IGNORECASE,
)
_PRE = {"a": "a", "alpha": "a", "b": "b", "beta": "b"}
_LAST = float("inf")
UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What reading a database may raise; of an archive that is damaged or encrypted the last three."""

Key = tuple[t.Any, ...]


def version_key(version: str) -> Key | None:
    """Return what orders Python versions as PEP 440 says; ``None`` for text that is not a version."""
    match = _VERSION.match(version.strip())
    if match is None:
        return None
    epoch, release, pre, pre_number, post_short, post, post_number, dev, dev_number = match.groups()
    numbers = [int(part) for part in release.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    has_post = post_short is not None or post is not None
    if pre:
        pre_key: Key = (0, _PRE.get(pre.lower(), "rc"), int(pre_number or 0))
    else:
        pre_key = (-1, "", 0) if dev and not has_post else (1, "", 0)
    post_key = int(post_short or post_number or 0) if has_post else -1
    return (int(epoch or 0), tuple(numbers), pre_key, post_key, int(dev_number or 0) if dev else _LAST)


def normal_name(name: str) -> str:
    """Return a Python package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


_SEMVER = re.compile(r"^[v=]?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$")


def semver_key(version: str) -> Key | None:
    """Return what orders npm's versions as semantic versioning says; ``None`` for text that is not a version."""
    match = _SEMVER.match(version.strip())
    if match is None:
        return None
    *numbers, before = match.groups()
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".")] if before else []
    return (*(int(number or 0) for number in numbers), not parts, parts)


class Ecosystem(t.NamedTuple):
    """How an ecosystem of packages names and orders them.

    :param ranges: the types of ranges that its order belongs to.
    """

    name: str
    normal_name: t.Callable[[str], str]
    version_key: t.Callable[[str], Key | None]
    ranges: tuple[str, ...]


PYPI = Ecosystem("PyPI", normal_name, version_key, ("ECOSYSTEM",))
NPM = Ecosystem("npm", str, semver_key, ("SEMVER", "ECOSYSTEM"))


@dataclass(frozen=True)
class Advisory:
    """One advisory that affects an installed version; ``fixed`` is the lowest version above it that is not affected."""

    package: str
    version: str
    ids: tuple[str, ...]
    fixed: str
    summary: str = ""
    severity: str = ""


@dataclass
class Database:
    """The advisories that name the wanted packages, and how much was read."""

    ecosystem: Ecosystem = PYPI
    affected: dict[str, list[tuple[dict[str, t.Any], dict[str, t.Any]]]] = field(default_factory=dict)
    records: int = 0
    unreadable: int = 0
    modified: str = ""

    def is_older(self, now: datetime, days: float) -> bool:
        """Whether its newest record is older than so many days, or has no date."""
        return is_older(self.modified, now, days)


def is_older(modified: str, now: datetime, days: float) -> bool:
    """Whether a record's time is older than so many days, or none."""
    try:
        return now - datetime.fromisoformat(modified[:19] + "+00:00") > timedelta(days=days)
    except ValueError:
        return True


def load(path: str, wanted: t.Collection[str], ecosystem: Ecosystem = PYPI) -> Database:
    """Read a folder of ``.json`` files, a ``.zip`` of them, or one file.

    :raises InputError: nothing is there.
    """
    database = Database(ecosystem)
    names = {ecosystem.normal_name(name) for name in wanted}
    try:
        for text in texts(path):
            _add(database, text, names)
    except UNREADABLE as error:
        advice = "fetch the database of the ecosystem"
        raise InputError.of("advisories", path, f"a readable OSV database ({error})", advice) from error
    return database


def is_folder(path: str) -> bool:
    """Whether a database is a folder of records."""
    return os.path.isdir(path)


def texts(path: str) -> t.Iterator[bytes]:
    """Yield the records of a folder of ``.json`` files, a ``.zip`` of them, or one file."""
    if is_folder(path):
        with os.scandir(path) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                if entry.name.endswith(".json") and entry.is_file():
                    with open(entry.path, "rb") as source:
                        yield source.read()
    elif path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield archive.read(name)
    else:
        with open(path, "rb") as source:
            yield source.read()


def _add(database: Database, text: bytes, names: set[str]) -> None:
    ecosystem = database.ecosystem
    try:
        record = json.loads(text)
        named = record["affected"]
        ours = [(ecosystem.normal_name(item["package"]["name"]), item) for item in named if item["package"]["ecosystem"] == ecosystem.name]
        if not ours:  # another ecosystem's records, however new, say nothing of this one
            return
        database.modified = max(database.modified, str(record["modified"]))
        for name, item in [] if record.get("withdrawn") else ours:
            if name in names:
                database.affected.setdefault(name, []).append((record, item))
        database.records += 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        database.unreadable += 1


def is_affected(version: str, affected: t.Mapping[str, t.Any], ecosystem: Ecosystem = PYPI) -> bool | None:
    """Say whether a version is within an OSV ``affected`` object; ``None`` when it cannot be compared."""
    if version in affected.get("versions", []):
        return True
    key = ecosystem.version_key(version)
    ranges = [r for r in affected.get("ranges", []) if r.get("type") in ecosystem.ranges]
    if ranges and key is None:
        return None
    return any(_in_range(key, r, ecosystem) for r in ranges if key is not None)


def _in_range(key: Key, span: t.Mapping[str, t.Any], ecosystem: Ecosystem) -> bool:
    inside = False
    for bound, kind in _events(span, ecosystem):
        if kind == "introduced" and key >= bound:
            inside = True
        if (kind == "fixed" and key >= bound) or (kind == "last_affected" and key > bound):
            inside = False
    return inside


def _events(span: t.Mapping[str, t.Any], ecosystem: Ecosystem) -> list[tuple[Key, str]]:
    found = []
    for event in span.get("events", []):
        for kind, version in event.items():
            key = ecosystem.version_key(str(version))
            if key is not None:
                found.append((key, str(kind)))
    return sorted(found, key=lambda event: event[0])


def fixed_version(version: str, affected: t.Mapping[str, t.Any], ecosystem: Ecosystem = PYPI) -> str:
    """Return the lowest fixed version above this one, empty when the advisory names none."""
    key = ecosystem.version_key(version)
    fixes = [
        str(event["fixed"])
        for span in affected.get("ranges", [])
        if span.get("type") in ecosystem.ranges
        for event in span.get("events", [])
        if "fixed" in event
    ]
    keyed = [(ecosystem.version_key(fix), fix) for fix in fixes]
    above = [(found, fix) for found, fix in keyed if found is not None and key is not None and found > key]
    return min(above)[1] if above else ""


def severity_word(record: t.Mapping[str, t.Any], affected: t.Mapping[str, t.Any]) -> str:
    """Return the word that a record has for the severity in a package, in lower case; empty when it has none."""
    places = (affected.get("ecosystem_specific"), affected.get("database_specific"), record.get("database_specific"))
    words = (place.get(key) for place in places if isinstance(place, dict) for key in ("severity", "urgency"))
    return next((word.lower() for word in words if isinstance(word, str) and word), "")


def match(database: Database, installed: t.Iterable[tuple[str, str]]) -> tuple[list[Advisory], list[str]]:
    """Return the advisories that affect what is installed, and the packages whose version cannot be compared.

    :param installed: names and versions; a name may be there in several.
    """
    ecosystem = database.ecosystem
    found: dict[tuple[str, str, str], Advisory] = {}
    unclear = []
    for name, version in sorted(set(installed)):
        for record, affected in database.affected.get(ecosystem.normal_name(name), []):
            verdict = is_affected(version, affected, ecosystem)
            if verdict is None:
                unclear.append(name)
            if verdict:
                ids = (str(record.get("id", "")), *map(str, record.get("aliases", [])))
                fixed = fixed_version(version, affected, ecosystem)
                found[name, version, ids[0]] = Advisory(
                    name, version, ids, fixed, str(record.get("summary", "")), severity_word(record, affected)
                )
    return list(found.values()), sorted(set(unclear))
