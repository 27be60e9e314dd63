# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies of answers are judged by JMESPath on the control node; what cannot be judged is never ok."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.ops.maintenance.plugins.action import validation
from ansible_collections.ops.maintenance.plugins.plugin_utils import json_queries


def body(text: str | None, why: str = "") -> dict[str, Any]:
    return {"name": "health", "content": None if text is None else base64.b64encode(text.encode()).decode(), "why": why}


@pytest.mark.parametrize(
    ("text", "check", "state"),
    [
        ('{"status": "healthy"}', {"query": "status", "equals": "healthy"}, "ok"),
        ('{"status": "degraded"}', {"query": "status", "equals": "healthy"}, "critical"),
        ('{"status": "unhealthy"}', {"query": "status", "equals": "healthy"}, "critical"),
        ("{}", {"query": "status", "equals": "healthy"}, "critical"),
        ('{"count": 0}', {"query": "count", "equals": 0}, "ok"),
        ('{"data": [1]}', {"query": "data[0]"}, "ok"),
        ('{"data": []}', {"query": "data"}, "critical"),
        ("<html>down for maintenance, status: healthy</html>", {"query": "status"}, "critical"),
        ("", {"query": "status"}, "critical"),
        (None, {"query": "status"}, "unknown"),
    ],
)
def test_a_body_is_ok_only_when_the_query_finds_what_is_expected(text, check, state):
    finding = validation.judge_body(body(text, "the endpoint did not answer"), check)
    assert (finding.id, finding.state) == ("validation.body", state)


@pytest.mark.parametrize("check", [{"query": "a[["}, {"equals": 1}, "status", None])
def test_a_query_that_is_none_is_refused_before_the_host_is_asked(check):
    [problem] = json_queries.query_problems([{"url": "x", "body": [check]}])
    assert "JMESPath" in problem


def test_a_control_node_without_jmespath_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(json_queries, "jmespath", None)
    assert json_queries.query_problems([{"url": "http://localhost"}]) == []
    [problem] = json_queries.query_problems([{"url": "http://localhost", "body": [{"query": "status"}]}])
    assert "package jmespath" in problem


@pytest.mark.parametrize("endpoints", [None, "http://localhost", 5, ["http://localhost"], [{"url": "x", "body": 5}], [None]])
def test_endpoints_of_a_wrong_type_are_left_to_the_module(endpoints):
    assert json_queries.query_problems(endpoints) == []
