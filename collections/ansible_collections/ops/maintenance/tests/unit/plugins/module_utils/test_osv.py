# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offline advisories: the order of versions, and which installed ones are affected."""

from __future__ import annotations

import json
import random
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
    return database, *osv.match(database, installed.items())


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


def npm_record(events, name="lodash") -> dict:
    span = {"type": "SEMVER", "events": events}
    affected = [{"package": {"ecosystem": "npm", "name": name}, "ranges": [span]}]
    return {"id": "GHSA-1", "modified": "2026-11-01T00:00:00Z", "affected": affected}


@pytest.mark.parametrize(
    ("version", "affected"),
    [("4.17.20", True), ("4.17.21", False), ("4.17.21-beta.2", True), ("4.17.21-beta.11", False), ("5.0.0", False), ("3.0.0+build", True)],
)
def test_npm_versions_are_ordered_as_semantic_versioning_says(tmp_path, version, affected):
    record = npm_record([{"introduced": "0"}, {"fixed": "4.17.21-beta.11"}])
    (tmp_path / "1.json").write_text(json.dumps(record))
    database = osv.load(str(tmp_path), ["lodash"], osv.NPM)
    assert bool(osv.match(database, [("lodash", version)])[0]) is affected


def test_npm_names_are_exact_and_every_installed_version_counts(tmp_path):
    (tmp_path / "1.json").write_text(json.dumps(npm_record([{"introduced": "0"}, {"fixed": "2.0.0"}], "@a/b_c")))
    database = osv.load(str(tmp_path), ["@a/b_c", "@a/b-c"], osv.NPM)
    hits = osv.match(database, [("@a/b_c", "1.0.0"), ("@a/b_c", "1.5.0"), ("@a/b_c", "2.0.0"), ("@a/b-c", "1.0.0"), ("@a/B_c", "1.0.0")])[0]
    assert [(hit.package, hit.version, hit.fixed) for hit in hits] == [("@a/b_c", "1.0.0", "2.0.0"), ("@a/b_c", "1.5.0", "2.0.0")]


def test_records_of_another_ecosystem_make_no_database(tmp_path):
    database, _found, _unread = found(tmp_path, npm_record([{"introduced": "0"}]), lodash="1")
    assert (database.records, database.modified) == (0, "")


@given(st.text(max_size=30))
def test_any_text_gives_a_semantic_key_or_none(text):
    osv.semver_key(text)


def test_order_of_the_specification():
    before = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    rising = [*(f"1.0.0-{part}" for part in before), "1.0.0", "1.0.1", "1.10.0", "2.0.0"]
    assert sorted(random.Random(1).sample(rising, len(rising)), key=osv.semver_key) == rising
