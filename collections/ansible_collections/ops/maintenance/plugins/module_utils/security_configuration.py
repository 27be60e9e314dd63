# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed in configuration files since a person last accepted them: names and keyed digests of variables, never a value."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pwd
import re
import secrets
import tempfile
import typing as t
from datetime import datetime, timezone

from . import security_last_seen
from .errors import InputError, MaintenanceError
from .judge import many
from .paths import open_regular, read_state
from .record import Finding, clean
from .security_common import READ_LIMIT_BYTES, Review, filled, unknown, why_unread

FILE: dict[str, t.Any] = {
    "path": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["env", "json", "file"], "default": "env"},
}
OPTIONS: dict[str, t.Any] = {"configurations": {"type": "list", "elements": "dict", "default": [], "options": FILE}}
IDS = ("security.configuration",)
STATE_FILE = "security_configuration.json"

_ASSIGNED = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.\-]{0,99})\s*[=:]\s?(.*)")
_SHOWN = 8
_DEEPEST = 40


def env_values(text: str) -> dict[str, str]:
    """Return the variables of a file of assignments, what is quoted over several lines as one value.

    Lines that assign nothing belong together under one name that no variable can have, so that nothing of them is ever shown.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    in_key = False
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        assigned = _ASSIGNED.fullmatch(line)
        begins = "-----BEGIN " in line
        # The last line of a key ends with =, too.
        if not assigned or in_key or assigned.group(2) == "=":
            rest.append(line)
            in_key = (in_key or begins) and "-----END " not in line
            continue
        name, value = assigned.groups()
        quote = value[:1]
        if quote in ("'", '"') and not _closes(value, quote):
            for further in lines:
                value += "\n" + further
                if _closes(further, quote, inside=True):
                    break
        else:
            in_key = begins and "-----END " not in line
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return {**found, "(lines without a name)": "\n".join(rest)} if rest else found


def _closes(value: str, quote: str, inside: bool = False) -> bool:
    """Whether a text in quotes ends on this line."""
    return re.search(rf"(?<!\\){quote}", value if inside else value[1:]) is not None


def json_values(text: str) -> dict[str, str]:
    """Return the values of a JSON document by the path of their keys.

    :raises MaintenanceError: it is none.
    """
    try:
        document = json.loads(text, object_pairs_hook=_whole_object)
    except (ValueError, RecursionError):
        raise MaintenanceError("it is not JSON") from None
    found: dict[str, str] = {}
    _flatten(document, "", found, 0)
    return found


def _whole_object(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    """Keep every value of a key that is there twice, for programs differ in which one counts."""
    found: dict[str, list[t.Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _flatten(value: t.Any, place: str, found: dict[str, str], depth: int) -> None:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if depth >= _DEEPEST or not parts:
        told = json.dumps(value, sort_keys=True)
        where = place or "(document)"
        found[where] = f"{found[where]}\n{told}" if where in found else told
    for name, part in parts:
        _flatten(part, f"{place}.{name}" if place else str(name), found, depth + 1)


def _whole(text: str) -> dict[str, str]:
    return {"(content)": text}


_VALUES: dict[str, t.Callable[[str], dict[str, str]]] = {"env": env_values, "json": json_values, "file": _whole}


def digests(kind: str, text: str, key: bytes) -> dict[str, str]:
    """Return names and digests. The key is this host's own, so that nobody can try values against a digest in a report."""

    def digest(name: str, value: str) -> str:
        return hmac.new(key, f"{name}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    return {name: digest(name, value) for name, value in _VALUES[kind](text).items()}


def look(review: Review) -> list[Finding]:
    """Compare every declared file with what was accepted; the first sight is, and a later one when a person says so."""
    try:
        known = read_state(review.params["state_dir"], STATE_FILE)
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[0], "configuration", f"what was accepted cannot be read: {error}", "Follow that advice.")]
    kept = {"key": known.get("key") or secrets.token_hex(32), "files": dict(known.get("files", {}))}
    findings = [_one(review, declared, known.get("files", {}).get(declared["path"]), kept) for declared in review.params["configurations"]]
    if not review.check_mode and kept["files"] != known.get("files"):
        review.keep(STATE_FILE, kept)
    return findings


