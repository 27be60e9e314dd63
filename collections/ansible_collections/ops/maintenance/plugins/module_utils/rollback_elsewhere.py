# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollback does beyond the files of a host: the deployment at a hosting platform, the images of containers."""

from __future__ import annotations

import typing as t

from . import snapshot_containers, snapshot_deployments
from .errors import MaintenanceError, VerifyError
from .host import Host
from .judge import many
from .kept_state import keep_state
from .paths import read_state
from .record import Action, Finding, Json

_ALONE = "roll back with only: [deployments]"
_SHOWN = 20


class Part:
    """Deployments and containers of one rollback."""

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        host: Host,
        manifest: t.Mapping[str, Json],
        findings: list[Finding],
        actions: list[Action],
    ) -> None:
        self._params = params
        self._host = host
        self._findings = findings
        self._actions = actions
        self._recorded = manifest.get("deployments", [])
        self._containers = manifest.get("containers", [])
        self._due: list[tuple[t.Mapping[str, t.Any], str, str]] = []
        self._unasked: dict[str, str] = {}

    def _find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        self._findings.append(Finding(finding_id, state, subject, summary, **more))

    def compare(self) -> None:
        """Ask what is live now; the deployment that was recorded before the work is the one to go back to.

        A platform that does not answer must not keep the host itself from coming back.
        """
        declared = {entry["name"]: entry for entry in self._params["deployments"]}
        for entry in self._recorded:
            try:
                if entry["name"] not in declared:
                    raise MaintenanceError(
                        f"The snapshot holds the deployment {entry['name']}, which deployments does not declare; declare it."
                    )
                now = snapshot_deployments.live(declared[entry["name"]])
            except MaintenanceError as error:
                self._unasked[entry["name"]] = str(error)
                advice = f"Correct it, then {_ALONE}; live was {entry['deployment']}."
                self._find("rollback.deployment", "unknown", entry["name"], str(error), advice=advice)
                continue
            if now == entry["deployment"]:
                words = f"{now} is live, as it was before the work"
                self._find("rollback.deployment", "ok", entry["name"], words, not_covered=snapshot_deployments.CODE_ONLY)
            else:
                self._due.append((declared[entry["name"]], entry["deployment"], now))

    def report_done(self) -> None:
        """Say what is live where a rollback was done before; what was deployed since is not touched."""
        self.compare()
        for declared, deployment, now in self._due:
            words = f"{now} is live, {deployment} was before the work"
            self._find("rollback.deployment", "warning", declared["name"], words, advice=f"If it has to go back, {_ALONE}.")

    def assess(self) -> None:
        """Say what would be made live again."""
        for name, why in self._unasked.items():
            self._actions.append(Action(name, "roll_back_deployment", "due", f"what is live is not known: {why}"))
        for declared, deployment, now in self._due:
            self._actions.append(Action(declared["name"], "roll_back_deployment", "due", f"{now} is live, was {deployment}"))

    def apply(self) -> None:
        """Make the recorded deployments live, and ask their addresses.

        :raises MaintenanceError: what is live could not be asked before, or the platform refuses.
        :raises VerifyError: the application does not answer afterwards.
        """
        for declared, deployment, now in self._due:
            snapshot_deployments.make_live(declared, deployment)
            self._actions.append(Action(declared["name"], "roll_back_deployment", "changed", f"{deployment} is live again, was {now}"))
            known = read_state(self._params["state_dir"], snapshot_deployments.STATE)
            self._findings += keep_state(self._params["state_dir"], snapshot_deployments.STATE, {**known, declared["name"]: deployment})
            self._findings.append(snapshot_deployments.unpromoted(declared, deployment))
            state, words = snapshot_deployments.works(declared)
            advice = "Look at the platform's log; what a migration of the database or new variables changed is not rolled back."
            self._find(
                "rollback.deployment",
                state,
                declared["name"],
                f"{deployment} is live again: {words}",
                not_covered=snapshot_deployments.CODE_ONLY,
                advice="" if state == "ok" else advice,
            )
            if state == "critical":
                raise VerifyError(f"After the rollback of deployment {declared['name']}: {words}.")
        if self._unasked:
            name, why = next(iter(self._unasked.items()))
            raise MaintenanceError(f"The deployment {name} was not rolled back: {why} What else was asked for is back; {_ALONE}.")

    def containers(self) -> None:
        """Compare what containers run; to recreate them is the work of what manages them."""
        if not self._containers:
            return
        try:
            engine = snapshot_containers.engine_of(self._host, self._params["container_engine"])
            differ, gone = snapshot_containers.compared(self._containers, engine)
        except MaintenanceError as error:
            self._find("rollback.containers", "unknown", "containers", str(error), advice="Let the engine answer, then roll back again.")
            return
        if not differ:
            self._find("rollback.containers", "ok", "containers", "every container runs the image of the snapshot")
            return
        words = f"{many(len(differ), 'container')} not as in the snapshot: {differ[0]}"
        rest = f"images that are not on this host any more: {', '.join(gone)}" if gone else ""
        advice = "Do what the evidence says for each, then run the validation."
        self._find("rollback.containers", "critical", "containers", words, value=len(differ), unit="count", not_covered=rest,
                   evidence=differ[:_SHOWN], advice=advice)  # fmt: skip
