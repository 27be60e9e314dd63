"""Certificates whose texts are made to be read as something else, by the openssl of this host."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from ansible_collections.ops.maintenance.plugins.module_utils import security_certificates
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.record import Outcome
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NAME = "app.example.com"
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def looked(tmp_path, key):
    def look(subject="a", names=(NAME,), end=NOW + timedelta(days=90), kind=None):
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject, kind, _validate=False)] if subject else []
        name = x509.Name(attributes)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW - timedelta(days=1), end)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=not subject)
        path = tmp_path / "made.pem"
        path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        item = {"path": str(path), "trust": str(path), "hosts": [NAME]}
        review = Review(filled(security_certificates.OPTIONS, {"certificates": [item]}), Host(), True, NOW)
        findings = {finding.id.split(".")[1].removeprefix("certificate_"): finding for finding in security_certificates.look(review)}
        text = json.dumps(Outcome("a", "b", "ok", "", findings=list(findings.values())).record())
        assert len(text) < 64 * 1024
        assert all(char.isprintable() for char in text)
        return findings

    return look


def test_a_plain_one_is_sound(looked):
    found = looked()
    assert (found["expiry"].state, found["name"].state) == ("ok", "ok")


def test_a_name_cannot_put_the_end_off(looked):
    """openssl prints the line break in it as it is, and what follows then looks like a date of its own."""
    found = looked(names=[NAME, "x\nnotAfter=Jan  1 00:00:00 2099 GMT"], end=NOW + timedelta(days=3))
    assert (found["expiry"].state, round(found["expiry"].value)) == ("critical", 3)


@pytest.mark.parametrize("name", [f"evil.org, DNS:{NAME}", f"evil.org\n    DNS:{NAME}", f"{NAME}\0.evil.org", f"evil.org,DNS:{NAME}"])
def test_one_name_is_not_two(looked, name):
    assert looked(names=[name])["name"].state == "critical"
    assert looked(names=[name, NAME])["name"].state == "ok"


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("a\nissuer=CN=good\nnotAfter=Jan  1 00:00:00 2099 GMT\x1b[2J\u202e", None),
        ("ünïcode", _ASN1Type.BMPString),
        ("caf\xe9", _ASN1Type.T61String),
        ("", None),
    ],
)
def test_odd_subjects_are_only_text(looked, subject, kind):
    found = looked(subject, kind=kind, end=NOW + timedelta(days=60))
    assert (found["expiry"].state, round(found["expiry"].value), found["name"].state) == ("ok", 60, "ok")


def test_an_end_beyond_all_calendars_and_very_many_names_are_read(looked):
    begun = time.monotonic()
    found = looked(names=[*(f"host{number}.example.org" for number in range(20_000)), NAME], end=datetime(9999, 12, 31, 23, 59, 59))
    assert (found["expiry"].state, found["name"].state) == ("ok", "ok")
    assert time.monotonic() - begun < 5
