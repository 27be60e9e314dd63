# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared trees that must not change: every file's checksum, mode and owner against the manifest that was accepted."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import tempfile
import time
import typing as t

from . import security_walk
from .errors import MaintenanceError
from .paths import open_regular
from .record import Finding
from .security_common import Review, shown, unknown, why_unread
from .security_drift import Question, changes, compared
from .security_files import group_name, user_name

OPTIONS: dict[str, t.Any] = {
    "trees": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "severity": {"type": "str", "choices": ["warning", "critical"], "default": "critical"},
        },
    }
}
IDS = ("security.tree_integrity",)
_CHUNK = 1024 * 1024


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with the declared trees, one sentence each."""
    paths = [item["path"] for item in params["trees"]]
    wrong = [f"trees.path is {path!r}, expected an absolute path; write it from the root on." for path in paths if not os.path.isabs(path)]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    return wrong + [f"trees declares {path!r} more than once, expected one entry; merge them." for path in twice]


def look(review: Review) -> list[Finding]:
    """Read every declared tree once and compare it with its manifest."""
    return [_tree(review, item) for item in review.params["trees"]]


def _tree(review: Review, item: t.Mapping[str, t.Any]) -> Finding:
    unread: list[str] = []
    try:
        now = manifest(item["path"], item["exclude"], security_walk.until(review.params), unread)
    except (OSError, MaintenanceError) as error:
        return unknown(IDS[0], shown(item["path"]), f"it could not be looked at: {why_unread(error)}", "Correct the path in the inventory.")
    review.count("security.tree_files", shown(item["path"]), len(now))
    # A manifest of its own for each tree: they can be large.
    name = f"security_tree_{hashlib.sha256(os.fsencode(item['path'])).hexdigest()[:16]}.json"
    question = Question(IDS[0], name, "entry", "entries", lambda _change: str(item["severity"]), first="unknown")
    return compared(review, question, item["path"], now, unread)


def manifest(root: str, exclude: t.Sequence[str], ends: float, unread: list[str]) -> dict[str, str]:
    """Return relative name to what it is: kind, mode, owner, and the checksum or what a link points to."""
    found = {}
    for path, relative, status in security_walk.below(root, ends, unread, lambda name: _matches(name, exclude)):
        try:
            found[relative] = f"{stat.filemode(status.st_mode)} {_owner(status)}{_content(path, status, ends)}"
        except FileNotFoundError:  # it went away meanwhile
            continue
        except (OSError, MaintenanceError) as error:
            unread.append(f"{shown(relative)}: {why_unread(error)}")
    return found


def _matches(relative: str, patterns: t.Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(relative, pattern) for pattern in patterns)


def _owner(status: os.stat_result) -> str:
    return f"{user_name(status.st_uid)}:{group_name(status.st_gid)}"


def _content(path: str, status: os.stat_result, ends: float) -> str:
    if stat.S_ISLNK(status.st_mode):
        return f" -> {shown(os.readlink(path))}"
    if not stat.S_ISREG(status.st_mode):
        return ""
    digest = hashlib.sha256()
    with open_regular(path) as source:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            digest.update(chunk)
            if time.monotonic() > ends:
                raise MaintenanceError("the time was up; raise integrity_seconds")
    return f" sha256 {digest.hexdigest()}"


def passes_bad_sample(_review: Review) -> str:
    """Plant a file whose content changes though its size and time do not; return it when that is not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path, seen = os.path.join(folder, "planted"), []
        for content in (b"one", b"two"):
            with open(path, "wb") as sample:
                sample.write(content)
            os.utime(path, (1, 1))
            seen.append(manifest(folder, [], security_walk.until({"integrity_seconds": 10}), []))
    return "" if changes(seen[0], seen[1]) else "a file with other content as unchanged"
