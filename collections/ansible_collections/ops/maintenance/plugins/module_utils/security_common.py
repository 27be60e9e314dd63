# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of the security review share: the review that is under way, and how its files are read."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import typing as t
from dataclasses import dataclass, field, replace
from datetime import datetime

from . import record
from .errors import InputError, MaintenanceError, out_of_range, refusal
from .host import Host
from .kept_state import keep_state
from .log_lines import zone_of
from .record import Action, Finding, Metric

READ_LIMIT_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 65536
"""The kernel gives no setting of /proc/sys to who asks for megabytes at once."""

unknown = record.unknown
"""Every part of the review says so what it could not look at."""


@dataclass
class Review:
    """One pass over one host.

    :param etc: folder that holds the account files (tests give their own).
    """

    params: t.Mapping[str, t.Any]
    host: Host
    check_mode: bool
    now: datetime
    etc: str = "/etc"
    unkept: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def keep(self, name: str, value: t.Mapping[str, t.Any]) -> None:
        """Keep what the next review compares with; what cannot be kept becomes a finding beside those of the review."""
        self.unkept += keep_state(self.params["state_dir"], name, value)

    def count(self, name: str, subject: str, value: float, unit: str = "count") -> None:
        """Keep a number for the comparison between runs."""
        self.metrics.append(Metric(name, subject, value, unit))


def filled(spec: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return options with the defaults of their spec, suboptions too, as a module gets them."""
    values = {name: given.get(name, option.get("default")) for name, option in spec.items()}
    for name, option in spec.items():
        if "options" in option and values[name] is not None:
            values[name] = [filled(option["options"], item) for item in values[name]]
    return values


def source_problems(
    option: str, sources: t.Sequence[t.Mapping[str, t.Any]], ranges: t.Sequence[tuple[str, float, float]] = ()
) -> t.Iterator[str]:
    """Return what cannot be meant of the log files that are declared as sources.

    :param ranges: numbers of each source, with the least and the most that they may be.
    """
    names = [source["name"] for source in sources]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{option} names {name!r} twice, and what is seen of each is kept by its name; give each a name of its own."
    for source in sources:
        where = f"{option}, {source['name']}"
        for path in source["paths"]:
            if not path.startswith("/"):
                yield str(InputError.of(f"paths of {where}", path, "an absolute pattern", "write it from the root on"))
        for name, least, most in ranges:
            yield from (f"{problem} It is in {where}." for problem in out_of_range(source, (name,), least, most))
        yield from refusal(zone_of, source["timezone"], f"timezone of {where}")


def pattern_problems(option: str, pattern: str) -> t.Iterator[str]:
    """Say what is wrong with a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{option} is not a regular expression ({error}); correct it."


def why_unread(error: Exception) -> str:
    """Say in a few words why something could not be read."""
    said = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return said + ("; run with become: true" if isinstance(error, PermissionError) else "")


def read_small(path: str) -> bytes:
    """Read a regular file of bounded size, through a link where there is one.

    :raises MaintenanceError: it is a folder or a device, or larger than any such file is.
    """
    file_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(file_fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(file_fd)
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise MaintenanceError(f"{shown(path)} is {kind}, expected a file; correct the path.")
    data = b""
    with os.fdopen(file_fd, "rb", buffering=0) as source:
        while len(data) <= READ_LIMIT_BYTES:
            piece = source.read(_PIECE_BYTES)
            if not piece:
                return data
            data += piece
    raise MaintenanceError(f"{shown(path)} is larger than {READ_LIMIT_BYTES} bytes and was not read; look at it.")


def shown(path: str) -> str:
    """Return a path on one line, whatever its name holds."""
    return path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def address_of(text: str) -> str:
    """Return the one usual form of an IP address (port and brackets dropped); empty where it is not one."""
    first = text.split(",")[0].strip()
    for candidate in (first, first.strip("[]"), first.rpartition(":")[0].strip("[]")):
        try:
            address = ipaddress.ip_address(candidate)
        except ValueError:
            continue
        mapped = getattr(address, "ipv4_mapped", None)
        return str(mapped or address)
    return ""


def distrusted(finding: Finding, passed: str) -> Finding:
    """Return a finding of a verifier that took a planted bad sample for a good one."""
    return replace(
        finding,
        state="unknown",
        summary=f"the self-test failed, so this is not to be trusted: {finding.summary}",
        advice=f"The verifier accepted {passed}; report it as a defect and check by hand.",
    )
