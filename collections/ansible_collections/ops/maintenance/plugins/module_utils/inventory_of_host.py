# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages, unit states and Python distributions a host has, for a snapshot and for comparing with one."""

from __future__ import annotations

import os
import typing as t

from .errors import MaintenanceError
from .host import Host

_UNIT_FIELDS = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "FragmentPath")


class Packages(t.NamedTuple):
    """Installed packages: the manager that knows them, and name to version."""

    manager: str
    versions: dict[str, str]


def packages(host: Host) -> Packages:
    """Return the installed packages from the package database.

    :raises MaintenanceError: neither dpkg nor rpm answers.
    """
    if host.which("dpkg-query"):
        layout = "${db:Status-Abbrev}\t${binary:Package}\t${Version}\n"
        ran = host.run(["dpkg-query", "-W", "-f", layout])
        if ran.rc == 0:
            return Packages("dpkg", parse_dpkg(ran.stdout))
        raise MaintenanceError(f"The installed packages could not be listed: {ran.why()}.")
    if host.which("rpm"):
        ran = host.run(["rpm", "-qa", "--qf", "%{NAME}.%{ARCH}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"])
        if ran.rc == 0:
            return Packages("rpm", dict(line.split("\t", 1) for line in ran.stdout.splitlines() if "\t" in line))
        raise MaintenanceError(f"The installed packages could not be listed: {ran.why()}.")
    raise MaintenanceError("Neither dpkg-query nor rpm is there, so the installed packages are not known.")


def parse_dpkg(output: str) -> dict[str, str]:
    """Return name to version of what is installed; removed packages with left-over configuration are not."""
    versions = {}
    for line in output.splitlines():
        fields = line.split("\t")
        if len(fields) == 3 and fields[0][1:2] == "i":
            versions[fields[1]] = fields[2]
    return versions


def units(host: Host, names: t.Sequence[str]) -> list[dict[str, str]]:
    """Return state and enablement of units."""
    if not names:
        return []
    ran = host.run(["systemctl", "show", "--no-pager", f"--property={','.join(_UNIT_FIELDS)}", "--", *names])
    if ran.rc != 0:
        raise MaintenanceError(f"The states of units could not be read: {ran.why()}.")
    return parse_units(ran.stdout)


def parse_units(output: str) -> list[dict[str, str]]:
    """Return what ``systemctl show`` says of several units, which a blank line separates."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.split("\n\n")]
    return [block for block in blocks if block.get("Id")]


def frozen(host: Host, environment: str) -> list[str]:
    """Return the distributions in a Python environment, one ``name==version`` a line."""
    python = os.path.join(environment, "bin", "python")
    if not os.access(python, os.X_OK):
        raise MaintenanceError(f"{environment} has no bin/python, expected a Python environment; correct the path.")
    ran = host.run([python, "-I", "-m", "pip", "--disable-pip-version-check", "freeze", "--all"], timeout=120)
    if ran.rc != 0:
        raise MaintenanceError(f"The distributions in {environment} could not be listed: {ran.why()}.")
    return sorted(line for line in ran.stdout.splitlines() if line and not line.startswith("#"))


def differences(before: t.Mapping[str, str], after: t.Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return name to (before, after) of what differs; an absent one is an empty text."""
    every = sorted(set(before) | set(after))
    return {name: (before.get(name, ""), after.get(name, "")) for name in every if before.get(name) != after.get(name)}
