# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnf and rpm know: installed packages, pending updates, the advisories behind them, holds, age of the metadata.

An update is a security update because an advisory of type ``security`` names it, never because of its name or repository.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
import typing as t
from collections import Counter
from datetime import datetime, timezone

from . import dnf_history, dnf_session
from .apt_packages import Installed, Pending, Simulation, Step, Update
from .errors import MaintenanceError
from .host import Host
from .record import clean
from .rpm_versions import compare, newness

CACHE_DIR = "/var/cache/dnf"
_RPM_FORMAT = "%{NAME}\t%{ARCH}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
_RATINGS = ("critical", "important", "moderate", "low")
"""How bad a fault is that an advisory mends, the worst first."""
_SEVERAL_VERSIONS = ("kernel", "installonlypkg(kernel)", "installonlypkg(kernel-module)", "installonlypkg(vm)", "multiversion(kernel)")
"""What packages provide of which several versions are installed at once; dnf's own default."""
_FOREIGN = re.compile(r"^(.+)\.(i[3-6]86|x86_64(?:_v[0-9])?|aarch64|armv7hl|ppc64le|s390x?)$")
_REFRESH_FAILED = re.compile(r"^(Error: |Errors during|Ignoring repositories:|Failed to (?:download|synchronize))", re.M)

Nevra = t.Sequence[str]


class Removal(t.NamedTuple):
    """What dnf would remove, or why it could not say."""

    packages: tuple[Nevra, ...] = ()
    problem: str = ""

    @property
    def names(self) -> list[str]:
        """Return them as dnf shows them."""
        return sorted(map(nevra, self.packages))


def plain_evr(evr: str) -> str:
    """Leave out an epoch of 0, as rpm and dnf show versions."""
    return evr[2:] if evr.startswith("0:") else evr


def native_arch(arches: t.Iterable[str]) -> str:
    """Return the architecture of the host: the one that most of its packages have."""
    counted = Counter(arch for arch in arches if arch not in ("noarch", "(none)"))
    return counted.most_common(1)[0][0] if counted else ""


def parse_rpms(text: str) -> list[tuple[str, str, str]]:
    """Read what rpm printed in :data:`_RPM_FORMAT`: name, architecture, version; the keys of signers are left out."""
    rows = (line.split("\t") for line in text.splitlines())
    return [(row[0], row[1], plain_evr(row[2])) for row in rows if len(row) == 3 and row[0] != "gpg-pubkey"]


def shown_name(name: str, arch: str, native: str) -> str:
    """Return the name of a package, with its architecture where that is a foreign one."""
    return name if arch in (native, "noarch", "(none)", "") else f"{name}.{arch}"


def _name_of(item: t.Mapping[str, t.Any], native: str) -> str:
    name, arch, _evr = item["package"]
    return shown_name(name, arch, native)


def installed_of(
    rpms: t.Sequence[tuple[str, str, str]], several: t.Collection[str], flags: t.Mapping[tuple[str, str, str], str] | None = None
) -> dict[str, Installed]:
    """Return the package database by name, in the newest version.

    :param several: names of which several versions may be there at once; of any other, that is an interrupted transaction.
    :param flags: what dnf's history says against a version.
    """
    native = native_arch(arch for _name, arch, _evr in rpms)
    found: dict[str, Installed] = {}
    for name, arch, evr in rpms:
        shown = shown_name(name, arch, native)
        other = found.get(shown)
        newest = max(evr, other.version, key=newness) if other else evr
        wrong = [] if other is None or other.flag == "ok" else [other.flag]
        wrong += ["in two versions at once"] if other and name not in several else []
        wrong += [f"{evr}: {flags[name, arch, evr]}"] if flags and (name, arch, evr) in flags else []
        found[shown] = Installed(shown, newest, "install", "installed", "; ".join(wrong) or "ok")
    return found


def fixed_in(advised: str, offered: t.Iterable[str]) -> str:
    """Return the lowest offered version that has the fix of an advisory; empty when none has."""
    return min((evr for evr in offered if compare(evr, advised) >= 0), key=newness, default="")


def pending_of(answer: t.Mapping[str, t.Any], packages: t.Mapping[str, Installed], native: str) -> Pending:
    """Turn the answer of dnf into what is pending."""
    upgrades: dict[str, list[t.Mapping[str, t.Any]]] = {}
    for item in answer["upgrades"]:
        upgrades.setdefault(_name_of(item, native), []).append(item)
    advisories: dict[str, list[t.Mapping[str, t.Any]]] = {}
    for item in answer["advisories"]:
        advisories.setdefault(_name_of(item, native), []).append(item)
    updates = [
        update_of(packages[name], upgrades.get(name, []), advisories.get(name, []))
        for name in sorted(set(packages) & (set(upgrades) | set(advisories)))
    ]
    found = tuple(update for update in updates if update is not None)
    times = [repo["as_of"] for repo in answer["repos"]]
    whole = bool(times) and None not in times
    return Pending(
        updates=found,
        held=tuple(update.name for update in found if update.held),
        # All together are as old as the oldest, and with one missing nothing is known.
        lists_as_of=datetime.fromtimestamp(min(times), timezone.utc) if whole else None,
        security_archives=tuple(str(repo["id"]) for repo in answer["repos"] if repo["advisories"]),
    )


