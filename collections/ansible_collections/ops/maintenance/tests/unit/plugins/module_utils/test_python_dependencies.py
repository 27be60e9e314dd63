# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python environments, with a real environment, the real pip and an index in a folder."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import python_dependencies as python
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

pytestmark = pytest.mark.slow


def wheel(index, name: str, version: str, requires: str = "") -> None:
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        needed = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    for version in ("1.0", "1.1", "2.0"):
        wheel(folder / "index", "shop", version)
    wheel(folder / "index", "other", "1.0")
    wheel(folder / "index", "other", "1.1")
    for name in ("pip", "setuptools"):
        (folder / "index" / name).mkdir()
        (folder / "index" / name / "index.html").write_text("<!DOCTYPE html><html><body></body></html>")
    return folder


@pytest.fixture
def venv(template, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", (template / "index").as_uri())
    install = [template / "venv/bin/python", "-m", "pip", "install", "-q", "--force-reinstall", "shop==1.0", "other==1.0"]
    if not (list(template.glob("venv/lib/*/*/shop-1.0.dist-info")) and list(template.glob("venv/lib/*/*/other-1.0.dist-info"))):
        subprocess.run(install, check=True)
    (template / "requirements.txt").write_text("shop[extra]>=1,<2  # comment\n-r more.txt\nother\n")
    return template / "venv"


def run(venv, check_mode=False, deadline=0.0, **declared):
    environment = {
        "path": str(venv), "requirements": "", "update": [], "update_vulnerable": False, "audit": False,
        "advisories": "", "advisories_stale_after_days": 14, "own_packages": [], "test_command": [], **declared,
    }  # fmt: skip
    params = {
        "environments": [environment], "deadline": deadline, "state_dir": str(pathlib.Path(venv).parent / "state"),
        "registry_timeout_seconds": 3, "test_timeout_seconds": 60, "minimum_seconds": 60,
    }  # fmt: skip
    return python.run(params, check_mode, Host())


def states(outcome):
    return {finding.id: finding.state for finding in outcome.findings}


def version(venv, name):
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([venv / "bin/python", "-c", code], check=True, capture_output=True, text=True).stdout.strip()


LIMITS = {"update": ["shop"]}


def test_check_mode_plans_within_the_range_and_changes_nothing(venv):
    outcome = run(venv, check_mode=True, requirements=str(venv.parent / "requirements.txt"), **LIMITS)
    assert [(a.status, a.before, a.after) for a in outcome.actions] == [("due", {"version": "1.0"}, {"version": "1.1"})]
    assert version(venv, "shop") == "1.0"
    assert not (venv.parent / "state").exists()


def test_only_the_named_package_is_updated_within_its_range_and_again_is_ok(venv):
    declared = {"requirements": str(venv.parent / "requirements.txt"), **LIMITS}
    outcome = run(venv, test_command=["bin/python", "-c", "import shop"], **declared)
    assert outcome.status == "changed"
    assert (version(venv, "shop"), version(venv, "other")) == ("1.1", "1.0")
    assert not venv.with_name("venv.before_maintenance").exists()
    assert run(venv, **declared).status == "ok"


@pytest.mark.parametrize("requirements", [None, "shop\nother\n"])
def test_package_without_a_declared_range_stays_within_its_major_version(venv, requirements):
    """The literal pip install --upgrade would take shop 2.0."""
    if requirements:
        (venv.parent / "requirements.txt").write_text(requirements)
    outcome = run(venv, check_mode=True, requirements=str(venv.parent / "requirements.txt") if requirements else "", **LIMITS)
    assert [(a.subject, a.after) for a in outcome.actions] == [(f"{venv}: shop", {"version": "1.1"})]


def test_fix_that_an_exact_pin_keeps_out_stays_a_finding(venv):
    """The literal upgrade does nothing and says nothing."""
    (venv.parent / "requirements.txt").write_text("shop==1.0\n")
    database = venv.parent / "pinned.json"
    events = [{"introduced": "0"}, {"fixed": "1.1"}]
    affected = [{"package": {"ecosystem": "PyPI", "name": "shop"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    database.write_text(json.dumps({"id": "PYSEC-1", "modified": Host().now().isoformat(), "affected": affected}))
    declared = {"requirements": str(venv.parent / "requirements.txt"), "audit": True, "advisories": str(database)}
    outcome = run(venv, update_vulnerable=True, **declared)
    assert states(outcome)["python.vulnerable"] == "warning"
    assert [action.status for action in outcome.actions if action.status == "changed"] == []
    assert version(venv, "shop") == "1.0"


def test_years_are_no_major_versions():
    installed = {"shop": "1.4", "certifi": "2024.8.30", "Other-Thing": "0.9", "odd": "x"}
    assert python.same_major(installed, ["other_thing>=0.8"]) == ["shop<2"]


def test_failing_test_command_takes_the_update_back(venv):
    outcome = run(venv, test_command=["bin/python", "-c", "import sys, shop; sys.exit(shop.version != '1.0')"], **LIMITS)
    assert outcome.actions[0].status == "failed"
    assert states(outcome)["python.update"] == "critical"
    assert version(venv, "shop") == "1.0"
    kept = json.loads(next((venv.parent / "state").glob("python_*.json")).read_text())
    assert kept["packages"]["shop"] == "1.0"


def test_copy_of_an_interrupted_update_stops_the_next(venv):
    left = venv.with_name("venv.before_maintenance")
    left.mkdir()
    try:
        outcome = run(venv, **LIMITS)
        assert states(outcome)["python.update"] == "critical"
        assert "interrupted" in outcome.actions[0].summary
    finally:
        left.rmdir()
    assert version(venv, "shop") == "1.0"


def test_late_update_is_deferred(venv):
    outcome = run(venv, deadline=Host().now().timestamp() + 5, **LIMITS)
    assert {action.status for action in outcome.actions} == {"deferred"}
    assert version(venv, "shop") == "1.0"


def test_index_that_does_not_answer_is_unknown_although_pip_ends_with_0(venv, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    outcome = run(venv, check_mode=True)
    assert states(outcome)["python.outdated"] == "unknown"
    assert not outcome.actions


def test_missing_audit_tool_and_database_are_unknown(venv):
    assert states(run(venv, check_mode=True, audit=True))["python.vulnerable"] == "unknown"


def test_offline_audit_finds_the_vulnerable_package_and_it_can_be_updated(venv):
    advisory = {
        "id": "PYSEC-9", "modified": Host().now().isoformat(),
        "affected": [{"package": {"ecosystem": "PyPI", "name": "shop"},
                      "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}]}],
    }  # fmt: skip
    database = venv.parent / "advisories.json"
    database.write_text(json.dumps(advisory))
    declared = {"audit": True, "advisories": str(database), "requirements": str(venv.parent / "requirements.txt")}
    found = run(venv, check_mode=True, **declared)
    assert states(found)["python.vulnerable"] == "warning"
    assert not found.actions
    assert states(run(venv, update_vulnerable=True, **declared))["python.vulnerable"] == "ok"
    assert version(venv, "shop") == "1.1"
    advisory["modified"] = "2020-01-01T00:00:00Z"
    database.write_text(json.dumps(advisory))
    assert states(run(venv, check_mode=True, **declared))["python.vulnerable"] == "unknown"


def test_unmet_requirement_is_a_warning(venv, template):
    wheel(template / "index", "needy", "1.0", "nowhere>=1")
    subprocess.run([venv / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "needy"], check=True)
    try:
        assert states(run(venv, check_mode=True))["python.consistent"] == "warning"
    finally:
        subprocess.run([venv / "bin/python", "-m", "pip", "uninstall", "-q", "-y", "needy"], check=True)


@pytest.mark.parametrize("name", ["--index-url=http://x", "../x", "a b", "", "/etc/passwd", "x==1;y"])
def test_update_takes_names_only(venv, name):
    with pytest.raises(InputError):
        run(venv, update=[name])


def test_folder_that_is_no_environment_and_a_linked_one_are_unknown(tmp_path, venv):
    (tmp_path / "link").symlink_to(venv)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "link", tmp_path / "missing", tmp_path / "file", "/"):
        outcome = run(path, update=["shop"])
        assert states(outcome) == {"python.readable": "unknown"}
        assert outcome.actions == []


def test_nothing_declared_is_not_configured():
    params = {"environments": [], "deadline": 0, "state_dir": "/nowhere", "minimum_seconds": 0}
    outcome = python.run(params, False, Host())
    assert (outcome.status, outcome.summary) == ("skipped", "not configured")


def test_constraints_from_requirements():
    text = "a[x]>=1,<2 ; python_version > '3'\nb==1 \\\n  --hash=sha256:00\n-e ./here\ngit+https://h/x\nc\n# d\n"
    allowed, skipped = python.constraints(text)
    assert allowed == ["a>=1,<2; python_version > '3'", "b==1"]
    assert skipped == ["-e ./here", "git+https://h/x"]


def test_pip_audit_answer():
    text = json.dumps({"dependencies": [
        {"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["3.1.3"]}]},
        {"name": "fine", "version": "1", "vulns": []},
        {"name": "local", "skip_reason": "not found on PyPI"},
    ]})  # fmt: skip
    advisories, skipped = python.parse_pip_audit(text)
    assert [(a.package, a.ids, a.fixed) for a in advisories] == [("jinja2", ("PYSEC-1", "CVE-2"), "3.1.3")]
    assert skipped == ["local"]


def test_skipped_package_is_not_sound_unless_it_is_ones_own():
    audited = python.Audited([], ["local"])
    assert python.audit_finding("python.vulnerable", "/venv", audited, []).state == "unknown"
    assert python.audit_finding("python.vulnerable", "/venv", audited, ["local"]).state == "ok"
