# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an evaluation by OpenSCAP finds: made now from declared content, or read from the XCCDF results (or the ARF around them) of the last."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t
from collections import Counter
from xml.parsers import expat

from .errors import InputError, MaintenanceError, out_of_range
from .judge import many
from .paths import open_regular
from .record import Finding, clean
from .security_common import Review, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "openscap_results": {"type": "path", "default": ""},
    "openscap_content": {"type": "path", "default": ""},
    "openscap_profile": {"type": "str", "default": ""},
    "openscap_timeout_seconds": {"type": "float", "default": 900.0},
    "openscap_max_age_days": {"type": "int", "default": 35},
}
IDS = ("security.openscap",)
LIMIT_BYTES = 256 * 1024 * 1024

_DAY = 86400.0
_BLOCK = 64 * 1024
_BLIND = ("error", "unknown")
_PASSED = ("pass", "fixed")
_ADVICE = "Run oscap xccdf eval with --results as root, by a timer before the review, then look again."


class Results:
    """Takes the results of rules from a stream of XML; whatever declares entities is refused, so that none can grow."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.failed: list[tuple[str, str]] = []
        self.ended = False
        self.left_out = False
        self._rule: dict[str, str] | None = None
        self._text: list[str] | None = None
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data

    def read(self, source: t.BinaryIO) -> None:
        """Read a file to its end.

        :raises MaintenanceError: it is no XML, is cut off, or declares a document type.
        """
        try:
            for block in iter(lambda: source.read(_BLOCK), b""):
                self._parser.Parse(block, False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise MaintenanceError(f"it is no whole XML ({expat.ErrorString(error.code)})") from None

    def _refuse(self, *_of: object) -> None:
        raise MaintenanceError("it declares a document type, which no result of OpenSCAP does")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if local == "TestResult":
            self.ended = self.ended or "end-time" in attributes
        elif local == "rule-result":
            self._rule = attributes
        elif local == "result" and self._rule is not None:
            self._text = []

    def _data(self, data: str) -> None:
        if self._text is not None and len(self._text) < 16:
            self._text.append(data)

    def _end(self, name: str) -> None:
        local = name.rpartition(" ")[2]
        if local == "result" and self._text is not None and self._rule is not None:
            state = "".join(self._text).strip()[:40]
            self.states[state] += 1
            if state == "fail":
                self.failed.append((self._rule.get("severity", "unknown"), self._rule.get("idref", "")))
            self._rule = self._text = None
        elif local == "rule-result":
            self._rule = None


def look(review: Review) -> list[Finding]:
    """Judge the results of the last evaluation, or of one made now."""
    content, path = review.params["openscap_content"], review.params["openscap_results"]
    try:
        if content:
            results, days = evaluated(review, content), 0.0
        else:
            results, days = read(review, path)
    except (OSError, MaintenanceError) as error:
        advice = "Correct openscap_content and openscap_profile (oscap info shows profiles), and install oscap." if content else _ADVICE
        return [unknown(IDS[0], content or path, f"there are no results that can be read: {why_unread(error)}", advice)]
    return [verdict(review, content or path, results, days)]


def read(review: Review, path: str) -> tuple[Results, float]:
    """Read results, and tell how many days old they are.

    :raises MaintenanceError: they are none.
    """
    results = Results()
    with open_regular(path) as source:
        status = os.fstat(source.fileno())
        if status.st_size > LIMIT_BYTES:
            raise MaintenanceError(f"it is larger than {LIMIT_BYTES} bytes")
        results.read(source)
    return results, (review.now.timestamp() - status.st_mtime) / _DAY


def evaluated(review: Review, content: str) -> Results:
    """Let oscap evaluate this host; nothing is fetched, nothing is corrected, and nothing is left behind.

    :raises MaintenanceError: oscap is missing, or ended with something else than "all passed" (0) or "some failed" (2).
    """
    profile = review.params["openscap_profile"]
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "results.xml")
        argv = ["oscap", "xccdf", "eval", *(["--profile", profile] if profile else []), "--results", path, content]
        ran = review.host.run(argv, timeout=review.params["openscap_timeout_seconds"], cwd=folder)
        if ran.rc not in (0, 2) or not os.path.exists(path):
            told = [line for line in ran.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            raise MaintenanceError(clean(f"oscap ended with {ran.rc}: {told[0] if told else ran.why()}", 300))
        results, _days = read(review, path)
    results.left_out = "Skipping" in ran.stderr
    return results


def verdict(review: Review, path: str, results: Results, days: float) -> Finding:
    """Judge the rules that failed by their severity; old, unfinished or blind results prove nothing."""
    passed = sum(results.states[name] for name in _PASSED)
    blind = sum(results.states[name] for name in _BLIND)
    old = not -1 <= days <= review.params["openscap_max_age_days"]
    severe = sum(severity == "high" for severity, _rule in results.failed)
    doubtful = old or blind or not results.ended or not passed
    state = "critical" if severe else "warning" if results.failed else "unknown" if doubtful else "ok"
    gaps = [f"{many(blind, 'rule')} could not be evaluated"] if blind else []
    gaps += [] if results.ended else ["the evaluation did not come to its end"]
    gaps += [f"the results are {days:.0f} days old"] if old else []
    gaps += [] if passed or results.failed else [_none_evaluated(results)]
    gaps += ["what the content would have fetched from elsewhere"] if results.left_out else []
    order = {"high": 0, "medium": 1, "low": 2}
    advice = {"ok": "", "unknown": _ADVICE}
    return Finding(
        IDS[0],
        state,
        path,
        f"{many(len(results.failed), 'rule')} failed, {severe} of high severity, {passed} passed",
        value=len(results.failed),
        unit="count",
        threshold=f"critical from 1 of high severity, warning from 1, unknown after {review.params['openscap_max_age_days']} days",
        not_covered="; ".join(gaps),
        advice=advice.get(state, "Resolve them; oscap xccdf generate report shows each rule with its remedy."),
        evidence=[
            clean(f"{severity}: {rule}", 200) for severity, rule in sorted(results.failed, key=lambda one: order.get(one[0], 3))[:20]
        ],
    )


def _none_evaluated(results: Results) -> str:
    only = set(results.states) - {"notselected"} == {"notapplicable"}
    return "no rule was evaluated" + (": the content is for another system than this" if only else "")


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = out_of_range(params, ("openscap_max_age_days", "openscap_timeout_seconds"), least=1)
    for option in ("openscap_results", "openscap_content"):
        if params[option] and not os.path.isabs(params[option]):
            wrong.append(str(InputError.of(option, params[option], "an absolute path", "correct it")))
    if params["openscap_results"] and params["openscap_content"]:
        wrong.append("openscap_results and openscap_content are both given, expected one of them; remove the other.")
    if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)?", params["openscap_profile"]):
        wrong.append(str(InputError.of("openscap_profile", params["openscap_profile"], "the name of a profile", "see oscap info")))
    return wrong


def passes_bad_sample(review: Review) -> str:
    """Plant a rule that failed; return the sample when it counts as passed."""
    results = Results()
    results._start("TestResult", {"end-time": "x"})
    results._start("rule-result", {"idref": "planted", "severity": "high"})
    results._start("result", {})
    results._data("fail")
    results._end("result")
    silent = Review({"openscap_max_age_days": 1}, review.host, True, review.now)
    return "a rule that failed as passed" if verdict(silent, "planted", results, 0.0).state == "ok" else ""
