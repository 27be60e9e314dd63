# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: version, settings, autovacuum, wraparound, checksums."""

from __future__ import annotations

import contextlib
import hashlib
import re
import typing as t
from datetime import date

from .errors import MaintenanceError
from .postgresql import Row
from .postgresql_programs import find_program
from .postgresql_review_common import About, Check, Fault, Look, Wording, found, percent
from .postgresql_upkeep_settings import is_here
from .record import Finding, clean

SETTINGS = """
SELECT name, setting, unit, vartype AS type, source, pending_restart FROM pg_settings ORDER BY name"""

WRAPAROUND = """
SELECT datname AS name, age(datfrozenxid) AS xid_age, mxid_age(datminmxid) AS mxid_age, datallowconn AS connects FROM pg_database"""

CHECKSUMS = """
SELECT coalesce(datname, 'what all databases share') AS name, checksum_failures AS failures, checksum_last_failure AS last
FROM pg_stat_database"""

END_OF_LIFE = {
    13: date(2025, 11, 13),
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""When the project stops publishing fixes for a major version."""

_XIDS = 2**31
_OF_THE_SESSION = ("client", "session", "override", "test")
_SECRET = re.compile(r"conninfo|_command$|passphrase|password(?!_encryption)")
_UNITS = {
    "B": ("bytes", 1), "kB": ("bytes", 1024), "8kB": ("bytes", 8192), "MB": ("bytes", 1024**2), "16MB": ("bytes", 16 * 1024**2),
    "GB": ("bytes", 1024**3), "TB": ("bytes", 1024**4), "us": ("seconds", 1e-6), "ms": ("seconds", 1e-3), "s": ("seconds", 1),
    "min": ("seconds", 60), "h": ("seconds", 3600), "d": ("seconds", 86400),
}  # fmt: skip
_WANTED = re.compile(r"^\s*(?P<compare><=|>=|=)?\s*(?P<value>.*?)\s*$", re.DOTALL)
_NUMBER = re.compile(r"^(-?\d+(?:\.\d+)?)\s*([A-Za-z]*)$")
_TRUE, _FALSE = ("on", "true", "yes", "1"), ("off", "false", "no", "0")

VERSION = Wording(
    "postgresql.version",
    "",
    "reasons to update",
    "Install the newest minor release from its package and restart in a maintenance window; it needs no dump.",
    "",
)
RECOMMENDED = Wording(
    "postgresql.settings",
    "every setting is as recommended",
    "settings differ from what is recommended",
    "ALTER SYSTEM SET them, or correct the recommendation; reload or restart as the setting wants.",
    counted=True,
)
CHANGED = Wording(
    "postgresql.settings_changed",
    "no setting changed since the last run",
    "settings changed since the last run, or wait for a restart",
    "Make sure that somebody meant it; restart in a maintenance window what waits for one.",
    counted=True,
)
AUTOVACUUM = Wording(
    "postgresql.autovacuum",
    "autovacuum is on",
    "settings keep autovacuum from working",
    "Switch autovacuum and track_counts on: without them tables bloat and transaction numbers run out.",
    counted=True,
)
WRAP = Wording(
    "postgresql.wraparound",
    "transaction numbers are far from their end",
    "databases come close to the end of their transaction numbers",
    "VACUUM (FREEZE) the oldest tables; end what holds them back: long transactions, prepared ones, slots. At the end nothing can be written.",
    "percent",
)
CHECKSUM = Wording(
    "postgresql.checksum_failures",
    "no damaged page was met",
    "databases have damaged pages",
    "Stop relying on this storage: find the pages with pg_amcheck, restore from a proven backup, replace the disk.",
)


# -- settings --


def measure(text: str, unit: str | None = None) -> tuple[str, float] | None:
    """Return a value in the base of its kind: ``1GB`` is 1073741824 bytes; None where it is no number.

    :param unit: the server's unit, which holds for a number without one.
    """
    match = _NUMBER.match(text.strip())
    if not match:
        return None
    number, own = float(match.group(1)), match.group(2)
    if not own and unit in (None, ""):
        return "", number
    kind = _UNITS.get(own or str(unit))
    return None if kind is None else (kind[0], number * kind[1])


def fits(wanted: str, row: Row) -> bool | None:
    """Whether a setting is as recommended (``>=`` and ``<=`` are understood); None when they cannot be compared."""
    match = _WANTED.match(wanted)
    compare, value = (match.group("compare") or "=", match.group("value")) if match else ("=", wanted)
    if row["type"] in ("integer", "real"):
        want, have = measure(value, row["unit"]), measure(row["setting"], row["unit"])
        if want is None or have is None or want[0] != have[0]:
            return None
        return (
            (compare == "=" and want[1] == have[1]) or (compare == ">=" and have[1] >= want[1]) or (compare == "<=" and have[1] <= want[1])
        )
    if compare != "=":
        return None
    if row["type"] == "bool":
        lower = value.lower()
        return None if lower not in _TRUE + _FALSE else (lower in _TRUE) == (row["setting"] == "on")
    if row["type"] == "enum":
        return value.lower() == str(row["setting"]).lower()
    return value == str(row["setting"])


def _shown(row: Row) -> str:
    return (
        "a value that is not shown"
        if _SECRET.search(row["name"])
        else clean(f"{row['setting']}{' x ' + row['unit'] if row['unit'] else ''}", 60)
    )


def judge_recommended(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge settings against those that the inventory recommends."""
    by_name = {row["name"]: row for row in rows}
    wanted = {str(name): _text(value) for name, value in about.params["recommended_settings"].items()}
    faults, unseen = [], []
    for name, value in sorted(wanted.items()):
        row = by_name.get(name)
        fit = None if row is None else fits(value, row)
        if row is None:
            unseen.append(f"{name} is not known to this server or hidden from this role")
        elif fit is None:
            unseen.append(f"{name} is {_shown(row)}, which cannot be compared with {value!r}")
        elif not fit:
            faults.append(Fault(f"{name} is {_shown(row)}, recommended {value}"))
    remedy = "Correct the name or the unit in recommended_settings, or GRANT pg_read_all_settings to the review's role."
    return found(about, RECOMMENDED, faults, unseen="; ".join(unseen[:5]), remedy=remedy, fine=f"{len(wanted)} settings are as recommended")


def _text(value: t.Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def judge_changed(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Compare the settings with the last run's; values that may hold a password are compared, never shown."""
    now = {row["name"]: _kept(row) for row in rows if row["source"] not in (*_OF_THE_SESSION, "default")}
    last = about.kept.get("settings")
    about.keep["settings"] = now
    by_name = {row["name"]: row for row in rows}
    faults = [Fault(f"{row['name']} waits for a restart", 1) for row in rows if row["pending_restart"]]
    for name in sorted({*now, *last}) if last is not None else ():
        before, after = (values.get(name, "its default") for values in (last or {}, now))
        if before != after:
            hidden = bool(_SECRET.search(name))
            gone = name in by_name and by_name[name]["source"] in _OF_THE_SESSION
            if not gone:
                faults.append(Fault(f"{name} changed" if hidden else f"{name}: {clean(before, 60)} → {clean(after, 60)}"))
    gap = "" if last is not None else "changes: there is no earlier run to compare with"
    fine = CHANGED.fine if last is not None else "no setting waits for a restart"
    return found(about, CHANGED, faults, not_covered=gap, fine=fine)


def _kept(row: Row) -> str:
    value = f"{row['setting']}{' x ' + row['unit'] if row['unit'] else ''}"
    return hashlib.sha256(value.encode()).hexdigest() if _SECRET.search(row["name"]) else value


def judge_autovacuum(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge whether autovacuum can work at all."""
    values = {row["name"]: row["setting"] for row in rows}
    faults = [Fault(f"{name} is off", state="critical") for name in ("autovacuum", "track_counts") if values.get(name) != "on"]
    return found(about, AUTOVACUUM, faults)


# -- version --


def fetch_version(look: Look) -> Row:
    """Read the running version, and that of the installed package where the server is on this host."""
    number = int(look.rows("SELECT current_setting('server_version_num') AS number")[0]["number"])
    installed = ""
    if is_here(look.session):
        with contextlib.suppress(MaintenanceError):
            ran = look.host.run([find_program("postgres", number // 10000), "--version"], timeout=10)
            installed = ran.stdout if ran.rc == 0 else ""
    return {"number": number, "installed": installed}


def judge_version(about: About, facts: Row) -> list[Finding]:
    """Judge the running version against the newest declared, the installed one, and the end of its life."""
    major, minor = divmod(facts["number"], 10000)
    declared = {str(name): str(value) for name, value in about.params["newest_minor"].items()}.get(str(major))
    newest = int(declared.rpartition(".")[2]) if declared else None
    match = re.search(rf"\) {major}\.(\d+)", facts["installed"])
    packaged = int(match.group(1)) if match else None
    faults = []
    if newest is not None and minor < newest:
        faults.append(Fault(f"{major}.{minor} runs, {major}.{newest} is the newest"))
    if packaged is not None and minor < packaged:
        faults.append(Fault(f"{major}.{minor} runs, {major}.{packaged} is installed and waits for a restart"))
    end = END_OF_LIFE.get(major)
    if end and about.now.date() > end:
        faults.append(Fault(f"version {major} gets no fixes since {end}", 1, "critical"))
    about.count("version", facts["number"], "number")
    unseen = ""
    if newest is None and packaged is None:
        unseen = f"{major}.{minor} runs; which minor release is the newest is neither declared (newest_minor) nor seen from a package here"
    gap = (
        "whether there is a release newer than the installed package: newest_minor does not say"
        if newest is None and packaged is not None
        else ""
    )
    fine = f"{major}.{minor} runs, the newest declared" if newest is not None else f"{major}.{minor} runs, as the package that is installed"
    return found(about, VERSION, faults, unseen=unseen, remedy="Declare newest_minor for this major version.", fine=fine, not_covered=gap)


# -- wraparound, checksums --


def judge_wraparound(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge the age of every database, templates and those that allow no connection too."""
    faults, highest = [], 0.0
    for row in rows:
        share = max(percent(row["xid_age"], _XIDS), percent(row["mxid_age"], _XIDS))
        highest = max(highest, share)
        state = about.level(share, "wraparound_percent")
        if state != "ok":
            closed = "" if row["connects"] else ", which allows no connection"
            faults.append(Fault(f"{row['name']}{closed}: {share:.1f} percent of the transaction numbers are used", share, state))
    about.count("wraparound", highest, "percent")
    wording = Wording(WRAP.id, WRAP.fine, WRAP.wrong, WRAP.advice, "percent", about.said("wraparound_percent"))
    return found(about, wording, faults, value=highest)


def judge_checksums(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge checksum failures; without checksums nobody would notice any."""
    if about.settings.get("data_checksums") != "on":
        remedy = "Switch them on with pg_checksums --enable while the server is stopped."
        return found(about, CHECKSUM, [], unseen="data checksums are off, so a damaged page would not be noticed", remedy=remedy)
    faults = [
        Fault(f"{row['name']}: {row['failures']} failures, the last at {row['last']:%Y-%m-%d %H:%M}", row["failures"], "critical")
        for row in rows
        if row["failures"]
    ]
    return found(about, CHECKSUM, faults, value=0, not_covered="" if faults else "pages that nobody has read")


def _bad_settings() -> list[Row]:
    row = {"setting": "off", "unit": None, "type": "bool", "source": "configuration file", "pending_restart": True}
    return [{**row, "name": "autovacuum"}, {**row, "name": "track_counts"}]


def _bad_checksum() -> list[Row]:
    return [{"name": "d", "failures": 1, "last": About("").now}]


def fetch_settings(look: Look) -> list[Row]:
    """Read all settings."""
    return look.rows(SETTINGS)


CHECKS = (
    Check((VERSION.id,), fetch_version, judge_version, lambda: {"number": 130000, "installed": "postgres (PostgreSQL) 13.99"}),
    Check(
        (RECOMMENDED.id,), fetch_settings, judge_recommended, _bad_settings, declared=lambda params: bool(params["recommended_settings"])
    ),
    Check((CHANGED.id,), fetch_settings, judge_changed, _bad_settings),
    Check((AUTOVACUUM.id,), fetch_settings, judge_autovacuum, _bad_settings),
    Check(
        (WRAP.id,),
        lambda look: look.rows(WRAPAROUND),
        judge_wraparound,
        lambda: [{"name": "d", "xid_age": _XIDS, "mxid_age": 0, "connects": True}],
    ),
    Check((CHECKSUM.id,), lambda look: look.rows(CHECKSUMS), judge_checksums, _bad_checksum),
)
