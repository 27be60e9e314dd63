# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a host ready for an installation: wait for other tools, repair, make room, fetch, and remember what works now."""

from __future__ import annotations

import typing as t

from . import apt_health, apt_lock, apt_packages, apt_space, dnf_checks, package_regression
from .apt_packages import OWN_LISTS, UNTOUCHED, Lists
from .errors import MaintenanceError, VerifyError, out_of_range, refuse
from .host import Host
from .judge import human_bytes, many
from .package_backends import BACKEND_OPTIONS, choose
from .record import Action, Finding, Outcome, clean, status_of

OPTIONS: dict[str, t.Any] = {
    "install": {"type": "list", "elements": "str", "default": []},
    "remove": {"type": "list", "elements": "str", "default": []},
    "repair": {"type": "bool", "default": False},
    "download_only": {"type": "bool", "default": False},
    "lock_timeout_seconds": {"type": "int", "default": 300},
    **BACKEND_OPTIONS,
}
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "APT_LISTCHANGES_FRONTEND": "none"}


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    return out_of_range(params, ("lock_timeout_seconds",))


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Do what comes before an installation; with ``download_only`` nothing but fetch."""
    refuse(input_problems(params))
    backend = choose(params["backend"], host)(host, params["security_archives"])
    actions: list[Action] = []
    findings: list[Finding] = []
    if backend.name == "apt":
        findings.append(_wait(host, params["lock_timeout_seconds"]))
        if not params["download_only"]:
            actions += _repair(host, check_mode) if params["repair"] else []
            actions += _remove(host, params["remove"], check_mode)
        if not actions:
            actions += _download(host, params["install"], check_mode)
    else:
        findings += [] if params["download_only"] else dnf_checks.ignored(params)
        actions += dnf_checks.download(host, params["install"], check_mode, params["lock_timeout_seconds"])
    failed = [action.summary for action in actions if action.status == "failed"]
    baseline = {} if params["download_only"] else _baseline(host, findings)
    replan = any(action.operation != "download" for action in actions)
    return Outcome(
        subject="packages",
        operation="package_updates",
        status=status_of(actions, check_mode),
        summary="; ".join(failed[:3]) or (f"{many(len(actions), 'step')} before the installation" if actions else "ready to install"),
        findings=findings,
        actions=actions,
        returned={"baseline": baseline, "replan": replan and not check_mode},
    )


def _lists(check_mode: bool) -> Lists:
    return UNTOUCHED if check_mode else OWN_LISTS


def _baseline(host: Host, findings: list[Finding]) -> package_regression.Baseline:
    """Remember what works now; where that cannot be seen, a regression will not be either, which is said."""
    try:
        return package_regression.look(host)
    except (MaintenanceError, OSError) as error:
        findings.append(package_regression.unseen(str(error)))
        return {}


def _wait(host: Host, timeout: float) -> Finding:
    finding = apt_lock.lock_finding(apt_lock.wait(host, timeout))
    if finding.state == "ok":
        return finding
    outcome = Outcome("packages", "package_updates", "failed", finding.summary, findings=[finding])
    raise MaintenanceError(f"Nothing was changed. {finding.summary} {finding.advice}", outcome)


def _repair(host: Host, check_mode: bool) -> list[Action]:
    """Run the repairs that are due, one after the other, and look again whether they helped."""
    due = apt_health.look(host, apt_packages.installed(host), _lists(check_mode)).repairs()
    if check_mode:
        return [apt_health.repair_action(repair, "due") for repair in due]
    said = {repair: host.run(apt_health.COMMANDS[repair], timeout=3600, env=_QUIET) for repair in due}
    left = apt_health.look(host, apt_packages.installed(host)).repairs() if due else []
    return [
        apt_health.repair_action(repair, "failed" if repair in left else "changed", ran.why() if repair in left else "")
        for repair, ran in said.items()
    ]


def _remove(host: Host, names: t.Sequence[str], check_mode: bool) -> list[Action]:
    """Remove exactly the packages that were previewed; when apt would remove anything else, nothing."""
    packages = apt_packages.installed(host) if names else {}
    present = [name for name in names if name in packages]
    if not present:
        return []
    would = {step.name for step in apt_packages.simulate(host, ["remove", *present], _lists(check_mode)).of("Remv", "Purg")}
    if would != set(present):
        more = ", ".join(sorted(would ^ set(present))[:5])
        raise VerifyError(f"Nothing was removed: removing {', '.join(present[:5])} would not be what was previewed ({more}). Look at it.")
    if not check_mode:
        host.run(["apt-get", "-y", "remove", *present], timeout=1800, env=_QUIET)
        packages = apt_packages.installed(host)
    return [_removed(name, name in packages, check_mode) for name in present]


def _removed(name: str, is_there: bool, check_mode: bool) -> Action:
    if check_mode:
        return Action(name, "remove", "due", f"{name} is to be removed")
    return Action(name, "remove", "failed" if is_there else "changed", f"{name} is {'still there' if is_there else 'removed'}")


def _download(host: Host, specs: t.Sequence[str], check_mode: bool) -> list[Action]:
    """Fetch what the plan needs into apt's cache and look whether it is all there."""
    left = _missing_bytes(host, specs, _lists(check_mode))
    if not left:
        return []
    said = f"{human_bytes(left)} for {many(len(specs), 'package')}"
    if check_mode:
        return [Action("packages", "download", "due", f"{said} to be fetched")]
    ran = host.run(["apt-get", "-y", "--download-only", "--no-remove", "--only-upgrade", "install", *specs], timeout=3600, env=_QUIET)
    missing = _missing_bytes(host, specs)
    if missing:
        summary = clean(f"{human_bytes(missing)} of {said} could not be fetched: {ran.why()}")
        return [Action("packages", "download", "failed", summary)]
    return [Action("packages", "download", "changed", f"{said} fetched", {"bytes": left}, {"bytes": 0})]


def _missing_bytes(host: Host, specs: t.Sequence[str], lists: Lists = OWN_LISTS) -> int:
    if not specs:
        return 0
    ran = host.run(["apt-get", *lists.options, "--print-uris", "-qq", "--only-upgrade", "install", *specs], timeout=180)
    return apt_space.parse_uris(ran.stdout)
