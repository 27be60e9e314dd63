# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What could be removed from a host with dnf, old kernels and packages that nothing needs; and removing exactly that."""

from __future__ import annotations

import re
import typing as t

from . import dnf_history, dnf_packages
from .apt_health import Removal, removal_finding
from .apt_prepare import removed
from .errors import VerifyError
from .host import Host
from .record import Action, Finding, clean
from .rpm_versions import newness

_PART = re.compile(r"-(?:core|devel|uki-virt|modules(?:-[a-z]+)*)$")
"""What the packages of one kernel add to the name of its flavour."""
_IMAGE = re.compile(r"(?<!-modules)-(?:core|uki-virt)$")
Evra = dnf_history.Evra


def is_kernel(name: str) -> bool:
    """Whether a package is a kernel's, of those of which several versions may be there at once."""
    return _PART.sub("", name).split("-")[0] == "kernel"


def old_kernels(several: t.Iterable[Evra], running: str, keep: int) -> list[Evra]:
    """Return the packages of old kernels: all but the newest few of each flavour and the running one.

    :param several: packages of which several versions may be there at once.
    :param running: ``uname -r``.
    :param keep: how many to keep; 0 keeps all.
    """
    flavours: dict[tuple[str, str], dict[str, list[Evra]]] = {}
    for package in several:
        name, arch, evr = package
        if is_kernel(name):
            flavours.setdefault((_PART.sub("", name), arch), {}).setdefault(evr, []).append(package)
    old: list[Evra] = []
    for (_flavour, arch), kernels in flavours.items():
        bootable = [evr for evr, packages in kernels.items() if any(_is_image(name) for name, _arch, _evr in packages)]
        ordered = sorted(bootable, key=newness, reverse=True)
        for evr in ordered[keep:] if keep else []:
            if not _runs(running, evr, arch):
                old += kernels[evr]
    return sorted(old)


def _is_image(name: str) -> bool:
    return bool(_IMAGE.search(name)) or not _PART.search(name)


def _runs(running: str, evr: str, arch: str) -> bool:
    """Whether this is the running kernel; a variant's release may end with ``+debug`` or the like."""
    return running.split("+")[0] in (evr.partition(":")[2] or evr, f"{evr.partition(':')[2] or evr}.{arch}")


def removable(host: Host, conf: t.Mapping[str, str], running: str, keep: int) -> tuple[Removal, int]:
    """Preview both removals, and say how many kernels dnf itself keeps; kernels whose removal would take anything else along stay."""
    with dnf_history.copied() as persist:
        answer = dnf_packages.ask(host, {"conf": {**conf, "persistdir": persist}, "removable": True})
    if "problem" in answer:
        return Removal(problem=clean(answer["problem"].strip(), 300)), 0
    kernels = old_kernels([_evra(package) for package in answer["several"]], running, keep)
    named = [dnf_packages.nevra(package) for package in kernels]
    unneeded = sorted(set(map(dnf_packages.nevra, answer["unneeded"])) - set(named))
    limit = int(answer["limit"])
    if not kernels:
        return Removal((), unneeded), limit
    would = dnf_packages.rehearse_removal(host, conf, kernels)
    more = sorted(set(would.names) ^ set(named))
    if would.problem or more:
        return Removal((), unneeded, would.problem or f"removing the old kernels would change more: {', '.join(more[:5])}"), limit
    return Removal(named, unneeded), limit


def _evra(package: t.Sequence[str]) -> Evra:
    name, arch, evr = package
    return name, arch, dnf_packages.plain_evr(evr)


def finding(removal: Removal, limit: int, keep: int, autoremove: bool) -> Finding:
    """Preview what would be removed; say as well where dnf by itself would remove more kernels than that."""
    if keep and 0 < limit < keep:
        return Finding(
            "patching.removable",
            "warning",
            "packages",
            f"dnf keeps {limit} kernels and removes the others by itself when a new one comes; {keep} are to be kept.",
            limit,
            "count",
            f"warning below {keep}",
            advice="Set installonly_limit in /etc/dnf/dnf.conf to what patching_kernels_keep says.",
            evidence=[f"old kernel: {name}" for name in removal.kernels] + [f"not needed: {name}" for name in removal.unneeded],
        )
    return removal_finding(removal, keep, autoremove)


def remove(host: Host, names: t.Sequence[str], check_mode: bool) -> list[Action]:
    """Remove exactly the packages that were previewed; when dnf would remove anything else, nothing."""
    there = {dnf_packages.nevra(row): row for row in dnf_packages.rpm_rows(host)} if names else {}
    present = [name for name in names if name in there]
    if not present:
        return []
    would = dnf_packages.rehearse_removal(host, {}, [there[name] for name in present])
    if would.problem or set(would.names) != set(present):
        more = would.problem or ", ".join(sorted(set(would.names) ^ set(present))[:5])
        raise VerifyError(f"Nothing was removed: removing {', '.join(present[:5])} would not be what was previewed ({more}). Look at it.")
    if check_mode:
        return [Action(name, "remove", "due", f"{name} is to be removed") for name in present]
    host.run(["dnf", "-y", "--setopt=clean_requirements_on_remove=False", "remove", *present], timeout=1800)
    left = {dnf_packages.nevra(row) for row in dnf_packages.rpm_rows(host)}
    return [removed(name, name in left) for name in present]
