"""Restores of real PostgreSQL databases from backups that somebody made: proven first, beside the live one, the one before kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from clusters import MAJOR, running_cluster
from faults import FAULTS, WAITING_AT_THE_GATE, a_gate, seen, strike, up_again
from postgresql_states import HOSTILE, RUN, drop, enter_maintenance, fill, in_process, names, of, orders
from recovery_runs import FORMS, PACK, dumped, restore, restore_params
from upkeep_runs import holding

from ansible_collections.ops.maintenance.plugins.module_utils import (
    postgresql,
    postgresql_backup_file,
    postgresql_programs,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import read_state


@pytest.fixture
def backups(tmp_path):
    """A folder of backups that the user of the server can enter."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


@pytest.fixture
def clean(cluster):
    before = names(cluster)
    yield
    drop(cluster, *sorted(names(cluster) - before))


def spoil(cluster, database):
    with postgresql.connect(cluster.server, database) as session:
        session.execute("INSERT INTO public.orders VALUES (999999, 'written after the backup')")
        session.execute("DELETE FROM public.lines")
        session.execute("DELETE FROM public.orders WHERE id BETWEEN 11 AND 900000")


def prove(tmp_path, files=(), **sets):
    """Leave behind what backup verification does."""
    (tmp_path / "state").mkdir(mode=0o700, exist_ok=True)
    proofs = {name: {"path": path, "level": level, "time": time} for name, (path, level, time) in sets.items()}
    (tmp_path / "state" / "backup_proofs.json").write_text(json.dumps({"sets": proofs}))
    seen = {
        str(p): {"size": os.stat(p).st_size, "mtime_ns": os.stat(p).st_mtime_ns, "first_seen": "2026-11-19T01:00:00+00:00"} for p in files
    }
    (tmp_path / "state" / "backup_history.json").write_text(json.dumps({"files": {"daily": seen}}))


@pytest.mark.parametrize("form", FORMS)
def test_every_format_is_known_by_its_content_and_restored_beside_the_live_one(cluster, database, clean, tmp_path, backups, form):
    """flow-em-6, netpost-res-1, neff-em-04, netpost-em-7: whatever the file is called."""
    fill(cluster, database)
    path = dumped(cluster, database, backups / "latest_backup.sql", form)
    spoil(cluster, database)
    assert postgresql_backup_file.form_of(path) == form
    checked = restore(cluster, database, tmp_path, check=True, backup=path)
    assert checked.status == "due"
    assert orders(cluster.server, database) == 11
    outcome = restore(cluster, database, tmp_path, backup=path)
    assert outcome.status == "changed"
    assert orders(cluster.server, database) == 200
    kept = f"{database}_before_{RUN}"
    assert kept in names(cluster)
    with postgresql.connect(cluster.server) as session:
        session.execute(f"ALTER DATABASE {session.identifier(kept)} ALLOW_CONNECTIONS true")
    assert orders(cluster.server, kept) == 11
    again = restore(cluster, database, tmp_path, backup=path)
    assert again.status == "ok"


# Zeroes in rows that are stored as they are come back as what they are: only a compressed form shows them.
COMPRESSED = ("custom", "directory", *PACK)
DAMAGES = [(form, damage) for form in FORMS for damage in ("cut", "empty")] + [(form, "zeroed") for form in COMPRESSED]


@pytest.mark.parametrize(("form", "damage"), DAMAGES)
def test_a_damaged_backup_is_refused_before_anything_is_changed(cluster, database, clean, tmp_path, backups, form, damage):
    """flow-em-6: the backup is verified first; the twin without damage is restored above."""
    fill(cluster, database, 3000)
    path = dumped(cluster, database, backups / "x", form)
    victim = max((os.path.join(path, n) for n in os.listdir(path)), key=os.path.getsize) if form == "directory" else path
    with open(victim, "rb") as source:
        data = source.read()
    middle = len(data) // 2
    size = 2000
    cut = data[: -min(3000, middle)] if form != "tar" else data[:middle]
    with open(victim, "wb") as target:
        target.write({"cut": cut, "zeroed": data[:middle] + bytes(size) + data[middle + size :], "empty": b""}[damage])
    with pytest.raises(MaintenanceError):
        restore(cluster, database, tmp_path, backup=path)
    assert not any(name.startswith("ops_restore_") for name in names(cluster))
    assert f"{database}_before_{RUN}" not in names(cluster)


