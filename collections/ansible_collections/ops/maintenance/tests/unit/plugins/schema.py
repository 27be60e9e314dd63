# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold lines of a journal, or the record of a module, against docs/record.schema.json."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = Path(__file__).parents[3] / "docs" / "record.schema.json"


@functools.cache
def _validator(definition: str = "") -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    if definition:
        schema = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def faults(line: dict[str, Any]) -> list[str]:
    """Say what is wrong with a line of a journal, empty when nothing is."""
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(line)]


def record_faults(record: dict[str, Any]) -> list[str]:
    """Say what is wrong with ``Outcome.record()`` or a module's ``maintenance_record``."""
    stamped = {"host": "h", "system": "", "role": "", "task": "", "phase": "", "check_mode": False, "item": ""}
    times = {"started": "2026-11-21T02:00:00+00:00", "finished": "2026-11-21T02:00:01+00:00"}
    return [f"{error.json_path}: {error.message}" for error in _validator("record").iter_errors({**times, **stamped, **record})]
