# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.security_weak_ciphers import FAMILIES, ask, chosen_of, hello


def server_hello(suite, session=b"s" * 32, version=b"\x03\x03"):
    """What a server says first, as RFC 5246 has it."""
    body = version + b"r" * 32 + bytes([len(session)]) + session + struct.pack(">H", suite) + b"\0" + b"\0\0"
    said = b"\2" + len(body).to_bytes(3, "big") + body
    return record(22, said, version)


def record(kind, body, version=b"\x03\x03"):
    return bytes([kind]) + version + struct.pack(">H", len(body)) + body


REFUSED = record(21, b"\2\x28")  # fatal, handshake_failure
WARNED = record(21, b"\1\x70")  # a warning, unrecognized_name


def offered(greeting):
    """Read the name and the suites of a greeting back."""
    assert greeting[:3] == b"\x16\x03\x01"
    assert len(greeting) == 5 + int.from_bytes(greeting[3:5], "big") == 9 + int.from_bytes(greeting[6:9], "big")
    size = int.from_bytes(greeting[44:46], "big")
    assert greeting[43] == 0
    return struct.unpack(f">{size // 2}H", greeting[46 : 46 + size])


class Old:
    """A server of the old days, that takes the suites it knows one after the other and tells its choice in its own bytes."""

    def __init__(self, *suites):
        self.suites, self.greetings = suites, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _from = self.listener.accept()
            except OSError:
                return
            with connection:
                self.greetings.append(connection.recv(4096))
                common = [suite for suite in self.suites if suite in offered(self.greetings[-1])]
                connection.sendall(WARNED + server_hello(common[0]) if common else REFUSED)

    def __enter__(self):
        return self

    def __exit__(self, *ended):
        self.listener.close()


def test_a_server_that_offers_what_this_openssl_has_unlearned_is_found():
    with Old(0x000A, 0xC012, 0x0005, 0x0003, 0xC02F) as server:
        assert ask(server.address, "app.example.com", 5) == "3DES (0x000a), RC4 (0x0005), export (0x0003)"
    assert all(b"\x00\x0fapp.example.com" in greeting for greeting in server.greetings)
    assert len(server.greetings) == 4
    with Old(0xC02F) as server:
        assert ask(server.address, "192.0.2.1", 5) == ""
    assert b"192.0.2.1" not in server.greetings[0], "an address is no name"


def test_only_weak_suites_are_offered_and_each_once():
    suites = [suite for family in FAMILIES.values() for suite in family]
    assert len(set(suites)) == len(suites)
    assert offered(hello("a.example", suites)) == (*suites, 0x00FF)
    assert not set(suites) & {0xC02B, 0xC02C, 0xC02F, 0xC030, 0x009C, 0x002F, 0x0035, 0x1301}


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        (server_hello(0x000A), 0x000A),
        (server_hello(0x000A, b""), 0x000A),
        (WARNED + server_hello(0x000A), 0x000A),
        (record(22, server_hello(0x000A)[5:30]) + record(22, server_hello(0x000A)[30:]), 0x000A),
        (REFUSED, 0),
        (b"", 0),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
        (server_hello(0x000A)[:30], None),
        (WARNED * 9, None),
    ],
)
def test_what_a_server_says_is_a_choice_a_refusal_or_not_clear(said, chosen):
    assert chosen_of(io.BytesIO(said)) == chosen


def test_a_suite_that_was_not_offered_proves_nothing():
    with Old() as server:
        server.suites = (0x00FF,)
        assert ask(server.address, "app.example.com", 5) is None


def test_where_nobody_listens_or_answers_it_is_not_known():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent.getsockname()
        assert ask(address, "app.example.com", 0.2) is None
    assert ask(address, "app.example.com", 0.2) is None


@given(st.binary(max_size=200))
def test_any_answer_is_read(data):
    chosen = chosen_of(io.BytesIO(data))
    assert chosen is None or 0 <= chosen < 65536
