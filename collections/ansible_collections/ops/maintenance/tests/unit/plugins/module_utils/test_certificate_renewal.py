# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be meant, and renewal files; real certificates, nginx and certbot are in tests/hosts/test_certificate_renewal.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import certbot_files, certbot_run, certificate_renewal
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host


def run(tmp_path, *certificates, **more):
    given_ones = {name: option.get("default") for name, option in certificate_renewal.OPTIONS.items()}
    item = {name: option.get("default") for name, option in certificate_renewal.OPTIONS["certificates"]["options"].items()}
    params = {**given_ones, "config_dir": str(tmp_path), "deadline": 0.0, "certificates": [{**item, **one} for one in certificates], **more}
    outcome = certificate_renewal.run(params, False, Host())
    outcome.record()
    return outcome


@pytest.mark.parametrize(
    ("certificates", "more", "says"),
    [
        ([{"name": "--all"}], {}, "certificates.name is '--all'"),
        ([{"name": ""}], {}, "certificates.name is ''"),
        ([{"name": "a"}, {"name": "a"}], {}, "'a' more than once"),
        ([{"name": "a", "connect": "nowhere"}], {}, "expected host:port"),
        ([{"name": "a", "check_command": ["true"]}], {}, "without service or reload_command"),
        ([{"name": "a", "service": "nginx", "reload_command": ["true"]}], {}, "expected one of them"),
        ([], {"config_dir": "etc"}, "config_dir is 'etc'"),
        ([], {"authority_ca_file": "ca.pem"}, "authority_ca_file is 'ca.pem'"),
        ([], {"renew_before_days": -1.0}, "renew_before_days"),
        ([], {"timeout_seconds": 0.0}, "timeout_seconds"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(tmp_path, certificates, more, says):
    with pytest.raises(InputError, match=says):
        run(tmp_path, *certificates, **more)


def test_host_without_certbot_is_not_configured_unless_something_is_declared(tmp_path):
    assert run(tmp_path).status == "skipped"
    assert [(f.id, f.state) for f in run(tmp_path, {"name": "shop"}).findings] == [("certificate.expiry", "unknown")]


def test_renewal_file_without_comments_and_sections():
    settings = certbot_files.parse_renewal(
        "# cert = /no\ncert = /a/cert.pem\n[renewalparams]\n renew_hook = systemctl reload nginx = x\n; key = no\n"
    )
    assert settings == {"cert": "/a/cert.pem", "renew_hook": "systemctl reload nginx = x"}
    assert certbot_files.Lineage("a", "/x", {"renew_before_expiry": "50 days"}).renew_before_days == 50
    assert certbot_files.Lineage("a", "/x", {"renew_before_expiry": "1 month"}).renew_before_days is None
    assert certbot_files.Lineage("a", "/x", {}).path("cert") == "/x/live/a/cert.pem"


@given(st.text(max_size=200))
def test_any_renewal_file_is_read(text):
    certbot_files.parse_renewal(text)


REFUSED = "  Detail: 203.0.113.7: Fetching http://shop/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)\n"
SILENT = "Failed to renew certificate shop with error: Requesting acme.example.org/directory: Connection refused\n"


@pytest.mark.parametrize(
    ("is_well", "text", "heard"),
    [
        (True, "Congratulations, all renewals succeeded:\n", (True, "certbot ended with 0", True)),
        (False, f"The Certificate Authority reported these problems:\n{REFUSED}", (False, REFUSED.strip()[len("Detail: ") :], True)),
        (False, f"{SILENT}All renewals failed.\n", (False, SILENT.strip(), False)),
        (False, "Failed to renew certificate shop with error: accountDoesNotExist\n", (False, "accountDoesNotExist", True)),
        (True, "Failed to renew certificate shop with error: no\n", (False, "no", True)),
    ],
)
def test_what_the_authority_could_not_reach_is_no_silence_of_the_authority(is_well, text, heard):
    got = certbot_run.heard(is_well, text, "certbot ended with 0")
    assert (got.is_well, got.is_reached) == (heard[0], heard[2])
    assert got.said.endswith(heard[1])


@given(st.booleans(), st.text(max_size=300))
def test_whatever_certbot_prints_is_heard(is_well, text):
    got = certbot_run.heard(is_well, text, "")
    assert is_well or not got.is_well
