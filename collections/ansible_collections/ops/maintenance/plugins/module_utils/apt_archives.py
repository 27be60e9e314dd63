# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What package files in apt's cache and Release files in its lists tell without a network."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tarfile
import typing as t
import zlib
from datetime import datetime

from .apt_packages import LISTS_DIR
from .host import Host
from .package_severity import moment

CACHE_DIR = "/var/cache/apt/archives"
_CHANGELOG_BYTES = 256 * 1024
_FIELD = re.compile(r"^(Label|Suite|Codename|Date): *(.+)$", re.M)


def cached(name: str, version: str, cache: str = CACHE_DIR) -> str:
    """Return the file of a package's version in apt's cache, empty when it is not there."""
    start = f"{name.partition(':')[0]}_{version.replace(':', '%3a')}_"
    try:
        found = [entry for entry in os.listdir(cache) if entry.startswith(start) and entry.endswith(".deb")]
    except (FileNotFoundError, PermissionError):
        return ""
    paths = [os.path.join(cache, entry) for entry in sorted(found)]
    return next((path for path in paths if os.path.isfile(path) and not os.path.islink(path)), "")


def changelog_of(host: Host, deb: str, name: str) -> str:
    """Return the beginning of the changelog in a package file, empty when it has none or cannot be read."""
    program = host.which("dpkg-deb")
    plain = name.partition(":")[0]
    wanted = {f"./usr/share/doc/{plain}/{file}" for file in ("changelog.Debian.gz", "changelog.gz")}
    if program is None:
        return ""
    with subprocess.Popen(
        [program, "--fsys-tarfile", deb], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            return _member(t.cast(t.IO[bytes], child.stdout), wanted)
        except (tarfile.TarError, zlib.error, EOFError):
            return ""
        finally:
            child.kill()


def _member(stream: t.IO[bytes], wanted: t.Collection[str]) -> str:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isfile() and member.name in wanted:
                file = archive.extractfile(member)
                packed = file.read(_CHANGELOG_BYTES) if file else b""
                return zlib.decompressobj(31).decompress(packed, _CHANGELOG_BYTES).decode("utf-8", "backslashreplace")
    return ""


def published(folder: str = LISTS_DIR) -> dict[str, datetime]:
    """Return when each archive was last published, by ``label:codename`` as archives are named."""
    found: dict[str, datetime] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.endswith("Release"):
                label, time = _release(os.path.join(folder, name))
                if time:
                    found[label] = time
    return found


def _release(path: str) -> tuple[str, datetime | None]:
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            fields = dict(_FIELD.findall(source.read(8192)))
    except OSError:
        return "", None
    label = f"{fields.get('Label', 'unknown')}:{fields.get('Codename') or fields.get('Suite', 'unknown')}"
    return label, moment(fields.get("Date", ""))
