"""What is due, in pure functions: limits, names, bloat, remainders, settings, memory, and how long a record may become."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.doc_fragments.postgresql import ModuleDocFragment
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_upkeep_indexes as indexes_of
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_upkeep_settings as settings_of
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_upkeep_tables as tables_of
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_upkeep_options import OPTIONS, Limits, split_name
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_upkeep_plan import no_room
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_upkeep_report import shortened
from ansible_collections.ops.maintenance.plugins.module_utils.record import Action, Finding
from ansible_collections.ops.maintenance.plugins.modules import postgresql_upkeep

NOW = datetime(2026, 11, 21, tzinfo=timezone.utc)
LIMITS = Limits(20.0, 1000, 150_000_000, 10.0, 500, "online", 30.0, 1_000_000, 50.0)
TABLE = tables_of.Table(1, "public", "t", "r", False, 8192, 10_000, 0, 0, NOW, NOW, None, 100, False, 0, True)
INDEX = indexes_of.Index(
    1, 9, "public", "i", "public", "t", "btree", False, True, False, False, False, 8_192_000, 0, 1000.0, 8192, 90, "d", "", True
)
GB = 1024**3


# -- names --


@given(st.lists(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2))
def test_a_quoted_name_comes_back_as_it_was(parts):
    text = ".".join('"' + part.replace('"', '""') + '"' for part in parts)
    assert split_name(text) == tuple(parts)


@pytest.mark.parametrize(("text", "parts"), [("public.Orders", ("public", "Orders")), ('a b."c.d"', ("a b", "c.d"))])
def test_a_name_is_taken_as_written(text, parts):
    assert split_name(text) == parts


@pytest.mark.parametrize("text", ["orders", "a.b.c", "", ".", "a.", ".a", '"a.b', 'a"b.c', "a..b"])
def test_a_name_of_other_than_two_parts_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        split_name(text)


# -- tables --


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({}, False),
        ({"dead": 2500}, True),
        ({"dead": 2499}, False),
        ({"live": 100, "dead": 999}, False),
        ({"frozen_age": 150_000_000}, True),
        ({"vacuumed": None, "analyzed": None}, True),
        ({"vacuumed": None, "analyzed": None, "size": 0}, False),
        ({"vacuumed": None}, False),
        ({"of_system": True, "dead": 9000}, False),
        ({"of_system": True, "frozen_age": 150_000_000}, True),
        ({"kind": "p", "dead": 9000}, False),
    ],
)
def test_vacuum_is_due_by_share_and_floor_by_age_and_when_never_counted(change, due):
    assert bool(tables_of.vacuum_reason(replace(TABLE, **change), LIMITS)) is due


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({}, False),
        ({"analyzed": None}, True),
        ({"analyzed": None, "size": 0}, False),
        ({"changed": 1000}, True),
        ({"changed": 999}, False),
        ({"live": 100, "changed": 499}, False),
        ({"analyzed": None, "of_system": True}, False),
    ],
)
def test_analyze_is_due_by_share_and_floor_and_when_never_done(change, due):
    assert bool(tables_of.analyze_reason(replace(TABLE, **change), LIMITS)) is due


def test_worst_comes_first():
    many, few, old = replace(TABLE, oid=2, dead=9000), replace(TABLE, oid=3, dead=3000), replace(TABLE, oid=4, frozen_age=160_000_000)
    chosen = tables_of.vacuums([few, TABLE, many, old], lambda _table: LIMITS)
    assert [table.oid for table, _why in chosen] == [4, 2, 3]


def test_a_partitioned_table_is_due_with_its_partitions_and_covers_them():
    """asr-04-2."""
    parent = replace(TABLE, oid=10, kind="p", size=0, has_statistics=True)
    part, quiet = replace(TABLE, oid=11, root=10), replace(TABLE, oid=12, root=10)

    def due(*tables):
        return [table.oid for table, _why in tables_of.analyses(tables, lambda _table: LIMITS)]

    assert due(parent, part, quiet) == []
    assert due(parent, replace(part, changed=5000), quiet) == [10]
    assert due(replace(parent, has_statistics=False), part, quiet) == [10]
    assert due(parent, replace(part, autoanalyzed=NOW + timedelta(hours=1)), quiet) == [10]
    assert due(replace(parent, has_statistics=False), replace(part, size=0)) == []


# -- indexes --


@given(st.integers(1, 10**6), st.floats(0, 100), st.integers(0, 10**6), st.integers(0, 1000))
def test_bloat_is_a_share_of_the_index(pages, density, leaves, inner):
    bloat = indexes_of.measured(
        replace(INDEX, size=pages * 8192), {"avg_leaf_density": density, "leaf_pages": leaves, "internal_pages": inner}
    )
    assert 0 <= bloat.percent <= 100
    assert 0 <= bloat.lost <= pages * 8192


def test_a_full_index_is_not_bloated_and_one_of_deleted_pages_is():
    full = {"avg_leaf_density": 90.0, "leaf_pages": 990, "internal_pages": 9}
    assert indexes_of.measured(INDEX, full).percent < 1
    assert indexes_of.measured(INDEX, {**full, "avg_leaf_density": 45.0}).percent == pytest.approx(49.5, abs=1)
    assert indexes_of.measured(INDEX, {**full, "leaf_pages": 90}).percent == pytest.approx(90, abs=1)
    assert indexes_of.measured(INDEX, {"avg_leaf_density": float("nan"), "leaf_pages": 0, "internal_pages": 0}).percent > 99


def test_both_limits_have_to_be_reached():
    assert indexes_of.is_due(indexes_of.Bloat(30.0, 1_000_000, "exact"), LIMITS)
    assert not indexes_of.is_due(indexes_of.Bloat(29.9, 9_000_000, "exact"), LIMITS)
    assert not indexes_of.is_due(indexes_of.Bloat(90.0, 999_999, "exact"), LIMITS)
    assert not indexes_of.is_due(None, LIMITS)


LONG = "i" * 57


@pytest.mark.parametrize(
    ("name", "of", "is_leftover"),
    [
        ("i_ccnew", {}, True),
        ("i_ccnew12", {}, True),
        ("i_ccold", {}, True),
        (f"{LONG}_ccnew", {"name": LONG + "iiiiii"}, True),
        ("i_ccnew", {"definition": "other"}, False),
        ("i_ccnew", {"table_oid": 8}, False),
        ("i_ccnew", {"name": "ii"}, False),
        ("i_ccnewer", {}, False),
        ("i_new", {}, False),
        ("_ccnew", {"name": ""}, False),
    ],
)
def test_only_an_invalid_copy_beside_its_valid_index_is_a_remainder(name, of, is_leftover):
    """neff-weekly-05, flow-monthly-4."""
    copy, other = replace(INDEX, oid=2, name=name, valid=False), replace(INDEX, **of)
    assert bool(indexes_of.leftovers([other, copy], {1, 2})) is is_leftover
    assert indexes_of.leftovers([other, replace(copy, valid=True)], {1, 2}) == []


def test_a_copy_beside_an_invalid_index_is_dropped_only_when_this_run_left_it():
    copy, other = replace(INDEX, oid=2, name="i_ccnew", valid=False), replace(INDEX, valid=False)
    assert indexes_of.leftovers([other, copy], {1, 2}) == []
    assert indexes_of.leftovers([other, copy], {1}) == [copy]
    assert indexes_of.invalid([other, copy]) == [other]
    assert indexes_of.invalid([copy]) == [copy]


# -- settings --


@pytest.mark.parametrize(
    ("text", "kind", "unit", "same"),
    [
        ("256MB", "integer", "8kB", "32768"),
        ("4MB", "integer", "kB", "4096kB"),
        ("1GB", "integer", "8kB", "1024MB"),
        ("90s", "integer", "ms", "90000"),
        ("1.5min", "integer", "s", "90"),
        ("on", "bool", "", "TRUE"),
        ("1.10", "real", "", "1.1"),
        ("Replica", "enum", "", "replica"),
        ("a, b", "string", "", '"a",b'),
    ],
)
def test_values_are_compared_by_what_they_mean(text, kind, unit, same):
    """neff-perf-08."""
    assert settings_of.amount_of(text, kind, unit) == settings_of.amount_of(same, kind, unit)


@given(st.integers(0, 10**9))
def test_other_amounts_differ(number):
    assert settings_of.amount_of(f"{number}kB", "integer", "kB") != settings_of.amount_of(f"{number + 1}kB", "integer", "kB")


def test_amounts_of_memory_are_weighed_against_the_host():
    """neff-perf-08: work_mem counts for each connection."""
    fits = {"shared_buffers": GB / 4, "effective_cache_size": GB, "work_mem": 4 * 1024**2, "max_connections": 100}
    assert settings_of.memory_problems(fits, 2 * GB) == ([], [])
    assert settings_of.memory_problems(fits, GB // 2)[0][0].startswith("effective_cache_size")
    assert settings_of.memory_problems({**fits, "shared_buffers": 1.5 * GB}, 2 * GB)[0][0].startswith("shared_buffers")
    assert "for 600 connections" in settings_of.memory_problems({**fits, "max_connections": 600}, 2 * GB)[1][0]


def test_the_memory_of_a_container_is_its_limit(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\n")
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    assert settings_of.memory_bytes(str(tmp_path / "meminfo"), str(tmp_path / "max")) == 1_000_000
    assert settings_of.memory_bytes(str(tmp_path / "meminfo"), str(tmp_path / "none")) == 2048 * 1024
    assert settings_of.memory_bytes(str(tmp_path / "no"), str(tmp_path / "max")) == 0


# -- room, record, documentation --


def test_room_is_looked_for_in_every_place(tmp_path):
    assert "cannot be told" in no_room(str(tmp_path), "", 1, 0), "of the log, which may lie elsewhere"
    (tmp_path / "pg_wal").mkdir()
    assert no_room(str(tmp_path), "", 1000, 0) == ""
    assert "it needs" in no_room(str(tmp_path), str(tmp_path), 10**18, 0)
    assert "cannot be told" in no_room(str(tmp_path), str(tmp_path / "none"), 1, 0)
    assert no_room("", "/of/another/host", 10**18, 0) == ""
    assert "cannot be told" in no_room(str(tmp_path / "none"), "", 1, 0)


def test_thousands_of_objects_make_a_short_record_that_still_names_the_failures():
    actions = [Action(f"main/db: public.t{n}", "vacuum", "changed", "x") for n in range(3000)]
    actions += [Action("main/db: public.bad", "vacuum", "failed", "x")]
    findings = [Finding("upkeep.declared", "ok", f"t{n}", "x") for n in range(3000)] + [
        Finding("upkeep.failed", "critical", "bad", "x", advice="y")
    ]
    short, found = shortened(actions, findings)
    assert len(short) < 100
    assert len(found) < 100
    assert short[0].subject.endswith("public.bad")
    assert found[0].id == "upkeep.failed"
    assert short[-1].summary == "2931 more"


def test_options_and_documentation_agree():
    documented = yaml.safe_load(postgresql_upkeep.DOCUMENTATION)["options"]
    documented["servers"] = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]["servers"]

    def compare(options, written, where):
        assert sorted(options) == sorted(written), where
        for name, spec in options.items():
            text = written[name]
            for key in ("type", "elements", "required", "choices", "default"):
                assert spec.get(key) == text.get(key), f"{where}{name}: {key}"
            if "options" in spec:
                compare(spec["options"], text["suboptions"], f"{name}.")

    compare(OPTIONS, documented, "")
