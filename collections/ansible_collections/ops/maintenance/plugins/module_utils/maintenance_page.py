# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that users see during maintenance: status 503 with Retry-After, from nginx."""

from __future__ import annotations

import html
import os
import typing as t

from . import undo
from .errors import InputError, MaintenanceError, refuse
from .http_probe import fetch
from .paths import write_atomic
from .record import Finding

OPTIONS: dict[str, t.Any] = {
    "url": {"type": "str", "required": True},
    "include_dir": {"type": "path", "default": "/etc/nginx/ops_maintenance.d"},
    "title": {"type": "str", "default": "Maintenance"},
    "text": {"type": "str", "default": "This service is being maintained and will be back soon."},
    "retry_after_seconds": {"type": "int", "default": 3600},
}

_SNIPPET = """\
# Made by ops.maintenance; removed when maintenance mode is left.
error_page 503 @ops_maintenance;
location @ops_maintenance {{
    types {{ }}
    default_type "text/html; charset=utf-8";
    add_header Retry-After {retry} always;
    add_header Cache-Control no-store always;
    return 503 '{page}';
}}
return 503;
"""
_LONGEST_PAGE = 4000  # nginx reads parameters of up to 4096 bytes
_PAGE = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    "<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1rem}}</style></head>"
    "<body><h1>{title}</h1><p>{message}</p></body></html>"
)


def input_problems(page: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = []
    if page["retry_after_seconds"] <= 0:
        expected = "a number of seconds above 0"
        problems.append(str(InputError.of("page.retry_after_seconds", page["retry_after_seconds"], expected, "correct it")))
    if len(_snippet(page).encode()) > _LONGEST_PAGE:
        expected = "a text that nginx can hold (about 3000 bytes)"
        problems.append(str(InputError.of("page.text", page["text"][:40] + "…", expected, "shorten it")))
    return problems


def files_of(page: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what has to be undone, before any of it is done."""
    if not os.path.isdir(page["include_dir"]):
        advice = "create it and put 'include <that folder>/*.conf;' into the server block of nginx"
        raise InputError.of("page.include_dir", page["include_dir"], "a folder that nginx includes", advice)
    refuse(input_problems(page))
    snippet = os.path.join(page["include_dir"], "ops_maintenance.conf")
    return {"files": [snippet], "reload": ["nginx", "-s", "reload"], "test": ["nginx", "-t", "-q"]}


def _snippet(page: t.Mapping[str, t.Any]) -> str:
    shown = _PAGE.format(title=_text(page["title"]), message=_text(page["text"]))
    return _SNIPPET.format(retry=page["retry_after_seconds"], page=shown)


def _text(given: str) -> str:
    """Return text that is only text, for a browser as for nginx."""
    return html.escape(given).replace("$", "&#36;").replace("\\", "&#92;")


def see_ready(page: t.Mapping[str, t.Any], known: t.Mapping[str, t.Any]) -> None:
    """See that nginx runs and accepts its configuration before anything is changed: otherwise the page could not be taken away either.

    :raises MaintenanceError: it does not.
    """
    _run(known["test"], "nginx refuses its configuration already now")
    answer = fetch(page["url"], timeout=5)
    if not answer.status:
        raise MaintenanceError(f"The maintenance page cannot be shown: {page['url']} {answer.told()}. Start nginx first.")


def _run(argv: t.Sequence[str], what: str) -> None:
    done = undo.run(argv)
    if done.returncode:
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
        raise MaintenanceError(f"The maintenance page could not be shown: {what}: {said}.")


def show(page: t.Mapping[str, t.Any], known: t.Mapping[str, t.Any]) -> Finding:
    """Show the page and prove that users get it.

    :raises MaintenanceError: nginx refuses it, or the URL does not answer with 503.
    """
    write_atomic(known["files"][0], _snippet(page).encode(), 0o644)
    for argv in (known["test"], known["reload"]):
        _run(argv, " ".join(argv))
    answer = fetch(page["url"], timeout=5, tries=10, until=(503,))
    if answer.status != 503 or not answer.headers.get("retry-after"):
        raise MaintenanceError(
            f"The maintenance page is not seen: {page['url']} {answer.told()}, expected 503 with Retry-After. "
            f"Put 'include {page['include_dir']}/*.conf;' into the server block of nginx."
        )
    return Finding(
        id="maintenance_mode.page",
        state="ok",
        subject=page["url"],
        summary=f"Users get status 503 with Retry-After {answer.headers['retry-after']}.",
        value=503,
        unit="status",
    )
