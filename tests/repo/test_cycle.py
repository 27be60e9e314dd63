"""The cycle as `ansible-playbook` runs it, on hosts that are folders of this machine: each has a service, a database and its own state."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import read_journal
from ansible_collections.ops.maintenance.tests.unit.plugins import schema

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
COLLECTION = ROOT / "collections/ansible_collections/ops/maintenance"
SERVICE = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$1" in
start) : >runs; echo start >>order ;;
stop) rm -f runs; echo stop >>order ;;
status) [ -e runs ] ;;
esac
"""
FORCED = {"maintenance_force_window": "a test"}
ALWAYS = {"rule": "FREQ=DAILY;BYHOUR=0;BYMINUTE=0", "duration_minutes": 1439, "timezone": "UTC"}
IN_A_WEEK = {"rule": "FREQ=YEARLY", "start": f"{date.today() + timedelta(days=7)}T03:00", "duration_minutes": 60, "timezone": "UTC"}


class Site:
    """An inventory in a folder of its own, and a run on it."""

    def __init__(self, folder: Path, hosts: dict[str, dict[str, Any]], variables: dict[str, Any] | None = None) -> None:
        self.folder = folder
        folder.mkdir()
        self._write_inventory(hosts, variables or {})
        for name in hosts:
            self._make_host(folder / name)

    def _write_inventory(self, hosts: dict[str, dict[str, Any]], variables: dict[str, Any]) -> None:
        here = str(self.folder) + "/{{ inventory_hostname }}"
        service = {"name": "app", "manager": "command", **{verb: [f"{here}/service", verb] for verb in ("start", "stop", "status")}}
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "maintenance_become": False,
            "maintenance_system": "folders",
            "maintenance_state_dir": f"{here}/state",
            "maintenance_report_dir": str(self.folder / "report"),
            "maintenance_steps": {"weekly": {"before": [], "offline": ["database_maintenance"], "after": ["site_commands"]}},
            "maintenance_mode_services": [service],
            "maintenance_mode_settle_seconds": 0,
            "cycle_always_enter": True,
            "validation_units": [service],
            "database_maintenance_sqlite": [{"path": f"{here}/data/app.db"}],
            "snapshot_root": f"{here}/snapshots",
            "snapshot_databases": [{"path": f"{here}/data/app.db"}],
            "snapshot_packages": False,
            "snapshot_reserve_bytes": 0,
            "preflight_clock": "off",
            "preflight_package_manager": False,
            **{f"preflight_{what}_{level}_percent": 999 for what in ("disk", "load") for level in ("warning", "critical")},
        }

        group = {"vars": {**common, **variables}, "hosts": hosts}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"maintained": group}, sort_keys=False))

    @staticmethod
    def _make_host(folder: Path) -> None:
        (folder / "data").mkdir(parents=True)
        (folder / "service").write_text(SERVICE)
        (folder / "service").chmod(0o755)
        (folder / "runs").touch()
        with sqlite3.connect(folder / "data/app.db") as database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
            database.executemany("INSERT INTO orders (text) VALUES (?)", [(f"order {n}",) for n in range(100)])
        database.close()

    def start(self, *argv: str, config: str = "", playbook: str = "playbooks/weekly.yml", **extra: Any) -> subprocess.Popen[str]:
        config_file = self.folder / "ansible.cfg"
        config_file.write_text(config or (ROOT / "ansible.cfg").read_text().replace("collections_path = ", f"collections_path = {ROOT}/"))
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "OPS_MAINTENANCE_"))}
        env |= {"ANSIBLE_CONFIG": str(config_file), "OPS_MAINTENANCE_JOURNAL_DIR": str(self.folder / "journal"), "NO_COLOR": "1"}
        env["TZ"] = "America/Los_Angeles"  # the deadline is the same moment wherever the control node is
        command = [str(ANSIBLE_PLAYBOOK), str(ROOT / playbook), "-i", str(self.folder / "hosts.yml"), "-e", json.dumps(extra)]
        return subprocess.Popen(
            [*command, *argv],
            env=env,
            cwd=self.folder,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *argv: str, **given: Any) -> Run:
        before = set(self.journals())
        process = self.start(*argv, **given)
        said, _none = process.communicate(timeout=120)
        new = set(self.journals()) - before
        lines = read_journal(str(new.pop())).lines if new else []
        assert [fault for line in lines for fault in schema.faults(line)] == [], said
        return Run(self, process.returncode, said, lines)

    def journals(self) -> list[Path]:
        return sorted((self.folder / "journal").glob("*.jsonl"))

    def rows(self, host: str) -> int:
        with sqlite3.connect(self.folder / host / "data/app.db") as database:
            return int(database.execute("SELECT count(*) FROM orders").fetchone()[0])

    def count(self, place: str) -> int:
        return len(list((self.folder / place).iterdir()))

    def is_untouched(self, host: str) -> bool:
        folder = self.folder / host
        return not any((folder / name).exists() for name in ("order", "state", "snapshots")) and (folder / "runs").exists()


