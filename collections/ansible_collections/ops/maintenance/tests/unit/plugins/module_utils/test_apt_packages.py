# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsers of apt and dpkg against answers recorded on Debian 12 and 13."""

from __future__ import annotations

import os
import pathlib
from datetime import datetime, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import apt_packages as apt

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "apt"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


@pytest.fixture(params=["bookworm", "trixie"])
def suite(request):
    return request.param


def policies(suite: str) -> dict[str, apt.Policy]:
    return apt.parse_policy(recorded(f"{suite}_policy.txt"), apt.parse_archives(recorded(f"{suite}_releases.txt")))


def test_archives_have_label_suite_and_codename(suite):
    archives = apt.parse_archives(recorded(f"{suite}_releases.txt"))
    assert {str(archive) for archive in archives.values() if archive.matches(apt.SECURITY_ARCHIVES)} == {
        f"Debian-Security:{suite}-security"
    }
    assert f"Debian:{suite}-updates" in {str(archive) for archive in archives.values()}


@pytest.mark.parametrize(
    ("release", "name", "expected"),
    [
        ("bookworm", "openssl", "3.0.22-1~deb12u2"),
        ("bookworm", "libgcrypt20", "1.10.1-3+deb12u1"),  # the same version in the ordinary and the security archive
        ("bookworm", "bash", ""),
        ("trixie", "curl", "8.14.1-2+deb13u7"),
        ("trixie", "sudo", ""),
    ],
)
def test_security_is_decided_by_the_archive(release, name, expected):
    update = apt.update_of(policies(release)[name], held=False)
    assert update is not None
    assert update.security_version == expected


def test_older_security_version_below_the_installed_one_is_not_pending():
    assert apt.update_of(policies("bookworm")["nodejs"], held=False) is None


def test_package_up_to_date_from_the_security_archive_is_not_pending(suite):
    assert apt.update_of(policies(suite)["ca-certificates"], held=False) is None


def version(name: str, archive: apt.Archive, installed: bool = False, priority: int = 500) -> apt.Version:
    return apt.Version(name, priority, installed, (archive,))


ORDINARY = apt.Archive("Acme", "stable", "bookworm", "Acme")
SECURITY = apt.Archive("Debian-Security", "oldstable-security", "bookworm-security", "Debian")
NOW = apt.Archive(suite="now")


def test_name_with_security_in_it_is_ordinary_when_its_archive_is():
    policy = apt.Policy("libsecurity-foo", "1", "2", (version("2", ORDINARY), version("1", NOW, True)))
    update = apt.update_of(policy, held=False)
    assert update is not None
    assert not update.is_security


def test_security_version_hidden_below_an_ordinary_candidate_still_counts():
    table = (version("3", ORDINARY), version("2", SECURITY), version("1", NOW, True))
    update = apt.update_of(apt.Policy("foo", "1", "3", table), held=False)
    assert update is not None
    assert (update.candidate, update.security_version) == ("3", "2")


def test_version_that_a_pin_forbids_is_not_pending():
    table = (version("2", SECURITY, priority=-1), version("1", NOW, True))
    assert apt.update_of(apt.Policy("foo", "1", "1", table), held=False) is None


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        (apt.Archive("Ubuntu", "jammy-security", "jammy", "Ubuntu"), True),
        (apt.Archive("UbuntuESMApps", "jammy-apps-security", "jammy", "UbuntuESMApps"), True),
        (apt.Archive("Debian", "oldstable", "bookworm", "Debian"), False),
        (apt.Archive("Security tools", "stable", "stable", "Acme"), False),
        (apt.Archive(), False),
    ],
)
def test_which_archives_are_security_archives(archive, expected):
    assert archive.matches(apt.SECURITY_ARCHIVES) is expected


def test_label_with_a_comma_stays_whole():
    text = " 500 http://h/x ./ Packages\n     release v=1,o=Acme,a=stable,l=Acme, Inc. a-security,c=main\n"
    assert apt.parse_archives(text)["http://h/x ./ Packages"].label == "Acme, Inc. a-security"


def test_simulation_of_a_whole_upgrade():
    steps = apt.parse_simulation(recorded("bookworm_dist_upgrade.txt"))
    assert len(steps) == 135
    assert apt.Step("Inst", "bash", "5.2.15-2+b8", "5.2.15-2+b13", ("Debian:12.15/oldstable",)) in steps
    both = next(step for step in steps if step.name == "libgcrypt20")
    assert both.archives == ("Debian:12.15/oldstable", "Debian-Security:12/oldstable-security")


def test_held_package_is_not_among_the_simulated_steps():
    steps = apt.parse_simulation(recorded("trixie_dist_upgrade.txt"))
    assert {step.name for step in steps} == {"curl", "openssl", "openssl-provider-legacy", "sudo", "tzdata"}


def test_simulated_removal_and_new_package():
    text = "Remv foo [1.0]\nInst linux-image-9 (9.1 Debian:12/stable [amd64])\n"
    remove, new = apt.parse_simulation(text)
    assert (remove.kind, remove.name, remove.installed) == ("Remv", "foo", "1.0")
    assert (new.installed, new.version) == ("", "9.1")


def test_installed_packages_with_holds_foreign_architectures_and_broken_ones():
    text = (
        "bash\tamd64\t5.2\thold\tinstalled\tok\n"
        "libc6\ti386\t2.36\tinstall\tinstalled\tok\n"
        "tzdata\tall\t2026\tinstall\thalf-configured\tok\n"
        "gone\tamd64\t1\tdeinstall\tconfig-files\tok\n"
        "not a line of dpkg\n"
    )
    found = apt.parse_installed(text, "amd64")
    assert set(found) == {"bash", "libc6:i386", "tzdata"}
    assert found["bash"].want == "hold"
    assert found["bash"].is_whole
    assert not found["tzdata"].is_whole


def test_no_lists_is_not_an_age(tmp_path):
    assert apt.lists_as_of(str(tmp_path / "missing")) is None
    (tmp_path / "lock").touch()
    (tmp_path / "h_dists_x_InRelease").touch()
    assert apt.lists_as_of(str(tmp_path)) is None


def test_age_of_the_lists_is_that_of_the_newest(tmp_path):
    for name, age in (("h_dists_x_InRelease", 1000), ("h_dists_x_main_binary-amd64_Packages.lz4", 2000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    as_of = apt.lists_as_of(str(tmp_path))
    assert as_of is not None
    assert as_of.timestamp() == 2000


def test_nothing_is_known_without_lists_or_without_a_security_archive():
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert "no package lists" in apt.Pending((), (), None, ("Debian-Security:x",)).blind()
    assert "security" in apt.Pending((), (), moment, ()).blind()
    assert apt.Pending((), (), moment, ("Debian-Security:x",)).blind() == ""
