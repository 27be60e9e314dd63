# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""certbot at work: a renewal, or a rehearsal of one, and what it said of it."""

from __future__ import annotations

import re
import typing as t

from .certbot_files import Lineage
from .errors import MaintenanceError
from .host import Host
from .record import Finding, clean, unknown

_WITH_TEST_SERVICE = re.compile(r"https://acme-(?:staging-)?v\d+\.api\.letsencrypt\.org/directory")
_UNREACHABLE = re.compile(
    r"Max retries exceeded|NameResolutionError|name resolution|Network is unreachable|Connection refused|timed? ?out|No route to host",
    re.IGNORECASE,
)
_JUDGED = re.compile(r"^  Detail: (.*)$", re.MULTILINE)
_FAILED = re.compile(r"^(?:Failed to renew .*|All (?:simulated )?renewals failed.*)$", re.MULTILINE)


class Renewed(t.NamedTuple):
    """How certbot ended; ``is_reached`` is false where it did not get an answer of the authority."""

    is_well: bool
    said: str
    is_reached: bool = True


def heard(is_well: bool, text: str, otherwise: str) -> Renewed:
    """Read what certbot printed; what the authority itself could not reach is the host's fault and not the authority's silence."""
    judged, failed = _JUDGED.search(text), _FAILED.search(text)
    silent = next((line.strip() for line in text.splitlines() if _UNREACHABLE.search(line)), "")
    is_reached = bool(is_well or judged or not silent)
    said = judged[1] if judged else silent or (failed[0] if failed else otherwise)
    return Renewed(is_well and failed is None and "simulated renewals failed" not in text, clean(said, 300), is_reached)


def run(host: Host, params: t.Mapping[str, t.Any], *arguments: str) -> Renewed:
    """Run ``certbot renew``.

    :raises MaintenanceError: certbot is missing or did not end in time.
    """
    folders = [f"--{name.replace('_', '-')}={params[name]}" for name in ("config_dir", "work_dir", "logs_dir")]
    argv = ["certbot", "renew", "--non-interactive", "--no-random-sleep-on-renew", *folders, *arguments]
    trust = params["authority_ca_file"]
    ran = host.run(argv, timeout=params["timeout_seconds"], env={"REQUESTS_CA_BUNDLE": trust} if trust else None)
    return heard(ran.rc == 0, f"{ran.stdout}\n{ran.stderr}", ran.why())


def rehearsal(host: Host, params: t.Mapping[str, t.Any], lineage: Lineage) -> Finding:
    """Let certbot rehearse a renewal with the authority that the certificate is of.

    Without a server certbot rehearses with the test service of Let's Encrypt, whatever authority the certificate is of.
    """
    server = lineage.settings.get("server", "")
    with_own = [f"--server={server}"] if server and not _WITH_TEST_SERVICE.fullmatch(server) else []
    try:
        ran = run(host, params, "--dry-run", f"--cert-name={lineage.name}", *with_own)
    except MaintenanceError as error:
        ran = Renewed(False, str(error), False)
    if ran.is_well:
        return Finding("certificate.rehearsal", "ok", lineage.name, "A rehearsed renewal succeeded.")
    if not ran.is_reached:
        advice = "Let the host reach the authority, or look from where it can; until then nobody knows whether a renewal works."
        return unknown("certificate.rehearsal", lineage.name, f"Whether a renewal would succeed is not known: {ran.said}", advice)
    advice = "Correct what the authority could not check (DNS, port 80, the plugin) before the certificate ends."
    return Finding("certificate.rehearsal", "warning", lineage.name, f"A rehearsed renewal failed: {ran.said}", advice=advice)
