# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let promtool try alert rules on the series that their own tests give, and see that something was tried at all."""

from __future__ import annotations

import glob
import re
import typing as t

from .errors import MaintenanceError
from .host import Host, Ran
from .judge import many
from .paths import open_regular
from .record import Finding, clean

ID = "alert_rules.tests"

_TRIED = re.compile(r"^\s*(?:-\s+)?eval_time:", re.MULTILINE)
_LIMIT = 4 * 1024 * 1024
_TIMEOUT = 120.0
_ADVICE = "Run promtool test rules by hand, and correct the rule or its test."


def look(patterns: t.Sequence[str], host: Host) -> list[Finding]:
    """Run every file of tests."""
    found = []
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))
        found += [_of_file(path, host) for path in paths]
        if not paths:
            found.append(
                Finding(ID, "critical", clean(pattern, 200), "No file of tests is there.", advice="Correct the path, or write the tests.")
            )
    return found


def _of_file(path: str, host: Host) -> Finding:
    shown = clean(path, 200)
    try:
        with open_regular(path) as source:
            tried = len(_TRIED.findall(source.read(_LIMIT).decode("utf-8", "replace")))
        ran = host.run(["promtool", "test", "rules", path], timeout=_TIMEOUT)
    except (OSError, MaintenanceError) as error:
        return Finding(
            ID, "unknown", shown, clean(f"The rules were not tried: {error}", 400), advice="Install promtool, or let it read the file."
        )
    state, said = verdict(ran, tried)
    return Finding(
        ID, state, shown, said, tried, "count", "critical when one fails, warning below 1 test", advice="" if state == "ok" else _ADVICE
    )


def verdict(ran: Ran, tried: int) -> tuple[str, str]:
    """Judge what promtool said; that it succeeds without rules or without a test proves nothing."""
    said = f"{ran.stdout}\n{ran.stderr}"
    if "no file match pattern" in said:
        return "critical", "It names files of rules that are not there, so what it expects not to fire was never tried."
    if ran.rc or "FAILED" in said:
        lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("Unit Testing:")]
        return "critical", clean(f"A rule does not do what its test expects: {' '.join(lines)}", 400)
    if "SUCCESS" not in said:
        return "unknown", f"promtool said nothing of tests: {ran.why()}"
    return ("ok", f"The rules do as {many(tried, 'test')} expect.") if tried else ("warning", "It holds no test.")
