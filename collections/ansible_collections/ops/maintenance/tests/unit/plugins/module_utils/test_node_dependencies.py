# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node.js projects: npm's recorded answers, and an update and its way back in a real folder with a stand-in for npm."""

from __future__ import annotations

import contextlib
import json
import pathlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
  update) sed -i s/4.17.15/4.18.1/ package-lock.json; mkdir -p node_modules/lodash; echo new >node_modules/lodash/index.js ;;
  ci) cp package-lock.json node_modules/installed ;;
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


def run(folder, check_mode=False, more=None, **declared):
    declared = {
        "path": str(folder),
        "update": ["lodash"],
        "update_vulnerable": False,
        "update_severity": "",
        "build_first": False,
        "audit": True,
        "advisories": "",
        "advisories_stale_after_days": 14,
        "own_packages": [],
        "production_only": False,
        "audit_level": "info",
        "test_command": [],
        **declared,
    }
    params = {
        "projects": [declared], "deadline": 0, "state_dir": str(folder.parent / "state"),
        "registry_timeout_seconds": 3, "test_timeout_seconds": 60, "minimum_seconds": 60, **(more or {}),
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


def test_milder_flaws_than_the_level_are_counted_apart_and_the_level_is_no_matter_of_exit_codes(project, tmp_path):
    """neff-quarterly-02, flow-sec-4: npm's own option leaves the whole report as it is."""
    report = tmp_path / "audit.json"
    counts = {"info": 1, "low": 2, "moderate": 0, "high": 0, "critical": 0}
    found = {"debug": {"name": "debug", "severity": "low", "fixAvailable": True}}
    npm = project.parent / "bin" / "npm"
    npm.write_text(npm.read_text().replace(str(RECORDED / "audit_found.json"), str(report)))

    def judged():
        report.write_text(json.dumps({"vulnerabilities": found, "metadata": {"vulnerabilities": counts}}))
        [finding] = [finding for finding in run(project, True, audit_level="moderate").findings if finding.id == "node.vulnerable"]
        return finding

    mild = judged()
    assert (mild.state, mild.value, list(mild.evidence)) == ("ok", 0, [])
    assert "3 milder ones" in mild.summary
    assert states(run(project, True))["node.vulnerable"] == "warning"
    counts["moderate"], found["qs"] = 1, {"name": "qs", "severity": "moderate", "fixAvailable": False}
    worse = judged()
    assert (worse.state, worse.value, list(worse.evidence)) == ("warning", 1, ["qs (moderate): no fix"])
    assert "audit-level" not in (project.parent / "log").read_text()


@pytest.mark.parametrize(
    ("place", "item", "package"),
    [
        ("node_modules/a", {"version": "1.0.0", "resolved": "git+ssh://git@h/a.git#1"}, {}),
        ("node_modules/a", {"version": "1.0.0", "resolved": "file:../a.tgz"}, {}),
        ("node_modules/a", {"version": "1.0.0", "resolved": "https://h.example/a.tgz"}, {}),
        ("node_modules/b", {"version": "1.0.0"}, {"dependencies": {"a": "*"}}),  # asked for, not locked
    ],
)
def test_package_that_npm_cannot_judge_is_not_called_sound(project, tmp_path, place, item, package):
    """npm names advisories by package and version of a registry; what comes from elsewhere it passes over with a count of 0."""
    report = tmp_path / "audit.json"
    npm = project.parent / "bin" / "npm"
    npm.write_text(npm.read_text().replace(str(RECORDED / "audit_found.json"), str(report)))
    (project / "package.json").write_text(json.dumps(package))
    counts = dict.fromkeys(("info", "low", "moderate", "high", "critical"), 0)

    def judged(found, **declared):
        (project / "package-lock.json").write_text(json.dumps({"packages": {place: {**item, **found}}}))
        report.write_text(json.dumps({"vulnerabilities": {}, "metadata": {"vulnerabilities": counts}}))
        return next(finding for finding in run(project, True, update=[], **declared).findings if finding.id == "node.vulnerable")

    unseen = judged({})
    assert (unseen.state, "could not be compared: a" in unseen.not_covered) == ("unknown", True)
    assert judged({}, own_packages=["a"]).state == "ok"
    if place.endswith("/a"):
        assert judged({"dev": True}, production_only=True).state == "ok"
    counts["low"] = 2
    milder = judged({}, audit_level="high")
    assert (milder.state, "2 milder ones" in milder.summary) == ("unknown", True)
    counts["high"] = 1
    worse = judged({})
    assert (worse.state, "could not be compared: a" in worse.not_covered) == ("warning", True)


def test_what_is_new_since_the_run_before_is_said_first(project, tmp_path):
    """asr-13-3: a project that was vulnerable before and has one more is not the same as before."""
    report = tmp_path / "audit.json"
    npm = project.parent / "bin" / "npm"
    npm.write_text(npm.read_text().replace(str(RECORDED / "audit_found.json"), str(report)))

    def judged(*names, check_mode=False, **params):
        found = {name: {"name": name, "severity": "high", "fixAvailable": False} for name in names}
        counts = {"info": 0, "low": 0, "moderate": 0, "high": len(names), "critical": 0}
        report.write_text(json.dumps({"vulnerabilities": found, "metadata": {"vulnerabilities": counts}}))
        return next(finding for finding in run(project, check_mode, params, update=[]).findings if finding.id == "node.vulnerable")

    first = judged("qs")
    assert (first.evidence, "new" in first.summary) == (["qs (high): no fix"], False)
    for check_mode in (True, True, False):
        again = judged("debug", "qs", check_mode=check_mode)
        assert again.evidence == ["new: debug (high): no fix", "qs (high): no fix"]
        assert "1 new since the run before" in again.summary
    assert judged("debug", "qs").evidence == ["debug (high): no fix", "qs (high): no fix"]
    # The role looks in check mode first, then again in the same run; both compare with the run before.
    for check_mode in (True, False):
        twice = judged("qs", "ws", check_mode=check_mode, run_id="r2", remember=True)
        assert twice.evidence[0] == "new: ws (high): no fix"
    assert judged("qs", "ws", check_mode=True, run_id="r3", remember=True).evidence == ["qs (high): no fix", "ws (high): no fix"]
    (tmp_path / "state/dependencies_node.json").write_text("{")
    assert "what is new" in judged("qs").not_covered


def test_update_is_built_in_a_copy_first_and_then_installed_from_the_lock_file(project):
    """The live tree never sees what was not tested: the test command fails wherever it is asked in the live tree before npm ci."""
    test = ["sh", "-c", f"test $PWD != {project} || test -e node_modules/installed"]
    assert run(project, build_first=True, test_command=test).status == "changed"
    said = [line.split()[0] for line in (project.parent / "log").read_text().splitlines()]
    assert said == ["audit", "outdated", "update", "ls", "ci", "ls", "audit", "outdated"]
    assert "4.18.1" in (project / "node_modules/installed").read_text()
    assert "old" in (project / "node_modules/lodash/index.js").read_text(), "npm update ran in the live tree"


def test_update_that_does_not_work_in_the_copy_never_reaches_the_project(project):
    before = files(project)
    outcome = run(project, build_first=True, test_command=["false"])
    assert states(outcome)["node.update"] == "critical"
    assert "in a copy" in outcome.summary
    assert " ci" not in (project.parent / "log").read_text()
    assert files(project) == before


@pytest.mark.parametrize(("least", "chosen"), [("critical", []), ("high", ["lodash"])])
def test_only_what_is_severe_enough_is_fixed_and_by_name(project, least, chosen):
    """lodash is high, so that a run for critical ones leaves it alone; npm audit fix, which knows no severity, is never asked."""
    outcome = run(project, update=[], update_vulnerable=True, update_severity=least)
    assert [action.subject for action in outcome.actions] == [f"{project}: node_modules/{name}" for name in chosen]
    said = (project.parent / "log").read_text()
    assert "audit fix" not in said
    assert ("update --no-audit -- lodash" in said) == bool(chosen)


def test_every_package_can_be_kept_at_the_newest_version_of_its_range(project):
    outcome = run(project, update=["*"], check_mode=True)
    assert [(action.subject, action.after) for action in outcome.actions] == [(f"{project}: lodash", {"version": "4.18.1"})]


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


def advisories(folder, name="lodash", fixed="4.17.21", modified=""):
    path = folder.parent / "advisories.json"
    span = {"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": fixed}]}
    affected = [{"package": {"ecosystem": "npm", "name": name}, "ranges": [span]}]
    path.write_text(json.dumps({"id": "GHSA-1", "modified": modified or Host().now().isoformat(), "affected": affected}))
    return str(path)


