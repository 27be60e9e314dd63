# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs at a hosting platform: which deployment is live is recorded before the work, and a rollback makes that one live again."""

from __future__ import annotations

import pwd
import re
import shlex
import time
import typing as t

from .backup_encryption import command_problems
from .errors import MaintenanceError, out_of_range, refusal
from .http_probe import check_url, fetch
from .record import Finding, Json, clean
from .site_command import answer_of

DEPLOYMENT: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "record": {"type": "list", "elements": "str", "required": True},
    "pattern": {"type": "str", "required": True},
    "rollback": {"type": "list", "elements": "str", "default": []},
    "promote": {"type": "list", "elements": "str", "default": []},
    "url": {"type": "str", "default": ""},
    "expect_status": {"type": "list", "elements": "int", "default": [200]},
    "settle_seconds": {"type": "float", "default": 60.0},
    "user": {"type": "str", "default": ""},
    "chdir": {"type": "path", "default": ""},
    "environment_file": {"type": "path", "default": ""},
    "timeout_seconds": {"type": "float", "default": 120.0},
}
"""One deployment: how the live one is told, and how another is made live."""

STATE = "deployments.json"
PLACE = "{deployment}"
CODE_ONLY = "database migrations and environment variables: a rollback of a deployment changes code only"
_TOKEN = re.compile(r"^(--token|-t)(=|$)")


def problems(deployments: t.Sequence[t.Mapping[str, t.Any]]) -> t.Iterator[str]:
    """Say what cannot be meant, one sentence each, from the input alone."""
    names = [entry["name"] for entry in deployments]
    for name in sorted({name for name in names if names.count(name) > 1 or not name.strip()}):
        yield f"deployments has the name {name!r} twice or empty, expected one of its own; correct it."
    for entry in deployments:
        of = f"of deployment {entry['name']}"
        if not entry["record"]:
            yield f"deployments.record {of} is empty, expected the program that tells what is live; give it."
        if entry["rollback"] and not any(PLACE in part for part in entry["rollback"]):
            yield f"deployments.rollback {of} lacks {PLACE}, which stands for the deployment that was recorded; add it."
        for option in ("record", "rollback", "promote"):
            command = entry[option]
            yield from command_problems(command, f"deployments.{option} {of}")
            if any(_TOKEN.match(part) for part in command):
                yield f"deployments.{option} {of} has a token among its arguments, which every user can read; use environment_file."
        try:
            groups = re.compile(entry["pattern"]).groups
        except re.error as error:
            yield f"deployments.pattern {of} is no regular expression ({error}); correct it."
        else:
            if groups > 1 or not entry["pattern"]:
                yield f"deployments.pattern {of} is {entry['pattern']!r}, expected one group at most, for the deployment; correct it."
        if entry["url"]:
            yield from refusal(check_url, entry["url"], f"deployments.url {of}")
        yield from (f"{problem} It is {of}." for problem in out_of_range(entry, ("timeout_seconds",), least=1))
        yield from (f"{problem} It is {of}." for problem in out_of_range(entry, ("settle_seconds",)))


def live(entry: t.Mapping[str, t.Any]) -> str:
    """Ask which deployment is live.

    :raises MaintenanceError: the program failed, or said nothing that the pattern finds.
    """
    if entry["user"]:
        try:
            pwd.getpwnam(entry["user"])
        except KeyError:
            raise MaintenanceError(f"user of deployment {entry['name']} is {entry['user']!r}, no user of this host; correct it.") from None
    said = answer_of(entry, entry["record"])
    found = re.search(entry["pattern"], said)
    if found is None or not found.group(found.lastindex or 0).strip():
        raise MaintenanceError(
            f"{entry['record'][0]} said nothing that the pattern of deployment {entry['name']} finds "
            f"({clean(said.strip(), 100) or 'no output'}); correct record or pattern."
        )
    return clean(found.group(found.lastindex or 0).strip(), 300)


def make_live(entry: t.Mapping[str, t.Any], deployment: str) -> None:
    """Make a deployment live again, and see that it is.

    :raises MaintenanceError: the platform refused, or another one is live afterwards.
    """
    if not entry["rollback"]:
        raise MaintenanceError(f"No rollback is declared for deployment {entry['name']}; make {deployment} live at the platform by hand.")
    if deployment.startswith("-"):
        raise MaintenanceError(f"The recorded deployment {deployment!r} would be taken for an option; make it live by hand.")
    answer_of(entry, [part.replace(PLACE, deployment) for part in entry["rollback"]])
    ends = time.monotonic() + entry["settle_seconds"]
    while True:
        now = live(entry)
        if now == deployment:
            return
        if time.monotonic() >= ends:
            raise MaintenanceError(
                f"After the rollback {now} is live, expected {deployment}. Some plans go back to the previous deployment only; "
                "see at the platform which ones it offers."
            )
        time.sleep(min(1.0, max(ends - time.monotonic(), 0.0)))


def unpromoted(entry: t.Mapping[str, t.Any], deployment: str) -> Finding:
    """Say that the platform gives no new deployment the domain until one is promoted."""
    how = f"Promote: {shlex.join(entry['promote'])}." if entry["promote"] else "Promote a deployment at the platform."
    words = f"{deployment} is live by a rollback: the next deployment does not go live until one is promoted"
    return Finding("rollback.promotion", "warning", str(entry["name"]), words, advice=how)


def works(entry: t.Mapping[str, t.Any]) -> tuple[str, str]:
    """Ask the declared address; return the state and what was answered."""
    if not entry["url"]:
        return "unknown", "no address is declared that would tell whether it works"
    ends = time.monotonic() + entry["settle_seconds"]
    while True:
        answer = fetch(entry["url"], timeout=10.0)
        if answer.status in entry["expect_status"]:
            return "ok", f"{entry['url']} {answer.told()}"
        if time.monotonic() >= ends:
            return "critical", f"{entry['url']} {answer.told()}"
        time.sleep(min(1.0, max(ends - time.monotonic(), 0.0)))


def recorded(entries: t.Sequence[t.Mapping[str, t.Any]], moment: str) -> t.Iterator[dict[str, Json]]:
    """Yield what of a manifest tells the live deployments."""
    for entry in entries:
        yield {"name": entry["name"], "deployment": live(entry), "recorded": moment}
