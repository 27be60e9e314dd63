"""Files that the real age and cryptsetup made are known for encrypted, and what is not encrypted is found."""

from __future__ import annotations

import os
import shutil

import pytest
from backups import Verifier, ran

from ansible_collections.ops.maintenance.plugins.module_utils.backup_encryption import encryption_of_file

CLEAR = b"PGDMP is how an archive begins that nobody encrypted. " * 2000


@pytest.fixture
def clear(tmp_path):
    path = tmp_path / "shop.dump"
    path.write_bytes(CLEAR)
    return str(path)


@pytest.fixture
def key(tmp_path):
    """A key file of age, and whom it is for."""
    path = str(tmp_path / "key")
    ran("age-keygen", "-o", path)
    return path, ran("age-keygen", "-y", path).strip()


def in_age(clear, target, key, *more):
    ran("age", *more, "--recipient", key[1], "--output", target, clear)


def in_luks(clear, target, kind):
    """Make a container as cryptsetup makes it on a plain file; what would lie in it needs a device, which is not asked for."""
    with open(target, "wb") as made:
        made.truncate(20 * 1024 * 1024)
    quick = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    ran("cryptsetup", "luksFormat", "--batch-mode", "--type", kind, *quick, "--key-file", clear, "--keyfile-size", "64", target)


def encryption(tmp_path, *, level=0, **declared):
    root = str(tmp_path / "backups")
    return Verifier(str(tmp_path))(root=root, pattern="*", encrypted=True, level=level, **declared)["encryption"]


@pytest.mark.parametrize("form", ["binary", "armored", "luks1", "luks2"])
def test_what_a_real_tool_encrypted_is_ok_and_says_with_what(tmp_path, clear, key, form):
    """netpost-bak-03: whatever the name says."""
    os.mkdir(tmp_path / "backups")
    target = str(tmp_path / "backups/shop.dump")
    if form in ("binary", "armored"):
        in_age(clear, target, key, *(["--armor"] if form == "armored" else []))
    else:
        in_luks(clear, target, form)
    found = encryption(tmp_path)
    assert (found.state, encryption_of_file(target)) == ("ok", "LUKS" if form.startswith("luks") else "age"), found


@pytest.mark.parametrize("name", ["shop.dump", "shop.dump.age", "shop.luks"])
def test_a_clear_file_is_found_whatever_its_name_promises(tmp_path, clear, name):
    os.mkdir(tmp_path / "backups")
    shutil.copy(clear, tmp_path / "backups" / name)
    found = encryption(tmp_path)
    assert found.state == "critical", found
    assert list(found.evidence) == [str(tmp_path / "backups" / name)]


def test_one_clear_file_among_encrypted_ones_is_found(tmp_path, clear, key):
    folder = tmp_path / "backups/20261121"
    folder.mkdir(parents=True)
    in_age(clear, str(folder / "a.age"), key)
    twin = encryption(tmp_path, layout="folders")
    shutil.copy(clear, folder / "b.age")
    found = encryption(tmp_path, layout="folders")
    assert (twin.state, found.state, list(found.evidence)) == ("ok", "critical", [str(folder / "b.age")])


def test_the_header_of_a_container_that_was_wiped_is_no_encryption(tmp_path, clear):
    os.mkdir(tmp_path / "backups")
    target = str(tmp_path / "backups/store.luks")
    in_luks(clear, target, "luks2")
    with open(target, "r+b") as store:
        store.write(bytes(6))
    assert encryption(tmp_path).state == "critical"


def test_the_key_opens_what_age_encrypted_and_another_key_is_found_out(tmp_path, clear, key):
    """netpost-bak-03: a key that does not fit makes the backup worthless."""
    os.mkdir(tmp_path / "backups")
    in_age(clear, str(tmp_path / "backups/a.age"), key)
    other = str(tmp_path / "other")
    ran("age-keygen", "-o", other)
    for path, state in ((key[0], "ok"), (other, "critical")):
        verifier = Verifier(str(tmp_path / f"by-{state}"))
        seen = verifier(root=str(tmp_path / "backups"), pattern="*.age", level=2, decrypt_command=["age", "--decrypt", "--identity", path])
        assert seen.state("level") == state, seen.bad
