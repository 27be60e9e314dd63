# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pending security updates, by the archive that carries them or the advisory that names them, never by a package's name."""

from __future__ import annotations

import contextlib
import typing as t

from . import apt_packages
from .errors import MaintenanceError
from .judge import many
from .package_backends import choose
from .record import Finding
from .security_common import Review, unknown

OPTIONS: dict[str, t.Any] = {
    "updates": {"type": "bool", "default": True},
    "updates_max_age_days": {"type": "int", "default": 7},
}
IDS = ("security.pending_updates",)

_SUBJECT = "packages"
_STALE_SECONDS = 86400


def look(review: Review) -> list[Finding]:
    """Count what is pending as far as the package lists on the host tell; nothing is fetched."""
    try:
        backend = choose("auto", review.host)(review.host, apt_packages.SECURITY_ARCHIVES)
        # A look leaves no trace: dnf would write to its own copy of the metadata.
        with backend.private() if backend.name == "dnf" else contextlib.nullcontext():
            pending = backend.pending(backend.installed())
    except (OSError, MaintenanceError) as error:
        advice = "Repair the package manager and look again, or turn off updates here where it is none of these."
        return [unknown(IDS[0], _SUBJECT, f"pending security updates are not known: {error}", advice)]
    return [verdict(review, pending)]


def verdict(review: Review, pending: apt_packages.Pending) -> Finding:
    """Judge what apt said; old lists can prove that updates are pending, not that none is."""
    blind = pending.blind()
    if blind or pending.lists_as_of is None:
        what_to_do = "Refresh the lists (apt-get update, dnf makecache) with a source of security updates configured, then look again."
        return unknown(IDS[0], _SUBJECT, f"pending security updates are not known: {blind}", what_to_do)
    count = len(pending.security)
    age = (review.now - pending.lists_as_of).total_seconds()
    too_old = age > review.params["updates_max_age_days"] * 86400
    review.count(IDS[0], _SUBJECT, count)
    state = "warning" if count else "unknown" if too_old else "ok"
    advice = {
        "warning": "Install them (role patching); held ones need a decision.",
        "unknown": "The package lists are too old to tell; refresh them (apt-get update, dnf makecache) and look again.",
    }
    return Finding(
        IDS[0],
        state,
        _SUBJECT,
        f"{many(count, 'security update is', 'security updates are')} pending",
        value=count,
        unit="count",
        threshold="warning from 1",
        basis="stale" if age > _STALE_SECONDS else "exact",
        as_of=pending.lists_as_of.isoformat() if age > _STALE_SECONDS else "",
        advice=advice.get(state, ""),
        evidence=[
            f"{update.name} {update.installed} -> {update.security_version}{' (held)' if update.held else ''}"
            for update in pending.security[:20]
        ],
    )


def passes_bad_sample(review: Review) -> str:
    """Plant a policy with one pending security update; return the sample when it counts as none."""
    sample = "x:\n  Installed: 1\n  Candidate: 2\n  Version table:\n     2 500\n        500 s\n *** 1 100\n        100 d\n"
    archives = {"s": apt_packages.Archive(label="Debian-Security", suite="stable-security")}
    update = apt_packages.update_of(apt_packages.parse_policy(sample, archives)["x"], held=False)
    if update is None or not update.is_security:
        return "a pending security update as none"
    pending = apt_packages.Pending((update,), (), review.now, ("Debian-Security:stable-security",))
    silent = Review(review.params, review.host, True, review.now)
    return "a pending security update as none" if verdict(silent, pending).state == "ok" else ""
