# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the machine need a reboot, and which services still run files that an update replaced."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
import typing as t
from dataclasses import dataclass

from .errors import MaintenanceError
from .host import Host
from .rpm_versions import compare_parts

REQUIRED, NOT_REQUIRED, UNKNOWN = "required", "not_required", "unknown"
MANAGER = "init.scope"
"""The unit of systemd itself, which takes up new files by ``systemctl daemon-reexec``."""

_release_key = functools.cmp_to_key(compare_parts)
_KERNEL_STATUS = re.compile(r"^NEEDRESTART-KSTA: (\d)$", re.M)
_KERNEL_EXPECTED = re.compile(r"^NEEDRESTART-KEXP: (.+)$", re.M)
_SERVICE = re.compile(r"^NEEDRESTART-SVC: (\S+)$", re.M)
_BANNER_VERSION = re.compile(r"\bDebian (\S+) \(")
_MAPPED = re.compile(r"^\S+ \S*x\S* \S+ \S+ \S+ +(/(?:usr|lib|lib64|opt|bin|sbin)/.*) \(deleted\)$", re.M)


@dataclass(frozen=True)
class Source:
    """What one source says about a reboot, and why."""

    name: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Stale:
    """Units that still run replaced files, and sessions of people that do; ``unread`` counts processes not seen."""

    units: t.Mapping[str, tuple[str, ...]]
    sessions: int = 0
    unread: int = 0


def decide(sources: t.Iterable[Source]) -> str:
    """Sum up: one that requires is enough; without the kernel's own ``not_required`` nothing is known."""
    seen = {source.name: source.verdict for source in sources}
    if REQUIRED in seen.values():
        return REQUIRED
    settled = (seen.get(name) == NOT_REQUIRED for name in ("kernel", "needrestart", "needs-restarting"))
    return NOT_REQUIRED if any(settled) else UNKNOWN


def from_marker(root: str = "/") -> Source:
    """Read ``/run/reboot-required``; its absence proves nothing, since not every system writes it."""
    path = os.path.join(root, "run/reboot-required")
    if not os.path.lexists(path):
        return Source("marker", UNKNOWN, "/run/reboot-required is absent")
    names: list[str] = []
    with contextlib.suppress(OSError), open(path + ".pkgs", encoding="utf-8", errors="replace") as packages:
        names = sorted({line.strip() for line in packages if line.strip()})
    return Source("marker", REQUIRED, "/run/reboot-required is there" + (f" for {', '.join(names)}" if names else ""))


def from_kernel(running: str, banner: str, images: t.Sequence[str], package_version: str, in_container: bool) -> Source:
    """Compare the running kernel with the newest installed one of its flavour.

    :param running: ``uname -r``.
    :param banner: ``uname -v``, in which Debian names the package version it was built as.
    :param images: releases of the installed kernels.
    :param package_version: installed version of the package of the running kernel, or empty.
    """
    if not images:
        if in_container:
            return Source("kernel", NOT_REQUIRED, "a container; its kernel belongs to the machine outside")
        return Source("kernel", UNKNOWN, "no installed kernel was found")
    flavour = _flavour(running)
    newest = max((image for image in images if _flavour(image) == flavour), key=_release_key, default="")
    if not newest:
        return Source("kernel", UNKNOWN, f"no installed kernel is of the running flavour ({running})")
    if compare_parts(newest, running) > 0:
        return Source("kernel", REQUIRED, f"kernel {running} runs, {newest} is installed")
    built = _BANNER_VERSION.search(banner)
    if built and package_version and built.group(1) != package_version:
        return Source("kernel", REQUIRED, f"kernel {running} runs as {built.group(1)}, {package_version} is installed")
    return Source("kernel", NOT_REQUIRED, f"kernel {running} is the newest installed")


def _flavour(release: str) -> str:
    """Return what stays the same from one kernel to the next: ``cloud-amd64``, ``x86_64``, ``rt.x86_64``, ``uek.x86_64``."""
    rest = re.sub(r"^[\d.+~-]*(?:deb[\d.]+-)?", "", release.split("-", 1)[-1])
    return re.sub(r"\.?\b(?:el|fc|amzn)\d[\d_]*\.?", ".", re.sub(r"^rt\d[\d.]*", "rt.", rest)).replace("..", ".").strip(".")


def from_needrestart(text: str) -> Source:
    """Read ``needrestart -b -k``."""
    status = _KERNEL_STATUS.search(text)
    expected = _KERNEL_EXPECTED.search(text)
    if status is None or status.group(1) == "0":
        return Source("needrestart", UNKNOWN, "needrestart could not tell the kernel's state")
    if status.group(1) == "1":
        return Source("needrestart", NOT_REQUIRED, "needrestart sees no pending kernel")
    return Source("needrestart", REQUIRED, f"needrestart expects kernel {expected.group(1) if expected else 'newer'}")


