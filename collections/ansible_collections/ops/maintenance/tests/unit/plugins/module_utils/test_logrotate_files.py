# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of logrotate from data: what is refused, what is written, what is put back; tests/hosts has the real logrotate."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import logrotate_config, logrotate_files
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.logrotate_tree import read_tree

USER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


def declared(**changes):
    defaults = {name: option.get("default") for name, option in logrotate_files.OPTIONS.items()}
    return {**defaults, "name": "app", "paths": ["/srv/app/logs/*.log"], **changes}


@pytest.fixture
def params(tmp_path):
    (tmp_path / "logrotate.d").mkdir(mode=0o755)
    config = tmp_path / "logrotate.conf"
    config.write_text(f"weekly\ninclude {tmp_path}/logrotate.d\n")
    config.chmod(0o644)
    return {
        "config": str(config), "folder": str(tmp_path / "logrotate.d"), "state_dir": str(tmp_path / "state"),
        "remove_undeclared": False, "files": [declared()],
    }  # fmt: skip


def plan(params):
    return logrotate_files.plan(params, read_tree(params["config"]), Host())


def foreign(params, name, text):
    path = f"{params['folder']}/{name}"
    with open(path, "w") as target:
        target.write(text)
    os.chmod(path, 0o644)
    return path


def test_what_is_written():
    text = logrotate_files.text_of(
        declared(paths=["/srv/a b/x.log"], create_mode="0640", create_owner="app", create_group="adm", su_user="app", su_group="adm", maxsize="50M",
                 postrotate_units=["app.service", "web@1.service"])
    )  # fmt: skip
    [section] = logrotate_config.parse(text).items
    assert logrotate_config.parse(text).faults == []
    assert text.startswith(logrotate_files.HEADER)
    assert section.patterns == ["/srv/a b/x.log"]
    found = {one.name: one.value for one in section.directives}
    assert (found["create"], found["su"], found["maxsize"], found["rotate"]) == ("0640 app adm", "app adm", "50M", "7")
    assert "systemctl reload app.service" in found["postrotate"]
    killed = logrotate_files.text_of(declared(postrotate_units=["app.service"], postrotate_action="USR1"))
    assert "systemctl kill --signal=USR1 --kill-who=main app.service" in killed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "app.conf"}, "the name is expected"),
        ({"name": "../app"}, "the name is expected"),
        ({"paths": []}, "no path is given"),
        ({"paths": ["logs/app.log"]}, "expected an absolute one"),
        ({"paths": ["/srv/app/*"]}, "bare *"),
        ({"paths": ["/srv/app/x.log {\n}\n/etc/passwd"]}, "without quotes, braces"),
        ({"rotate": -1}, "rotate is -1"),
        ({"maxsize": "big"}, "maxsize is 'big'"),
        ({"create_mode": "0640"}, "belong together"),
        ({"create_mode": "rw", "create_owner": "a", "create_group": "b"}, "expected an octal mode"),
        ({"create_mode": "0640", "create_owner": "a", "create_group": "b", "copytruncate": True}, "no effect with copytruncate"),
        ({"su_user": "app"}, "su_user and su_group"),
        ({"su_user": "app\n}", "su_group": "x"}, "is no name of a user"),
        ({"postrotate_units": ["x; rm -rf /"]}, "expected the name of a unit"),
    ],
)
def test_what_cannot_be_meant(changes, said):
    problems = logrotate_files.input_problems([declared(**changes)])
    assert any(said in problem for problem in problems), problems


def test_twice():
    assert len(logrotate_files.input_problems([declared(), declared()])) == 2
    assert logrotate_files.input_problems([declared(), declared(name="b", paths=["/b.log"])]) == []


def test_written_once_then_nothing_is_left_to_do(params):
    changes = plan(params)
    assert [action.status for action in logrotate_files.actions_of(changes, True)] == ["due"]
    assert os.listdir(params["folder"]) == []
    logrotate_files.apply(params, changes, lambda _main: [])
    path = f"{params['folder']}/app"
    assert (os.stat(path).st_mode & 0o777, plan(params).write) == (0o644, {})
    os.chmod(path, 0o666)
    assert list(plan(params).write) == [path], "logrotate would ignore it"


