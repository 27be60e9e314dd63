# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    security_certificates,
    security_endpoints,
    security_tls,
    security_weak_ciphers,
    security_x509,
    security_x509_names,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def openssl(*arguments, text=""):
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=True).stdout


class Authority:
    """A root, an intermediate and what they issue, made by openssl."""

    def __init__(self, folder):
        self.folder = folder
        self.root = self.issue("root", None, "basicConstraints=critical,CA:true")
        self.middle = self.issue("middle", "root", "basicConstraints=critical,CA:true,pathlen:0")

    def path(self, name):
        return str(self.folder / name)

    def issue(self, name, issuer, extensions, days=365):
        key, request, cert = (self.path(f"{name}.{kind}") for kind in ("key", "csr", "crt"))
        openssl(
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            key,
            "-out",
            request,
            "-subj",
            f"/CN={name}",
        )
        (self.folder / "ext").write_text(extensions + "\n")
        signer = (
            ["-signkey", key]
            if issuer is None
            else ["-CA", self.path(f"{issuer}.crt"), "-CAkey", self.path(f"{issuer}.key"), "-CAcreateserial"]
        )
        openssl("x509", "-req", "-in", request, "-days", str(days), "-extfile", self.path("ext"), "-out", cert, *signer)
        return cert

    def leaf(self, name, days=90, names="DNS:app.example.com,IP:127.0.0.1"):
        return self.issue(name, "middle", f"subjectAltName={names}", days)

    def joined(self, name, *parts):
        target = self.folder / name
        target.write_text("".join((self.folder / part).read_text() for part in parts))
        return str(target)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.leaf("good")
    made.leaf("other")
    made.leaf("soon", days=5)
    for name in ("good", "other", "soon"):
        made.joined(f"{name}.pem", f"{name}.crt", "middle.crt")
    (made.folder / "good.key").chmod(0o600)
    return made


def reviewed(authority, name, later=0.0, **more):
    item = {"path": authority.path(name), "trust": authority.path("root.crt"), **more}
    params = filled(security_certificates.OPTIONS, {"certificates": [item]})
    assert security_certificates.validate(params) == []
    review = Review(params, Host(), False, Host().now() + timedelta(days=later))
    return {finding.id.split(".")[1]: finding for finding in security_certificates.look(review)}


def states(findings):
    return {name: finding.state for name, finding in findings.items()}


def test_a_good_certificate_is_good_in_every_respect(authority):
    found = reviewed(authority, "good.pem", hosts=["app.example.com", "127.0.0.1"], key=authority.path("good.key"))
    assert states(found) == dict.fromkeys(
        ("certificate_expiry", "certificate_chain", "certificate_name", "certificate_key", "file_mode"), "ok"
    )
    assert 89 < found["certificate_expiry"].value <= 90


@pytest.mark.parametrize(
    ("later", "state"), [(0, "ok"), (59, "ok"), (61, "warning"), (82, "warning"), (84, "critical"), (91, "critical"), (-2, "critical")]
)
def test_time_left_decides_and_expired_or_not_yet_valid_is_critical(authority, later, state):
    assert reviewed(authority, "good.pem", later)["certificate_expiry"].state == state


@pytest.mark.parametrize(
    ("left", "state", "is_urgent"),
    [
        (31, "ok", False),
        (29, "warning", False),
        (15, "warning", False),
        (13, "warning", True),
        (8, "warning", True),
        (6, "critical", False),
    ],
)
def test_thirty_fourteen_and_seven_days_each_say_something_else(authority, left, state, is_urgent):
    found = reviewed(authority, "good.pem", 90 - left)["certificate_expiry"]
    assert (found.state, found.summary.startswith("within two weeks: "), "this week" in found.advice) == (state, is_urgent, is_urgent)
    assert found.threshold == "warning below 30 days, critical below 7 days, urgent below 14 days"


def test_limits_on_one_side_of_fourteen_days_know_no_urgency(authority):
    found = reviewed(authority, "good.pem", 85, warning_days=6, critical_days=2)["certificate_expiry"]
    assert (found.state, found.threshold) == ("warning", "warning below 6 days, critical below 2 days")
    assert not found.summary.startswith("within")


