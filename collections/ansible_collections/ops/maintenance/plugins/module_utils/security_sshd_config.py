# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that sshd reads: which connections its Match blocks treat apart, and which of them changed."""

from __future__ import annotations

import glob
import grp
import ipaddress
import os
import re
import shlex
import typing as t
from dataclasses import dataclass, field

from .security_common import read_small, shown

_KEYWORD = re.compile(r"([^\s=]*)[\s=]*(.*)", re.DOTALL)
_PLAIN = re.compile(r"[\w.@:/+-]+\Z")
_KEYS = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
_DEFAULTS = {"user": "root", "host": "localhost", "addr": "127.0.0.1", "laddr": "127.0.0.1", "lport": "22"}
_DEPTH = 8


@dataclass
class Config:
    """What the configuration files hold, as far as it matters here."""

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    blocks: list[str] = field(default_factory=list)
    keywords: set[str] = field(default_factory=set)


def read(path: str) -> Config:
    """Read the main file and what it includes.

    :raises OSError: a file could not be read.
    """
    config = Config()
    _read(path, os.path.dirname(path), config, _DEPTH)
    return config


def _read(path: str, base: str, config: Config, depth: int) -> None:
    config.files.append(path)
    for line in read_small(path).decode("utf-8", "replace").splitlines():
        keyword, rest = _KEYWORD.match(line.strip()).groups()  # type: ignore[union-attr]
        config.keywords.add(keyword.lower())
        if keyword.lower() == "match":
            config.blocks.append(rest)
        elif keyword.lower() == "include" and depth:
            for pattern in _words(rest):
                absolute = os.path.join(base, pattern)
                config.folders.add(os.path.dirname(absolute))
                for found in sorted(glob.glob(absolute)):
                    _read(found, base, config, depth - 1)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def connections(blocks: t.Iterable[str]) -> tuple[list[str], list[str]]:
    """Return a connection for each Match block, as ``sshd -C`` wants it, and the blocks for which none could be made up."""
    found, unclear = [], []
    for block in blocks:
        connection = _connection(_words(block.replace("=", " ")))
        if connection is None:
            unclear.append(f"Match {shown(block)[:80]}")
        elif connection not in found:
            found.append(connection)
    return found, unclear


def _connection(words: t.Sequence[str]) -> str | None:
    values = dict(_DEFAULTS)
    if [word.lower() for word in words] == ["all"]:
        words = []
    for criterion, patterns in zip(words[::2], words[1::2]):
        name, value = criterion.lower(), next(filter(_PLAIN.match, patterns.split(",")), "")
        if name == "group":
            name, value = "user", _member(value)
        elif name in ("address", "localaddress"):
            value = _address(value)
        if name not in _KEYS or not value:
            return None
        values[_KEYS[name]] = value
    if len(words) % 2:
        return None
    return ",".join(f"{name}={value}" for name, value in values.items())


ANYBODY = ",".join(f"{name}={value}" for name, value in _DEFAULTS.items())
"""A connection that no block is about."""


def _member(group: str) -> str:
    try:
        return next(iter(grp.getgrnam(group).gr_mem), "")
    except KeyError:
        return ""


def _address(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ""
    return str(network[1] if network.num_addresses > 1 else network[0])


def changed_since(config: Config, moment: float) -> list[str]:
    """Return the files that changed after a moment, and folders in which one came or went."""
    found = []
    for path in [*config.files, *sorted(config.folders)]:
        try:
            if os.stat(path).st_ctime > moment + 1:
                found.append(shown(path))
        except FileNotFoundError:
            continue
    return found
