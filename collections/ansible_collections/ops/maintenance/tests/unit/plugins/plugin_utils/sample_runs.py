# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journals as real runs leave them, made up: for tests and the benchmark of the report."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ansible_collections.ops.maintenance.plugins.plugin_utils import journal

Line = dict[str, Any]
START = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)

CHECKLIST = [
    {"id": "backup_recent", "text": "Latest daily backup completed", "kind": "automated", "phase": "pre", "evidence": ["backup.age"]},
    {
        "id": "backup_proven",
        "text": "Backup integrity tested",
        "kind": "automated",
        "phase": "pre",
        "evidence": ["backup.level", "backup.integrity"],
    },
    {"id": "disk_space", "text": "Adequate disk space", "kind": "automated", "phase": "pre", "evidence": ["preflight.disk"]},
    {"id": "notify", "text": "Stakeholders told 24 hours ahead", "kind": "attestation", "phase": "pre", "evidence": []},
    {"id": "snapshot", "text": "Pre-maintenance snapshot made", "kind": "automated", "phase": "during", "evidence": ["snapshot"]},
    {"id": "database", "text": "Database optimized and intact", "kind": "automated", "phase": "during", "evidence": ["sqlite_upkeep"]},
    {"id": "services", "text": "All services running and responsive", "kind": "automated", "phase": "post", "evidence": ["validation.*"]},
    {"id": "logs_clean", "text": "No critical errors in logs", "kind": "automated", "phase": "post", "evidence": ["logs.new_pattern"]},
    {"id": "lighthouse", "text": "Front-end audit passed", "kind": "automated", "phase": "post", "evidence": ["frontend.lighthouse"]},
]
DUTIES = [
    {"id": "performed_by", "text": "Maintenance performed by"},
    {"id": "verified_by", "text": "Maintenance verified by"},
    {"id": "recommendations", "text": "Recommendations for next week approved"},
    {"id": "access_review", "text": "Review of administrator accounts", "due": "2026-11-30"},
]
BUDGETS = {"patching": 2700, "database_maintenance": 1800, "log_rotation": 1200, "backup_verification": 60, "security_review": 1200}


def finding(found_id: str, state: str, subject: str, summary: str, value: Any = None, unit: str = "", **more: Any) -> Line:
    """Make a finding as modules do."""
    advice = "" if state == "ok" else more.pop("advice", f"Look into {found_id}.")
    return {
        "id": found_id, "state": state, "subject": subject, "summary": summary, "value": value, "unit": unit, "threshold": "",
        "basis": "exact", "as_of": "", "not_covered": "", "advice": advice, "evidence": [], **more,
    }  # fmt: skip


def metric(name: str, subject: str, value: float, unit: str) -> Line:
    """Make a metric as modules do."""
    return {"name": name, "subject": subject, "value": value, "unit": unit}


def action(subject: str, operation: str, status: str, summary: str, before: Any = None, after: Any = None) -> Line:
    """Make an action as modules do."""
    return {"subject": subject, "operation": operation, "status": status, "summary": summary, "before": before or {}, "after": after or {}}


