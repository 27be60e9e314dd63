# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials where they do not belong: in logs and in files that every account can read. What was found is never shown."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import typing as t
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .errors import InputError, MaintenanceError, out_of_range
from .judge import many
from .log_lines import LineReader
from .paths import Entry, open_root, walk
from .record import Finding
from .security_common import Review, filled, shown, unknown, why_unread

SCAN: dict[str, t.Any] = {
    "root": {"type": "path", "required": True},
    "files": {"type": "str", "choices": ["world_readable", "all"], "default": "world_readable"},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "limit_megabytes": {"type": "int", "default": 512},
}
OPTIONS: dict[str, t.Any] = {"secret_scans": {"type": "list", "elements": "dict", "default": [], "no_log": False, "options": SCAN}}
IDS = ("security.exposed_secrets",)

_PATTERNS = {
    "private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "AWS key id": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}",
    "Slack token": rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "Stripe key": rb"\b[rs]k_live_[A-Za-z0-9]{16,}",
    "Google key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "bearer token": rb"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{20,}=*",
    "JSON web token": rb"\beyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{10,}",
    "password in a URL": rb"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"]{1,64}:(?!\*+@|x+@|\$?\{|<|%s)[^\s/@'\"]{3,128}@",
    "password": rb"(?i)(?:password|passwd|passphrase|secret|secret_?key|api_?key|access_?key|auth_?token|access_?token)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
    rb"(?!\*{2}|x{4}|<|\$[{(A-Z]|\{\{|\[|%)(?=[^\s\"',;&]{0,128}[0-9])[^\s\"',;&]{8,128}",
}
# Every repetition that a failed match would try again from the next place has an end, so that no line takes long.
_KINDS = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}
_MAYBE = re.compile(
    rb"PRIVATE KEY|AKIA|ASIA|gh[pousr]_|github_pat|xox[abeoprs]-|k_live_|AIza|[bB]earer|BEARER|eyJ|://[^\s/@]{1,200}@"
    rb"|(?i:passw|passphrase|secret|api_?key|access_?key|token)"
)
_PROBE_BYTES = 4096
_DIGEST_LETTERS = 4
_LINE_LIMIT_BYTES = 64 * 1024


@dataclass
class Scan:
    """What one root showed."""

    found: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    exposed: bool = False
    files: int = 0
    left_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, where: str, kind: str, value: bytes, exposed: bool) -> None:
        """Note a credential by place and kind; a few letters of its digest tell two of them apart and betray none."""
        self.kinds[kind] += 1
        self.exposed = self.exposed or exposed
        if len(self.found) < 20:
            digest = hashlib.sha256(value).hexdigest()[:_DIGEST_LETTERS]
            self.found.append(f"{where}: {kind}, sha256 {digest}…{', readable by everyone' if exposed else ''}")


def credentials(line: bytes) -> list[tuple[str, bytes]]:
    """Return the kinds of credentials in a line with what matched; what a narrower kind covers is not told twice."""
    found: list[tuple[str, bytes]] = []
    taken: list[tuple[int, int]] = []
    for kind, pattern in _KINDS.items():
        for match in pattern.finditer(line):
            if not any(match.start() < end and begin < match.end() for begin, end in taken):
                taken.append(match.span())
                found.append((kind, match.group()))
    return found


def look(review: Review) -> list[Finding]:
    """Scan each declared root."""
    return [_one(scan) for scan in review.params["secret_scans"]]


def _one(declared: t.Mapping[str, t.Any]) -> Finding:
    scan = Scan(left_bytes=declared["limit_megabytes"] * 1024 * 1024)
    try:
        with open_root(declared["root"], "secret_scans.root") as root_fd:
            entered = {"": bool(os.fstat(root_fd).st_mode & 0o001)}
            for entry in walk(root_fd):
                _entry(declared, entry, _is_entered(root_fd, os.path.dirname(entry.relative), entered), scan)
    except InputError as error:
        return unknown(IDS[0], declared["root"], str(error), "Correct the root.")
    except OSError as error:
        scan.problems.append(f"a folder could not be read: {why_unread(error)}; what lies behind it was not looked at")
    return _verdict(declared, scan)


