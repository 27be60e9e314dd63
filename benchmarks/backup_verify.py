#!/usr/bin/env python3
"""One reading of a big tar.gz (checksum, decompression, structure, restore) against standard tools one after another.

Every contestant is whole processes, start to end; wall and CPU seconds and the highest memory use come from the kernel.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification  # noqa: E402

CONTENT_BYTES = int(os.environ.get("BENCH_BACKUP_BYTES", 256 * 1024 * 1024))
ROUNDS = 3

OURS = """
import json, os, sys, time
from datetime import date
sys.path.insert(0, {collections!r})
from ansible_collections.ops.maintenance.plugins.module_utils.backup_proof import Scratch, prove
from ansible_collections.ops.maintenance.plugins.module_utils.backup_sets import Backup, File
path, level, scratch = sys.argv[1], int(sys.argv[2]), sys.argv[3]
status = os.stat(path)
declared = json.loads({declared!r})
backup = Backup(path, (File(path, status.st_size, status.st_mtime_ns),), time.time(), date.today())
proof = prove({{**declared, "level": level}}, backup, Scratch(scratch), {{}}, time.time())
sys.exit(proof.reached != level)
"""


def declared_set(folder: Path) -> dict[str, Any]:
    """Return a set of one archive with every option that the module knows."""
    spec = backup_verification.OPTIONS["sets"]["options"]
    checked = ArgumentSpecValidator(spec).validate({"name": "bench", "kind": "files", "root": str(folder), "layout": "files", "level": 3})
    if checked.error_messages:
        raise ValueError(checked.error_messages)
    return {**checked.validated_parameters, "maximum_age_hours": 1}


def make_archive(path: Path) -> None:
    """Write a tar.gz of text and noise, about as compressible as a dump with uploads."""
    noise = random.Random(7)  # noqa: S311
    words = [noise.randbytes(6).hex() for _ in range(4000)]
    block = (" ".join(noise.choices(words, k=60_000))).encode() + noise.randbytes(300_000)
    with gzip.open(path, "wb", compresslevel=1) as stored, tarfile.open(fileobj=stored, mode="w") as archive:
        for number in range(CONTENT_BYTES // len(block)):
            member = tarfile.TarInfo(f"data/{number:05d}.bin")
            data = number.to_bytes(8, "big") + block[8:]
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def measure(*commands: list[str]) -> dict[str, float]:
    """Run commands one after another and add up what they used."""
    used = {"wall_seconds": 0.0, "cpu_seconds": 0.0, "memory_mib": 0.0}
    for command in commands:
        started = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
        _pid, status, usage = os.wait4(pid, 0)
        used["wall_seconds"] += time.perf_counter() - started
        used["cpu_seconds"] += usage.ru_utime + usage.ru_stime
        used["memory_mib"] = max(used["memory_mib"], usage.ru_maxrss / 1024)
        if status:
            raise RuntimeError(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return used


def best(*commands: list[str]) -> dict[str, float]:
    """Return the round with the lowest wall time."""
    rounds = [measure(*commands) for _ in range(ROUNDS)]
    return {name: round(value, 3) for name, value in min(rounds, key=lambda used: used["wall_seconds"]).items()}


def main(out: Path) -> dict[str, Any]:
    """Measure, write the result as JSON to ``out`` and return it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-backup-"))
    try:
        path, copy, tree = folder / "backup.tar.gz", folder / "copy.tar.gz", folder / "tree"
        tree.mkdir()
        make_archive(path)
        program = folder / "ours.py"
        program.write_text(OURS.format(collections=str(ROOT / "collections"), declared=json.dumps(declared_set(folder))))

        def ours(level: int) -> list[str]:
            return [sys.executable, str(program), str(path), str(level), str(folder / "scratch")]

        sha, test = ["sha256sum", str(path)], ["gzip", "-t", str(path)]
        extract = ["tar", "-xzf", str(path), "-C", str(tree)]
        measure(sha)  # the first reader fills the page cache for all
        result: dict[str, Any] = {
            "archive_bytes": path.stat().st_size,
            "content_bytes": CONTENT_BYTES,
            "one_pass_read": best(ours(2)),
            "sha256sum_then_gzip_test": best(sha, test),
            "one_pass_restore": best(ours(3)),
            "sha256sum_then_gzip_test_then_copy": best(sha, test, ["cp", str(path), str(copy)]),
            "sha256sum_then_gzip_test_then_extract": best(sha, test, extract),
        }
        pairs = {
            "read": ("sha256sum_then_gzip_test", "one_pass_read"),
            "copy": ("sha256sum_then_gzip_test_then_copy", "one_pass_read"),
            "restore": ("sha256sum_then_gzip_test_then_extract", "one_pass_restore"),
        }
        result["ratios"] = {
            f"{name}_{kind}": round(result[tools][f"{kind}_seconds"] / result[own][f"{kind}_seconds"], 2)
            for name, (tools, own) in pairs.items()
            for kind in ("wall", "cpu")
        }
    finally:
        shutil.rmtree(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist/bench-backup-verify.json")), indent=2))
