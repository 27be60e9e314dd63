# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worked on a host before its packages changed, and what of that no longer does afterwards."""

from __future__ import annotations

import os
import re
import typing as t

from . import inventory_of_host
from .errors import MaintenanceError
from .host import Host
from .judge import many
from .package_versions import compare
from .performance_host import parse_mounts
from .record import Finding
from .security_network import sockets_of

Baseline = dict[str, t.Any]
"""``services`` that run, units that ``failed``, what is ``listening``, ``mounts``, ``kernel``."""

_CLEAN_LOOKS = 3
_FORWARDED = re.compile(r"^tcp/(?:127\.0\.0\.1|::1):60(?:1\d|[2-5]\d)$")
"""Ports that sshd opens for the displays of people's sessions."""
_OF_ONE_ADDRESS = re.compile(r"^udp/(?!127\.|0\.0\.0\.0:|:::|::1:)")
"""Temporary addresses of IPv6 are others after a reboot; services of UDP often take each address by itself."""
_ASKS = re.compile(r"^udp/.*:\d{4,}$")
"""Such a port may serve, or a resolver chose it for one question."""
_SERVE_NOBODY = {68, 546, *range(600, 1024)} - {623, 631, 853}
"""UDP ports of the clients of DHCP, and those of which programs of RPC take any (``bindresvport``), but for some that are a service's own."""


def look(host: Host, proc: str = "/proc") -> Baseline:
    """Look at everything that an update can break."""
    units = host.run(["systemctl", "list-units", "--type=service", "--all", "--plain", "--no-legend", "--full", "--no-pager"])
    if units.rc != 0:
        raise MaintenanceError(f"The services of the host could not be read: {units.why()}.")
    running, failed = parse_units(units.stdout)
    with open(os.path.join(proc, "self/mountinfo"), encoding="utf-8", errors="backslashreplace") as source:
        mounts = sorted(mount.point for mount in parse_mounts(source.read()))
    return {
        "services": running,
        "failed": failed,
        "listening": listening(proc),
        "mounts": mounts,
        "kernel": host.run(["uname", "-r"]).stdout.strip(),
    }


def parse_units(text: str) -> tuple[list[str], list[str]]:
    """Return the services that run, and those that failed."""
    rows = [line.split(None, 4) for line in text.splitlines() if line.strip()]
    running = sorted(row[0] for row in rows if row[2:4] == ["active", "running"])
    return running, sorted(row[0] for row in rows if len(row) > 3 and row[2] == "failed")


def remember(host: Host, proc: str = "/proc") -> Baseline:
    """Look at what works, and leave out the ports that were only there for a moment."""
    seen = look(host, proc)
    if any(map(_ASKS.match, seen["listening"])):
        host.sleep(1.0)
        again = listening(proc)
        seen["listening"] = [socket for socket in seen["listening"] if socket in again or not _ASKS.match(socket)]
    return seen


def listening(proc: str) -> list[str]:
    """Return the sockets that wait, over TCP and UDP, on a port which is not handed out at random."""
    with open(os.path.join(proc, "sys/net/ipv4/ip_local_port_range"), encoding="ascii") as source:
        least = int(source.read().split()[0])
    waiting = [socket for socket in sockets_of(os.path.join(proc, "net")) if socket.port < least]
    return sorted({str(socket) for socket in waiting if socket.protocol == "tcp" or socket.port not in _SERVE_NOBODY})


class Regression(t.NamedTuple):
    """One thing that worked before and does not now; ``unit`` is its service, where it is one."""

    said: str
    unit: str = ""


def compare_with(before: Baseline, now: Baseline, units: t.Mapping[str, t.Mapping[str, str]]) -> list[Regression]:
    """Return what is worse than before.

    :param units: what ``systemctl show`` says of the services that ran before and do not run now.
    """
    found = []
    for unit in sorted((set(before["services"]) - set(now["services"])) | (set(now["failed"]) - set(before["failed"]))):
        said = _unit(unit, unit in now["failed"], units.get(unit, {}))
        found += [Regression(said, unit)] if said else []
    found += [Regression(f"nothing listens on {socket} any more") for socket in _gone(set(before["listening"]), set(now["listening"]))]
    found += [Regression(f"{mount} is not mounted any more") for mount in sorted(set(before["mounts"]) - set(now["mounts"]))]
    if compare(now["kernel"], before["kernel"]) < 0:
        found.append(Regression(f"kernel {now['kernel']} runs, before it was the newer {before['kernel']}"))
    return found


