# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a test alert through an Alertmanager, and see by its own counters whether a channel took it.

That Alertmanager accepts an alert is no delivery: the route may lead nowhere, a silence may cover it, and the channel may refuse it.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

from . import http_probe
from .errors import MaintenanceError
from .host import Host
from .record import Action, Finding, clean

OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "ca_file": {"type": "path"},
    "labels": {"type": "dict", "default": {}},
    "wait_seconds": {"type": "float", "default": 60.0},
}
ID = "alert_rules.delivery"
ALERT = "OpsMaintenanceTest"

_COUNTER = re.compile(
    r"^alertmanager_(notifications|notification_requests|notification_requests_failed)_total\{([^}]*)\} (\S+)$", re.MULTILINE
)
_ACTIVE = re.compile(r'^alertmanager_alerts\{state="active"\} (\d+)$', re.MULTILINE)
_INTEGRATION = re.compile(r'(?:^|,)integration="((?:[^"\\]|\\.)*)"')
_PAUSE = 0.25
_ADVICE = "Read the log of Alertmanager, and correct the route, the receiver or the channel; meanwhile nobody is told of anything."

Counts = dict[str, "Counter[str]"]


class UnheardError(MaintenanceError):
    """Alertmanager did not answer as it should."""


def counters(text: str) -> Counts:
    """Read how many notifications each kind of channel was to send, how often it tried, and how often it failed."""
    counts: Counts = {"notifications": Counter(), "notification_requests": Counter(), "notification_requests_failed": Counter()}
    for name, labels, value in _COUNTER.findall(text):
        kind = _INTEGRATION.search(labels)
        try:
            counts[name][kind[1] if kind else ""] += int(float(value))
        except (ValueError, OverflowError):  # NaN and infinity are no counts
            continue
    return counts


class Progress(t.NamedTuple):
    """What became of a test alert: channels that took it, and those that tried in vain or still try."""

    taken: list[str]
    open: list[str]
    is_alone: bool = True


def progress(before: Counts, after: Counts) -> Progress:
    """Compare two readings of the counters, by kind of channel."""
    started = after["notifications"] - before["notifications"]
    tried = after["notification_requests"] - before["notification_requests"]
    failed = after["notification_requests_failed"] - before["notification_requests_failed"]
    taken = {kind for kind, count in started.items() if tried[kind] - failed[kind] >= count}
    return Progress(sorted(taken), sorted(set(started) - taken))


class Delivery:
    """One test alert on its way through one Alertmanager."""

    def __init__(self, entry: t.Mapping[str, t.Any], host: Host, timeout: float) -> None:
        self.entry, self.host, self.timeout = entry, host, timeout
        self.base = str(entry["url"]).rstrip("/")
        self.labels = {**{str(key): str(value) for key, value in entry["labels"].items()}, "alertname": ALERT}

    def send(self) -> tuple[Finding, Action]:
        """Send it, wait until it went out, and take it back."""
        started = self.host.now()
        try:
            before = counters(self._metrics())
            self._post(started, started + timedelta(seconds=self.entry["wait_seconds"] + 60))
        except UnheardError as error:
            return self._finding("critical", f"No test alert could be sent: {error}."), self._action("failed", "could not be sent")
        try:
            seen = self._watch(before, started + timedelta(seconds=self.entry["wait_seconds"]))
            finding = self._judge(seen, self._alert())
        except UnheardError as error:
            finding = self._finding("unknown", f"What became of the test alert is not known: {error}.")
        return finding, self._action("changed", self._take_back(started))

    def _take_back(self, started: datetime) -> str:
        try:
            self._post(started, self.host.now())
        except UnheardError:
            return "was sent; it could not be taken back, and ends by itself"
        return "was sent and taken back"

    def _watch(self, before: Counts, until: datetime) -> Progress:
        """Look until all channels that began have taken it, twice the same, or the time is over."""
        last = Progress([], [])
        while True:
            text = self._metrics()
            others = _ACTIVE.search(text)
            seen = progress(before, counters(text))._replace(is_alone=others is not None and int(others[1]) <= 1)
            if (seen.taken and not seen.open and seen == last) or self.host.now() > until:
                return seen
            last = seen
            self.host.sleep(_PAUSE)

    def _judge(self, seen: Progress, alert: t.Mapping[str, t.Any]) -> Finding:
        status = alert.get("status") if isinstance(alert.get("status"), dict) else {}
        receivers = ", ".join(str(one.get("name")) for one in alert.get("receivers") or [] if isinstance(one, dict))
        if seen.open:
            return self._finding("critical", f"{', '.join(seen.open)} did not take the test alert (receiver {receivers}).")
        if seen.taken:
            found = self._finding("ok", f"{', '.join(seen.taken)} took the test alert (receiver {receivers}).")
            among = f"whether it was another alert that went out meanwhile; {found.not_covered}"
            return found if seen.is_alone else replace(found, basis="estimated", not_covered=among)
        if status and status.get("state") == "suppressed":
            return self._finding("critical", "The test alert was held back by a silence or an inhibition.")
        waited = f"{self.entry['wait_seconds']:g} seconds"
        return self._finding("critical", f"Alertmanager took the test alert and sent nothing within {waited} (receiver {receivers}).")

    def _finding(self, state: str, summary: str) -> Finding:
        return Finding(
            ID, state, clean(self.entry["name"], 100), clean(summary, 400), threshold="critical unless every channel of the receiver takes it",
            not_covered="whether a person saw it", advice="" if state == "ok" else _ADVICE,
        )  # fmt: skip

    def _action(self, status: str, said: str) -> Action:
        return Action(clean(self.entry["name"], 100), "test_alert", status, f"a test alert ({ALERT}) {said}")

    def _get(self, path: str) -> bytes:
        answer = http_probe.fetch(f"{self.base}{path}", timeout=self.timeout, ca_file=self.entry["ca_file"])
        if answer.status != 200:
            raise UnheardError(f"{path} {answer.told()}")
        return answer.body

    def _metrics(self) -> str:
        text = self._get("/metrics").decode("utf-8", "replace")
        if "alertmanager_notifications_total{" not in text:
            raise UnheardError("/metrics has no counters of Alertmanager")
        return text

    def _alert(self) -> t.Mapping[str, t.Any]:
        try:
            found = json.loads(self._get(f"/api/v2/alerts?filter=alertname%3D%22{ALERT}%22"))
        except ValueError as error:
            raise UnheardError(f"/api/v2/alerts is no JSON ({error})") from None
        mine = [one for one in found if isinstance(one, dict) and one.get("labels") == self.labels] if isinstance(found, list) else []
        return mine[0] if mine else {}

    def _post(self, starts: datetime, ends: datetime) -> None:
        note = "A test of the way to you by ops.maintenance; there is nothing to do."
        alert = {"labels": self.labels, "annotations": {"summary": note, "description": note}}
        times = {"startsAt": starts.isoformat(), "endsAt": ends.isoformat()}
        body = json.dumps([{**alert, **times}]).encode()
        answer = http_probe.post(f"{self.base}/api/v2/alerts", body, timeout=self.timeout, ca_file=self.entry["ca_file"])
        if answer.status != 200:
            raise UnheardError(f"/api/v2/alerts {answer.told()} {clean(answer.body.decode('utf-8', 'replace'), 100)}".strip())
