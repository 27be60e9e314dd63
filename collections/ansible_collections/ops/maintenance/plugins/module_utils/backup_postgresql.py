# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of PostgreSQL databases: custom, directory, tar and plain format, compressed and encrypted ones too."""

from __future__ import annotations

import typing as t

from .backup_adaptor import Around, Climb
from .backup_sets import Declared, Listing, list_backups


class Postgresql:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = {}
    needs_root = True

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:  # noqa: ARG002
        """See :class:`backup_adaptor.Adaptor`."""
        yield from ()

    def listed(self, declared: Declared, around: Around) -> Listing:
        """See :class:`backup_adaptor.Adaptor`."""
        return list_backups(declared, around.zone)

    def climb(self, climb: Climb) -> None:
        """See :class:`backup_adaptor.Adaptor`."""
        climb.say(1, "unknown", "not looked at yet")