@dataclass
class SampleRun:
    """Writes the lines of one run, each a little later than the one before."""

    cadence: str = "weekly"
    start: datetime = START
    check_mode: bool = False
    run_id: str = ""
    lines: list[Line] = field(default_factory=list)
    clock: datetime = START

    def __post_init__(self) -> None:
        self.clock = self.start
        self.run_id = self.run_id or f"{self.cadence}-{self.start:%Y%m%dT%H%M%SZ}-{random.Random(str(self.start)).randrange(65536):04x}"

    def add(self, kind: str, **fields: Any) -> Line:
        """Append a line."""
        line = {
            "schema": journal.SCHEMA, "kind": kind, "run_id": self.run_id, "seq": len(self.lines) + 1, "time": self.clock.isoformat(), **fields,
        }  # fmt: skip
        self.lines.append(line)
        return line

    def opened(self, **fields: Any) -> SampleRun:
        """Append the first line."""
        known = {
            "cadence": self.cadence, "playbook": f"{self.cadence}.yml", "check_mode": self.check_mode, "started": self.clock.isoformat(),
            "control": {"host": "control01", "user": "automation", "pid": 4242, "pid_started": "99"}, "performed_by": "Mara Lindt",
            "job": None, "versions": {"collection": "0.1.0", "ansible_core": "2.19.4", "python": "3.11.7"}, "options": {"tags": ["all"]},
        }  # fmt: skip
        self.add("run", **{**known, **fields})
        return self

    def plan(self, system: str, hosts: list[str], **fields: Any) -> SampleRun:
        """Append a system's plan."""
        start = self.start.replace(minute=0)
        known = {
            "system": system, "title": system.replace("_", " ").title(), "hosts": hosts, "checklist": CHECKLIST, "duties": DUTIES,
            "window": {"start": start.isoformat(), "end": (start + timedelta(hours=4)).isoformat(), "timezone": "Europe/Berlin",
                       "rule": "FREQ=WEEKLY;BYDAY=SA;BYHOUR=3;BYMINUTE=0", "forced": False, "reason": "inside the window"},
            "next_windows": [(start + timedelta(days=7 * n)).isoformat() for n in (1, 2, 3)], "faults": [],
            "contacts": {"operations": "ops@example.org", "on_call": "+49 30 5550123"}, "targets": {}, "budgets": BUDGETS,
            "services": ["fossawork-backend", "fossawork-frontend"],
        }  # fmt: skip
        self.add("plan", **{**known, **fields})
        return self

    def record(self, system: str, host: str, role: str, operation: str, took: float = 5.0, **fields: Any) -> SampleRun:
        """Append a record that took some seconds."""
        begun = self.clock
        self.clock += timedelta(seconds=took)
        known = {
            "system": system, "host": host, "role": role, "operation": operation, "subject": operation.replace("_", " "), "status": "ok",
            "summary": f"{operation} done", "before": {}, "after": {}, "findings": [], "metrics": [], "actions": [], "task": f"Verify | {operation}",
            "phase": "Verify", "check_mode": self.check_mode, "started": begun.isoformat(), "finished": self.clock.isoformat(),
        }  # fmt: skip
        self.add("record", **{**known, **fields})
        return self

    def outcome(self, system: str, host: str, outcome: str = "completed", **fields: Any) -> SampleRun:
        """Append how the run ended for a host."""
        done = outcome == "completed"
        known = {
            "system": system, "host": host, "outcome": outcome, "reason": "", "downtime_seconds": 41.5 if done else None,
            "services_restored": True if done else None, "rollback_required": outcome.startswith("roll"),
        }  # fmt: skip
        self.add("outcome", **{**known, **fields})
        return self

    def signed(self, duty: str, by: str, system: str = "", note: str = "") -> SampleRun:
        """Append a signature."""
        self.add("signature", duty=duty, system=system, signed_by=by, signed_at=(self.clock + timedelta(hours=6)).isoformat(), note=note)
        return self

    def ended(self, status: str = "completed") -> SampleRun:
        """Append the last line."""
        outcomes = [line["outcome"] for line in self.lines if line["kind"] == "outcome"]
        self.add("end", finished=self.clock.isoformat(), status=status, hosts={name: outcomes.count(name) for name in set(outcomes)})
        return self

    def sealed(self) -> Iterator[bytes]:
        """Yield the lines as they are in the file, chained."""
        previous = journal.GENESIS
        for line in self.lines:
            data, previous = journal.seal(line, previous)
            yield data + b"\n"

    def write(self, folder: Path) -> Path:
        """Write the journal file."""
        path = folder / f"{self.run_id}.jsonl"
        path.write_bytes(b"".join(self.sealed()))
        return path


def maintain(run: SampleRun, system: str, host: str, week: int = 0, faults: frozenset[str] = frozenset(), pace: float = 1.0) -> None:
    """Append what a weekly maintenance of one host records. ``faults`` names what is wrong on it."""
    rng = random.Random(f"{host}-{week}")
    _assess(run, system, host, faults, rng)
    _work(run, system, host, week, faults, rng, pace)
    _review(run, system, host, week, faults, rng)


def _assess(run: SampleRun, system: str, host: str, faults: frozenset[str], rng: random.Random) -> None:
    used = 91.4 if "disk" in faults else rng.uniform(38, 62)
    disk = finding(
        "preflight.disk", "critical" if used > 90 else "ok", "/backups", f"/backups is {used:.0f} % full", round(used, 1), "percent",
        threshold="warning from 85 percent, critical from 90 percent", advice="Remove backups beyond their retention, or enlarge the volume.",
        evidence=["/dev/vdb1 ext4 118G 108G 5.1G 92% /backups"],
    )  # fmt: skip
    clock = finding("preflight.clock", "ok", "clock", "the clock is synchronised", 0.003, "seconds", threshold="warning from 1 seconds")
    run.record(system, host, "ops.maintenance.preflight", "preflight", 3, phase="Assess", findings=[disk, clock],
               metrics=[metric("host.disk_percent", "/backups", round(used, 1), "percent")])  # fmt: skip
    run.record(system, host, "ops.maintenance.snapshot", "snapshot", 6, status="changed", actions=[
        action("/backend/fossawork_v2.db", "take", "changed", "online copy taken and proven", {}, {"path": f"/backups/maintenance/{run.run_id}",
               "size_bytes": 431_816_704, "integrity": "ok"})])  # fmt: skip
    run.record(system, host, "ops.maintenance.maintenance_mode", "maintenance_mode", 4, subject="host", status="changed", actions=[
        action("fossawork-backend", "stop", "changed", "stopped for the maintenance", {"state": "active"}, {"state": "stopped"})])  # fmt: skip


