"""What tests of the real dnf share: running it, and the three steps of an update as the role takes them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

from ansible_collections.ops.maintenance.plugins.module_utils import package_prepare, package_updates, package_verify
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

STATE = "/tmp/dnf_state"
REPOS = pathlib.Path("/etc/yum.repos.d")


def configure(name, folder, *lines):
    """Configure a repository in a folder."""
    REPOS.mkdir(exist_ok=True)
    text = [f"[{name}]", f"name={name}", f"baseurl=file://{folder}", "gpgcheck=0", "enabled=1", *lines, ""]
    (REPOS / f"{name}.repo").write_text("\n".join(text))


def leave(*names):
    """Remove the packages, the repositories and what dnf wrote."""
    rpm("-e", "--nodeps", "--noscripts", "--allmatches", *sorted({line.rsplit("-", 2)[0] for line in ran("rpm", "-qa").split()}))
    for name in names:
        (REPOS / f"{name}.repo").unlink()
    for log in pathlib.Path("/var/log").glob("dnf*.log"):
        log.unlink()
    for folder in (STATE, "/var/cache/dnf"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in pathlib.Path("/var/lib/dnf").glob("history.sqlite*"):
        file.unlink()


def ran(*argv):
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def rpm(*argv):
    """Run rpm, which some of Debian's versions refuse to do beside dpkg unless told to."""
    told = subprocess.run(["rpm", "--force-debian", "--version"], check=False, capture_output=True).returncode == 0
    return ran("rpm", *(["--force-debian"] if told else []), *argv)


def info(check=False, **more):
    given = {name: option.get("default") for name, option in package_updates.OPTIONS.items()}
    params = {**given, "backend": "dnf", "deadline": 0.0, "state_dir": STATE, "self_test": False, **more}
    outcome = package_updates.run(params, check, Host())
    outcome.record()
    return outcome


def verify(plan, **more):
    given = {name: option.get("default") for name, option in package_verify.OPTIONS.items()}
    params = {**given, "backend": "dnf", "plan": plan, "deadline": 0.0, "state_dir": STATE, "fresh": True, **more}
    return package_verify.run(params, False, Host())


def prepare(install, check=False, **more):
    given = {name: option.get("default") for name, option in package_prepare.OPTIONS.items()}
    params = {**given, "backend": "dnf", "install": install, "deadline": 0.0, "state_dir": STATE, **more}
    outcome = package_prepare.run(params, check, Host())
    outcome.record()
    return outcome


def fetched():
    return sorted(path.name for path in pathlib.Path("/var/cache/dnf").rglob("*.rpm"))


def state(outcome, name):
    return {finding.id: finding for finding in outcome.findings}[f"patching.{name}"].state


def finding(outcome, name):
    return {finding.id: finding for finding in outcome.findings}[f"patching.{name}"]


def versions():
    return {
        name[4:]: package.version
        for name, package in package_verify.choose("dnf", Host())(Host(), []).installed().items()
        if name.startswith("ops-")
    }


def planned(outcome):
    return {item["name"]: item["version"] for item in outcome.returned["plan"]}