def test_offline_advisories_are_compared_without_npm(project, monkeypatch):
    monkeypatch.setattr(Host, "which", lambda *_: None)
    found = run(project, advisories=advisories(project))
    assert states(found) == {"node.vulnerable": "warning", "node.outdated": "unknown"}
    assert found.findings[0].evidence == ["lodash 4.17.15: GHSA-1, fixed in 4.17.21"]
    assert states(run(project, advisories=advisories(project, fixed="4.0.0")))["node.vulnerable"] == "ok"


@pytest.mark.parametrize(
    ("lock", "package"),
    [
        (None, {}),  # no lock file
        ({"packages": {}}, {"dependencies": {"lodash": "*"}}),  # asked for, not locked
        ({"packages": {"node_modules/a": {"version": "1.0.0", "resolved": "git+ssh://git@h/a.git#1"}}}, {}),
        ({"packages": {"node_modules/a": {}}}, {}),
        ({}, {}),
        ([], {}),
    ],
)
def test_what_the_lock_file_does_not_tell_is_unknown(project, lock, package):
    (project / "package.json").write_text(json.dumps(package))
    (project / "package-lock.json").write_text(json.dumps(lock))
    if lock is None:
        (project / "package-lock.json").unlink()
    found = states(run(project, check_mode=True, advisories=advisories(project, fixed="1.0.0")))
    assert found.get("node.vulnerable", found.get("node.readable")) == "unknown"