class Run:
    """What a run left behind."""

    def __init__(self, site: Site, code: int, said: str, lines: list[dict[str, Any]]) -> None:
        self.site, self.code, self.said, self.lines = site, code, said, lines
        self.backups: dict[str, int] = {}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def outcomes(self) -> dict[str, str]:
        return {line["host"]: line["outcome"] for line in self.of_kind("outcome")}

    def reason(self, host: str) -> str:
        return next(str(line["reason"]) for line in self.of_kind("outcome") if line["host"] == host)

    def records(self, operation: str, host: str | None = None) -> list[dict[str, Any]]:
        return [line for line in self.of_kind("record") if line["operation"] == operation and host in (None, line["host"])]

    @property
    def plan(self) -> dict[str, Any]:
        return self.of_kind("plan")[0]

    @property
    def has_report(self) -> bool:
        page = self.site.folder / "report/latest.html"
        return page.exists() and self.lines[0]["run_id"] in page.read_text()


def tool(code: str, **more: Any) -> dict[str, Any]:
    return {"name": "check", "argv": [sys.executable, "-c", code], "required": True, "run_in_check_mode": True, **more}


DAMAGE_ONCE = """
import os, sqlite3
if not os.path.exists("{0}/done"):
    open("{0}/done", "w").close()
    database = sqlite3.connect("{0}/data/app.db")
    database.execute("DELETE FROM orders")
    database.commit()
    raise SystemExit("orders are missing")
"""
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def canary_fails(folder: Path) -> Run:
    damage = {"site_commands": [tool(DAMAGE_ONCE.format(folder / "site/h1"), when="validate")]}
    return Site(folder / "site", {"h1": damage, "h2": {}, "h3": {}, "h4": {}}).run(**FORCED)


def some_are_out_of_reach(folder: Path) -> Run:
    hosts = {"h1": GONE, "h2": {}, "h3": GONE, "h4": {}, "h5": {}}
    return Site(folder / "site", hosts).run(**FORCED, maintenance_serial=1, maintenance_failure_budget_percent=20)


def all_are_out_of_reach(folder: Path) -> Run:
    return Site(folder / "site", {"h1": GONE, "h2": GONE}).run(**FORCED)


def outside_the_window(folder: Path) -> Run:
    return Site(folder / "site", {"h1": {}, "h2": {}}, {"maintenance_windows": {"weekly": IN_A_WEEK}}).run("--limit", "h2")


def in_a_blackout(folder: Path) -> Run:
    first, last = str(date.today() - timedelta(days=2)), str(date.today() + timedelta(days=2))
    blackout = [{"first": first, "last": last, "reason": "end of year"}]
    return Site(folder / "site", {"h1": {}}, {"maintenance_windows": {"weekly": ALWAYS}, "maintenance_blackouts": blackout}).run()


def faults_in_the_inventory(folder: Path) -> Run:
    faults = {
        "snapshot_keep_days": "many",
        "maintenance_mode_services": "nginx",
        "maintenance_mode_grace_second": 5,
        "maintenance_contacts": {"owner": "{{PRIMARY_ADMIN_EMAIL}}"},
        "maintenance_failure_budget_percent": "ten",
        "maintenance_duties": "sign it",
    }
    return Site(folder / "site", {"h1": {}, "h2": {}}, faults).run(**FORCED)


OUT_OF_RANGE = {
    "snapshot_keep_days": -1,
    "log_rotation_span_days": -3,
    "log_rotation_rules": [{"root": "/logs", "pattern": ["*.log"], "delete_after_days": -90}],
    "maintenance_failure_budget_percent": -5,
    "maintenance_steps": {"weekly": {"before": [], "offline": ["patchin", "database_maintenance"], "after": []}},
    "patching_hold": 5,
    "backup_verification_rotation": [{"name": "app", "set": "app", "root": "/backups", "pattern": "*.tar", "minimum_copies": 0}],
}


def values_out_of_range(folder: Path) -> Run:
    return Site(folder / "site", {"h1": {}, "h2": {}}, OUT_OF_RANGE).run(**FORCED)


def roles_alone_with_bad_input(folder: Path) -> Run:
    """Roles used without the cycle: what their last module would refuse is refused before their first one writes anything."""
    rules = [{"root": str(folder / "logs"), "pattern": ["*.log"], "delete_after_days": -90}]
    logs = {"log_rotation_sources": [], "log_rotation_report": str(folder / "report.json"), "log_rotation_rules": rules}
    bad = [tool(f"open({str(folder / 'touched')!r}, 'w')", when="after"), tool("0", when="after", timeout_seconds=-1)]
    variables = {**logs, "site_commands": bad, "database_maintenance_snapshot_max_age_hours": -1}
    site = Site(folder / "site", {"h1": {}}, variables)
    roles = ("log_rotation", "site_commands", "database_maintenance")  # never patching: these hosts are this machine
    tries = [[{"ansible.builtin.include_role": {"name": f"ops.maintenance.{role}"}}] for role in roles]
    rescue = [{"ansible.builtin.debug": {"msg": "refused"}}]
    plays = [{"hosts": "h1", "gather_facts": False, "tasks": [{"block": one, "rescue": rescue}]} for one in tries]
    (folder / "alone.yml").write_text(yaml.safe_dump(plays))
    return site.run(playbook=str(folder / "alone.yml"))


