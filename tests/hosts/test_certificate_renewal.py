"""certbot's folder, certificates of a real authority, a real nginx that serves them, and the real certbot without a network."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import stat
import subprocess
import time
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from ansible_collections.ops.maintenance.plugins.module_utils import certificate_renewal
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

PORT = 8443
CONF = """# renew_before_expiry = 30 days
version = 2.1.0
archive_dir = {root}/archive/shop
cert = {root}/live/shop/cert.pem
privkey = {root}/live/shop/privkey.pem
chain = {root}/live/shop/chain.pem
fullchain = {root}/live/shop/fullchain.pem

[renewalparams]
account = 0123456789abcdef0123456789abcdef
authenticator = webroot
server = https://acme-v02.api.letsencrypt.org/directory
key_type = ecdsa
webroot_path = {root}/www,
[[webroot_map]]
shop.example.org = {root}/www
"""
NGINX = """daemon on; pid {root}/nginx.pid; error_log {root}/nginx.log;
events {{}}
http {{ access_log off; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;
scgi_temp_path {root}/t5;
server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {file}; ssl_certificate_key {root}/live/shop/privkey.pem; }} }}
"""


def openssl(*argv):
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A root, and one between it and the certificates."""
    folder = tmp_path_factory.mktemp("ca")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", f"{folder}/root.key", "-out", f"{folder}/root.pem", "-days", "400", "-subj", "/CN=root")
    more = ("-addext", "basicConstraints=critical,CA:TRUE", "-CA", f"{folder}/root.pem", "-CAkey", f"{folder}/root.key")
    openssl("req", "-x509", *key, "-keyout", f"{folder}/mid.key", "-out", f"{folder}/mid.pem", "-days", "390", "-subj", "/CN=mid", *more)
    return folder


def made(key, ca, days, age):
    """Sign a certificate that began ``age`` days ago and ends in ``days``, which the command openssl cannot."""
    mid, now = x509.load_pem_x509_certificate((ca / "mid.pem").read_bytes()), datetime.now(timezone.utc)
    private, signer = (load_pem_private_key(pathlib.Path(path).read_bytes(), None) for path in (key, ca / "mid.key"))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example.org")])
    start, end = now - timedelta(days=age), now + timedelta(days=days)
    builder = x509.CertificateBuilder(mid.subject, subject, private.public_key(), x509.random_serial_number(), start, end)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.example.org")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


class Lineage:
    """The certificate ``shop`` as certbot keeps it."""

    def __init__(self, root: pathlib.Path, authority: pathlib.Path):
        self.root, self.authority, self.number = root, authority, 0
        for folder in ("archive/shop", "live/shop", "renewal", "www", "accounts/acme-v02.api.letsencrypt.org"):
            (root / folder).mkdir(parents=True)
        (root / "renewal" / "shop.conf").write_text(CONF.format(root=root))

    def issue(self, days, age=90):
        """Put a certificate of some age in place, as a renewal did."""
        self.number += 1
        archive, ca = self.root / "archive" / "shop", self.authority
        key = f"{archive}/privkey{self.number}.pem"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        (archive / f"cert{self.number}.pem").write_bytes(made(key, ca, days, age))
        cert, mid = (archive / f"cert{self.number}.pem").read_text(), (ca / "mid.pem").read_text()
        (archive / f"chain{self.number}.pem").write_text(mid)
        (archive / f"fullchain{self.number}.pem").write_text(cert + mid)
        self.point(self.number)
        return self

    def point(self, number):
        for kind in ("cert", "chain", "fullchain", "privkey"):
            link = self.root / "live" / "shop" / f"{kind}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../archive/shop/{kind}{number}.pem")

    def nginx(self, file="live/shop/fullchain.pem"):
        (self.root / "nginx.conf").write_text(NGINX.format(root=self.root, port=PORT, file=self.root / file))
        return ["nginx", "-p", str(self.root), "-c", str(self.root / "nginx.conf")]


@pytest.fixture
def lineage(authority, tmp_path):
    return Lineage(tmp_path, authority)


@contextlib.contextmanager
def serving(argv):
    subprocess.run(argv, check=True, capture_output=True)
    try:
        for _attempt in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
                break
            time.sleep(0.02)
        yield
    finally:
        subprocess.run([*argv, "-s", "stop"], check=True, capture_output=True)
        while pathlib.Path(argv[2], "nginx.pid").exists():
            time.sleep(0.02)