def test_zeroes_among_plain_rows_never_reach_the_live_name(cluster, database, clean, tmp_path, backups):
    fill(cluster, database, 3000)
    path = dumped(cluster, database, backups / "x.sql", "plain")
    data = (backups / "x.sql").read_bytes()
    middle = data.index(b"COPY public.orders") + 5000
    (backups / "x.sql").write_bytes(data[:middle] + bytes(500) + data[middle + 500 :])
    with pytest.raises(MaintenanceError, match="was not restored"):
        restore(cluster, database, tmp_path, backup=path)
    assert orders(cluster.server, database) == 3000
    assert f"{database}_before_{RUN}" not in names(cluster)


def test_a_plain_dump_that_would_leave_its_database_is_refused(cluster, database, clean, tmp_path, backups):
    """neff-em-04: --create and pg_dumpall write into the live database, not beside it."""
    fill(cluster, database)
    created = dumped(cluster, database, backups / "created.sql", "plain", "--create")
    with pytest.raises(MaintenanceError, match="names the database or roles"):
        restore(cluster, database, tmp_path, backup=created)
    archive = dumped(cluster, database, backups / "created.dump", "custom", "--create")
    spoil(cluster, database)
    assert restore(cluster, database, tmp_path, backup=archive).status == "changed"
    assert orders(cluster.server, database) == 200


def test_the_newest_clean_backup_is_chosen_not_the_newest(cluster, database, clean, tmp_path, backups):
    """neff-em-04, flow-em-6: the newest can hold the damage."""
    fill(cluster, database)
    good = dumped(cluster, database, backups / "20261119.dump")
    spoil(cluster, database)
    newest = dumped(cluster, database, backups / "20261120.dump")
    with pytest.raises(MaintenanceError, match="is proven to level 4"):
        restore(cluster, database, tmp_path)
    prove(tmp_path, [good], daily=(newest, 1, "2026-11-20T01:00:00+00:00"))
    outcome = restore(cluster, database, tmp_path, check=True)
    assert outcome.returned["backup"] == good
    prove(tmp_path, [good], daily=(newest, 4, "2026-11-20T01:00:00+00:00"))
    assert restore(cluster, database, tmp_path, check=True).returned["backup"] == newest
    with open(good, "ab") as target:
        target.write(b"x")
    os.utime(good, (1, 1))
    prove(tmp_path, [], daily=(newest, 1, "2026-11-20T01:00:00+00:00"))
    named = restore(cluster, database, tmp_path, check=True, backup=newest)
    assert of(named, "restore.choice")[0].state == "warning"


def test_only_a_dump_of_a_declared_set_is_restored(cluster, database, tmp_path, backups):
    """flow-em-6: a link to the latest may lead to half a dump."""
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.dump")
    outside = dumped(cluster, database, tmp_path / "outside.dump")
    os.symlink(path, backups / "latest.dump")
    os.symlink(tmp_path, backups / "way")
    for wrong, says in (
        (outside, "a dump below"),
        (str(backups / "latest.dump"), "a symbolic link"),
        (str(backups / "way" / "outside.dump"), "outside the declared sets"),
        (str(backups / "no.dump"), "does not exist"),
        (str(backups) + "/../outside.dump", "a dump below"),
    ):
        with pytest.raises(InputError, match=says):
            restore(cluster, database, tmp_path, backup=wrong)


def test_a_backup_of_the_wrong_database_never_takes_the_live_name(cluster, database, clean, tmp_path, backups):
    fill(cluster, database)
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE wrong_one")
    fill(cluster, "wrong_one")
    with postgresql.connect(cluster.server, "wrong_one") as session:
        session.execute("DROP TABLE public.orders CASCADE")
    path = dumped(cluster, "wrong_one", backups / "x.dump")
    with pytest.raises(MaintenanceError, match=r"there is no table public\.orders"):
        restore(cluster, database, tmp_path, backup=path, other_database="wrong_one")
    assert orders(cluster.server, database) == 200


