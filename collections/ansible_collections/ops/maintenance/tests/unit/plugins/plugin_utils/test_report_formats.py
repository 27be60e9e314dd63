# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils import report_html, report_json, report_markdown
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_build import build
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_lines import sort_lines
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_metrics import points_of
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import (
    SampleRun,
    action,
    finding,
    maintain,
    metric,
    weekly,
)

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
SCHEMA = Path(__file__).parents[4] / "docs" / "report.schema.json"
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</pre></table></main><h1>gone",
    '"><svg onload=alert(1)>',
    "\x1b[2J\x1b]0;owned\x07 red",
    "left\u202egnp.exe\u2066right\ufeff",
    "| a | b |\n| --- | --- |\n# heading",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "`` code ` more ``",
    "*bold* _it_ ~~no~~ **x**",
    "\n\n---\n\n> quote\n\n1. one",
    "&lt;script&gt; &amp; &#106;",
    "https://evil.example/a www.evil.example",
    "{{ 7 * 7 }} {% raw %}",
    "w" * 400,
    "\x00\x9b31m\ud800",
    "--- \n- [x] Signed by me",
]


def hostile_run(text):
    """A run with a hostile text wherever a host or a log can put one."""
    run = SampleRun().opened(performed_by=text, playbook=text, job={"id": text}, options={"limit": text})
    checklist = [{"id": "x", "text": text, "kind": "automated", "phase": text, "evidence": [text, "a.*"]}]
    run.plan(
        "shop",
        ["web1"],
        title=text,
        checklist=checklist,
        duties=[{"id": "d", "text": text, "due": text}],
        services=[text],
        contacts={text: text},
    )
    states = [
        finding("a.b", state, text, text, text, text, threshold=text, advice=text, evidence=[text, text], not_covered=text)
        for state in ("critical", "unknown", "ok")
    ]
    waived = finding("a.w", "warning", text + "w", text, waived={"owner": text, "reason": text, "expires": "2027-01-01"})
    done = [action(text, text, status, text, {text: text}, {"size": [text]}) for status in ("changed", "deferred")]
    for found in (*states[:2], waived, states[2]):
        run.record("shop", "web1", text, text, subject=text, status="failed", summary=text, findings=[found], actions=done, task=text,
                   metrics=[metric("a.m", text, 1.5, text)])  # fmt: skip
    return run.outcome("shop", "web1", "failed", reason=text).signed("d", text, note=text).ended("failed")


def built(run, previous=None):
    history = points_of(sort_lines(previous.lines), True) if previous else ()
    return build(run.lines, [previous.lines] if previous else [], history, generated=NOW)


