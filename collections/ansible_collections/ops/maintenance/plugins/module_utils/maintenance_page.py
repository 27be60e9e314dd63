# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that users see during maintenance: status 503 with Retry-After, from nginx."""

from __future__ import annotations

import html
import os
import typing as t

from . import undo
from .errors import InputError, MaintenanceError
from .http_probe import fetch
from .paths import write_atomic
from .record import Finding

OPTIONS: dict[str, t.Any] = {
    "url": {"type": "str", "required": True},
    "include_dir": {"type": "path", "default": "/etc/nginx/ops_maintenance.d"},
    "root": {"type": "path", "default": "/var/lib/ops_maintenance_page"},
    "title": {"type": "str", "default": "Maintenance"},
    "message": {"type": "str", "default": "This service is being maintained and will be back soon."},
    "retry_after_seconds": {"type": "int", "default": 3600},
}

_SNIPPET = """\
# Made by ops.maintenance; removed when maintenance mode is left.
error_page 503 @ops_maintenance;
location @ops_maintenance {{
    root "{root}";
    add_header Retry-After {retry} always;
    add_header Cache-Control no-store always;
    rewrite ^ /maintenance.html break;
}}
return 503;
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1rem}}</style></head>
<body><h1>{title}</h1><p>{message}</p></body></html>
"""


def files_of(page: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what has to be undone, before any of it is done."""
    if not os.path.isdir(page["include_dir"]):
        advice = "create it and put 'include <that folder>/*.conf;' into the server block of nginx"
        raise InputError.of("page.include_dir", page["include_dir"], "a folder that nginx includes", advice)
    plain = os.path.isabs(page["root"]) and not any(char in page["root"] for char in '"\\\n;{}$')
    if page["retry_after_seconds"] <= 0 or not plain:
        raise InputError.of("page", dict(page), "a positive retry_after_seconds and a plain absolute root", "correct it")
    snippet = os.path.join(page["include_dir"], "ops_maintenance.conf")
    return {"files": [snippet], "reload": ["nginx", "-s", "reload"], "test": ["nginx", "-t", "-q"]}


def show(page: t.Mapping[str, t.Any], known: t.Mapping[str, t.Any]) -> Finding:
    """Show the page and prove that users get it.

    :raises MaintenanceError: nginx refuses it, or the URL does not answer with 503.
    """
    os.makedirs(page["root"], mode=0o755, exist_ok=True)
    text = _PAGE.format(title=html.escape(page["title"]), message=html.escape(page["message"]))
    write_atomic(os.path.join(page["root"], "maintenance.html"), text.encode(), 0o644)
    snippet = _SNIPPET.format(root=page["root"], retry=page["retry_after_seconds"])
    write_atomic(known["files"][0], snippet.encode(), 0o644)
    for argv in (known["test"], known["reload"]):
        done = undo.run(argv)
        if done.returncode:
            raise MaintenanceError(f"The maintenance page could not be shown: {' '.join(argv)}: {done.stderr.strip()}")
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
