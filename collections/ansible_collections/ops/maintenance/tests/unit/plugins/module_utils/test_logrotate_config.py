# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of logrotate's language: what Debian ships, what breaks files in practice, and anything at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import logrotate_config as config
from ansible_collections.ops.maintenance.plugins.module_utils import logrotate_tree
from ansible_collections.ops.maintenance.plugins.module_utils.logrotate_config import Directive, Section

NGINX = """\
/var/log/nginx/*.log {
\tdaily
\tmissingok
\trotate 14
\tcreate 0640 www-data adm
\tprerotate
\t\tif [ -d /etc/logrotate.d/httpd-prerotate ]; then \\
\t\t\trun-parts /etc/logrotate.d/httpd-prerotate; \\
\t\tfi
\tendscript
\tpostrotate
\t\t# } { unknown stuff
\t\tinvoke-rc.d nginx rotate >/dev/null 2>&1
\tendscript
}
"""


def names(section):
    return [directive.name for directive in section.directives]


def faults(text):
    return [f"{line}: {what}" for line, what in config.parse(text).faults]


def test_scripts_are_not_configuration():
    parsed = config.parse(NGINX)
    [section] = parsed.items
    assert (parsed.faults, section.patterns) == ([], ["/var/log/nginx/*.log"])
    assert names(section) == ["daily", "missingok", "rotate", "create", "prerotate", "postrotate"]
    assert section.directives[-1].value == "\t\t# } { unknown stuff\n\t\tinvoke-rc.d nginx rotate >/dev/null 2>&1\n"
    assert [directive.line for directive in section.directives] == [2, 3, 4, 5, 6, 11]


def test_globals_comments_several_paths_and_several_switches_on_a_line():
    parsed = config.parse("weekly\n# comment {\nrotate = 4\n/a.log\n# between }\n'/b c.log' /d\\ e {\n daily missingok\n size=10M\n}\n")
    *settings, section = parsed.items
    assert [(one.name, one.value) for one in settings] == [("weekly", ""), ("rotate", "4")]
    assert section.patterns == ["/a.log", "/b c.log", "/d e"]
    assert [(one.name, one.value) for one in section.directives] == [("daily", ""), ("missingok", ""), ("size", "10M")]
    assert parsed.faults == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a {\n fooo 3\n}\n", "2: unknown directive fooo"),
        ("/a {\n daily\n", "3: the last section is not closed"),
        ("/a {\n daily\n/b {\n}\n", "3: a path inside a section"),
        ("daily\n}\n", "2: } without a section"),
        ("/a\n", "2: paths without {"),
        ("/a {\n postrotate\n true\n}\n", "2: postrotate without endscript"),
        ("/a {\n daily\n} /b\n", "3: text after }"),
        ("/a {\n rotate\n}\n", "2: directive rotate needs a value"),
        ("/a {\n rotate five\n}\n", "2: rotate is 'five'"),
        ("/a {\n size 10Q\n}\n", "2: size is '10Q'"),
        ("/a {\n su root\n}\n", "2: su is 'root'"),
        ("/a {\r\n daily\r\n}\r\n", "1: a line must begin"),
        ("/a {\n daily5\n}\n", "2: directive daily is followed by '5'"),
        ('"/a b {\n daily\n}\n', "1: a quote or backslash"),
        ("/a { rotate 5 }\n", "1: rotate is '5 }'"),
    ],
)
def test_each_fault_is_named_with_its_line(text, expected):
    assert any(fault.startswith(expected) for fault in faults(text)), faults(text)


def test_sizes():
    assert [config.size_of(text) for text in ("10", "1k", "2M", "1G", "0x10", "", "x", "1Q", "-1")] == [
        10, 1024, 2 * 1024**2, 1024**3, 16, None, None, None, None,
    ]  # fmt: skip


WORDS = st.sampled_from(
    ["/a", "{", "}", "\n", " ", "postrotate", "endscript", "daily", "rotate 3", "#", '"', "'", "\\", "=", "include", "é", "\x00", "\r"]
)


@given(
    st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=40).map("".join), st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
)
def test_anything_at_all_is_read_to_its_end_without_an_exception(text):
    parsed = config.parse(text)
    assert all(1 <= line <= text.count("\n") + 1 for line, _what in parsed.faults)
    config.split_paths(text)


def test_a_large_hostile_file_takes_no_longer_than_its_length():
    for text in ("/\n" * 200_000, "/a{" * 100_000, "postrotate\n" * 100_000, "#{\n" * 200_000, "/a\n#{\n" * 100_000):
        assert config.parse(text).faults or text.startswith("#")


PATHS = st.text(
    st.characters(codec="ascii", exclude_characters="{}\\\"'#\n\r\t\v\f\x00", exclude_categories=["Cc"]), min_size=1, max_size=20
).map(lambda text: "/" + text)
SCRIPT = st.text(st.sampled_from("ab {}#/\n;\t"), min_size=1, max_size=30).map(lambda text: text.lstrip().rstrip("\n") + "x\n")
DIRECTIVES = st.one_of(
    st.sampled_from(sorted(config.SWITCHES)).map(Directive),
    st.integers(0, 10**6).map(lambda number: Directive("rotate", str(number))),
    st.tuples(st.sampled_from(["size", "minsize", "maxsize"]), st.integers(0, 10**6), st.sampled_from(["", "k", "M", "G"])).map(
        lambda parts: Directive(parts[0], f"{parts[1]}{parts[2]}")
    ),
    st.just(Directive("create", "0640 root adm")),
    st.just(Directive("su", "www-data adm")),
    st.tuples(st.sampled_from(sorted(config.SCRIPTS)), SCRIPT).map(lambda parts: Directive(*parts)),
)
SECTIONS = st.builds(Section, st.lists(PATHS, min_size=1, max_size=4), st.lists(DIRECTIVES, max_size=8))


@given(st.lists(SECTIONS, max_size=4))
def test_what_is_written_is_read_again(sections):
    parsed = config.parse("# header\n" + "".join(config.render(section) for section in sections))
    assert (parsed.faults, parsed.items) == ([], sections)


@given(
    st.dictionaries(
        st.text("abc.-_", min_size=1, max_size=5).filter(lambda name: name.strip(".")), st.lists(SECTIONS, max_size=3), max_size=4
    )
)
def test_a_tree_is_read_whole_and_in_order_but_for_names_that_are_left_out(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, sections in files.items():
            Path(folder, name).write_text("# a file\n" + "".join(config.render(section) for section in sections))
            Path(folder, name).chmod(0o644)
        tree_of = Path(folder).with_suffix(".conf")
        try:
            tree_of.write_text(f"weekly\ninclude {folder}\n")
            tree_of.chmod(0o644)
            tree = logrotate_tree.read_tree(str(tree_of))
        finally:
            tree_of.unlink()
    expected = [(f"{folder}/{name}", section.patterns) for name in sorted(files) for section in files[name]]
    assert (tree.faults, tree.passed_over, tree.left_out) == ([], [], [])
    assert [(entry.file, entry.patterns) for entry in tree.entries] == expected
