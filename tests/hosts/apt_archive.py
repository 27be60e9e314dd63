"""An archive of packages made for a test, ordinary and security, and the only one that apt on this host knows."""

from __future__ import annotations

import gzip
import os
import pathlib
import shutil
import subprocess

ARCHS = "amd64"
CONFIG = pathlib.Path("/etc/apt/apt.conf.d/99test")


def quiet(*argv: str, **more) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, **more)
    return done.stdout


class Archive:
    """Packages by suite; ``publish`` makes them known to apt."""

    def __init__(self, root: pathlib.Path, method: str = "copy"):
        self.root, self.method = root, method
        self.names: set[str] = set()

    def package(self, name, version, suite="stable-security", fields="", changelog="", scripts=None, kbytes=1, extra="") -> pathlib.Path:
        """Build a package; ``extra`` are lines that only the archive's index has."""
        tree = self.root / "trees" / f"{name}_{version.replace(':', '%3a')}"
        (tree / "DEBIAN").mkdir(parents=True)
        docs = tree / "usr/share/doc" / name
        docs.mkdir(parents=True)
        (docs / "data").write_bytes(os.urandom(1024 * kbytes))
        if changelog:
            (docs / "changelog.Debian.gz").write_bytes(gzip.compress(changelog.encode()))
        head = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: N <n@example.com>\nInstalled-Size: {kbytes}\n"
        (tree / "DEBIAN/control").write_text(f"{head}{fields}Description: sample package of a test\n")
        for script, text in (scripts or {}).items():
            (tree / "DEBIAN" / script).write_text(text)
            (tree / "DEBIAN" / script).chmod(0o755)
        pool = self.root / "archive/pool" / suite
        pool.mkdir(parents=True, exist_ok=True)
        deb = pool / f"{name}_{version.replace(':', '%3a')}_all.deb"
        quiet("dpkg-deb", "-Zgzip", "--root-owner-group", "--build", str(tree), str(deb))
        if extra:
            deb.with_suffix(".extra").write_text(extra)
        self.names.add(name)
        return deb

    def publish(self) -> None:
        lines = []
        for suite, label in (("stable", "Debian"), ("stable-security", "Debian-Security")):
            dist = self.root / "archive/dists" / suite
            shutil.rmtree(dist, ignore_errors=True)
            (dist / "main/binary-amd64").mkdir(parents=True)
            (self.root / "archive/pool" / suite).mkdir(parents=True, exist_ok=True)
            index = quiet("apt-ftparchive", "--arch", ARCHS, "packages", f"pool/{suite}", cwd=self.root / "archive")
            for extra in (self.root / "archive/pool" / suite).glob("*.extra"):
                name = f"Filename: pool/{suite}/{extra.stem}.deb\n"
                index = index.replace(name, name + extra.read_text())
            (dist / "main/binary-amd64/Packages").write_text(index)
            fields = {"Origin": "Debian", "Label": label, "Suite": suite, "Codename": suite, "Components": "main", "Architectures": ARCHS}
            options = [word for key, value in fields.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
            (dist / "Release").write_text(quiet("apt-ftparchive", *options, "release", str(dist)))
            lines.append(f"deb [trusted=yes] {self.method}:{self.root}/archive {suite} main\n")
        etc = pathlib.Path("/etc/apt")
        for file in (etc / "sources.list", *(etc / "sources.list.d").glob("*")):
            file.unlink(missing_ok=True)
        (etc / "sources.list.d/test.list").write_text("".join(lines))
        # A container has no machine id, without which apt takes every phased update.
        CONFIG.write_text('APT::Machine-ID "912e43bd1c1d4ba481f9f8ccab25f9ee";\n')
        quiet("apt-get", "update", "-qq")

    def install(self, *debs: pathlib.Path) -> None:
        quiet("dpkg", "-i", *map(str, debs))

    def remove(self) -> None:
        subprocess.run(["dpkg", "--purge", "--force-all", *sorted(self.names)], check=False, capture_output=True)
        CONFIG.unlink(missing_ok=True)
        shutil.rmtree(self.root)
        for deb in pathlib.Path("/var/cache/apt/archives").glob("*.deb"):
            deb.unlink()
