# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of versions, and what a pin lets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.package_versions import compare, is_within

VERSIONS = st.text(alphabet="0123456789abz.+~-:", max_size=12)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_order_is_total(one, other, third):
    assert compare(one, other) == -compare(other, one)  # pylint: disable=arguments-out-of-order
    assert compare(one, one) == 0
    if compare(one, other) <= 0 and compare(other, third) <= 0:
        assert compare(one, third) <= 0


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0+b1"),
        ("1.0-1", "1.0-1+deb12u1"),
        ("9.9", "1:0.1"),
        ("1.0~~", "1.0~"),
        ("6.1.0-9-amd64", "6.1.0-10-amd64"),
    ],
)
def test_lower_and_higher(lower, higher):
    assert compare(lower, higher) < 0


@pytest.mark.parametrize(
    ("version", "pin", "within"),
    [
        ("15.6-0+deb12u1", "15", True),
        ("15.6-0+deb12u1", "15.*", True),
        ("16.0-1", "15", False),
        ("150.1", "15", False),  # not the same number
        ("1.10", "1.1", False),
        ("1.1.7", "1.1", True),
        ("1.0.9", "1.1", True),  # below
        ("1.1.1w", "1.1.1", False),
        ("5:24.0.7-1~debian", "24.0", True),
        ("5:25.0.1-1~debian", "24.0", False),
        ("5:24.0.7-1", "5:24.0.7-1", True),
        ("5:24.0.7-2", "5:24.0.7-1", False),
        ("6:1.0", "5:24.0.7-1", False),
    ],
)
def test_pin_is_not_passed(version, pin, within):
    assert is_within(version, pin) is within
