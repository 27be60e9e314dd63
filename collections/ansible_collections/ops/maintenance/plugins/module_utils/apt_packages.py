# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt and dpkg know: installed packages, pending updates and where each comes from, holds, age of the lists.

An update is a security update because of the label or suite of the archive that carries it, never because of its name.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import tempfile
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from .errors import MaintenanceError
from .host import Host
from .record import clean

SECURITY_ARCHIVES = ("Debian-Security:*", "*:*-security")
"""Archives that carry security updates, as ``label:suite`` or ``label:codename`` patterns (Debian, Ubuntu, ESM)."""

LISTS_DIR = "/var/lib/apt/lists"
_SUCCESS_STAMP = "/var/lib/apt/periodic/update-success-stamp"
_DPKG_FORMAT = "${Package}\t${Architecture}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\t${db:Status-Eflag}\n"

_POLICY_HEAD = re.compile(r"^(\S+):$")
_POLICY_VERSION = re.compile(r"^ (\*\*\*|   ) (\S+) (-?\d+)(?: \(phased (\d+)%\))?$")
_POLICY_SOURCE = re.compile(r"^ +-?\d+ (\S.*)$")
_RELEASE = re.compile(r"^ +release (.*)$")
_SIMULATED = re.compile(r"^(Inst|Remv|Purg) (\S+)(?: \[([^]]*)\])?(?: \((\S+) ?(.*) \[([^]]*)\]\))?")
_REFRESH_FAILED = re.compile(
    r"^(Err:|E: |W: (Failed to fetch|GPG error|An error occurred during the signature|Some index files failed|The repository ))"
)
_PRIVATE_CONFIG = """Dir::State::lists "%s";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


@dataclass(frozen=True)
class Lists:
    """A folder of package lists and the options that make apt use it."""

    folder: str = LISTS_DIR
    options: tuple[str, ...] = ()


OWN_LISTS = Lists()
UNTOUCHED = Lists(options=("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="))
"""The host's own lists, without writing apt's caches anew: for check mode."""


@dataclass(frozen=True)
class Installed:
    """A package as dpkg's database has it; ``want`` is ``hold`` for a held one, ``status`` ``installed`` when all is well."""

    name: str
    version: str
    want: str
    status: str
    flag: str = "ok"

    @property
    def is_whole(self) -> bool:
        """Whether the package is installed and configured."""
        return self.status == "installed" and self.flag == "ok"


@dataclass(frozen=True)
class Archive:
    """Where a version comes from, from the archive's signed Release file."""

    label: str = ""
    suite: str = ""
    codename: str = ""
    origin: str = ""
    component: str = ""

    def __str__(self) -> str:
        return f"{self.label or self.origin or 'unknown'}:{self.codename or self.suite or 'unknown'}"

    def matches(self, patterns: t.Iterable[str]) -> bool:
        """Whether ``label:suite`` or ``label:codename`` is like one of the patterns."""
        names = {f"{self.label}:{self.suite}", f"{self.label}:{self.codename}"}
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


@dataclass(frozen=True)
class Version:
    """One version of a package that apt knows, with its pin priority, its archives and the percentage it is phased to."""

    version: str
    priority: int
    is_installed: bool
    archives: tuple[Archive, ...]
    phased: int = 100


@dataclass(frozen=True)
class Policy:
    """What apt would choose for a package; ``versions`` newest first."""

    name: str
    installed: str
    candidate: str
    versions: tuple[Version, ...]

    def newer(self) -> list[Version]:
        """Return the versions above the installed one that pins allow, newest first."""
        above: list[Version] = []
        for version in self.versions:
            if version.is_installed:
                return above
            if version.priority >= 0:
                above.append(version)
        return []


