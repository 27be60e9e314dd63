# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Severities of distribution packages from records in the OSV format, as Debian's and Ubuntu's exports have them."""

from __future__ import annotations

import json
import zipfile
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import osv, package_osv, package_severity, package_urgency
from ansible_collections.ops.maintenance.plugins.module_utils.apt_packages import Update
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

NOW = datetime(2026, 11, 21, tzinfo=timezone.utc)
CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
RELEASE = "Debian:12"


def record(identifier="DEBIAN-CVE-2026-1", name="openssl", fixed="3.0.22-1", release=RELEASE, urgency="", vector="", **more):
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    affected = {
        "package": {"ecosystem": release, "name": name, "purl": f"pkg:deb/debian/{name}?arch=source"},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
        "ecosystem_specific": {"urgency": urgency} if urgency else {},
    }
    severity = [{"type": "CVSS_V3", "score": vector}] if vector else []
    times = {"published": "2026-11-01T10:00:00Z", "modified": "2026-11-20T00:00:00Z"}
    return {"id": identifier, **times, "affected": [affected], "severity": severity, **more}


def loaded(folder, *records, wanted=("openssl",)):
    for number, one in enumerate(records):
        (folder / f"{number}.json").write_text(one if isinstance(one, str) else json.dumps(one))
    return package_osv.load(str(folder), RELEASE, wanted)


def test_fix_of_a_source_package_has_its_severity_and_its_day(tmp_path):
    database = loaded(tmp_path, record(vector=CRITICAL))
    assert database.advisories == [
        package_severity.Advisory("openssl", "3.0.22-1", "critical", "DEBIAN-CVE-2026-1", "2026-11-01T10:00:00Z")
    ]
    update = Update("libssl3", "3.0.19-1", "3.0.22-1", (), "3.0.22-1")
    found = package_severity.of_advisories(update, "openssl", database.advisories)
    assert (found.level, found.since.day) == ("critical", 1)
    beyond = Update("libssl3", "3.0.19-1", "3.0.21-1", (), "3.0.21-1")
    assert package_severity.of_advisories(beyond, "openssl", database.advisories).level == "", "this update does not fix it"


@pytest.mark.parametrize(
    "other",
    [
        record(release="Debian:13"),
        record(release="Debian:120"),
        record(name="openssl1.1"),
        record(fixed=""),
        record(withdrawn="2026-11-02T00:00:00Z"),
    ],
)
def test_record_of_another_release_or_package_or_without_a_fix_tells_nothing(tmp_path, other):
    assert loaded(tmp_path, other, record("X", name="curl")).advisories == []


@pytest.mark.parametrize(
    ("given_record", "level"),
    [
        (record(urgency="high", vector=""), "high"),
        (record(urgency="unimportant", vector=CRITICAL), "low"),  # the distribution knows its package
        (record(urgency="not yet assigned", vector=CRITICAL), "critical"),
        (record(severity=[{"type": "Ubuntu", "score": "medium"}]), "medium"),
        (record(database_specific={"severity": "MODERATE"}), "medium"),
        (record(severity=[{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}]), ""),
        (record(), ""),
    ],
)
def test_word_of_the_distribution_goes_before_the_vector(tmp_path, given_record, level):
    assert [one.severity for one in loaded(tmp_path, given_record).advisories] == [level]


# Vectors with the scores that the standard's own calculator gives them.
@pytest.mark.parametrize(
    ("vector", "level"),
    [
        (CRITICAL, "critical"),  # 9.8
        ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", "high"),  # 8.8
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", "medium"),  # 6.1
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", "high"),  # 7.5
        ("CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:L/I:N/A:N", "low"),  # 2.5
        ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H", "critical"),  # 9.9
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", ""),
        ("AV:N/AC:L/Au:N/C:P/I:P/A:P", ""),
        ("CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", ""),
    ],
)
def test_vectors_become_severities(vector, level):
    assert package_osv.cvss_level(vector) == level


@given(st.text(max_size=80))
def test_any_text_is_a_vector_or_none(text):
    assert package_osv.cvss_level(text) == "" or package_osv.cvss_level("CVSS:3.1/" + text) in package_severity.SEVERITIES


def test_unreadable_records_are_counted_and_a_zip_is_read(tmp_path):
    database = loaded(
        tmp_path, record(), '{"Debian:12" "openssl"', json.dumps({"affected": [{"package": 3}], "x": ["Debian:12", "openssl"]})
    )
    assert (len(database.advisories), database.unreadable) == (1, 2)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.json", json.dumps(record()))
    assert len(package_osv.load(str(tmp_path / "all.zip"), RELEASE, ["openssl"]).advisories) == 1


def test_database_of_another_distribution_is_refused(tmp_path):
    with pytest.raises(InputError, match="Debian:12"):
        loaded(tmp_path, record(release="Alpine:v3.20"))
    with pytest.raises(InputError, match="advisories"):
        package_osv.load(str(tmp_path / "absent.zip"), RELEASE, ["openssl"])


@pytest.mark.parametrize(("age", "said"), [(timedelta(days=2), ""), (timedelta(days=30), "the advisories end at 2026-11-20T00:00:00Z")])
def test_old_database_is_named_for_what_it_does_not_tell(tmp_path, monkeypatch, age, said):
    loaded(tmp_path, record())
    monkeypatch.setattr(package_urgency, "os_release", lambda: {"ID": "debian", "VERSION_ID": "12"})
    advisories, problem, doubt = package_urgency._advisories(str(tmp_path), {"libssl3": "openssl"}, NOW + age)
    assert (len(advisories), problem, doubt) == (1, "", said)


def test_release_is_named_as_the_databases_do():
    assert package_urgency.ecosystem({"ID": "ubuntu", "VERSION_ID": "22.04"}) == "Ubuntu:22.04"
    assert package_osv.is_release("Ubuntu:22.04:LTS", "Ubuntu:22.04")
    assert package_urgency.os_release("/nonexistent") == {}


@pytest.mark.parametrize("read", [package_osv.load, lambda path, _release, wanted: osv.load(path, wanted)])
def test_damaged_archive_is_refused_in_words(tmp_path, read):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.json", json.dumps(record(details="x" * 5000 + "y" * 3000)))
    content = bytearray(path.read_bytes())
    content[36:60] = b"\xff" * 24
    path.write_bytes(content)
    with pytest.raises(InputError, match="readable OSV database"):
        read(str(path), RELEASE, ("openssl",))


def test_record_that_is_nested_without_end_is_counted_as_unreadable(tmp_path):
    endless = f'{{"affected": "{RELEASE}", "name": "openssl", "x": {"[" * 200_000}'
    assert loaded(tmp_path, record(), endless).unreadable == 1
