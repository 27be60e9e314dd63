"""Files that the real age and cryptsetup made are known for encrypted, and what is not encrypted is found."""

from __future__ import annotations

import os
import shutil

import pytest
from backups import Verifier, ran
from recovery_runs import take

from ansible_collections.ops.maintenance.plugins.module_utils.backup_encryption import encryption_of_file
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError

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


def copied(tmp_path, *command):
    secret = tmp_path / "app/.env.production"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("DATABASE_PASSWORD=hunter2\n")
    (tmp_path / "config").mkdir(exist_ok=True)
    entry = {"path": str(secret), "copy_as": str(tmp_path / "config/.env.backup.{time}.age"), "encrypt_command": list(command)}
    return take(tmp_path, paths=[str(secret)], path_copies=[entry])


def test_the_copy_of_an_environment_file_is_encrypted_for_whom_it_names(tmp_path, key):
    """netpost-bak-09: no second clear text, outside of the tree, for nobody else on the host, never overwritten."""
    assert copied(tmp_path, "age", "--recipient", key[1]).status == "changed"
    (copy,) = (tmp_path / "config").iterdir()
    assert b"hunter2" not in copy.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert ran("age", "--decrypt", "--identity", key[0], str(copy)) == "DATABASE_PASSWORD=hunter2\n"
    before = copy.read_bytes()
    assert copied(tmp_path, "age", "--recipient", key[1]).status != "changed"
    assert copy.read_bytes() == before
    copy.write_bytes(before[:-1])
    with pytest.raises(MaintenanceError, match="is there already with other content"):
        copied(tmp_path, "age", "--recipient", key[1])


def test_a_program_that_does_not_encrypt_leaves_no_copy(tmp_path):
    for command, said in ((["cat"], "does not begin as an encrypted file"), (["false"], "cannot be encrypted")):
        with pytest.raises(MaintenanceError, match=said):
            copied(tmp_path, *command)
        assert list((tmp_path / "config").iterdir()) == []


def test_a_secret_among_the_arguments_is_refused(tmp_path):
    with pytest.raises(InputError, match="has a secret among its arguments"):
        copied(tmp_path, "openssl", "enc", "-aes-256-cbc", "-pass", "pass:hunter2")
