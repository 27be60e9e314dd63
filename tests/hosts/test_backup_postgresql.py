"""Dumps of a real PostgreSQL on their way up the ladder."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from types import SimpleNamespace

import pytest
from clusters import MAJOR, running_cluster
from dumps import clear, dump, fill, finding, level, the_set, verify

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

# Restored into a throw-away cluster of their own; the others into a scratch database, which is quicker.
IN_A_CLUSTER = ("custom", "plain", "plain with CREATE DATABASE", "directory")
FORMATS = {
    "custom": ("custom", (), ""),
    "custom without compression": ("custom", ("--compress=0",), ""),
    "custom packed by gzip": ("custom", ("--compress=0",), "gz"),
    "tar": ("tar", (), ""),
    "plain": ("plain", (), ""),
    "plain with INSERT": ("plain", ("--inserts",), ""),
    "plain with CREATE DATABASE": ("plain", ("--create",), ""),
    "plain gz": ("plain", (), "gz"),
    "plain zst": ("plain", (), "zst"),
    "plain xz": ("plain", (), "xz"),
    "directory": ("directory", (), ""),
    "directory without compression": ("directory", ("--compress=0",), ""),
}
if MAJOR >= 16:
    FORMATS |= {"custom zstd": ("custom", ("--compress=zstd",), ""), "custom lz4": ("custom", ("--compress=lz4",), ""),
                "directory zstd": ("directory", ("--compress=zstd",), "")}  # fmt: skip


@pytest.fixture(scope="module")
def shop(cluster):
    """A database with everything that makes dumps hard."""
    name = 'shop "1"'
    with postgresql.connect(cluster.server) as session:
        session.execute(f"CREATE DATABASE {session.identifier(name)}")
    fill(cluster, name)
    yield name
    with postgresql.connect(cluster.server) as session:
        session.execute(f"DROP DATABASE {session.identifier(name)} WITH (FORCE)")


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as made:
        os.chmod(made, 0o755)
        clear(f"{made}/backups")
        yield made


def cut(path, part):
    """Keep only the beginning of a file."""
    os.truncate(path, int(os.path.getsize(path) * part))


def has_database(cluster, name):
    with postgresql.connect(cluster.server) as session:
        return bool(session.value("SELECT 1 FROM pg_database WHERE datname = %s", [name]))


def left_behind(cluster):
    """Name the scratch databases that are still there."""
    with postgresql.connect(cluster.server) as session:
        return [row["datname"] for row in session.rows("SELECT datname FROM pg_database WHERE datname ~ '^ops_restore'")]


def states(outcome):
    return {found.id: (found.state, found.summary, found.evidence) for found in outcome.findings if found.state != "ok"}


def servers(cluster):
    return [{**cluster.server, "name": "main"}]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_proven_to_level_5(cluster, shop, folder, name):
    """asr-14-1, asr-14-2, neff-quarterly-10: the format is told by content, whatever the name says."""
    form, options, pack = FORMATS[name]
    dump(cluster, shop, f"{folder}/backups/wrong_name.txt{'.' + pack if pack else ''}", form, *options, pack=pack)
    declared = the_set(
        f"{folder}/backups", layout="folders" if form == "directory" else "files", source_server="main", database=shop,
        sentinel={"table": "orders", "column": "changed"}, minimum_rows={"customers": 40},
        restore_into="" if name in IN_A_CLUSTER else "main",
    )  # fmt: skip
    outcome = verify(folder, declared, servers=servers(cluster))
    assert states(outcome) == {}
    assert level(outcome) == 5
    assert outcome.returned["proofs"]["db"]["rpo_seconds"] == 0
    assert outcome.returned["proofs"]["db"]["rto_seconds"] > 0
    assert sorted(os.listdir(folder)) == ["backups", "state"]
    assert left_behind(cluster) == []


# -- rung 1 and 2: what the tools alone let pass --


def test_a_plain_dump_named_as_an_archive_is_not_given_to_pg_restore(cluster, shop, folder):
    """neff-daily-14, netpost-bak-10: pg_restore --list rejects a plain dump; its end mark is looked for instead."""
    dump(cluster, shop, f"{folder}/backups/20261121.dump", "plain")
    assert level(verify(folder, the_set(f"{folder}/backups", level=2))) == 2
    cut(f"{folder}/backups/20261121.dump", 0.6)
    outcome = verify(folder, the_set(f"{folder}/backups", level=2))
    assert level(outcome) == 0
    assert "half written" in finding(outcome, "backup.structure").summary


def test_a_cut_off_archive_that_pg_restore_lists_is_found_at_rung_2(cluster, shop, folder):
    """neff-daily-14: --list believes a truncated archive."""
    path = dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    cut(path, 0.9)
    assert subprocess.run([cluster.program("pg_restore"), "--list", path], check=False, capture_output=True).returncode == 0
    outcome = verify(folder, the_set(f"{folder}/backups", level=2))
    assert finding(outcome, "backup.structure").state == "ok"
    assert finding(outcome, "backup.checksum").state == "critical"
    assert level(outcome) == 1


def test_a_gzip_stream_that_ends_early_is_found_though_its_first_lines_read_well(cluster, shop, folder):
    """flow-weekly-6: gunzip | head reads the beginning of one file only; here every file is read, the older ones too."""
    for day in ("20", "21"):
        dump(cluster, shop, f"{folder}/backups/logistics_backup_202611{day}.sql.gz", "plain", pack="gz")
        os.utime(f"{folder}/backups/logistics_backup_202611{day}.sql.gz", (time.time() - 86400 * (21 - int(day)),) * 2)
    cut(f"{folder}/backups/logistics_backup_20261120.sql.gz", 0.8)
    declared = the_set(f"{folder}/backups", pattern="logistics_backup_*.sql.gz", level=2, every_level=2)
    outcome = verify(folder, declared)
    assert level(outcome) == 2
    older = finding(outcome, "backup.older")
    assert older.state == "critical"
    assert "logistics_backup_20261120" in older.evidence[0]
    dump(cluster, shop, f"{folder}/backups/logistics_backup_20261120.sql.gz", "plain", pack="gz")
    assert finding(verify(f"{folder}", declared, state=f"{folder}/other"), "backup.older").state == "ok"


def test_lines_after_the_end_mark(cluster, shop, folder):
    """What newer pg_dump writes there is nothing; anything else is damage."""
    path = dump(cluster, shop, f"{folder}/backups/a.sql", "plain")
    with open(path, encoding="utf-8") as source:
        text = source.read()
    assert "\\unrestrict" in text.split("dump complete")[1]
    with open(path, "w", encoding="utf-8") as target:
        target.write(text + "DROP TABLE public.orders;\n")
    assert "end mark" in finding(verify(folder, the_set(f"{folder}/backups", level=1)), "backup.structure").summary


def test_an_archive_of_another_database_is_told(cluster, shop, database, folder):
    fill(cluster, database, "CREATE TABLE public.orders (id int)")
    dump(cluster, database, f"{folder}/backups/a.dump", "custom")
    outcome = verify(folder, the_set(f"{folder}/backups", level=1, database=shop))
    assert "wrong database" in finding(outcome, "backup.structure").summary
    outcome = verify(folder, the_set(f"{folder}/backups", level=1, required_tables=["customers"]))
    assert "lacks the tables customers" in finding(outcome, "backup.structure").summary


# -- where it is restored --


def test_a_fixed_name_on_the_source_is_refused_by_its_system_identifier(cluster, shop, folder):
    """asr-14-2, neff-quarterly-09, flow-bak-1: the target can never be the live database."""
    dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    # The same server under two names: only its identifier tells.
    both = [
        {**cluster.server, "name": "live"},
        {**cluster.server, "name": "test", "host": os.path.join(cluster.folder, "data", "..", "socket")},
    ]
    declared = the_set(
        f"{folder}/backups", level=3, source_server="live", database=shop, restore_into="test", restore_database="neff_paving_test"
    )
    restore = finding(verify(folder, declared, servers=both), "backup.restore")
    assert restore.state == "critical"
    assert "is the source itself" in restore.summary
    assert not has_database(cluster, "neff_paving_test")
    declared["restore_database"] = ""
    assert level(verify(folder, declared, servers=both)) == 3


def test_a_fixed_name_elsewhere_is_used_unless_it_is_there_already(cluster, shop, folder):
    dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    with running_cluster() as other:
        both = [{**cluster.server, "name": "live"}, {**other.server, "name": "test"}]
        declared = the_set(
            f"{folder}/backups", source_server="live", database=shop, restore_into="test", restore_database="neff_paving_test"
        )
        assert level(verify(folder, declared, servers=both)) == 5
        assert not has_database(other, "neff_paving_test")
        with postgresql.connect(other.server) as session:
            session.execute("CREATE DATABASE neff_paving_test")
        restore = finding(verify(folder, declared, servers=both), "backup.restore")
        assert (restore.state, "is there already" in restore.summary) == ("critical", True)
        assert has_database(other, "neff_paving_test")


def test_the_scratch_database_is_gone_after_a_failed_restore(cluster, shop, folder):
    """neff-quarterly-11: dropped also when a step before fails; what a killed drill left goes with the next one."""
    path = dump(cluster, shop, f"{folder}/backups/a.sql", "plain")
    with open(path, encoding="utf-8") as source:
        text = source.read()
    with open(path, "w", encoding="utf-8") as target:
        target.write(text.replace("CREATE INDEX orders_changed", "CREATE INDEXX orders_changed"))
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE ops_restore_00000001")
        session.execute(f"COMMENT ON DATABASE ops_restore_00000001 IS 'ops.maintenance restore drill {socket.gethostname()} 999999999'")
        session.execute("CREATE DATABASE ops_restore_mine")
    outcome = verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster))
    assert finding(outcome, "backup.restore").state == "critical"
    assert "syntax error" in finding(outcome, "backup.restore").summary
    assert left_behind(cluster) == ["ops_restore_mine"]
    with postgresql.connect(cluster.server) as session:
        session.execute("DROP DATABASE ops_restore_mine")


def test_a_dump_that_names_its_own_database_is_not_let_near_a_server_in_use(cluster, shop, folder):
    dump(cluster, shop, f"{folder}/backups/a.sql", "plain", "--create")
    restore = finding(verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster)), "backup.restore")
    assert (restore.state, "--create" in restore.summary) == ("unknown", True)


@pytest.mark.parametrize(("free", "state"), [(1 << 20, "unknown"), (1 << 40, "ok")])
def test_a_declared_server_without_room_is_left_alone(cluster, shop, folder, monkeypatch, free, state):
    """The look at the room is not only one at the scratch folder: to fill the disk of a server in use stops it."""
    dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    real = os.statvfs

    def statvfs(path):
        return SimpleNamespace(f_bavail=free, f_frsize=1) if str(path) == str(cluster.data) else real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    restore = finding(verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster)), "backup.restore")
    assert (restore.state, "to spare, restoring needs about" in restore.summary) == (state, state == "unknown")
    assert left_behind(cluster) == []


def test_what_the_host_lacks_is_unknown_and_not_a_fault_of_the_dump(cluster, shop, folder):
    path = dump(cluster, shop, f"{folder}/backups/a.sql", "plain")
    with open(path, encoding="utf-8") as source:
        text = source.read()
    with open(path, "w", encoding="utf-8") as target:
        target.write(
            text.replace("CREATE SCHEMA archive;", "CREATE SCHEMA archive;\nCREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;")
        )
    restore = finding(verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster)), "backup.restore")
    assert (restore.state, "postgis" in restore.summary) == ("unknown", True)


def test_commands_of_psql_in_a_dump_are_never_run(cluster, shop, folder):
    path = dump(cluster, shop, f"{folder}/backups/a.sql", "plain")
    with open(path, encoding="utf-8") as source:
        text = source.read()
    with open(path, "w", encoding="utf-8") as target:
        target.write(text.replace("CREATE SCHEMA archive;", f"\\! touch {folder}/ran\nCREATE SCHEMA archive;"))
    outcome = verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster))
    assert finding(outcome, "backup.restore").state == "unknown"
    assert not os.path.exists(f"{folder}/ran")


def test_values_of_the_application_never_reach_a_finding(cluster, shop, folder):
    path = dump(cluster, shop, f"{folder}/backups/a.sql", "plain")
    with open(path, encoding="utf-8") as source:
        text = source.read()
    with open(path, "w", encoding="utf-8") as target:
        target.write(re.sub(r"\n7\t", "\nsecret-of-a-customer\t", text))
    outcome = verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster))
    assert finding(outcome, "backup.restore").state == "critical"
    assert "secret-of-a-customer" not in json.dumps(outcome.record())


# -- rung 4 and 5 --


def test_the_content_is_compared_with_the_source(cluster, database, folder):
    """asr-14-2, neff-quarterly-10: a bare count proves nothing; source, floors and the newest row do."""
    fill(cluster, database)
    dump(cluster, database, f"{folder}/backups/a.dump", "custom")
    declared = the_set(
        f"{folder}/backups", source_server="main", database=database, restore_into="main", maximum_rto_minutes=120.0, maximum_rpo_hours=1.0,
        count_tables=["customers", "orders"], sentinel={"table": "orders", "column": "changed"}, expected={"every": "hourly", "days": 1},
    )  # fmt: skip
    assert finding(verify(folder, declared, servers=servers(cluster)), "backup.rpo").state == "ok"
    with postgresql.connect(cluster.server, database) as session:
        session.execute("INSERT INTO public.orders SELECT n, 1, '', now() + interval '3 hours', 1 FROM generate_series(1000, 2000) n")
        session.execute("CREATE TABLE public.added (id int)")
    outcome = verify(folder, declared, servers=servers(cluster))
    content = finding(outcome, "backup.content")
    assert content.state == "warning"
    assert any("orders: 300 rows in the backup, 1301 in the source" in line for line in content.evidence)
    assert any("public.added" in line for line in content.evidence)
    rpo = finding(outcome, "backup.rpo")
    assert (rpo.state, round(rpo.value)) == ("critical", 3)
    assert finding(outcome, "backup.rto").state == "ok"
    floors = {**declared, "minimum_rows": {"orders": 301}}
    assert finding(verify(folder, floors, servers=servers(cluster)), "backup.content").state == "critical"


def test_a_constraint_that_was_never_validated_is_told(cluster, database, folder):
    fill(cluster, database)
    with postgresql.connect(cluster.server, database) as session:
        session.execute("ALTER TABLE public.customers ADD CONSTRAINT named CHECK (name <> '') NOT VALID")
    dump(cluster, database, f"{folder}/backups/a.dump", "custom")
    integrity = finding(
        verify(folder, the_set(f"{folder}/backups", level=4, restore_into="main"), servers=servers(cluster)), "backup.integrity"
    )
    assert (integrity.state, "public.customers: named" in integrity.summary) == ("warning", True)


# -- what is promised --


def test_a_daily_dump_cannot_keep_an_hour_and_that_is_said(cluster, shop, folder):
    """netpost-em-6: the conflict is reported, though the backup is young; netpost-em-5, netpost-db-10, asr-14-8: RTO is measured."""
    dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    declared = the_set(
        f"{folder}/backups", level=3, restore_into="main", expected={"every": "daily", "days": 1}, maximum_rpo_hours=1.0,
        maximum_rto_minutes=120.0,
    )  # fmt: skip
    outcome = verify(folder, declared, servers=servers(cluster))
    conflict = finding(outcome, "backup.objectives")
    assert (conflict.state, conflict.value) == ("critical", 24)
    assert finding(outcome, "backup.age").state == "ok"
    assert finding(outcome, "backup.rto").state == "ok"
    assert finding(outcome, "backup.rto").basis == "exact"
    assert finding(outcome, "backup.rpo").state == "unknown"
    # A run that only reads still knows the last drill; one that was too slow is critical.
    later = verify(folder, {**declared, "level": 2, "maximum_rto_minutes": 0.0001}, servers=servers(cluster))
    assert (finding(later, "backup.rto").state, finding(later, "backup.rto").basis) == ("critical", "stale")


def test_a_drill_that_would_not_end_in_time_is_deferred(cluster, shop, folder):
    dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    declared = the_set(f"{folder}/backups", restore_into="main")
    assert level(verify(folder, declared, servers=servers(cluster))) == 5
    outcome = verify(folder, declared, servers=servers(cluster), deadline=time.time() + 0.05)
    assert [action.status for action in outcome.actions] == ["deferred"]
    assert finding(outcome, "backup.level").state == "unknown"
    # Reading alone is not held up by how long the drill took.
    assert level(verify(folder, declared, servers=servers(cluster), deadline=time.time() + 60, maximum_level=2)) == 2


def test_encryption_is_told_by_content_and_the_restore_goes_through_the_key(cluster, shop, folder):
    """netpost-bak-03: encrypted at rest is proven, and read back with the declared key."""
    path = dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    declared = the_set(f"{folder}/backups", restore_into="main", encrypted=True)
    outcome = verify(folder, declared, servers=servers(cluster))
    assert finding(outcome, "backup.encryption").state == "critical"
    key = f"{folder}/key"
    with open(key, "w", encoding="utf-8") as target:
        target.write("correct horse\n")
    argv = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{key}"]
    subprocess.run([*argv, "-in", path, "-out", f"{path}.enc"], check=True, timeout=60)
    os.unlink(path)
    outcome = verify(folder, declared, servers=servers(cluster))
    assert finding(outcome, "backup.encryption").state == "ok"
    assert (finding(outcome, "backup.structure").state, level(outcome)) == ("unknown", 0)
    declared["decrypt_command"] = [*argv, "-d"]
    assert level(verify(folder, declared, servers=servers(cluster))) == 5
    with open(key, "w", encoding="utf-8") as target:
        target.write("wrong\n")
    assert finding(verify(folder, declared, servers=servers(cluster)), "backup.structure").state == "critical"
    with pytest.raises(InputError, match="secret among its arguments"):
        verify(folder, {**declared, "decrypt_command": [*argv[:-1], "pass:horse"]}, servers=servers(cluster))


# -- rung 0 --


def test_the_newest_of_several_of_one_day_counts_and_a_half_written_one_is_noticed(cluster, shop, folder):
    """neff-daily-12, flow-daily-3, netpost-db-03, netpost-tool-3: the glob may match several files or none."""
    backups = f"{folder}/backups"
    today = time.strftime("%Y%m%d", time.gmtime())
    path = dump(cluster, shop, f"{backups}/{today}.sql", "plain")
    os.utime(path, (time.time() - 300,) * 2)
    again = dump(cluster, shop, f"{backups}/{today}_2.sql", "plain")
    os.utime(again, (time.time() - 100,) * 2)
    dump(cluster, shop, f"{backups}/{today}_3.sql.part", "plain")
    declared = the_set(backups, pattern="[0-9]*.sql", date_format="%Y%m%d", level=2, expected={"every": "daily", "days": 1})
    outcome = verify(folder, declared)
    assert outcome.returned["proofs"]["db"]["path"] == again
    assert "1 half written" in finding(outcome, "backup.present").summary
    assert finding(outcome, "backup.completeness").state == "ok"
    cut(again, 0.5)
    assert level(verify(folder, declared)) == 0
    assert finding(verify(folder, {**declared, "pattern": "nothing*"}), "backup.present").state == "critical"


def test_one_set_may_span_several_folders(cluster, shop, folder):
    """asr-14-1, neff-monthly-15: /backups/{daily,weekly,maintenance}."""
    for name, age in (("daily", 100), ("weekly", 50), ("maintenance", 200), ("other", 10)):
        path = dump(cluster, shop, f"{folder}/backups/{name}/a.dump", "custom")
        os.utime(path, (time.time() - age,) * 2)
    outcome = verify(folder, the_set(f"{folder}/backups", pattern="{daily,weekly,maintenance}/*", level=2, every_level=2))
    assert outcome.returned["proofs"]["db"]["path"] == f"{folder}/backups/weekly/a.dump"
    assert "2 of 2 older backups" in finding(outcome, "backup.older").summary


def test_check_mode_gives_the_same_verdicts_and_leaves_nothing(cluster, shop, folder):
    dump(cluster, shop, f"{folder}/backups/a.dump", "custom")
    outcome = verify(folder, the_set(f"{folder}/backups", restore_into="main"), servers=servers(cluster), check_mode=True)
    assert level(outcome) == 5
    assert os.listdir(folder) == ["backups"]
    assert left_behind(cluster) == []


def test_bad_declarations_are_refused_all_at_once(cluster, folder):
    declared = the_set(
        f"{folder}/backups", source_server="nowhere", restore_database="x", restore_jobs=0, minimum_rows={"orders": "many"},
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        verify(folder, declared, servers=servers(cluster))
    for words in ("source_server of set db is 'nowhere'", "without restore_into", "restore_jobs", "minimum_rows of 'orders'"):
        assert words in str(caught.value)