def update_of(
    package: Installed, upgrades: t.Sequence[t.Mapping[str, t.Any]], advisories: t.Sequence[t.Mapping[str, t.Any]]
) -> Update | None:
    """Return the pending update of a package, ``None`` where bug-fix advisories alone name it and nothing is offered."""
    repos = {plain_evr(item["package"][2]): str(item["repo"]) for item in upgrades}
    allowed = [plain_evr(item["package"][2]) for item in upgrades if item["allowed"]]
    security = [item for item in advisories if item["security"]]
    fixes: list[str] = []
    beyond: list[str] = []
    for item in security:
        advised = plain_evr(item["package"][2])
        fix = fixed_in(advised, allowed)
        (fixes if fix else beyond).append(fix or fixed_in(advised, repos) or advised)
    if not repos and not security:
        return None
    # A fix that no allowed version has is pending all the same, and held where another version would have it.
    security_version = max(fixes or beyond, key=newness, default="")
    candidate = max(allowed or repos or [security_version], key=newness)
    hidden = [evr for evr in beyond if evr in repos]
    rated = {item["severity"] for item in security}
    return Update(
        name=package.name,
        installed=package.version,
        candidate=candidate,
        archives=(repos.get(candidate, "none"), *sorted(f"{item['id']} {item['severity'] or 'unrated'}" for item in security)),
        security_version=security_version,
        held=bool(repos) and (not allowed or (bool(hidden) and not fixes)),
        offers=tuple((evr, evr in fixes) for evr in sorted(set(allowed), key=newness, reverse=True)),
        severity=next((word for word in _RATINGS if word in rated), ""),
        issued=min((item["issued"] for item in security if item.get("issued")), default=""),
    )


def simulation_of(answer: t.Mapping[str, t.Any], native: str) -> Simulation:
    """Turn dnf's answer to a rehearsal into steps."""
    steps = [
        Step("Inst", _name_of(item, native), plain_evr(item["installed"]), plain_evr(item["package"][2]), (item["repo"],))
        for item in answer["install"]
    ]
    steps += [Step("Remv", shown_name(name, arch, native), plain_evr(evr), "", ()) for name, arch, evr in answer["remove"]]
    return Simulation(tuple(steps))


def interpreter(host: Host) -> list[str]:
    """Return the Python that dnf runs in, from the first line of dnf itself.

    :raises MaintenanceError: dnf is missing, or is another one than dnf 4.
    """
    program = host.which("dnf")
    if program is None:
        raise MaintenanceError("The command dnf is not installed; install it or choose another backend.")
    with open(os.path.realpath(program), "rb") as source:
        first = source.readline(200).decode("utf-8", "replace")
    if not first.startswith("#!") or "python" not in first:
        raise MaintenanceError(f"{program} is not dnf 4 (dnf 5 has no library for this yet); its updates are not known. Look by hand.")
    return first[2:].split()


def ask(host: Host, question: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Ask dnf's library, which works with the metadata that is there and fetches nothing.

    :raises MaintenanceError: it gave no answer that can be read.
    """
    source = t.cast("t.Any", dnf_session.__loader__).get_source(dnf_session.__name__)
    ran = host.run([*interpreter(host), "-c", source], stdin=json.dumps(question), timeout=300)
    try:
        answer = json.loads(ran.stdout)
    except ValueError:
        raise MaintenanceError(f"dnf could not be asked: {ran.why()}. Look what dnf check-update says.") from None
    return t.cast("dict[str, t.Any]", answer)


@contextlib.contextmanager
def private_cache(cache_dir: str = CACHE_DIR) -> t.Iterator[dict[str, str]]:
    """Give a copy of the metadata to refresh, and places for what else dnf writes, so that check mode leaves the host alone."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_dnf_") as folder:
        with contextlib.suppress(OSError):  # not there, or changed under way: what is missing is fetched
            shutil.copytree(cache_dir, f"{folder}/cachedir", symlinks=True, ignore=shutil.ignore_patterns("packages", "*_lock.pid"))
        _link_packages(cache_dir, f"{folder}/cachedir")
        conf = {}
        for name in ("cachedir", "logdir", "persistdir"):
            conf[name] = os.path.join(folder, name)
            os.makedirs(conf[name], exist_ok=True)
        dnf_history.copy_into(conf["persistdir"])
        yield conf