@dataclass(frozen=True)
class Update:
    """A pending update.

    :param security_version: the newest version above the installed one that a security archive carries, or empty.
    :param kept_back: apt would not install it now although nobody holds it.
    :param offers: every version above the installed one that may be chosen, newest first, and whether it is a security version.
    :param phased: percentage of the hosts that the candidate is offered to now.
    :param severity: what the archive itself says of the security update (``Important``), where it says something.
    :param issued: since when, as the archive says.
    """

    name: str
    installed: str
    candidate: str
    archives: tuple[str, ...]
    security_version: str = ""
    held: bool = False
    kept_back: bool = False
    offers: tuple[tuple[str, bool], ...] = ()
    phased: int = 100
    severity: str = ""
    issued: str = ""

    def choices(self) -> tuple[tuple[str, bool], ...]:
        """Return the versions to choose from, newest first, each with whether it is a security version."""
        if self.offers:
            return self.offers
        both = ((self.candidate, self.candidate == self.security_version), (self.security_version, True))
        return tuple(offer for offer in dict.fromkeys(both) if offer[0])

    def waits_for_phase(self, version: str) -> bool:
        """Whether apt leaves this version to other hosts for now."""
        return version == self.candidate and self.phased < 100 and self.kept_back

    @property
    def is_security(self) -> bool:
        """Whether a security archive carries a version above the installed one."""
        return bool(self.security_version)


class Step(t.NamedTuple):
    """One step of a simulated apt run: ``Inst``, ``Remv`` or ``Purg``."""

    kind: str
    name: str
    installed: str
    version: str
    archives: tuple[str, ...]


@dataclass(frozen=True)
class Simulation:
    """What apt said it would do; ``problem`` says why it could not say."""

    steps: tuple[Step, ...]
    problem: str = ""

    def of(self, *kinds: str) -> list[Step]:
        """Return the steps of these kinds."""
        return [step for step in self.steps if step.kind in kinds]


@dataclass(frozen=True)
class Pending:
    """All that is pending on a host.

    :param lists_as_of: time of the newest package list, ``None`` when there are no lists: then nothing is known.
    :param security_archives: archives in use that carry security updates; empty means that none could be seen.
    :param problem: why apt could not say which updates it would keep back, empty when it could.
    """

    updates: tuple[Update, ...]
    held: tuple[str, ...]
    lists_as_of: datetime | None
    security_archives: tuple[str, ...]
    problem: str = ""

    @property
    def security(self) -> list[Update]:
        """Return the security updates, held ones included."""
        return [update for update in self.updates if update.is_security]

    def blind(self) -> str:
        """Say why no number of security updates can be given, empty when it can."""
        if self.lists_as_of is None:
            return "there are no package lists on the host"
        if not self.security_archives:
            return "no configured archive carries security updates"
        return ""


def parse_installed(text: str, native: str) -> dict[str, Installed]:
    """Read what ``dpkg-query`` printed in :data:`_DPKG_FORMAT`; removed packages are left out."""
    found: dict[str, Installed] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 6 or fields[4] in ("not-installed", "config-files"):
            continue
        package, arch, version, want, status, flag = fields
        name = package if arch in (native, "all") else f"{package}:{arch}"
        found[name] = Installed(name, version, want, status, flag)
    return found


def parse_archives(text: str) -> dict[str, Archive]:
    """Read ``apt-cache policy`` without a name: the source line of a version, to its archive."""
    found: dict[str, Archive] = {}
    source = ""
    for line in text.splitlines():
        release = _RELEASE.match(line)
        if release and source:
            found[source] = _archive(release.group(1))
            continue
        match = _POLICY_SOURCE.match(line)
        source = match.group(1) if match else ""
    return found


def _archive(release: str) -> Archive:
    pairs = (part.split("=", 1) for part in re.split(r",(?=[a-z]=)", release) if "=" in part)
    fields = dict(pairs)
    return Archive(
        label=fields.get("l", ""),
        suite=fields.get("a", ""),
        codename=fields.get("n", ""),
        origin=fields.get("o", ""),
        component=fields.get("c", ""),
    )


def parse_policy(text: str, archives: t.Mapping[str, Archive]) -> dict[str, Policy]:
    """Read ``apt-cache policy NAME …``; a source without a known Release file has an empty archive."""
    return {policy.name: policy for policy in (_policy(block, archives) for block in _blocks(text))}