def _is_entered(root_fd: int, folder: str, known: dict[str, bool]) -> bool:
    """Whether every account gets into a folder, for which all folders from the root down to it have to let it."""
    if folder not in known:
        try:
            own = bool(os.stat(folder, dir_fd=root_fd, follow_symlinks=False).st_mode & 0o001)
        except FileNotFoundError:
            own = True  # it went away meanwhile, so that what was read from it may have been open
        known[folder] = own and _is_entered(root_fd, os.path.dirname(folder), known)
    return known[folder]


def _entry(declared: t.Mapping[str, t.Any], entry: Entry, reachable: bool, scan: Scan) -> None:
    """Read one file where it is to be read; links are left alone and named by nobody.

    :param reachable: whether every account gets into its folder.
    """
    path = os.path.join(declared["root"], entry.relative)
    if not stat.S_ISREG(entry.status.st_mode) or not entry.status.st_size:
        return
    exposed = bool(reachable and entry.status.st_mode & 0o004)
    if (declared["files"] == "world_readable" and not exposed) or any(fnmatchcase(entry.relative, one) for one in declared["exclude"]):
        return
    if entry.status.st_size > scan.left_bytes:
        scan.problems.append(f"{shown(path)} and perhaps more lie beyond limit_megabytes")
        return
    scan.left_bytes -= entry.status.st_size
    scan.files += 1
    # Through the folder's descriptor: a folder on the way that is exchanged for a link meanwhile leads nowhere else.
    _lines(LineReader(f"/proc/self/fd/{entry.dir_fd}/{entry.name}", limit=_LINE_LIMIT_BYTES), path, exposed, scan)


def _lines(reader: LineReader, path: str, exposed: bool, scan: Scan) -> None:
    number = 0
    for block in reader.blocks():
        if number == 0 and b"\0" in block[:_PROBE_BYTES]:
            return  # not text
        if _MAYBE.search(block):
            for place, line in enumerate(block.split(b"\n"), number + 1):
                if _MAYBE.search(line):
                    for kind, value in credentials(line):
                        scan.add(f"{shown(path)}:{place}", kind, value, exposed)
        number += block.count(b"\n")
    if reader.problem or reader.cut:
        said = reader.problem or f"{many(reader.cut, 'line')} beyond {_LINE_LIMIT_BYTES} bytes"
        scan.problems.append(f"{shown(path)}: {said}")


def _verdict(declared: t.Mapping[str, t.Any], scan: Scan) -> Finding:
    count = sum(scan.kinds.values())
    state = "critical" if scan.exposed else "warning" if count else "unknown" if scan.problems or not scan.files else "ok"
    if state == "unknown" and not scan.problems and declared["files"] == "world_readable":
        state = "ok"  # nothing there that everyone can read: that is the wish
    kinds = ", ".join(f"{kind} ({number})" for kind, number in scan.kinds.most_common())
    advice = {"ok": "", "unknown": "Make what is named readable, raise the limit, or correct the root."}
    more = f"; {len(scan.problems) - 5} more" if len(scan.problems) > 5 else ""
    return Finding(
        IDS[0],
        state,
        declared["root"],
        f"{many(count, 'credential')} in {many(scan.files, 'file')}{f': {kinds}' if kinds else ''}",
        value=count,
        unit="count",
        threshold="critical where everyone can read it, warning elsewhere",
        not_covered="; ".join(scan.problems[:5]) + more,
        advice=advice.get(state, "Replace these credentials, keep them out of there, and close the files; what was seen counts as known."),
        evidence=scan.found,
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = []
    for scan in params["secret_scans"]:
        if not os.path.isabs(scan["root"]):
            wrong.append(str(InputError.of("secret_scans.root", scan["root"], "an absolute path", "write it from the root on")))
        wrong += [f"{problem} It is in secret_scans, {scan['root']}." for problem in out_of_range(scan, ("limit_megabytes",), least=1)]
    return wrong


def passes_bad_sample(_review: Review) -> str:
    """Plant a private key that everyone can read; return the sample when it is not noticed."""
    try:
        with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as root:
            os.chmod(root, 0o755)  # noqa: S103 - everyone is to read the sample
            with open(os.path.join(root, "planted"), "w", encoding="ascii") as sample:
                sample.write("-----BEGIN " + "PRIVATE KEY-----\n")
                os.fchmod(sample.fileno(), 0o644)
            found = _one(filled(SCAN, {"root": root}))
    except MaintenanceError as error:
        return str(error)
    return "a private key that everyone can read as nothing" if found.state == "ok" else ""
