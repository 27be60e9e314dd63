# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A link to a file of this repository leads to that file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections/ansible_collections/ops/maintenance"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *COLLECTION.glob("*.md"), *COLLECTION.glob("roles/*/README.md")]
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_it(page):
    assert [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()] == []


def test_the_documents_of_the_collection_are_in_the_docs_of_the_repository():
    assert {path.name for path in (COLLECTION / "docs").iterdir()} <= {path.name for path in (ROOT / "docs").iterdir()}
