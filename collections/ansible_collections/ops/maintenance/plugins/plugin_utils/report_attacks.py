# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See that findings of several checks are about the same attack, so that a reader is told of it once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

from .report_lines import Place
from .report_model import Finding
from .report_values import RANK

ATTACKS = ("security.success_after_failures", "security.brute_force", "logs.brute_force", "security.failed_logins", "logs.auth_failures")
"""Findings whose evidence names the addresses that tried to log in; the one that tells most comes first."""
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{3,45}")


def same_attack(findings: Iterable[Finding]) -> dict[Place, Place]:
    """Return for each finding that only tells of an attack again, which finding tells of it best.

    It is the same attack when the evidence of both, on one host, names the same address.
    """
    by_host: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.id in ATTACKS:
            by_host.setdefault((finding.system, finding.host), []).append(finding)
    found: dict[Place, Place] = {}
    for members in by_host.values():
        for cluster in _clusters(members):
            head, *others = sorted(cluster, key=lambda f: (-RANK[f.state], ATTACKS.index(f.id), f.subject))
            found.update((other.place, head.place) for other in others)
    return found


def _clusters(findings: list[Finding]) -> Iterator[list[Finding]]:
    left = [(finding, set(_addresses(finding))) for finding in findings]
    while left:
        first, addresses = left.pop(0)
        cluster = [first]
        while near := [one for one in left if one[1] & addresses]:
            left = [one for one in left if not one[1] & addresses]
            cluster += [finding for finding, _own in near]
            addresses = addresses.union(*(own for _finding, own in near))
        yield cluster


def _addresses(finding: Finding) -> Iterator[str]:
    for line in finding.evidence:
        for word in _ADDRESS.findall(line):
            try:
                yield str(ipaddress.ip_address(word.strip(":.")))
            except ValueError:
                continue
