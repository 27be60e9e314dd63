# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.plugin_utils.redact import HIDDEN, redact, redact_text

SECRET = "hunter2-Zq9"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "db_password",
        "PASSWORD",
        "dbPassword",
        "api_key",
        "apiKey",
        "token",
        "tokens",
        "client_secret",
        "Authorization",
        "secret_value",
    ],
)
def test_a_key_that_names_a_secret_hides_its_text(key):
    assert redact({"a": [{key: SECRET}]}) == {"a": [{key: HIDDEN}]}


def test_a_key_that_is_a_secret_hides_numbers_lists_and_mappings_too():
    assert redact({"password": 1234, "tokens": ["a"], "secrets": {"x": "y"}}) == {"password": HIDDEN, "tokens": HIDDEN, "secrets": HIDDEN}


def test_what_only_speaks_of_secrets_stays():
    kept = {"password_max_age_days": 90, "password": "", "token": None, "has_secret": True, "tokenizer": 3, "subject": "/etc/shadow"}
    assert redact(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        f"login with password={SECRET} failed",
        f"password: {SECRET}",
        f'{{"api_key": "{SECRET}"}}',
        f"{{'token': '{SECRET}'}}",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f"curl -H 'X: Bearer {SECRET}'",
        f"could not connect to postgresql://app:{SECRET}@db:5432/x",
        f"DB_PASSWORD={SECRET}",
        f"AWS_SECRET_ACCESS_KEY = {SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        f"set-cookie: sid={SECRET}",
    ],
)
def test_a_secret_in_a_text_is_hidden_and_the_rest_stays_readable(text):
    shown = redact_text(text)
    assert SECRET not in shown
    assert HIDDEN in shown
    assert shown[:4] == text[:4]


@pytest.mark.parametrize(
    "text",
    [
        "Failed password for root from 10.0.0.1 port 22",
        "/etc/ssl/private/key.pem has mode 0644",
        "https://example.org:8443/path?x=1",
        "the API key file is readable by others",
    ],
)
def test_an_ordinary_text_stays(text):
    assert redact_text(text) == text


def test_numbers_that_json_or_a_database_cannot_hold_become_text():
    assert redact([float("nan"), float("inf"), 2**70, -(2**63), True]) == ["nan", "inf", "an integer of 71 bits", -(2**63), True]


def test_long_hostile_text_does_not_hang():
    # a pattern that backtracks would take hours here
    for piece in ("password" * 10000, "://" * 30000, "token=" * 15000, "-----BEGIN PRIVATE KEY-----" * 3000, "a" * 90000 + "secret"):
        assert redact_text(piece)


@given(st.text(max_size=300))
def test_redacting_twice_changes_nothing_more(text):
    once = redact_text(text)
    assert redact_text(once).count(HIDDEN) >= once.count(HIDDEN)
