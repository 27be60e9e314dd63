# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log analysis takes less than 100 MB, all its processes together, however large the log and however many processors there are."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COLLECTIONS = Path(__file__).resolve().parents[7]
LIMIT_KIB = 100_000_000 // 1024
LINES = 250_000
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.sched_getaffinity = lambda pid: set(range(64))
from ansible_collections.ops.maintenance.plugins.module_utils import log_analysis
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
params = {name: option.get("default") for name, option in log_analysis.OPTIONS.items()}
source = dict(name="web", paths=[sys.argv[2]], format="auto", timezone="UTC", silence_hours=24.0)
params.update(sources=[source], state_dir="/nonexistent", deadline=0.0, self_test=False)
print(int(log_analysis.run(params, True, Host()).metrics[0].value))
"""


def requests() -> Iterator[str]:
    """Yield requests of the last day, hardly two of the same client, for the same page or by the same agent."""
    chance, start = random.Random("requests"), time.time() - 86_400
    for number in range(LINES):
        client = ".".join(str(part) for part in chance.randbytes(4))
        moment = time.strftime("%d/%b/%Y:%H:%M:%S", time.gmtime(start + number * 80_000 // LINES))
        status = chance.choice((200, 404, 429, 500, 401))
        yield f'{client} - - [{moment} +0000] "GET /{chance.getrandbits(64):x} HTTP/1.1" {status} 55 "-" "Agent {number} {"x" * 60}"\n'


def memory_kib(pid: int) -> int:
    """Return the share of the memory that is this process's own, where several use the same."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def processes(parent: int) -> list[int]:
    try:
        return [parent, *map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())]
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.mark.slow
def test_an_analysis_with_all_its_processes_takes_less_than_100_mb(tmp_path):
    log = tmp_path / "access.log"
    text = "".join(requests())
    with log.open("w") as opened:
        opened.writelines([text] * 4)
    assert log.stat().st_size > 5 * 24 * 2**20
    command = [sys.executable, "-c", PROGRAM, str(COLLECTIONS), str(log)]
    peak = most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as analysis:
        while analysis.poll() is None:
            found = processes(analysis.pid)
            peak, most = max(peak, sum(map(memory_kib, found))), max(most, len(found))
            time.sleep(0.005)
        assert analysis.stdout.read() == f"{LINES * 4}\n"
    assert (analysis.returncode, most > 2) == (0, True), "it is about several processes"
    assert 20_000 < peak < LIMIT_KIB
