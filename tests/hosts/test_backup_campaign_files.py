"""Random damage to databases of SQLite, archives and trees of files, and to what lies in a store behind a command."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile

import campaign as campaign_module
import pytest
from backups import Verifier
from campaign import FAULTS as ALL_FAULTS
from campaign import FORMATS, Row, campaign, compare, documented, first_look, part, tree_of

FAULTS = {"bit flip": 8, "truncation": 6, "zeroed block": 6, "swapped": 4, "empty": 1, "unreadable": 1}
# What no checksum protects, or nothing compares at the first look: the table says so.
ADMITTED = ("SQLite", "files, tar", "files, tar, gzip", "files, tree")
_MADE = 1_780_000_000


@pytest.fixture
def verify(tmp_path):
    return Verifier(tmp_path)


def database(path, rows=120):
    """Write a database with an index on its longest column."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, made TEXT, text TEXT)")
        connection.execute("CREATE INDEX by_text ON orders (text)")
        lines = [(f"2026-11-20T{number // 60:02}:{number % 60:02}", f"order {number} " * 9) for number in range(rows)]
        connection.executemany("INSERT INTO orders (made, text) VALUES (?, ?)", lines)
    connection.close()


def archive(path, seed=1):
    """Write a tar archive of six files."""
    noise = random.Random(seed)
    with tarfile.open(path, "w") as target:
        for number in range(6):
            data = noise.randbytes(3000) + b"text " * 400
            member = tarfile.TarInfo(f"data/{number}.bin")
            member.size, member.mtime = len(data), _MADE
            target.addfile(member, io.BytesIO(data))


def tree(path, seed=1):
    """Write a folder of files."""
    noise = random.Random(seed)
    os.mkdir(path)
    for name, data in {"a.bin": noise.randbytes(3000), "b.txt": b"text " * 400, "c.txt.gz": gzip.compress(b"text " * 400, mtime=0)}.items():
        with open(f"{path}/{name}", "wb") as target:
            target.write(data)


def rows_in(path):
    """Return every row of a database, read by SQLite itself."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            connection.text_factory = bytes
            return connection.execute("SELECT * FROM orders NOT INDEXED ORDER BY id").fetchall()
    except sqlite3.Error:
        return None


def unpacked(path):
    """Unpack an archive with tar itself."""
    folder = f"{path}.unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    done = subprocess.run(["tar", "-xf", path, "-C", folder], check=False, capture_output=True, timeout=60)
    return tree_of(folder) if done.returncode == 0 else None


def inflated(path):
    """Unpack a file with gzip itself."""
    with open(f"{path}.plain", "wb") as target:
        done = subprocess.run(["gzip", "-dc", path], check=False, stdout=target, stderr=subprocess.DEVNULL, timeout=60)
    return f"{path}.plain" if done.returncode == 0 else None


MAKERS = {
    "SQLite": (database, "app.db", rows_in),
    "SQLite, gzip": (database, "app.db.gz", lambda path: rows_in(inflated(path) or "/none")),
    "files, tar": (archive, "data.tar", unpacked),
    "files, tar, gzip": (archive, "data.tar.gz", unpacked),
    "files, tree": (tree, "data", tree_of),
    "command": (database, "app.db.gz", lambda path: rows_in(inflated(path) or "/none")),
}
OTHER = {database: {"rows": 90}, archive: {"seed": 2}, tree: {"seed": 2}}


def made(format_, folder, **more):
    """Make an intact backup of a format, and return its path."""
    make, name, _content = MAKERS[format_]
    path = os.path.join(folder, name)
    plain = path.removesuffix(".gz")
    make(plain, **more)
    if plain != path:
        with open(plain, "rb") as source, open(path, "wb") as target:
            target.write(gzip.compress(source.read(), mtime=0))
        os.unlink(plain)
    return path


def files_of(path):
    return [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]


def replaced(path, by):
    """Put another intact backup there."""
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    shutil.copytree(by, path) if os.path.isdir(by) else shutil.copyfile(by, path)


def half_written(path, noise):
    """A file that is written has a name of its own; of a tree, the files that come last are not there yet."""
    if os.path.isdir(path):
        os.unlink(noise.choice(files_of(path)))
    else:
        os.truncate(path, noise.randrange(1, os.path.getsize(path)))
        os.rename(path, f"{path}.part")


_TOOL = """#!{python}
import os, shutil, sys
store = {store!r}
if sys.argv[1] == "list":
    for name in sorted(os.listdir(store)):
        status = os.lstat(os.path.join(store, name))
        print(status.st_size, {when!r}, name)