def _work(run: SampleRun, system: str, host: str, week: int, faults: frozenset[str], rng: random.Random, pace: float) -> None:
    pending = 0 if "deferred" not in faults else 1
    run.record(system, host, "ops.maintenance.patching", "package_updates_verify", 610 * pace, status="changed", actions=[
        action("openssl", "upgrade", "changed", "security update from the package database", {"version": "3.0.15-1"}, {"version": "3.0.16-1"}),
        action("libexpat1", "upgrade", "changed", "security update from the package database", {"version": "2.5.0-1+deb12u1"},
               {"version": "2.5.0-1+deb12u2"}),
        *([action("linux-image-amd64", "reboot", "deferred", "the reboot would not end before the window closes",
                  {"running": "6.1.0-31"}, {"installed": "6.1.0-32"})] if pending else []),
    ], findings=[
        finding("patching.pending", "ok", "security updates", "no security update is pending", 0, "count"),
        finding("patching.reboot", "warning" if pending else "ok", "reboot", "a reboot is required" if pending else "no reboot is required",
                "required" if pending else "not_required", evidence=["/run/reboot-required", "needrestart: linux-image-6.1.0-32-amd64"] * pending,
                advice="Let the next window end with the reboot; it was deferred because 6 minutes were left."),
    ])  # fmt: skip
    size = 380_000_000 + week * 1_850_000 + rng.randrange(900_000)
    corrupt = "corrupt" in faults
    run.record(system, host, "ops.maintenance.database_maintenance", "sqlite_upkeep", 95 * pace, status="changed", actions=[
        action("fossawork_v2.db", "vacuum", "changed", "free pages 31 % → 0 %", {"size_bytes": size + 96_000_000, "free_percent": 31.2},
               {"size_bytes": size, "free_percent": 0.0}),
        action("fossawork_v2.db", "checkpoint", "changed", "write-ahead log emptied", {"wal_bytes": 41_943_040}, {"wal_bytes": 0}),
    ], findings=[
        finding("sqlite.integrity", "ok", "fossawork_v2.db", "integrity_check found no fault"),
        finding("sqlite.settings", "warning" if "settings" in faults else "ok", "fossawork_v2.db",
                "synchronous is set per connection and falls back to FULL" if "settings" in faults else "all settings are persistent",
                "FULL", threshold="NORMAL", advice="Set the pragma where the application opens its connection."),
    ], metrics=[metric("sqlite.size_bytes", "fossawork_v2.db", size, "bytes"), metric("sqlite.rows", "work_orders", 120_000 + week * 810, "count"),
                metric("sqlite.rows", "dispensers", 9_100 + week * 12, "count")])  # fmt: skip
    errors = (412 if "errors" in faults else 36) + rng.randrange(20)
    hostile = ["ERROR <script>alert(1)</script> | upstream \x1b[31mtimed out\x1b[0m after 30 s"] if "errors" in faults else []
    run.record(system, host, "ops.maintenance.log_rotation", "log_analysis", 22 * pace, findings=[
        finding("logs.new_pattern", "warning" if "errors" in faults else "ok", "/logs/errors",
                "1 error pattern was not seen in the run before" if "errors" in faults else "no error pattern is new", 1 if "errors" in faults else 0,
                "count", evidence=hostile, advice="Read the lines, then fix the cause or declare the pattern as known.", basis="exact",
                not_covered="0.02 % of the lines could not be parsed" if "errors" in faults else ""),
        finding("logs.silence", "ok", "/logs/backend", "the newest line is 12 s old", 12, "seconds", threshold="warning from 3600 seconds"),
    ], metrics=[metric("logs.errors", "/logs", errors, "count"), metric("logs.lines", "/logs", 1_800_000 + rng.randrange(200_000), "count")])  # fmt: skip
    run.record(system, host, "ops.maintenance.log_rotation", "log_retention", 31 * pace, status="changed", actions=[
        action("/logs", "compress", "changed", "17 files older than 7 days", {"bytes": 912_000_000}, {"bytes": 71_000_000}),
        action("/archives/logs", "delete", "changed", "4 archives older than 90 days", {"files": 61}, {"files": 57}),
    ])  # fmt: skip
    run.record(system, host, "ops.maintenance.backup_verification", "backup_verification", 74 * pace, findings=[
        finding("backup.age", "ok", "daily", "the newest backup is 3 h 12 min old", 11520, "seconds", threshold="critical from 90000 seconds"),
        finding("backup.integrity", "critical" if corrupt else "ok", "daily",
                "the newest backup is corrupt: its database fails the integrity check" if corrupt else "every byte read, the checksum agrees",
                "L1" if corrupt else "L2", evidence=["*** in database main *** Tree 14 page 1092: btreeInitPage() returns error code 11"] * corrupt,
                advice="Take a new backup now, keep the corrupt one as evidence, and look at the disk it came from."),
        finding("backup.level", "ok" if not corrupt else "critical", "daily", f"proven at level {'L1' if corrupt else 'L5'}",
                "L1" if corrupt else "L5", threshold="weekly demands L4", advice="Restore the newest good backup into a throw-away target."),
    ], metrics=[metric("backup.duration_seconds", "daily", 118 + week * 1.4 + rng.uniform(0, 9), "seconds"),
                metric("backup.size_bytes", "daily", size * 0.31, "bytes")])  # fmt: skip