def steps_against_their_budgets(folder: Path) -> Run:
    """A forced window without a rule is four hours long, 14400 seconds."""
    variables = {
        "cycle_always_enter": False,
        "maintenance_steps": {"weekly": {"before": [], "offline": ["database_maintenance"], "after": ["site_commands", "preflight"]}},
        "site_commands": [tool("0", when="after")],
        "cycle_reserve_seconds": 1000,
    }
    hosts = {
        "h1": {
            "maintenance_system": "slow",
            "maintenance_budgets": {"database_maintenance": 20000, "site_commands": 13500, "preflight": 13000},
        },
        "h2": {"maintenance_system": "quick", "maintenance_budgets": {"database_maintenance": 60, "site_commands": 13000}},
    }
    return Site(folder / "site", hosts, variables).run(**FORCED, maintenance_serial=2)


def a_step_that_earlier_runs_know(folder: Path) -> Run:
    """The budget would put the step off; the run before says that it takes a moment."""
    steps = {"weekly": {"before": [], "offline": [], "after": ["preflight", "validation"]}}
    site = Site(folder / "site", {"h1": {}}, {"maintenance_steps": steps})
    site.run(**FORCED)
    return site.run(**FORCED, maintenance_budgets={"preflight": 20000, "database_maintenance": 20000})


AUTH_FAILURE = '{{"timestamp": "{0}", "event_type": "login_failed", "username": "admin", "client_ip": "203.0.113.77"}}\n'


def more_failures_than_allowed(folder: Path) -> Run:
    """h1 was attacked, h2 was not; both declare the same investigation."""
    look = tool(f"open('{folder}/site/' + '{{{{ inventory_hostname }}}}/looked', 'w')", when="after", name="investigation")
    variables = {
        "maintenance_steps": {"weekly": {"before": [], "offline": [], "after": ["security_review", "site_commands"]}},
        "security_review_login_sources": [{"name": "app", "paths": [f"{folder}/site/{{{{ inventory_hostname }}}}/auth.jsonl"]}],
        **dict.fromkeys(("security_review_updates", "security_review_accounts"), False),
        "security_review_journal": "false",
        "site_commands": [{**look, "when_finding": {"id": "security.failed_logins"}}],
    }
    site = Site(folder / "site", {"h1": {}, "h2": {}}, variables)
    for host, failures in (("h1", 51), ("h2", 3)):
        lines = [AUTH_FAILURE.format((datetime.now(UTC) - timedelta(minutes=20 * n)).isoformat()) for n in range(failures)]
        (site.folder / host / "auth.jsonl").write_text("".join(reversed(lines)))
    return site.run(**FORCED, maintenance_serial=2)


BROKEN = tool("raise SystemExit(1)", when="validate")


def the_check_fails_after_the_rollback_too(folder: Path) -> Run:
    return Site(folder / "site", {"h1": {"site_commands": [BROKEN]}}).run(**FORCED)


def rolled_back_by_hand_to_what_does_not_work(folder: Path) -> Run:
    """Units run, but the site's own check fails after the rollback."""
    site = Site(folder / "site", {"h1": {}})
    run_id = site.run(**FORCED).lines[0]["run_id"]
    with sqlite3.connect(site.folder / "h1/data/app.db") as database:
        database.execute("DELETE FROM orders")
    database.close()
    return site.run(playbook=f"{COLLECTION}/playbooks/rollback.yml", maintenance_run_id=run_id, site_commands=[BROKEN])


def a_declared_service_does_not_run(folder: Path) -> Run:
    """A second service does not run; h1 allows it to be started after the work, h2 does not."""
    side = {verb: [f"{folder}/site/{{{{ inventory_hostname }}}}/side/service", verb] for verb in ("start", "stop", "status")}
    variables = {"validation_units": [{"name": "side", "manager": "command", **side}], "cycle_work_on_broken": True}
    site = Site(folder / "site", {"h1": {"validation_start_inactive": True}, "h2": {}}, variables)
    for host in ("h1", "h2"):
        (site.folder / host / "side").mkdir()
        (site.folder / host / "side/service").write_text(SERVICE)
        (site.folder / host / "side/service").chmod(0o755)
    return site.run(**FORCED, maintenance_serial=2)


def in_check_mode(folder: Path) -> Run:
    return Site(folder / "site", {"h1": {}}).run("--check", **FORCED)


def one_step_fails(folder: Path) -> Run:
    steps = {"weekly": {"before": [], "offline": [], "after": ["site_commands", "preflight"]}}
    hosts = {
        "h1": {"site_commands": [tool("raise SystemExit(1)", when="after")]},
        "h2": {},
        "h3": {"cycle_reserve_seconds": 10**6},
    }
    return Site(folder / "site", hosts, {"maintenance_steps": steps}).run(**FORCED, maintenance_serial=3)


def later_than_its_window(folder: Path) -> Run:
    """The window closes while the first of three steps works."""
    end = datetime.now(UTC) + timedelta(seconds=20)
    begin = (end - timedelta(hours=1)).replace(tzinfo=None).isoformat(timespec="seconds")
    variables = {
        "maintenance_title": "Folders",
        "maintenance_windows": {"weekly": {"rule": "FREQ=WEEKLY", "start": begin, "duration_minutes": 60, "timezone": "UTC"}},
        "maintenance_steps": {"weekly": {"before": [], "offline": [], "after": ["site_commands", "preflight", "validation"]}},
        "site_commands": [tool("import time; time.sleep(1)", when="after", required=False, timeout_seconds=2)] * 25,
        "cycle_reserve_seconds": 0,
        "notification_channels": [
            {"kind": "file", "path": f"{folder}/status.txt"},
            {"kind": "mail", "host": "127.0.0.1", "port": 1, "sender": "ops@shop.internal", "to": ["all@shop.internal"]},
        ],
    }
    return Site(folder / "site", {"h1": {}, "h2": {}}, variables).run(maintenance_serial=2)


