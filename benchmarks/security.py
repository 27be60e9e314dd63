#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The security review against Lynis on one host: how long each takes, and which planted faults each does not tell.

`main` starts a test host, which runs this file again with `--inside` as root: the host is put right, both tools look, the faults of
security_faults.py are planted, both look again. A fault is told where a tool complains of it afterwards and did not before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from security_faults import FAULTS, SOUND, Fault

ROOT = Path(__file__).resolve().parent.parent
HOST = Path("/src/molecule/security")
ROUNDS = 2
STATE = "/var/lib/bench"
LYNIS_REPORT = "/root/lynis-report.dat"
LYNIS_SAYS = re.compile(r"(?:warning|suggestion)\[\]=(.*)")

# What both ask: accounts, sudo, passwords, umask, banner, sshd, the firewall, ports, the web server's certificate and TLS, modes, homes.
SAME_GROUPS = "authentication ssh firewalls networking webservers crypto file_permissions filesystems homedirs"
SAME: dict[str, Any] = {
    "updates": False,
    "accounts": True,
    "sshd_policy": True,
    "host_policy": True,
    "login_banner": True,
    "listening": ["tcp/22", "tcp/443"],
    "firewall": "required",
    "firewall_rules": ["allow tcp/22", "allow tcp/443"],
    "endpoints": [{"url": "https://localhost/", "trust": "/etc/ssl/demo/ca.crt"}],
    "certificates": [
        {
            "path": "/etc/ssl/demo/site.crt",
            "key": "/etc/ssl/demo/site.key",
            "trust": "/etc/ssl/demo/ca.crt",
            "hosts": ["localhost"],
            "connect": "localhost:443",
        }
    ],
    "files": [
        {"path": "/etc/crontab", "mode": "0600"},
        {"path": "/etc/sudoers", "mode": "0440"},
        {"path": "/home/anna", "kind": "directory", "mode": "0700", "owner": "anna"},
        {"path": "/home/ben", "kind": "directory", "mode": "0700", "owner": "ben"},
    ],
    "world_writable_roots": ["/srv", "/tmp"],  # noqa: S108 - of a container that goes away
    "journal": "false",
}
WHOLE: dict[str, Any] = {
    **SAME,
    "login_sources": [{"name": "auth", "paths": ["/var/log/auth.log"], "format": "auth"}],
    "failed_logins_warning": 10,
    "privileged_roots": ["/usr"],
    "package_integrity": True,
    "trees": [{"path": "/srv/release"}],
    "secret_scans": [{"root": "/srv/app"}],
}
REVIEW = """
import json, sys
from ansible_collections.ops.maintenance.plugins.module_utils import security_review
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled
given = json.loads(sys.argv[1])
params = {**filled(security_review.OPTIONS, given), "run_id": "bench", "deadline": 0.0, "state_dir": given["state_dir"], "self_test": False}
outcome = security_review.run(params, given["check"], Host())
print(json.dumps([[found.id, found.subject, found.state, found.summary, *found.evidence] for found in outcome.findings]))
"""

Said = list[tuple[str, str]]


def timed(argv: list[str]) -> tuple[float, str]:
    """Run a command; return its seconds and what it wrote."""
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{argv[:3]} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}")
    return took, done.stdout


def shell(script: str) -> None:
    """Run commands, each of which has to succeed."""
    timed(["bash", "-euo", "pipefail", "-c", script])


def ours(asked: dict[str, Any], check: bool = True, **more: Any) -> tuple[float, Said]:
    """Review, and return the seconds and every complaint, a line of evidence each, with its finding."""
    took, out = timed([sys.executable, "-c", REVIEW, json.dumps({**asked, **more, "state_dir": STATE, "check": check})])
    said: Said = []
    for name, subject, state, summary, *evidence in json.loads(out):
        if state in ("warning", "critical"):
            said += [(name.partition(".")[2], f"{subject}: {text}") for text in (summary, *evidence)]
    return took, said


