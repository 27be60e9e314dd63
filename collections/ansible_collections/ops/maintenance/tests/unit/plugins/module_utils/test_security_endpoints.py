# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.server
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_endpoints, security_headers, security_ocsp
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.http_probe import Answer
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled
from ansible_collections.ops.maintenance.plugins.module_utils.security_ocsp import Told

GUARDED = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "server": "nginx",
}
COOKIE = "sid=secret-value; Path=/; Secure; HttpOnly; SameSite=Lax"


def problems(headers=None, cookies=(COOKIE,), is_secure=True, **own):
    return security_headers.problems(Answer(200, 0, headers=GUARDED if headers is None else headers, cookies=cookies), is_secure, own)


def test_a_guarded_answer_has_no_weakness():
    assert problems() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"strict-transport-security": "max-age=60"},
            "strict-transport-security is 'max-age=60', expected max-age of 15552000 seconds or more",
        ),
        ({"strict-transport-security": "includeSubDomains"}, "strict-transport-security is"),
        ({"strict-transport-security": None}, "strict-transport-security is missing"),
        ({"content-security-policy": None}, "content-security-policy is missing"),
        ({"content-security-policy": "default-src 'self'"}, "x-frame-options is missing"),
        ({"x-frame-options": "ALLOWALL"}, "x-frame-options is 'ALLOWALL'"),
        ({"x-content-type-options": "sniff"}, "x-content-type-options is 'sniff'"),
        ({"referrer-policy": "unsafe-url"}, "referrer-policy is 'unsafe-url'"),
        ({"server": "nginx/1.22.1"}, "server is 'nginx/1.22.1', which tells what runs there"),
        ({"x-powered-by": "PHP/8"}, "x-powered-by is 'PHP/8', which tells what runs there"),
        ({"server": "nginx\x1b]0;owned\x07"}, "server is 'nginx\\\\x1b]0;owned\\\\x07'"),
    ],
)
def test_each_weak_header_is_told(change, told):
    headers = {name: value for name, value in {**GUARDED, **change}.items() if value is not None}
    found = problems(headers)
    assert any(line.startswith(told) for line in found), found


def test_cookies_are_judged_each_and_their_values_never_shown():
    found = problems(cookies=["a=hidden", COOKIE, "b=hidden; secure; httponly"])
    assert found == ["cookie a lacks HttpOnly, SameSite, Secure", "cookie b lacks SameSite"]
    assert problems(cookies=["a=hidden; HttpOnly; SameSite=Lax"], is_secure=False) == []


def test_own_rules_go_before_the_built_in_ones():
    assert problems({}, (), **dict.fromkeys(GUARDED), **{"X-Frame-Options": None}) == []
    own = {"Strict-Transport-Security": "max-age=60", "x-own": "yes"}
    assert problems({**GUARDED, "strict-transport-security": "max-age=60", "x-own": "yes"}, **own) == []
    assert problems({**GUARDED, "strict-transport-security": "max-age=61"}, **own) == [
        "strict-transport-security is 'max-age=61', expected max-age=60",
        "x-own is missing",
    ]


@given(st.dictionaries(st.sampled_from(list(security_headers.RULES)), st.text()), st.lists(st.text()))
def test_any_header_and_cookie_can_be_judged(headers, cookies):
    assert all(isinstance(line, str) for line in problems(headers, cookies))


