# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images: what runs against what its tag points to now, tags that float, and what a scanner finds. Reads only."""

from __future__ import annotations

import fnmatch
import re
import typing as t
from dataclasses import dataclass

from . import image_scan
from .container_engine import Engine, Image, Running
from .errors import InputError, MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import many
from .kept_state import keep_state
from .paths import read_state
from .record import Finding, Metric, Outcome, clean, unknown

OPTIONS: dict[str, t.Any] = {
    "engine": {"type": "str", "choices": ["auto", "docker", "podman"], "default": "auto"},
    "ignore": {"type": "list", "elements": "str", "default": []},
    "remote": {"type": "bool", "default": False},
    "scanner": {"type": "str", "choices": ["none", "auto", "trivy", "grype"], "default": "none"},
    "scan_severity": {"type": "str", "choices": ["critical", "high", "medium", "low"], "default": "high"},
    "scan_only_fixed": {"type": "bool", "default": False},
    "scan_database_days": {"type": "float", "default": 3.0},
    "scan_timeout_seconds": {"type": "float", "default": 600.0},
    "registry_timeout_seconds": {"type": "float", "default": 60.0},
}
_STATE = "container_images.json"
_REFERENCE = re.compile(r"^(?P<name>[^@\s]+?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$")


@dataclass(frozen=True)
class Reference:
    """An image as a container was started from it."""

    name: str
    tag: str
    digest: str = ""

    @classmethod
    def of(cls, text: str) -> Reference | None:
        """Read ``registry:5000/name:tag@sha256:…``; ``None`` for a bare image id, which no tag stands for."""
        if re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", text):
            return None
        match = _REFERENCE.match(text)
        if match is None:
            return None
        return cls(match["name"], match["tag"] or ("" if match["digest"] else "latest"), match["digest"] or "")

    @property
    def is_floating(self) -> bool:
        """Whether the tag names no version at all, so that nobody can tell what a new container would be."""
        return not self.digest and not any(character.isdigit() for character in self.tag)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest[:19]}…" if self.digest else "")

    @property
    def tagged(self) -> str:
        """Return name and tag."""
        return f"{self.name}:{self.tag}"


def reference_of(container: Running) -> Reference | None:
    """Return what a container was started from; ``None`` for the beginning of an image id too, which the engine takes as well."""
    given = container.reference
    return None if len(given) > 2 and container.image.startswith(given) else Reference.of(given)


def current_finding(engine: Engine, container: Running, remote: bool) -> Finding:
    """Compare what a container runs with what its reference points to now, locally and (where asked) in the registry."""
    reference = reference_of(container)
    if reference is None:
        said = f"It was started from an image id, {container.image[:12]}, for which no tag stands."
        return _judged("unknown", container, said, "Start it from a tag or a digest, so that updates can be told.")
    if reference.digest and not reference.tag:
        return _judged("ok", container, f"It is pinned to a digest, {reference}.")
    try:
        local = engine.image(container.reference)
        running = local if local and local.id == container.image else engine.image(container.image)
        if local is None:
            return _judged(
                "unknown", container, f"{reference} is not on this host any more.", "Pull it, and see whether the container is current."
            )
        if local.id != container.image:
            said = f"It runs {container.image[:12]}, and {reference} is {local.id[:12]} now."
            return _judged("warning", container, said, "Recreate the container from its tag, after a backup and with a test.")
        return (
            _against_registry(engine, container, reference, running)
            if remote
            else _judged("ok", container, f"It runs what {reference} is here.")
        )
    except MaintenanceError as error:
        return _judged("unknown", container, f"What {reference} is now is not known: {error}", "Let the engine and the registry answer.")


