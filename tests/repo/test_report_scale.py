"""The report of a large fleet with a long history stays small enough to open and to send."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HOSTS, WEEKS = 200, 6


def test_the_page_of_a_fleet_keeps_to_its_share_of_5_mb(tmp_path):
    """A fifth of the hosts may take a fifth of the limit; `make bench` holds the whole against it, and the time as well."""
    script = [sys.executable, ROOT / "benchmarks/report_scale.py", "--hosts", str(HOSTS), "--weeks", str(WEEKS), "--keep", tmp_path]
    told = json.loads(subprocess.run(script, capture_output=True, text=True, check=False).stdout)
    assert (told["hosts"], told["weeks"]) == (HOSTS, WEEKS)
    [page] = tmp_path.glob("*latest.html")
    assert f"host{HOSTS - 1:04d}.example.org" in page.read_text(encoding="utf-8")
    assert 0 < told["bytes"]["html"] < told["limit_html_bytes"] * HOSTS / 1000
