# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was done is in the record even where nothing can be kept for the next run."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    backup_verification,
    kept_state,
    performance_review,
    sqlite_upkeep,
    sqlite_upkeep_options,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.paths import read_state

from .maintained import defaults

UTILS = Path(kept_state.__file__).parent
STRICT = {
    "dependencies.py": "the versions from before have to be on disk before anything is updated",
    "postgresql_switch.py": "the journal of a restore has to be on disk before each step",
    "postgresql_review.py": "hands its record over with the failure",
    "postgresql_upkeep.py": "keeps its own finding, by server",
    "kept_state.py": "the shared place",
    "paths.py": "defines it",
}


@pytest.fixture(params=["writable for others", "no folder at all"])
def unusable(request, tmp_path):
    """A state folder that can be read, but not written."""
    folder = tmp_path / "state"
    folder.mkdir()
    if request.param == "writable for others":
        folder.chmod(0o777)
        return str(folder)
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere" / "nowhere")
    return str(folder)


def database(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.commit()
    return str(tmp_path / "a.db")


def of(module, state_dir, options, **given):
    return module.run({**defaults(options), "state_dir": state_dir, **given}, False, Host())


def told(outcome):
    return [finding for finding in outcome.findings if finding.id == "maintenance.state"]


def test_the_record_of_upkeep_survives_a_state_folder_that_cannot_be_written(tmp_path, unusable):
    spec = {name: option.get("default") for name, option in sqlite_upkeep_options.OPTIONS["databases"]["options"].items()}
    outcome = of(sqlite_upkeep, unusable, sqlite_upkeep_options.OPTIONS, databases=[{**spec, "path": database(tmp_path)}])
    (finding,) = told(outcome)
    assert (finding.state, finding.subject) == ("critical", os.path.join(unusable, sqlite_upkeep.STATE))
    assert len(outcome.findings) > 3, "what was found of the database is there as well"


def test_the_record_of_a_review_and_of_the_backups_survives_too(unusable):
    assert told(of(performance_review, unusable, performance_review.OPTIONS))[0].state == "critical"
    outcome = of(backup_verification, unusable, backup_verification.OPTIONS, sets=[])
    assert [finding.id for finding in outcome.findings].count("maintenance.state") == 2
    assert outcome.findings[0].id == "backup.present"


def test_a_folder_that_can_be_written_is_silent_and_holds_what_was_kept(tmp_path):
    assert kept_state.keep_state(str(tmp_path / "state"), "a.json", {"a": 1}) == []
    assert read_state(str(tmp_path / "state"), "a.json") == {"a": 1}


def test_no_module_loses_its_record_by_writing_state_by_itself():
    writers = {path.name for path in UTILS.glob("*.py") if re.search(r"\bwrite_state\(", path.read_text())}
    assert writers == set(STRICT), "after the work, use keep_state; before it, say here why it has to raise"