def _review(run: SampleRun, system: str, host: str, week: int, faults: frozenset[str], rng: random.Random) -> None:
    days = 5 if "certificate" in faults else 61
    waived = {"owner": "Jonas Weber", "reason": "legacy client until its replacement", "expires": "2027-01-31"}
    run.record(system, host, "ops.maintenance.security_review", "security_review", 18, findings=[
        finding("security.certificate", "critical" if days < 7 else "ok", "/etc/ssl/certs/fossawork.crt", f"the certificate expires in {days} days",
                days, "days", threshold="warning below 30 days, critical below 7 days", advice="Renew the certificate and reload the web server.",
                evidence=["notAfter=Nov 26 23:59:59 2026 GMT", "subject=CN = fossawork.example.org"]),
        finding("security.file_mode", "critical" if "mode" in faults else "ok", "/backend/.env",
                "the file is readable by everyone" if "mode" in faults else "mode 0600, owner fossawork", "0644" if "mode" in faults else "0600",
                threshold="0600", advice="chmod 0600 /backend/.env, and change the secrets in it."),
        finding("security.logins", "unknown" if "journal" in faults else "ok", "failed logins",
                "the login journal could not be read: permission denied" if "journal" in faults else "3 failed logins", None if "journal" in faults else 3,
                "count", threshold="warning from 50", advice="Let the maintenance user read the journal (group systemd-journal).",
                not_covered="/var/log/auth.log" if "journal" in faults else ""),
        finding("security.tls_protocol", "warning", "443/tcp", "TLS 1.0 is still offered", "TLSv1.0", threshold="TLSv1.2", waived=waived,
                advice="Switch the old protocol off."),
    ])  # fmt: skip
    cpu, memory = rng.uniform(17, 34) + week * 0.2, rng.uniform(52, 61)
    run.record(system, host, "ops.maintenance.performance_review", "performance_review", 12, metrics=[
        metric("performance.cpu_percent", "host", round(cpu, 1), "percent"), metric("performance.memory_percent", "host", round(memory, 1), "percent"),
        metric("performance.latency_p95_seconds", "/api/v1/health", round(rng.uniform(0.04, 0.09), 4), "seconds"),
    ], findings=[finding("performance.latency", "ok", "/api/v1/health", "95 % of 200 requests within 0.08 s", 0.08, "seconds", basis="sampled",
                         threshold="warning from 0.5 seconds", not_covered="write requests")])  # fmt: skip
    run.record(system, host, "ops.maintenance.validation", "validation", 9, findings=[
        finding("validation.unit", "ok", "fossawork-backend", "active since 14 s"),
        finding("validation.endpoint", "ok", "http://127.0.0.1:8000/health", "200 with status healthy in 0.02 s", 0.02, "seconds"),
    ])  # fmt: skip


def weekly(
    faulty: bool = True, week: int = 0, hosts: tuple[str, ...] = ("fossa-app1", "fossa-app2"), system: str = "fossawork"
) -> SampleRun:
    """Return a whole weekly run of one system; its second host has the faults."""
    run = SampleRun(start=START + timedelta(days=7 * week)).opened().plan(system, list(hosts))
    bad = frozenset(("disk", "corrupt", "settings", "errors", "certificate", "mode", "journal", "deferred")) if faulty else frozenset()
    for host in hosts:
        maintain(run, system, host, week, bad if host == hosts[-1] else frozenset())
        run.outcome(system, host)
    return run.ended()