@pytest.fixture
def tools(tmp_path_factory, monkeypatch):
    """A folder of commands found first: the service manager of this container is a line of shell."""
    folder = tmp_path_factory.mktemp("tools")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name, text):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return put


def run(lineage, check=False, deadline=0.0, certificates=None, **more):
    given = {name: option.get("default") for name, option in certificate_renewal.OPTIONS.items()}
    folders = {"config_dir": str(lineage.root), "work_dir": str(lineage.root / "work"), "logs_dir": str(lineage.root / "logs")}
    item = {name: option.get("default") for name, option in certificate_renewal.OPTIONS["certificates"]["options"].items()}
    declared = {
        **item,
        "name": "shop",
        "connect": f"127.0.0.1:{PORT}",
        "trust": str(lineage.authority / "root.pem"),
        **(certificates or {}),
    }
    outcome = certificate_renewal.run({**given, **folders, "certificates": [declared], "deadline": deadline, **more}, check, Host())
    outcome.record()
    return outcome


def states(outcome):
    return {f.id.split(".")[1]: f.state for f in outcome.findings if f.id != "certificate.timer"}


def finding(outcome, name):
    return next(f for f in outcome.findings if f.id == f"certificate.{name}")


def test_sound_certificate_that_is_served_is_silent(lineage):
    lineage.issue(60)
    with serving(lineage.nginx()):
        outcome = run(lineage)
    assert states(outcome) == {"expiry": "ok", "chain": "ok", "served": "ok"}
    assert (outcome.status, outcome.actions) == ("ok", [])
    assert 58 < outcome.metrics[0].value <= 60


def test_old_certificate_that_goes_on_being_served_is_found_and_reloaded_where_declared(lineage, tools):
    """A renewal by the timer, and nobody told nginx: every file is sound, and clients still get the old one."""
    argv = lineage.issue(40).nginx()
    with serving(argv):
        lineage.issue(90)
        found = run(lineage)
        assert states(found) == {"expiry": "ok", "chain": "ok", "served": "critical"}
        assert "another certificate" in finding(found, "served").summary
        tools("systemctl", f'[ "$1" = reload ] && exec {" ".join(argv)} -s reload')
        declared = {"service": "nginx", "check_command": [*argv, "-t"]}
        planned = run(lineage, check=True, certificates=declared)
        assert [(a.operation, a.status) for a in planned.actions] == [("reload", "due")]
        assert run(lineage, deadline=time.time() + 5, certificates=declared).actions[0].status == "deferred"
        assert states(run(lineage, check=True))["served"] == "critical"
        done = run(lineage, certificates=declared)
        assert [(a.operation, a.status) for a in done.actions] == [("reload", "changed")]
        assert states(done)["served"] == "ok"
        assert run(lineage, certificates=declared).actions == []


def test_what_is_no_unit_is_reloaded_by_its_command(lineage):
    argv = lineage.issue(40).nginx()
    with serving(argv):
        lineage.issue(90)
        done = run(lineage, certificates={"reload_command": [*argv, "-s", "reload"]})
        assert ([a.status for a in done.actions], states(done)["served"]) == (["changed"], "ok")


def test_configuration_that_does_not_hold_is_not_loaded(lineage, tools):
    argv = lineage.issue(40).nginx()
    with serving(argv):
        lineage.issue(90)
        tools("systemctl", "exit 99")
        outcome = run(lineage, certificates={"service": "nginx", "check_command": ["false"]})
    assert "configuration does not hold" in finding(outcome, "renewal").summary
    assert states(outcome)["served"] == "critical"


def test_service_that_leaves_out_the_chain_is_refused_by_clients(lineage):
    lineage.issue(60)
    with serving(lineage.nginx("live/shop/cert.pem")):
        outcome = run(lineage)
    assert states(outcome) == {"expiry": "ok", "chain": "ok", "served": "critical"}
    assert "refuse" in finding(outcome, "served").summary


def test_nothing_that_answers_is_unknown(lineage):
    lineage.issue(60)
    assert states(run(lineage))["served"] == "unknown"


@pytest.mark.parametrize(("days", "state"), [(60, "ok"), (20, "warning"), (3, "critical")])
def test_days_left(lineage, days, state):
    assert states(run(lineage.issue(days), certificates={"connect": ""})) == {"expiry": state, "chain": "ok"}