@pytest.mark.parametrize("form", ["custom", "directory", "tar"])
def test_an_archive_of_another_database_is_refused_unless_it_is_confirmed_by_its_name(cluster, database, clean, tmp_path, backups, form):
    fill(cluster, database)
    with postgresql.connect(cluster.server) as session:
        session.execute('CREATE DATABASE "Sibling db"')
    fill(cluster, "Sibling db", 77)
    path = dumped(cluster, "Sibling db", backups / "x.dump", form)
    for check, other in ((True, ""), (False, ""), (False, database)):
        with pytest.raises(InputError, match=r"is of the database 'Sibling db', expected one of 'db_.*nothing was changed"):
            restore(cluster, database, tmp_path, check, backup=path, other_database=other)
    assert orders(cluster.server, database) == 200
    outcome = restore(cluster, database, tmp_path, backup=path, other_database="Sibling db")
    assert [finding.state for finding in of(outcome, "restore.other_database")] == ["warning"]
    assert orders(cluster.server, database) == 77


def test_what_is_compressed_but_no_text_of_pg_dump_is_refused(cluster, database, tmp_path, backups):
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.dump")
    (backups / "x.dump").write_bytes(PACK["xz"]((backups / "x.dump").read_bytes()))
    with pytest.raises(MaintenanceError, match="holds no text of pg_dump; unpack it"):
        restore(cluster, database, tmp_path, backup=path)


def test_settings_owner_and_a_hostile_name_are_carried_over(cluster, clean, tmp_path, backups):
    with postgresql.connect(cluster.server) as session:
        name = session.identifier(HOSTILE)
        session.execute(f"CREATE DATABASE {name}")
        session.execute(f"ALTER DATABASE {name} SET work_mem TO '9MB'")
        session.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    fill(cluster, HOSTILE)
    path = dumped(cluster, "postgres", backups / "x.dump") and str(backups / "y.dump")
    program = postgresql_programs.find_program("pg_dump", MAJOR)
    env = {"PGHOST": cluster.socket, "PGUSER": "postgres", "PGDATABASE": HOSTILE}
    subprocess.run([program, "-Fc", "-f", path], check=True, env=env)
    spoil(cluster, HOSTILE)
    restore(cluster, HOSTILE, tmp_path, backup=path)
    assert orders(cluster.server, HOSTILE) == 200
    with postgresql.connect(cluster.server, HOSTILE) as session:
        assert session.value("SHOW work_mem") == "9MB"
        assert not session.value("SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')")


def test_a_database_that_is_gone_is_made_anew(cluster, clean, tmp_path, backups):
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE gone_one")
    fill(cluster, "gone_one")
    path = dumped(cluster, "gone_one", backups / "x.sql", "gzip")
    drop(cluster, "gone_one")
    restore(cluster, "gone_one", tmp_path, backup=path)
    assert orders(cluster.server, "gone_one") == 200


def test_who_is_connected_stays_outside_maintenance_mode_and_goes_inside(cluster, database, clean, tmp_path, backups):
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.dump")
    spoil(cluster, database)
    with postgresql.connect(cluster.server, database) as user:
        with pytest.raises(MaintenanceError, match="is connected, expected nobody"):
            restore(cluster, database, tmp_path, backup=path)
        assert user.value("SELECT 1") == 1
        enter_maintenance(tmp_path / "state")
        assert restore(cluster, database, tmp_path, backup=path).status == "changed"
        with pytest.raises(postgresql.StatementError):
            user.value("SELECT 1")
    assert orders(cluster.server, database) == 200


def test_too_little_room_is_found_first(cluster, database, tmp_path, backups):
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.dump")
    with pytest.raises(MaintenanceError, match="Make room"):
        restore(cluster, database, tmp_path, backup=path, reserve_bytes=1 << 60)


@pytest.mark.parametrize("step", ["restoring", "verified", "switching"])
def test_killed_at_a_step_the_next_restore_ends_it(cluster, database, clean, tmp_path, backups, step):
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.sql", "plain")
    spoil(cluster, database)
    before = (
        "real = postgresql_switch.Switcher.note\n"
        "def note(self, key, **e):\n"
        " said = real(self, key, **e)\n"
        f" return os.kill(os.getpid(), 9) if e.get('step') == {step!r} else said\n"
        "postgresql_switch.Switcher.note = note\n"
    )
    child = in_process("postgresql_restore", restore_params(cluster, database, tmp_path, backup=path), before)
    assert child.wait(60) == -signal.SIGKILL
    assert orders(cluster.server, database) == 11
    restore(cluster, database, tmp_path, backup=path)
    assert orders(cluster.server, database) == 200
    assert not any(name.startswith("ops_restore_") for name in names(cluster))
    assert sum(name.startswith(f"{database}_before_") for name in names(cluster)) == 1


