# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first rung of the ladder: what the listing of a set shows without reading any backup."""

from __future__ import annotations

import statistics

from . import backup_objectives
from .backup_inputs import needs_root
from .backup_sets import HOUR, Backup, Declared, Listing, local, made_within, missing_days, too_old
from .backup_work import FEW_LINES, MAKE_ONE, Run, finding_of
from .judge import from_limit, human_bytes, human_seconds
from .record import Finding, Metric


def judge_listing(declared: Declared, listing: Listing, newest: Backup | None, work: Run) -> None:
    """Note what the listing of a set shows: presence, age, size, completeness, retention."""
    work.findings.append(_present(declared, listing, newest))
    if newest is not None:
        work.findings += [_age(declared, newest, work), _size(declared, listing, newest)]
        work.metrics += [
            Metric("backup.age_hours", declared["name"], round((work.now - newest.moment) / HOUR, 2), "hours"),
            Metric("backup.size_bytes", declared["name"], newest.size, "bytes"),
        ]
        work.findings += _duration(declared, listing)
        # A repository's tool tells of its encryption itself.
        work.findings += backup_objectives.encryption(declared, newest) if needs_root(declared) else []
    future = [backup.path for backup in listing.backups if backup.moment > work.now + HOUR]
    if future:
        work.findings.append(
            finding_of(
                "backup.clock",
                "warning",
                declared["name"],
                f"{len(future)} backups are dated in the future",
                advice="Correct the clock, the time zone or the names; they were not taken for the newest.",
                evidence=future[:FEW_LINES],
            )
        )
    if declared["expected"]:
        work.findings.append(_completeness(declared, listing, work))
    if declared["retention"] or (declared["expected"] and declared["expected"]["keep_count"]):
        work.findings.append(_retention(declared, listing, work))


def _present(declared: Declared, listing: Listing, newest: Backup | None) -> Finding:
    evidence = [f"still being written: {path}" for path in listing.unfinished[:5]] + listing.strange[:5]
    if newest is None:
        return finding_of(
            "backup.present",
            "critical",
            declared["name"],
            f"L0: no backup matches {declared['pattern']!r} below {declared['root']}",
            advice=MAKE_ONE,
            evidence=evidence,
        )
    if listing.unfinished or listing.strange:
        return finding_of(
            "backup.present",
            "warning",
            declared["name"],
            f"L0: {len(listing.backups)} backups, newest finished one {newest.path}; "
            f"{len(listing.unfinished)} half written, {len(listing.strange)} of the wrong kind",
            evidence=evidence,
            advice="Look whether the backup job is still running or died; remove what it left behind.",
        )
    return finding_of(
        "backup.present",
        "ok",
        declared["name"],
        f"L0: {len(listing.backups)} backups, newest {newest.path}",
        value=len(listing.backups),
        unit="count",
    )


def _age(declared: Declared, newest: Backup, work: Run) -> Finding:
    age, limit = (work.now - newest.moment) / HOUR, declared["maximum_age_hours"]
    return finding_of(
        "backup.age",
        "critical" if age > limit else "ok",
        declared["name"],
        f"L0: the newest backup was made {human_seconds(max(age, 0) * HOUR)} ago",
        value=round(age, 2),
        unit="hours",
        threshold=f"critical above {limit:g} hours",
        advice=MAKE_ONE,
        evidence=[newest.path],
    )


def _size(declared: Declared, listing: Listing, newest: Backup) -> Finding:
    earlier = [backup.size for backup in listing.backups if backup.size and backup.moment < newest.moment][-7:]
    state, text = "ok", f"L0: {human_bytes(newest.size)}"
    if newest.size < declared["minimum_size_bytes"]:
        state = "critical"
        text = f"L0: the newest backup is {'empty' if not newest.size else 'only ' + human_bytes(newest.size)}"
    elif earlier:
        usual = statistics.median(earlier)
        change = (newest.size - usual) / usual * 100
        text += f", {change:+.0f} percent of the usual {human_bytes(usual)}"
        state = from_limit(abs(change), declared["size_change_percent"])
    return finding_of(
        "backup.size",
        state,
        declared["name"],
        text,
        value=newest.size,
        unit="bytes",
        evidence=[newest.path],
        threshold=f"critical below {declared['minimum_size_bytes']} bytes, warning from {declared['size_change_percent']:g} percent change",
        advice="Look what the backup lacks or suddenly holds before relying on it.",
    )


def _duration(declared: Declared, listing: Listing) -> list[Finding]:
    """Compare how long the newest backup took with those before, where names and time stamps tell."""
    took = [backup.took_seconds for backup in listing.backups if backup.took_seconds is not None][-8:]
    if len(took) < 4:
        return []
    usual = statistics.median(took[:-1])
    slow = took[-1] > 2 * usual and took[-1] - usual > 60
    return [
        finding_of(
            "backup.duration",
            "warning" if slow else "ok",
            declared["name"],
            f"making the newest backup took {human_seconds(took[-1])}, usually {human_seconds(usual)}",
            value=round(took[-1], 1),
            unit="seconds",
            basis="estimated",
            threshold="warning from twice the usual time",
            advice="Look at what grew or what else runs at that time.",
        )
    ]


def _completeness(declared: Declared, listing: Listing, work: Run) -> Finding:
    expected, name = declared["expected"], declared["name"]
    days = expected["days"]
    if expected["every"] != "daily":
        each = {"hourly": 24, "weekly": 1 / 7}[expected["every"]]
        made, wanted = len(made_within(listing.backups, work.now, days)), max(int(days * each), 1)
        return finding_of(
            "backup.completeness",
            "critical" if made < wanted else "ok",
            name,
            f"{made} of {wanted} {expected['every']} backups in the last {days} days",
            value=made,
            unit="count",
            threshold=f"critical below {wanted}",
            advice=MAKE_ONE,
        )
    missing = missing_days(listing.backups, work.now, work.zone, days)
    text = f"{days - len(missing)} of {days} daily backups"
    if missing:
        text += ", none of " + ", ".join(day.isoformat() for day in missing)
    return finding_of(
        "backup.completeness",
        "ok" if not missing else "critical" if len(missing) == days else "warning",
        name,
        text,
        value=days - len(missing),
        unit="count",
        threshold=f"warning below {days}",
        advice="Look in the job's log why it made none on these days; a gap is lost history.",
        evidence=[f"days are those of {local(work.now, work.zone).tzname()}"],
    )


def _retention(declared: Declared, listing: Listing, work: Run) -> Finding:
    rule = declared["retention"] or {"maximum_age_days": float("inf"), "minimum_count": 1}
    wanted = max((declared["expected"] or {}).get("keep_count", 0), rule["minimum_count"])
    holding = [backup for backup in listing.backups if backup.size]
    old = too_old(listing.backups, work.now, rule["maximum_age_days"], wanted)
    text = f"{len(holding)} backups kept"
    if old:
        text += f", {len(old)} of them older than {rule['maximum_age_days']:g} days"
    if len(holding) < wanted:
        text += f", {wanted} are wanted"
    return finding_of(
        "backup.retention",
        "warning" if old or len(holding) < wanted else "ok",
        declared["name"],
        text,
        value=len(holding),
        unit="count",
        threshold=f"warning below {wanted} kept, or older than {rule['maximum_age_days']:g} days",
        advice="Let the backup job's own clean-up run; nothing is deleted here. The newest ones always stay."
        if old
        else "Look why backups are missing, or who removed them, before anything else is removed.",
        evidence=[backup.path for backup in old[:FEW_LINES]],
    )
