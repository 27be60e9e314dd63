"""The real oscap with the content that Debian ships: what it finds, and what proves nothing."""

from __future__ import annotations

import glob
import pathlib
import re
import subprocess

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_openscap
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

CONTENT = sorted(glob.glob("/usr/share/xml/scap/ssg/content/ssg-debian*-ds.xml"))[-1]
RELEASE = re.search(r"debian(\d+)", CONTENT)[1]
VERSION = pathlib.Path("/etc/debian_version")
PROFILE = "anssi_np_nt28_minimal"


@pytest.fixture
def release():
    """Debian's own content is always for the release before: the host says that it is that one, until the test is over."""
    kept = VERSION.read_text()
    VERSION.write_text(f"{RELEASE}.9\n")
    yield
    VERSION.write_text(kept)


def review(**given):
    params = filled(security_openscap.OPTIONS, given)
    assert security_openscap.validate(params) == []
    (found,) = security_openscap.look(Review(params, Host(), True, Host().now()))
    return found


def test_a_host_is_evaluated_and_failed_rules_are_named(release, tmp_path):
    """oscap ends with 2 where a rule failed, which is no error."""
    clean = review(openscap_content=CONTENT, openscap_profile=PROFILE)
    pathlib.Path("/etc/gshadow").chmod(0o666)
    try:
        bad = review(openscap_content=CONTENT, openscap_profile=PROFILE)
        written = tmp_path / "results.xml"
        argv = ["oscap", "xccdf", "eval", "--profile", PROFILE, "--results", str(written), CONTENT]
        assert subprocess.run(argv, check=False, capture_output=True).returncode == 2
        assert review(openscap_results=str(written)).evidence == bad.evidence, "read or made, it is the same"
    finally:
        pathlib.Path("/etc/gshadow").chmod(0o640)
    new = {line.partition("rule_")[2] for line in bad.evidence} - {line.partition("rule_")[2] for line in clean.evidence}
    assert new == {"file_permissions_etc_gshadow"}
    assert (bad.state, bad.value - clean.value) == ("warning", 1)
    assert int(re.search(r"(\d+) passed", bad.summary)[1]) > 10


def test_content_for_another_release_proves_nothing():
    """Every rule is then not applicable, and oscap ends with 0."""
    found = review(openscap_content=CONTENT, openscap_profile=PROFILE)
    assert (found.state, "another system" in found.not_covered) == ("unknown", True)


@pytest.mark.parametrize(
    ("content", "profile", "words"),
    [
        ("/usr/share/xml/none-ds.xml", "", "none-ds.xml"),
        (CONTENT, "nobody_wrote_it", "nobody_wrote_it"),
        ("/etc/passwd", "", "Start tag"),
    ],
)
def test_content_that_is_missing_or_none_is_unknown(content, profile, words):
    found = review(openscap_content=content, openscap_profile=profile)
    assert (found.state, words in found.summary) == ("unknown", True), found.summary
