"""Small real RPM packages, and repositories of them with advisories."""

from __future__ import annotations

import pathlib
import subprocess

_SPEC = """Name: {name}
Version: {version}
Release: {release}
Summary: test
License: none
BuildArch: noarch
{headers}
%description
test
%install
mkdir -p %{{buildroot}}/usr/share/ops-test
echo {version} >%{{buildroot}}/usr/share/ops-test/{file}
{post}
%files
/usr/share/ops-test/{file}
"""
_UPDATE = """<update from="x" status="stable" type="{kind}" version="1"><id>{id}</id><title>{id}</title>{severity}
<issued date="{issued}"/><updated date="{issued}"/><description>d</description>
<pkglist><collection short="c"><name>c</name>{packages}</collection></pkglist></update>"""
_PACKAGE = '<package name="{0}" version="{1}" release="{2}" epoch="0" arch="noarch" src="{0}.src.rpm"><filename>{0}-{1}-{2}.noarch.rpm</filename></package>'


def built(folder: pathlib.Path, name: str, version: str, *headers: str, release: str = "1", post: str = "", several: bool = False) -> None:
    """Build one package into a folder.

    :param post: what its %post scriptlet runs.
    :param several: whether several versions may be installed at once, as of a kernel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / f"{name}-{version}.spec"
    lines = [*headers, *(["Provides: installonlypkg(kernel)"] if several else [])]
    file, script = f"{name}-{version}" if several else name, f"%post\n{post}\n" if post else ""
    spec.write_text(_SPEC.format(name=name, version=version, release=release, headers="\n".join(lines), file=file, post=script))
    argv = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/.build", "--define", f"_rpmdir {folder}"]
    for macro in (
        "debug_package %{nil}",
        "__os_install_post %{nil}",
        "_build_id_links none",
        "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
    ):
        argv += ["--define", macro]
    ran = subprocess.run([*argv, str(spec)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    spec.unlink()


def advisory(
    identifier: str, *packages: tuple[str, str], kind: str = "security", severity: str = "Important", issued: str = "2026-11-20 10:00:00"
) -> str:
    """Write one advisory."""
    said = f"<severity>{severity}</severity>" if severity else ""
    names = "".join(_PACKAGE.format(name, version, "1") for name, version in packages)
    return _UPDATE.format(kind=kind, id=identifier, severity=said, packages=names, issued=issued)


def repository(folder: pathlib.Path, *advisories: str) -> None:
    """Make a repository of the packages in a folder; without advisories it carries no updateinfo."""
    subprocess.run(["createrepo_c", "--quiet", str(folder)], check=True, capture_output=True)
    if advisories:
        source = folder / "updateinfo.xml"
        source.write_text(f'<?xml version="1.0" encoding="UTF-8"?><updates>{"".join(advisories)}</updates>')
        subprocess.run(["modifyrepo_c", "--mdtype", "updateinfo", str(source), str(folder / "repodata")], check=True, capture_output=True)