def test_expired_is_critical_whatever_the_limits_say(authority):
    found = reviewed(authority, "good.pem", 91, warning_days=0, critical_days=0)["certificate_expiry"]
    assert found.state == "critical"
    assert "expired" in found.summary


def test_five_days_left(authority):
    found = reviewed(authority, "soon.pem")["certificate_expiry"]
    assert (found.state, round(found.value)) == ("critical", 5)


def test_an_authority_that_expires_first_counts(authority):
    made = Authority.issue(authority, "short", "root", "basicConstraints=critical,CA:true", 3)
    authority.issue("under-short", "short", "subjectAltName=DNS:app.example.com")
    path = authority.joined("under-short.pem", "under-short.crt", "short.crt")
    found = reviewed(authority, "under-short.pem")
    assert made
    assert path
    assert found["certificate_expiry"].state == "critical"
    assert "short" in found["certificate_expiry"].summary
    assert found["certificate_chain"].state == "ok"


@pytest.mark.parametrize("missing", ["critical", "warning", "unknown"])
def test_an_absent_certificate_is_never_only_information(authority, missing):
    found = reviewed(authority, "absent.crt", missing=missing)["certificate_expiry"]
    assert found.state == missing
    assert found.advice


def test_an_absent_chain_file_is_named(authority):
    found = reviewed(authority, "good.crt", chain=authority.path("absent.pem"))["certificate_expiry"]
    assert found.state == "critical"
    assert "absent.pem" in found.summary


def test_a_chain_may_be_incomplete_apart_out_of_order_or_untrusted(authority):
    assert reviewed(authority, "good.crt")["certificate_chain"].state == "critical"
    assert reviewed(authority, "good.crt", chain=authority.path("middle.crt"))["certificate_chain"].state == "ok"
    authority.joined("disorder.pem", "good.crt", "root.crt", "middle.crt")
    assert reviewed(authority, "disorder.pem")["certificate_chain"].state == "warning"
    assert reviewed(authority, "good.pem", trust=None)["certificate_chain"].state == "critical"


def test_a_wrong_host_name_is_critical(authority):
    assert reviewed(authority, "good.pem", hosts=["app.example.com", "www.example.com"])["certificate_name"].state == "critical"


def test_the_key_of_another_certificate_is_critical_and_an_open_one_too(authority):
    other = authority.folder / "other.key"
    other.chmod(0o644)
    found = reviewed(authority, "good.pem", key=str(other))
    assert (found["certificate_key"].state, found["file_mode"].state) == ("critical", "critical")
    assert reviewed(authority, "good.pem", key=authority.path("none.key"))["certificate_key"].state == "critical"


def test_a_key_with_a_passphrase_is_unknown(authority):
    locked = authority.path("locked.key")
    openssl("pkey", "-in", authority.path("good.key"), "-aes256", "-passout", "pass:secret", "-out", locked)
    assert reviewed(authority, "good.pem", key=locked)["certificate_key"].state == "unknown"


