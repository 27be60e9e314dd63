# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of dpkg's packages against the sums that dpkg keeps, as debsums does: diversions, excluded paths, configuration files."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .errors import MaintenanceError
from .paths import open_regular
from .security_common import shown, why_unread

STATUS, INFO, DIVERSIONS = "var/lib/dpkg/status", "var/lib/dpkg/info", "var/lib/dpkg/diversions"
_CONFIG = ("etc/dpkg/dpkg.cfg", "etc/dpkg/dpkg.cfg.d")
_CHUNK = 1024 * 1024
_SUM = re.compile(r"([0-9a-f]{32}) [ *](.+)")
_CONFFILE = re.compile(r"^ (/.*) ([0-9a-f]{32})(?: obsolete| remove-on-upgrade)*$", re.M)
_FILTER = re.compile(r"^\s*path-(exclude|include)\s*=?\s*(\S+)", re.M)


@dataclass
class Checked:
    """What was found out about all packages; ``grave`` names those with changed content."""

    packages: int = 0
    looked: int = 0
    changed: dict[str, list[str]] = field(default_factory=dict)
    grave: set[str] = field(default_factory=set)
    conffiles: list[str] = field(default_factory=list)
    without_sums: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


class Package(t.NamedTuple):
    """An installed package and the sums of its configuration files."""

    name: str
    architecture: str
    conffiles: t.Mapping[str, str]


@dataclass(frozen=True)
class Rules:
    """Where dpkg put files elsewhere, or not at all.

    :param diversions: path to its new path and the package whose own file stays (``:`` for none).
    :param filters: ``include`` or ``exclude`` and a pattern; the last that fits decides.
    """

    diversions: t.Mapping[str, tuple[str, str]]
    filters: t.Sequence[tuple[str, str]]

    def place(self, path: str, package: str) -> str:
        """Return where a package's file lies in truth."""
        moved, keeper = self.diversions.get(path, (path, ":"))
        return path if keeper == package else moved

    def is_left_out(self, path: str) -> bool:
        """Whether the host's configuration tells dpkg not to unpack it."""
        fitting = [kind for kind, pattern in self.filters if fnmatch.fnmatchcase(path, pattern)]
        return bool(fitting) and fitting[-1] == "exclude"


def check(root: str, ends: float) -> Checked:
    """Read every file of every installed package once.

    :raises MaintenanceError: dpkg's database could not be read.
    """
    packages = installed(_text(os.path.join(root, STATUS)))
    if not packages:
        raise MaintenanceError("dpkg's database names no installed package")
    rules = Rules(parse_diversions(_text(os.path.join(root, DIVERSIONS), "")), parse_filters(_configuration(root)))
    checked = Checked(len(packages))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for package, one in zip(packages, pool.map(lambda package: _package(root, package, rules, ends), packages)):
            _add(checked, package.name, one)
    return checked


def installed(text: str) -> list[Package]:
    """Return the packages of dpkg's database whose files are in place."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Architecture): (.*)$", paragraph, re.M))
        if fields.get("Status", "").endswith(" ok installed") and "Package" in fields:
            conffiles = dict(_CONFFILE.findall(paragraph.partition("\nConffiles:")[2]))
            found.append(Package(fields["Package"], fields.get("Architecture", ""), conffiles))
    return found


def parse_diversions(text: str) -> dict[str, tuple[str, str]]:
    """Read dpkg's list of diversions: three lines each."""
    lines = text.splitlines()
    return {path: (moved, package) for path, moved, package in zip(lines[::3], lines[1::3], lines[2::3])}


def parse_filters(text: str) -> list[tuple[str, str]]:
    """Read which paths dpkg is told to leave out."""
    return [(kind, pattern.strip("\"'")) for kind, pattern in _FILTER.findall(text)]


def _configuration(root: str) -> str:
    folder = os.path.join(root, _CONFIG[1])
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(root, _CONFIG[0]), *(os.path.join(folder, name) for name in names if re.fullmatch(r"[\w-]+", name))]
    return "\n".join(_text(path, "") for path in paths)


def _text(path: str, absent: str | None = None) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as source:
            return source.read()
    except FileNotFoundError:
        if absent is None:
            raise
        return absent


@dataclass
class _One:
    looked: int = 0
    wrong: list[str] = field(default_factory=list)
    is_grave: bool = False
    conffiles: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    has_sums: bool = True


def _package(root: str, package: Package, rules: Rules, ends: float) -> _One:
    one = _One()
    try:
        sums = _sums(root, package)
    except (OSError, MaintenanceError) as error:
        one.unread.append(f"sums of {package.name}: {why_unread(error)}")
        return one
    one.has_sums = sums is not None or not _has_files(root, package)
    for path, wanted in [*(sums or {}).items(), *package.conffiles.items()]:
        if time.monotonic() > ends:
            one.unread.append(f"{package.name}: the time was up; raise integrity_seconds")
            break
        _file(root, path, wanted, package, rules, one)
    return one


def _file(root: str, path: str, wanted: str, package: Package, rules: Rules, one: _One) -> None:
    place = rules.place(path, package.name)
    one.looked += 1
    try:
        found = _md5(os.path.join(root, place.lstrip("/")))
    except (FileNotFoundError, NotADirectoryError):
        if rules.is_left_out(path):
            one.looked -= 1
            return
        found = "is missing"
    except MaintenanceError:
        found = "is not a regular file any more"
    except OSError as error:
        one.unread.append(f"{shown(place)}: {why_unread(error)}")
        return
    if found == wanted:
        return
    said = f"{shown(place)} {found if found.startswith('is ') else 'has another content'}"
    if path in package.conffiles:
        one.conffiles.append(said)
    else:
        one.wrong.append(said)
        one.is_grave |= found != "is missing"


def _sums(root: str, package: Package) -> dict[str, str] | None:
    for name in _info_names(package, "md5sums"):
        text = _text(os.path.join(root, INFO, name), "absent")
        if text != "absent":
            lines = [line for line in text.splitlines() if line.strip()]
            matches = [_SUM.fullmatch(line) for line in lines]
            if not all(matches):
                raise MaintenanceError(f"{name} holds a line that is no sum")
            return {f"/{match[2].removeprefix('./')}": match[1] for match in matches if match}
    return None


def _has_files(root: str, package: Package) -> bool:
    """Whether a package without sums has a regular file at all beside its configuration; many hold folders or documents only."""
    for name in _info_names(package, "list"):
        paths = _text(os.path.join(root, INFO, name), "").splitlines()
        if any(path not in package.conffiles and _is_file(os.path.join(root, path.lstrip("/"))) for path in paths):
            return True
    return False


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _info_names(package: Package, ending: str) -> tuple[str, str]:
    return f"{package.name}.{ending}", f"{package.name}:{package.architecture}.{ending}"


def _md5(path: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # what dpkg has; the finding says what that is worth
    with open_regular(path) as source:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _add(checked: Checked, name: str, one: _One) -> None:
    checked.looked += one.looked
    checked.conffiles += one.conffiles
    checked.unread += one.unread
    if one.wrong:
        checked.changed.setdefault(name, []).extend(one.wrong)
    if one.is_grave:
        checked.grave.add(name)
    if not one.has_sums:
        checked.without_sums.append(name)