def sources(host: Host, kernel_package_version: t.Callable[[str], str], root: str = "/") -> list[Source]:
    """Ask every source that the host has.

    :param kernel_package_version: gives the installed version of a kernel release's package, or empty.
    """
    running = host.run(["uname", "-r"]).stdout.strip()
    banner = host.run(["uname", "-v"]).stdout.strip()
    found = [
        from_marker(root),
        from_kernel(running, banner, installed_kernels(root), kernel_package_version(running), _in_container(host)),
    ]
    if host.which("needrestart"):
        found.append(from_needrestart(_needrestart(host, "-k")))
    if host.which("needs-restarting") or (host.which("dnf") and not host.which("dpkg")):
        found.append(_needs_restarting(host))
    return found


def installed_kernels(root: str = "/") -> list[str]:
    """Return the releases of the kernels in ``/boot`` and of the kernel images beside their modules."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        found |= {n[8:] for n in os.listdir(os.path.join(root, "boot")) if n.startswith("vmlinuz-")}
    modules = os.path.join(root, "lib/modules")
    with contextlib.suppress(FileNotFoundError):
        found |= {n for n in os.listdir(modules) if os.path.exists(os.path.join(modules, n, "vmlinuz"))}
    return sorted(name for name in found if not name.startswith("0-rescue"))


def _in_container(host: Host) -> bool:
    return bool(host.which("systemd-detect-virt")) and host.run(["systemd-detect-virt", "--container"]).rc == 0


def _needrestart(host: Host, *what: str) -> str:
    with contextlib.suppress(MaintenanceError):
        return host.run(["needrestart", "-b", *what], timeout=120, env={"NEEDRESTART_MODE": "l"}).stdout
    return ""


def _needs_restarting(host: Host) -> Source:
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as logs:
        plugin = ["dnf", "--cacheonly", f"--setopt=logdir={logs}", "needs-restarting"]
        ran = host.run([*(["needs-restarting"] if host.which("needs-restarting") else plugin), "-r"], timeout=120)
    return from_needs_restarting(ran.rc, ran.stdout, ran.why())


def from_needs_restarting(rc: int, said: str, why: str) -> Source:
    """Read ``needs-restarting -r``, which ends with 1 for a needed reboot and for most that goes wrong too."""
    if rc == 0 and "eboot should not be necessary" in said:
        return Source("needs-restarting", NOT_REQUIRED, "no core library or service was updated since the last boot")
    if rc == 1 and "eboot is required" in said:
        names = [line.strip(" *") for line in said.splitlines() if line.startswith("  * ")]
        return Source("needs-restarting", REQUIRED, f"{', '.join(names) or 'core libraries'} updated since the last boot")
    return Source("needs-restarting", UNKNOWN, why)


def replaced_files(maps: str) -> list[str]:
    """Return the program and library files that a process runs although they are no longer there."""
    return sorted(set(_MAPPED.findall(maps)))


def unit_of(cgroup: str) -> str:
    """Return the system service of a process from its ``cgroup`` file; empty for a session or a container."""
    for line in cgroup.splitlines():
        parts = line.split(":", 2)[-1].split("/")
        if "user.slice" in parts:
            return ""
        for part in parts:
            if part == MANAGER or part.endswith(".service"):
                return part
    return ""


def stale_services(host: Host, proc: str = "/proc") -> Stale:
    """Look through all processes of this machine (not of its containers) for replaced files; ask needrestart too."""
    units: dict[str, set[str]] = {}
    sessions = unread = 0
    own = _namespace(proc, "self")
    for pid in (name for name in os.listdir(proc) if name.isdigit()):
        try:
            if own and _namespace(proc, pid) != own:
                continue
            files = replaced_files(_read(proc, pid, "maps"))
            unit = unit_of(_read(proc, pid, "cgroup")) if files else ""
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        except PermissionError:
            unread += 1
            continue
        if unit:
            units.setdefault(unit, set()).update(files)
        elif files:
            sessions += 1
    for unit in _SERVICE.findall(_needrestart(host, "-r", "l")) if host.which("needrestart") else []:
        units.setdefault(MANAGER if unit == "systemd-manager" else unit, set())
    return Stale({unit: tuple(sorted(files)) for unit, files in sorted(units.items())}, sessions, unread)


def _namespace(proc: str, pid: str) -> str:
    try:
        return os.readlink(os.path.join(proc, pid, "ns/pid"))
    except FileNotFoundError:
        return ""


def _read(proc: str, pid: str, name: str) -> str:
    with open(os.path.join(proc, pid, name), encoding="utf-8", errors="backslashreplace") as source:
        return source.read()


def boot_marker(proc: str = "/proc") -> str:
    """Return what changes with every boot: the boot id, and when process 1 started (for a container)."""
    boot_id = _read(proc, "sys/kernel/random", "boot_id").strip()
    started = _read(proc, "1", "stat").rsplit(")", 1)[-1].split()[19]
    return f"{boot_id}/{started}"