def _blocks(text: str) -> t.Iterator[list[str]]:
    block: list[str] = []
    for line in text.splitlines():
        if _POLICY_HEAD.match(line) and block:
            yield block
            block = []
        block.append(line)
    if block and _POLICY_HEAD.match(block[0]):
        yield block


def _policy(block: list[str], archives: t.Mapping[str, Archive]) -> Policy:
    fields = {"Installed": "", "Candidate": ""}
    versions: list[Version] = []
    for line in block[1:]:
        key, _colon, value = line.strip().partition(": ")
        if key in fields and not versions:
            fields[key] = "" if value == "(none)" else value
            continue
        version = _POLICY_VERSION.match(line)
        if version:
            mark, text, priority, phased = version.groups()
            versions.append(Version(text, int(priority), mark == "***", (), int(phased or 100)))
            continue
        source = _POLICY_SOURCE.match(line)
        if source and versions:
            archive = archives.get(source.group(1), Archive())
            versions[-1] = replace(versions[-1], archives=(*versions[-1].archives, archive))
    return Policy(block[0][:-1], fields["Installed"], fields["Candidate"], tuple(versions))


def parse_simulation(text: str) -> tuple[Step, ...]:
    """Read the steps that ``apt-get --just-print`` announces."""
    steps = []
    for line in text.splitlines():
        match = _SIMULATED.match(line)
        if match:
            kind, name, installed, version, archives, _arch = match.groups()
            steps.append(Step(kind, name, installed or "", version or "", tuple((archives or "").split(", "))))
    return tuple(steps)


def update_of(policy: Policy, held: bool, patterns: t.Iterable[str] = SECURITY_ARCHIVES) -> Update | None:
    """Return the pending update of an installed package, or ``None``.

    A security version counts even when a newer ordinary version is the candidate.
    """
    newer = policy.newer()
    wanted = tuple(patterns)
    security = next((v.version for v in newer if any(a.matches(wanted) for a in v.archives)), "")
    candidate = next((v for v in newer if v.version == policy.candidate), None)
    if not policy.installed or (candidate is None and not security):
        return None
    chosen = candidate or next(v for v in newer if v.version == security)
    offers = tuple((v.version, any(a.matches(wanted) for a in v.archives)) for v in newer)
    below = [offer[0] for offer in offers].index(chosen.version)
    return Update(
        name=policy.name,
        installed=policy.installed,
        candidate=chosen.version,
        archives=tuple(sorted({str(archive) for archive in chosen.archives})),
        security_version=security,
        held=held,
        offers=tuple(offer for number, offer in enumerate(offers) if number >= below or offer[1]),
        phased=chosen.phased,
    )


def lists_as_of(lists_dir: str = LISTS_DIR, stamp: str = _SUCCESS_STAMP) -> datetime | None:
    """Return how old the package lists are at most; ``None`` when there are none.

    apt gives a list the time of its server, so that lists that were confirmed later count as older than they are.
    """
    try:
        names = os.listdir(lists_dir)
    except FileNotFoundError:
        return None
    if not any(name.endswith("Packages") or "_Packages." in name for name in names):
        return None
    files = [os.path.join(lists_dir, name) for name in names if name.endswith("Release")]
    files += [os.path.join(lists_dir, name) for name in names if "_Packages" in name]
    if lists_dir == LISTS_DIR and os.path.exists(stamp):
        files.append(stamp)
    return datetime.fromtimestamp(max(os.lstat(path).st_mtime for path in files), timezone.utc)


