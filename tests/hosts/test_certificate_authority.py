"""The real certbot, a real authority that comes to look at a challenge, and a real nginx that serves both."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import socket
import ssl
import subprocess

import authority
import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import certificate_renewal
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

NAME, PORT = "shop.example.org", 8444
SITE = """user root; daemon on; pid {root}/nginx.pid; error_log {root}/nginx.log;
events {{}}
http {{ access_log off; default_type text/plain; client_body_temp_path {root}/t1;
proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;
scgi_temp_path {root}/t5;
server {{ listen 127.0.0.1:{challenge}; root {root}/www; }}
{tls} }}
"""
TLS = "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; }}"


class Site:
    """nginx, which serves a certificate and the challenges for it, and what certbot keeps."""

    def __init__(self, root: pathlib.Path, issuer: authority.Authority):
        self.root, self.authority = root, issuer
        self.live = root / "certbot" / "live" / NAME
        self.argv = ["nginx", "-p", str(root), "-c", str(root / "nginx.conf")]
        (root / "www").mkdir()
        root.chmod(0o755)

    def nginx(self, *more):
        tls = TLS.format(port=PORT, live=self.live) if self.live.exists() else ""
        (self.root / "nginx.conf").write_text(SITE.format(root=self.root, challenge=authority.CHALLENGE_PORT, tls=tls))
        subprocess.run([*self.argv, *more], check=True, capture_output=True)

    def certbot(self, *arguments):
        folders = [f"--{name}-dir={self.root / place}" for name, place in (("config", "certbot"), ("work", "work"), ("logs", "logs"))]
        options = ["--non-interactive", "--agree-tos", "--register-unsafely-without-email", "--server", authority.URL]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "REQUESTS_CA_BUNDLE": str(self.authority.ca_file)}
        subprocess.run(["certbot", *arguments, *options, *folders], check=True, capture_output=True, env=env)

    def challenges(self, old, new):
        """Serve challenges on another port."""
        conf = self.root / "nginx.conf"
        conf.write_text(conf.read_text().replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}"))
        subprocess.run([*self.argv, "-s", "reload"], check=True, capture_output=True)
        authority.wait_for(lambda: _answers(new) and not _answers(old))

    def order(self):
        self.certbot("certonly", "--webroot", "--webroot-path", str(self.root / "www"), "-d", NAME)

    def move_to_the_authority_that_runs(self):
        """Register there, as its account is named in the renewal file."""
        accounts = self.root / "certbot" / "accounts"
        old = {path.name for path in accounts.glob("*/dir/*")}
        for path in accounts.glob("*/dir/*"):
            path.rename(self.root / path.name)
        self.certbot("register")
        (new,) = (path.name for path in accounts.glob("*/dir/*"))
        conf = self.root / "certbot" / "renewal" / f"{NAME}.conf"
        conf.write_text(conf.read_text().replace(*old, new))

    def served(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", PORT), 5) as raw, context.wrap_socket(raw, server_hostname=NAME) as tls:
            return hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()

    def kept(self):
        """What would be lost: every file of the certificate, by name and content."""
        return {path.name: path.read_bytes() for path in sorted(self.live.iterdir()) if path.is_file()}


def run(site, check=False, **more):
    given = {name: option.get("default") for name, option in certificate_renewal.OPTIONS.items()}
    folders = {"config_dir": "certbot", "work_dir": "work", "logs_dir": "logs"}
    item = {name: option.get("default") for name, option in certificate_renewal.OPTIONS["certificates"]["options"].items()}
    declared = {
        **item,
        "name": NAME,
        "connect": f"127.0.0.1:{PORT}",
        "trust": str(site.authority.trust),
        "reload_command": [*site.argv, "-s", "reload"],
        "check_command": [*site.argv, "-t"],
    }
    params = {**given, "certificates": [declared], "deadline": 0.0, "authority_ca_file": str(site.authority.ca_file)}
    paths = {option: str(site.root / place) for option, place in folders.items()}
    outcome = certificate_renewal.run({**params, **paths, **more}, check, Host())
    outcome.record()
    return outcome


def states(outcome):
    return {finding.id.split(".")[1]: finding.state for finding in outcome.findings if finding.id != "certificate.timer"}


def said(outcome, name):
    return next(finding.summary for finding in outcome.findings if finding.id == f"certificate.{name}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site with a certificate that is ordered and served; each test finds it sound and leaves it so."""
    root = tmp_path_factory.mktemp("site")
    issuer = authority.Authority(tmp_path_factory.mktemp("authority"))
    ready = Site(root, issuer)
    with authority.name_server():
        ready.nginx()
        with issuer.running(days=90):
            ready.order()
        ready.nginx("-s", "reload")
        authority.wait_for(lambda: _answers(PORT))
        yield ready
        subprocess.run([*ready.argv, "-s", "stop"], check=True, capture_output=True)


