"""An application at work: pgbench at a steady rate in short batches, as long as something else runs; no transaction may fail."""

from __future__ import annotations

import re
import subprocess

from clusters import client_program


class Load:
    """pgbench on one database; its logs go into ``folder``. With ``scale`` 0 its tables are there already."""

    def __init__(self, cluster, database, folder, *, scale=2, rate=150):
        self.folder, self.rate, self.batches = folder, rate, 0
        self.timed = []
        self.env = {"PGHOST": cluster.socket, "PGUSER": "postgres"}
        self.argv = [client_program("pgbench"), "-n", database]
        if scale:
            argv = [*self.argv, "-i", "-q", "-s", str(scale)]
            subprocess.run([name for name in argv if name != "-n"], env=self.env, check=True, capture_output=True)

    def batch(self, seconds):
        """Return how long each transaction of a batch took, in milliseconds from when it was due; ``timed`` has when each ended too."""
        self.batches += 1
        prefix = f"batch{self.batches:03d}"
        argv = [*self.argv, "-c", "4", "-j", "2", "-T", str(seconds), "-R", str(self.rate), "--log", f"--log-prefix={self.folder}/{prefix}"]
        ran = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False, timeout=seconds + 60)
        assert ran.returncode == 0, ran.stderr
        assert "aborted" not in ran.stdout + ran.stderr, ran.stderr
        assert re.search(r"number of failed transactions: 0 ", ran.stdout), ran.stdout
        lines = [line.split() for path in self.folder.glob(f"{prefix}*") for line in path.read_text().splitlines()]
        found = [(int(line[4]) + int(line[5]) / 1e6, int(line[2]) / 1000) for line in lines if line[2].isdigit()]
        self.timed += found
        return [taken for _ended, taken in found]

    def during(self, child, seconds=2):
        """Return the same of all batches that begin while a process runs."""
        found = []
        while child.poll() is None:
            found += self.batch(seconds)
        return found


def p95(latencies):
    """Return what 95 of 100 transactions took at most."""
    return sorted(latencies)[int(len(latencies) * 0.95)]
