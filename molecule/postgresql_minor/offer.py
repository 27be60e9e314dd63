"""Have the next minor release of PostgreSQL 15 in an archive that apt knows, and nothing else; print both versions."""

from __future__ import annotations

import pathlib

from apt_archive import Archive
from postgresql_packages import Server

server = Server(pathlib.Path("/root/minor/release"), 15)
server.install(server.old)
archive = Archive(pathlib.Path("/root/minor/archive"), method="file")
server.offer(archive, server.new)
print(server.old, server.new)
