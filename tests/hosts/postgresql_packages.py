"""The installed PostgreSQL server as packages: the version that is installed, made again, and a next minor release of it.

The next release is the same server, in whose programs the version number is another one: it is installed by the real maintainer
scripts, stops and starts the clusters of the host as those do, and says its own version.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import struct
import subprocess

from apt_archive import Archive, quiet

BALLAST = ("/bitcode/", "/locale/", "/man/", "/doc/")
"""What no test needs, and dpkg takes long for."""
INFO = pathlib.Path("/var/lib/dpkg/info")


def installed_version(name: str) -> str:
    return quiet("dpkg-query", "-W", "-f", "${Version}", name)


def number_of(version: str) -> int:
    """150014 for 15.14-0+deb12u1, as the server writes it."""
    major, minor = re.match(r"(\d+)\.(\d+)", version).groups()
    return int(major) * 10000 + int(minor)


def next_minor(version: str) -> str:
    """15.14-0+deb12u1 becomes 15.15-0+deb12u1; both numbers have to be equally long."""
    major, minor, rest = re.match(r"(\d+)\.(\d+)(.*)", version).groups()
    upper = int(minor) + 1 if len(str(int(minor) + 1)) == len(minor) else int(minor) - 1
    return f"{major}.{upper}{rest}"


class Server:
    """The server's package in its two versions; the lower one counts as old."""

    def __init__(self, root: pathlib.Path, major: int):
        self.root, self.major, self.name = root, major, f"postgresql-{major}"
        self.original = installed_version(self.name)
        self.old, self.new = sorted([self.original, next_minor(self.original)], key=number_of)
        self.debs = {version: self._build(version) for version in (self.old, self.new)}

    def _build(self, version: str) -> pathlib.Path:
        tree = self.root / version.replace(":", "_")
        for path in map(pathlib.Path, quiet("dpkg", "-L", self.name).splitlines()):
            if (path.is_symlink() or path.is_file()) and not any(word in str(path) for word in BALLAST):
                target = tree / str(path)[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)
        if version != self.original:
            for program in (tree / f"usr/lib/postgresql/{self.major}/bin").iterdir():
                renumber(program, self.original, version)
        control = tree / "DEBIAN"
        control.mkdir()
        fields = quiet("dpkg", "-s", self.name).replace(f"Version: {self.original}", f"Version: {version}")
        (control / "control").write_text(re.sub(r"^Status: .*\n", "", fields, flags=re.M))
        for script in ("preinst", "postinst", "prerm", "postrm", "templates"):
            if (INFO / f"{self.name}.{script}").exists():
                shutil.copy2(INFO / f"{self.name}.{script}", control / script)
        deb = self.root / f"{self.name}_{version.replace(':', '%3a')}_amd64.deb"
        quiet("dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(deb))
        return deb

    def program(self, version: str, name: str) -> str:
        """Return a program of one of the versions, wherever it is installed."""
        return str(self.root / version.replace(":", "_") / f"usr/lib/postgresql/{self.major}/bin/{name}")

    def install(self, version: str) -> None:
        if installed_version(self.name) != version:
            quiet("dpkg", "-i", str(self.debs[version]))

    def offer(self, archive: Archive, version: str) -> None:
        """Let apt have a version."""
        pool = archive.root / "archive/pool/stable-security"
        pool.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.debs[version], pool)
        archive.publish()


def renumber(program: pathlib.Path, old: str, new: str) -> None:
    """Let a program say another version."""
    if program.is_symlink():
        return
    words = [re.match(r"\d+\.\d+", version).group().encode() for version in (old, new)]
    numbers = [struct.pack("<i", number_of(version)) for version in (old, new)]
    assert len(words[0]) == len(words[1])
    data = program.read_bytes().replace(*words)
    program.write_bytes(data.replace(*numbers) if program.name in ("postgres", "postmaster") else data)


def ctl(major: int, action: str, cluster: str = "main") -> None:
    """Start or stop a cluster of the distribution."""
    subprocess.run(["pg_ctlcluster", str(major), cluster, action], check=True, capture_output=True, text=True)