@contextlib.contextmanager
def private_lists() -> t.Iterator[Lists]:
    """Give a copy of the package lists to refresh, so that check mode leaves the host's own lists and caches alone."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_lists_") as folder:
        lists = os.path.join(folder, "lists")
        os.makedirs(os.path.join(lists, "partial"))
        with contextlib.suppress(FileNotFoundError), os.scandir(LISTS_DIR) as found:
            for entry in found:
                if entry.is_file(follow_symlinks=False) and entry.name != "lock":
                    shutil.copy2(entry.path, lists)
        config = os.path.join(folder, "apt.conf")
        with open(config, "w", encoding="utf-8") as target:
            target.write(_PRIVATE_CONFIG % lists)
        yield Lists(lists, ("-c", config))


def refresh(host: Host, lists: Lists = OWN_LISTS, lock_timeout: float = 300) -> str:
    """Fetch the package lists anew, waiting for another apt to end; return why that failed, empty when it did not.

    apt-get ends with 0 when an archive could not be reached, so what it said is read as well.
    """
    give_up = host.now().timestamp() + lock_timeout
    while True:
        ran = host.run(["apt-get", *lists.options, "-o", "APT::Update::Error-Mode=any", "update"], timeout=900)
        problem = refresh_problem(ran.rc, f"{ran.stdout}\n{ran.stderr}")
        if "Could not get lock" not in problem or host.now().timestamp() >= give_up:
            return problem
        host.sleep(2)


def refresh_problem(rc: int, said: str) -> str:
    """Return the first complaint of ``apt-get update`` that means missing or old lists, empty when there is none."""
    lines = said.splitlines()
    for line in lines:
        if _REFRESH_FAILED.match(line):
            return clean(line, 300)
    return "" if rc == 0 else clean(f"apt-get update ended with {rc}: {next(filter(None, reversed(lines)), 'no output')}")


def installed(host: Host) -> dict[str, Installed]:
    """Return every package of dpkg's database that is not removed."""
    native = _answer(host, ["dpkg", "--print-architecture"]).strip()
    return parse_installed(_answer(host, ["dpkg-query", "-W", "-f", _DPKG_FORMAT]), native)


def simulate(host: Host, arguments: t.Sequence[str], lists: Lists = OWN_LISTS) -> Simulation:
    """Ask apt what it would do, without a lock and without a change. What it would remove is among the steps."""
    ran = host.run(["apt-get", *lists.options, "--just-print", *arguments], timeout=180)
    return Simulation(parse_simulation(ran.stdout), "" if ran.rc == 0 else unmet(ran.stdout) or ran.why())


def unmet(text: str) -> str:
    """Return which dependencies apt cannot meet, in its words, empty when it named none."""
    _before, found, after = text.partition("The following packages have unmet dependencies:\n")
    said = [line.strip() for line in after.splitlines() if re.match(r"^ +\S+ : ", line)] if found else []
    return clean("; ".join(" ".join(line.split()) for line in said[:3]), 300)


def pending(
    host: Host,
    *,
    security_archives: t.Sequence[str] = SECURITY_ARCHIVES,
    lists: Lists = OWN_LISTS,
    packages: t.Mapping[str, Installed] | None = None,
) -> Pending:
    """Ask apt for every pending update. Reads only; takes about a second.

    :param security_archives: what makes an archive a security archive, ``label:suite`` patterns.
    :param packages: what :func:`installed` returned, when the caller has it already.
    :raises MaintenanceError: apt or dpkg is missing or its database cannot be read.
    """
    known = installed(host) if packages is None else packages
    archives = parse_archives(_answer(host, ["apt-cache", *lists.options, "policy"]))
    policies = parse_policy(_answer(host, ["apt-cache", *lists.options, "policy", *known]), archives) if known else {}
    held = {name for name, package in known.items() if package.want == "hold"}
    found = (update_of(policies[name], name in held, security_archives) for name in sorted(set(known) & set(policies)))
    simulated = simulate(host, ["--with-new-pkgs", "upgrade"], lists)
    taken = {step.name for step in simulated.of("Inst")}
    updates = tuple(
        replace(update, kept_back=not simulated.problem and not update.held and update.name not in taken)
        for update in found
        if update is not None
    )
    return Pending(
        updates=updates,
        held=tuple(sorted(held)),
        lists_as_of=lists_as_of(lists.folder),
        security_archives=tuple(sorted({str(a) for a in archives.values() if a.matches(security_archives)})),
        problem=simulated.problem,
    )


def _answer(host: Host, argv: t.Sequence[str]) -> str:
    ran = host.run(argv, timeout=180)
    if ran.rc != 0:
        raise MaintenanceError(f"The package database could not be read: {ran.why()}. Repair it with dpkg --audit.")
    return ran.stdout