class Page(HTMLParser):
    """Collects elements and attributes of a page, and whether its elements are nested right."""

    VOID = frozenset(("meta", "input", "br", "path", "use", "circle"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.faults: list[str] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.stack or self.stack[-1] != tag:
            self.faults.append(f"</{tag}> in {self.stack[-3:]} at {self.getpos()}")
        else:
            self.stack.pop()

    def handle_data(self, data):
        self.data.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page():
    return Page(report_html.render(built(weekly(), weekly(False, -1))))


# HTML


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_element_to_the_page(text):
    calm = Page(report_html.render(built(hostile_run("calm"))))
    wild = Page(report_html.render(built(hostile_run(text))))
    assert wild.faults == []
    allowed = {tag for tag, _attributes in calm.elements} | {"svg", "path", "circle"}
    assert {tag for tag, _attributes in wild.elements} <= allowed
    assert len(wild.named("script")) == 1
    assert not [name for _tag, attributes in wild.elements for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("render", [report_html.render, report_markdown.render, report_json.render])
@pytest.mark.parametrize("text", HOSTILE)
def test_no_format_holds_characters_that_drive_a_terminal_or_turn_the_text(render, text):
    made = render(built(hostile_run(text)))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", made)
    made.encode("utf-8")


def test_the_page_needs_no_network_and_its_policy_allows_none(page):
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert [tag for tag, _a in page.elements if tag in ("link", "img", "iframe", "object", "embed", "base", "audio", "video")] == []
    assert all(attributes["href"].startswith("#") for tag, attributes in page.elements if "href" in attributes)
    assert not [tag for tag, attributes in page.elements if "src" in attributes]
    css = (report_html.TEMPLATES / "report.css").read_text(encoding="utf-8")
    assert "@import" not in css
    assert "url(" not in css


def test_the_policy_knows_the_one_script():
    made = report_html.render(built(weekly()))
    script = re.search(r"<script>(.*?)</script>", made, re.DOTALL).group(1)
    assert f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in made.replace("&#43;", "+")


def test_the_page_is_well_formed_and_has_its_landmarks(page):
    assert (page.faults, page.stack) == ([], [])
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(page.named(landmark)) == 1, landmark
    ids = [a["id"] for _tag, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes in (a for _tag, a in page.elements if a.get("href", "").startswith("#")):
        assert attributes["href"][1:] in ids
    assert all(a["aria-labelledby"] in ids for a in page.named("section"))


def test_headings_do_not_skip_a_level(page):
    levels = [int(tag[1]) for tag, _a in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_every_table_has_a_caption_and_every_head_cell_a_scope(page):
    assert len(page.named("caption")) == len(page.named("table")) > 3
    assert all(a.get("scope") in ("col", "row") for a in page.named("th"))


def test_a_state_is_never_said_by_colour_alone():
    made = report_html.render(built(weekly()))
    marks = re.findall(r'<span class="mark \w+">(.*?)</span>', made)
    assert len(marks) > 20
    assert all(re.sub("<.*?>", "", mark).strip() for mark in marks)
    icons = re.findall(r'<symbol id="i-(\w+)".*?d="(.*?)"', made)
    assert len({drawing for _name, drawing in icons}) == len(icons)


def test_charts_say_what_they_show(page):
    charts = [a for a in page.named("svg") if a.get("role") == "img"]
    assert charts
    assert all("now" in a["aria-label"] for a in charts)


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first, second):
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast_on_every_ground(number):
    css = (report_html.TEMPLATES / "report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[number]))
    for text in ("ink", "soft", "accent", "ok", "warning", "critical", "unknown", "neutral"):
        for ground in ("page", "sheet", "wash"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for state in ("ok", "warning", "critical", "unknown", "neutral"):
        assert _contrast(colours[state], colours[f"{state}-wash"]) >= 4.5, state
        assert _contrast(colours["ink"], colours[f"{state}-wash"]) >= 7, state


def test_paper_shows_what_was_filtered_on_screen():
    css = (report_html.TEMPLATES / "report.css").read_text(encoding="utf-8")
    assert ".finding[hidden] { display: block !important; }" in css[css.index("@media print") :]


def _media(query):
    """What the page's own styles say for a medium, its rules on one level."""
    css = report_html.render(built(weekly()))
    return re.search(rf"@media {re.escape(query)} \{{\n(.*?)\n\}}", css, re.DOTALL).group(1)


def test_the_page_fits_a_phone(page):
    [viewport] = [a["content"] for a in page.named("meta") if a.get("name") == "viewport"]
    assert viewport == "width=device-width, initial-scale=1"
    narrow = _media("(max-width: 44rem)")
    assert "table.stack, .stack tbody, .stack tr, .stack td, .stack tbody th { display: block; width: 100%; }" in narrow
    assert [a for a in page.named("table") if "stack" in (a.get("class") or "").split()]


def test_the_page_can_be_used_without_a_mouse(page):
    [skip] = [a for a in page.named("a") if a.get("class") == "skip"]
    assert next(a for tag, a in page.elements if tag in ("a", "button", "input", "summary")) is skip, "the first stop of the tab key"
    assert skip["href"][1:] in [a.get("id") for a in page.named("main")]
    css = (report_html.TEMPLATES / "report.css").read_text(encoding="utf-8")
    assert re.search(r"^:focus-visible \{ outline: 3px solid", css, re.MULTILINE)
    assert re.search(r"^\.skip:focus \{ left: 1rem;", css, re.MULTILINE), "it is seen once it has the focus"
    assert "outline: none" not in css
    assert "outline: 0" not in css
    assert not [a for _tag, a in page.elements if int(a.get("tabindex") or 0) > 0], "the order of the page is the order of the keys"


def test_paper_has_no_controls_and_cuts_nothing():
    paper = _media("print")
    assert "nav, .filter, .skip { display: none; }" in paper
    assert "pre { max-height: none;" in paper, "what scrolls on screen is printed whole"
    assert re.search(r"tr, \.finding, [^{]*\{ break-inside: avoid; \}", paper)
    assert "--page: #fff; --sheet: #fff; --ink: #000;" in paper, "a dark screen prints on white"


# Markdown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_in_markdown(text):
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")

    def shape(report):
        tokens = parser.parse(report_markdown.render(report))
        return [inner.type for token in tokens for inner in (token, *(token.children or ()))]

    calm, types = shape(built(hostile_run("calm"))), shape(built(hostile_run(text)))
    assert not {"html_block", "html_inline", "link_open", "image", "fence", "code_block", "s_open"} & set(types)
    for kind in ("heading_open", "table_open", "tr_open", "td_open", "hr"):
        assert types.count(kind) == calm.count(kind), kind


def test_an_address_in_a_log_does_not_become_a_link():
    made = report_markdown.render(built(hostile_run("https://evil.example/a www.evil.example")))
    prose = re.sub(r"`[^`]*`", "", made)
    assert "evil.example" in prose
    assert "https://" not in prose
    assert "www.evil" not in prose


def test_markdown_has_every_field_of_both_templates():
    run = weekly().signed("performed_by", "Mara Lindt")
    made = report_markdown.render(built(run, weekly(False, -1)))
    report_fields = (
        "Start time", "End time", "Duration", "Downtime", "Database size", "Average CPU usage", "Average memory usage", "Error count",
        "Scheduled", "Special activities", "Maintenance performed by", "Report generated",
    )  # fmt: skip
    log_fields = (
        "Maintenance date", "Maintenance window", "Type", "Services affected", "Changes made", "Performed by", "Verified by",
        "Issues encountered", "Rollback required", "Post-maintenance status",
    )  # fmt: skip
    for name in (*report_fields, *log_fields):
        assert re.search(rf"\*\*{name}:\*\* ?\S|\*\*{name}:\*\*\n", made), name
    headings = (
        "Maintenance window",
        "Activities completed",
        "Issues identified",
        "Actions taken",
        "Performance metrics",
        "Recommendations",
        "Next maintenance",
    )
    for name in headings:
        assert f"\n## {name}\n\n" in made, name
    for activity in ("System updates and security patches", "Database maintenance and optimization", "Log analysis and cleanup",
                     "Performance analysis", "Security review", "Backup verification"):  # fmt: skip
        assert re.search(rf"^- \[[x ]\] {activity}: ", made, re.MULTILINE), activity
    assert "- **Maintenance window:** 03:00 - 07:00 CET" in made
    assert "- **Downtime:** 42 s (longest of 2 hosts: fossa-app" in made
    assert "Change 1: take the snapshot: " in made


# JSON


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize(
    "run",
    [weekly(), weekly(False), SampleRun(), SampleRun().opened(), hostile_run("<b>"), weekly().signed("performed_by", "M. L.")],
    ids=["faulty", "clean", "empty", "begun", "hostile", "signed"],
)
def test_json_follows_its_schema(validator, run):
    made = json.loads(report_json.render(built(run, weekly(False, -1))))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(made)] == []


def test_the_schema_refuses_what_is_not_a_report(validator):
    made = json.loads(report_json.render(built(weekly())))
    assert not validator.is_valid({**made, "verdict": "fine"})
    assert not validator.is_valid({**made, "extra": 1})
    assert not validator.is_valid({key: value for key, value in made.items() if key != "findings"})


def test_json_holds_every_single_finding():
    made = json.loads(report_json.render(built(weekly())))
    counted = [len(made[part]) for part in ("findings", "waived", "passed")]
    assert counted == [9, 2, 25]


# a fleet


def test_a_fleet_stays_small_and_names_every_host():
    hosts = [f"web{n:03d}" for n in range(120)]
    run = SampleRun().opened().plan("shop", hosts)
    for number, host in enumerate(hosts):
        maintain(run, "shop", host, faults=frozenset(("certificate", "errors")) if number % 10 == 0 else frozenset())
        run.outcome("shop", host)
    made = report_html.render(built(run.ended()))
    assert len(made) < 400_000
    assert all(host in made for host in hosts)
    assert made.count('<article class="finding') == 2
    assert "108 hosts completed with every check ok" in made
