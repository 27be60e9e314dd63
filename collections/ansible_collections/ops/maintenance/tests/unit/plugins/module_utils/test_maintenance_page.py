# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files and the proof; that nginx itself shows the page is tested in molecule/maintenance_page."""

from __future__ import annotations

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import maintenance_page
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import sub_defaults, web


def page(folder, url="http://127.0.0.1:1/", **more):
    (folder / "include").mkdir(exist_ok=True)
    given = sub_defaults(maintenance_page.OPTIONS)
    return {**given, "url": url, "include_dir": str(folder / "include"), **more}


def known(given, test=("true",), reload=("true",)):
    return {**maintenance_page.files_of(given), "test": list(test), "reload": list(reload)}


def test_the_page_counts_as_shown_only_when_users_get_it(tmp_path):
    with web(lambda _path, number: (503 if number > 1 else 200, {"Retry-After": "60"}, b"")) as (url, _asked):
        given = page(tmp_path, url, retry_after_seconds=60)
        finding = maintenance_page.show(given, known(given))
    assert (finding.state, finding.value, "Retry-After 60" in finding.summary) == ("ok", 503, True)


@pytest.mark.parametrize(("status", "headers"), [(200, {}), (503, {}), (404, {"Retry-After": "60"})])
def test_a_server_that_shows_something_else_is_an_error(tmp_path, status, headers):
    with web(lambda *_: (status, headers, b"")) as (url, _asked):
        given = page(tmp_path, url)
        with pytest.raises(MaintenanceError, match=r"expected 503 with Retry-After\. Put 'include"):
            maintenance_page.show(given, known(given))


@pytest.mark.parametrize("refused", ["test", "reload"])
def test_a_configuration_that_nginx_refuses_is_an_error(tmp_path, refused):
    given = page(tmp_path)
    with pytest.raises(MaintenanceError, match=r"could not be shown: sh -c .* unknown directive"):
        maintenance_page.show(given, known(given, **{refused: ["sh", "-c", "echo unknown directive >&2; exit 1"]}))


def test_text_is_shown_as_text(tmp_path):
    given = page(tmp_path, title="<script>", text="back & forth'; return 200 $host\\")
    with pytest.raises(MaintenanceError):
        maintenance_page.show(given, known(given))
    shown = (tmp_path / "include/ops_maintenance.conf").read_text()
    assert ("<script>" in shown, "&lt;script&gt;" in shown, "back &amp; forth&#x27;; return 200 &#36;host&#92;" in shown) == (
        False,
        True,
        True,
    )


def test_a_server_that_is_down_or_misconfigured_already_is_told_before_anything_is_written(tmp_path):
    given = page(tmp_path)
    with pytest.raises(MaintenanceError, match="Start nginx first"):
        maintenance_page.see_ready(given, known(given))
    with pytest.raises(MaintenanceError, match="already now: unknown directive"):
        maintenance_page.see_ready(given, known(given, test=["sh", "-c", "echo unknown directive >&2; exit 1"]))
    assert list((tmp_path / "include").iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [{"retry_after_seconds": 0}, {"retry_after_seconds": -1}, {"text": "long " * 1000}],
)
def test_values_that_nginx_cannot_hold_are_refused_before_anything_is_written(tmp_path, more):
    with pytest.raises(InputError, match="expected"):
        maintenance_page.files_of(page(tmp_path, **more))
    assert [path.name for path in tmp_path.rglob("*")] == ["include"]


def test_a_folder_that_nginx_does_not_include_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="server block of nginx"):
        maintenance_page.files_of(page(tmp_path, include_dir=str(tmp_path / "missing")))
