# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import subprocess
import tarfile
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import evidence
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import append_signature, read_journal
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import weekly

WAIVERS = """
- {id: security.mode, subject: /srv/*, owner: Jane Doe, reason: "the old client, password=hunter2-s3cret", expires: 2027-01-31}
- {id: backup.age, subject: old, owner: Jane Doe, reason: gone, expires: 2020-01-31}
"""


@pytest.fixture
def journal(tmp_path):
    return weekly().write(tmp_path)


def packed(journal, tmp_path, waivers="", store=""):
    path = tmp_path / "evidence.tar.gz"
    path.write_bytes(evidence.pack(journal.stem, evidence.files_of(str(journal), store, waivers)))
    return path


def members(path):
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2]: (member, archive.extractfile(member).read()) for member in archive}


def repacked(path, change):
    """Pack the archive of a run anew, after somebody changed its files."""
    run_id, files = evidence.unpack(str(path))
    change(files)
    path.write_bytes(evidence.pack(run_id, files))
    return path


def test_an_archive_holds_all_of_a_run_and_is_sound(journal, tmp_path):
    path = packed(journal, tmp_path)
    manifest, faults = evidence.faults_of(str(path))
    assert faults == []
    there = members(path)
    assert set(there) == {"journal.jsonl", "report.html", "report.md", "report.json", "waivers.json", "manifest.json", "SHA256SUMS"}
    assert there["journal.jsonl"][1] == journal.read_bytes()
    assert {(member.mode, member.uid, member.uname, member.mtime) for member, _content in there.values()} == {(0o600, 0, "", 0)}
    assert (manifest["run_id"], manifest["state"], len(manifest["files"])) == (journal.stem, "completed", 5)
    assert json.loads(there["report.json"][1])["verdict"] == manifest["verdict"]


def test_the_same_run_is_the_same_bytes_and_a_signature_changes_them(journal, tmp_path):
    first = packed(journal, tmp_path).read_bytes()
    assert packed(journal, tmp_path).read_bytes() == first
    now = datetime(2026, 11, 22, tzinfo=UTC)
    append_signature(
        str(journal), {"duty": "verified_by", "system": "", "signed_by": "Mara Lindt", "signed_at": now.isoformat(), "note": ""}, now
    )
    path = packed(journal, tmp_path)
    manifest, faults = evidence.faults_of(str(path))
    assert (path.read_bytes() == first, faults) == (False, [])
    assert "Mara Lindt" in [signature["signed_by"] for signature in manifest["signatures"]]


def test_anybody_can_prove_it_by_one_command(journal, tmp_path):
    path = packed(journal, tmp_path)
    check = f'cd "$(mktemp -d)" && tar xzf {path} && cd {journal.stem} && sha256sum --check --strict SHA256SUMS'
    assert (
        subprocess.run(
            ["bash", "-c", check], capture_output=True, check=False, env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files.update({"report.html": b"all is well"}), "report.html was changed"),
        (lambda files: files.pop("report.md"), "report.md is missing"),
        (lambda files: files.update({"more.txt": b""}), "more.txt is not in the manifest"),
        (lambda files: files.update({"journal.jsonl": files["journal.jsonl"].replace(b"critical", b"ok", 1)}), "does not fit"),
        (lambda files: files.pop("SHA256SUMS"), "SHA256SUMS does not fit"),
    ],
)
def test_whatever_was_changed_is_noticed(journal, tmp_path, change, says):
    _manifest, faults = evidence.faults_of(str(repacked(packed(journal, tmp_path), change)))
    assert says in " ".join(faults)


def test_an_archive_that_was_made_anew_from_another_journal_does_not_fit_the_store(journal, tmp_path):
    """Whoever makes all hashes anew still meets what the store kept."""
    store = f"sqlite:///{tmp_path}/store.sqlite"
    with Store(store) as kept:
        kept.save_run(read_journal(str(journal)).lines)
    assert evidence.faults_of(str(packed(journal, tmp_path)), store)[1] == []
    (tmp_path / "other").mkdir()
    other = weekly(faulty=False).write(tmp_path / "other")
    assert other.stem == journal.stem
    forged = packed(other, tmp_path)
    assert evidence.faults_of(str(forged))[1] == []
    assert evidence.faults_of(str(forged), store)[1] != []


def test_an_archive_that_was_made_anew_with_new_sums_does_not_fit_the_journal_of_its_run(journal, tmp_path):
    path = packed(journal, tmp_path)
    assert evidence.faults_of(str(path), "", lambda run_id: str(journal) if run_id == journal.stem else "")[1] == []
    (tmp_path / "other").mkdir()
    forged = packed(weekly(faulty=False).write(tmp_path / "other"), tmp_path / "other")
    assert evidence.faults_of(str(forged))[1] == [], "by itself it is sound"
    assert evidence.faults_of(str(forged), "", lambda _run_id: str(journal))[1] == [f"the journal is not the one that lies in {journal}"]
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    assert evidence.faults_of(str(path), "", lambda _run_id: str(journal))[1] != [], "the journal lost its end since"


def test_waivers_in_force_on_that_day_are_in_it_without_secrets(journal, tmp_path):
    (tmp_path / "waivers.yml").write_text(WAIVERS)
    path = packed(journal, tmp_path, str(tmp_path / "waivers.yml"))
    listed = json.loads(members(path)["waivers.json"][1])
    assert [(one["id"], one["owner"], one["expires"]) for one in listed["in_force"]] == [("security.mode", "Jane Doe", "2027-01-31")]
    assert "expired on 2020-01-31" in listed["faults"][0]
    assert all(b"hunter2-s3cret" not in content for _member, content in members(path).values())


