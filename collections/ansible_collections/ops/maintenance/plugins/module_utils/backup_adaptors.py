# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of adaptors. A further kind is one class as :class:`backup_adaptor.Adaptor` says, and one line here."""

from __future__ import annotations

import typing as t

from .backup_adaptor import Adaptor
from .backup_barman import Barman
from .backup_borg import Borg
from .backup_cloud import Command
from .backup_kinds import KINDS
from .backup_pg_basebackup import PgBasebackup
from .backup_pgbackrest import PgBackRest
from .backup_postgresql import Postgresql
from .backup_redis import Redis
from .backup_restic import Restic

ADAPTORS: dict[str, Adaptor] = {
    "postgresql": Postgresql(),
    "barman": Barman(),
    "borg": Borg(),
    "command": Command(),
    "pg_basebackup": PgBasebackup(),
    "pgbackrest": PgBackRest(),
    "redis": Redis(),
    "restic": Restic(),
}

CHOICES = [*KINDS, *ADAPTORS]
"""Every kind of backup, for the argument spec."""


def set_options() -> dict[str, t.Any]:
    """Return the argument spec of what adaptors add to a set."""
    return {name: spec for adaptor in ADAPTORS.values() for name, spec in adaptor.options.items()}
