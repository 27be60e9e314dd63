# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the PostgreSQL servers of a host to the newest minor release of their major version, replicas before their primary.

A server is restarted only inside maintenance mode and after the snapshot of the same run, when its replication keeps up and no long
transaction would be cut off. Afterwards the running server says its version, and a replica has to catch up.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass, field

from . import postgresql, postgresql_minor_findings, postgresql_minor_packages, snapshot_store
from .errors import InputError, MaintenanceError, out_of_range, refusal, refuse
from .host import Host
from .package_backends import BACKEND_OPTIONS, choose
from .paths import read_state
from .postgresql import SERVER, Server, check_server, connect
from .postgresql_minor_packages import INSTALL, QUIET, Cluster, Minor, Packages, clusters
from .postgresql_minor_server import Limits, Peers, Seen, behind, look, out_of_turn, self_test, shown
from .record import Action, Finding, Outcome, clean, self_test_finding, status_of

OPTIONS: dict[str, t.Any] = {
    "servers": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**SERVER, "replicas_expected": {"type": "int", "default": 0}},
    },
    "look_only": {"type": "bool", "default": False},
    "peers": {"type": "list", "elements": "dict", "default": []},
    "at_once": {"type": "list", "elements": "str", "default": []},
    "long_transaction_seconds": {"type": "float", "default": 300.0},
    "maximum_lag_bytes": {"type": "int", "default": 16 * 1024 * 1024},
    "wait_seconds": {"type": "float", "default": 300.0},
    "minimum_seconds": {"type": "int", "default": 600},
    "snapshot_root": {"type": "path", "default": "/var/backups/ops_maintenance"},
    "refresh": {"type": "bool", "default": True},
    "lock_timeout_seconds": {"type": "int", "default": 300},
    **BACKEND_OPTIONS,
}
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 3.0
"""For the packages to start a server again; some hosts do not let them."""


@dataclass
class Target:
    """One declared server: what it said, or why it said nothing, and where it stands on this host."""

    server: Server
    seen: Seen | None = None
    problem: str = ""
    minor: Minor | None = None
    cluster: Cluster | None = None

    @property
    def name(self) -> str:
        """Return what it is called."""
        return str(self.server["name"])

    @property
    def work(self) -> str:
        """Say what is due: ``update``, ``restart`` or nothing."""
        if self.seen is None or self.minor is None or self.cluster is None:
            return ""
        if self.minor.target > self.minor.installed:
            return "update"
        return "restart" if self.minor.installed > self.seen.version or self.seen.old_files else ""