def _link_packages(cache_dir: str, copy: str) -> None:
    """Let the copy of a cache know which packages were fetched; nothing is fetched into it."""
    for place in glob.glob(f"{glob.escape(cache_dir)}/*/packages"):
        repository = os.path.join(copy, os.path.basename(os.path.dirname(place)))
        if os.path.isdir(repository):
            os.symlink(place, os.path.join(repository, "packages"))


def refresh(host: Host, conf: t.Mapping[str, str], lock_timeout: float) -> str:
    """Fetch the metadata of every repository anew; return why that failed, empty when it did not.

    A repository that may be skipped is not skipped here: what it would have offered is missing all the same.
    """
    options = [f"--setopt={name}={value}" for name, value in {"*.skip_if_unavailable": "0", "skip_if_unavailable": "0", **conf}.items()]
    try:
        ran = host.run(["dnf", "--refresh", *options, "makecache"], timeout=900 + lock_timeout)
    except MaintenanceError as error:
        return str(error)
    return refresh_problem(ran.rc, f"{ran.stdout}\n{ran.stderr}")


def refresh_problem(rc: int, said: str) -> str:
    """Return the first complaint of ``dnf makecache``, empty when there is none."""
    failed = _REFRESH_FAILED.search(said)
    if failed:
        return clean(said[failed.start() :].splitlines()[0], 300)
    if "There are no enabled repositories" in said:
        return "there are no enabled repositories"
    return "" if rc == 0 else clean(f"dnf makecache ended with {rc}")


def several_versions(host: Host, rpms: t.Sequence[tuple[str, str, str]]) -> set[str]:
    """Return the names of which several versions may be installed at once, where any has several."""
    if len(set(rpms)) == len({(name, arch) for name, arch, _evr in rpms}):
        return set()
    ran = host.run(["rpm", "-q", "--qf", "%{NAME}\n", "--whatprovides", *_SEVERAL_VERSIONS], timeout=120)
    return set(ran.stdout.split("\n"))


def rpm_rows(host: Host) -> list[tuple[str, str, str]]:
    """Ask rpm.

    :raises MaintenanceError: its database cannot be read.
    """
    ran = host.run(["rpm", "-qa", "--qf", _RPM_FORMAT], timeout=180)
    if ran.rc != 0:
        raise MaintenanceError(f"The package database could not be read: {ran.why()}. Repair it with rpm --rebuilddb.")
    return parse_rpms(ran.stdout)


def installed(host: Host, rpms: t.Sequence[tuple[str, str, str]]) -> dict[str, Installed]:
    """Return the package database by name, with what dnf's history says against a package.

    :raises MaintenanceError: the history cannot be read.
    """
    return installed_of(rpms, several_versions(host, rpms), dnf_history.flags())


def pending(host: Host, conf: t.Mapping[str, str], packages: t.Mapping[str, Installed], native: str) -> Pending:
    """Ask dnf for every pending update.

    :raises MaintenanceError: dnf could not say.
    """
    answer = ask(host, {"conf": conf})
    if "problem" in answer:
        raise MaintenanceError(f"dnf could not say what is pending: {clean(answer['problem'], 300)}. Look what dnf check-update says.")
    return pending_of(answer, packages, native)


def rehearse(host: Host, conf: t.Mapping[str, str], specs: t.Sequence[str], native: str) -> Simulation:
    """Ask dnf what installing exactly these would do, without a change."""
    wanted = [(*name_and_arch(name, native), version) for name, _is, version in (spec.partition("=") for spec in specs)]
    answer = ask(host, {"conf": conf, "install": wanted})
    if "problem" in answer:
        return Simulation((), clean(answer["problem"].strip(), 300))
    return simulation_of(answer, native)


def rehearse_removal(host: Host, conf: t.Mapping[str, str], packages: t.Sequence[Nevra]) -> Removal:
    """Ask dnf what removing exactly these would remove, without a change."""
    answer = ask(host, {"conf": conf, "remove": [list(package) for package in packages]})
    if "problem" in answer:
        return Removal((), clean(answer["problem"].strip(), 300))
    return Removal(tuple(answer["remove"]))


def name_and_arch(shown: str, native: str) -> tuple[str, str]:
    """Split a name as :func:`shown_name` makes it."""
    foreign = _FOREIGN.match(shown)
    return (foreign[1], foreign[2]) if foreign else (shown, native)


def nevra(package: Nevra) -> str:
    """Return name, version and architecture as dnf takes and shows them."""
    name, arch, evr = package
    return f"{name}-{plain_evr(evr)}.{arch}"


def spec(shown: str, version: str) -> str:
    """Return a package in an exact version as dnf takes it."""
    name, arch = name_and_arch(shown, "")
    return f"{name}-{version}" + (f".{arch}" if arch else "")
