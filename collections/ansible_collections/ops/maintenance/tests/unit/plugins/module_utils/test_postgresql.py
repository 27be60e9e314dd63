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


class Driver:
    """A driver whose server refuses, or gives a session and says which version it is."""

    __name__ = "driver"
    Error = RuntimeError

    def __init__(self, refusal="", version=170004):
        self.refusal, self.version, self.closed, self.autocommit = refusal, version, False, False
        self.statements, self.description, self.rowcount = [], [("server_version_num",)], 1

    def connect(self, **_given):
        if self.refusal:
            raise self.Error(self.refusal)
        return self

    def cursor(self):
        return self

    def execute(self, statement, _params):
        self.statements.append(statement)

    def fetchall(self):
        return [(str(self.version),)]

    def close(self):
        self.closed = True


SERVER = {name: option.get("default") for name, option in postgresql.SERVER.items()} | {"name": "main", "os_user": ""}
AT = 'connection to server at "db.example.org" (192.0.2.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("FATAL:  the database system is starting up\n", "starting", "starting up. Wait until it has started, then run again."),
        (
            "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet reached.\n",
            "starting",
            "not yet accepting connections. Wait until it has recovered, then run again.",
        ),
        ("FATAL:  the database system is shutting down\n", "starting", "shutting down. Start it again, then run again."),
        (
            "FATAL:  the database system is in recovery mode\n",
            "starting",
            "in recovery mode. It recovers from a crash: read its log, then run again.",
        ),
    ],
)
def test_a_server_that_is_not_ready_yet_is_no_wrong_name(monkeypatch, text, kind, says):
    monkeypatch.setattr(postgresql, "load_driver", lambda: Driver(AT + text))
    with pytest.raises(postgresql.NotReachableError) as caught:
        postgresql.connect(SERVER)
    assert caught.value.kind == kind
    assert str(caught.value).startswith("No session with database 'postgres' of main (/var/run/postgresql:5432): ")
    assert str(caught.value).endswith(says)
    assert "\n" not in str(caught.value)


def test_a_server_older_than_supported_is_refused_and_left(monkeypatch):
    driver = Driver(version=120022)
    monkeypatch.setattr(postgresql, "load_driver", lambda: driver)
    with pytest.raises(InputError) as caught:
        postgresql.connect(SERVER)
    assert str(caught.value) == (
        "database 'postgres' of main (/var/run/postgresql:5432) runs PostgreSQL 12, expected 13 or newer; "
        "upgrade it, or take it out of the inventory."
    )
    assert (driver.statements, driver.closed) == (["SHOW server_version_num"], True)


def test_the_oldest_supported_server_gives_a_session(monkeypatch):
    driver = Driver(version=130000)
    monkeypatch.setattr(postgresql, "load_driver", lambda: driver)
    with postgresql.connect(SERVER):
        assert not driver.closed
    assert driver.closed


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
