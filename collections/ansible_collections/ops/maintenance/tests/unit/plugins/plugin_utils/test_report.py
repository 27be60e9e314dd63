# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.ops.maintenance.plugins.action import sign
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import control, report
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import append_signature, read_journal
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import START, SampleRun, finding, weekly

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _journals_here(tmp_path, monkeypatch):
    for name in ("OPS_MAINTENANCE_JOURNAL", "OPS_MAINTENANCE_STORE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPS_MAINTENANCE_JOURNAL_DIR", str(tmp_path))


@pytest.fixture
def store_url(tmp_path):
    return f"sqlite:///{tmp_path}/store.sqlite"


def keep(store_url, *paths):
    with Store(store_url) as store:
        for path in paths:
            store.save_run(read_journal(str(path)).lines)


def test_all_formats_are_written_under_the_runs_id_and_as_latest(tmp_path):
    run = weekly()
    paths = report.write_reports(str(run.write(tmp_path)), str(tmp_path / "new" / "reports"))
    assert paths == {kind: str(tmp_path / "new" / "reports" / f"{run.run_id}.{kind}") for kind in ("html", "md", "json")}
    for kind, path in paths.items():
        with open(path, "rb") as named, open(tmp_path / "new" / "reports" / f"latest.{kind}", "rb") as latest:
            assert named.read() == latest.read()
    assert sorted(os.listdir(tmp_path / "new" / "reports")) == sorted(f"{stem}.{kind}" for stem in (run.run_id, "latest") for kind in paths)


def test_a_preview_never_takes_the_place_of_the_report_of_a_real_run(tmp_path):
    real, preview = weekly(week=0), weekly(week=1)
    preview.lines[0]["check_mode"] = True
    folder = tmp_path / "out"
    report.write_reports(str(real.write(tmp_path)), str(folder))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    paths = report.write_reports(str(preview.write(tmp_path)), str(folder), formats=["html", "md"])
    assert paths["html"] == str(folder / f"preview-{preview.run_id}.html")
    assert {name: (folder / name).read_bytes() for name in before} == before
    new = sorted(path.name for path in folder.iterdir() if path.name not in before)
    assert new == sorted(f"preview-{stem}.{kind}" for stem in (preview.run_id, "latest") for kind in ("html", "md"))
    assert "<h1>Preview of the weekly maintenance of " in (folder / "preview-latest.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("formats", "name"),
    [(["pdf"], None), ([], None), (["html"], "../evil"), (["html"], "latest"), (["html"], "preview-latest"), (["html"], "a b")],
)
def test_wrong_formats_and_names_are_refused_before_anything_is_written(tmp_path, formats, name):
    journal = str(weekly().write(tmp_path))
    with pytest.raises(InputError):
        report.write_reports(journal, str(tmp_path / "out"), formats=formats, name=name)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MaintenanceError, match=r"could not be written to .*file/sub"):
        report.write_reports(str(weekly().write(tmp_path)), str(tmp_path / "file" / "sub"))


def test_the_same_journal_gives_the_same_report(tmp_path):
    journal = str(weekly().write(tmp_path))
    first, second = (json.dumps(vars(report.report_of(journal)), default=str) for _round in range(2))
    drop = first.index('"generated"'), first.index('"title"')
    assert first[: drop[0]] + first[drop[1] :] == second[: drop[0]] + second[drop[1] :]


def test_an_edited_journal_is_called_broken_in_every_format(tmp_path):
    path = weekly(faulty=False).write(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"no reboot is required", b"no reboot was required", 1))
    paths = report.write_reports(str(path), str(tmp_path / "out"))
    for written in paths.values():
        with open(written, encoding="utf-8") as source:
            assert "chain is broken" in source.read()


