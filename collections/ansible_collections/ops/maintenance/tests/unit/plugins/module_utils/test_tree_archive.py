# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder as an archive, and back."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import tree_archive
from ansible_collections.ops.maintenance.plugins.module_utils.backup_stream import DamagedError
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError

_NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200
)


@settings(max_examples=40)
@given(st.dictionaries(_NAMES, st.binary(max_size=1500), max_size=5), st.dictionaries(_NAMES, st.binary(max_size=600), max_size=5))
def test_a_folder_comes_back_from_its_archive_whatever_its_names_and_bytes(before, after):
    with tempfile.TemporaryDirectory() as folder:
        root, archive = os.path.join(folder, "root"), os.path.join(folder, "a.tar")
        os.mkdir(root)
        write_all(root, before)
        with open(archive, "wb") as target:
            target.writelines(tree_archive.pack(root, [], tree_archive.Packed()))
        assert not tree_archive.differing(archive, root, [])
        write_all(root, after)
        found = tree_archive.differing(archive, root, [])
        tree_archive.put_back(archive, root, set(found.changed), [])
        assert tree_archive.remove(root, found.extra) == []
        assert read_all(root) == before


def write_all(root, files):
    for name, data in files.items():
        with open(os.path.join(root, name), "wb") as target:
            target.write(data)


def read_all(root):
    found = {}
    for name in os.listdir(root):
        with open(os.path.join(root, name), "rb") as source:
            found[name] = source.read()
    return found


def packed(root, archive, data=()):
    with open(archive, "wb") as target:
        target.writelines(tree_archive.pack(str(root), data, tree_archive.Packed()))
    return str(archive)


@pytest.mark.parametrize("name", ["../victim", "a/../../victim"])
def test_a_member_that_leads_out_is_refused_and_nothing_is_written(tmp_path, name):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as target:
        target.addfile(tarfile.TarInfo(name), io.BytesIO())
    (tmp_path / "root").mkdir()
    with pytest.raises(DamagedError, match="a snapshot never writes"):
        tree_archive.put_back(str(archive), str(tmp_path / "root"), None, ())
    assert not (tmp_path / "victim").exists()


def test_owner_of_sockets_is_left_alone_and_what_came_after_is_named_but_for_data(tmp_path):
    root = tmp_path / "root"
    (root / "uploads").mkdir(parents=True)
    archive = packed(root, tmp_path / "a.tar", ["uploads"])
    os.mkfifo(root / "app.sock")
    (root / "new").mkdir()
    (root / "new/file").touch()
    (root / "uploads/1").touch()
    found = tree_archive.differing(archive, str(root), ["uploads"])
    assert (found.changed, found.extra) == ([], ["new", "new/file"])
    assert tree_archive.remove(str(root), found.extra) == []
    assert sorted(os.listdir(root)) == ["app.sock", "uploads"]


def test_a_new_folder_with_data_in_it_stays(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    archive = packed(root, tmp_path / "a.tar", ["public/uploads"])
    (root / "public/uploads").mkdir(parents=True)
    (root / "public/uploads/1").touch()
    found = tree_archive.differing(archive, str(root), ["public/uploads"])
    assert tree_archive.remove(str(root), found.extra) == ["public"]
    assert (root / "public/uploads/1").exists()


def test_a_file_that_gets_shorter_while_it_is_read_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    chunks = tree_archive.pack(str(tmp_path), [], tree_archive.Packed())
    for chunk in chunks:
        if len(chunk) > 100_000:
            os.truncate(tmp_path / "file", 1)
            break
    with pytest.raises(MaintenanceError, match="became shorter"):
        list(chunks)


def test_files_that_go_while_a_folder_is_packed_do_not_spoil_the_rest(tmp_path):
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    for name in ("a", "b/c", "d", "e"):
        (root / name).write_text(name)
    packed, archive = tree_archive.Packed(), b""
    for number, chunk in enumerate(tree_archive.pack(str(root), [], packed)):
        archive += chunk
        if number == 0:
            (root / "a").unlink()
        if number == 1:
            (root / "d").unlink()
    (tmp_path / "a.tar").write_bytes(archive)
    assert [name for name, _member, _reader in tree_archive.members(str(tmp_path / "a.tar"))] == ["", "b", "b/c", "e"]
    assert not tree_archive.differing(str(tmp_path / "a.tar"), str(root), [])