def _against_registry(engine: Engine, container: Running, reference: Reference, running: Image | None) -> Finding:
    if running is None or not running.digests:
        return _judged(
            "unknown", container, f"{reference} was built here; no registry knows it.", "Name it in ignore, or push what is built."
        )
    digest = engine.remote_digest(reference.tagged)
    if digest in running.digests:
        return _judged("ok", container, f"It runs what {reference} is in the registry.")
    said = f"The registry has another {reference}: {digest[:19]}…"
    return _judged("warning", container, said, "Pull, test and recreate it; never across a major version of a database.")


def _judged(state: str, container: Running, summary: str, advice: str = "") -> Finding:
    evidence = [f"image {container.reference}", f"runs {container.image}"]
    return Finding("container.image_current", state, container.name, summary, advice=advice, evidence=evidence)


def floating_finding(containers: t.Sequence[Running]) -> Finding:
    """Name the containers whose tag says no version."""
    found = [(c.name, r) for c, r in ((c, reference_of(c)) for c in containers) if r and r.is_floating]
    return Finding(
        "container.floating_tag",
        "warning" if found else "ok",
        "containers",
        f"{many(len(found), 'container')} of {len(containers)} started from a tag without a version.",
        len(found),
        "count",
        "warning from 1",
        advice="Name a version, or better a digest, so that a new container is what was tested." if found else "",
        evidence=[f"{name}: {reference}" for name, reference in found][:20],
    )


def restart_finding(containers: t.Sequence[Running]) -> Finding:
    """Name the containers that a reboot would leave stopped."""
    found = [container.name for container in containers if not container.comes_back]
    return Finding(
        "container.restart_policy",
        "warning" if found else "ok",
        "containers",
        f"{many(len(found), 'container')} of {len(containers)} would not come back after a reboot.",
        len(found),
        "count",
        "warning from 1",
        advice="Give them the restart policy unless-stopped or always, or name those that are meant to end in ignore." if found else "",
        evidence=found[:20],
    )


def gone_finding(before: t.Iterable[str], containers: t.Sequence[Running], ignored: t.Sequence[str]) -> Finding:
    """Name the containers that ran at the last run and do not now."""
    there = {container.name for container in containers}
    gone = sorted(name for name in before if name not in there and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored))
    return Finding(
        "container.gone",
        "warning" if gone else "ok",
        "containers",
        f"{many(len(gone), 'container')} that ran at the last run {'does' if len(gone) == 1 else 'do'} not run now.",
        len(gone),
        "count",
        "warning from 1",
        advice="Look at its log and start it; nothing is to be done where it was replaced or taken out on purpose." if gone else "",
        evidence=gone[:20],
    )


def scan_finding(host: Host, image: str, names: t.Sequence[str], params: t.Mapping[str, t.Any]) -> tuple[Finding, list[Metric]]:
    """Let a scanner look at the very image that runs; one whose database is old is not believed when it finds nothing."""
    subject = ", ".join(names)
    advice = "Install trivy or grype, and let it fetch its database."
    try:
        scanner = image_scan.choose(params["scanner"], host)
        scanned = image_scan.scan(host, scanner, image, params["scan_timeout_seconds"])
    except MaintenanceError as error:
        return unknown("container.vulnerable", subject, f"Its vulnerabilities are not known: {error}", advice), []
    found = image_scan.at_least(scanned.found, params["scan_severity"])
    found = [one for one in found if one.fixed or not params["scan_only_fixed"]]
    counts = image_scan.counted(scanned.found)
    metrics = [Metric(f"container.vulnerable_{severity}", subject, n, "count") for severity, n in counts.items()]
    age = image_scan.age_days(scanned, host.now())
    old = age is None or age > params["scan_database_days"]
    if not found and (old or scanned.ended):
        shown = "of an unknown age" if age is None else f"{age:.1f} days old"
        why = f"its database is {shown}" if old else f"support of {scanned.ended} has ended, so that none is listed any more"
        return unknown("container.vulnerable", subject, f"{scanner} found nothing that counts, but {clean(why, 200)}.", advice), metrics
    critical = any(one.severity == "critical" for one in found)
    what = f"{many(len(found), 'vulnerability', 'vulnerabilities')} of severity {params['scan_severity']} or worse"
    return Finding(
        "container.vulnerable",
        "critical" if critical else "warning" if found else "ok",
        subject,
        f"{scanner} found {what}.",
        len(found),
        "count",
        f"warning from 1 {params['scan_severity']}, critical from 1 critical",
        basis="stale" if old else "exact",
        as_of=scanned.database.isoformat() if old and scanned.database else "",
        not_covered=_not_scanned(scanned, counts["unknown"], params["scan_only_fixed"]),
        advice="Rebuild or pull the image with the fixed versions, test it, and recreate the container." if found else "",
        evidence=[one.line for one in found[:20]],
    ), metrics


