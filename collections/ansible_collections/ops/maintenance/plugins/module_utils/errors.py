# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the collection raises; a module's entry point turns them into a failed record."""

from __future__ import annotations

import math
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


def refuse(problems: t.Sequence[str]) -> None:
    """Refuse input for all its problems at once, where there are any.

    :param problems: one sentence each.
    :raises InputError: with all of them.
    """
    if problems:
        raise InputError(" ".join(problems))


def refusal(check: t.Callable[..., object], *given: object) -> list[str]:
    """Return what a check says of a value that it refuses, nothing when it does not."""
    try:
        check(*given)
    except InputError as error:
        return [str(error)]
    return []


def out_of_range(values: t.Mapping[str, t.Any], names: t.Iterable[str], least: float = 0.0, most: float = math.inf) -> list[str]:
    """Return a sentence for each of the named numbers that is below, beyond or none at all; one not given is no problem."""
    expected = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
    return [
        str(InputError.of(name, values[name], expected, "correct it"))
        for name in names
        if values.get(name) is not None and not (least <= values[name] <= most and values[name] < math.inf)
    ]


class VerifyError(MaintenanceError):
    """The work was done, but looking again showed that it had not had its effect."""
