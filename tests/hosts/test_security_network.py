"""What a real sshd and a real web server offer is found: options, Match blocks, an old configuration, headers, revocation."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    port_scan,
    security_endpoints,
    security_network,
    security_ocsp,
    security_review,
    security_sshd,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

OPTIONS = {**security_review.OPTIONS, "state_dir": {"type": "path"}}


def review_of(etc="/etc", **given):
    return Review(filled(OPTIONS, given), Host(), False, Host().now(), etc)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_for(is_true, seconds=10):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


HARDENED = """PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
DisableForwarding yes
LoginGraceTime 30
MaxAuthTries 3
ClientAliveInterval 300
MACs hmac-sha2-512-etm@openssh.com
"""


@pytest.fixture
def sshd(tmp_path):
    """A configuration of sshd in a folder of its own; ``look`` judges it by the built-in rules."""
    os.makedirs("/run/sshd", exist_ok=True)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    port = free_port()
    base = f"HostKey {key}\nPidFile {tmp_path}/sshd.pid\nPort {port}\nListenAddress 127.0.0.1\n"

    def look(text, **given):
        (tmp_path / "ssh").mkdir(exist_ok=True)
        (tmp_path / "ssh" / "sshd_config").write_text(base + text)
        found = security_sshd.look(review_of(str(tmp_path), sshd_policy=True, **given))
        return {(one.id, one.subject): one for one in found}

    look.folder, look.port = tmp_path, port
    return look


def test_a_hardened_sshd_is_ok_and_each_weakness_is_told(sshd):
    assert sshd(HARDENED)["security.sshd_policy", "sshd"].state == "ok"
    found = sshd(
        "PermitRootLogin yes\nPermitEmptyPasswords yes\nCiphers aes256-ctr,aes128-cbc\nKexAlgorithms +diffie-hellman-group14-sha1\n"
    )
    states = {subject: one.state for (name, subject), one in found.items() if name == "security.sshd_policy"}
    assert "sshd" not in states
    assert (states["sshd.permit_root_login"], states["sshd.permit_empty_passwords"]) == ("critical", "critical")
    assert set(states) >= {"sshd.ciphers", "sshd.kex_algorithms", "sshd.max_auth_tries", "sshd.password_authentication", "sshd.macs"}


@pytest.mark.parametrize("criterion", ["User deploy", "Address 192.0.2.0/24", "LocalPort 2222", "all"])
def test_a_match_block_that_opens_a_door_is_found(sshd, criterion):
    found = sshd(f"{HARDENED}Match {criterion}\n  PasswordAuthentication yes\n")
    assert found["security.sshd_policy", "sshd.password_authentication"].state == "warning"


def test_a_configuration_that_does_not_parse_is_unknown(sshd):
    assert sshd("PermitRotLogin no\n")["security.sshd_policy", "sshd"].state == "unknown"


def test_an_sshd_that_has_not_read_its_files_is_found(sshd):
    sshd(HARDENED)
    config = sshd.folder / "ssh/sshd_config"
    old = time.time() - 5
    with subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(config)], stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: answers(sshd.port))
            reloaded = sshd.folder / "sshd.pid"
            # Files that are older than the process, as on a host; the time of a change of status cannot be set.
            state = security_sshd.security_sshd_config.changed_since
            assert state(security_sshd.security_sshd_config.Config([str(config)]), old) == [str(config)]
            wait_for(lambda: time.time() > config.stat().st_ctime + 1.2)
            assert sshd_reload(sshd).state == "ok"
            wait_for(lambda: time.time() > reloaded.stat().st_mtime + 1.2)
            config.write_text(config.read_text() + "MaxSessions 5\n")
            assert sshd_reload(sshd).state == "warning"
            running.send_signal(signal.SIGHUP)
            wait_for(lambda: reloaded.exists() and reloaded.stat().st_mtime > config.stat().st_ctime)
            wait_for(lambda: answers(sshd.port))
            assert sshd_reload(sshd).state == "ok"
        finally:
            running.terminate()


def sshd_reload(sshd):
    found = security_sshd.look(review_of(str(sshd.folder), sshd_policy=True))
    return next(one for one in found if one.id == "security.sshd_reload")


def test_an_option_on_the_command_line_of_the_real_sshd_is_found(sshd):
    sshd(HARDENED)
    argv = ["/usr/sbin/sshd", "-D", "-f", str(sshd.folder / "ssh/sshd_config"), "-o", "PermitEmptyPasswords=yes"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: answers(sshd.port))
            assert sshd(HARDENED)["security.sshd_policy", "sshd.permit_empty_passwords"].state == "critical"
        finally:
            running.terminate()
    assert sshd(HARDENED)["security.sshd_policy", "sshd"].state == "ok"


def test_a_real_scan_tells_what_is_open_and_nothing_of_what_is_not():
    given = {"addresses": ["127.0.0.1", "127.0.0.2"], "authorised_by": "the tests"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = port_scan.run(filled(port_scan.OPTIONS, {**given, "ports": str(port)}), False, Host())
        wanted = port_scan.run(filled(port_scan.OPTIONS, {**given, "ports": str(port), "expected": [f"tcp/{port}"]}), False, Host())
    assert {one.subject: one.state for one in outcome.findings} == {"127.0.0.1": "critical", "127.0.0.2": "ok"}
    # Where nothing that is expected answers, it may be another machine.
    assert {one.subject: one.state for one in wanted.findings} == {"127.0.0.1": "ok", "127.0.0.2": "unknown"}


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Site:
    """nginx with a certificate of its own authority, and that authority's responder."""

    def __init__(self, folder):
        self.folder, self.port, self.responder = folder, free_port(), free_port()
        self.issue("ca", ["-x509", "-days", "90", "-addext", "basicConstraints=critical,CA:true"])
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index.txt\nserial={folder}/serial\nnew_certs_dir={folder}\ndefault_md=sha256\n"
            f"certificate={folder}/ca.crt\nprivate_key={folder}/ca.key\npolicy=p\n[p]\ncommonName=supplied\n"
        )

    def issue(self, name, extra):
        out = f"{self.folder}/{name}.{'crt' if '-x509' in extra else 'csr'}"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{self.folder}/{name}.key"]
        openssl("req", "-new", *key, "-subj", f"/CN={name}", "-out", out, *extra)

    def leaf(self, name, days=60, features=""):
        self.issue(name, [])
        lines = f"subjectAltName=DNS:localhost\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{self.responder}\n{features}\n"
        (self.folder / "ext").write_text(lines)
        paths = ["-in", f"{self.folder}/{name}.csr", "-out", f"{self.folder}/{name}.crt", "-extfile", f"{self.folder}/ext"]
        openssl("ca", "-batch", "-notext", "-config", f"{self.folder}/ca.cnf", "-days", str(days), *paths)

    @contextlib.contextmanager
    def serves(self, name, lines=""):
        config = self.folder / "nginx.conf"
        config.write_text(
            f"daemon off; error_log stderr; pid {self.folder}/nginx.pid; events {{}}\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{self.port} ssl;\n"
            f"ssl_certificate {self.folder}/{name}.crt; ssl_certificate_key {self.folder}/{name}.key;\n{lines}\n"
            "location / { return 200 ok; } } }\n"
        )
        with subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL) as running:
            try:
                wait_for(lambda: answers(self.port))
                yield
            finally:
                running.terminate()

    @contextlib.contextmanager
    def authority_answers(self):
        signer = ["-rsigner", f"{self.folder}/ca.crt", "-rkey", f"{self.folder}/ca.key", "-CA", f"{self.folder}/ca.crt"]
        argv = ["openssl", "ocsp", "-index", f"{self.folder}/index.txt", "-port", str(self.responder), *signer]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            try:
                # One that connects and says nothing would be waited for: it serves one at a time.
                wait_for(lambda: any(one.port == self.responder for one in security_network.sockets_of("/proc/net")))
                yield
            finally:
                running.terminate()

    def look(self, **given):
        item = {"url": f"https://localhost:{self.port}/", "trust": f"{self.folder}/ca.crt", **given}
        return {one.id.removeprefix("security."): one for one in security_endpoints.look(review_of(endpoints=[item]))}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("site"))
    made.leaf("good")
    made.leaf("soon", days=5)
    made.leaf("revoked")
    made.leaf("staple", features="tlsfeature=status_request")
    openssl("ca", "-batch", "-config", f"{made.folder}/ca.cnf", "-revoke", f"{made.folder}/revoked.crt")
    return made


