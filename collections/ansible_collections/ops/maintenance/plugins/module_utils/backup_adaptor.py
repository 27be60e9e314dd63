# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an adaptor is: a kind of backup that is judged as a whole, by the tool that made it, instead of file by file."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from datetime import tzinfo

from .backup_kinds import Verdict
from .backup_proof import Known, Scratch
from .backup_sets import Backup, Declared, Listing
from .host import Host
from .record import Finding

if t.TYPE_CHECKING:
    from .backup_pg_restore import Place


@dataclass(frozen=True)
class Around:
    """What is the same for every set of a call.

    :param params: the options of the module.
    :param zone: that of dates and days; None is the host's own.
    """

    params: t.Mapping[str, t.Any]
    host: Host
    zone: tzinfo | None = None
    check_mode: bool = False

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self.host.now().timestamp()


@dataclass
class Climb:
    """One backup on its way up the ladder, and what was said of it.

    :param known: what earlier runs noted of each file (SHA-256, time stamp).
    :param verdicts: what each rung said; a demanded rung without any verdict is ``unknown``.
    :param digests: SHA-256 by path, noted for the next run.
    :param sampled: by rung, what it did not look at.
    :param findings: what there is to say beside the rungs.
    :param meanwhile: what else is to be looked at while the restored database of a sound dump is there; it may change it.
    """

    declared: Declared
    backup: Backup
    around: Around
    scratch: Scratch
    known: Known = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    basis: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    content_bytes: int | None = None
    read_seconds: float | None = None
    restore_seconds: float | None = None
    rpo_seconds: float | None = None
    sampled: dict[int, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    meanwhile: t.Callable[[Place], None] | None = None

    @property
    def level(self) -> int:
        """The rung to climb to."""
        return int(self.declared["level"])

    def say(self, level: int, state: str, text: str) -> None:
        """Note what a rung said."""
        self.verdicts.append(Verdict(level, state, text))

    def stands(self, level: int) -> bool:
        """Whether every rung up to a level held, so that the next one may be tried."""
        return not any(verdict.level <= level and verdict.state in ("critical", "unknown") for verdict in self.verdicts)


class Adaptor(t.Protocol):
    """A kind of backup that is judged as a whole."""

    options: t.Mapping[str, t.Any]
    """Argument spec of what only its sets have; each needs a default, for sets of other kinds have it too."""

    needs_root: bool
    """Whether its sets lie in a folder (``root``) of this host."""

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
        """Say what of the declaration cannot be used, one sentence each."""

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List its backups, oldest first.

        :raises MaintenanceError: they could not be listed; the set is then ``unknown``.
        """

    def climb(self, climb: Climb) -> None:
        """Try every rung from 1 to the demanded one, and say of each what it showed; nothing may be left behind."""
