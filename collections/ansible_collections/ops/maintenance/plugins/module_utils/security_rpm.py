# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of rpm's packages, as ``rpm -Va`` judges them; its exit code is not trusted, its lines are read."""

from __future__ import annotations

import re
import typing as t

from .errors import MaintenanceError
from .host import Host
from .security_common import shown
from .security_dpkg import Checked

_LINE = re.compile(r"^(?P<flags>[SM5DLUGTP.?]{8,9}|missing)\s+(?:(?P<kind>[a-z])\s+)?(?P<path>/.*?)(?P<why> \(.*\))?$")
_GRAVE, _SUBJECT = set("S5DLP"), "rpm"


def check(host: Host, seconds: float, arguments: t.Sequence[str] = ()) -> Checked:
    """Ask rpm about every file of every package.

    :raises MaintenanceError: rpm did not answer, or knows no package.
    """
    known = host.run(["rpm", *arguments, "-qa", "--qf", "%{NAME}\\n"])
    names = known.stdout.split()
    if known.rc != 0 or not names:
        raise MaintenanceError(f"rpm's database names no installed package ({known.why()})")
    ran = host.run(["rpm", *arguments, "-Va", "--nomtime", "--nodeps", "--noscripts"], timeout=max(1.0, seconds))
    checked = parse(ran.stdout)
    checked.packages, checked.looked = len(names), max(checked.looked, len(names))
    checked.unread += [shown(line.strip()) for line in ran.stderr.splitlines() if line.strip()]
    return checked


def parse(text: str) -> Checked:
    """Read what ``rpm -Va`` printed; a line that is not understood is said, never dropped."""
    checked = Checked()
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            checked.unread.append(f"rpm said: {shown(line.strip())}")
            continue
        checked.looked += 1
        _judge(checked, match["flags"], match["kind"] or "", shown(match["path"]), match["why"] or "")
    return checked


def _judge(checked: Checked, flags: str, kind: str, path: str, why: str) -> None:
    if "Permission denied" in why or "?" in flags:
        checked.unread.append(f"{path}: not all of it could be read")
        return
    if kind == "g" or (kind == "d" and flags == "missing"):
        return  # made later, or documents that were left out on purpose
    said = f"{path} is missing" if flags == "missing" else f"{path} differs ({flags.replace('.', '')})"
    if kind == "c":
        checked.conffiles.append(said)
        return
    checked.changed.setdefault(_SUBJECT, []).append(said)
    if flags != "missing" and set(flags) & _GRAVE:
        checked.grave.add(_SUBJECT)