def _gone(before: set[str], now: set[str]) -> list[str]:
    """Return the ports on which nothing listens any more; one over UDP that has another address of the host by now is not gone."""
    came = {socket.rpartition(":")[2] for socket in now - before if _OF_ONE_ADDRESS.match(socket)}
    moved = {socket for socket in before if _OF_ONE_ADDRESS.match(socket) and socket.rpartition(":")[2] in came}
    return sorted(socket for socket in before - now - moved if not _FORWARDED.match(socket))


def _unit(unit: str, failed: bool, shown: t.Mapping[str, str]) -> str:
    """Say what became of a service; one that is started on demand or once may have ended."""
    if failed:
        return f"{unit} has failed"
    if shown.get("LoadState") == "not-found":
        return f"{unit} is gone"
    if shown.get("ActiveState") in ("activating", "reloading"):
        return f"{unit} does not come up ({shown.get('SubState', '')})"
    return f"{unit} runs no more" if shown.get("UnitFileState", "").startswith("enabled") else ""


def settle(host: Host, before: Baseline, seconds: float) -> list[Regression]:
    """Compare until nothing is worse in several looks in a row, or the time is up."""
    clean = 0
    give_up = seconds
    while True:
        now = look(host)
        asked = sorted(set(before["services"]) - set(now["services"]))
        units = {unit["Id"]: unit for unit in inventory_of_host.units(host, asked)}
        found = compare_with(before, now, units)
        clean = 0 if found else clean + 1
        if clean >= _CLEAN_LOOKS or give_up <= 0:
            return found
        host.sleep(1.0)
        give_up -= 1.0


def suspects(
    host: Host, found: t.Iterable[Regression], names: t.Collection[str], owners: t.Callable[[t.Sequence[str]], t.Collection[str]]
) -> list[str]:
    """Return which of the updated packages the unit files of the services belong to.

    :param owners: says which packages files belong to.
    """
    units = inventory_of_host.units(host, sorted({one.unit for one in found if one.unit}))
    paths = {unit["FragmentPath"] for unit in units if unit.get("FragmentPath")}
    paths |= {path[4:] if path.startswith("/usr/lib/") else f"/usr{path}" for path in paths}
    known = owners(sorted(paths)) if paths else ()
    return sorted(name for name in names if name in known or name.partition(":")[0] in known)


def unseen(problem: str) -> Finding:
    """Say that what works now could not be seen, so that a regression will go unnoticed."""
    summary = f"What works before the packages change could not be seen: {problem}"
    return Finding("patching.regression", "unknown", "host", summary, advice="Look at the application after the update by hand.")


def finding(
    found: t.Sequence[Regression],
    names: t.Sequence[str],
    suspected: t.Sequence[str],
    way_back: t.Sequence[str],
    command: str,
    unsought: str = "",
    rebooted: bool = False,
) -> Finding:
    """Judge what is worse than before the packages changed.

    :param command: what goes back to an old version, without the version.
    :param unsought: why old versions could not be looked for.
    :param rebooted: whether the host booted since.
    """
    common: dict[str, t.Any] = {"id": "patching.regression", "subject": "host", "unit": "count", "threshold": "critical from 1"}
    if not found:
        summary = "Services, ports, mounts and kernel are at least what they were before the packages changed."
        return Finding(state="ok", summary=summary, value=0, **common)
    cause = f" {', '.join(suspected)} is the likely cause." if suspected else ""
    whole = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    after = " and ".join(filter(None, [whole, "the reboot" if rebooted or not names else ""]))
    back = f"The old versions are still to be had: {command} {' '.join(way_back[:10])}"
    nothing = "No old version is to be had in the archives or the cache; put the host back from its snapshot."
    by_hand = f"Look which old versions are to be had ({command}), or put the host back from its snapshot."
    return Finding(
        state="critical",
        summary=f"{many(len(found), 'thing')} worked before and not after {after}: {found[0].said}.{cause}",
        value=len(found),
        advice=f"Look at it before another host is patched. {back if way_back else by_hand if unsought else nothing}",
        not_covered=unsought,
        evidence=[one.said for one in found],
        **common,
    )