def _archive(*entries):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, kind in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return gzip.compress(plain.getvalue(), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        gzip.compress(b"nonsense" * 200, mtime=0),
        _archive(("run/../../etc/passwd", tarfile.REGTYPE)),
        _archive(("/etc/passwd", tarfile.REGTYPE)),
        _archive(("run/journal.jsonl", tarfile.SYMTYPE)),
        _archive(("run/a", tarfile.REGTYPE), ("run/a", tarfile.REGTYPE)),
        _archive(("run/a", tarfile.REGTYPE), ("other/a.b", tarfile.REGTYPE)),
        _archive(("run/manifest.json", tarfile.REGTYPE)),
    ],
)
def test_what_is_no_archive_of_evidence_is_refused(tmp_path, content):
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(MaintenanceError):
        evidence.faults_of(str(tmp_path / "x.tar.gz"))


def _made_anew(files):
    """What somebody does who takes a file away and makes manifest and sums fit."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] in files]
    files["manifest.json"] = json.dumps(manifest).encode()
    sums = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()) if name != "SHA256SUMS")
    files["SHA256SUMS"] = "".join(sums).encode()


@pytest.mark.parametrize("name", ["journal.jsonl", "waivers.json", "report.json", "report.html"])
def test_an_archive_without_one_of_its_parts_proves_nothing(journal, tmp_path, name):
    def take_away(files):
        del files[name]
        _made_anew(files)

    assert evidence.faults_of(str(repacked(packed(journal, tmp_path), take_away)))[1] == [f"{name} is missing"]


def test_a_journal_that_lost_its_end_is_not_called_completed(journal, tmp_path):
    def cut(files):
        lines = files["journal.jsonl"].splitlines(keepends=True)[:-1]
        manifest = json.loads(files["manifest.json"])
        manifest["journal_last_hash"] = json.loads(lines[-1])["hash"]
        files["journal.jsonl"] = b"".join(lines)
        for entry in manifest["files"]:
            entry["sha256"] = hashlib.sha256(files[entry["name"]]).hexdigest()
        files["manifest.json"] = json.dumps(manifest).encode()
        _made_anew(files)

    faults = evidence.faults_of(str(repacked(packed(journal, tmp_path), cut)))[1]
    assert faults == ["the manifest tells of another end of the run than the journal"]


def test_a_sparse_file_that_unpacks_without_end_is_refused(tmp_path):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("run/manifest.json")
        member.size = 512
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "run/manifest.json",
            "GNU.sparse.realsize": str(2**31),
        }
        archive.addfile(member, io.BytesIO(b"0\n".ljust(512, b"\0")))
    (tmp_path / "sparse").write_bytes(gzip.compress(plain.getvalue()))
    with pytest.raises(MaintenanceError, match="is not to be trusted"):
        evidence.unpack(str(tmp_path / "sparse"))


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "3"])
def test_a_manifest_that_is_none_is_told_in_words(journal, tmp_path, text):
    path = repacked(packed(journal, tmp_path), lambda files: files.update({"manifest.json": text.encode()}))
    with pytest.raises(MaintenanceError, match="no manifest"):
        evidence.faults_of(str(path))


def test_a_missing_archive_a_link_and_one_that_unpacks_without_end(tmp_path, monkeypatch):
    for path in ("absent", "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("/etc/passwd")
        with pytest.raises(MaintenanceError):
            evidence.faults_of(str(tmp_path / path))
    monkeypatch.setattr(evidence, "LIMIT_BYTES", 1000)
    (tmp_path / "bomb").write_bytes(gzip.compress(b"\0" * 2000))
    with pytest.raises(MaintenanceError, match="holds more than"):
        evidence.faults_of(str(tmp_path / "bomb"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_flipped_byte_goes_unnoticed(tmp_path, data):
    if not (tmp_path / "whole").exists():
        (tmp_path / "runs").mkdir()
        journal = weekly(hosts=("a",)).write(tmp_path / "runs")
        (tmp_path / "whole").write_bytes(packed(journal, tmp_path).read_bytes())
    whole = bytearray((tmp_path / "whole").read_bytes())
    place = data.draw(st.integers(10, len(whole) - 9))  # the header of gzip holds nothing of the evidence
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "flipped").write_bytes(whole)
    try:
        _manifest, faults = evidence.faults_of(str(tmp_path / "flipped"))
    except MaintenanceError:
        return
    assert faults or evidence.unpack(str(tmp_path / "flipped")) == evidence.unpack(str(tmp_path / "whole"))


def test_modes_are_for_the_owner_alone(journal, tmp_path):
    from ansible_collections.ops.maintenance.plugins.action import evidence_bundle

    done = evidence_bundle._packed(
        {"run_id": "", "folder": str(tmp_path / "out"), "waivers": "", "store_url": "", "verify": None}, True, datetime.now(UTC)
    )
    assert (done["skipped"], (tmp_path / "out").exists()) == (True, False)
    evidence_bundle._write(str(tmp_path / "out/e.tar.gz"), b"x")
    assert stat.S_IMODE((tmp_path / "out/e.tar.gz").stat().st_mode) == 0o600
    assert evidence_bundle._is_same(str(tmp_path / "out/e.tar.gz"), b"x")
    (tmp_path / "out/e.tar.gz").chmod(0o644)
    assert not evidence_bundle._is_same(str(tmp_path / "out/e.tar.gz"), b"x")
