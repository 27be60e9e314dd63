# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention rules without a server: what is refused, how much has to stay, in which order they run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_retention_rules import RULE, children_first, parse, rows_to_keep
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_retention_tables import Column, column_faults


def rule(**more):
    return {
        **{name: option.get("default") for name, option in RULE.items()},
        "server": "main",
        "database": "app",
        "table": "log",
        "column": "at",
        "age_days": 30.0,
        "archive_table": "",
        **more,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"server": "other"}, "names server 'other'"),
        ({"column": " "}, "has column ' '"),
        ({"age_days": 0.0}, "expected at least minimum_age_days"),
        ({"age_days": float("nan")}, "has age_days nan"),
        ({"age_days": 1e9}, "has age_days"),
        ({"age_days": 6.9}, "expected at least minimum_age_days (7)"),
        ({"minimum_age_days": -1.0}, "has minimum_age_days -1"),
        ({"maximum_share_percent": 0.0}, "has maximum_share_percent 0"),
        ({"maximum_share_percent": 101.0}, "has maximum_share_percent 101"),
        ({"batch_rows": 0}, "has batch_rows 0"),
        ({"minimum_rows_kept": -1}, "has minimum_rows_kept -1"),
        ({"pause_seconds": 61.0}, "has pause_seconds 61"),
        ({"table": "a.b.c"}, "expected schema.table"),
        ({"archive_table": "log"}, "archives into the table itself"),
        ({"archive_table": "public.log"}, "archives into the table itself"),
        ({"create_archive": True}, "create_archive without archive_table"),
        ({"equals": {"kind": None}}, "has equals.kind of type NoneType"),
    ],
)
def test_each_fault_is_one_sentence_beside_the_others(change, says):
    with pytest.raises(InputError) as caught:
        parse([rule(**change), rule(table="b", batch_rows=-5)], ["main"])
    assert says in str(caught.value)
    assert "has batch_rows -5" in str(caught.value)


def test_two_rules_for_the_same_rows_contradict_each_other():
    with pytest.raises(InputError, match="two rules for the same rows"):
        parse([rule(), rule(age_days=60.0)], ["main"])
    assert len(parse([rule(), rule(equals={"kind": "debug"})], ["main"])) == 2


def test_names():
    parsed = parse([rule(), rule(table="audit.log"), rule(table="a.b", schema="s", archive_table="x.y")], ["main"])
    assert [one.table for one in parsed] == [("public", "log"), ("audit", "log"), ("s", "a.b")]
    assert parsed[2].archive == ("x", "y")
    assert parsed[0].archive is None


@given(st.integers(0, 10**9), st.integers(0, 1000), st.floats(0.1, 100))
def test_what_stays_keeps_the_share(due, least, share):
    kept = rows_to_keep(due, least, share)
    if due:
        assert kept >= least
        assert due / (due + kept) * 100 <= share * (1 + 1e-6)


@given(st.lists(st.integers(0, 8), unique=True), st.dictionaries(st.integers(0, 8), st.sets(st.integers(0, 8))))
def test_every_rule_keeps_its_place_in_some_order(keys, refers_to):
    assert sorted(children_first(keys, refers_to)) == sorted(keys)


@given(st.permutations(range(7)), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_what_refers_goes_before_what_it_refers_to(keys, pairs):
    refers_to = {}
    for child, parent in pairs:
        if child < parent:  # no circles
            refers_to.setdefault(child, set()).add(parent)
    order = children_first(keys, refers_to)
    assert all(order.index(child) < order.index(parent) for child, parents in refers_to.items() for parent in parents)


TEXT = Column("character varying(20)", "character varying", 24, False, False, False)


@pytest.mark.parametrize(
    ("there", "fits"),
    [
        (TEXT, True),
        (Column("text", "text", -1, False, False, False), True),
        (Column("character varying", "character varying", -1, False, False, False), True),
        (Column("character varying(10)", "character varying", 14, False, False, False), False),
        (Column("integer", "integer", -1, False, False, False), False),
    ],
)
def test_an_archive_holds_every_value(there, fits):
    assert (column_faults({"a": TEXT}, {"a": there}) == []) is fits