GUARD = (
    "ssl_protocols TLSv1.2 TLSv1.3; server_tokens off;\nadd_header Strict-Transport-Security 'max-age=31536000';\n"
    "add_header Content-Security-Policy \"default-src 'self'; frame-ancestors 'none'\";\nadd_header X-Content-Type-Options nosniff;\n"
    "add_header Referrer-Policy same-origin;\nadd_header Set-Cookie 'sid=secret-value; Secure; HttpOnly; SameSite=Lax';"
)


def test_a_guarded_site_stays_silent(site):
    with site.serves("good", GUARD):
        found = site.look()
    states = {name: one.state for name, one in found.items()}
    # Where this OpenSSL cannot speak TLS 1.0 and 1.1, whether they are offered is not known.
    assert states.pop("tls_protocols") in ("ok", "unknown")
    assert states == dict.fromkeys(("certificate_served", "certificate_expiry", "certificate_name", "http_headers"), "ok")


def test_old_protocols_missing_headers_and_an_end_that_is_near_are_told(site):
    lines = "ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers 'ALL:@SECLEVEL=0';\nadd_header Set-Cookie 'sid=secret-value';"
    with site.serves("soon", lines):
        found = site.look()
    assert found["certificate_expiry"].state == "critical"
    assert found["tls_protocols"].state == "warning"
    assert "outdated or weak: TLS 1.0, TLS 1.1" in found["tls_protocols"].summary
    assert (found["http_headers"].state, found["http_headers"].value) == ("warning", 7)
    assert "cookie sid lacks HttpOnly, SameSite, Secure" in found["http_headers"].evidence
    assert "secret-value" not in str(found["http_headers"].as_dict())


