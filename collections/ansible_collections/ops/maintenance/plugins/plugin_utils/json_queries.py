# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JMESPath queries on the bodies of answers."""

from __future__ import annotations

from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

try:
    import jmespath
    from jmespath.exceptions import JMESPathError
except ImportError:
    jmespath, JMESPathError = None, ValueError


def query_problems(endpoints: Any) -> list[str]:
    """Return a sentence for each query that is none; whatever else is wrong with the endpoints, others tell."""
    listed = [one for one in endpoints if isinstance(one, dict)] if isinstance(endpoints, list) else []
    checks = [check for endpoint in listed for check in _listed(endpoint.get("body"))]
    if checks and jmespath is None:
        return ["Judging the body of an answer needs the Python package jmespath on the control node; install it there."]
    return [problem for check in checks for problem in _problems(check)]


def _problems(check: Any) -> list[str]:
    try:
        jmespath.compile(check["query"])
    except (JMESPathError, KeyError, TypeError):
        expected = "a JMESPath query such as status or data.items[0].id"
        return [str(InputError.of("endpoints.body.query", check, expected, "correct it"))]
    return []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
