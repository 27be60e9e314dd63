# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: whether the write-ahead log reaches its archive, and how far behind that is."""

from __future__ import annotations

import typing as t

from .judge import human_seconds, many
from .postgresql import Row
from .postgresql_review_common import About, Check, Fault, Wording, found
from .record import Finding

# A segment waits from the moment its .ready file is made; the files that are done are many and of no interest.
ARCHIVER = """
SELECT current_setting('archive_mode') AS mode, s.last_failed_wal AS failed,
       coalesce(s.last_failed_time > coalesce(s.last_archived_time, '-infinity'), false) AS fails,
       w.waiting, w.seconds
FROM pg_stat_archiver s,
     (SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(modification)), 0)::float8 AS seconds
      FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') w"""

ARCHIVE = Wording(
    "postgresql.archiving",
    "the write-ahead log is archived as it is written",
    "the write-ahead log does not reach its archive",
    "See the server's log for what archive_command said; until it works a restore ends at the last archived segment, and pg_wal fills the disk.",
    "seconds",
)


def judge_archive(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge how long the oldest segment has waited, and whether the last attempt failed."""
    row = rows[0]
    if row["mode"] == "off":
        return found(about, ARCHIVE, [], fine="archive_mode is off: a restore ends at the last backup")
    waits = f"{many(row['waiting'], 'segment')} waiting, the oldest for {human_seconds(row['seconds'])}"
    about.count("archive_lag", row["seconds"], "seconds")
    faults = []
    if row["fails"]:
        faults.append(Fault(f"{row['failed']} could not be archived, {waits}", row["seconds"], "critical"))
    elif (state := about.level(row["seconds"], "archive_lag_seconds")) != "ok":
        faults.append(Fault(waits, row["seconds"], state))
    quiet = about.setting("archive_timeout", 0) == 0
    also = ["archive_timeout is 0: of a quiet server the newest changes reach the archive late"] if quiet else []
    said = Wording(ARCHIVE.id, ARCHIVE.fine, ARCHIVE.wrong, ARCHIVE.advice, ARCHIVE.unit, about.said("archive_lag_seconds"))
    return found(about, said, faults, value=row["seconds"], also=also, fine=f"{ARCHIVE.fine}; {waits}" if row["waiting"] else "")


CHECKS = (
    Check(
        (ARCHIVE.id,),
        lambda look: look.rows(ARCHIVER),
        judge_archive,
        lambda: [{"mode": "on", "failed": "000000010000000000000001", "fails": False, "waiting": 9000, "seconds": 1e6}],
        primary=True,
    ),
)
