"""What the tests of snapshots, rollbacks and restores run: the modules with small options, and dumps as a site makes them."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess

from clusters import MAJOR
from postgresql_states import RUN, Machine

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_programs, postgresql_restore, snapshot

FORMS = {"custom": ["-Fc"], "directory": ["-Fd"], "tar": ["-Ft"], "plain": ["-Fp"], "gzip": ["-Fp"], "xz": ["-Fp"], "zstd": ["-Fp"]}
PACK = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: subprocess.run(["zstd", "-c"], input=data, check=True, capture_output=True).stdout,
}


def snapshot_params(tmp_path, *servers, **more):
    params = {name: option.get("default") for name, option in snapshot.OPTIONS.items()}
    params.update(root=str(tmp_path / "snapshots"), postgresql=list(servers), packages=False, reserve_bytes=0)
    return {**params, "run_id": RUN, "deadline": 0.0, "state_dir": str(tmp_path / "state"), **more}


def take(tmp_path, *servers, check=False, host=None, **more):
    return snapshot.run(snapshot_params(tmp_path, *servers, **more), check, host or Machine())


def dumped(cluster, database, path, form="custom", *more, mode=0o600):
    program = postgresql_programs.find_program("pg_dump", MAJOR)
    command = [program, *FORMS[form], *more, "-h", cluster.socket, "-U", "postgres", "-f", str(path), "-d", database]
    subprocess.run(command, check=True, capture_output=True)
    if form in PACK:
        path.write_bytes(PACK[form](path.read_bytes()))
    if form == "directory":
        status = os.stat(cluster.data)
        for name in (path, *path.iterdir()):
            os.chown(name, status.st_uid, status.st_gid)
    else:
        path.chmod(mode)
    return str(path)


def dump_set(root, database, name="daily", **more):
    """Declare a set of dumps."""
    return {"name": name, "root": str(root), "database": database, "encrypted": False, "decrypt_command": [], "recovery_key": None, **more}


def restore_params(cluster, database, tmp_path, **more):
    params = {name: option.get("default") for name, option in postgresql_restore.OPTIONS.items()}
    server = {**cluster.server, "jobs": 2, "sentinels": ["public.orders"]}
    params.update(server=server, database=database, sets=[dump_set(tmp_path / "backups", database)], reserve_bytes=0)
    return {**params, "scratch": str(tmp_path / "scratch"), "run_id": RUN, "deadline": 0.0, "state_dir": str(tmp_path / "state"), **more}


def restore(cluster, database, tmp_path, check=False, **more):
    return postgresql_restore.run(restore_params(cluster, database, tmp_path, **more), check, Machine())
