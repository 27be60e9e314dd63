# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import backup_objectives as objectives
from ansible_collections.ops.maintenance.plugins.module_utils.backup_encryption import command_problems, encryption_of
from ansible_collections.ops.maintenance.plugins.module_utils.backup_kinds import _rpo_verdict
from ansible_collections.ops.maintenance.plugins.module_utils.backup_pg_archive import format_of, parse_contents
from ansible_collections.ops.maintenance.plugins.module_utils.backup_pg_compare import Measured, compared, table_named
from ansible_collections.ops.maintenance.plugins.module_utils.backup_pg_restore import refusal
from ansible_collections.ops.maintenance.plugins.module_utils.backup_pg_text import Text
from ansible_collections.ops.maintenance.plugins.module_utils.backup_proof import Proof
from ansible_collections.ops.maintenance.plugins.module_utils.backup_sets import Backup, File, alternatives, matches
from ansible_collections.ops.maintenance.plugins.module_utils.backup_stream import DamagedError

DUMP = rb"""--
-- PostgreSQL database dump
--

\restrict abc

-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 17.2

SET client_encoding = 'UTF8';
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE TABLE public.orders (
    id bigint
);
ALTER TABLE public.orders OWNER TO "shop owner";
COPY public.orders (id, "note (x)") FROM stdin;
1	a
2	\\.
3	COPY x FROM stdin;
\.


COPY archive."Mixed ""case"" one" (id) FROM stdin;
\.

GRANT SELECT ON TABLE public.orders TO reader;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE POLICY mine ON public.orders TO clerk, "head clerk" USING (true);
--
-- PostgreSQL database dump complete
--

\unrestrict abc

"""


def read(data, *cuts):
    text = Text()
    for start, end in zip((0, *cuts), (*cuts, len(data))):  # noqa: B905 - Python 3.9
        text.feed(data[start:end])
    return text, text.problem()


@given(st.lists(st.integers(0, len(DUMP)), max_size=12).map(sorted))
def test_a_dump_is_understood_however_it_is_cut_into_pieces(cuts):
    text, problem = read(DUMP, *cuts)
    assert problem == ("", "")
    assert text.rows == {("public", "orders"): 3, ("archive", 'Mixed "case" one'): 0}
    assert text.tables == {("public", "orders")}
    assert text.roles == {"shop owner", "reader", "clerk", "head clerk"}
    assert (text.server_major, text.program_major, text.encoding, text.extensions) == (15, 17, "UTF8", {"pg_trgm"})
    assert (text.commands, text.connects, text.creates_database, text.size) == ([], False, False, len(DUMP))


@given(st.integers(0, DUMP.index(b"dump complete")))
def test_every_shorter_beginning_is_half_written(length):
    assert read(DUMP[:length])[1][0] == "half written"


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (DUMP.replace(b"1\ta", b"1\0a"), "damaged", "zero bytes"),
        (DUMP + b"DROP TABLE x;\n", "damaged", "follows its end mark"),
        (DUMP + b"-- a remark of the site\n", "", ""),
        (DUMP.replace(b"\n\\.\n", b"\n\\,\n"), "half written", "among the rows of public.orders"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(data, kind, says):
    assert read(data)[1][0] == kind
    assert says in read(data)[1][1]


def test_commands_of_psql_are_told_from_rows_and_from_those_of_pg_dump():
    assert read(DUMP.replace(b"CREATE TABLE", b"\\! id\nCREATE TABLE"))[0].commands == ["\\!"]
    assert read(DUMP.replace(b"2\t", b"\\! id\t"))[0].commands == []
    assert read(b"\\connect shop\n" + DUMP)[0].connects


def test_roles_are_told_before_the_piece_that_names_them_is_handed_on():
    told = []
    Text(told.append).feed(DUMP)
    assert told[0] == "shop owner"


@pytest.mark.parametrize(
    ("first", "form"),
    [(b"PGDMP\x01\x0e", "custom"), (b"\n" * 3 + DUMP, "plain"), (b"toc.dat".ljust(257, b"\0") + b"ustar\0", "tar")],
)
def test_the_format_is_told_by_content(first, form):
    """neff-daily-14, netpost-bak-10"""
    assert format_of(first, "wrong.name") == form


@pytest.mark.parametrize("first", [b"", b"PK\x03\x04", b"x" * 600, b"data/1".ljust(257, b"\0") + b"ustar\0", b"-- MySQL dump"])
def test_what_is_no_dump_is_refused(first):
    with pytest.raises(DamagedError):
        format_of(first, "backup.dump")


def test_a_table_of_contents_is_read():
    listed = """;
; Archive created at 2026-11-21 02:00:00 UTC
;     dbname: shop
;     TOC Entries: 12
;     Format: CUSTOM
;     Dumped from database version: 15.20 (Debian)
;     Dumped by pg_dump version: 17.2
;
215; 1259 16385 TABLE public orders postgres
3345; 0 16385 TABLE DATA public orders postgres
"""
    contents = parse_contents(listed, "a")
    assert (contents.database, contents.server_major, contents.program_major) == ("shop", 15, 17)
    assert (contents.entries, contents.data_tables) == (2, 1)
    for text, kind in (("", "damaged"), (listed[: listed.index("215;")], "wrong content")):
        with pytest.raises(DamagedError) as caught:
            parse_contents(text, "a")
        assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ('psql:<stdin>:9: ERROR:  extension "postgis" is not available\nDETAIL:  secret', "unknown"),
        ("psql:<stdin>:9: ERROR:  could not extend file: No space left on device", "unknown"),
        ('pg_restore: error: could not execute query: ERROR:  invalid input syntax for type integer: "secret"\nCommand was: x', "critical"),
        ('psql:<stdin>:1: ERROR:  syntax error at or near "secret"\nLINE 1: secret', "critical"),
        ('ERROR:  duplicate key value violates unique constraint "orders_pkey"\nDETAIL:  Key (id)=(secret) already exists.', "critical"),
    ],
)
def test_why_a_restore_stopped_is_said_without_values_of_the_application(said, state):
    error = refusal("psql", said)
    assert error.state == state
    assert "secret" not in str(error)