def _not_scanned(scanned: image_scan.Scan, unrated: int, only_fixed: bool) -> str:
    """Name what the verdict on an image says nothing of."""
    gaps = {
        "packages of the system, which was not recognised": not scanned.knows_system,
        f"{many(unrated, 'vulnerability', 'vulnerabilities')} without a severity": unrated,
        "vulnerabilities without a fix": only_fixed,
    }
    return ", ".join(gap for gap, there in gaps.items() if there)


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("scan_database_days",)) + out_of_range(params, ("scan_timeout_seconds", "registry_timeout_seconds"), 1)
    return problems + [
        str(InputError.of("ignore", name, "the name of a container or a pattern", "remove it")) for name in params["ignore"] if not name
    ]


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every container that runs."""
    refuse(input_problems(params))
    names = ("docker", "podman") if params["engine"] == "auto" else (params["engine"],)
    command = next((name for name in names if host.which(name)), "")
    if not command and params["engine"] == "auto":
        return Outcome("containers", "container_images", "skipped", "not configured: no container engine is installed")
    engine = Engine(host, command or params["engine"], params["registry_timeout_seconds"])
    try:
        containers = [c for c in engine.containers() if not any(fnmatch.fnmatchcase(c.name, pattern) for pattern in params["ignore"])]
    except MaintenanceError as error:
        advice = "Start the engine, or run as a user who may ask it."
        finding = unknown("container.image_current", "containers", f"What runs is not known: {clean(str(error))}", advice)
        return Outcome("containers", "container_images", "ok", finding.summary, findings=[finding])
    findings = [current_finding(engine, container, params["remote"]) for container in containers] + [floating_finding(containers)]
    findings += [restart_finding(containers), gone_finding(read_state(params["state_dir"], _STATE), containers, params["ignore"])]
    metrics = [Metric("container.running", "containers", len(containers), "count")]
    if params["scanner"] != "none":
        for image in sorted({container.image for container in containers}):
            finding, more = scan_finding(host, image, [c.name for c in containers if c.image == image], params)
            findings.append(finding)
            metrics += more
    return _outcome(params, check_mode, engine, containers, findings, metrics)


def _outcome(
    params: t.Mapping[str, t.Any],
    check_mode: bool,
    engine: Engine,
    containers: list[Running],
    findings: list[Finding],
    metrics: list[Metric],
) -> Outcome:
    before = read_state(params["state_dir"], _STATE)
    after = {container.name: _digest(engine, container) for container in containers}
    if not check_mode and after != before:
        findings = [*findings, *keep_state(params["state_dir"], _STATE, after)]
    changed = sum(before.get(name) not in (None, digest) for name, digest in after.items())
    return Outcome(
        subject="containers",
        operation="container_images",
        status="ok",
        summary=f"{many(len(containers), 'container')}, {changed} of another image than at the last run",
        before=before,
        after=after,
        findings=findings,
        metrics=metrics,
    )


def _digest(engine: Engine, container: Running) -> str:
    """Return under which digest the world knows the image that runs, its id where no registry does."""
    try:
        image = engine.image(container.image)
    except MaintenanceError:
        image = None
    return image.digests[0] if image and image.digests else f"id {container.image}"
