"""Every fault of the review, planted in real servers, arrives in the record of the run; a sound server stays silent."""

from __future__ import annotations

import pytest
from helpers import findings, runs
from review_faults import CLEAN, DAMAGED, FAULTY, FOUND, OF_SERVER

testinfra_hosts = ["shop"]

FIRST = 1
PLANTED = (
    *((f"troubled/{FAULTY}", *fault) for fault in FOUND),
    (f"troubled/{FAULTY}", "index_bloat", "warning", ['public."Bloat ed_pkey"']),
    # A list only, whatever is in it.
    (f"troubled/{FAULTY}", "slowest_statements", "ok", ["pg_sleep"]),
    (f"troubled/{FAULTY}", "temporary_files", "warning", ["temporary files"]),
    (f"troubled/{DAMAGED}", "amcheck", "critical", ["public.broken"]),
    (f"troubled/{DAMAGED}", "dead_rows", "unknown", ["no counters", "public.broken"]),
    *(("troubled", *fault) for fault in OF_SERVER if fault[0] != "version"),
    # Both servers of a host run the same programs, which are declared outdated. Whether that is critical depends on the day.
    *((server, "version", "", [".99 is the newest"]) for server in ("troubled", "sound")),
    ("troubled", "checksum_failures", "critical", [DAMAGED]),
    ("neglected", "autovacuum", "critical", ["autovacuum is off"]),
    ("neglected", "checksum_failures", "unknown", ["data checksums are off"]),
    ("neglected", "archiving", "critical", ["could not be archived"]),
    ("neglected", "replication_slots", "warning", ["lonely (physical): inactive"]),
    ("neglected", "replication_lag", "warning", ["behind at the socket: 48.0 MiB"]),
    ("neglected/postgres", "slow_statements", "unknown", ["not in shared_preload_libraries"]),
    ("behind", "replication_lag", "warning", ["this standby: 48.0 MiB"]),
    ("cut_off", "replication_lag", "warning", ["not streaming"]),
    ("gone", "reachable", "critical", ["gone"]),
)
# How long they last by the time of the review depends on the machine, and so does whether that is critical.
LASTING = {"lock_waits", "idle_in_transaction", "long_transactions", "prepared_transactions"}
# Kept between runs, so that only a change of a later run brings them (tests/hosts), and what is only listed.
NOT_PLANTED = {"size", "index_usage", "suspicious_statements"}


def reviewed(host, server: str) -> dict[tuple[str, str], dict]:
    mine = findings(host=host.backend.get_hostname(), journal=runs()[FIRST])
    return {(found["subject"], found["id"]): found for found in mine if found["subject"].partition("/")[0] == server}


@pytest.mark.parametrize(("subject", "name", "state", "says"), PLANTED, ids=lambda value: value if isinstance(value, str) else "")
def test_each_planted_fault_arrives(host, subject, name, state, says):
    found = reviewed(host, subject.partition("/")[0])[subject, f"postgresql.{name}"]
    assert found["state"] in ((state,) if state and name not in LASTING else ("warning", "critical"))
    text = "\n".join([found["summary"], *found["evidence"], found["not_covered"]])
    assert [words for words in says if words not in text] == []


def test_nothing_that_the_review_finds_is_left_out(host):
    planted = {f"postgresql.{name}" for _subject, name, _state, _says in PLANTED}
    asked = {found_id for server in ("sound", "neglected") for _subject, found_id in reviewed(host, server)}
    assert asked - planted == {f"postgresql.{name}" for name in NOT_PLANTED} & asked


@pytest.mark.parametrize("server", ["sound", "replica"])
def test_the_sound_twin_is_silent(host, server):
    found = reviewed(host, server)
    wrong = {key: one["summary"] for key, one in found.items() if one["state"] != "ok"}
    assert set(wrong) == {(server, "postgresql.version")}, wrong
    assert len(found) > 15
    assert server == "replica" or len([subject for subject, _name in found if subject == f"sound/{CLEAN}"]) > 20


def test_a_server_that_does_not_answer_is_unknown_in_everything_else(host):
    found = reviewed(host, "gone")
    assert {one["state"] for (_subject, name), one in found.items() if name != "postgresql.reachable"} == {"unknown"}
    assert len(found) > 35
