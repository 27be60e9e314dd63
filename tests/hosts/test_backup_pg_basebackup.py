"""Real backups of pg_basebackup: plain and tar ones are proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile

import pytest
from backups import Verifier, copied, files_below, flip, ran, snapshot_of
from campaign import campaign, compare, first_look, part
from clusters import MAJOR
from physical import as_user, path_of, rows_of, server_of, source_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import backup_physical, postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import scratch_cluster


@pytest.fixture(scope="module")
def made():
    """One source with a plain and a tar backup of it, each in a root of its own."""
    with source_cluster() as (cluster, place):
        base = ["pg_basebackup", "-h", cluster.socket, "-U", "postgres", "-c", "fast", "--no-sync"]
        as_user(cluster, *base, "-D", f"{place}/plain/20261125", "-T", f"{place}/space={place}/mapped")
        as_user(cluster, *base, "-D", f"{place}/tar/20261125", "-Ft", "-z")
        as_user(cluster, *base, "-D", f"{place}/unpacked/20261125", "-Ft")
        yield {"cluster": cluster, "place": place, **{form: f"{place}/{form}" for form in ("plain", "tar", "unpacked")}}


@pytest.fixture
def verify():
    with tempfile.TemporaryDirectory(prefix="v", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Verifier(folder)


def declared(root, **more):
    return {"kind": "pg_basebackup", "root": str(root), "layout": "folders", "level": 5, "database": "postgres", "count_tables": ["orders"],
            "sentinel": {"table": "orders", "column": "at"}, "required_tables": [], "maximum_age_hours": 1000.0, **more}  # fmt: skip


def damaged(made, form, tmp_path):
    root = copied(made[form], tmp_path / "root")
    return root, os.path.join(root, "20261125")


@pytest.mark.parametrize("form", ["plain", "tar", "unpacked"])
def test_an_intact_backup_raises_nothing_and_is_left_as_it_was(made, verify, form):
    """asr-15-1: the copy reaches nothing of the source: no archive, no replication, no tablespace of it."""
    before = snapshot_of(made["place"])
    seen = verify(**declared(made[form], source_server="live"), servers=[server_of(made["cluster"])])
    assert seen.bad == {}
    assert seen.level == 5
    assert any("2000 rows in the backup, 2000 in the source" in line for line in seen["content"].evidence)
    assert any("agree with their checksums" in line for line in seen["integrity"].evidence)
    after = snapshot_of(made["place"])
    assert {path for path, was in before.items() if after.get(path) != was} == set()
    assert seen.proof["rto_seconds"] > 0


@pytest.mark.parametrize(
    ("fault", "level"),
    [("truncated", 0), ("missing", 0), ("no manifest", 0), ("cut manifest", 0), ("flipped manifest", 0), ("flipped", 1), ("no log", 1)],
)
def test_damage_of_a_plain_backup_is_found(made, verify, tmp_path, fault, level):
    root, folder = damaged(made, "plain", tmp_path)
    table, manifest = os.path.join(folder, path_of(made["cluster"])), os.path.join(folder, "backup_manifest")
    if fault == "truncated":
        os.truncate(table, os.path.getsize(table) - 8192)
    elif fault == "missing":
        os.unlink(table)
    elif fault == "no manifest":
        os.rename(manifest, manifest + ".tmp")
    elif fault == "cut manifest":
        os.truncate(manifest, os.path.getsize(manifest) // 2)
    elif fault == "flipped manifest":
        flip(manifest, 3)
    elif fault == "flipped":
        flip(table)
    else:
        for path in files_below(os.path.join(folder, "pg_wal")):
            os.unlink(path)
    seen = verify(**declared(root))
    assert (seen.level, seen.state("level")) == (level, "critical"), seen.bad
    assert seen.state("structure" if level == 0 else "checksum") == "critical"


def test_a_manifest_without_checksums_proves_no_bytes(made, verify, tmp_path):
    """``pg_verifybackup`` says "successfully verified" of files it never read."""
    cluster, root = made["cluster"], os.path.join(made["place"], "unchecked")
    as_user(cluster, "pg_basebackup", "-h", cluster.socket, "-U", "postgres", "-c", "fast", "--no-sync", "-D", f"{root}/20261125", "-Ft",
            "--manifest-checksums=NONE")  # fmt: skip
    seen = verify(**declared(root, level=2))
    assert (seen.level, seen.state("checksum")) == (1, "unknown")
    shutil.rmtree(root)


def test_a_page_that_rotted_in_the_source_is_found_when_the_copy_is_checked(made, verify, tmp_path):
    """The manifest is made of what was read, rotten or not: only level 4 compares with the page's own checksum."""
    root, folder = damaged(made, "plain", tmp_path)
    relative = path_of(made["cluster"])
    table, manifest = os.path.join(folder, relative), os.path.join(folder, "backup_manifest")
    flip(table, 8192 + 4000)
    _forget_checksums(manifest, relative, table)
    assert verify(**declared(root, level=2)).level == 2
    seen = verify(**declared(root))
    assert (seen.level, seen.state("integrity")) == (3, "critical")