def lynis(groups: str = "") -> tuple[float, Said]:
    """Audit, and return the seconds and every warning and suggestion, with its test."""
    Path(LYNIS_REPORT).unlink(missing_ok=True)
    narrowed = ["--tests-from-group", groups] if groups else []
    argv = ["lynis", "audit", "system", "--quick", "--quiet", "--no-colors", "--logfile", "/root/lynis.log", "--report-file", LYNIS_REPORT]
    took, _out = timed([*argv, *narrowed])
    texts = LYNIS_SAYS.findall(Path(LYNIS_REPORT).read_text(errors="replace"))
    return took, [(text.partition("|")[0], text.partition("|")[2].rstrip("|-")) for text in texts]


def told_by_ours(fault: Fault, new: Said) -> bool:
    """Say whether our review told a fault."""
    return any(name in fault.ours and fault.mark.lower() in text.lower() for name, text in new)


def told_by_lynis(fault: Fault, new: Said) -> bool:
    """Say whether Lynis told a fault; the test alone is enough, for its texts name few details."""
    wanted = [test.partition("|")[::2] for test in fault.lynis]
    return any(name.startswith(test) and part.lower() in text.lower() for name, text in new for test, part in wanted)


def plant() -> None:
    """Plant the faults."""
    shell(str(HOST / "faults.sh"))
    for fault in FAULTS:
        if fault.plant:
            shell(fault.plant)


def best(look: Any, *arguments: Any) -> tuple[float, Said]:
    """Return the seconds of the fastest of several looks, and what the last one said."""
    looks = [look(*arguments) for _round in range(ROUNDS)]
    return round(min(took for took, _said in looks), 2), looks[-1][1]


def inside() -> dict[str, Any]:
    """Measure on the host itself."""
    shell(f"{HOST}/sound.sh 60")
    shell(SOUND)
    ours(WHOLE, check=False, accept_baseline=True)
    before = {"ours": ours(WHOLE)[1], "lynis": lynis()[1]}
    plant()
    seconds, after = {"whole": {}, "same_questions": {}}, {}
    seconds["whole"]["ours"], after["ours"] = best(ours, WHOLE)
    seconds["whole"]["lynis"], after["lynis"] = best(lynis)
    seconds["same_questions"]["ours"], _said = best(ours, SAME)
    seconds["same_questions"]["lynis"], _said = best(lynis, SAME_GROUPS)
    new = {name: [line for line in after[name] if line not in before[name]] for name in after}
    table = [
        {"fault": fault.name, "ours": told_by_ours(fault, new["ours"]), "lynis": told_by_lynis(fault, new["lynis"])} for fault in FAULTS
    ]
    return {
        "seconds": seconds,
        "ratios": {f"{name}_wall": round(both["lynis"] / both["ours"], 1) for name, both in seconds.items()},
        "faults": len(table),
        "missed": {name: [row["fault"] for row in table if not row[name]] for name in ("ours", "lynis")},
        "table": table,
        "complaints_before": {name: sorted({": ".join(line) for line in before[name]}) for name in before},
        "complaints_new": {name: sorted({": ".join(line) for line in new[name]}) for name in new},
        "versions": {"lynis": timed(["lynis", "show", "version"])[1].strip()},
    }


def main(out: Path) -> dict[str, Any]:
    """Measure on a test host, write the result as JSON to ``out`` and return it."""
    from weekly import IMAGE, Fleet, docker

    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        fleet.options += [f"--volume={ROOT}:/src:ro", "--env=PYTHONPATH=/src/collections", "--env=PYTHONDONTWRITEBYTECODE=1"]
        try:
            fleet.start([f"bench-security-{os.getpid()}"], IMAGE)
            said = docker("exec", fleet.hosts[0], "python3", "/src/benchmarks/security.py", "--inside")
        except subprocess.CalledProcessError as error:
            raise RuntimeError(error.stderr[-2000:]) from error
        finally:
            fleet.remove()
    result = dict(json.loads(said.splitlines()[-1]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    print(json.dumps(inside() if "--inside" in sys.argv else main(Path("dist/bench-security.json"))))
