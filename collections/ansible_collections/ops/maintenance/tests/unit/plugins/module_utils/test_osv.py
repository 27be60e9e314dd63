# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offline advisories: the order of versions, and which installed ones are affected."""

from __future__ import annotations

import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from ansible_collections.ops.maintenance.plugins.module_utils import osv
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

VERSIONS = st.from_regex(
    r"\A(?:[0-2]!)?[0-9](?:\.[0-9]{1,2}){0,3}(?:(?:a|b|rc|\.alpha|-beta)[0-9]?)?(?:(?:\.post|-)[0-9])?(?:\.dev[0-9])?\Z"
)


@given(VERSIONS, VERSIONS)
def test_order_is_that_of_the_reference_implementation(left, right):
    a, b = osv.version_key(left), osv.version_key(right)
    assert a is not None
    assert b is not None
    assert (a < b, a == b) == (Version(left) < Version(right), Version(left) == Version(right))


@given(st.text(max_size=40))
def test_any_text_gives_a_key_or_none(text):
    osv.version_key(text)


def record(identifier: str = "PYSEC-1", name: str = "Requests", events=None, **more) -> dict:
    span = {"type": "ECOSYSTEM", "events": events or [{"introduced": "0"}, {"fixed": "2.31.0"}]}
    affected = [{"package": {"ecosystem": "PyPI", "name": name}, "ranges": [span]}]
    return {"id": identifier, "aliases": ["CVE-1"], "modified": "2026-11-01T00:00:00Z", "affected": affected, **more}


def found(folder, *records, **installed):
    for number, item in enumerate(records):
        (folder / f"{number}.json").write_text(item if isinstance(item, str) else json.dumps(item))
    database = osv.load(str(folder), installed)
    return database, *osv.match(database, installed)


def test_affected_version_is_found_with_its_fix(tmp_path):
    _database, advisories, _unread = found(tmp_path, record(), requests="2.30.0")
    assert [(a.package, a.ids, a.fixed) for a in advisories] == [("requests", ("PYSEC-1", "CVE-1"), "2.31.0")]


@pytest.mark.parametrize(
    ("version", "affected"), [("2.31.0", False), ("2.31.0rc1", True), ("2.9.1", True), ("2.31.0.post1", False), ("3", False)]
)
def test_bounds(tmp_path, version, affected):
    assert bool(found(tmp_path, record(), requests=version)[1]) is affected


def test_last_affected_and_a_second_span(tmp_path):
    events = [{"introduced": "1.0"}, {"last_affected": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.2"}]
    hits = {v for v in ("0.9", "1.5", "1.6", "2.1", "2.2") if found(tmp_path, record(events=events), requests=v)[1]}
    assert hits == {"1.5", "2.1"}


def test_withdrawn_and_other_ecosystems_do_not_count(tmp_path):
    other = record("GO-1")
    other["affected"][0]["package"]["ecosystem"] = "Go"
    assert found(tmp_path, record(withdrawn="2026-01-01T00:00:00Z"), other, requests="1")[1] == []


def test_version_that_cannot_be_compared_is_said(tmp_path):
    assert found(tmp_path, record(), requests="unknown-build")[1:] == ([], ["requests"])


def test_damaged_records_are_counted_and_the_rest_is_read(tmp_path):
    database, advisories, _unread = found(tmp_path, "{", "[]", '{"affected": 3, "modified": ""}', record(), requests="1")
    assert (database.unreadable, database.records, len(advisories)) == (3, 1, 1)


def test_zip_and_missing_paths(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(record()))
    assert osv.load(str(tmp_path / "all.zip"), ["requests"]).records == 1
    (tmp_path / "bad.zip").write_bytes(b"PK")
    for name in ("bad.zip", "missing.json"):
        with pytest.raises(InputError):
            osv.load(str(tmp_path / name), ["requests"])