def _forget_checksums(manifest, relative, table):
    """Write the manifest anew, as a backup of the rotten page would have had it."""
    import hashlib

    with open(manifest, encoding="utf-8") as source:
        document = json.load(source)
    for file in document["Files"]:
        if file["Path"] == relative:
            with open(table, "rb") as source:
                file.update({"Checksum-Algorithm": "SHA256", "Checksum": hashlib.sha256(source.read()).hexdigest()})
    del document["Manifest-Checksum"]
    text = json.dumps(document)[:-1] + ",\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    with open(manifest, "w", encoding="utf-8") as target:
        target.write(text + f'"Manifest-Checksum": "{digest}"}}\n')


def test_the_copy_s_own_configuration_is_not_believed(made, verify, tmp_path):
    """asr-15-1: a restored copy must not archive, replicate or run commands."""
    root, folder = damaged(made, "plain", tmp_path)
    trap = tmp_path / "reached"
    with open(os.path.join(folder, "postgresql.auto.conf"), "w", encoding="utf-8") as target:
        target.write(
            f"archive_mode = on\narchive_command = 'touch {trap}'\nprimary_conninfo = 'host=127.0.0.1'\nrestore_command = 'touch {trap}'\n"
        )
        target.write(
            f"archive_cleanup_command = 'touch {trap}'\nrecovery_end_command = 'touch {trap}'\nshared_preload_libraries = 'nothing'\n"
        )
    with open(os.path.join(folder, "standby.signal"), "wb"):
        pass
    seen = verify(**declared(root, level=4))
    assert (seen.bad, seen.level) == ({}, 4)
    assert not trap.exists()


def test_a_tablespace_that_leads_outside_is_not_started(tmp_path):
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(os.path.join(folder, "s"), MAJOR) as cluster:
            with open(os.path.join(cluster.data, "tablespace_map"), "w", encoding="utf-8") as target:
                target.write("16384 /srv/live\n")
            with pytest.raises(MaintenanceError, match="outside of the scratch folder"):
                backup_physical.quarantine(cluster)


def test_without_a_backup_label_a_copy_is_not_started(made, verify, tmp_path):
    """A copy without it comes up, from the wrong place, and is silently broken."""
    root, folder = damaged(made, "plain", tmp_path)
    os.unlink(os.path.join(folder, "backup_label"))
    assert verify(**declared(root)).level == 0
    with scratch_cluster(verify.scratch, MAJOR) as cluster:
        shutil.copytree(folder, cluster.data, dirs_exist_ok=True, symlinks=True)
        with pytest.raises(MaintenanceError, match="no backup_label"):
            backup_physical.recover(cluster)
    os.rmdir(verify.scratch)


def test_a_database_that_lacks_a_table_is_found_and_an_unknown_source_is_refused(made, verify):
    seen = verify(**declared(made["plain"], level=4, required_tables=["orders", "payroll"]))
    assert (seen.level, seen.state("integrity")) == (3, "critical")
    with pytest.raises(InputError, match="expected one of the declared servers"):
        verify(**declared(made["plain"], source_server="nowhere"))


def test_a_backup_of_another_cluster_is_found(made, verify):
    with postgresql.connect(made["cluster"].server) as session:
        number = postgresql.system_identifier(session)
    assert verify(**declared(made["plain"], level=1, repository={"id": number})).bad == {}
    assert verify(**declared(made["plain"], level=1, repository={"id": "7"})).state("structure") == "critical"


def test_a_stale_or_a_missing_backup_is_found(made, verify, tmp_path):
    root, folder = damaged(made, "plain", tmp_path)
    os.rename(folder, os.path.join(root, "20240203"))
    layout = {"layout": "dated_folders", "date_format": "%Y%m%d"}
    assert verify(**declared(root, level=0, maximum_age_hours=26.0, **layout)).state("age") == "critical"
    shutil.rmtree(os.path.join(root, "20240203"))
    assert verify(**declared(root)).state("present") == "critical"
    with pytest.raises(InputError, match="expected folders or dated_folders"):
        verify(**declared(root, layout="files"))


def test_content_that_is_behind_the_source_is_found(made, verify):
    cluster = made["cluster"]
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE TABLE public.later (id int, at timestamptz)")
        session.execute("INSERT INTO public.later VALUES (1, now())")
    try:
        seen = verify(**declared(made["plain"], count_tables=["later"], source_server="live"), servers=[server_of(cluster)])
        assert (seen.level, seen.state("content")) == (4, "critical")
    finally:
        with postgresql.connect(cluster.server) as session:
            session.execute("DROP TABLE public.later")


# At random -----------------------------------------------------------------------------------------------------------


def inside(name, *folders, reach=None):
    """Damage some file of a backup that lies below one of some folders; only the first bytes of a log are used."""
    return part(
        name,
        lambda root: [
            path for folder in folders for path in files_below(os.path.join(root, "20261125", folder)) if os.path.getsize(path) > 40
        ],
        reach,
    )