def _answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def due(site, days):
    """As its renewal file has it, the certificate is renewed when fewer days than these are left."""
    conf = site.root / "certbot" / "renewal" / f"{NAME}.conf"
    conf.write_text(conf.read_text().replace("# renew_before_expiry = 30 days", f"renew_before_expiry = {days} days"))
    assert f"{days} days" in conf.read_text()
    yield
    conf.write_text(conf.read_text().replace(f"renew_before_expiry = {days} days", "# renew_before_expiry = 30 days"))


def test_what_was_ordered_is_sound_and_a_renewal_that_is_not_due_asks_nobody(site):
    """No authority runs: whatever asked it would fail."""
    outcome = run(site, renew=True, renew_before_days=60)
    assert states(outcome) == {"expiry": "ok", "chain": "ok", "served": "ok"}
    assert outcome.actions == []


def test_an_authority_that_is_down_is_said_and_leaves_the_old_certificate_alone(site):
    before, served = site.kept(), site.served()
    with due(site, 1000):
        outcome = run(site, renew=True, rehearse=True)
    assert states(outcome)["rehearsal"] == "unknown"
    assert "refused" in said(outcome, "rehearsal")
    assert [(action.operation, action.status) for action in outcome.actions] == [("renew", "failed")]
    assert (states(outcome)["renewal"], states(outcome)["served"]) == ("critical", "ok")
    assert "refused" in said(outcome, "renewal")
    assert (site.kept(), site.served()) == (before, served)


def test_what_is_due_is_renewed_once_and_served(site):
    before, served = site.kept(), site.served()
    with site.authority.running(days=365), due(site, 100):
        site.move_to_the_authority_that_runs()
        planned = run(site, check=True, renew=True)
        assert [action.status for action in planned.actions] == ["due", "due"]
        assert (site.kept(), site.served()) == (before, served)
        done = run(site, renew=True)
        assert [(action.operation, action.status) for action in done.actions] == [("renew", "changed"), ("reload", "changed")]
        assert states(done) == {"expiry": "ok", "chain": "ok", "served": "ok"}
        assert site.served() == done.actions[0].after["sha256"] != served
        assert run(site, renew=True).actions == []


def test_a_rehearsal_asks_the_authority_of_the_certificate_and_leaves_it_alone(site):
    """Left to itself certbot asks the test service of Let's Encrypt, which cannot be reached from here and proves nothing of this one."""
    before = site.kept()
    with site.authority.running(days=90):
        unknown_there = run(site, rehearse=True)
        assert states(unknown_there)["rehearsal"] == "warning"
        assert "account" in said(unknown_there, "rehearsal")
        site.move_to_the_authority_that_runs()
        assert states(run(site, rehearse=True, certificates=[]))["rehearsal"] == "ok"
        assert "rehearsal" not in states(run(site, check=True, rehearse=True))
        site.challenges(authority.CHALLENGE_PORT, 5003)
        unseen = run(site, rehearse=True, certificates=[])
        site.challenges(5003, authority.CHALLENGE_PORT)
    assert states(unseen)["rehearsal"] == "warning", "the authority was there; it is this host that it could not reach"
    assert "onnection refused" in said(unseen, "rehearsal")
    assert site.kept() == before


def test_an_authority_whose_https_nobody_trusts_is_not_asked(site):
    with site.authority.running(days=90):
        outcome = run(site, rehearse=True, authority_ca_file="", certificates=[])
    assert states(outcome)["rehearsal"] == "unknown"
    assert "certificate verify failed" in said(outcome, "rehearsal")
