# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node.js projects: npm's recorded answers, and an update and its way back in a real folder with a stand-in for npm."""

from __future__ import annotations

import json
import pathlib
import stat

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import node_dependencies as node
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "npm"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


@pytest.mark.parametrize("name", ["audit_refused.json", "audit_unreachable.json", "audit_no_lock.json"])
def test_audit_that_could_not_be_made_is_an_error_and_no_zero(name):
    with pytest.raises(MaintenanceError):
        node.parse_audit(recorded(name))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"metadata": {}}'])
def test_audit_answer_without_counts_is_an_error(text):
    with pytest.raises(MaintenanceError):
        node.parse_audit(text)


def test_audit_counts_and_worst_first():
    counts, lines = node.parse_audit(recorded("audit_found.json"))
    assert (counts["critical"], counts["high"], counts["low"]) == (1, 1, 0)
    assert lines == ["minimist (critical): fix needs a new major version", "lodash (high): fix within the range"]


def test_outdated_tells_the_wanted_version_from_the_latest():
    found = node.parse_outdated(recorded("outdated.json"))
    assert found["left-pad"] == node.Outdated("1.2.0", "1.2.0", "1.3.0")


def test_unreachable_registry_is_not_up_to_date():
    with pytest.raises(MaintenanceError, match="ECONNREFUSED"):
        node.parse_outdated(recorded("outdated_unreachable.json"))


NPM = """#!/bin/sh
echo "$@" >>"{log}"
case "$1" in
  audit)
    [ "$2" = fix ] && sed -i s/4.17.15/4.17.21/ package-lock.json
    cat "{audit}"; exit 1 ;;
  outdated) grep -q 4.17.15 package-lock.json && cat "{outdated}" && exit 1; echo "{{}}" ;;
  update) sed -i s/4.17.15/4.18.1/ package-lock.json; echo new >node_modules/lodash/index.js ;;
  ls) echo "{{}}" ;;
  *) exit 9 ;;
esac
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "web"
    (folder / "node_modules" / "lodash").mkdir(parents=True)
    (folder / "node_modules" / "lodash" / "index.js").write_text("old\n")
    (folder / "package.json").write_text('{"dependencies": {"lodash": "^4.17.15"}}')
    (folder / "package-lock.json").write_text(json.dumps({"packages": {"": {}, "node_modules/lodash": {"version": "4.17.15"}}}))
    tools = tmp_path / "bin"
    tools.mkdir()
    npm = tools / "npm"
    npm.write_text(NPM.format(log=tmp_path / "log", audit=RECORDED / "audit_found.json", outdated=RECORDED / "outdated.json"))
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return folder


def run(folder, check_mode=False, **declared):
    declared = {
        "path": str(folder),
        "update": ["lodash"],
        "update_vulnerable": False,
        "audit": True,
        "production_only": False,
        "test_command": [],
        **declared,
    }
    params = {
        "projects": [declared], "deadline": 0, "state_dir": str(folder.parent / "state"),
        "registry_timeout_seconds": 3, "test_timeout_seconds": 60, "minimum_seconds": 60,
    }  # fmt: skip
    return node.run(params, check_mode, Host())


def states(outcome):
    return {finding.id: finding.state for finding in outcome.findings}


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_check_mode_reports_and_changes_nothing(project):
    before = files(project)
    outcome = run(project, check_mode=True)
    assert outcome.status == "due"
    assert states(outcome) == {"node.vulnerable": "warning", "node.outdated": "warning"}
    assert files(project) == before


def test_update_is_made_without_force_and_again_is_ok(project):
    assert run(project).status == "changed"
    assert "4.18.1" in (project / "package-lock.json").read_text()
    assert run(project).status == "ok"
    said = (project.parent / "log").read_text()
    assert "force" not in said
    assert "audit fix" not in said
    assert sorted(path.name for path in project.iterdir()) == ["node_modules", "package-lock.json", "package.json"]


def test_vulnerable_packages_are_fixed_within_their_ranges_when_asked(project):
    found = run(project, check_mode=True, update=[], update_vulnerable=True)
    assert [action.subject for action in found.actions] == [f"{project}: lodash"]  # minimist needs a new major version
    changed = run(project, update=[], update_vulnerable=True)
    assert changed.actions[0].after == {"version": "4.17.21"}
    assert "force" not in (project.parent / "log").read_text()


def test_failing_build_brings_lock_file_and_modules_back(project):
    before = files(project)
    outcome = run(project, test_command=["false"])
    assert states(outcome)["node.update"] == "critical"
    assert files(project) == before


def test_missing_npm_or_lock_file_is_unknown(project, monkeypatch):
    (project / "package-lock.json").rename(project / "away")
    assert set(states(run(project)).values()) == {"unknown"}
    (project / "away").rename(project / "package-lock.json")
    monkeypatch.setattr(Host, "which", lambda *_: None)
    assert set(states(run(project)).values()) == {"unknown"}


@pytest.mark.parametrize("name", ["--force", "../x", "a b", "", "git+https://h/x"])
def test_update_takes_names_only(project, name):
    with pytest.raises(InputError):
        run(project, update=[name])


def test_scoped_name_is_a_name(project):
    assert run(project, update=["@vitejs/plugin-react"]).status == "ok"