def named(name):
    """Damage one file of a backup."""
    return part(name, lambda root: [os.path.join(root, "20261125", name)])


DATA, LOG = inside("a data file", "base", "global"), inside("the write-ahead log", "pg_wal", reach=250)
MANIFEST, LABEL, CONTROL = named("backup_manifest"), named("backup_label"), named("global/pg_control")
PLAIN = {
    "bit flip": (DATA, DATA, DATA, LOG, LOG, MANIFEST, MANIFEST, LABEL, CONTROL),
    "truncation": (DATA, DATA, LOG, MANIFEST, LABEL, CONTROL),
    "zeroed block": (DATA, DATA, LOG, MANIFEST),
    "swapped": (DATA, DATA),
    "empty": (DATA, LOG, MANIFEST, LABEL),
    "unreadable": (DATA, LOG, MANIFEST),
}
TAR = {
    "bit flip": (named("base.tar"), named("base.tar"), named("base.tar"), named("backup_manifest")),
    "truncation": (named("base.tar"), named("pg_wal.tar"), named("backup_manifest")),
    "zeroed block": (named("base.tar"), named("base.tar")),
    "swapped": (named("base.tar"),),
    "empty": (named("base.tar"), named("pg_wal.tar")),
    "unreadable": (named("base.tar"), named("backup_manifest")),
}
PACKED = {
    "bit flip": (named("base.tar.gz"), named("base.tar.gz"), named("pg_wal.tar.gz")),
    "truncation": (named("base.tar.gz"), named("pg_wal.tar.gz")),
    "zeroed block": (named("base.tar.gz"), named("pg_wal.tar.gz")),
    "swapped": (named("base.tar.gz"),),
    "empty": (named("base.tar.gz"),),
    "unreadable": (named("base.tar.gz"),),
}


@pytest.mark.parametrize(
    ("format_", "form", "faults"),
    [("pg_basebackup", "plain", PLAIN), ("pg_basebackup, tar", "unpacked", TAR), ("pg_basebackup, tar, gzip", "tar", PACKED)],
)
def test_random_damage_is_found_where_the_documentation_says(made, cluster, verify, tmp_path, format_, form, faults):
    more = {}

    def place():
        more.clear()
        return copied(made[form], tmp_path / "root")

    plan = {fault: [each(fault) for each in parts] for fault, parts in faults.items()}
    if form == "unpacked":
        plan["bit flip"].append(a_flipped_map)
    plan["wrong database"] = [lambda root, _noise: another_cluster(cluster, root, form)]
    plan["stale"] = [lambda _root, _noise: more.update(maximum_age_hours=1e-6)]
    plan["half written"] = [lambda root, _noise: os.rename(f"{root}/20261125/backup_manifest", f"{root}/20261125/backup_manifest.tmp")]
    with postgresql.connect(made["cluster"].server) as session:
        identity = postgresql.system_identifier(session)

    def look(root, level):
        return first_look(verify, **declared(root, level=level, repository={"id": identity}, **more))

    row = campaign(format_, plan, place, look, lambda root: rows_of("postgres", lambda into: filled(f"{root}/20261125", into)))
    compare(row, varies=True)
    assert row.missed == []


def filled(folder, into):
    """Put a backup into a data folder, as its manual says."""
    spaces = os.path.join(into.folder, "spaces")
    if os.path.exists(f"{folder}/base"):
        backup_physical.copy_tree(folder, into, spaces)
        return {}
    for name in sorted(os.listdir(folder)):
        if ".tar" in name:
            part = name.split(".")[0]
            target = {"base": into.data, "pg_wal": f"{into.data}/pg_wal"}.get(part, f"{spaces}/{part}")
            os.makedirs(target, exist_ok=True)
            ran("tar", "-xf", f"{folder}/{name}", "-C", target)
    # the map leads to the source's own tablespace: the copy gets its own
    with open(f"{into.data}/tablespace_map", encoding="utf-8") as source:
        number = source.read().split()[0]
    with open(f"{into.data}/tablespace_map", "w", encoding="utf-8") as target:
        target.write(f"{number} {spaces}/{number}\n")
    return {}


def a_flipped_map(root, noise):
    """Flip a bit in the number of a tablespace, in the map that leads to it once it is unpacked."""
    with open(f"{root}/20261125/base.tar", "r+b") as target:
        place = target.read().index(b"tablespace_map\0") + 512 + noise.randrange(4)
    flip(f"{root}/20261125/base.tar", place)


def another_cluster(cluster, root, form):
    """Put a sound backup of another cluster there."""
    shutil.rmtree(f"{root}/20261125")
    shutil.chown(root, "postgres")
    os.chmod(os.path.dirname(root), 0o755)
    options = {"plain": [], "unpacked": ["-Ft"], "tar": ["-Ft", "-z"]}[form]
    as_user(cluster, "pg_basebackup", "-h", cluster.socket, "-U", "postgres", "-c", "fast", "--no-sync", "-D", "/tmp/another", *options)
    shutil.move("/tmp/another", f"{root}/20261125")