@dataclass
class Job:
    """One call of the module."""

    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    targets: list[Target] = field(default_factory=list)
    packages: Packages = field(default_factory=Packages)
    known: list[Cluster] = field(default_factory=list)
    blind: str = ""

    @property
    def peers(self) -> Peers:
        """Return the other servers of the cluster."""
        return Peers(list(self.params["peers"]), list(self.params["at_once"]))

    def limits(self, target: Target) -> Limits:
        """Return from when a lag of this server counts."""
        return Limits(self.params["maximum_lag_bytes"], int(target.server["replicas_expected"]))

    # Looking

    def see(self, target: Target) -> None:
        """Ask one server anew."""
        try:
            with connect(target.server, read_only=True) as session:
                target.seen, target.problem = look(session, target.server, self.params["long_transaction_seconds"]), ""
        except MaintenanceError as error:
            target.seen, target.problem = None, str(error)

    def survey(self) -> None:
        """Ask servers, packages and the distribution's tools."""
        self.targets = [Target(server) for server in self.params["servers"]]
        for target in self.targets:
            self.see(target)
        if self.params["look_only"]:
            return
        self.packages, self.blind = self._plan()
        self.known = clusters(self.host)
        for target in self.targets:
            seen = target.seen
            if seen:
                local = postgresql.socket_folder(target.server) or target.server["host"] in ("localhost", "127.0.0.1", "::1")
                here = [one for one in self.known if local and one.online and (one.major, one.port) == (seen.major, seen.port)]
                target.cluster = here[0] if here else None
                target.minor = self.packages.minors.get(seen.major) if here else None

    def _plan(self) -> tuple[Packages, str]:
        """Return the packages, and why what is to be had is not known."""
        backend = choose(self.params["backend"], self.host)(self.host, self.params["security_archives"])
        if backend.name != "apt":
            return Packages(), f"minor releases are planned with apt only, and this host has {backend.name}"
        with contextlib.ExitStack() as stack:
            if self.check_mode and self.params["refresh"]:
                stack.enter_context(backend.private())
            problem = backend.refresh(self.params["lock_timeout_seconds"]) if self.params["refresh"] else ""
            packages = backend.installed()
            pending = backend.pending(packages)
            blind = problem or ("" if pending.lists_as_of else "there are no package lists on the host")
            return postgresql_minor_packages.look(self.host, packages, pending, backend), blind

    def waits_for(self, target: Target) -> list[str]:
        """Say what time may mend: transactions that end, replicas that catch up."""
        seen = target.seen
        if seen is None:
            return [target.problem]
        return [*([seen.blind] if seen.blind else []), *seen.busy, *behind(seen, self.limits(target))]

    def refusals(self, target: Target) -> list[str]:
        """Say what time does not mend."""
        seen, minor = target.seen, target.minor
        if seen is None or minor is None:
            return [target.problem or "it is not of a package of this host"]
        said = [minor.refused] if minor.refused else []
        ports = {one.cluster.port for one in self.targets if one.cluster and one.cluster.major == minor.major}
        said += [
            f"the cluster {one.major}/{one.name} on port {one.port} would be restarted with it and is not declared"
            for one in self.known
            if one.online and one.major == minor.major and one.port not in ports
        ]
        return said + out_of_turn(seen, self.limits(target), self.peers, max(minor.target, minor.installed))

    def not_now(self) -> str:
        """Say why no server of this host may be restarted now, empty when it may."""
        params = self.params
        if params["deadline"] and params["deadline"] - self.host.now().timestamp() < params["minimum_seconds"]:
            return "it does not fit into the window"
        state = read_state(params["state_dir"], "maintenance.json")
        if state.get("phase") != "entered" or not params["run_id"] or state.get("run_id") != params["run_id"]:
            return "the host is not in the maintenance mode of this run"
        try:
            snapshot_store.read(params["snapshot_root"], params["run_id"])
        except MaintenanceError as error:
            return f"this run has no snapshot: {error}"
        return ""

    # Doing

    def work(self) -> list[Action]:
        """Update and restart what is due, one major version after the other."""
        actions: list[Action] = []
        for major in sorted({target.minor.major for target in self.targets if target.work and target.minor}):
            group = [target for target in self.targets if target.minor and target.minor.major == major]
            actions += self._work_on(group)
        return actions

    def _work_on(self, group: list[Target]) -> list[Action]:
        """Work on all servers of one major; they share the packages, so that all of them have to be ready."""
        due = [target for target in group if target.work]
        refused = self._refused(group)
        if self.check_mode:
            return [self._action(target, "deferred" if refused else "due", refused) for target in due]
        obstacle = refused or self.not_now() or self._settled(group) or self._refused(group) or self.not_now()  # both anew after the wait
        if obstacle:
            return [self._action(target, "deferred", obstacle) for target in due]
        before = [(target, target.seen, target.work or "restart") for target in group if target.seen]
        problem = self._tried(self._install, group) if any(target.work == "update" for target in due) else ""
        after = self._tried(self._start if problem else self._restart, group)
        problem = "; ".join(filter(None, [problem, after]))
        return [self._proven(target, seen, work, problem) for target, seen, work in before]

    def _refused(self, group: list[Target]) -> str:
        return "; ".join([f"{target.name}: {said}" for target in group for said in self.refusals(target)][:3])

    def _settled(self, group: list[Target]) -> str:
        """Wait until nothing speaks against a restart; return what still does when the time is over."""
        end = self.host.now().timestamp() + self.params["wait_seconds"]
        while True:
            said = [f"{target.name}: {why}" for target in group for why in self.waits_for(target)]
            if not said or self.host.now().timestamp() >= end:
                return "; ".join(said[:3])
            self.host.sleep(_POLL_SECONDS)
            for target in group:
                self.see(target)

    def _install(self, group: list[Target]) -> str:
        minor = t.cast(Minor, group[0].minor)
        fetched = self.host.run([*INSTALL, "--download-only", "install", *minor.specs], timeout=3600, env=QUIET)
        if fetched.rc != 0:
            return f"the packages could not be fetched, and nothing was changed: {fetched.why()}"
        for target in group:
            self._checkpoint(target)
        ran = self.host.run([*INSTALL, "install", *minor.specs], timeout=3600, env=QUIET)
        return "" if ran.rc == 0 else ran.why()

    def _checkpoint(self, target: Target) -> None:
        """Write what is in memory while users are still served, so that the restart is short; a role that may not do so is no harm."""
        with contextlib.suppress(MaintenanceError), connect(target.server, statement_timeout_seconds=300) as session:
            session.execute("CHECKPOINT")

    def _restart(self, group: list[Target]) -> str:
        """Restart each server that the packages did not restart by themselves."""
        said = []
        for target in group:
            cluster, minor = target.cluster, target.minor
            if not self._await(target, lambda _seen: True, _GRACE_SECONDS) and cluster in clusters(self.host):
                self._await(target, lambda _seen: True, self.params["wait_seconds"])  # it is up, and still recovers
            wanted = number_on_disk(self.host, cluster.major) if cluster else 0
            is_old = target.seen is None or target.seen.version != wanted or target.seen.old_files
            if cluster and minor and is_old:
                ran = self.host.run(["pg_ctlcluster", str(cluster.major), cluster.name, "restart"], timeout=600)
                said += [] if ran.rc == 0 else [ran.why()]
        return "; ".join(said)

    def _tried(self, step: t.Callable[[list[Target]], str], group: list[Target]) -> str:
        """Take a step; one that cannot be taken ends neither the work nor its record, for a server may be down by now."""
        try:
            return step(group)
        except MaintenanceError as error:
            return str(error)

    def _start(self, group: list[Target]) -> str:
        """Start what packages that failed have stopped and not started again, as it is."""
        said = []
        for target in group:
            if target.cluster and not self._await(target, lambda _seen: True, _GRACE_SECONDS):
                ran = self.host.run(["pg_ctlcluster", str(target.cluster.major), target.cluster.name, "start"], timeout=600)
                said += [] if ran.rc == 0 else [ran.why()]
        return "; ".join(said)

    def _await(self, target: Target, enough: t.Callable[[Seen], bool], seconds: float) -> bool:
        end = self.host.now().timestamp() + seconds
        while True:
            self.see(target)
            if target.seen and enough(target.seen):
                return True
            if self.host.now().timestamp() >= end:
                return False
            self.host.sleep(_POLL_SECONDS)

    def _proven(self, target: Target, before: Seen, work: str, problem: str) -> Action:
        """Say what the running server is now, and wait for the replication to go on."""
        minor = t.cast(Minor, target.minor)
        target.minor = Minor(minor.major, number_on_disk(self.host, minor.major), minor.target, minor.planned, minor.refused, minor.names)

        def is_back(seen: Seen) -> bool:
            return not behind(seen, self.limits(target)) and len(seen.standbys) >= len(before.standbys)

        caught_up = self._await(target, is_back, self.params["wait_seconds"])
        wrong = [problem] if problem else []
        now = target.seen
        if now is None:
            wrong.append(f"it does not answer: {target.problem}")
        else:
            wrong += [f"it runs {shown(now.version)}, not {shown(minor.target)}"] if now.version != minor.target else []
            wrong += [f"it is a {now.role} now and was a {before.role}"] if now.role != before.role else []
            wrong += ["it is another database cluster now"] if now.system != before.system else []
            wrong += [] if caught_up else behind(now, self.limits(target)) or ["a replica did not come back"]
        said = "; ".join(wrong)
        return self._action(target, "failed" if wrong else "changed", said, before, work)

    def _action(self, target: Target, status: str, said: str, before: Seen | None = None, work: str = "") -> Action:
        seen, minor = before or target.seen, t.cast(Minor, target.minor)
        old = shown(seen.version) if seen else ""
        new = shown(target.seen.version) if before and target.seen else shown(minor.target)
        words = f"{seen.role if seen else 'server'} {target.name}: {old} -> {new}" + (f" ({said})" if said else "")
        planned = {item.name: item.version for item in minor.planned}
        return Action(target.name, work or target.work, status, clean(words), {"version": old}, {"version": new, "packages": planned})

    # Saying

    def outcome(self, actions: list[Action]) -> Outcome:
        """Sum everything up."""
        findings: list[Finding] = []
        if not self.params["look_only"]:
            findings = postgresql_minor_findings.all_of(self, actions)
        if self.params["self_test"] and not self.params["look_only"]:
            findings.append(self_test_finding("postgresql_minor.self_test", "replication checks", self_test()))
        failed = [action.summary for action in actions if action.status == "failed"]
        running = [f"{target.seen.role} {target.name} runs {shown(target.seen.version)}" for target in self.targets if target.seen]
        said = "; ".join(action.summary for action in actions) or "; ".join(running) or "no server answers"
        return Outcome(
            subject="postgresql",
            operation="postgresql_minor_update",
            status=status_of(actions, self.check_mode) if self.targets else "skipped",
            summary=("; ".join(failed) or said) if self.targets else "not configured",
            before={action.subject: action.before["version"] for action in actions},
            after={action.subject: action.after["version"] for action in actions},
            findings=findings,
            actions=actions,
            returned={"servers": [self._told(target) for target in self.targets if target.seen], "elsewhere": self.packages.elsewhere},
        )

    def _told(self, target: Target) -> dict[str, t.Any]:
        seen = t.cast(Seen, target.seen)
        return {
            "host": os.uname().nodename,
            "name": target.name,
            "role": seen.role,
            "system": seen.system,
            "version": seen.version,
            "behind": behind(seen, self.limits(target)),
        }


def number_on_disk(host: Host, major: int) -> int:
    """Return the version of a server's package on disk as a number, from the package database."""
    ran = host.run(["dpkg-query", "-W", "-f", "${Version}", f"postgresql-{major}"])
    return postgresql_minor_packages.number_of(ran.stdout)


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    numbers = ("long_transaction_seconds", "maximum_lag_bytes", "wait_seconds", "minimum_seconds", "lock_timeout_seconds")
    problems = out_of_range(params, numbers)
    names = [str(server["name"]) for server in params["servers"]]
    problems += [f"servers names {name!r} twice; give each a name of its own." for name in sorted({n for n in names if names.count(n) > 1})]
    for server in params["servers"]:
        problems += refusal(check_server, server)
        if not 0 <= server["replicas_expected"] <= 100:
            problems.append(
                str(InputError.of(f"replicas_expected of server {server['name']!r}", server["replicas_expected"], "0 to 100", "correct it"))
            )
    return problems


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every server, do what is due and may be done, and look again."""
    refuse(input_problems(params))
    job = Job(params, check_mode, host)
    if params["servers"]:
        job.survey()
    return job.outcome([] if params["look_only"] else job.work())
