# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take secrets out of what is about to be kept.

A second line of defence: modules do not put secrets into records in the first place.
"""

from __future__ import annotations

import math
import re
from typing import Any

HIDDEN = "(redacted)"

_WORDS = r"pass(?:word|wd|phrase|code)|pwd|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|authorization|credential|cookie"
_SECRET_KEY = re.compile(rf"(?:{_WORDS})", re.IGNORECASE)
_SECRET_KEY_END = re.compile(rf"(?:{_WORDS})s?$", re.IGNORECASE)
# name = value, name: value, "name": "value"; what the name belongs to stays readable
_ASSIGNED = re.compile(
    rf"""(?P<name>[\w-]{{0,40}}(?:{_WORDS})[\w-]{{0,20}}["']?\s{{0,3}}[=:]\s{{0,3}})"""
    r"""(?:(?:bearer|basic|digest|token)\s{1,3})?(?:"[^"\n]{1,2000}"|'[^'\n]{1,2000}'|[^\s"',;&)}\]]{1,2000})""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>bearer\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<name>://[^\s:/@]{0,200}:)[^\s/@]{1,500}(?=@)")
_PEM = re.compile(r"(?P<name>-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL)
_HINT = re.compile(r"pass|pwd|token|secret|key|authorization|credential|cookie|bearer|://", re.IGNORECASE)
_INTEGER_LIMIT = 2**63


def redact(value: Any) -> Any:
    """Copy a JSON value without secrets and without numbers that JSON or a database cannot hold."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {key: HIDDEN if _is_secret(key, item) else redact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        return f"an integer of {value.bit_length()} bits"
    return value


def redact_text(text: str) -> str:
    """Hide values that a text assigns to names such as ``password``, and credentials in addresses."""
    if not _HINT.search(text):
        return text
    for pattern in (_PEM, _USERINFO, _BEARER, _ASSIGNED):
        text = pattern.sub(lambda found: found.group("name") + HIDDEN, text)
    return text


def _is_secret(key: Any, value: Any) -> bool:
    """Judge a key by its name: ``db_password`` hides anything, ``password_max_age`` only texts."""
    if value is None or isinstance(value, bool) or value == "" or not isinstance(key, str):
        return False
    if _SECRET_KEY_END.search(key):
        return True
    return isinstance(value, str) and _SECRET_KEY.search(key) is not None
