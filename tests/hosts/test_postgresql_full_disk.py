"""A disk that is really full while PostgreSQL is worked on: nothing is lost or doubled, and the next run completes the work.

Where the tables' disk is full PostgreSQL refuses the statement; where the log's disk is full the whole server stops at once.
"""

from __future__ import annotations

from collections import Counter

import pytest
import small_disk
from postgresql_states import fill, names, of, orders
from recovery_runs import dumped, restore
from retention_runs import Retention, ids
from upkeep_runs import done, finding, invalid_indexes, options_for, settle, table

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_backup_file, postgresql_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.paths import read_state

FULL = [{"database": "shop", "table": "public.t", "vacuum_full": True}]


@pytest.fixture(scope="module", params=["data", "log"])
def cramped(request):
    with small_disk.cramped(request.param) as cluster:
        yield cluster


@pytest.fixture
def shop(cramped):
    """A new database on a disk that has room again, whatever the test before did to it."""
    cramped.make_shop()
    yield cramped
    small_disk.free()


def said_why(shop, words):
    """Whether the message says what the matter is: the disk, or that the server is gone, whose log says the rest."""
    return "No space left on device" in words if shop.part == "data" else "was lost" in words


# -- retention --

ROWS = 800
WIDE = "(SELECT string_agg(md5(random()::text || i || g), '') FROM generate_series(1, 100) g)"


def where_rows_are(shop):
    """Return how often each row is in the table or in its archive, and how many are in the archive."""
    with shop.session() as session:
        active, archived = ids(session, "public.log"), ids(session, "public.log_archive")
    assert set(range(1, 30)) <= set(active), "a young row is gone"
    return Counter(active + archived), len(archived)


def test_rows_that_are_archived_are_neither_lost_nor_doubled(shop):
    """asr-05-2: some batches are through when the disk is full; the others stay where they are."""
    with shop.session() as session:
        session.execute("CREATE TABLE public.log (id int, created_at timestamptz, said text)")
        session.execute("ALTER TABLE public.log ALTER said SET STORAGE EXTERNAL")
        session.execute(f"INSERT INTO public.log SELECT i, now() - make_interval(days => i), {WIDE} FROM generate_series(1, {ROWS}) i")
        session.execute("CREATE TABLE public.log_archive (LIKE public.log)")
    shop.settle(left=600_000)
    retention = Retention(shop.server, "shop")
    rule = retention.rule("log", archive_table="log_archive", batch_rows=20)
    with small_disk.full_once("BEGIN", leave=600_000):
        outcome = retention.run(rule)
    assert outcome.status == "failed"
    assert said_why(shop, outcome.summary), outcome.summary
    critical = [found for found in outcome.findings if found.state == "critical"]
    assert [found.id for found in critical] == ["retention.rows"]
    shop.heal()
    counts, archived = where_rows_are(shop)
    assert counts == Counter(range(1, ROWS + 1))
    assert 0 < archived < ROWS - 29
    assert retention.run(rule).status == "changed"
    assert where_rows_are(shop) == (Counter(range(1, ROWS + 1)), ROWS - 29)
    assert retention.run(rule).status == "ok"


# -- upkeep --


@pytest.fixture
def upkeep(shop, tmp_path):
    def run(check_mode=False, **changes):
        server = {**shop.server, "name": "main", "databases": ["shop"]}
        changes.setdefault("state_dir", str(tmp_path / "state"))
        return postgresql_upkeep.run(options_for(server, **changes), check_mode, Host())

    return run


def bloated(shop):
    """A table and its index, of which three quarters are free."""
    with shop.session() as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
        table(session, rows=40_000)
        session.execute("DELETE FROM public.t WHERE id % 4 <> 0")
        settle(session)


def content(shop):
    with shop.session() as session:
        return session.rows("SELECT count(*), sum(id), sum(n) FROM public.t")


@pytest.mark.parametrize(
    ("statement", "more", "operation"),
    [
        ("REINDEX INDEX CONCURRENTLY", {}, ("reindex", "public.t_pkey")),
        ("VACUUM (FULL)", {"tables": FULL, "maintenance_mode": True, "reindex": "never"}, ("vacuum_full", "public.t")),
    ],
)
def test_what_is_built_anew_fails_clearly_and_the_next_run_completes_it(shop, upkeep, statement, more, operation):
    """flow-monthly-6, neff-weekly-05: there was room when it was looked, and none when it was needed."""
    bloated(shop)
    before = content(shop)
    with small_disk.full_once(statement, before=lambda: shop.settle(left=30_000)) as struck:
        outcome = upkeep(**more)
    assert struck
    assert outcome.status == "failed"
    assert any(said_why(shop, words) for words in outcome.returned["failures"]), outcome.returned["failures"]
    assert operation in done(outcome, "failed"), outcome.actions
    shop.heal()
    assert content(shop) == before
    again = upkeep(**more)
    assert again.status == "changed", again.summary
    assert operation in done(again)
    with shop.session() as session:
        assert invalid_indexes(session) == []
        assert not session.rows("SELECT 1 FROM pg_class WHERE relname ~ '_ccnew|_ccold'")
    assert content(shop) == before
    assert done(upkeep(**more)) == []


def test_a_disk_that_is_full_beforehand_is_seen_the_log_s_own_too(shop, upkeep):
    """flow-monthly-6: what writes a table anew writes as much log, which may lie on another disk."""
    bloated(shop)
    shop.settle(left=1_000_000)
    small_disk.fill(leave=1_500_000)
    outcome = upkeep(tables=FULL, maintenance_mode=True)
    assert {("vacuum_full", "public.t"), ("reindex", "public.t_pkey")} <= set(done(outcome, "skipped")), outcome.summary
    rooms = finding(outcome, "upkeep.disk_room", "warning")
    assert len(rooms) == 2
    assert all("free in" in found.summary for found in rooms)


# -- restores --


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_restore_without_room_leaves_the_live_database_alone(shop, tmp_path, monkeypatch, form):
    """netpost-res-1: it is restored beside the live one, so that one never notices."""
    fill(shop.cluster, "shop", 4000)
    (tmp_path / "backups").mkdir()
    path = dumped(shop.cluster, "shop", tmp_path / "backups" / "x", form)
    with shop.session() as session:
        session.execute("DELETE FROM public.lines")
        session.execute("DELETE FROM public.orders WHERE id > 11")
    shop.settle(left=600_000)
    real = postgresql_backup_file.restore

    def fill_disk_and_restore(*given):
        small_disk.fill(leave=300_000)
        real(*given)

    monkeypatch.setattr(postgresql_backup_file, "restore", fill_disk_and_restore)
    with pytest.raises(MaintenanceError, match=r"was not (restored|taken)") as caught:
        restore(shop.cluster, "shop", tmp_path, backup=path)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    shop.heal()
    assert orders(shop.server, "shop") == 11
    outcome = restore(shop.cluster, "shop", tmp_path, backup=path)
    assert outcome.status == "changed"
    assert of(outcome, "restore.database")[0].state == "ok"
    assert orders(shop.server, "shop") == 4000
    assert not any(name.startswith("ops_restore_") for name in names(shop.cluster))
    assert read_state(str(tmp_path / "state"), "postgresql_switch.json") == {}