def test_a_declared_table_is_found_where_it_is_meant():
    tables = {("public", "a"), ("x", "a"), ("x", "b"), ("y", "c"), ("z", "c"), ("public", "d.e")}
    assert [table_named(name, tables) for name in ("a", "x.a", "b", "c", "y.c", "d.e", "none")] == [
        ("public", "a"), ("x", "a"), ("x", "b"), None, ("y", "c"), ("public", "d.e"), None,
    ]  # fmt: skip


def test_braces_of_a_pattern_are_spelt_out():
    assert alternatives("{a,b{1,2}}/*.sql") == ["a/*.sql", "b1/*.sql", "b2/*.sql"]
    assert [matches(path, "{daily,weekly}/*.dump") for path in ("daily/a.dump", "weekly/a.dump", "other/a.dump", "daily/b/a.dump")] == [
        True, True, False, False,
    ]  # fmt: skip


# -- encryption --


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"age-encryption.org/v1\n-> X25519", "age"),
        (b"-----BEGIN PGP MESSAGE-----\n", "OpenPGP"),
        (b"\x85\x01\x0c\x03\x11", "OpenPGP"),
        (b"\x8c\x0d\x04\x09\x03", "OpenPGP"),
        (b"\xc1\xc0\x4c\x03", "OpenPGP"),
        (b"Salted__12345678", "openssl enc"),
        (b"LUKS\xba\xbe\x00\x02", "LUKS"),
        (b"\x1f\x8b\x08\x00", ""),
        (b"PGDMP\x01", ""),
        (b"\x28\xb5\x2f\xfd", ""),
        (b"\xfd7zXZ\x00", ""),
        (b"SQLite format 3\x00", ""),
    ],
)
def test_encryption_is_told_by_the_first_bytes(first, name):
    """netpost-bak-03"""
    assert encryption_of(first) == name


def test_a_secret_on_a_command_line_is_refused():
    assert list(command_problems(["openssl", "enc", "-d", "-pass", "pass:horse"], "x"))
    assert list(command_problems(["gpg", "--passphrase", "horse", "-d"], "x"))
    assert not list(command_problems(["openssl", "enc", "-d", "-pass", "file:/etc/key"], "x"))
    assert not list(command_problems(["age", "--decrypt", "-i", "/etc/key"], "x"))
    assert not list(command_problems(["gpg", "--passphrase-file", "/etc/key", "-d"], "x"))


# -- objectives --


def declared(**given):
    none = {"name": "db", "maximum_rpo_hours": 0.0, "maximum_rto_minutes": 0.0, "minimum_history_days": 0.0, "maximum_age_hours": 26.0}
    unsaid = {"expected": None, "retention": None, "encrypted": False, "manifest": "", "kind": "postgresql", "sentinel": None, "source": ""}
    return {**none, **unsaid, **given}


