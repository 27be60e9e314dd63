# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""certbot's own folder: which certificates it renews, and the files that stand for each."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass

from . import security_x509
from .errors import MaintenanceError
from .host import Host
from .record import Finding, unknown
from .security_common import read_small, shown, why_unread
from .security_x509 import Certificate

_SETTING = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=\s*(.*?)\s*$", re.M)
_DAYS = re.compile(r"^(\d+) days?$")
_TIMERS = ("certbot.timer", "certbot-renew.timer", "snap.certbot.renew.timer")
_FILES = ("cert", "privkey", "chain", "fullchain")


def parse_renewal(text: str) -> dict[str, str]:
    """Read a renewal file (``key = value`` lines, in sections whose names do not matter here)."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
    return dict(_SETTING.findall(lines))


@dataclass(frozen=True)
class Lineage:
    """One certificate that certbot keeps; ``settings`` are those of its renewal file."""

    name: str
    folder: str
    settings: t.Mapping[str, str]

    def path(self, kind: str) -> str:
        """Return where its ``cert``, ``privkey``, ``chain`` or ``fullchain`` lies."""
        return self.settings.get(kind) or os.path.join(self.folder, "live", self.name, f"{kind}.pem")

    @property
    def renew_before_days(self) -> float | None:
        """Return how early it is to be renewed, where its renewal file says so in days."""
        stated = _DAYS.match(self.settings.get("renew_before_expiry", ""))
        return float(stated[1]) if stated else None

    @property
    def has_hook(self) -> bool:
        """Whether something is run once it was renewed."""
        return bool(self.settings.get("renew_hook") or self.settings.get("deploy_hook")) or has_deploy_hook(self.folder)

    def check_paths(self) -> None:
        """Refuse files that lead out of certbot's folder or nowhere.

        :raises MaintenanceError: says which.
        """
        root = os.path.realpath(self.folder)
        for kind in _FILES:
            path = self.path(kind)
            real = os.path.realpath(path)
            if os.path.commonpath([root, real]) != root:
                raise MaintenanceError(f"{shown(path)} leads out of {shown(self.folder)}; look why, and let certbot make it anew")
            if not os.path.isfile(real):
                raise MaintenanceError(f"{shown(path)} is not there; repair it with certbot update_symlinks, or order the certificate anew")

    def chain(self, host: Host) -> list[Certificate]:
        """Read what a server is to send: the certificate and those between it and a root.

        :raises MaintenanceError: a file is missing, leads elsewhere or holds no certificate.
        """
        self.check_paths()
        path = self.path("fullchain")
        try:
            blocks, form = security_x509.split(read_small(path))
        except OSError as error:
            raise MaintenanceError(f"{shown(path)} could not be read: {why_unread(error)}") from error
        if not blocks or form:
            raise MaintenanceError(f"{shown(path)}: {form}")
        return [security_x509.read(host, block) for block in blocks]

    def disorder(self, host: Host, chain: t.Sequence[Certificate]) -> str:
        """Say where its files do not belong together; empty when they do."""
        blocks, _form = security_x509.split(read_small(self.path("cert")))
        if not blocks or security_x509.fingerprint(blocks[0]) != chain[0].fingerprint:
            return "cert.pem is not the first certificate of fullchain.pem"
        private = security_x509.public_key_of_private(host, self.path("privkey"))
        if not private or private != security_x509.public_key(host, chain[0].pem.encode()):
            return "privkey.pem does not belong to the certificate"
        return security_x509.order_problem(chain)


def lineages(folder: str) -> list[Lineage]:
    """Read the renewal files.

    :raises MaintenanceError: the folder or one of them cannot be read.
    """
    renewal = os.path.join(folder, "renewal")
    try:
        names = sorted(name for name in os.listdir(renewal) if name.endswith(".conf"))
        texts = {name[: -len(".conf")]: read_small(os.path.join(renewal, name)).decode("utf-8", "replace") for name in names}
    except OSError as error:
        raise MaintenanceError(f"{shown(renewal)} could not be read: {why_unread(error)}") from error
    return [Lineage(name, folder, parse_renewal(text)) for name, text in texts.items()]


def has_deploy_hook(folder: str) -> bool:
    """Whether certbot's folder has a program that runs after every renewal."""
    hooks = os.path.join(folder, "renewal-hooks", "deploy")
    try:
        return any(os.access(os.path.join(hooks, name), os.X_OK) for name in os.listdir(hooks))
    except OSError:
        return False


def timer_finding(host: Host, found: t.Sequence[Lineage], taken_up: t.Collection[str]) -> Finding:
    """Judge whether certificates are renewed without this run, and something takes the new ones up.

    :param taken_up: names of certificates for which this run reloads something.
    """
    units = {unit: host.run(["systemctl", "is-active", unit]).stdout.strip() for unit in _TIMERS} if host.which("systemctl") else {}
    if not set(units.values()) & {"active", "inactive", "failed"}:
        return unknown("certificate.timer", "certbot", "Whether a timer renews is not known: systemd does not answer.", "Look by hand.")
    active = [unit for unit, state in units.items() if state == "active"]
    silent = [lineage.name for lineage in found if not lineage.has_hook and lineage.name not in taken_up]
    problem = "" if active else "No timer of certbot is active."
    if not problem and silent:
        problem = f"Nothing is reloaded after a renewal of {', '.join(silent[:5])}."
    return Finding(
        "certificate.timer",
        "warning" if problem else "ok",
        "certbot",
        problem or f"{active[0]} renews, and what serves the certificates is reloaded.",
        advice="Enable certbot.timer, and give certbot a deploy hook that reloads the service." if problem else "",
    )
