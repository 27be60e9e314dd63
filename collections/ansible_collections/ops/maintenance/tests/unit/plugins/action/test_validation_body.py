# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64

import pytest

from ansible_collections.ops.maintenance.plugins.action.validation import judge_body
from ansible_collections.ops.maintenance.plugins.plugin_utils.json_queries import query_problems


def judge(content, query, **equals):
    body = {"name": "health", "content": None if content is None else base64.b64encode(content).decode(), "why": "answered 503"}
    return judge_body(body, {"query": query, **equals})


@pytest.mark.parametrize(
    ("query", "equals", "state"),
    [
        ("status", "healthy", "ok"),
        ("status", "degraded", "critical"),
        ("checks.database", True, "ok"),
        ("checks.database", False, "critical"),
        ("checks.queue", False, "ok"),
        ("checks.queue", 0, "critical"),  # false is not nought
        ("checks.database", 1, "critical"),
        ("length(items)", 2, "ok"),
        ("items[0].id", 7, "ok"),
        ("missing", "anything", "critical"),
    ],
)
def test_a_value_must_be_the_declared_one(query, equals, state):
    content = b'{"status": "healthy", "checks": {"database": true, "queue": false}, "items": [{"id": 7}, {"id": 8}]}'
    assert judge(content, query, equals=equals).state == state


@pytest.mark.parametrize(
    ("content", "state"), [(b'{"a": 1}', "ok"), (b'{"a": []}', "critical"), (b'{"a": ""}', "critical"), (b"{}", "critical")]
)
def test_without_a_value_it_must_be_there_and_not_empty(content, state):
    assert judge(content, "a", equals=None).state == state


@pytest.mark.parametrize("content", [b"<html>ok</html>", b"", b"\xff\xfe", b'{"status": "heal'])
def test_what_is_not_json_fails(content):
    assert judge(content, "status", equals="healthy").state == "critical"


@pytest.mark.parametrize(("content", "state"), [(b'{"data": []}', "ok"), (b'{"data": [{"id": 1}]}', "warning"), (b"<html>", "critical")])
def test_active_alerts_are_a_warning_and_what_cannot_be_counted_fails_netpost_weekly_05(content, state):
    assert judge(content, "length(data)", equals=0, severity="warning").state == state


def test_a_query_that_does_not_fit_the_answer_fails():
    assert judge(b'{"items": 5}', "length(items)", equals=5).state == "critical"


def test_what_was_not_read_is_unknown_with_the_reason():
    found = judge(None, "status", equals="healthy")
    assert (found.state, "answered 503" in found.summary) == ("unknown", True)


@pytest.mark.parametrize("check", [{"query": "a..b"}, {"query": ""}, {"query": 5}, {}, "status", None])
def test_a_query_that_cannot_be_read_is_refused_before_anything_is_asked(check):
    [problem] = query_problems([{"url": "http://host/", "body": [check]}])
    assert "a JMESPath query" in problem


@pytest.mark.parametrize("endpoints", [None, "text", 5, ["http://host/"], [{"url": "x", "body": "status"}], [{"url": "x", "body": None}]])
def test_other_faults_are_left_to_the_argument_spec(endpoints):
    assert query_problems(endpoints) == []