def test_old_or_missing_advisories_are_unknown(project):
    old = advisories(project, fixed="1.0.0", modified="2020-01-01T00:00:00Z")
    assert states(run(project, check_mode=True, advisories=old))["node.vulnerable"] == "unknown"
    assert states(run(project, check_mode=True, advisories="/nowhere"))["node.vulnerable"] == "unknown"


def test_vulnerable_package_of_the_database_is_updated_when_asked(project):
    declared = {"update": [], "update_vulnerable": True, "advisories": advisories(project)}
    assert run(project, **declared).status == "changed"
    assert "4.18.1" in (project / "package-lock.json").read_text()
    assert states(run(project, **declared))["node.vulnerable"] == "ok"


@pytest.mark.parametrize(("severity", "chosen"), [("HIGH", True), ("MODERATE", False), (None, False)])
def test_severity_of_the_database_decides_what_is_updated(project, severity, chosen):
    path = advisories(project)
    record = json.loads(pathlib.Path(path).read_text())
    pathlib.Path(path).write_text(json.dumps({**record, "database_specific": {"severity": severity}}))
    outcome = run(project, check_mode=True, update=[], update_vulnerable=True, update_severity="high", advisories=path)
    assert states(outcome)["node.vulnerable"] == "warning"
    assert bool(outcome.actions) is chosen


def test_lock_files_of_every_version():
    places = {
        "": {"name": "web"}, "packages/own": {"version": "1.0.0"}, "node_modules/own": {"link": True, "resolved": "packages/own"},
        "node_modules/@s/a": {"version": "1.2.3", "resolved": "https://registry.npmjs.org/@s/a/-/a-1.2.3.tgz"},
        "node_modules/@s/a/node_modules/b": {"version": "2.0.0", "dev": True},
        "node_modules/alias": {"name": "real", "version": "3.0.0"},
        "node_modules/far": {"version": "1.0.0", "resolved": "https://h.example/far.tgz"},
    }  # fmt: skip
    lock = node.Lock.of(json.dumps({"lockfileVersion": 3, "packages": places}))
    assert [(p.name, p.version, p.development, p.registry) for p in lock.packages] == [
        ("@s/a", "1.2.3", False, True), ("b", "2.0.0", True, True), ("real", "3.0.0", False, True), ("far", "1.0.0", False, False),
    ]  # fmt: skip
    assert lock.missing(["@s/a", "own", "alias", "b"]) == ["b"]
    tree = {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0", "dev": True}}}, "c": {"version": "git+ssh://h#1"}}
    old = node.Lock.of(json.dumps({"lockfileVersion": 1, "dependencies": tree}))
    assert [(p.place, p.registry) for p in old.packages] == [
        ("node_modules/a", True),
        ("node_modules/a/node_modules/b", True),
        ("node_modules/c", False),
    ]


_KEYS = st.sampled_from(["packages", "dependencies", "lockfileVersion", "node_modules/a", "version", "link", "resolved"])
_PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.recursive(_PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12))
def test_any_lock_file_is_read_or_refused_in_a_sentence(value):
    with contextlib.suppress(MaintenanceError):
        node.Lock.of(json.dumps(value))