def test_the_authority_is_asked_only_where_that_is_declared(site, monkeypatch):
    monkeypatch.setattr(security_ocsp, "RESPONDER_SECONDS", 1)  # openssl tries as long as that when nobody listens
    with site.serves("good", GUARD):
        assert "ocsp" not in site.look()
        assert site.look(ocsp=True)["ocsp"].state == "unknown"
        with site.authority_answers():
            assert site.look(ocsp=True)["ocsp"].state == "ok"
    with site.serves("revoked", GUARD), site.authority_answers():
        assert site.look(ocsp=True)["ocsp"].state == "critical"


def test_a_certificate_that_demands_a_stapled_answer_needs_one(site):
    with site.serves("staple", GUARD):
        assert site.look()["ocsp"].state == "critical"
    answer = site.folder / "answer.der"
    with site.authority_answers():
        certificates = ["-issuer", f"{site.folder}/ca.crt", "-cert", f"{site.folder}/staple.crt", "-CAfile", f"{site.folder}/ca.crt"]
        openssl("ocsp", "-no_nonce", *certificates, "-url", f"http://127.0.0.1:{site.responder}", "-respout", str(answer))
    with site.serves("staple", f"{GUARD}\nssl_stapling on; ssl_stapling_file {answer};"):
        assert site.look()["ocsp"].state == "ok"
    # The answer about another certificate, and one whose signature is broken, say good and prove nothing.
    with site.serves("good", f"{GUARD}\nssl_stapling on; ssl_stapling_file {answer};"):
        assert site.look()["ocsp"].state == "unknown"
    signed = bytearray(answer.read_bytes())
    signed[signed.index(b"\x18\x0f20") + 15] ^= 1  # a second of the time when it was made
    answer.write_bytes(signed)
    with site.serves("staple", f"{GUARD}\nssl_stapling on; ssl_stapling_file {answer};"):
        found = site.look()["ocsp"]
    assert (found.state, "stapled answer is not believed" in found.summary) == ("unknown", True)


def test_an_authority_that_nobody_declared_is_refused_and_nothing_said_of_headers(site):
    with site.serves("good", GUARD):
        found = site.look(trust=None)
    assert found["certificate_served"].state == "critical"
    assert found["http_headers"].state == "unknown"
