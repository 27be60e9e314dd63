# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a backup is encrypted, told by its first bytes, never by its name."""

from __future__ import annotations

import re
import typing as t

from .errors import MaintenanceError
from .paths import open_regular

_BEGINNINGS = (
    (b"age-encryption.org/v1\n", "age"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "age"),
    (b"-----BEGIN PGP MESSAGE-----", "OpenPGP"),
    (b"Salted__", "openssl enc"),
    (b"LUKS\xba\xbe", "LUKS"),
)
# The first packet of an OpenPGP message: a session key for a public key (version 3 or 6) or for a passphrase (version 4 to 6).
_OPENPGP = re.compile(
    rb"(?:\x84.|\x85..|\xc1[^\xc0-\xff]|\xc1[\xc0-\xdf].)[\x03\x06]|(?:\x8c.|\x8d..|\xc3[^\xc0-\xff])[\x04\x05\x06]", re.S
)
_SECRET = re.compile(r"^(pass|env):|^--?(pass(phrase|word)?|k)(=.|$)", re.I)


def encryption_of(first: bytes) -> str:
    """Name what the first bytes of a file say it is encrypted with; empty when they say nothing of the kind."""
    for beginning, name in _BEGINNINGS:
        if first.startswith(beginning):
            return name
    return "OpenPGP" if _OPENPGP.match(first) else ""


def encryption_of_file(path: str) -> str:
    """Name what a file is encrypted with.

    :raises OSError: it cannot be read.
    """
    try:
        with open_regular(path) as source:
            return encryption_of(source.read(64))
    except MaintenanceError:
        return ""


def command_problems(command: t.Sequence[str], option: str) -> t.Iterator[str]:
    """Say why a command for decryption is refused: every user of the host can read a command line."""
    for number, argument in enumerate(command):
        if number and _SECRET.match(argument) and not argument.lower().startswith(("env:", "-pass", "--passphrase-f")):
            yield f"{option} has a secret among its arguments, expected a key file or agent; every user of the host can read a command line."
            return