@pytest.fixture(scope="module")
def mortal():
    with running_cluster() as running:
        yield running


@pytest.mark.parametrize(("form", "how"), [*(("custom", how) for how in FAULTS), *(("plain", how) for how in ("client", "stop", "cut"))])
def test_cut_off_in_the_middle_of_filling_the_next_restore_ends_it(mortal, tmp_path, backups, form, how):
    """netpost-res-1: killed, cut off or stopped at once while it is restored beside the live database, which never notices."""
    drop(mortal, *[name for name in names(mortal) if name.startswith("shop")])
    with postgresql.connect(mortal.server) as session:
        session.execute("CREATE DATABASE shop")
    fill(mortal, "shop")
    with a_gate() as gate:
        with postgresql.connect(mortal.server, "shop") as session:
            gate.build(session)
            session.execute("CREATE TABLE public.waiting (a int CHECK (public.gate(a)))")
            session.execute("INSERT INTO public.waiting VALUES (1)")
        path = dumped(mortal, "shop", backups / "x", form)
        spoil(mortal, "shop")
        gate.shut()
        child = in_process("postgresql_restore", restore_params(mortal, "shop", tmp_path, backup=path))
        whom = seen(mortal, WAITING_AT_THE_GATE, child)
        assert whom, child.communicate()
        strike(mortal, how, child, whom)
        said = child.communicate(timeout=60)[0]
        if how != "client":
            assert (child.returncode, said.count("\n")) == (3, 1), said
        up_again(mortal, how).close()
        gate.open()
        assert orders(mortal.server, "shop") == 11
        assert restore(mortal, "shop", tmp_path, backup=path).status == "changed"
    assert orders(mortal.server, "shop") == 200
    assert not any(name.startswith("ops_restore_") for name in names(mortal))
    assert read_state(str(tmp_path / "state"), "postgresql_switch.json") == {}


def test_a_lock_held_for_ever_on_the_database_ends_the_restore_and_its_holder_is_named(cluster, database, clean, tmp_path, backups):
    """netpost-res-1: who changes the live database and never commits keeps its name; nobody is ended for that, nothing is left over."""
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.dump")
    spoil(cluster, database)
    with holding(cluster, "postgres", f"ALTER DATABASE {database} CONNECTION LIMIT 7") as holder:
        pid = holder.value("SELECT pg_backend_pid()")
        says = rf"not switched: no lock in time, blocked by pid {pid} of user postgres, application payroll, idle in transaction, since .*end it"
        with pytest.raises(MaintenanceError, match=says) as caught:
            restore(cluster, database, tmp_path, backup=path)
        assert "\n" not in str(caught.value)
        assert holder.value("SELECT 1") == 1
        assert orders(cluster.server, database) == 11
        assert not any(name.startswith("ops_restore_") for name in names(cluster))
    assert restore(cluster, database, tmp_path, backup=path).status == "changed"
    assert orders(cluster.server, database) == 200


def test_into_a_new_instance_which_is_proven_before_anything_is_told_of_it_and_the_old_one_stays(
    cluster, database, clean, tmp_path, backups
):
    """netpost-res-1: a new instance, with stop-on-error; connection strings are switched after this, the old instance is kept as it is."""
    fill(cluster, database)
    path = dumped(cluster, database, backups / "x.dump")
    spoil(cluster, database)
    with running_cluster() as new:
        with postgresql.connect(new.server) as session:
            for row in cluster_roles(cluster):
                session.execute(f"CREATE ROLE {session.identifier(row)}")
        restore(new, database, tmp_path, backup=path)
        assert orders(new.server, database) == 200
        assert not any(name.startswith("ops_restore_") for name in names(new))
    assert orders(cluster.server, database) == 11, "nothing was done to the old one"
    assert kept_names(cluster, database) == []


def cluster_roles(cluster):
    with postgresql.connect(cluster.server) as session:
        return [row["rolname"] for row in session.rows("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'")]


def kept_names(cluster, database):
    return sorted(name for name in names(cluster) if name.startswith(f"{database}_before_"))
