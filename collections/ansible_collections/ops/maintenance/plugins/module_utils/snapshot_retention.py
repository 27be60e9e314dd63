# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let old snapshots go: beyond both limits only; never the one of this run, never a broken one."""

from __future__ import annotations

import os
import shutil
import typing as t
from datetime import datetime, timedelta

from . import snapshot_copies, snapshot_store
from .judge import many
from .record import Action


def prune(root: str, own: str, params: t.Mapping[str, t.Any], now: datetime, find: t.Callable[..., None]) -> list[Action]:
    """Remove snapshots beyond both limits, and say how many are kept.

    :param own: name of the snapshot of this run.
    """
    readable, broken, actions = [], [], []
    for name in snapshot_store.names(root):
        try:
            readable.append((snapshot_store.read(root, name)["finished"], name))
        except snapshot_store.BrokenSnapshotError as error:
            broken.append(str(error))
    newest_first = sorted(readable, reverse=True)
    for finished, name in newest_first[params["keep_count"] :]:
        age = now - datetime.fromisoformat(finished)
        if name != own and age > timedelta(days=params["keep_days"]):
            actions.append(_remove(root, name))
    left = len(snapshot_store.names(root))
    words = f"{many(left, 'snapshot')} kept"
    if broken:
        advice = "Look at them and remove them by hand; a broken snapshot is never removed by itself."
        words += f", {len(broken)} of them broken: {broken[0]}"
        find("snapshot.retention", "warning", root, words, advice=advice, evidence=broken)
    else:
        find("snapshot.retention", "ok", root, words, value=left, unit="count")
    return actions


def _remove(root: str, name: str) -> Action:
    """Remove a snapshot in an order that leaves no half one behind that looks whole."""
    manifest, folder = snapshot_store.read(root, name), os.path.join(root, name)
    for entry in snapshot_copies.wanted(manifest):
        snapshot_copies.remove(entry)
    doomed = os.path.join(root, snapshot_store.PARTIAL + name)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)
    return Action(folder, "prune", "changed", f"snapshot {name} of {manifest['finished']} was removed")
