# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs keep of the backups: what was proven of each, what was seen of its files; and how full their storage is."""

from __future__ import annotations

import contextlib
import os
import typing as t
from datetime import datetime, timezone

from . import backup_objectives
from .backup_proof import Proof
from .backup_proven import deeper, fingerprint, has_changed
from .backup_sets import Backup, Declared, Listing
from .backup_work import Run, finding_of, why_not_fresh
from .forecast import Point, appended, days_until
from .judge import below_limit, from_limit, human_bytes, limits
from .kept_state import keep_state
from .record import Finding, Metric

PROOFS = "backup_proofs.json"
HISTORY = "backup_history.json"


def remember(declared: Declared, listing: Listing, newest: Backup, proof: Proof, work: Run) -> None:
    """Keep what was proven of a set, and the checksums of what was sound."""
    name, stamp = declared["name"], work.host.now().isoformat(timespec="seconds")
    files = work.history["files"].setdefault(name, {})
    there = {file.path for backup in listing.backups for file in backup.files}
    for path in [path for path in files if path not in there]:
        del files[path]
    is_sound = all(finding.state in ("ok", "warning") for finding in proof.findings)
    for file in newest.files:
        digest = proof.digests.get(file.path)
        before = files.get(file.path, {})
        if digest and is_sound and (before.get("sha256"), before.get("mtime_ns")) != (digest, file.mtime_ns):
            files[file.path] = {"sha256": digest, "mtime_ns": file.mtime_ns, "size": file.size, "first_seen": stamp}
    earlier = work.proofs.get(name, {})
    levels = dict(earlier.get("levels", {}))
    levels.update({str(level): stamp for level in range(proof.reached + 1)})
    work.proofs[name] = {
        "path": newest.path,
        "kind": declared["kind"],
        "time": datetime.fromtimestamp(newest.moment, timezone.utc).isoformat(timespec="seconds"),
        "age_seconds": round(work.now - newest.moment),
        "is_fresh": not why_not_fresh(newest, declared, work.now),
        "bytes": newest.size,
        "level": proof.reached,
        "demanded": declared["level"],
        "levels": levels,
        "checksum_basis": proof.basis,
        "sha256": proof.digests if len(proof.digests) <= 50 else {},
        "files": "" if any(has_changed(file) for file in newest.files) else fingerprint(newest.path),
        "deeper": deeper(earlier, proof.reached),
        "source": declared["source"],
        "rpo_seconds": proof.rpo_seconds,
        "rto_seconds": proof.rto_seconds,
        "measured": backup_objectives.remembered(proof, earlier, stamp),
        "verified": stamp,
        "run_id": work.params["run_id"],
    }


def forget(declared: Declared, work: Run) -> None:
    """Nothing is proven now; when each level was last reached stays."""
    earlier = work.proofs.get(declared["name"], {})
    work.proofs[declared["name"]] = {
        "path": "", "level": -1, "demanded": declared["level"], "levels": earlier.get("levels", {}), "is_fresh": False, "sha256": {},
        "measured": earlier.get("measured", {}), "files": "", "deeper": deeper(earlier, -1),
        "source": declared["source"], "verified": work.host.now().isoformat(timespec="seconds"),
        "run_id": work.params["run_id"],
    }  # fmt: skip


def keep(work: Run) -> None:
    """Write what the next run needs, of the sets that are declared."""
    names = work.params["known"]
    for part in ("files", "seconds"):
        work.history[part] = {name: kept for name, kept in work.history.get(part, {}).items() if name in names}
    stamp = work.host.now().isoformat(timespec="seconds")
    sets = {name: proof for name, proof in work.proofs.items() if name in names}
    work.findings += keep_state(work.params["state_dir"], HISTORY, work.history)
    work.findings += keep_state(work.params["state_dir"], PROOFS, {"updated": stamp, "run_id": work.params["run_id"], "sets": sets})


def capacity(work: Run) -> None:
    """Say of each file system that holds backups how full it is, and when it will be."""
    used = work.history.setdefault("used", {})
    seen: set[int] = set()
    for root in filter(None, (declared["root"] for declared in work.params["sets"])):
        with contextlib.suppress(OSError):
            device = os.stat(root).st_dev
            if device in seen:
                continue
            seen.add(device)
            status = os.statvfs(root)
            taken = (status.f_blocks - status.f_bfree) * status.f_frsize
            free = status.f_bavail * status.f_frsize
            used[root] = appended(used.get(root, []), work.now, taken)
            work.findings.append(_capacity_finding(root, taken, free, used[root], work))
            work.metrics.append(Metric("backup.free_bytes", root, free, "bytes"))


def _capacity_finding(root: str, taken: float, free: float, points: t.Sequence[Point], work: Run) -> Finding:
    percent = taken / (taken + free) * 100 if taken + free else 0.0
    params = work.params
    state = from_limit(percent, params["capacity_warning_percent"], params["capacity_critical_percent"])
    text, not_covered = f"{percent:.0f} percent used, {human_bytes(free)} free", ""
    try:
        left = days_until(points, taken + free)
    except ValueError as error:
        left, not_covered = None, f"when it will be full: {error}"
    if left is not None:
        text += f", full in about {left:.0f} days"
        state = max(state, below_limit(left, params["capacity_warning_days"]), key=("ok", "warning", "critical").index)
    return finding_of(
        "backup.capacity", state, root, text, value=round(percent, 1), unit="percent", not_covered=not_covered,
        threshold=limits("percent", params["capacity_warning_percent"], params["capacity_critical_percent"])
        + f", warning below {params['capacity_warning_days']:g} days until full",
        advice="Give the backups more room, or shorten their retention, before the next ones fail.",
    )  # fmt: skip
