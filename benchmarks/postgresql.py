#!/usr/bin/env python3
"""Questions to a PostgreSQL server, and a restore drill, against the tools of Debian; in a container of a test host's image.

`main` starts the container, which runs this file again with `--inside` as root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLES = int(os.environ.get("BENCH_TABLES", 1000))
SCALE = int(os.environ.get("BENCH_PGBENCH_SCALE", 98))
"""Size of the database that is drilled: its dump has 1 GB."""
ROUNDS = 5
STATUS = "/tmp/check_pgactivity.data"  # noqa: S108 - of a container that goes away

# What the review and one of the two tools can answer, by our finding: each is one process, as monitoring starts them, and of the
# two tools the quicker one.
CHECK_POSTGRES: dict[str, tuple[str, ...]] = {
    "postgresql.connections": ("backends",),
    "postgresql.idle_in_transaction": ("txn_idle", "--warning=300", "--critical=3600"),
    "postgresql.long_transactions": ("txn_time", "--warning=3600"),
    "postgresql.lock_waits": ("locks", "--warning=waiting=1"),
    "postgresql.prepared_transactions": ("prepared_txns",),
    "postgresql.replication_slots": ("replication_slots", "--warning=1GB"),
    "postgresql.wraparound": ("txn_wraparound",),
    "postgresql.freeze_due": ("autovac_freeze",),
    "postgresql.settings_changed": ("settings_checksum", "--warning=42c6ddbd0a2f2dc5bcdb0d0d8b2a0b0c"),
    "postgresql.version": ("version", "--warning=17"),
    "postgresql.size": ("database_size", "--warning=100GB"),
    "postgresql.sequences": ("sequence",),
    "postgresql.triggers": ("disabled_triggers",),
    "postgresql.vacuum_due": ("last_vacuum",),
    "postgresql.statistics": ("last_analyze",),
    "postgresql.bloat": ("bloat",),
    "postgresql.error_share": ("commitratio", "--warning=95%"),
}
CHECK_PGACTIVITY: dict[str, tuple[str, ...]] = {
    "postgresql.invalid_indexes": ("invalid_indexes",),
    "postgresql.unlogged_tables": ("table_unlogged",),
    "postgresql.extensions": ("extensions_versions",),
    "postgresql.temporary_files": ("temp_files", "-w", "10GB", "-c", "20GB"),
    "postgresql.archiving": ("archiver", "-w", "5", "-c", "10"),
}
ANSWERED_BESIDES = ("postgresql.index_bloat",)
"""Answered by check_postgres together with bloat."""

REVIEW = """
import json, sys
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_review
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
server, only = json.loads(sys.argv[1]), json.loads(sys.argv[2])
params = {name: spec.get("default") for name, spec in postgresql_review.OPTIONS.items()}
params.update(servers=[{**server, "databases": ["bench"]}], run_id="", deadline=0.0, state_dir="/tmp/state", self_test=False)
for name in ("OF_SERVER", "OF_DATABASE") if only else ():
    checks = tuple(check for check in getattr(postgresql_review, name) if set(check.ids) & set(only))
    setattr(postgresql_review, name, checks)
outcome = postgresql_review.run(params, True, Host())
print(json.dumps(sorted({found.id for found in outcome.findings})))
"""

DRILL = """
import json, sys
from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
folder, pattern, scratch = sys.argv[1:]
options = backup_verification.OPTIONS
declared = {name: spec.get("default") for name, spec in options["sets"]["options"].items()}
declared.update(name="bench", kind="postgresql", root=folder, pattern=pattern, level=5, restore_jobs=2, maximum_age_hours=1000.0,
                count_tables=["pgbench_accounts", "pgbench_branches"], minimum_rows={"pgbench_accounts": 1})