def without_the_journal(folder: Path) -> Run:
    config = f"[defaults]\ncollections_path = {ROOT}/collections\n"
    return Site(folder / "site", {"h1": {}}).run(config=config, **FORCED)


def a_lock_that_cannot_be_read(folder: Path) -> Run:
    site = Site(folder / "site", {"h1": {}, "h2": {}}, {"maintenance_failure_budget_percent": 100})
    (site.folder / "h1/state").mkdir(mode=0o700)
    (site.folder / "h1/state/lock.json").write_text("{")
    return site.run("--limit", "h1", **FORCED)


def two_at_the_same_time(folder: Path) -> Run:
    """The first waits in its validation until the second is through; returns the second."""
    wait = "import os, time\nfor n in range(600):\n  if os.path.exists('{0}/go'): break\n  open('{0}/here', 'w').close(); time.sleep(0.1)"
    site = Site(folder / "site", {"h1": {"site_commands": [tool(wait.format(folder), when="validate")]}})
    first = site.start(**FORCED)
    until = time.monotonic() + 60
    while not (folder / "here").exists() and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    second = site.run(**FORCED)
    (folder / "go").touch()
    said, _none = first.communicate(timeout=60)
    assert first.returncode == 0, said
    return second


def rolled_back_by_hand(folder: Path) -> Run:
    """A run completes, somebody notices that orders are missing, and rolls it back."""
    site = Site(folder / "site", {"h1": {}})
    run_id = site.run(**FORCED).lines[0]["run_id"]
    with sqlite3.connect(site.folder / "h1/data/app.db") as database:
        database.execute("DELETE FROM orders")
    database.close()
    return site.run(playbook=f"{COLLECTION}/playbooks/rollback.yml", maintenance_run_id=run_id)


def rolled_back_by_hand_with_faults_in_the_inventory(folder: Path) -> Run:
    site = Site(folder / "site", {"h1": {}})
    run_id = site.run(**FORCED).lines[0]["run_id"]
    (site.folder / "h1/order").unlink()
    return site.run(playbook=f"{COLLECTION}/playbooks/rollback.yml", maintenance_run_id=run_id, snapshot_reserve_bytes=-5)


def no_room_for_the_snapshot(folder: Path) -> Run:
    """Nothing was changed when it fails, and what comes after the transaction looks at an application in use."""
    look = tool(f"import os, sys; sys.exit(not os.path.exists('{folder}/site/h1/runs'))", when="after")
    return Site(folder / "site", {"h1": {"site_commands": [look], "snapshot_reserve_bytes": 2**60}}).run(**FORCED)


def backups_to_rotate(folder: Path) -> Run:
    """h1 lacks a tool, the application of h3 does not run, h2 is well; afterwards the role works alone on h1."""
    backups = f"{folder}/site/{{{{ inventory_hostname }}}}/backups"
    named = {"root": backups, "pattern": "app_*.tar", "date_format": "%Y%m%d"}
    variables = {
        "maintenance_steps": {"weekly": {"before": ["backup_verification"], "offline": [], "after": []}},
        "backup_verification_sets": [{"name": "app", "level": 2, "maximum_age_hours": 50, **named}],
        "backup_verification_scratch": f"{folder}/scratch",
        "backup_verification_settle_seconds": 0,
        "backup_verification_rotation": [{"name": "app", "set": "app", "keep_daily": 2, "minimum_copies": 1, **named}],
    }
    site = Site(folder / "site", {"h1": {"preflight_tools": ["no-such-tool"]}, "h2": {}, "h3": {}}, variables)
    (site.folder / "h3/runs").unlink()
    for host in ("h1", "h2", "h3"):
        (site.folder / host / "backups").mkdir()
        for back in range(6):
            with tarfile.open(site.folder / host / f"backups/app_{date.today() - timedelta(days=back):%Y%m%d}.tar", "w") as archive:
                archive.add(site.folder / host / "service", "service")
    run = site.run(**FORCED, maintenance_serial=3, maintenance_failure_budget_percent=100)
    run.backups = {host: site.count(f"{host}/backups") for host in ("h1", "h2", "h3")}
    play = {"hosts": "h1", "gather_facts": False, "roles": ["ops.maintenance.backup_verification"]}
    (folder / "alone.yml").write_text(yaml.safe_dump([play]))
    run.said += site.run(playbook=str(folder / "alone.yml")).said
    return run


def reported_again(folder: Path) -> Run:
    """Reports of a run on two hosts, long after it: from its journal, of a span, and when only the store still has it."""
    site = Site(folder / "site", {"h1": {}, "h2": {"snapshot_reserve_bytes": 2**60}})
    run = site.run(**FORCED, maintenance_serial=2)
    run_id = run.lines[0]["run_id"]

    def report(name: str, **asked: Any) -> None:
        made = site.run(playbook="playbooks/report.yml", maintenance_report_dir=str(folder / name), **asked)
        assert made.code == 0, made.said

    report("journal", maintenance_run_id=run_id)
    report("span", report_span_days=1)
    (site.folder / f"journal/{run_id}.jsonl").unlink()
    report("store", maintenance_run_id=run_id)
    return run


