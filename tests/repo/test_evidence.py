"""A deep run leaves its evidence in one archive, also when hosts were out of reach, and the playbook proves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cycle import FORCED, GONE, Run, Site

from ansible_collections.ops.maintenance.plugins.plugin_utils import evidence

pytestmark = pytest.mark.slow
WINDOW = {"rule": "FREQ=DAILY;BYHOUR=0;BYMINUTE=0", "duration_minutes": 1439, "timezone": "UTC"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    variables = {
        "maintenance_windows": {"quarterly": WINDOW},
        "maintenance_steps": {"quarterly": {"before": [], "offline": [], "after": ["site_commands"]}},
        "cycle_always_enter": False,
    }
    site = Site(tmp_path_factory.mktemp("evidence") / "site", {"h1": {}, "h2": GONE}, variables)
    return site.run(**FORCED, playbook="playbooks/quarterly.yml")


def archive(run: Run) -> Path:
    return run.site.folder / f"report/evidence-{run.lines[0]['run_id']}.tar.gz"


def test_a_quarterly_run_packs_its_evidence_whatever_became_of_its_hosts(run):
    assert run.outcomes == {"h1": "completed", "h2": "unreachable"}, run.said
    assert archive(run).stat().st_mode & 0o777 == 0o600
    manifest, faults = evidence.faults_of(str(archive(run)))
    assert (faults, manifest["run_id"], manifest["state"]) == ([], run.lines[0]["run_id"], "running")


def test_packed_again_it_holds_the_end_and_is_proven_by_one_command(run):
    done = run.site.run(playbook="playbooks/evidence.yml", maintenance_report_dir=str(run.site.folder / "report"))
    assert done.code == 0, done.said
    assert evidence.faults_of(str(archive(run)))[0]["state"] == "failed"
    proven = run.site.run(playbook="playbooks/evidence.yml", maintenance_evidence=str(archive(run)))
    assert (proven.code, "all 5 files are as they were packed" in proven.said) == (0, True), proven.said
    archive(run).write_bytes(archive(run).read_bytes()[:-100])
    assert run.site.run(playbook="playbooks/evidence.yml", maintenance_evidence=str(archive(run))).code != 0