def test_a_file_of_somebody_else_is_never_replaced(params):
    foreign(params, "app", "/other.log {\n}\n")
    with pytest.raises(InputError, match="was not written from here"):
        plan(params)


def test_a_file_without_a_package_may_be_taken_over_and_comes_back_as_it_was(params):
    path = Path(foreign(params, "app", "/other.log {\n}\n"))
    path.chmod(0o600)
    params["files"] = [declared(take_over=True)]
    answers = iter([[], [], ["app:1 bad"]])
    with pytest.raises(VerifyError):
        logrotate_files.apply(params, plan(params), lambda _main: next(answers))
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("/other.log {\n}\n", 0o600)
    changes = plan(params)
    logrotate_files.apply(params, changes, lambda _main: [])
    assert (path.read_text(), changes.before) == (logrotate_files.text_of(params["files"][0]), {str(path): "/other.log {\n}\n"})


@pytest.mark.parametrize("claimed", ["/srv/app/logs/a.log", "/srv/app/logs/*.log", "/srv/app/*/a.log"])
def test_a_path_that_another_file_claims_is_refused(params, tmp_path, claimed):
    params["files"] = [declared(paths=["/srv/app/logs/a.log"])]
    path = foreign(params, "distribution", f"{claimed} {{\n daily\n}}\n")
    with pytest.raises(InputError, match=f"/srv/app/logs/a.log is claimed by {path}:1 already"):
        plan(params)


def test_a_declaration_under_another_name_says_what_is_in_its_way(params):
    logrotate_files.apply(params, plan(params), lambda _main: [])
    params["files"] = [declared(name="other")]
    with pytest.raises(InputError, match=r"is claimed by .*/app:2 already; set remove_undeclared"):
        plan(params)
    params["remove_undeclared"] = True
    logrotate_files.apply(params, plan(params), lambda _main: [])
    assert os.listdir(params["folder"]) == ["other"]


def test_accounts_that_do_not_exist(params):
    params["files"] = [declared(su_user="nobody-here", su_group="none-here")]
    with pytest.raises(InputError, match=r"su_user is 'nobody-here'.*su_group is 'none-here'"):
        plan(params)
    params["files"] = [declared(su_user=USER, su_group=GROUP)]
    assert plan(params).write


def test_a_folder_that_is_not_included(params, tmp_path):
    (tmp_path / "logrotate.conf").write_text("weekly\n")
    with pytest.raises(InputError, match=r"a folder that .* includes"):
        logrotate_files.apply(params, plan(params), lambda _main: [])
    assert os.listdir(params["folder"]) == []


def test_what_logrotate_refuses_aside_is_never_written(params):
    seen = []

    def said(main):
        seen.append(main)
        return ["old"] if main == params["config"] else ["old", "app:3 bad"]

    with pytest.raises(VerifyError, match="app:3 bad; nothing was changed"):
        logrotate_files.apply(params, plan(params), said)
    assert (os.listdir(params["folder"]), os.listdir(params["state_dir"])) == ([], [])
    assert len(seen) == 2


def test_what_logrotate_refuses_in_place_is_put_back(params):
    logrotate_files.apply(params, plan(params), lambda _main: [])
    written = Path(params["folder"], "app")
    before = written.read_text()
    params["files"] = [declared(rotate=3), declared(name="b", paths=["/b.log"])]
    answers = iter([[], [], ["b:1 bad"]])
    with pytest.raises(VerifyError, match="put back"):
        logrotate_files.apply(params, plan(params), lambda _main: next(answers))
    assert (os.listdir(params["folder"]), written.read_text()) == (["app"], before)


def test_only_what_was_written_from_here_is_removed_and_only_when_asked(params):
    logrotate_files.apply(params, plan(params), lambda _main: [])
    other = foreign(params, "other", "/other.log {\n}\n")
    params["files"] = []
    left = plan(params)
    assert (left.remove, logrotate_files.finding_of(params, left, False).state) == ([], "warning")
    params["remove_undeclared"] = True
    logrotate_files.apply(params, plan(params), lambda _main: [])
    assert os.listdir(params["folder"]) == [os.path.basename(other)]
