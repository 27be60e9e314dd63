# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes an account easy to take over: weak password hashes, sudo without a password, administrators nobody declared, weak keys."""

from __future__ import annotations

import os
import re
import struct
import tempfile
import typing as t
from datetime import datetime

from . import security_accounts, security_authorized_keys, security_sudo_rights
from .errors import MaintenanceError, out_of_range
from .judge import many
from .record import Finding, clean
from .security_accounts import ADMIN_GROUPS, Account
from .security_authorized_keys import Key
from .security_common import Review, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "sudo_nopasswd": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "rsa_minimum_bits": {"type": "int", "default": 2048},
}
IDS = ("security.password_hash", "security.sudo_nopasswd", "security.admin_groups", "security.key_strength")

_WEAK_HASHES = {"1": "MD5", "md5": "MD5 (Sun)", "sha1": "SHA-1", "3": "NT", "2": "old Blowfish", "2x": "old Blowfish"}
_DES = re.compile(r"(?:[./0-9A-Za-z]{13}|_[./0-9A-Za-z]{19})$")
_NOT_A_RULE = re.compile(r"(?:Defaults|User_Alias|Runas_Alias|Host_Alias|Cmnd_Alias|Cmd_Alias)\b")
_WHO = re.compile(r"[^\s,]*(?:\s*,\s*[^\s,]+)*")
_OPTION = re.compile(r"[A-Z_]+=\S+")
_RUN_AS = re.compile(r"\([^)]*\)")
_READ = "Run with become: true so that it can be read."


def look(review: Review) -> list[Finding]:
    """Judge each of the four."""
    try:
        accounts = security_accounts.accounts(review.etc)
    except (OSError, MaintenanceError) as error:
        return [unknown(name, "accounts", f"the accounts could not be read: {why_unread(error)}", _READ) for name in IDS]
    findings = [_hashes(review), *_sudo(review), _keys(review, accounts)]
    if review.params["roster"] is not None:
        findings.append(_admins(review, accounts))
    return findings


def weak_hash(word: str) -> str:
    """Name the weak method that a shadow entry was made with; empty for good ones and for entries that no password fits."""
    if word.startswith("$"):
        return _WEAK_HASHES.get(word.split("$")[1].split(",")[0], "")
    return "DES" if _DES.match(word) else ""


def _hashes(review: Review) -> Finding:
    try:
        shadows = security_accounts.shadows(review.etc)
    except (OSError, MaintenanceError) as error:
        return unknown(IDS[0], "accounts", f"the shadow file could not be read: {why_unread(error)}", _READ)
    weak = [f"{name}: {weak_hash(shadow.word)}" for name, shadow in sorted(shadows.items()) if weak_hash(shadow.word)]
    return Finding(
        IDS[0],
        "warning" if weak else "ok",
        "accounts",
        f"{many(len(weak), 'password')} kept in a way that is quickly guessed",
        value=len(weak),
        unit="count",
        threshold="warning from 1 (DES, MD5, SHA-1, NT, old Blowfish)",
        advice="Set ENCRYPT_METHOD to YESCRYPT or SHA512, then have these passwords set anew." if weak else "",
        evidence=weak[:20],
    )


def nopasswd_all(rules: t.Sequence[str]) -> list[tuple[str, str]]:
    """Return who may run everything without a password, with the rule that says so."""
    aliases = security_sudo_rights.aliases(rules, "Cmnd")
    found = []
    for rule in rules:
        if rule.startswith("Defaults"):
            if re.search(r"[\s,]!authenticate\b", rule):
                found.append((_of_defaults(rule), rule))
        elif not _NOT_A_RULE.match(rule) and "=" in rule and _is_all_without_password(rule.split("=", 1)[1], aliases):
            found += [(who.strip(), rule) for who in _WHO.match(rule)[0].split(",")]  # type: ignore[index]
    return found


def _of_defaults(rule: str) -> str:
    scope = rule.split()[0][len("Defaults") :]
    return scope.lstrip(":") if scope.startswith(":") else "ALL"


def _is_all_without_password(commands: str, aliases: t.Mapping[str, str]) -> bool:
    """Read a list of commands from left to right, for a tag holds until the opposite one comes."""
    free = False
    for command in _RUN_AS.sub("", commands).split(","):
        *tags, last = (part.strip() for part in command.split(":"))
        free = free or any(tag.endswith("NOPASSWD") for tag in tags)
        if any(re.search(r"(?<!NO)PASSWD$", tag) for tag in tags):
            free = False
        if free and not last.startswith("!") and security_sudo_rights.means_all(_OPTION.sub("", last).strip(), aliases):
            return True
    return False


def _sudo(review: Review) -> list[Finding]:
    path = os.path.join(review.etc, "sudoers")
    if not os.path.lexists(path):
        return []
    try:
        rules = [rule for lines in security_accounts.sudo_rules(path).values() for rule in lines]
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[1], path, f"the rules could not be read: {why_unread(error)}", _READ)]
    found = [f"{who}: {clean(rule, 200)}" for who, rule in nopasswd_all(rules) if who not in review.params["sudo_nopasswd"]]
    return [
        Finding(
            IDS[1],
            "warning" if found else "ok",
            path,
            f"{many(len(found), 'undeclared rule lets', 'undeclared rules let')} somebody do everything without a password",
            value=len(found),
            unit="count",
            threshold="warning from 1 that security_review_sudo_nopasswd does not name",
            advice="Narrow the rule to the commands that are needed, ask for a password, or declare it." if found else "",
            evidence=found[:20],
        )
    ]