@pytest.mark.parametrize(
    ("given_", "state"),
    [
        ({"maximum_rpo_hours": 1.0, "expected": {"every": "daily"}}, "critical"),
        ({"maximum_rpo_hours": 1.0}, "critical"),
        ({"maximum_rpo_hours": 1.0, "expected": {"every": "hourly"}}, "ok"),
        ({"maximum_rpo_hours": 24.0, "expected": {"every": "daily"}}, "ok"),
        ({"minimum_history_days": 30.0, "retention": {"maximum_age_days": 7}}, "critical"),
        ({"minimum_history_days": 7.0, "retention": {"maximum_age_days": 7}}, "ok"),
    ],
)
def test_a_promise_that_the_schedule_cannot_keep_is_told(given_, state):
    """netpost-em-6, netpost-bak-07: files kept for 7 days lose what is noticed later."""
    (found,) = objectives.conflicts(declared(**given_))
    assert found.state == state
    assert objectives.conflicts(declared()) == []


def test_recovery_time_is_compared_with_the_objective_and_kept_until_the_next_drill():
    """netpost-em-5, netpost-db-10, asr-14-8"""
    asked = declared(maximum_rto_minutes=120.0)
    assert objectives.measured(asked, Proof(), {}, "now")[0].state == "unknown"
    slow = Proof(rto_seconds=7201.0)
    assert (objectives.measured(asked, slow, {}, "now")[0].state, objectives.measured(asked, slow, {}, "now")[0].basis) == (
        "critical",
        "exact",
    )
    kept = {"measured": objectives.remembered(Proof(rto_seconds=60.0), {}, "then")}
    (found,) = objectives.measured(asked, Proof(), kept, "now")
    assert (found.state, found.basis, found.as_of, found.value) == ("ok", "stale", "then", 1.0)


@pytest.mark.parametrize(
    ("given_", "missing"),
    [
        ({}, "sentinel"),
        ({"sentinel": {"table": "orders", "column": "at"}}, ""),
        ({"kind": "sqlite", "source": "/srv/app.db"}, "sentinel"),
        ({"kind": "files"}, "source"),
        ({"kind": "files", "source": "/srv/app"}, ""),
        ({"kind": "command", "command": {"kind": "files"}}, "source"),
    ],
)
def test_what_no_drill_can_measure_has_to_be_declared_first(given_, missing):
    """netpost-em-6: a drill of a set without a sentinel leaves the recovery point unknown for ever."""
    (found,) = objectives.measured(declared(maximum_rpo_hours=1.0, **given_), Proof(), {}, "now")
    assert (found.state, found.summary) == ("unknown", "RPO was never measured")
    assert found.advice.startswith(f"Declare {missing}," if missing else "Run a restore drill (level 5)")
    assert objectives.measured(declared(maximum_rto_minutes=1.0), Proof(), {}, "now")[0].advice.startswith("Run a restore drill (level 3)")


@pytest.mark.parametrize(
    ("objective", "hours_behind", "state"),
    [(0.0, 25, "ok"), (0.0, 27, "critical"), (48.0, 40, "ok"), (48.0, 49, "critical"), (1.0, 25, "ok"), (1.0, 27, "critical")],
)
def test_content_may_be_as_far_behind_as_schedule_or_objective_say(objective, hours_behind, state):
    """A backup that is as new as its schedule makes it is sound, though the objective is missed: that one is judged by backup.rpo."""
    asked = declared(maximum_rpo_hours=objective, minimum_rows={}, sentinel={"table": "orders", "column": "at"}, count_change_percent=20.0)
    live = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
    kept, source = (Measured({}, newest, frozenset(), {}, frozenset(), 15) for newest in (live - timedelta(hours=hours_behind), live))
    ((verdict,), behind) = compared(kept, source, asked, [], live.timestamp(), None)
    assert (verdict.state, behind) == (state, hours_behind * 3600)
    (found,) = objectives.measured({**asked, "maximum_rpo_hours": 1.0}, Proof(rpo_seconds=behind), {}, "now")
    assert found.state == "critical"
    assert _rpo_verdict(hours_behind * 3600, asked, "its newest file").state == state


def test_a_clear_file_among_encrypted_ones_is_critical(tmp_path):
    for name, data in (("a", b"Salted__x"), ("b", b"PGDMP")):
        (tmp_path / name).write_bytes(data)
    files = tuple(File(str(tmp_path / name), 9, 0) for name in "ab")
    assert objectives.encryption(declared(encrypted=True), Backup("x", files, 0.0, date(2026, 11, 21)))[0].state == "critical"
    assert objectives.encryption(declared(encrypted=True), Backup("x", files[:1], 0.0, date(2026, 11, 21)))[0].state == "ok"
    assert objectives.encryption(declared(), Backup("x", files, 0.0, date(2026, 11, 21))) == []