def _one(review: Review, declared: t.Mapping[str, t.Any], before: t.Mapping[str, t.Any] | None, kept: dict[str, t.Any]) -> Finding:
    path = declared["path"]
    try:
        with open_regular(path) as source:
            status = os.fstat(source.fileno())
            raw = source.read(READ_LIMIT_BYTES + 1)
        if len(raw) > READ_LIMIT_BYTES:
            raise MaintenanceError(f"it is larger than {READ_LIMIT_BYTES} bytes")
        now = digests(declared["kind"], raw.decode("utf-8", "surrogateescape"), bytes.fromhex(kept["key"]))
    except (OSError, ValueError, MaintenanceError) as error:
        return unknown(IDS[0], path, f"it could not be compared: {why_unread(error)}", "Correct path and kind, or run with become: true.")
    accepted = review.params["accept_baseline"]
    if before is None or accepted:
        kept["files"][path] = {"values": now, "accepted": review.now.isoformat()}
    return verdict(path, now, before, status, accepted, _who(os.path.dirname(review.etc) or "/", status.st_mtime))


def _who(root: str, written: float) -> str:
    """Say who may have written a file: those who logged in within the day before."""
    try:
        names = security_last_seen.logged_in(root, written - 86400, written)
    except (OSError, MaintenanceError, EOFError) as error:
        return f"who logged in before it was written cannot be told: {why_unread(error)}"
    return f"logged in within the day before it was written: {', '.join(clean(name, 40) for name in names[:10]) or 'nobody'}"


def verdict(
    path: str, now: t.Mapping[str, str], before: t.Mapping[str, t.Any] | None, status: os.stat_result, accepted: bool, who: str
) -> Finding:
    """Say which variables came, went or changed since, by name and digest, when the file was last written and who was there."""
    old = before["values"] if before else now
    lines = [f"new: {clean(name, 100)} ({now[name][:_SHOWN]})" for name in sorted(set(now) - set(old))]
    lines += [f"gone: {clean(name, 100)} ({old[name][:_SHOWN]})" for name in sorted(set(old) - set(now))]
    lines += [
        f"changed: {clean(name, 100)} ({old[name][:_SHOWN]} to {now[name][:_SHOWN]})"
        for name in sorted(set(now) & set(old))
        if old[name] != now[name]
    ]
    written = datetime.fromtimestamp(status.st_mtime, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    since = f"since it was accepted on {before['accepted'][:10]}" if before else "at first sight"
    bad = bool(lines) and not accepted
    return Finding(
        IDS[0],
        "warning" if bad else "ok",
        path,
        f"{many(len(lines), 'change')} of {many(len(now), 'variable')} {since}; last written {written}, owner {_owner(status.st_uid)}",
        value=len(lines),
        unit="count",
        threshold="warning from the first change since it was accepted",
        not_covered="changes before this run" if before is None else "who of them wrote it, or which program",
        advice="Find out who made each change; then accept it with security_review_accept_baseline, or undo it." if bad else "",
        evidence=[*lines[:19], who] if lines else [],
    )


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    paths = [declared["path"] for declared in params["configurations"]]
    wrong = [
        str(InputError.of("configurations.path", path, "an absolute path", "write it from the root on"))
        for path in paths
        if not path.startswith("/")
    ]
    return wrong + [
        str(InputError.of("configurations.path", path, "each file once", "leave one out"))
        for path in sorted({p for p in paths if paths.count(p) > 1})
    ]


def passes_bad_sample(review: Review) -> str:
    """Plant a file whose variable has another value than the accepted one; return the sample when it counts as unchanged."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, ".env")
        with open(path, "w", encoding="utf-8") as sample:
            sample.write("PLANTED=after\n")
        kept = {"key": "00" * 32, "files": {}}
        before = {"values": digests("env", "PLANTED=before\n", bytes(32)), "accepted": review.now.isoformat()}
        silent = Review({**review.params, "accept_baseline": False}, review.host, True, review.now)
        found = _one(silent, filled(FILE, {"path": path}), before, kept)
        return "a changed variable as an unchanged one" if found.state != "warning" else ""