@pytest.fixture
def site():
    """A web server whose answer a test decides."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answer = (200, [])

        def do_GET(self):
            self.send_response_only(self.answer[0])
            for name, value in self.answer[1]:
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.handler = Handler
        yield server
        server.shutdown()
        thread.join()


def looked(server, **more):
    item = {"url": f"http://127.0.0.1:{server.server_port}/", **more}
    params = filled(security_endpoints.OPTIONS, {"endpoints": [item]})
    return security_endpoints.look(Review(params, Host(), False, Host().now()))


def test_an_answer_without_encryption_is_a_weakness_unless_it_leads_to_https(site):
    site.handler.answer = (200, list(GUARDED.items()))
    assert list(looked(site)[0].evidence) == ["it answers without encryption and does not lead to https"]
    site.handler.answer = (301, [("Location", "https://app.example.com/")])
    assert looked(site)[0].state == "ok"
    site.handler.answer = (302, [("Location", "http://app.example.com/")])
    assert looked(site)[0].state == "warning"
    assert looked(site, judge_headers=False) == []


def test_every_cookie_of_an_answer_is_seen(site):
    site.handler.answer = (200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    told = [line for line in looked(site)[0].evidence if line.startswith("cookie")]
    assert told == ["cookie a lacks HttpOnly, SameSite", "cookie b lacks HttpOnly, SameSite"]


def test_an_endpoint_that_does_not_answer_is_unknown(site, tmp_path):
    site.server_close()
    assert {finding.state for finding in looked(site)} == {"unknown"}
    https = {"url": f"https://127.0.0.1:{site.server_port}/"}
    assert {(finding.id, finding.state) for finding in looked(site, **https)} == {
        (name, "unknown")
        for name in ("security.certificate_expiry", "security.certificate_served", "security.tls_protocols", "security.http_headers")
    }


@pytest.mark.parametrize(
    "item",
    [
        {"url": "ftp://a/"},
        {"url": "https://a:b@c/"},
        {"url": "https://a/", "trust": "ca.pem"},
        {"url": "https://a/", "warning_days": 1.0},
        {"url": "https://a/", "headers": {"server": "("}},
    ],
)
def test_endpoints_that_cannot_be_meant_are_refused(item):
    assert len(security_endpoints.validate(filled(security_endpoints.OPTIONS, {"endpoints": [item]}))) == 1


def hexed(version, kind, data):
    lines = [data[place : place + 16].hex(" ") for place in range(0, len(data), 16)]
    shown = "".join(f"    {line}\n" for line in lines)
    return f">>> TLS {version}, Handshake [length 0001], ClientHello\n    01\n<<< TLS {version}, Handshake [length 0001], {kind}\n{shown}"


def sized(data, width):
    return len(data).to_bytes(width, "big") + data


ANSWER = bytes(range(256)) * 2


def test_the_answer_that_a_server_staples_is_taken_out_of_the_messages():
    status = b"\1" + sized(ANSWER, 3)
    assert security_ocsp.stapled_answer(hexed("1.2", "CertificateStatus", b"\x16" + sized(status, 3)) + "<<< x\n") == ANSWER
    extensions = b"\x00\x12" + sized(b"other", 2) + b"\x00\x05" + sized(status, 2)
    body = b"\0" + sized(sized(b"leaf", 3) + sized(extensions, 2) + sized(b"issuer", 3) + b"\0\0", 3)
    assert security_ocsp.stapled_answer(hexed("1.3", "Certificate", b"\x0b" + sized(body, 3))) == ANSWER
    assert security_ocsp.stapled_answer(hexed("1.2", "Certificate", b"\x0b" + sized(body, 3))) == b""
    assert security_ocsp.until_of("x: good\n\tNext Update: Nov 28 00:00:00 2090 GMT\n") > 3000000000
    assert security_ocsp.until_of("x: good\n\tNext Update: Then\n") == security_ocsp.until_of("") == 0


@given(st.binary(max_size=80), st.sampled_from(["1.2", "1.3"]), st.sampled_from(["Certificate", "CertificateStatus"]))
def test_any_message_of_a_server_is_read_without_a_traceback(data, version, kind):
    assert isinstance(security_ocsp.stapled_answer(hexed(version, kind, data)), bytes)


@pytest.mark.parametrize(
    ("told", "may_ask", "state"),
    [
        (Told(), False, None),
        (Told("good", 4e9), False, "ok"),
        (Told("good", 1), False, "warning"),
        (Told("revoked", 4e9), False, "critical"),
        (Told("unknown", doubt="nobody trusted signed it"), False, "unknown"),
        (Told("unknown", doubt="nobody trusted signed it", asked="good"), True, "unknown"),
        (Told(must_staple=True), False, "critical"),
        (Told("good", 4e9, must_staple=True), False, "ok"),
        (Told(asked="good"), True, "ok"),
        (Told(asked="revoked"), True, "critical"),
        (Told("good", 4e9, asked="revoked"), True, "critical"),
        (Told(problem="it names no responder"), True, "unknown"),
        (Told(asked="unknown"), True, "unknown"),
    ],
)
def test_revocation_is_judged(told, may_ask, state):
    found = security_ocsp.verdict("app:443", told, may_ask)
    assert (found and found.state) == state


def test_an_answer_that_nobody_trusted_signed_is_not_believed():
    assert security_ocsp.parse_answer("/t/leaf: good\n", "Response verify OK\n", "/t/leaf", "") == ("good", "")
    status, problem = security_ocsp.parse_answer("/t/leaf: good\n", "Response Verify Failure\n", "/t/leaf", "")
    assert (status, "not signed" in problem) == ("", True)
    assert security_ocsp.parse_answer("", "", "/t/leaf", "openssl ended with 1") == ("", "openssl ended with 1")


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_endpoints.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_headers, "_cookie", lambda *_: "")
    assert "header" in security_endpoints.passes_bad_sample(review)
    monkeypatch.undo()
    for blind, said in ((("good", ""), "revoked"), (("revoked", ""), "signature")):
        monkeypatch.setattr(security_ocsp, "parse_answer", lambda *_, blind=blind: blind)
        assert said in security_endpoints.passes_bad_sample(review)