STEPS = yaml.safe_load((COLLECTION / "roles/cycle/defaults/main.yml").read_text())["maintenance_steps"]
OF_THIS_MACHINE = ["patching", "certificate_renewal", "container_images", "log_rotation", "performance_review", "security_review"]


def _cadence(folder: Path, cadence: str) -> Run:
    """All steps of a cadence that look at the folders, and at nothing else of this machine; a file is the backup."""
    here = f"{folder}/site/{{{{ inventory_hostname }}}}"
    variables = {
        "maintenance_steps": STEPS,
        "maintenance_skip": OF_THIS_MACHINE,
        "backup_verification_sets": [{"name": "app", "kind": "sqlite", "root": f"{here}/backups", "pattern": "*.db", "level": 4}],
        "backup_verification_scratch": f"{folder}/scratch",
        "backup_verification_settle_seconds": 0,
        "site_commands": [tool(f"open('{here}/' + '{stage}', 'w')", name=stage, when=stage) for stage in ("before", "after")],
    }
    site = Site(folder / "site", {"h1": {}}, variables)
    (site.folder / "h1/backups").mkdir()
    shutil.copy(site.folder / "h1/data/app.db", site.folder / "h1/backups/app.db")
    return site.run(playbook=f"playbooks/{cadence}.yml", **FORCED)


def daily(folder: Path) -> Run:
    return _cadence(folder, "daily")


def monthly(folder: Path) -> Run:
    return _cadence(folder, "monthly")


SCENARIOS: list[Callable[[Path], Run]] = [
    canary_fails,
    two_at_the_same_time,
    some_are_out_of_reach,
    rolled_back_by_hand,
    rolled_back_by_hand_with_faults_in_the_inventory,
    one_step_fails,
    later_than_its_window,
    in_check_mode,
    all_are_out_of_reach,
    faults_in_the_inventory,
    outside_the_window,
    in_a_blackout,
    without_the_journal,
    a_lock_that_cannot_be_read,
    no_room_for_the_snapshot,
    values_out_of_range,
    roles_alone_with_bad_input,
    steps_against_their_budgets,
    a_step_that_earlier_runs_know,
    more_failures_than_allowed,
    the_check_fails_after_the_rollback_too,
    rolled_back_by_hand_to_what_does_not_work,
    a_declared_service_does_not_run,
    backups_to_rotate,
    reported_again,
    daily,
    monthly,
]


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """All runs that the chosen tests look at, two at a time."""
    ours = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    wanted = {item.callspec.params.get("run") for item in ours}
    chosen = [scenario for scenario in SCENARIOS if scenario.__name__ in wanted]
    with ThreadPoolExecutor(2) as pool:
        yield {scenario.__name__: pool.submit(scenario, tmp_path_factory.mktemp(scenario.__name__)) for scenario in chosen}


@pytest.fixture
def run(request: pytest.FixtureRequest, started: dict[str, Any]) -> Run:
    result: Run = started[request.param].result()
    return result


