# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.security_sudo_rights import rights

PEOPLE = {
    "root": {"uid": "0", "groups": ["root"]},
    "mia": {"uid": "1000", "groups": ["mia", "ops"]},
    "tom": {"uid": "1001", "groups": ["tom", "domain admins"]},
}


@pytest.mark.parametrize(
    ("rules", "certain", "free", "possible"),
    [
        (["mia ALL=(ALL) ALL"], "mia", "", "mia"),
        (["mia ALL=ALL"], "mia", "", "mia"),
        (["mia ALL=(ALL:ALL) NOPASSWD: ALL"], "mia", "mia", "mia"),
        (["mia ALL=(ALL) NOPASSWD:/bin/ls, PASSWD: ALL"], "mia", "", "mia"),
        (["mia ALL=(ALL) NOPASSWD:/bin/ls, ALL"], "mia", "mia", "mia"),
        (["mia,%ops , tom ALL=(root) ALL"], "mia tom", "", "mia tom"),
        (["%domain\\ admins ALL=(ALL) ALL"], "tom", "", "tom"),
        (['"%domain admins" ALL=(ALL) ALL'], "tom", "", "tom"),
        (["#1001 ALL=(ALL) ALL"], "tom", "", "tom"),
        (["User_Alias A = mia : B = A, tom", "B ALL=(ALL) ALL"], "mia tom", "", "mia tom"),
        (["Runas_Alias R = root", "Cmnd_Alias C = ALL", "Host_Alias H = ALL", "mia H=(R) C"], "mia", "", "mia"),
        # limits of any kind make it uncertain
        (["mia ALL=(www) ALL"], "", "", "mia"),
        (["mia ALL=(www) /bin/ls, ALL"], "", "", "mia"),
        (["mia ALL=(:adm) ALL"], "", "", "mia"),
        (["mia ALL=(ALL, !root) ALL"], "", "", "mia"),
        (["mia ALL=(root) NOPASSWD: /usr/bin/systemctl restart app"], "", "", "mia"),
        (["mia ALL=(ALL) ALL, !/bin/su"], "", "", "mia"),
        (["mia ALL=(ALL) ALL", "ALL ALL=(ALL) !ALL"], "", "", "mia root tom"),
        (["mia web1=(ALL) ALL"], "", "", "mia"),
        (["mia ALL,!web1=(ALL) ALL"], "", "", "mia"),
        (["mia ALL=(ALL) NOTAFTER=20200101000000Z ALL"], "", "", "mia"),
        (["mia ALL=(ALL) /bin/x a\\,ALL"], "", "", "mia"),
        (["ALL,!tom ALL=(ALL) ALL"], "", "", "mia root tom"),
        (["+staff ALL=(ALL) ALL"], "", "", "mia root tom"),
        (["mia ALL=(ALL) ALL", "Defaults:mia targetpw"], "", "", "mia"),
        (['Defaults secure_path="/a:/b"', "mia ALL=(ALL) ALL"], "mia", "", "mia"),
        (["nobody ALL=(ALL) ALL"], "", "", ""),
    ],
)
def test_what_rules_let_people_do(rules, certain, free, possible):
    found = rights(rules, PEOPLE)
    assert [" ".join(sorted(names)) for names in (found.certain, found.free, found.possible)] == [certain, free, possible]


@pytest.mark.parametrize("rule", ["mia", "mia ALL", "mia ALL=", "mia ALL=(ALL NOPASSWD ALL", "tom ALL = (((", "= ALL"])
def test_a_line_that_is_no_rule_is_never_guessed(rule):
    with pytest.raises(MaintenanceError, match="not understood"):
        rights(["mia ALL=(ALL) ALL", rule], PEOPLE)


@given(st.lists(st.text('mia ALL=(),:!%#\\"_UserAlias\t', max_size=40), max_size=4))
def test_no_rule_hangs_or_breaks_the_reader(rules):
    try:
        found = rights(rules, PEOPLE)
    except MaintenanceError:
        return
    assert found.certain <= found.possible <= set(PEOPLE)
    assert found.free <= found.certain
