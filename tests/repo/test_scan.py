"""Before a deployment the dependencies are scanned, and the exit status tells whether they meet the gate."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_cycle import GONE, Site

pytestmark = pytest.mark.slow


def site(folder: Path, version: str, **hosts: dict[str, object]) -> Site:
    """A host with one Node.js project, and advisories that name its one package below 2.0.0."""
    project = {"path": str(folder / "project"), "advisories": str(folder / "advisories.json")}
    (folder / "project").mkdir()
    (folder / "project/package.json").write_text('{"dependencies": {"left-pad": "^1.0.0"}}')
    place = {"version": version, "resolved": "https://registry.npmjs.org/left-pad/-/left-pad.tgz"}
    (folder / "project/package-lock.json").write_text(
        json.dumps({"lockfileVersion": 3, "packages": {"": {"dependencies": {"left-pad": "^1.0.0"}}, "node_modules/left-pad": place}})
    )
    span = {"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "2.0.0"}]}
    record = {
        "id": "GHSA-1",
        "modified": datetime.now(UTC).isoformat(),
        "affected": [{"package": {"ecosystem": "npm", "name": "left-pad"}, "ranges": [span]}],
    }
    (folder / "advisories.json").write_text(json.dumps(record))
    return Site(folder / "site", {"h1": {}, **hosts}, {"patching_node_projects": [project]})


def test_a_known_flaw_stops_the_deployment_and_a_waiver_or_a_wider_gate_lets_it_pass(tmp_path):
    """netpost-dep-03"""
    made = site(tmp_path, "1.3.0")
    stopped = made.run(playbook="playbooks/scan.yml")
    assert (stopped.code != 0, "1 findings are warning" in stopped.said) == (True, True), stopped.said
    assert not (made.folder / "h1/state").exists(), "a scan leaves nothing"
    flaw = "- {id: node.vulnerable, subject: '*', owner: Jane Doe, reason: not reachable, expires: 2099-01-31}\n"
    (made.folder / "waivers.yml").write_text(flaw)
    passed = made.run(playbook="playbooks/scan.yml")
    assert passed.code == 0, passed.said
    (made.folder / "waivers.yml").unlink()
    assert made.run(playbook="playbooks/scan.yml", maintenance_gate="critical").code == 0


def test_what_is_sound_passes_whatever_else_is_not_known_of_it(tmp_path):
    assert site(tmp_path, "2.1.0").run(playbook="playbooks/scan.yml").code == 0


def test_what_was_not_scanned_does_not_pass(tmp_path):
    made = site(tmp_path, "2.1.0")
    (tmp_path / "project/package-lock.json").unlink()
    assert made.run(playbook="playbooks/scan.yml").code != 0
    nothing = made.run(playbook="playbooks/scan.yml", patching_node_projects=[], maintenance_gate="critical")
    assert (nothing.code != 0, "nothing was scanned" in nothing.said) == (True, True), nothing.said


def test_a_host_out_of_reach_stops_it(tmp_path):
    assert site(tmp_path, "2.1.0", h2=GONE).run(playbook="playbooks/scan.yml", maintenance_gate="critical").code != 0