def _admins(review: Review, accounts: t.Mapping[str, Account]) -> Finding:
    declared = {entry["account"] for entry in review.params["roster"] if entry["admin"]} | {"root"}
    groups = {name: sorted(set(account["groups"]) & ADMIN_GROUPS) for name, account in accounts.items()}
    undeclared = [f"{name}: {', '.join(held)}" for name, held in sorted(groups.items()) if held and name not in declared]
    return Finding(
        IDS[2],
        "warning" if undeclared else "ok",
        "accounts",
        f"{many(len(undeclared), 'account')} in a group of administrators that the roster does not call one",
        value=len(undeclared),
        unit="count",
        threshold="warning from 1",
        not_covered=", ".join(f"accounts of {name}" for name in security_accounts.directories(review.etc)),
        advice="Take them out of these groups, or declare them with admin: true." if undeclared else "",
        evidence=undeclared[:20],
    )


def key_faults(key: Key, minimum_bits: int, now: datetime) -> list[str]:
    """Say what is weak about a key or dangerous about its options."""
    faults = []
    if "dss" in key.kind or "dsa-" in key.kind.replace("ecdsa-", ""):
        faults.append("DSA, which is broken")
    bits = rsa_bits(key.blob)
    if bits is not None and bits < minimum_bits:
        faults.append(f"RSA with {bits} bits")
    names = {name.lower() for name in re.findall(r"(?:^|,)([\w-]+)", re.sub(r'"(?:[^"\\]|\\.)*"', "", key.options))}
    if "cert-authority" in names:
        faults.append("an authority: whoever holds it lets anybody in")
    if "environment" in names:
        faults.append("sets environment variables")
    ends = re.search(r'expiry-time="(\d{8})', key.options)
    if ends and ends[1] < now.strftime("%Y%m%d"):
        faults.append("its time is over")
    return faults


def rsa_bits(blob: bytes) -> int | None:
    """Return the length of an RSA key's modulus; None for other keys and for what is cut off."""
    fields = list(_fields(blob))
    if len(fields) < 3 or fields[0] not in (b"ssh-rsa", b"ssh-rsa-cert-v01@openssh.com"):
        return None
    modulus = fields[2] if fields[0] == b"ssh-rsa" else fields[3] if len(fields) > 3 else b""
    return int.from_bytes(modulus, "big").bit_length()


def _fields(blob: bytes) -> t.Iterator[bytes]:
    place = 0
    while place + 4 <= len(blob):
        (length,) = struct.unpack_from(">I", blob, place)
        if place + 4 + length > len(blob):
            return
        yield blob[place + 4 : place + 4 + length]
        place += 4 + length


def _keys(review: Review, accounts: t.Mapping[str, Account]) -> Finding:
    places = security_authorized_keys.places(review)
    texts, unread = security_authorized_keys.key_files(accounts, places.patterns)
    gaps = [*places.gaps, *list(unread.values())[:5]]
    weak, count = [], 0
    for name, files in sorted(texts.items()):
        for line in (line for text in files for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")):
            count += 1
            key = security_authorized_keys.key_of(line)
            faults = ["not a key"] if key is None else key_faults(key, review.params["rsa_minimum_bits"], review.now)
            weak += [f"{name}: {fault}{f' ({key.fingerprint})' if key else ''}" for fault in faults]
    state = "warning" if weak else "unknown" if gaps else "ok"
    advice = {"ok": "", "unknown": "Make them readable for the review (a link is not followed), and look by hand at what is not in files."}
    return Finding(
        IDS[3],
        state,
        "authorised keys",
        f"{len(weak)} weaknesses of {many(count, 'authorised key')}",
        value=len(weak),
        unit="count",
        threshold=f"warning from 1 (DSA, RSA below {review.params['rsa_minimum_bits']} bits, authorities, not a key)",
        not_covered="; ".join(gaps),
        advice=advice.get(state, "Have the owners put a new ed25519 key in place, then remove these."),
        evidence=weak[:20],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    return out_of_range(params, ("rsa_minimum_bits",), least=1024, most=16384)


def passes_bad_sample(review: Review) -> str:
    """Plant a weak hash, a free sudo rule and a short key; return what was not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as etc:
        with open(os.path.join(etc, "shadow"), "w", encoding="utf-8") as sample:
            sample.write("planted:$1$salt$hash:1:0:9:7:::\n")
        if _hashes(Review(review.params, review.host, True, review.now, etc)).state == "ok":
            return "an MD5 password hash as a strong one"
    if not nopasswd_all(["planted ALL=(ALL) NOPASSWD: ALL"]):
        return "a rule without a password as one with"
    short = b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 64))
    return "" if key_faults(Key("", "ssh-rsa", short, ""), 2048, review.now) else "an RSA key of 512 bits as a strong one"
