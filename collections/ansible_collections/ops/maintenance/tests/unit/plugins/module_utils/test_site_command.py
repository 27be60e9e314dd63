# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import os
import pwd
import sys
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import site_command
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

PYTHON = sys.executable


def run(tmp_path, code="", check_mode=False, **more):
    params = {name: copy.deepcopy(spec.get("default")) for name, spec in site_command.OPTIONS.items()}
    params.update({"name": "tool", "argv": [PYTHON, "-c", code], "deadline": 0.0, "state_dir": str(tmp_path), "self_test": False})
    return site_command.run({**params, **more}, check_mode, Host())


def found(outcome, id_="site.command"):
    return next(finding for finding in outcome.findings if finding.id == id_)


def test_a_tool_that_ends_well_is_ok_and_no_change(tmp_path):
    outcome = run(tmp_path, "print('fine')")
    assert (outcome.state, outcome.is_change) == ("ok", False)
    assert found(outcome).evidence == ["fine"]


def test_declared_changes_are_reported(tmp_path):
    assert run(tmp_path, "pass", changes=True).is_change


@pytest.mark.parametrize(("code", "state"), [(0, "ok"), (1, "warning"), (2, "critical")])
def test_exit_status_decides_as_declared(tmp_path, code, state):
    assert run(tmp_path, f"raise SystemExit({code})", warning_rc=[1]).state == state


def test_violations_of_a_threshold_check_are_listed(tmp_path):
    outcome = run(tmp_path, "print('cpu 97 > 90'); print('disk 91 > 85'); raise SystemExit(1)", warning_rc=[1])
    assert found(outcome).evidence == ["cpu 97 > 90", "disk 91 > 85"]


@pytest.mark.parametrize("argv", [["no-such-tool-here"], [PYTHON, "/nowhere/health-check.py", "--comprehensive"]])
def test_a_missing_tool_is_unknown_never_ok(tmp_path, argv):
    outcome = run(tmp_path, argv=argv)
    assert outcome.state == "unknown"
    assert run(tmp_path, argv=argv, required=True).status == "failed"


def test_no_shell_is_involved(tmp_path):
    outcome = run(tmp_path, argv=["echo", "a; touch", str(tmp_path / "made"), "$HOME", "`id`"])
    assert found(outcome).evidence == [f"a; touch {tmp_path / 'made'} $HOME `id`"]


def test_a_tool_that_hangs_is_stopped_with_what_it_started(tmp_path):
    late = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    code = f"import subprocess, time, sys; subprocess.Popen([sys.executable, '-c', {late!r}]); time.sleep(60)"
    began = time.monotonic()
    outcome = run(tmp_path, code, timeout_seconds=1.0)
    assert time.monotonic() - began < 8
    assert outcome.state == "critical"
    assert "did not end within" in found(outcome).summary
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_a_background_child_that_keeps_the_pipe_open_does_not_hang_the_run(tmp_path):
    began = time.monotonic()
    outcome = run(tmp_path, "import subprocess, sys; subprocess.Popen(['sleep', '30']); print('done')", timeout_seconds=20.0)
    assert time.monotonic() - began < 5
    assert outcome.state == "ok"


def test_endless_output_is_bounded(tmp_path):
    outcome = run(tmp_path, "import sys\nfor n in range(200000): sys.stdout.write('x' * 99 + '\\n')")
    assert outcome.state == "ok"
    assert found(outcome).not_covered == "output was cut"
    assert len(found(outcome).evidence) <= 20


def test_output_shows_no_secret_and_no_control_character(tmp_path):
    env = tmp_path / "app.env"
    env.write_text("# comment\nexport DB_KEY='s3cr3t-value'\nTOKEN=abcdef123\n")
    code = (
        "import os; print('key', os.environ['DB_KEY']); print('password: hunter2x'); print('postgres://u:pw@h/db'); print('\\x1b[31mred')"
    )
    outcome = run(tmp_path, code, environment_file=str(env))
    shown = "\n".join(found(outcome).as_dict()["evidence"])
    assert "s3cr3t-value" not in shown
    assert "hunter2x" not in shown
    assert ":pw@" not in shown
    assert "\x1b" not in shown


def test_the_environment_is_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/secret")
    outcome = run(tmp_path, "import os; print(sorted(os.environ))")
    assert "VAULT" not in found(outcome).evidence[0]


def test_promised_json_must_be_new_and_valid(tmp_path):
    template = str(tmp_path / "report-%Y%m%d.json")
    write = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"

    def result(text):
        return found(run(tmp_path, argv=[PYTHON, "-c", write, "{creates_json}", text], creates_json=template), "site.output").state

    assert result('{"score": 1}') == "ok"
    assert result('{"score": ') == "critical"
    assert result("{}") == "warning"
    stale = next(tmp_path.glob("report-*.json"))
    stale.write_text('{"score": 1}')
    os.utime(stale, (1, 1))
    assert found(run(tmp_path, "pass", creates_json=template), "site.output").state == "critical"
    stale.unlink()
    assert found(run(tmp_path, "pass", creates_json=template), "site.output").state == "critical"


def test_a_baseline_that_the_tool_overwrites_is_critical(tmp_path):
    baseline = tmp_path / "baseline.json"
    baseline.write_text('{"p95": 120}')
    kept = [str(baseline)]
    assert run(tmp_path, f"open({str(baseline)!r}).read()", keeps_files=kept).state == "ok"
    outcome = run(tmp_path, f"open({str(baseline)!r}, 'w').write('{{}}')", keeps_files=kept)
    assert found(outcome, "site.kept").state == "critical"


def test_check_mode_runs_only_what_is_declared_harmless(tmp_path):
    made = tmp_path / "made"
    code = f"open({str(made)!r}, 'w')"
    outcome = run(tmp_path, code, check_mode=True)
    assert (outcome.status, outcome.state, made.exists()) == ("due", "unknown", False)
    assert run(tmp_path, code, check_mode=True, required=True).status == "due"
    assert run(tmp_path, "print(1)", check_mode=True, run_in_check_mode=True).state == "ok"


def test_a_tool_whose_limit_reaches_beyond_the_deadline_is_deferred(tmp_path):
    outcome = run(tmp_path, "pass", deadline=time.time() + 60, timeout_seconds=300.0)
    assert outcome.status == "deferred"


def test_a_tool_that_is_not_required_does_not_stop_the_run(tmp_path):
    outcome = run(tmp_path, "raise SystemExit(3)")
    assert (outcome.status, outcome.state, outcome.actions[0].status) == ("ok", "critical", "failed")


def test_required_fails_the_task(tmp_path):
    outcome = run(tmp_path, "raise SystemExit(3)", required=True)
    assert outcome.status == "failed"
    assert "ended with 3" in outcome.summary


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_runs_as_the_declared_user_with_their_groups_only(tmp_path):
    outcome = run(tmp_path, argv=["id", "-u"], user="nobody")
    assert found(outcome).evidence == [str(pwd.getpwnam("nobody").pw_uid)]
    outcome = run(tmp_path, argv=["id", "-G"], user="nobody")
    assert "0" not in found(outcome).evidence[0].split()


def test_a_tool_that_cannot_be_started_is_unknown(tmp_path):
    script = tmp_path / "tool"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert run(tmp_path, argv=[str(script)]).state == "unknown"


def test_all_input_problems_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        run(tmp_path, argv=[], timeout_seconds=0.0, user="no-such-user", creates_json="relative.json", expect_rc=[])
    for expected in ("argv", "timeout_seconds", "no-such-user", "creates_json", "expect_rc"):
        assert expected in str(caught.value)