else:
    shutil.copyfile(os.path.join(store, sys.argv[2]), sys.argv[3])
"""


def declared(format_, root, tmp_path):
    """Declare a set of that format."""
    if format_ == "files, tree":
        return {"kind": "files", "root": root, "layout": "folders"}
    if format_.startswith("files"):
        return {"kind": "files", "root": root, "pattern": MAKERS[format_][1]}
    of_sqlite = {"required_tables": ["orders"], "count_tables": ["orders"], "source": f"{tmp_path}/source.db"}
    if format_ == "command":
        tool = [str(tmp_path / "tool")]
        command = {"list": [*tool, "list"], "fetch": [*tool, "fetch", "{name}", "{target}"], "kind": "sqlite", "maximum_bytes": 10_000_000}
        return {"kind": "command", "command": command, "pattern": "*.gz", **of_sqlite}
    return {"kind": "sqlite", "root": root, "pattern": MAKERS[format_][1], **of_sqlite}


@pytest.mark.parametrize("format_", MAKERS)
def test_random_damage_is_found_where_the_documentation_says(verify, tmp_path, format_):
    content, root = MAKERS[format_][2], tmp_path / "root"
    for name in ("intact", "other"):
        (tmp_path / name).mkdir()
    intact, other = made(format_, tmp_path / "intact"), made(format_, tmp_path / "other", **OTHER[MAKERS[format_][0]])
    database(tmp_path / "source.db")
    with open(tmp_path / "tool", "w", encoding="utf-8") as target:
        target.write(_TOOL.format(python=sys.executable, store=str(root), when="2026-11-25T01:00:00Z"))
    os.chmod(tmp_path / "tool", 0o755)
    sums = tree_of(tmp_path / "intact")
    path = os.path.join(root, os.path.basename(intact))

    def place():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        shutil.copytree(intact, path) if os.path.isdir(intact) else shutil.copyfile(intact, path)
        return path

    def look(_path, level, **more):
        level = min(level, 4) if format_.startswith("files") else level  # nothing to compare their content with is declared
        return first_look(verify, **declared(format_, str(root), tmp_path), level=level, maximum_age_hours=2e6, **more)

    def proven(_path):
        with open(f"{root}/{os.path.basename(path)}.sha256", "w", encoding="utf-8") as target:
            target.writelines(
                f"{digest}  {os.path.relpath(name, 'data') if format_ == 'files, tree' else name}\n" for name, digest in sums.items()
            )
        return look(path, 2, manifest="{name}.sha256")

    whole = part("", files_of)
    plan = {fault: [whole(fault)] * times for fault, times in FAULTS.items()}
    plan["wrong database"] = plan["stale"] = [lambda path, _noise: replaced(path, other)]
    plan["half written"] = [half_written]
    row = campaign(format_, plan, place, look, content, None if format_ == "command" else proven)
    compare(row)
    assert not row.missed or format_ in ADMITTED, row.missed


def test_the_documentation_has_a_row_for_every_format_and_a_cell_for_every_fault():
    table = documented()
    assert set(table) == set(FORMATS)
    assert [(name, fault) for name, cells in table.items() for fault in ALL_FAULTS if cells[fault] in ("", "-")] == []


def test_a_table_that_says_something_else_is_noticed(tmp_path, monkeypatch):
    row = Row("restic", has_manifest=False)
    row.add("bit flip", 1, False)
    row.add("bit flip", 2, False)
    head = f"| format | {' | '.join(ALL_FAULTS)} |\n| --- |\n"
    document = tmp_path / "levels.md"
    monkeypatch.setattr(campaign_module, "LEVELS", str(document))
    for said, is_right in (("L2", True), ("L1", False), ("L2, some unseen", False), ("L1 / L1", False), ("L2 / L2", True)):
        document.write_text(f"{head}| restic | {said} | {' | '.join(['-'] * (len(ALL_FAULTS) - 1))} |\n")
        with contextlib.nullcontext() if is_right else pytest.raises(AssertionError, match="restic, bit flip"):
            compare(row)
    for said, is_right in (("L3", True), ("L2, some unseen", True), ("L1", False), ("L2; L2", False)):
        document.write_text(f"{head}| restic | {said} | {' | '.join(['-'] * (len(ALL_FAULTS) - 1))} |\n")
        with contextlib.nullcontext() if is_right else pytest.raises(AssertionError, match="restic, bit flip"):
            compare(row, varies=True)
    row.add("bit flip", None, True)
    document.write_text(f"{head}| restic | L2 | {' | '.join(['-'] * (len(ALL_FAULTS) - 1))} |\n")
    with pytest.raises(AssertionError, match="some unseen"):
        compare(row)
