# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the collection raises; a module's entry point turns them into a failed record."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from .record import Outcome


class MaintenanceError(Exception):
    """Something could not be done: the message says what, on what, what came back and what to try.

    :param message: one sentence, complete in itself.
    :param outcome: the record of what happened up to here, when there is one.
    """

    def __init__(self, message: str, outcome: Outcome | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome


class InputError(MaintenanceError):
    """A value that the user gave cannot be used; nothing was changed."""

    @classmethod
    def of(cls, option: str, value: object, expected: str, advice: str) -> InputError:
        """Word an input error the same way everywhere: what, where, what was expected, what to do."""
        return cls(f"{option} is {value!r}, expected {expected}; {advice}.")


class VerifyError(MaintenanceError):
    """The work was done, but looking again showed that it had not had its effect."""