@pytest.mark.parametrize(("days", "age", "state"), [(4, 6, "ok"), (3, 7, "warning"), (1, 9, "critical")])
def test_a_short_life_is_judged_by_its_last_third(lineage, days, age, state):
    """The thirty days of a long one would call it due from its first day on."""
    assert states(run(lineage.issue(days, age), certificates={"connect": ""}))["expiry"] == state


def test_expiry_is_that_of_the_file_and_not_of_the_settings(lineage):
    conf = lineage.root / "renewal" / "shop.conf"
    conf.write_text(conf.read_text().replace("# renew_before", "renew_before").replace("30 days", "50 days"))
    assert states(run(lineage.issue(40), certificates={"connect": ""}))["expiry"] == "warning"


def test_real_certbot_without_a_network_proves_nothing(lineage):
    outcome = run(lineage.issue(10), renew=True, rehearse=True, certificates={"connect": ""})
    assert states(outcome)["rehearsal"] == "unknown", finding(outcome, "rehearsal").summary
    assert [(a.operation, a.status) for a in outcome.actions] == [("renew", "failed")]
    assert states(outcome)["renewal"] == "critical"
    assert states(outcome)["expiry"] == "warning"


def test_renewal_is_made_proven_and_served(lineage, tools):
    argv = lineage.issue(10).nginx()
    with serving(argv):
        lineage.issue(90)
        lineage.point(1)
        links = " ".join(
            f"ln -sfn ../../archive/shop/{k}2.pem {lineage.root}/live/shop/{k}.pem;" for k in ("cert", "chain", "fullchain", "privkey")
        )
        tools("certbot", links)
        tools("systemctl", f'[ "$1" = reload ] && exec {" ".join(argv)} -s reload')
        declared = {"service": "nginx"}
        assert [a.status for a in run(lineage, check=True, renew=True, certificates=declared).actions] == ["due", "due"]
        done = run(lineage, renew=True, certificates=declared)
        assert [(a.operation, a.status) for a in done.actions] == [("renew", "changed"), ("reload", "changed")]
        assert states(done) == {"expiry": "ok", "chain": "ok", "served": "ok"}


def test_certbot_that_ends_well_and_renews_nothing_has_failed(lineage, tools):
    tools("certbot", "echo 'Certificate not yet due for renewal'")
    outcome = run(lineage.issue(10), renew=True, certificates={"connect": "", "service": "nginx"})
    assert [(a.operation, a.status) for a in outcome.actions] == [("renew", "failed")]


def test_rehearsal_that_the_authority_refuses_is_a_warning(lineage, tools):
    tools("certbot", "echo 'Failed to renew certificate shop with error: Some challenges have failed.'; exit 1")
    outcome = run(lineage.issue(60), rehearse=True, certificates={"connect": ""})
    assert states(outcome)["rehearsal"] == "warning"
    assert "challenges" in finding(outcome, "rehearsal").summary


@pytest.mark.parametrize(
    ("answers", "hook", "state"),
    [("active", True, "ok"), ("active", False, "warning"), ("inactive", True, "warning"), ("", True, "unknown")],
)
def test_timer_and_what_takes_a_renewal_up(lineage, tools, answers, hook, state):
    """Renewed files that nobody reloads are the usual false green."""
    tools("systemctl", f'[ "$1" = is-active ] && echo {answers}')
    if hook:
        script = lineage.root / "renewal-hooks" / "deploy" / "reload"
        script.parent.mkdir(parents=True)
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
    outcome = run(lineage.issue(60), certificates={"connect": ""})
    assert finding(outcome, "timer").state == state


def test_files_that_do_not_belong_together_or_lead_elsewhere(lineage):
    lineage.issue(60).issue(60)
    key = lineage.root / "live" / "shop" / "privkey.pem"
    key.unlink()
    key.symlink_to("../../archive/shop/privkey1.pem")
    assert states(run(lineage, certificates={"connect": ""}))["chain"] == "critical"
    key.unlink()
    key.symlink_to("/etc/passwd")
    found = run(lineage, certificates={"connect": ""})
    assert states(found) == {"expiry": "unknown"}
    assert "leads out of" in finding(found, "expiry").summary


def test_declared_certificate_that_certbot_does_not_know_and_an_own_root_that_is_not_declared(lineage):
    lineage.issue(60)
    assert states(run(lineage, certificates={"connect": "", "trust": ""}))["chain"] == "critical"
    assert "does not know" in finding(run(lineage, certificates={"name": "other", "connect": ""}), "expiry").summary