params = {name: spec.get("default") for name, spec in options.items()}
params.update(sets=[declared], servers=[], scratch=scratch, settle_seconds=0.0, run_id="", deadline=0.0, state_dir="/var/tmp/state")
outcome = backup_verification.run({**params, "self_test": False}, False, Host())
bad = [f"{found.id}: {found.summary}" for found in outcome.findings if found.state != "ok" and found.id != "backup.content"]
assert outcome.returned["proofs"]["bench"]["level"] == 5, bad
"""


def timed(argv: list[str], accept: tuple[int, ...] = (0,), **more: Any) -> tuple[float, str]:
    """Run a command; return its seconds and what it wrote."""
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **more)
    took = time.perf_counter() - began
    if done.returncode not in accept:
        raise RuntimeError(f"{argv[:3]} ended with {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}")
    return took, done.stdout


def review(cluster: Any, session: Any) -> dict[str, Any]:
    """Time the same questions asked in one call, and by one process each."""
    for number in range(TABLES):
        table = session.identifier("public", f"t{number}")
        session.execute(f"CREATE TABLE {table} (id serial PRIMARY KEY, a int, b text)")
        session.execute(f"CREATE INDEX ON {table} (a)")
        session.execute(f"INSERT INTO {table} (a, b) SELECT g, md5(g::text) FROM generate_series(1, 20) g")  # noqa: S608 - quoted by the driver
    session.execute("ANALYZE")
    same = [*CHECK_POSTGRES, *CHECK_PGACTIVITY, *ANSWERED_BESIDES]
    answers: dict[str, list[str]] = {}
    seconds: dict[str, list[float]] = {"same": [], "all": [], "tools": []}
    for _round in range(ROUNDS):
        for name, only in (("same", same), ("all", [])):
            took, said = timed([sys.executable, "-c", REVIEW, json.dumps(dict(cluster.server)), json.dumps(only)])
            seconds[name].append(took)
            answers[name] = json.loads(said)
        seconds["tools"].append(sum(asked(argv) for argv in tools(cluster)))
    if missing := set(same) - set(answers["same"]):
        raise RuntimeError(f"the review did not answer {sorted(missing)}")
    best = {name: min(taken) for name, taken in seconds.items()}
    return {
        "tables": TABLES,
        "same_questions": len(same),
        "same_questions_seconds": round(best["same"], 3),
        "all_questions": len(answers["all"]),
        "all_questions_seconds": round(best["all"], 3),
        "one_process_a_question_seconds": round(best["tools"], 3),
        "ratios": {"wall": round(best["tools"] / best["same"], 1), "wall_all_questions": round(best["tools"] / best["all"], 1)},
    }


def tools(cluster: Any) -> list[list[str]]:
    """Return the commands that ask the same questions."""
    program = next(path for path in map(Path, ("/usr/bin/check_pgactivity", "/usr/lib/nagios/plugins/check_pgactivity")) if path.exists())
    place = ["--dbuser=postgres", "--dbname=bench", "--port=5432", f"--host={cluster.socket}"]
    postgres = [["check_postgres", f"--action={name}", *words, *place] for name, *words in CHECK_POSTGRES.values()]
    place = ["-h", cluster.socket, "-p", "5432", "-U", "postgres", "-d", "bench", "--status-file", STATUS]
    return postgres + [[str(program), *place, "-s", *words] for words in CHECK_PGACTIVITY.values()]


def asked(argv: list[str]) -> float:
    """Time one check; a wrong option ends like an alarm, so what it says is looked at too."""
    took, said = timed(argv, (0, 1, 2), user="postgres", cwd="/tmp")  # noqa: S108
    if not said.startswith("POSTGRES_"):
        raise RuntimeError(f"{argv} gave no verdict: {said[:300]}")
    return took


def drill(cluster: Any) -> dict[str, Any]:
    """Time the drill of a dump up to the last level, and the plain tools that only restore it."""
    env = {**os.environ, "PGHOST": cluster.socket, "PGUSER": "postgres"}
    folder = Path("/var/tmp/backups")  # noqa: S108 - of a container that goes away
    folder.mkdir()
    os.chmod(folder, 0o777)  # noqa: S103
    dump = str(folder / "bench.dump")
    as_postgres: dict[str, Any] = {"env": env, "user": "postgres", "cwd": "/"}
    timed([cluster.program("createdb"), "drill"], **as_postgres)
    timed([cluster.program("pgbench"), "-i", "-q", "-s", str(SCALE), "drill"], **as_postgres)
    timed([cluster.program("pg_dump"), "--format=custom", "--compress=0", f"--file={dump}", "drill"], **as_postgres)
    restore = [cluster.program("pg_restore"), "--exit-on-error", "--jobs=2", "--dbname=restored", dump]
    plain = sum(
        timed(argv, **as_postgres)[0]
        for argv in ([cluster.program("createdb"), "restored"], restore, [cluster.program("dropdb"), "restored"])
    )
    ours, _said = timed([sys.executable, "-c", DRILL, str(folder), "bench.dump", "/var/tmp/scratch"])  # noqa: S108
    return {
        "dump_bytes": Path(dump).stat().st_size,
        "drill_to_level_5_seconds": round(ours, 1),
        "createdb_restore_dropdb_seconds": round(plain, 1),
        "ratios": {"wall": round(plain / ours, 2)},
    }


def upkeep(cluster: Any) -> dict[str, Any]:
    """Measure what an application feels of the upkeep: how long its transactions take before and meanwhile."""
    from load import Load, p95
    from upkeep_runs import begin_upkeep, work_under_load

    from ansible_collections.ops.maintenance.plugins.module_utils import postgresql

    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE busy")
    load = Load(cluster, "busy", folder, scale=10)
    idle = load.batch(10)
    with postgresql.connect(cluster.server, "busy", statement_timeout_seconds=0) as session:
        options = work_under_load(session, cluster, "busy", folder)
    began = time.perf_counter()
    child = begin_upkeep(options)
    during = load.during(child)
    status, operations, _failures = json.loads(child.communicate()[0])
    if status != "changed":
        raise RuntimeError(f"the upkeep ended with {status}")
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "operations": sorted(operations),
        "transactions": len(during),
        "failed_transactions": 0,
        "p95_idle_milliseconds": round(p95(idle), 1),
        "p95_during_upkeep_milliseconds": round(p95(during), 1),
    }


def inside() -> dict[str, Any]:
    """Measure on the host itself."""
    sys.path.insert(0, str(ROOT / "tests/hosts"))
    from clusters import running_cluster

    from ansible_collections.ops.maintenance.plugins.module_utils import postgresql

    with running_cluster({"max_connections": "100"}) as cluster:
        with postgresql.connect(cluster.server) as session:
            session.execute("CREATE DATABASE bench")
        with postgresql.connect(cluster.server, "bench", statement_timeout_seconds=0) as session:
            found = {"postgresql": session.value("SHOW server_version"), "review": review(cluster, session)}
        return {**found, "upkeep": upkeep(cluster), "drill": drill(cluster)}


def main(out: Path) -> dict[str, Any]:
    """Measure in a container, write the result as JSON to ``out`` and return it."""
    image = subprocess.run([ROOT / "scripts/images.sh", "--names"], capture_output=True, text=True, check=True).stdout.split()[-1]
    install = "apt-get -qq update && apt-get -qq install -y --no-install-recommends check-postgres check-pgactivity >/dev/null"
    command = f"({install}) >&2 && python3 benchmarks/postgresql.py --inside"
    argv = ["docker", "run", "--rm", "--init", "--shm-size", "1g", "--volume", f"{ROOT}:/src:ro", "--workdir", "/src"]
    argv += ["--env", "PYTHONPATH=/src/collections", "--env", "PYTHONDONTWRITEBYTECODE=1"]
    argv += [word for name in ("BENCH_TABLES", "BENCH_PGBENCH_SCALE") for word in ("--env", name)]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run([*argv, image, "bash", "-c", command], stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
        errors.seek(0)
        if done.returncode:
            raise RuntimeError(errors.read()[-2000:])
    result = dict(json.loads(done.stdout.strip().splitlines()[-1]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    print(json.dumps(inside() if "--inside" in sys.argv else main(Path("dist/bench-postgresql.json"))))
