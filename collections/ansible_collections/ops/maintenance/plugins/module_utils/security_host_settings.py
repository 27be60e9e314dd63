# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the host as its files have them: login.defs, umasks, limits, what systemd-coredump keeps."""

from __future__ import annotations

import glob
import os
import re
import typing as t

from .security_common import read_small

Read = t.Callable[[str], str]

_PROFILES = ("profile", "profile.d/*.sh", "bash.bashrc", "bashrc", "zsh/zprofile", "zshenv", "csh.login", "csh.cshrc")
_PAM = ("common-session", "common-session-noninteractive", "postlogin", "system-auth", "password-auth", "sshd", "login")
_UMASK = re.compile(r"(?:^|[;&|{(]|\bthen\b|\belse\b)\s*umask\s+(?:-S\s+)?[\"']?([0-7]{1,4}\b|[ugoa]*[=+-][rwx]*(?:,[ugo]*=[rwx]*)*)")
_PAM_UMASK = re.compile(r"^-?session\s.*\bpam_umask\.so\b(.*)$", re.M)
_BITS = {"r": 4, "w": 2, "x": 1}


def text_of(path: str) -> str:
    """Return the text of a file; one that is not there is empty."""
    try:
        return read_small(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def login_defs(text: str) -> dict[str, str]:
    """Return the settings of login.defs; the last one of a name counts."""
    pairs = (line.split(None, 1) for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


class Umask(t.NamedTuple):
    """A umask that is set somewhere.

    :param is_for_sessions: whether those who log in get it; what login.defs says is only used where something reads it.
    """

    where: str
    mask: int
    is_for_sessions: bool


def mask_of(text: str) -> int | None:
    """Return what a umask takes away, given in octal or as what is left (``u=rwx,g=rx,o=``); None where neither can be told."""
    if re.fullmatch(r"[0-7]{1,4}", text):
        return int(text, 8)
    left: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([ugoa]*)=([rwx]*)", part)
        if match is None:
            return None
        for who in "ugo" if match[1] in ("", "a") else match[1]:
            left[who] = sum(_BITS[bit] for bit in set(match[2]))
    return sum((7 - left.get(who, 0)) * place for who, place in (("u", 64), ("g", 8), ("o", 1)))


def umasks(etc: str, read: Read) -> list[Umask]:
    """Return every umask that the host sets for those who log in, in the order of the files."""
    found = []
    default = mask_of(login_defs(read(os.path.join(etc, "login.defs"))).get("UMASK", ""))
    by_pam = [words for name in _PAM for words in _PAM_UMASK.findall(read(os.path.join(etc, "pam.d", name)))]
    own = [match[1] for words in by_pam if (match := re.search(r"\bumask=(\S+)", words))]
    if default is not None:
        found.append(Umask("login.defs", default, len(own) < len(by_pam)))
    found += [Umask("pam_umask", mask, True) for text in dict.fromkeys(own) if (mask := mask_of(text)) is not None]
    for path in (path for pattern in _PROFILES for path in sorted(glob.glob(os.path.join(glob.escape(etc), pattern)))):
        for line in read(path).splitlines():
            for text in _UMASK.findall(line.partition("#")[0]):
                mask = mask_of(text)
                if mask is not None:
                    found.append(Umask(os.path.relpath(path, etc), mask, True))
    return found


def hard_core_limit(etc: str, read: Read) -> str:
    """Return the hard limit that pam_limits sets for core dumps of everybody; empty where it sets none. The last line counts."""
    limit = ""
    folder = os.path.join(etc, "security")
    for path in [os.path.join(folder, "limits.conf"), *sorted(glob.glob(os.path.join(glob.escape(folder), "limits.d", "*.conf")))]:
        for line in read(path).splitlines():
            words = line.partition("#")[0].split()
            if len(words) == 4 and words[0] == "*" and words[1] in ("hard", "-") and words[2] == "core":
                limit = words[3]
    return limit


def coredump(root: str, read: Read) -> dict[str, str]:
    """Return what systemd-coredump is told, of the main file and of those that go before it."""
    folders = [os.path.join(root, name, "systemd") for name in ("usr/lib", "run", "etc")]
    mains = [os.path.join(folder, "coredump.conf") for folder in folders]
    parts = {
        os.path.basename(path): path
        for folder in folders
        for path in glob.glob(os.path.join(glob.escape(folder), "coredump.conf.d", "*.conf"))
    }
    main = next((path for path in reversed(mains) if os.path.exists(path)), mains[-1])
    said = "\n".join(read(path) for path in [main, *(parts[name] for name in sorted(parts))])
    return dict(re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", said, re.M))


def system_name(os_release: str) -> str:
    """Return the name of the system, such as ``Debian``."""
    match = re.search(r"^NAME=\"?(\w+)", os_release, re.M)
    return match[1] if match else ""
