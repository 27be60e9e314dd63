# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_openscap
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")


def rule(name, result, severity="medium"):
    return f'<rule-result idref="{name}" severity="{severity}"><result>{result}</result><check><result>fail</result></check></rule-result>'


def document(*rules, end=' end-time="2026-11-20T02:00:00"', before="", prefix=""):
    test = f'<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" start-time="x"{end}>{"".join(rules)}<score>50</score></TestResult>'
    return f'<?xml version="1.0"?>{prefix}<arf:asset-report-collection xmlns:arf="urn:arf">{before}{test}</arf:asset-report-collection>'


def reviewed(tmp_path, text, days_old=1.0):
    path = tmp_path / "results.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (NOW.timestamp() - days_old * 86400,) * 2)
    params = filled(security_openscap.OPTIONS, {"openscap_results": str(path)})
    (found,) = security_openscap.look(Review(params, Host(), True, NOW))
    return found


def test_all_passed_is_ok(tmp_path):
    assert reviewed(tmp_path, document(rule("a", "pass"), rule("b", "notapplicable"))).state == "ok"


def test_failed_rules_are_named_worst_first(tmp_path):
    found = reviewed(
        tmp_path,
        document(
            "<rule-result idref='p'><result>pass</result></rule-result>",
            *(f"<rule-result idref='{name}' severity='{name}'><result>fail</result></rule-result>" for name in ("low", "high", "medium")),
        ),
    )
    assert (found.state, found.value, found.evidence) == ("critical", 3, ["high: high", "medium: medium", "low: low"])


@pytest.mark.parametrize("result", ["error", "unknown"])
def test_what_could_not_be_evaluated_is_never_ok(tmp_path, result):
    passed = "<rule-result idref='p'><result>pass</result></rule-result>"
    found = reviewed(tmp_path, document(passed, f"<rule-result idref='x'><result>{result}</result></rule-result>"))
    assert (found.state, "could not be evaluated" in found.not_covered) == ("unknown", True)


def test_old_unfinished_empty_and_broken_results_prove_nothing(tmp_path):
    passed = "<rule-result idref='p'><result>pass</result></rule-result>"
    assert reviewed(tmp_path, document(passed)).state == "ok"
    assert reviewed(tmp_path, document(passed), days_old=40).state == "unknown"
    assert reviewed(tmp_path, document(passed, end="")).state == "unknown"
    for text in ("", "text", document(), document(passed)[:-30], "<html/>"):
        assert reviewed(tmp_path, text).state == "unknown"


def test_entities_are_refused_before_they_grow(tmp_path):
    laughs = "<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]>"
    found = reviewed(tmp_path, document("<rule-result idref='p'><result>pass</result></rule-result>", before="&b;", prefix=laughs))
    assert (found.state, "document type" in found.summary) == ("unknown", True)


def test_names_that_attack_the_report_are_data(tmp_path):
    found = reviewed(tmp_path, document("<rule-result idref='a&#10;&lt;script&gt;\u202e'><result>fail</result></rule-result>"))
    assert "\u202e" not in str(found.as_dict())


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    assert reviewed(tmp_path_factory.mktemp("x"), data).state == "unknown"


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_openscap.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_openscap.Results, "_end", lambda *_: None)
    monkeypatch.setattr(security_openscap, "verdict", lambda *_: security_openscap.Finding("a.b", "ok", "", ""))
    assert security_openscap.passes_bad_sample(review)


@pytest.mark.parametrize(
    ("given_ones", "says"),
    [
        ({"openscap_results": "r.xml"}, "openscap_results is 'r.xml'"),
        ({"openscap_content": "c.xml"}, "openscap_content is 'c.xml'"),
        ({"openscap_results": "/r.xml", "openscap_content": "/c.xml"}, "both given"),
        ({"openscap_profile": "--remediate"}, "openscap_profile is '--remediate'"),
        ({"openscap_timeout_seconds": 0.0}, "openscap_timeout_seconds"),
    ],
)
def test_wrong_input_is_said(given_ones, says):
    (said,) = security_openscap.validate(filled(security_openscap.OPTIONS, given_ones))
    assert says in said


def test_without_oscap_nothing_is_known():
    class Bare(Host):
        def which(self, _name):
            return None

    params = filled(security_openscap.OPTIONS, {"openscap_content": "/c.xml"})
    (found,) = security_openscap.look(Review(params, Bare(), True, NOW))
    assert (found.state, "oscap is not installed" in found.summary) == ("unknown", True)
