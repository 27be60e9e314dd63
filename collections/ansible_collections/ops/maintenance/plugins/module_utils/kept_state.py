# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what the next run needs after the work: where that fails, the record of the work stays and says so."""

from __future__ import annotations

import os
import typing as t

from .errors import MaintenanceError
from .paths import write_state
from .record import Finding


def keep_state(state_dir: str, name: str, value: t.Mapping[str, t.Any]) -> list[Finding]:
    """Keep a JSON object on the host, after the work; return a finding when that is not possible.

    What has to be on disk before the work goes on is written with :func:`paths.write_state`, which raises.
    """
    try:
        write_state(state_dir, name, value)
    except (MaintenanceError, OSError) as error:
        advice = "Make room in the folder and see who owns it; until then a run compares with what an earlier one kept."
        return [Finding("maintenance.state", "critical", os.path.join(state_dir, name), str(error), advice=advice)]
    return []
