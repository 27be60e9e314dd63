# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_lynis
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
# Lines as Lynis 3.0.8 writes them on Debian 12.
HEAD = """# Lynis Report
report_version_major=1
report_datetime_start=2026-11-20 01:08:43
auditor=[Not Specified]
lynis_version=3.0.8
binaries_suid_count=/usr/bin/chfn /usr/bin/chsh
suggestion[]=DEB-0280|Install libpam-tmpdir to set $TMP and $TMPDIR for PAM sessions|-|-|
suggestion[]=BOOT-5264|Consider hardening system services|Run '/usr/bin/systemd-analyze security SERVICE' for each service|-|
exception_event[]=GetHostID|HostID could not be generated|
"""
WARNING = "warning[]=FIRE-4512|iptables module(s) loaded, but no rules active|-|-|\n"
TAIL = "hardening_index=64\nreport_datetime_end=2026-11-20 01:18:58\nfinish=true\n"


def reviewed(tmp_path, text, days_old=1.0, check_mode=False, **given):
    path = tmp_path / "lynis-report.dat"
    path.write_text(text)
    os.utime(path, (NOW.timestamp() - days_old * 86400,) * 2)
    spec = {**security_lynis.OPTIONS, "state_dir": {"type": "path"}}
    params = filled(spec, {"lynis_report": str(path), "state_dir": str(tmp_path / "state"), **given})
    (found,) = security_lynis.look(Review(params, Host(), check_mode, NOW))
    return found


def test_a_report_without_a_warning_is_ok_with_its_index(tmp_path):
    found = reviewed(tmp_path, HEAD + TAIL)
    assert (found.state, found.value) == ("ok", 64)
    assert "suggestion BOOT-5264: Consider hardening system services (Run '/usr/bin/systemd-analyze" in found.evidence[1]


def test_warnings_and_a_low_index_are_warnings(tmp_path):
    found = reviewed(tmp_path, HEAD + WARNING + TAIL)
    assert (found.state, found.evidence[0]) == ("warning", "FIRE-4512: iptables module(s) loaded, but no rules active")
    assert reviewed(tmp_path, HEAD + TAIL, lynis_minimum_index=65).state == "warning"
    assert reviewed(tmp_path, HEAD + TAIL, lynis_minimum_index=64).state == "ok"


def test_what_is_new_since_the_report_before_is_said_as_long_as_that_report_stands(tmp_path):
    assert "new" not in reviewed(tmp_path, HEAD + TAIL, days_old=9).summary
    for _again in range(2):
        found = reviewed(tmp_path, HEAD + WARNING + TAIL, days_old=2)
        assert "1 new since the report before" in found.summary
        assert found.evidence[0].startswith("new: FIRE-4512")
    assert "0 new" in reviewed(tmp_path, HEAD + WARNING + TAIL, days_old=1).summary


def test_check_mode_keeps_nothing(tmp_path):
    reviewed(tmp_path, HEAD + TAIL, check_mode=True)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "text", ["", HEAD, HEAD + TAIL.replace("finish=true\n", ""), "finish=true\n", HEAD + "hardening_index=x\nfinish=true\n"]
)
def test_a_report_that_is_cut_off_or_none_is_unknown(tmp_path, text):
    assert reviewed(tmp_path, text).state == "unknown"


@pytest.mark.parametrize("days_old", [36, -3])
def test_an_old_report_proves_nothing(tmp_path, days_old):
    found = reviewed(tmp_path, HEAD + TAIL, days_old=days_old)
    assert (found.state, found.basis) == ("unknown", "stale")
    assert reviewed(tmp_path, HEAD + WARNING + TAIL, days_old=days_old).state == "warning"


def test_a_missing_report_and_a_link_are_unknown(tmp_path):
    reviewed(tmp_path, HEAD + TAIL)
    os.rename(tmp_path / "lynis-report.dat", tmp_path / "real")
    params = filled(security_lynis.OPTIONS, {"lynis_report": str(tmp_path / "lynis-report.dat")})
    review = Review({**params, "state_dir": str(tmp_path / "state")}, Host(), False, NOW)
    assert security_lynis.look(review)[0].state == "unknown"
    os.symlink(tmp_path / "real", tmp_path / "lynis-report.dat")
    assert security_lynis.look(review)[0].state == "unknown"


def test_lines_that_attack_the_report_are_data(tmp_path):
    found = reviewed(tmp_path, HEAD + "warning[]=X|\x1b[2J<script>|-|-|\n" + TAIL)
    assert "\x1b" not in str(found.as_dict())


@given(st.text(max_size=400))
def test_any_text_is_read(text):
    security_lynis.parse(text)


def test_wrong_input_is_said():
    said = " ".join(security_lynis.validate({"lynis_report": "x.dat", "lynis_max_age_days": 0, "lynis_minimum_index": 101}))
    for part in ("'x.dat'", "lynis_max_age_days is 0", "lynis_minimum_index is 101"):
        assert part in said


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_lynis.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_lynis, "_said", lambda _value: "")
    monkeypatch.setattr(security_lynis, "parse", lambda _text: security_lynis.Report(True, 90, [], []))
    assert security_lynis.passes_bad_sample(review)
