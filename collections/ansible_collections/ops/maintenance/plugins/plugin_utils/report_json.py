# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report for machines: docs/report.schema.json describes it."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from .report_model import Item, Report


def as_json(value: Any) -> Any:
    """Return dataclasses as objects; a checklist item says whether it is ticked."""
    if is_dataclass(value):
        found = {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
        return {**found, "ticked": value.ticked} if isinstance(value, Item) else found
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def render(report: Report) -> str:
    """Return the report as JSON, in ASCII only: what is not inert in a terminal is escaped."""
    return json.dumps(as_json(report), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