def of(scenario: Callable[[Path], Run]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("run", [scenario.__name__], indirect=True)


@of(canary_fails)
def test_a_failed_canary_leaves_all_others_untouched(run):
    assert run.outcomes == {"h1": "rolled_back", "h2": "not_attempted", "h3": "not_attempted", "h4": "not_attempted"}, run.said
    assert [run.site.is_untouched(host) for host in ("h2", "h3", "h4")] == [True, True, True]
    assert "1 rolled_back" in run.reason("h2")
    assert (run.code != 0, run.has_report) == (True, True)


@of(canary_fails)
def test_validation_that_fails_after_the_work_puts_the_data_back(run):
    assert "orders are missing" not in run.reason("h1")
    assert "check is required and did not pass" in run.reason("h1")
    assert run.records("rollback"), run.said
    assert run.site.rows("h1") == 100
    assert (run.site.folder / "h1/runs").exists()
    [outcome] = [line for line in run.of_kind("outcome") if line["host"] == "h1"]
    assert (outcome["services_restored"], outcome["rollback_required"], outcome["downtime_seconds"] > 0) == (True, True, True)


@of(canary_fails)
def test_a_forced_window_is_kept_with_its_reason(run):
    assert (run.plan["window"]["forced"], run.plan["window"]["reason"]) == (True, "window overridden: a test")
    assert run.of_kind("run")[0]["options"]["force_window"] == "a test"


@of(some_are_out_of_reach)
def test_a_host_out_of_reach_is_an_outcome_and_the_budget_counts_over_all_batches(run):
    assert run.outcomes == {
        "h1": "unreachable",
        "h2": "completed",
        "h3": "unreachable",
        "h4": "not_attempted",
        "h5": "not_attempted",
    }, run.said
    assert "2 unreachable, more than the budget of 1" in run.reason("h4")
    assert run.site.is_untouched("h4")
    assert (run.code != 0, run.has_report) == (True, True)


@of(all_are_out_of_reach)
def test_the_report_is_written_when_no_host_answers(run):
    assert run.outcomes == {"h1": "unreachable", "h2": "not_attempted"}, run.said
    assert (run.code != 0, run.has_report) == (True, True)


@of(outside_the_window)
def test_outside_its_window_a_system_is_refused_with_the_next_one_named_and_limit_still_reports(run):
    assert run.outcomes == {"h2": "refused"}, run.said
    assert f"{date.today() + timedelta(days=7)} 03:00 UTC" in run.reason("h2")
    assert run.plan["next_windows"][0].startswith(f"{date.today() + timedelta(days=7)}T03:00")
    assert run.site.is_untouched("h2")
    assert (run.code != 0, run.has_report) == (True, True)


@of(in_a_blackout)
def test_a_blackout_refuses_inside_the_window(run):
    assert run.outcomes == {"h1": "refused"}, run.said
    assert "blackout (end of year)" in run.reason("h1")
    assert run.site.is_untouched("h1")


@of(faults_in_the_inventory)
def test_all_faults_of_the_inventory_are_told_at_once_and_nothing_is_touched(run):
    assert set(run.outcomes.values()) == {"refused"}, run.said
    reason = run.reason("h1")
    expected = [
        "snapshot_keep_days",
        "maintenance_mode_services",
        "did you mean maintenance_mode_grace_seconds?",
        "PRIMARY_ADMIN_EMAIL",
        "maintenance_failure_budget_percent",
        "maintenance_duties is 'sign it', expected a list of mappings",
    ]
    assert [text in reason for text in expected] == [True] * len(expected), reason
    assert reason.startswith("The inventory has ")
    assert [run.site.is_untouched(host) for host in ("h1", "h2")] == [True, True]
    assert (run.code != 0, run.has_report) == (True, True)


@of(values_out_of_range)
def test_what_a_module_would_refuse_later_is_refused_before_any_host_is_touched_and_all_at_once(run):
    assert set(run.outcomes.values()) == {"refused"}, run.said
    reason = run.reason("h1")
    expected = [
        "The inventory has 7 faults: ",
        "snapshot_keep_days is -1.0, expected 0 or more; correct it.",
        "log_rotation_span_days is -3, expected a positive number; correct it.",
        "The rule for /logs has delete_after_days -90, expected a positive number; correct it.",
        "maintenance_failure_budget_percent is -5.0, expected 0 to 100; correct it.",
        "maintenance_steps.weekly.offline names patchin, which is no step of this stage; did you mean patching?",
        "patching_hold is 5, expected a list; make it one.",
        "is 0, expected 1 or more, for the last copy never goes; correct it.",
    ]
    assert [text for text in expected if text not in reason] == [], reason
    assert [run.site.is_untouched(host) for host in ("h1", "h2")] == [True, True]
    assert (run.code != 0, run.has_report) == (True, True)


@of(roles_alone_with_bad_input)
def test_a_role_alone_refuses_what_its_last_module_could_not_use_before_its_first_one_works(run):
    for said in (
        "/logs has delete_after_days -90",
        "site_commands, check: timeout_seconds is -1.0",
        "database_maintenance_snapshot_max_age_hours is -1.0",
    ):
        assert said in run.said
    assert run.site.is_untouched("h1")
    assert sorted(path.name for path in run.site.folder.parent.iterdir()) == ["alone.yml", "site"]


@pytest.mark.parametrize("role", ["log_rotation", "patching", "database_maintenance"])
def test_a_role_of_several_modules_asks_all_of_them_first(role):
    tasks = yaml.safe_load((COLLECTION / f"roles/{role}/tasks/main.yml").read_text())
    first = tasks[0]["block"][0] if "block" in tasks[0] else tasks[0]
    assert first["ops.maintenance.inputs"] == {"role": role}


@of(steps_against_their_budgets)
def test_a_step_that_would_not_end_before_the_reserve_is_not_begun_and_nothing_is_stopped_for_it_fossa_sched_2(run):
    assert run.outcomes == {"h1": "completed", "h2": "completed"}, run.said
    deferred = {step["subject"]: step["summary"] for step in run.records("step", "h1")}
    assert sorted(deferred) == ["database_maintenance", "site_commands"]
    assert "database_maintenance takes about 20000 (its time budget) and 1000 are kept in reserve" in deferred["database_maintenance"]
    assert "the window closes in 14" in deferred["database_maintenance"]
    assert not (run.site.folder / "h1/order").exists(), "services were stopped for work that did not fit"
    assert len(run.records("preflight", "h1")) == 2, "a shorter step after it still fits"


@of(steps_against_their_budgets)
def test_the_twin_whose_steps_fit_does_them_all_fossa_sched_2(run):
    assert run.records("step", "h2") == []
    assert (run.site.folder / "h2/order").read_text() == "stop\nstart\n"
    assert [record["status"] for record in run.records("site_command", "h2")] == ["ok"]


@of(a_step_that_earlier_runs_know)
def test_what_a_step_took_before_counts_more_than_its_budget_fossa_sched_2(run):
    assert run.outcomes == {"h1": "completed"}, run.said
    assert run.records("step") == []
    assert len(run.records("preflight")) == 2


@of(more_failures_than_allowed)
def test_more_failed_logins_than_allowed_start_the_investigation_fossa_sec_02(run):
    assert run.outcomes == {"h1": "completed", "h2": "completed"}, run.said
    assert [record["subject"] for record in run.records("site_command")] == ["investigation"], run.said
    assert [(run.site.folder / host / "looked").exists() for host in ("h1", "h2")] == [True, False]


@of(in_check_mode)
def test_check_mode_judges_everything_and_leaves_no_trace(run):
    assert run.outcomes == {"h1": "completed"}, run.said
    assert run.code == 0
    assert run.site.is_untouched("h1")
    assert run.records("maintenance_mode")[0]["status"] == "due"
    assert run.records("preflight")
    assert run.of_kind("run")[0]["check_mode"] is True


@of(two_at_the_same_time)
def test_a_second_run_at_the_same_time_is_refused_with_who_and_since_when(run):
    assert run.outcomes == {"h1": "refused"}, run.said
    first = run.site.journals()[0].stem if run.lines[0]["run_id"] != run.site.journals()[0].stem else run.site.journals()[1].stem
    assert f"This host is locked by run {first} of " in run.reason("h1")
    assert " since 2" in run.reason("h1")
    assert (run.code != 0, (run.site.folder / "h1/runs").exists()) == (True, True)


@of(rolled_back_by_hand)
def test_a_run_can_be_rolled_back_by_hand_under_a_lock_of_its_own(run):
    assert run.outcomes == {"h1": "completed"}, run.said
    assert (run.code, run.has_report, run.site.rows("h1")) == (0, True, 100), run.said
    last = json.loads((run.site.folder / "h1/state/maintenance.last.json").read_text())
    assert last["run_id"] == run.lines[0]["run_id"], "not the id of the run that is rolled back"
    assert (run.site.folder / "h1/runs").exists()
    assert not (run.site.folder / "h1/state/lock.json").exists()


@of(rolled_back_by_hand_with_faults_in_the_inventory)
def test_a_rollback_by_hand_refuses_what_its_roles_could_not_use_before_anything_is_stopped(run):
    assert run.outcomes == {"h1": "refused"}, run.said
    assert run.reason("h1").startswith("Nothing was changed. snapshot_reserve_bytes is -5, expected 0 or more"), run.said
    assert (run.code != 0, run.has_report, (run.site.folder / "h1/order").exists()) == (True, True, False)


@of(the_check_fails_after_the_rollback_too)
def test_the_check_of_the_site_decides_about_the_rollback_of_a_run_fossa_em_07(run):
    assert run.outcomes == {"h1": "rollback_failed"}, run.said
    assert run.records("rollback"), run.said
    assert "check is required and did not pass" in run.reason("h1")
    assert (run.code != 0, (run.site.folder / "h1/runs").exists()) == (True, True)


@of(rolled_back_by_hand_to_what_does_not_work)
def test_the_check_of_the_site_decides_about_a_rollback_by_hand_fossa_em_07(run):
    assert run.outcomes == {"h1": "rollback_failed"}, run.said
    assert "check is required and did not pass" in run.reason("h1")
    assert run.site.rows("h1") == 100, "the data is back all the same"
    assert (run.code != 0, (run.site.folder / "h1/runs").exists()) == (True, True)


@of(a_declared_service_does_not_run)
def test_a_service_that_does_not_run_is_started_after_the_work_where_allowed_and_is_a_finding_fossa_post_02(run):
    before, after = run.records("validation", "h1")[:2]
    assert [(one["findings"][0]["state"], one["actions"]) for one in (before,)] == [("critical", [])], "only looked at before the work"
    assert [(one["operation"], one["status"]) for one in after["actions"]] == [("start", "changed")]
    assert after["findings"][0]["state"] == "warning"
    assert (run.outcomes["h1"], (run.site.folder / "h1/side/runs").exists()) == ("completed", True)
    assert (run.outcomes["h2"], (run.site.folder / "h2/side").joinpath("order").exists()) == ("rollback_failed", False)


@of(one_step_fails)
def test_a_step_that_fails_alone_does_not_stop_the_others_but_the_exit_status_tells(run):
    assert run.outcomes == {"h1": "completed", "h2": "completed", "h3": "completed"}, run.said
    assert [record["status"] for record in run.records("step", "h1")] == ["failed"]
    assert len(run.records("preflight", "h1")) == 2, "the step after it"
    assert run.code != 0
    assert "h1: step failed" in run.said


@of(one_step_fails)
def test_a_step_that_does_not_fit_before_the_deadline_is_deferred_fossa_sched_2(run):
    steps = run.records("step", "h3")
    assert [(step["subject"], step["status"]) for step in steps] == [("site_commands", "deferred"), ("preflight", "deferred")], run.said
    assert run.records("step", "h2") == []


@of(later_than_its_window)
def test_a_run_later_than_its_window_tells_once_what_is_left_and_a_dead_relay_fails_no_host_fossa_em_02(run):
    assert run.outcomes == {"h1": "completed", "h2": "completed"}, run.said
    assert {(step["subject"], step["status"]) for step in run.records("step")} >= {("preflight", "deferred"), ("validation", "deferred")}
    text = (run.site.folder.parent / "status.txt").read_text()
    assert text.startswith("Maintenance of Folders takes longer than planned\n")
    assert "Expected to be over: " in text
    assert "- preflight\n- validation\n" in text
    sent = [(found["id"], found["state"], found["value"]) for record in run.records("notify") for found in record["findings"]]
    assert sent.count(("notification.delivery", "ok", 1)) == 1, "one notice for both hosts"
    assert ("notification.delivery", "critical", 0) in sent
    assert {(name, state) for name, state, _value in sent if name == "notification.overrun"} == {("notification.overrun", "warning")}


@of(without_the_journal)
def test_without_the_journal_callback_the_line_to_add_is_told_and_nothing_is_touched(run):
    assert "callbacks_enabled = ops.maintenance.journal" in run.said
    assert "[WARNING]" in run.said
    assert (run.code != 0, run.site.is_untouched("h1"), run.lines) == (True, True, [])


@of(a_lock_that_cannot_be_read)
def test_a_lock_that_cannot_be_read_is_an_outcome_and_the_run_is_reported(run):
    assert run.outcomes == {"h1": "failed"}, run.said
    assert "lock.json cannot be read" in run.reason("h1")
    assert (run.code != 0, run.has_report) == (True, True)


@of(no_room_for_the_snapshot)
def test_users_get_the_application_back_before_the_reviews_and_an_untouched_host_has_no_failed_rollback(run):
    assert run.outcomes == {"h1": "failed"}, run.said
    assert "not enough room" in run.reason("h1")
    assert [record["status"] for record in run.records("site_command")] == ["ok"]
    assert (run.records("rollback"), run.code != 0) == ([], True)


@of(backups_to_rotate)
def test_no_backup_is_removed_on_a_host_that_is_refused_and_the_role_alone_rotates(run):
    assert run.outcomes == {"h1": "refused", "h2": "completed", "h3": "refused"}, run.said
    rotated = run.backups["h2"]
    assert run.backups == {"h1": 6, "h2": rotated, "h3": 6}, run.said
    assert 0 < rotated < 6, run.said
    assert run.site.count("h1/backups") == rotated, run.said


@of(reported_again)
def test_a_run_can_be_reported_at_any_time_also_from_the_store_alone(run):
    folder, run_id = run.site.folder.parent, run.lines[0]["run_id"]
    made = {name: json.loads((folder / name / "latest.json").read_text()) for name in ("journal", "span", "store")}
    assert {one["run"]["run_id"] for one in made.values()} == {run_id}
    assert {name: one["run"]["chain"] for name, one in made.items()} == {"journal": "intact", "span": "unchecked", "store": "unchecked"}
    assert {one["summary"] for one in made.values()} == {made["journal"]["summary"]}
    assert [one["counts"] for one in made.values()] == [made["journal"]["counts"]] * 3
    assert made["journal"]["counts"]["hosts"] == {"completed": 1, "failed": 1}
    assert [len(one["span"]) for one in made.values()] == [0, 1, 0]
    assert f"span-{made['span']['generated'][:10]}-1d.html" in [path.name for path in (folder / "span").iterdir()]


@of(daily)
def test_a_daily_run_proves_and_looks_and_stops_nothing(run):
    assert (run.outcomes, run.code, run.has_report) == ({"h1": "completed"}, 0, True), run.said
    assert [record["status"] for record in run.records("backup_verification")] == ["ok"]
    assert [(run.site.folder / "h1" / name).exists() for name in ("before", "after")] == [True, True]
    assert [line["operation"] for line in run.of_kind("record") if line["status"] in ("changed", "due", "failed")] == []
    assert [(run.site.folder / "h1" / name).exists() for name in ("order", "snapshots")] == [False, False]


@pytest.mark.parametrize(("cadence", "installs"), [("daily", False), ("weekly", True), ("monthly", True)])
def test_a_daily_run_only_looks_for_updates(cadence, installs):
    default = yaml.safe_load((COLLECTION / "roles/patching/defaults/main.yml").read_text())["patching_install"]
    assert Templar(DataLoader(), {"maintenance_cadence": cadence}).template(trust_as_template(default)) is installs
    assert "patching" in STEPS[cadence]["after" if cadence == "daily" else "offline"]


@pytest.mark.parametrize(
    ("verified", "said"),
    [
        ({"failed": False}, "Start the services again: web did not start. Updated before it: web=1.1, tls=2.0."),
        ({"failed": True}, "Start the services again: web did not start."),  # patching has named them itself
        (None, "Start the services again: web did not start."),  # nothing was installed
    ],
)
def test_a_service_that_does_not_start_after_updates_is_told_with_the_packages(verified, said):
    known = yaml.safe_load((COLLECTION / "roles/cycle/vars/main.yml").read_text())
    [task] = [
        one for one in yaml.safe_load((COLLECTION / "roles/cycle/tasks/rollback.yml").read_text()) if "ansible.builtin.set_fact" in one
    ]
    known = {name: trust_as_template(text) for name, text in known.items()}
    known |= {"ansible_failed_task": {"name": "Start the services again"}, "ansible_failed_result": {"msg": "web did not start."}}
    known |= {"__patching_packages": {"install": ["web=1.1", "tls=2.0"]}} | ({"__patching_result": verified} if verified else {})
    assert Templar(DataLoader(), known).template(trust_as_template(task["ansible.builtin.set_fact"]["__cycle_failure"])) == said


@of(monthly)
def test_a_monthly_run_works_in_maintenance_mode_feeds_bad_samples_and_packs_its_evidence(run):
    assert (run.outcomes, run.code, run.has_report) == ({"h1": "completed"}, 0, True), run.said
    assert [record["status"] for record in run.records("sqlite_upkeep")] == ["due", "changed"]
    assert ((run.site.folder / "h1/order").read_text(), run.site.rows("h1")) == ("stop\nstart\n", 100)
    assert (run.site.folder / "h1/snapshots" / run.lines[0]["run_id"]).exists()
    [proof] = run.records("backup_verification")
    assert ("backup.self_test", "ok") in [(found["id"], found["state"]) for found in proof["findings"]]
    assert (run.site.folder / f"report/evidence-{run.lines[0]['run_id']}.tar.gz").exists()
