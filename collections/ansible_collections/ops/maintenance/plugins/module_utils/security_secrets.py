# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long ago keys and passwords were replaced, from what is known about them and never from themselves."""

from __future__ import annotations

import json
import os
import stat
import typing as t
from datetime import date, datetime, timezone

from . import security_accounts
from .errors import InputError, MaintenanceError, out_of_range
from .judge import from_limit, limits
from .paths import open_regular
from .record import Finding
from .security_app_users import moment_of
from .security_common import READ_LIMIT_BYTES, Review, filled, unknown, why_unread

SECRET: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["file", "password", "date", "env", "json"], "required": True},
    "path": {"type": "path", "default": ""},
    "account": {"type": "str", "default": ""},
    "date": {"type": "str", "default": ""},
    "date_key": {"type": "str", "default": "", "no_log": False},
    "warning_days": {"type": "int", "default": 90},
    "critical_days": {"type": "int"},
}
OPTIONS: dict[str, t.Any] = {"secrets": {"type": "list", "elements": "dict", "default": [], "no_log": False, "options": SECRET}}
IDS = ("security.secret_age",)

_DAY = 86400.0
_NEEDS = {"file": ("path",), "password": ("account",), "date": ("date",), "env": ("path", "date_key"), "json": ("path", "date_key")}


def look(review: Review) -> list[Finding]:
    """Judge each declared secret by its age."""
    return [_one(review, secret) for secret in review.params["secrets"]]


def _one(review: Review, secret: t.Mapping[str, t.Any]) -> Finding:
    try:
        replaced, basis, of = _replaced(review, secret)
    except (OSError, MaintenanceError) as error:
        advice = "Correct the declaration, or run with become: true."
        return unknown(IDS[0], secret["name"], f"its age is not known: {why_unread(error)}", advice)
    days = (review.now.timestamp() - replaced) / _DAY
    if days < -1:
        return unknown(IDS[0], secret["name"], f"{of} lies {-days:.0f} days ahead", "Correct the date, or the clock of this host.")
    review.count(IDS[0], secret["name"], round(days, 1), "days")
    state = from_limit(days, secret["warning_days"], secret["critical_days"])
    day = datetime.fromtimestamp(replaced, timezone.utc).date().isoformat()
    return Finding(
        IDS[0],
        state,
        secret["name"],
        f"replaced {max(days, 0):.0f} days ago, on {day}, by {of}",
        value=round(max(days, 0.0), 1),
        unit="days",
        threshold=limits("days since it was replaced", secret["warning_days"], secret["critical_days"]),
        basis=basis,
        advice="Replace it; keep old and new valid together until every consumer was restarted." if state != "ok" else "",
    )


def _replaced(review: Review, secret: t.Mapping[str, t.Any]) -> tuple[float, str, str]:
    """Return when a secret was replaced, how sure that is, and by what it is told.

    :raises MaintenanceError: nothing tells it.
    """
    if secret["kind"] == "date":
        return _moment(secret["date"], review, "the declared date"), "exact", "the declared date"
    if secret["kind"] == "password":
        return _password(review, secret["account"]), "exact", "the shadow file"
    if secret["kind"] == "file":
        status = os.lstat(secret["path"])
        if not stat.S_ISREG(status.st_mode):
            raise MaintenanceError(f"{secret['path']} is not a regular file; name the file itself")
        return status.st_mtime, "estimated", "the time of its file"
    value = _dated(secret)
    of = f"{secret['date_key']} in {secret['path']}"
    return _moment(value, review, of), "exact", of


def _moment(value: t.Any, review: Review, of: str) -> float:
    moment = moment_of(value, review.now.timestamp()) if value is not None else None
    if moment is None:
        raise MaintenanceError(f"{of} is no date such as 2026-10-01")  # never the value: it may be the secret
    return moment


def _password(review: Review, account: str) -> float:
    shadow = security_accounts.shadows(review.etc).get(account)
    if shadow is None:
        raise MaintenanceError(f"the shadow file has no account {account}")
    if shadow.changed <= 0:
        raise MaintenanceError(f"the shadow file has no day on which {account} changed its password")
    return shadow.changed * _DAY


def _dated(secret: t.Mapping[str, t.Any]) -> t.Any:
    """Return the value of the one key that holds the date."""
    with open_regular(secret["path"]) as source:
        text = source.read(READ_LIMIT_BYTES).decode("utf-8", "replace")
    missing = MaintenanceError(f"{secret['path']} has no {secret['date_key']}")
    if secret["kind"] == "env":
        for line in text.splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and name.split()[-1:] == [secret["date_key"]]:  # "export NAME=" too
                return value.strip().strip("\"'")
        raise missing
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise MaintenanceError(f"{secret['path']} is not JSON") from None
    for part in secret["date_key"].split("."):
        if not isinstance(value, dict) or part not in value:
            raise missing
        value = value[part]
    return value


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = []
    for secret in params["secrets"]:
        where = f"secrets, {secret['name']}"
        lacking = [name for name in _NEEDS[secret["kind"]] if not secret[name].strip()]
        wrong += [
            str(InputError.of(f"{name} of {where}", "", f"a value, as kind {secret['kind']} needs one", "give it")) for name in lacking
        ]
        if secret["path"] and not os.path.isabs(secret["path"]):
            wrong.append(str(InputError.of(f"path of {where}", secret["path"], "an absolute path", "write it from the root on")))
        if secret["date"]:
            try:
                date.fromisoformat(secret["date"])
            except ValueError:
                wrong.append(str(InputError.of(f"date of {where}", secret["date"], "a day such as 2026-10-01", "correct it")))
        wrong += [f"{problem} It is in {where}." for problem in out_of_range(secret, ("warning_days", "critical_days"), least=1)]
    return wrong


def passes_bad_sample(review: Review) -> str:
    """Plant an old secret; return the sample when it counts as a young one."""
    planted = filled(SECRET, {"name": "planted", "kind": "date", "date": "2000-01-01"})
    return "a secret of the year 2000 as a young one" if _one(Review({}, review.host, True, review.now), planted).state == "ok" else ""
