"""The real logrotate of the host: what it says, what the lint says, and Debian's own configuration, which must stay silent."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    log_resume,
    log_scan,
    logrotate,
    logrotate_config,
    logrotate_files,
    logrotate_tree,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

FOLDER = Path("/etc/logrotate.d")
LOGS = Path("/var/log/planted")


@pytest.fixture
def params(tmp_path):
    """The defaults of the module, with a state of its own; the configuration and the logs are put back afterwards."""
    kept = tmp_path / "kept"
    shutil.copytree(FOLDER, kept)
    LOGS.mkdir()
    (LOGS / "app.log").write_text("x\n")
    defaults = {name: option.get("default") for name, option in logrotate.OPTIONS.items()}
    common = {"deadline": 0.0, "state_dir": str(tmp_path / "state"), "self_test": True, "state_file": str(tmp_path / "status")}
    yield {**defaults, **common, "log_roots": ["/var/log"]}
    shutil.rmtree(FOLDER)
    shutil.copytree(kept, FOLDER)
    shutil.rmtree(LOGS)


def entry(name, text="", mode=0o644):
    path = FOLDER / name
    path.write_text(text or f"{LOGS}/app.log {{\n    daily\n    missingok\n}}\n")
    path.chmod(mode)
    os.utime(path, (time.time() - 9e6,) * 2)
    return path


def ran(params):
    subprocess.run(["logrotate", "-s", params["state_file"], "/etc/logrotate.conf"], check=False, capture_output=True)
    return Path(params["state_file"])


def faults(params):
    outcome = logrotate.run(params, True, Host())
    return {f.id.partition(".")[2]: [f.summary, *f.evidence] for f in outcome.findings if f.state != "ok"}


def test_debians_own_configuration_is_silent(params):
    entry("planted")
    ran(params)
    assert faults(params) == {}


def test_every_planted_fault_arrives(params):
    entry(
        "planted",
        f"{LOGS}/app.log {{\n    daily\n    fooo 3\n}}\n{LOGS}/none-*.log {{\n    daily\n}}\n{LOGS}/open/a.log {{\n    size 1k\n}}\n",
    )
    entry("zz-again", f"{LOGS}/*.log {{\n    daily\n    copytruncate\n}}\n")
    entry("zz-mode", f"{LOGS}/other.txt {{\n    daily\n}}\n", mode=0o664)
    os.chown(entry("zz-owner", f"{LOGS}/other.txt {{\n    daily\n}}\n"), 33, 33)
    (LOGS / "other.txt").write_text("in no rule that holds\n")
    (LOGS / "open").mkdir()
    (LOGS / "open").chmod(0o777)
    (LOGS / "open/a.log").write_text("x" * 3000)
    logrotate.run({**params, "state_file": "/nowhere"}, False, Host())
    ran(params).write_text(f'logrotate state -- version 2\n"{LOGS}/app.log" 2026-1-2-3:4:5\n')
    os.utime(params["state_file"], (time.time() + 60,) * 2)
    found = faults(params)
    assert sorted(found) == ["claims", "configuration", "files", "growth", "overdue", "patterns", "su", "syntax", "uncovered"]
    assert ["zz-mode" in found["files"][1], "zz-owner" in found["files"][2]] == [True, True]
    assert [line for line in found["uncovered"][1:] if not line.startswith(f"{LOGS}/other.txt")] == []


def test_an_exit_status_of_zero_hides_no_error(params):
    entry("planted", f"{LOGS}/app.log {{\n    daily\n    fooo 3\n}}\n")
    done = subprocess.run(["logrotate", "-d", "/etc/logrotate.conf"], check=False, capture_output=True)
    assert done.returncode == 0, "if this ever changes, the test has lost its point"
    assert any("fooo" in line for line in faults(params)["configuration"])


def test_a_writer_that_does_not_append_is_told_apart(params):
    entry("planted", f"{LOGS}/app.log {{\n    daily\n    copytruncate\n}}\n")
    ran(params)
    for redirect, expected in ((">>", []), (">", ["copytruncate"])):
        script = f"exec 9{redirect}{LOGS}/app.log; echo ready; read line"
        writer = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        try:
            assert sorted(faults(params)) == expected
        finally:
            writer.communicate(b"\n")


SAMPLES = {
    "plain": "{log} {{\n daily\n}}\n",
    "quoted": "\"{log}\" '{log}.x' {{\n daily\n}}\n",
    "one line": "{log} {{ daily missingok\n}}\n",
    "value then brace": "{log} {{ rotate 3 }}\n",
    "unknown": "{log} {{\n fooo\n}}\n",
    "no brace": "{log}\n",
    "stray brace": "daily\n}}\n",
    "path inside": "{log} {{\n daily\n{log}.x {{\n}}\n",
    "after brace": "{log} {{\n daily\n}} x\n",
    "no endscript": "{log} {{\n postrotate\n  true\n}}\n",
    "script": "{log} {{\n postrotate\n  # }} {{ fooo\n  true\n endscript\n}}\n",
    "bad size": "{log} {{\n size 10Q\n}}\n",
    "equals": "{log} {{\n size = 10M\n rotate=3\n}}\n",
    "bad number": "{log} {{\n rotate five\n}}\n",
    "no value": "{log} {{\n rotate\n}}\n",
    "windows": "{log} {{\r\n daily\r\n}}\r\n",
    "comment among paths": "{log}\n# {{ a comment\n{log}.x {{\n daily\n}}\n",
    "digits": "{log} {{\n daily5\n}}\n",
    "su alone": "{log} {{\n su root\n}}\n",
    "duplicate": "{log} {log} {{\n daily\n}}\n",
    "include nowhere": "include /nowhere\n",
    "taboo inside": "{log} {{\n tabooext + .x\n}}\n",
    "odd weekday": "{log} {{\n weekly monday\n}}\n",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_reader_and_logrotate_agree_on_what_is_a_fault(name, params):
    path = entry("planted", SAMPLES[name].format(log=LOGS / "app.log"))
    done = subprocess.run(["logrotate", "-d", "-s", params["state_file"], str(path)], check=False, capture_output=True, text=True)
    theirs = [line for line in logrotate.parse_debug(done.stderr).errors if "stat of" not in line]
    tree = logrotate_tree.read_tree(str(path))
    twice = len({pattern for one in tree.entries for pattern in one.patterns}) < sum(len(one.patterns) for one in tree.entries)
    assert bool(theirs) == bool(tree.faults or twice), (theirs, tree.faults)


def test_a_section_without_end_is_a_fault_although_logrotate_says_nothing(params):
    entry("planted", f"{LOGS}/app.log {{\n    daily\n")
    ran(params)
    assert sorted(faults(params)) == ["syntax"]


def test_every_directive_of_the_reader_is_one_of_logrotate(params):
    """A directive that this logrotate does not know may only be a newer one."""
    newer = {"ignoreduplicates", "errors", "nodatehourago", "nodateyesterday"}
    switches = [name for name in sorted(logrotate_config.SWITCHES) if name not in newer]
    path = entry("planted", f"{LOGS}/app.log {{\n" + "".join(f"{name}\n" for name in switches) + "}\n")
    done = subprocess.run(["logrotate", "-d", "-s", params["state_file"], str(path)], check=False, capture_output=True, text=True)
    assert [line for line in logrotate.parse_debug(done.stderr).errors if "unknown" in line] == []


def declared(**changes):
    defaults = {name: option.get("default") for name, option in logrotate_files.OPTIONS.items()}
    return {**defaults, "name": "planted", "paths": [f"{LOGS}/*.log"], **changes}


def test_a_declared_file_is_written_sound_and_rotates(params):
    params["files"] = [
        declared(create_mode="0640", create_owner="www-data", create_group="adm", maxsize="1k", postrotate_units=["cron.service"])
    ]
    assert logrotate.run(params, True, Host()).status == "due"
    assert not (FOLDER / "planted").exists()
    assert logrotate.run(params, False, Host()).status == "changed"
    assert logrotate.run(params, False, Host()).status == "ok"
    (LOGS / "app.log").write_text("x" * 3000)
    ran(params)
    assert ((LOGS / "app.log.1").stat().st_size, (LOGS / "app.log").stat().st_uid) == (3000, 33)
    assert faults(params) == {}


@pytest.mark.parametrize(("tool", "suffix"), [("gzip", ".gz"), ("xz", ".xz"), ("bzip2", ".bz2"), ("zstd", ".zst")])
def test_each_line_counts_once_across_rotation_whatever_logrotate_packs_with(params, tool, suffix):
    log = LOGS / "app.log"
    packs = f"compress\n    compresscmd /usr/bin/{tool}\n    compressext {suffix}\n"
    entry("planted", f"{LOGS}/app.log {{\n    rotate 3\n    create\n    {packs}}}\n")
    known, counted = {}, []
    for lines in (30, 20):
        log.write_text("".join(f"2026-11-20 10:00:00 ERROR line {lines} {n}\n" for n in range(10)))
        counted.append(count(known))
        with log.open("a") as more:
            more.writelines(f"2026-11-20 11:00:00 ERROR late {n}\n" for n in range(lines))
        subprocess.run(["logrotate", "--force", "-s", params["state_file"], str(FOLDER / "planted")], check=True, capture_output=True)
        assert (LOGS / f"app.log.1{suffix}").exists()
        counted.append(count(known))
    assert counted == [10, 30, 10, 20]


def count(known):
    """Read on with what is known, and return the lines that came."""
    now = time.time()
    (one,) = log_scan.scan([log_scan.Source("app", [f"{LOGS}/app.log*"])], 0.0, now, known)
    assert [seen.problem for seen in one.files.values() if seen.problem] == one.problems == []
    known.update(log_resume.remember(known, one.marks(), now))
    return one.tally.lines


def test_a_path_of_the_distribution_is_refused(params):
    params["files"] = [declared(paths=["/var/log/nginx/access.log"])]
    with pytest.raises(InputError, match=r"/var/log/nginx/access.log is claimed by /etc/logrotate.d/nginx:1 already"):
        logrotate.run(params, False, Host())
    assert not (FOLDER / "planted").exists()


def test_a_file_of_a_package_is_not_even_taken_over(params):
    params["files"] = [declared(name="apt", take_over=True)]
    with pytest.raises(InputError, match=r"/etc/logrotate.d/apt belongs to package apt; choose another name"):
        logrotate.run(params, False, Host())


def test_what_the_real_logrotate_refuses_never_stays(params, monkeypatch):
    params["files"] = [declared()]
    monkeypatch.setattr(logrotate_files, "text_of", lambda _one: logrotate_files.HEADER + f"{LOGS}/*.log {{\n fooo\n}}\n")
    with pytest.raises(VerifyError, match="unknown option 'fooo'"):
        logrotate.run(params, False, Host())
    assert not (FOLDER / "planted").exists()