def test_a_killed_run_is_called_interrupted(tmp_path):
    run = weekly()
    run.lines = run.lines[:9]
    path = run.write(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    made = report.report_of(str(path))
    assert (made.run.state, made.verdict) == ("interrupted", "critical")
    assert "line 8" in made.notices[0].text


def test_comparison_and_trends_come_from_the_store(tmp_path, store_url):
    folders = [tmp_path / str(week) for week in range(4)]
    for folder in folders:
        folder.mkdir()
    paths = [weekly(week == 3, week).write(folder) for week, folder in enumerate(folders)]
    keep(store_url, *paths)
    made = report.report_of(str(paths[-1]), store_url)
    assert made.previous_started == (START + timedelta(days=14)).isoformat()
    assert {f.change for f in made.findings} == {"new"}
    assert {len(s.points) for s in made.series} == {4}


def test_trends_of_a_fleet_come_summed_up_from_the_store(tmp_path, store_url):
    hosts = tuple(f"web{n}" for n in range(8))
    paths = [weekly(False, week, hosts).write(tmp_path) for week in range(3)]
    keep(store_url, *paths)
    series = next(s for s in report.report_of(str(paths[-1]), store_url).series if s.name == "host.disk_percent")
    assert (series.host, [p.count for p in series.points]) == ("", [8, 8, 8])


def test_a_host_that_the_run_before_left_out_is_compared_with_the_one_before_that(tmp_path, store_url):
    def run(week, hosts, state):
        made = SampleRun(start=START + timedelta(days=7 * week)).opened().plan("shop", hosts)
        for host in hosts:
            made.record("shop", host, "r", "op", findings=[finding("a.a", state, "x", "s")]).outcome("shop", host)
        return made.ended().write(tmp_path)

    paths = [run(0, ["a", "b"], "warning"), run(1, ["a"], "ok"), run(2, ["a", "b"], "warning")]
    keep(store_url, *paths)
    made = report.report_of(str(paths[-1]), store_url)
    assert {f.host: f.change for f in made.findings} == {"a": "new", "b": "unchanged"}


def looked(start, *states, cadence="weekly", hosts=("a",), outcome="completed", check_mode=False):
    """A run in which operations have one finding each, such as ``("preflight", "ok")``."""
    made = SampleRun(cadence=cadence, start=start, check_mode=check_mode).opened().plan("shop", list(hosts))
    for host in hosts:
        for operation, state in states:
            made.record("shop", host, f"ops.maintenance.{operation}", operation, findings=[finding(f"{operation}.state", state, "x", "s")])
        made.outcome("shop", host, outcome)
    return made.ended("completed" if outcome == "completed" else "failed")


DAYS = [START + timedelta(days=day) for day in range(-28, 1)]


@pytest.mark.parametrize("with_store", [True, False], ids=["store", "journals"])
def test_a_refused_a_narrowed_and_a_check_mode_run_make_nothing_new(tmp_path, store_url, with_store):
    """Each was once the run before, and all that it had not looked at was called new."""
    known = (("preflight", "ok"), ("security_review", "warning"), ("log_analysis", "critical"))
    runs = [
        looked(DAYS[0], *known),
        looked(DAYS[7], ("preflight", "critical"), outcome="refused"),
        looked(DAYS[14], ("preflight", "ok"), ("log_analysis", "critical")),
        looked(DAYS[21], *known[:2], ("log_analysis", "ok"), check_mode=True),
        looked(DAYS[28], *known),
    ]
    paths = [run.write(tmp_path) for run in runs]
    if with_store:
        keep(store_url, *paths)
    made = report.report_of(str(paths[-1]), store_url if with_store else "")
    assert {f.id: f.change for f in made.findings} == {"security_review.state": "unchanged", "log_analysis.state": "unchanged"}
    assert made.compared == [runs[2].run_id, runs[0].run_id]
    assert (made.previous_run, made.gone, made.unseen) == (runs[2].run_id, [], [])


@pytest.mark.parametrize("with_store", [True, False], ids=["store", "journals"])
def test_the_own_cadence_counts_before_another_one_and_that_before_none(tmp_path, store_url, with_store):
    """A cadence demands its own level of proof: what is enough for the day may be too little for the week."""
    runs = [
        looked(DAYS[0], ("backup_verification", "warning")),
        looked(DAYS[6], ("backup_verification", "ok"), ("security_review", "warning"), cadence="daily"),
        looked(DAYS[7], ("backup_verification", "warning"), ("security_review", "warning"), ("validation", "warning")),
    ]
    paths = [run.write(tmp_path) for run in runs]
    if with_store:
        keep(store_url, *paths)
    made = report.report_of(str(paths[-1]), store_url if with_store else "")
    assert {f.id: f.change for f in made.findings} == {
        "backup_verification.state": "unchanged",
        "security_review.state": "unchanged",
        "validation.state": "",
    }
    assert made.compared == [runs[0].run_id, runs[1].run_id]


def test_a_report_over_a_span_leaves_previews_out(tmp_path, store_url):
    real, preview = looked(DAYS[7], ("preflight", "ok")), looked(DAYS[14], ("preflight", "ok"), check_mode=True)
    keep(store_url, real.write(tmp_path), preview.write(tmp_path))
    made = report.report_of_span(60, store_url, until=START + timedelta(days=1))
    assert ([run.run_id for run in made.span], made.run.run_id) == ([real.run_id], real.run_id)


def test_without_a_store_the_journal_before_in_the_folder_is_compared(tmp_path):
    weekly(False, -1).write(tmp_path)
    SampleRun(cadence="daily", start=START - timedelta(days=1)).opened().ended().write(tmp_path)
    made = report.report_of(str(weekly().write(tmp_path)))
    assert made.previous_run.startswith("weekly-20261114")
    assert {f.change for f in made.findings} == {"new"}


def test_a_store_that_does_not_answer_costs_only_the_trends(tmp_path):
    made = report.report_of(str(weekly().write(tmp_path)), "sqlite:////proc/nowhere/store.sqlite")
    assert made.notices[-1].title == "The store could not be read"
    assert len(made.findings) == 9


def test_a_run_can_be_reported_from_the_store_alone(tmp_path, store_url):
    run = weekly()
    path = run.write(tmp_path)
    keep(store_url, path)
    path.unlink()
    made = report.report_of_run(run.run_id, store_url)
    assert (made.run.chain, len(made.findings)) == ("unchecked", 9)
    with pytest.raises(MaintenanceError, match=rf"no run 'weekly-x'; the newest it has: {run.run_id}"):
        report.report_of_run("weekly-x", store_url)


def test_a_span_lists_its_runs_newest_first(tmp_path, store_url):
    keep(store_url, *[weekly(week == 2, week).write(tmp_path) for week in range(3)])
    made = report.report_of_span(15, store_url, until=START + timedelta(days=15))
    assert [(run.started[:10], run.verdict) for run in made.span] == [
        ("2026-12-05", "critical"),
        ("2026-11-28", "ok"),
        ("2026-11-21", "ok"),
    ]
    assert made.title == "Maintenance from 2026-11-21 to 2026-12-05"
    with pytest.raises(MaintenanceError, match="no run of the last 1 days"):
        report.report_of_span(1, store_url, until=START + timedelta(days=100))
    with pytest.raises(MaintenanceError, match="no store is configured"):
        report.report_of_span(1, "")


# which journal


def test_the_newest_journal_of_a_maintenance_is_the_default(tmp_path):
    newest = weekly(False, 1).write(tmp_path)
    weekly(False, 0).write(tmp_path)
    for cadence in ("report", "sign"):
        SampleRun(cadence=cadence, start=START + timedelta(days=30)).opened().ended().write(tmp_path)
    assert report.default_journal() == str(newest)


def test_the_run_that_asks_comes_first_unless_it_only_reports(tmp_path, monkeypatch):
    old, newest = weekly(False, 0).write(tmp_path), weekly(False, 1).write(tmp_path)
    monkeypatch.setenv("OPS_MAINTENANCE_JOURNAL", str(old))
    assert report.default_journal() == str(old)
    own = SampleRun(cadence="report", start=START + timedelta(days=30)).opened().write(tmp_path)
    monkeypatch.setenv("OPS_MAINTENANCE_JOURNAL", str(own))
    assert report.default_journal() == str(newest)


def test_no_journal_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(MaintenanceError) as caught:
        report.default_journal()
    assert str(tmp_path) in str(caught.value)
    assert "callbacks_enabled = ops.maintenance.journal" in str(caught.value)


@pytest.mark.parametrize("run_id", ["../etc/passwd", "", "a/b", "x" * 200, "-rf"])
def test_a_run_id_that_is_no_file_name_is_refused(run_id):
    with pytest.raises(InputError):
        report.journal_of(run_id)


def test_store_url_as_given_else_from_the_environment_else_the_file_beside_the_journals(tmp_path, monkeypatch):
    assert control.store_url(None) == ""
    (tmp_path / "store.sqlite").write_text("")
    assert control.store_url(None) == f"sqlite:///{tmp_path}/store.sqlite"
    monkeypatch.setenv("OPS_MAINTENANCE_STORE_URL", "")
    assert control.store_url(None) == ""
    assert control.store_url("sqlite:///x") == "sqlite:///x"


# signatures


def test_a_signature_goes_behind_the_end_and_the_chain_stays_whole(tmp_path):
    path = str(weekly().write(tmp_path))
    append_signature(path, {"duty": "verified_by", "system": "", "signed_by": "Jonas Weber", "signed_at": NOW.isoformat(), "note": ""}, NOW)
    journal = read_journal(path)
    assert (journal.broken_at, journal.complete, journal.state, journal.lines[-1]["kind"]) == (0, True, "completed", "signature")
    made = report.report_of(path)
    assert (made.run.chain, made.log.verified_by) == ("intact", "Jonas Weber, signed 2026-11-21 09:00 UTC")


def test_only_signatures_may_follow_the_end(tmp_path):
    run = weekly()
    run.record("fossawork", "fossa-app1", "r", "op")
    assert read_journal(str(run.write(tmp_path))).broken_why == "it does not belong to this run"


def test_a_damaged_journal_cannot_be_signed(tmp_path):
    path = weekly().write(tmp_path)
    before = path.read_bytes().replace(b"completed", b"Completed", 1)
    path.write_bytes(before)
    with pytest.raises(MaintenanceError, match="damaged"):
        append_signature(str(path), {"duty": "verified_by", "signed_by": "Jonas Weber"}, NOW)
    path.write_bytes(before := weekly().write(tmp_path).read_bytes()[:-5])
    with pytest.raises(MaintenanceError, match="cut off"):
        append_signature(str(path), {"duty": "verified_by", "signed_by": "Jonas Weber"}, NOW)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("duty", "signed_by", "complaint"),
    [
        ("access_review", "", "name of a person"),
        ("access_review", "automation", "not of the account"),
        ("unheard_of", "Mara Lindt", "one of access_review, notify, performed_by, recommendations, verified_by"),
        ("verified_by", "MARA LINDT", "another person"),
    ],
)
def test_a_worthless_signature_is_refused(duty, signed_by, complaint):
    lines = weekly().signed("performed_by", "Mara Lindt").lines
    with pytest.raises(InputError, match=complaint):
        sign.check({"duty": duty, "signed_by": signed_by}, lines)


def test_a_duty_of_the_plan_can_be_signed():
    assert sign.check({"duty": "access_review", "signed_by": "Mara Lindt"}, weekly().lines) is None
