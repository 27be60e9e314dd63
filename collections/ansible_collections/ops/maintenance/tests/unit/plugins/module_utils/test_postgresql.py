from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import password_of

SOCKET = (
    'connection to server on socket "/run/postgresql/.s.PGSQL.5432" failed: No such file or directory\n'
    "\tIs the server running locally and accepting connections on that socket?\n"
)
BOTH = (
    'connection to server at "localhost" (::1), port 5432 failed: Connection refused\n'
    "\tIs the server running on that host and accepting TCP/IP connections?\n"
    'connection to server at "localhost" (127.0.0.1), port 5432 failed: FATAL:  password authentication failed for user "app"\n'
)
GONE = 'connection failed: connection to server on socket "/s/.s.PGSQL.5432" failed: FATAL:  database "a?." does not exist\n'


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (SOCKET, "refused", "failed: No such file or directory. Start PostgreSQL"),
        (BOTH, "password", 'failed: FATAL: password authentication failed for user "app". Correct'),
        (GONE, "no_database", 'FATAL: database "a?." does not exist. Correct the name'),
        ("server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n", "other",
         "main: server closed the connection unexpectedly. Read the server's log."),
        ("\tIs it there?\n", "other", "main: Is it there. Read"),
        ("", "other", "main: Exception. Read"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence_without_the_hints_of_libpq(text, kind, says):
    refused = postgresql._refusal(Exception(text), "main", True)
    assert refused.kind == kind
    assert says in str(refused)
    assert not set(str(refused)) & set("\t\n")
    assert "?." not in str(refused).replace('"a?."', "")


@given(st.text())
def test_whatever_libpq_says_there_is_a_sentence(text):
    said = str(postgresql._refusal(Exception(text), "main", False))
    assert said.startswith("No session with main: ")
    assert said.endswith(".")
    assert len(said) < 600


def test_a_password_comes_from_a_file_that_nobody_else_can_read(tmp_path):
    path = tmp_path / "password"
    server = {"name": "main", "password": "", "password_file": str(path)}
    assert password_of({**server, "password_file": "", "password": "here"}) == "here"
    with pytest.raises(InputError, match="cannot be read"):
        password_of(server)
    path.write_text("s3cret\nmore\n")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(InputError, match="expected 0600") as caught:
            password_of(server)
        assert "s3cret" not in str(caught.value)
    path.chmod(0o600)
    assert password_of(server) == "s3cret"
    path.write_text("\n")
    with pytest.raises(InputError, match="first line is empty"):
        password_of(server)
    os.symlink(path, tmp_path / "link")
    with pytest.raises(InputError, match="symbolic link"):
        password_of({**server, "password_file": str(tmp_path / "link")})
