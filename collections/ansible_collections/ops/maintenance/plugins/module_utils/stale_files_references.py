# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S608 - names are quoted by the driver, values are parameters
"""Which files the rows of a database name: by the last part of a path or URL, so that a file too many is kept, never one too few."""

from __future__ import annotations

import os
import typing as t
from urllib.parse import quote

from . import postgresql
from .errors import MaintenanceError

REFERENCE: dict[str, t.Any] = {
    "server": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "schema": {"type": "str", "default": "public"},
    "table": {"type": "str", "required": True},
    "column": {"type": "str", "required": True},
    "match": {"type": "str", "choices": ["name", "contains"], "default": "name"},
    "may_be_empty": {"type": "bool", "default": False},
}
"""Argument spec of one column that names files. ``contains`` finds a name anywhere in the text, for JSON and free text."""


class References:
    """One column of one table that names files."""

    def __init__(self, spec: t.Mapping[str, t.Any], server: postgresql.Server) -> None:
        self._spec = spec
        self._session = postgresql.connect(server, spec["database"], read_only=True, statement_timeout_seconds=300)
        self.where = f"{spec['server']}/{spec['database']}: {spec['schema']}.{spec['table']}.{spec['column']}"

    def prepare(self) -> None:
        """Make sure that the column can be read and says anything at all.

        :raises MaintenanceError: it cannot, so that nothing is known about any file.
        """
        self._session.set("row_security", "off")
        some = self._session.value(f"SELECT EXISTS (SELECT FROM {self._table()} WHERE {self._column()} IS NOT NULL)")
        if not some and not self._spec["may_be_empty"]:
            raise MaintenanceError(
                f"{self.where} names no file at all, as after a failed restore; set may_be_empty: true if that is right."
            )

    def among(self, names: t.Collection[str]) -> set[str]:
        """Return those of some file names (without folders) that a row names."""
        spellings: dict[str, str] = {}
        for name in names:
            spellings[name] = name
            spellings.setdefault(quote(name), name)
        table, column = self._table().replace("%", "%%"), f"{self._column().replace('%', '%%')}::text"
        asked = "unnest(%s::text[]) AS asked (name)"
        if self._spec["match"] == "contains":
            statement = f"SELECT name FROM {asked} WHERE EXISTS (SELECT FROM {table} AS t WHERE strpos({column}, name) > 0)"
            found = self._session.rows(statement, [list(spellings)])
        else:
            last = "regexp_replace({}, '^.*[/\\\\]', '')"
            plain, cut = last.format(column), last.format(f"split_part(split_part({column}, '#', 1), '?', 1)")
            found = self._session.rows(
                f"SELECT DISTINCT name FROM {asked} JOIN (SELECT {plain} AS named FROM {table} AS t UNION SELECT {cut} FROM {table} AS t) "
                "AS known ON named = name",
                [list(spellings)],
            )
        return {spellings[row["name"]] for row in found}

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def _table(self) -> str:
        return self._session.identifier(self._spec["schema"], self._spec["table"])

    def _column(self) -> str:
        return self._session.identifier(self._spec["column"])


def can_be_asked(name: str) -> bool:
    """Whether a database can hold the name; a name that is no valid text cannot be looked up."""
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
