# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether dnf-automatic, where it is on, wants the same as the inventory."""

from __future__ import annotations

import configparser
import fnmatch
import re
import typing as t

from .apt_health import is_kept
from .host import Host
from .package_plan import Rules
from .record import Finding, clean

CONFIG, MAIN = "/etc/dnf/automatic.conf", "/etc/dnf/dnf.conf"
INSTALL, BY_CONFIG = "dnf-automatic-install.timer", "dnf-automatic.timer"
_YES = ("yes", "true", "1", "on")
Config = t.Mapping[str, t.Mapping[str, str]]


def read(path: str) -> dict[str, dict[str, str]]:
    """Read a file of dnf's settings; one that is not there says nothing.

    :raises ValueError: it cannot be read.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise ValueError(clean(f"{path}: {error}", 200)) from None
    return {section: dict(parser[section]) for section in parser.sections()}


def problems(automatic: Config, main: Config, timers: t.Collection[str], names: t.Iterable[str], rules: Rules) -> list[str]:
    """Return where dnf-automatic, when it is on, works against what the inventory says.

    :param timers: those of its timers that are on.
    """
    commands = automatic.get("commands", {})
    applies = commands.get("apply_updates", "no").strip().lower() in _YES
    if INSTALL not in timers and not (applies and BY_CONFIG in timers):
        return []
    excluded = [*_words(automatic.get("base", {})), *_words(main.get("main", {}))]
    kept = sorted(name for name in names if is_kept(name, rules) and not any(fnmatch.fnmatchcase(name, one) for one in excluded))
    found = [f"it may update {', '.join(kept[:5])}{' and more' if len(kept) > 5 else ''}, which the inventory keeps"] if kept else []
    if commands.get("reboot", "never").strip().lower() != "never":
        found.append("it reboots the host by itself")
    return found


def _words(section: t.Mapping[str, str]) -> list[str]:
    return [word for option in ("excludepkgs", "exclude") for word in re.split(r"[\s,]+", section.get(option, "")) if word]


def finding(host: Host, packages: t.Collection[str], rules: Rules) -> Finding:
    """Judge whether dnf-automatic and this role want the same."""
    common: dict[str, t.Any] = {"id": "patching.unattended", "subject": "dnf-automatic"}
    if "dnf-automatic" not in packages:
        return Finding(state="ok", summary="dnf-automatic is not installed.", **common)
    timers = [timer for timer in (INSTALL, BY_CONFIG) if host.run(["systemctl", "is-enabled", timer]).rc == 0]
    try:
        found = problems(read(CONFIG), read(MAIN), timers, packages, rules)
    except ValueError as error:
        advice = "Repair the file; without it nobody knows what dnf-automatic updates."
        return Finding(state="unknown", summary=f"The configuration of dnf-automatic cannot be read: {error}", advice=advice, **common)
    if not found:
        return Finding(state="ok", summary="dnf-automatic does nothing that the inventory forbids.", **common)
    advice = "Name these packages in excludepkgs of /etc/dnf/automatic.conf ([base]) as well, and let this role reboot."
    return Finding(state="warning", summary=f"dnf-automatic is on, and {'; '.join(found)}.", advice=advice, **common)
