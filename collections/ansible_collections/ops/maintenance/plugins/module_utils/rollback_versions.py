# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollback does about versions: packages and Python environments are compared, packages put back where that is allowed."""

from __future__ import annotations

import typing as t

from . import inventory_of_host
from .errors import MaintenanceError
from .host import Host
from .judge import many
from .record import Action, Json

_SHOWN = 20


class Part:
    """The versions of one rollback.

    :param find: adds a finding.
    :param actions: what was done, or is due.
    """

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        check_mode: bool,
        host: Host,
        manifest: dict[str, Json],
        find: t.Callable[..., None],
        actions: list[Action],
    ) -> None:
        self._params = params
        self._check_mode = check_mode
        self._host = host
        self._manifest = manifest
        self._find = find
        self._actions = actions

    def packages(self) -> None:
        """Compare the versions of packages, and install the old ones where that is allowed."""
        kept = self._manifest["packages"]
        if not kept:
            advice = "Compare /var/log/dpkg.log or the package manager's history by hand."
            self._find("rollback.packages", "unknown", "packages", "the snapshot holds no package versions", advice=advice)
            return
        try:
            differ = inventory_of_host.differences(kept["versions"], inventory_of_host.packages(self._host).versions)
            if differ and self._params["packages"] and kept["manager"] == "dpkg":
                self._install(differ)
                differ = inventory_of_host.differences(kept["versions"], inventory_of_host.packages(self._host).versions)
        except MaintenanceError as error:
            advice = "Put the packages back by hand."
            self._find("rollback.packages", "critical", "packages", str(error), advice=advice)
            return
        if differ:
            words = f"{many(len(differ), 'package')} not as in the snapshot: {_said(differ)[0]}"
            advice = "Set packages to true to install the old versions, or decide that the restored data fits the new ones."
            self._find(
                "rollback.packages",
                "warning" if self._check_mode and self._params["packages"] else "critical",
                "packages",
                words,
                value=len(differ),
                unit="count",
                advice=advice,
                evidence=_said(differ),
            )
        else:
            self._find("rollback.packages", "ok", "packages", "every package has the version of the snapshot")

    def _install(self, differ: dict[str, tuple[str, str]]) -> None:
        """Install the old versions and remove what is new, all in one transaction of apt, simulated first."""
        wanted = [f"{name}={old}" if old else f"{name}-" for name, (old, _new) in differ.items()]
        options = ["-y", "--allow-downgrades", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
        ran = self._host.run(["apt-get", "install", "--simulate", *options, "--", *wanted], timeout=300)
        if ran.rc != 0:
            raise MaintenanceError(
                f"The old versions of {many(len(wanted), 'package')} cannot be installed ({ran.why()}); "
                f"no package was changed: {', '.join(_said(differ)[:5])}."
            )
        named = {name.partition(":")[0] for name, (old, _new) in differ.items() if not old}
        lost = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("Remv ")]
        lost = [name for name in lost if name.partition(":")[0] not in named]
        if lost:
            raise MaintenanceError(f"The old versions would remove {', '.join(lost[:5])} as well; no package was changed.")
        if not self._check_mode:
            noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
            ran = self._host.run(["apt-get", "install", *options, "--", *wanted], timeout=3600, env=noninteractive)
            if ran.rc != 0:
                raise MaintenanceError(f"The old versions of packages were not installed: {ran.why()}.")
        status = "due" if self._check_mode else "changed"
        words = f"{many(len(wanted), 'package')} back to the versions of the snapshot"
        self._actions.append(Action("packages", "downgrade", status, words, {}, {"packages": wanted[:_SHOWN]}))

    def python(self) -> None:
        """Compare what is installed in Python environments."""
        for entry in self._manifest["python"]:
            path = entry["path"]
            advice = "Install the old versions from the lock file of the release, then run the validation."
            try:
                now = inventory_of_host.frozen(self._host, path)
            except MaintenanceError as error:
                self._find("rollback.python", "unknown", path, str(error), advice=advice)
                continue
            if entry["freeze"] is None:
                self._find("rollback.python", "unknown", path, "the snapshot holds no list of distributions", advice=advice)
                continue
            gone = [f"was {line}" for line in entry["freeze"] if line not in now]
            new = [f"is {line}" for line in now if line not in entry["freeze"]]
            if gone or new:
                words = f"{many(max(len(gone), len(new)), 'distribution')} not as in the snapshot: {(gone + new)[0]}"
                self._find("rollback.python", "critical", path, words, evidence=gone + new, advice=advice)
            else:
                self._find("rollback.python", "ok", path, "the distributions are those of the snapshot")


def _said(differ: t.Mapping[str, tuple[str, str]]) -> list[str]:
    return [f"{name}: was {old or 'absent'}, is {new or 'absent'}" for name, (old, new) in differ.items()]