def test_odd_forms_end_in_clear_findings(authority):
    folder = authority.folder
    openssl("x509", "-in", authority.path("good.crt"), "-outform", "DER", "-out", authority.path("good.der"))
    found = reviewed(authority, "good.der", chain=authority.path("middle.crt"))
    assert (found["certificate_form"].state, found["certificate_expiry"].state) == ("warning", "ok")
    assert "DER" in found["certificate_form"].summary
    (folder / "utf16.crt").write_bytes((folder / "good.pem").read_text().encode("utf-16"))
    found = reviewed(authority, "utf16.crt")
    assert (found["certificate_form"].state, found["certificate_expiry"].state) == ("warning", "ok")
    for name, content in (("empty", b""), ("text", b"hello"), ("zero", b"\0" * 50)):
        (folder / name).write_bytes(content)
        found = reviewed(authority, name)
        assert (found["certificate_form"].state, found["certificate_expiry"].state) == ("critical", "unknown")
    (folder / "bad.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert states(reviewed(authority, "bad.crt")) == {"certificate_expiry": "unknown"}
    (folder / "cut.crt").write_bytes((folder / "good.der").read_bytes()[:-9])
    assert reviewed(authority, "cut.crt")["certificate_expiry"].state == "unknown"
    assert states(reviewed(authority, ".")) == {"certificate_expiry": "unknown"}


class Server:
    """A real TLS server on a free port of the loopback address."""

    def __init__(self, cert, key, prepare=lambda *_: None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        prepare(self.context)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connect = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                plain, _unused = self.listener.accept()
            except OSError:
                return
            try:
                plain.settimeout(5)
                with self.context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(1)
            except OSError:
                plain.close()

    def __enter__(self):
        return self

    def __exit__(self, *ended):
        self.listener.close()


def old(context):
    context.set_ciphers("ECDHE+AES:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1


def weak(context):
    context.set_ciphers("ALL:NULL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_2


def test_what_is_served_is_compared_with_the_file(authority):
    with Server(authority.path("good.pem"), authority.path("good.key")) as server:
        same = reviewed(authority, "good.pem", hosts=["app.example.com"], connect=server.connect)
        other = reviewed(authority, "other.pem", hosts=["app.example.com"], connect=server.connect)
        named = reviewed(authority, "good.pem", hosts=["www.example.com"], connect=server.connect)
    assert (same["certificate_served"].state, same["tls_protocols"].state) == ("ok", "ok")
    assert other["certificate_served"].state == "critical"
    assert "another certificate" in other["certificate_served"].summary
    assert "clients refuse it" in named["certificate_served"].summary


def test_a_server_that_sends_no_intermediate_is_found(authority):
    with Server(authority.path("good.crt"), authority.path("good.key")) as server:
        found = reviewed(authority, "good.pem", hosts=["app.example.com"], connect=server.connect)
    assert (found["certificate_chain"].state, found["certificate_served"].state) == ("ok", "critical")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("prepare", "words"), [(old, "outdated or weak: TLS 1.0, TLS 1.1"), (weak, "outdated or weak: cipher ")])
def test_old_protocols_and_weak_ciphers_are_found(authority, prepare, words):
    """Each alone is enough, so that one is not found by what the other says."""
    with Server(authority.path("good.pem"), authority.path("good.key"), prepare) as server:
        found = reviewed(authority, "good.pem", hosts=["app.example.com"], connect=server.connect)["tls_protocols"]
    assert (found.state, words in found.summary) == ("warning", True), found.summary
    assert ("TLS 1.0" in found.summary, "cipher" in found.summary) == (prepare is old, prepare is weak)


def test_a_server_that_offers_no_weak_cipher_agrees_to_none(authority):
    with Server(authority.path("good.pem"), authority.path("good.key")) as server:
        host, port = security_tls.endpoint(server.connect)
        assert security_weak_ciphers.ask((host, port), "app.example.com", 5) == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("ciphers", "families"), [("ALL:NULL", {"NULL", "anonymous"}), ("NULL:!aNULL", {"NULL"}), ("aNULL:!eNULL", {"anonymous"})]
)
def test_every_weak_family_that_openssl_speaks_is_told(authority, ciphers, families):
    def prepare(context):
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        context.set_ecdh_curve("prime256v1")

    with Server(authority.path("good.pem"), authority.path("good.key"), prepare) as server:
        told = security_weak_ciphers.ask(security_tls.endpoint(server.connect), "app.example.com", 5)
    assert {word for word in told.replace(",", " ").split() if not word.startswith("(")} == families


def test_the_certificate_for_the_name_that_is_asked_for_is_judged_not_the_first_one(authority):
    """asr-12-5: a server has several certificates, and shows the one for the name that a client says before all else."""
    asked = []

    def several(context):
        named = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        named.load_cert_chain(authority.path("good.pem"), authority.path("good.key"))

        def choose(connection, name, _first):
            asked.append(name)
            if name == "app.example.com":
                connection.context = named

        context.sni_callback = choose

    authority.leaf("first", days=3, names="DNS:first.example.com")
    authority.joined("first.pem", "first.crt", "middle.crt")
    with Server(authority.path("first.pem"), authority.path("first.key"), several) as server:
        mine = reviewed(authority, "good.pem", hosts=["app.example.com"], connect=server.connect)
        first = reviewed(authority, "good.pem", hosts=["first.example.com"], connect=server.connect)
    assert (mine["certificate_served"].state, first["certificate_served"].state) == ("ok", "critical")
    assert set(asked) == {"app.example.com", "first.example.com"}, "some greeting told no name, or another one"


def test_an_endpoint_is_asked_by_its_name_too(authority):
    def several(context):
        named = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        named.load_cert_chain(authority.path("local.pem"), authority.path("local.key"))

        def choose(connection, name, _first):
            if name == "localhost":
                connection.context = named

        context.sni_callback = choose

    authority.leaf("local", names="DNS:localhost")
    authority.joined("local.pem", "local.crt", "middle.crt")
    with Server(authority.path("soon.pem"), authority.path("soon.key"), several) as server:
        port = security_tls.endpoint(server.connect)[1]
        item = {"url": f"https://localhost:{port}/", "trust": authority.path("root.crt"), "judge_headers": False}
        params = filled(security_endpoints.OPTIONS, {"endpoints": [item]})
        found = {one.id: one.state for one in security_endpoints.look(Review(params, Host(), False, Host().now()))}
    assert found == {f"security.{name}": "ok" for name in ("certificate_served", "certificate_name", "certificate_expiry", "tls_protocols")}


def test_a_server_that_is_not_there_is_unknown(authority):
    found = reviewed(authority, "good.pem", connect="127.0.0.1:1")
    assert (found["certificate_served"].state, found["tls_protocols"].state) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("host", "names", "good"),
    [
        ("App.Example.com.", ["DNS:app.example.com"], True),
        ("app.example.com", ["DNS:*.example.com"], True),
        ("a.app.example.com", ["DNS:*.example.com"], False),
        ("example.com", ["DNS:*.example.com"], False),
        ("example.com", ["DNS:*.com"], False),
        ("example", ["DNS:*"], False),
        ("192.0.2.1", ["DNS:192.0.2.1"], False),
        ("192.0.2.1", ["IP:192.0.2.1"], True),
        ("2001:db8::1", ["IP:2001:DB8:0:0:0:0:0:1"], True),
        ("müller.example", ["DNS:xn--mller-kva.example"], True),
        ("example.com", [], False),
        ("example.com", ["email:a@example.com", "DNS:evil.com, DNS:example.com"], False),
    ],
)
def test_names_match_as_browsers_judge(host, names, good):
    assert security_x509.matches(host, names) is good


@given(st.binary(max_size=400))
def test_any_bytes_are_split_without_a_traceback(data):
    blocks, problem = security_x509.split(data)
    assert blocks or problem


@given(st.binary(max_size=400), st.integers(0, 600), st.binary(max_size=4))
def test_any_bytes_have_names_or_are_refused(authority, data, place, other):
    """Bytes of chance, and a certificate with a few of its bytes changed."""
    with open(authority.path("good.crt"), "rb") as source:
        good = ssl.PEM_cert_to_DER_cert(source.read().decode())
    assert security_x509_names.names(good) == ("DNS:app.example.com", "IP:127.0.0.1")
    for der in (data, good[:place] + other + good[place + len(other) :]):
        with contextlib.suppress(ValueError):
            assert all(name.isprintable() for name in security_x509_names.names(der))


@pytest.mark.parametrize("connect", ["example.com", "example.com:", ":443", "example.com:0", "example.com:99999", "a:b"])
def test_an_endpoint_needs_a_port(connect):
    with pytest.raises(ValueError, match="host:port"):
        security_tls.endpoint(connect)


def test_wrong_input_is_named():
    item = {"path": "x", "warning_days": 1, "critical_days": -7, "key_mode": "600", "connect": "nowhere"}
    params = filled(security_certificates.OPTIONS, {"certificates": [item]})
    assert len(security_certificates.validate(params)) == 4


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_certificates.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_certificates, "_when", lambda *_: "never")
    monkeypatch.setattr(security_x509, "trust_problem", lambda *_: "")
    assert "certificate_chain" in security_certificates.passes_bad_sample(review)
