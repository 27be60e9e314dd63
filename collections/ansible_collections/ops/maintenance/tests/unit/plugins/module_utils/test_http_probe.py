# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.http_probe import BODY_LIMIT_BYTES, check_url, fetch
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import web


def test_an_answer_has_status_body_headers_and_time():
    with web(lambda *_: (200, {"X-Version": "7"}, b"hello")) as (url, _asked):
        answer = fetch(url)
    assert (answer.status, answer.body, answer.headers["x-version"], answer.told()) == (200, b"hello", "7", "answered 200")
    assert 0 < answer.seconds < 5


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_error_is_an_answer_too_with_its_body(status):
    with web(lambda *_: (status, {}, b"why")) as (url, _asked):
        answer = fetch(url)
    assert (answer.status, answer.body) == (status, b"why")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status):
    with web(lambda *_: (status, {"Location": "/elsewhere"}, b"")) as (url, asked):
        assert fetch(f"{url}/here").status == status
    assert asked == ["/here"]


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with web(lambda *_: (200, {}, b"")) as (url, _asked):
        assert fetch(url).status == 200


def test_no_answer_says_why_and_is_no_status():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = fetch(f"http://127.0.0.1:{port}/")
    assert (answer.status, "refused" in answer.told()) == (0, True)


def test_a_server_that_never_answers_or_trickles_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.3).status == 0

    def drops():
        for _drop in range(100):
            time.sleep(0.1)
            yield b"."

    with web(lambda *_: (200, {}, drops())) as (url, _asked):
        started = time.monotonic()
        answer = fetch(url, timeout=0.5)
    assert (answer.status, "in time" in answer.error) == (0, True)
    assert time.monotonic() - started < 3


def test_something_that_does_not_speak_http_is_no_answer():
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak():
            connection, _peer = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x15\x03\x01 not http\r\n\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert fetch(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=5).status == 0


def test_a_long_answer_is_not_read_to_its_end():
    with web(lambda *_: (200, {}, b"x" * (BODY_LIMIT_BYTES * 3))) as (url, _asked):
        assert len(fetch(url).body) == BODY_LIMIT_BYTES


def test_it_asks_again_until_the_status_is_the_wanted_one():
    with web(lambda _path, number: (503 if number < 3 else 200, {}, b"")) as (url, asked):
        assert fetch(url, tries=10, until=(200,)).status == 200
    assert len(asked) == 3


def test_headers_are_sent_and_an_impossible_one_is_no_answer():
    with web(lambda *_: (200, {}, b"")) as (url, asked):
        assert fetch(url, headers={"Authorization": "Bearer a\nHost: b"}).status == 0
        assert asked == []
        assert fetch(url, headers={"Authorization": "Bearer a"}).status == 200


@pytest.mark.parametrize("url", ["http://host", "https://host:8443/path?query", "http://[::1]:80/", "http://user@host/"])
def test_plain_urls_are_accepted(url):
    check_url(url, "url")


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "ftp://host/", "file:///etc/shadow", "http://", "http:///path", "javascript:alert(1)"),
        *("http://host/a b", "http://host/\nX: y", "http://host:99999/", "http://host:0/", "http://host:eighty/", "http://[::1/"),
        "http://user:topsecret@host/",
    ],
)
def test_other_urls_end_in_one_sentence_that_shows_no_password(url):
    with pytest.raises(InputError, match="expected an http or https URL without a password") as caught:
        check_url(url, "endpoints.url")
    assert "topsecret" not in str(caught.value)


def test_a_file_of_certificates_that_is_none_ends_in_one_sentence(tmp_path):
    for content in (None, b"nothing"):
        if content:
            (tmp_path / "ca.pem").write_bytes(content)
        with pytest.raises(InputError, match=r"ca\.pem"):
            fetch("https://127.0.0.1:1/", ca_file=str(tmp_path / "ca.pem"))
