"""The upkeep and the retention prove that their judges can say no; one that cannot any more ends the run before it begins."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    postgresql_retention,
    postgresql_retention_self_test,
    postgresql_upkeep,
    postgresql_upkeep_indexes,
    postgresql_upkeep_self_test,
    postgresql_upkeep_settings,
    postgresql_upkeep_tables,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_retention_work import Plan
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_upkeep_settings import Setting


def test_sound_judges_pass():
    assert postgresql_upkeep_self_test.self_test() == []
    assert postgresql_retention_self_test.self_test() == []


BLIND_UPKEEP = [
    (postgresql_upkeep_tables, "vacuum_reason", lambda *_of: "", {"dead rows", "old transactions", "a table that was never vacuumed"}),
    (postgresql_upkeep_tables, "vacuum_reason", lambda *_of: "due", {"dead rows", "old transactions", "a table that was never vacuumed"}),
    (postgresql_upkeep_tables, "analyze_reason", lambda *_of: "", {"a table that was never analysed", "rows that changed"}),
    (postgresql_upkeep_indexes, "invalid", lambda _of: [], {"an invalid index"}),
    (postgresql_upkeep_indexes, "invalid", list, {"an invalid index"}),
    (postgresql_upkeep_indexes, "leftovers", lambda _of, _before: [], {"a leftover of a rebuild"}),
    (postgresql_upkeep_indexes, "leftovers", lambda found, _before: found, {"a leftover of a rebuild"}),
    (postgresql_upkeep_indexes, "is_due", lambda *_of: False, {"a bloated index"}),
    (postgresql_upkeep_self_test, "no_room", lambda *_of: "", {"a full disk"}),
    (Setting, "due", False, {"a setting"}),
    (postgresql_upkeep_settings, "memory_problems", lambda *_of: ([], []), {"more memory than there is"}),
]


@pytest.mark.parametrize(("where", "name", "blind", "missed"), BLIND_UPKEEP)
def test_each_judge_of_the_upkeep_that_cannot_tell_is_named(monkeypatch, where, name, blind, missed):
    monkeypatch.setattr(where, name, blind)
    assert set(postgresql_upkeep_self_test.self_test()) == missed


UNFIT = {"an archive without a column", "an archive whose column is too narrow", "an archive that wants more"}
AGES = {"an age that is too low", "an archive that is the table itself", "a server that is not declared"}
BLIND_RETENTION = [
    (postgresql_retention_self_test, "refusal", lambda *_of: [], AGES),
    (postgresql_retention_self_test, "rows_to_keep", lambda *_of: 0, {"too large a share"}),
    (postgresql_retention_self_test, "column_faults", lambda *_of: [], UNFIT),
    (Plan, "scan_needed", [], {"a big table without an index"}),
    (Plan, "holding", [], {"rows that others refer to"}),
    (postgresql_retention_self_test, "children_first", lambda keys, _of: keys, {"the order of tables"}),
]


@pytest.mark.parametrize(("where", "name", "blind", "missed"), BLIND_RETENTION)
def test_each_guard_of_the_retention_that_cannot_refuse_is_named(monkeypatch, where, name, blind, missed):
    monkeypatch.setattr(where, name, blind)
    assert set(postgresql_retention_self_test.self_test()) == missed


def params_of(options):
    defaults = {name: option.get("default") for name, option in options.items()}
    return {**defaults, "servers": [], "rules": [], "run_id": "", "deadline": 0.0, "state_dir": "/nonexistent", "self_test": True}


@contextmanager
def broken(finding_id):
    with pytest.raises(MaintenanceError) as caught:
        yield
    outcome = caught.value.outcome
    assert outcome.status == "failed"
    assert [(found.id, found.state) for found in outcome.findings] == [(finding_id, "unknown")]
    assert outcome.record()


def test_a_run_whose_self_test_fails_does_nothing_and_is_unknown(monkeypatch):
    monkeypatch.setattr(postgresql_upkeep_indexes, "leftovers", lambda found, _before: found)
    monkeypatch.setattr(Plan, "holding", [])
    with broken("upkeep.self_test"):
        postgresql_upkeep.run(params_of(postgresql_upkeep.OPTIONS), False, Host())
    with broken("retention.self_test"):
        postgresql_retention.run(params_of(postgresql_retention.OPTIONS), False, Host())


@pytest.mark.parametrize(("module", "finding_id"), [(postgresql_upkeep, "upkeep.self_test"), (postgresql_retention, "retention.self_test")])
def test_a_run_whose_self_test_passes_says_so_where_it_was_asked_for(module, finding_id):
    asked = module.run(params_of(module.OPTIONS), True, Host())
    assert [found.state for found in asked.findings if found.id == finding_id] == ["ok"]
    silent = module.run({**params_of(module.OPTIONS), "self_test": False}, True, Host())
    assert not [found for found in silent.findings if found.id == finding_id]
