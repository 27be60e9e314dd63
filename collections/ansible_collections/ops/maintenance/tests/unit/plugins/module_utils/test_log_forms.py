# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of every format as their programs write them: time, level, text, account and address."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import log_forms
from ansible_collections.ops.maintenance.plugins.module_utils.log_counter import LogCounter
from ansible_collections.ops.maintenance.plugins.module_utils.log_forms import PARSERS, form_of
from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import Clock
from ansible_collections.ops.maintenance.plugins.module_utils.log_texts import template_of

AT = datetime(2026, 11, 20, 10, 0, 0, tzinfo=timezone.utc).timestamp()
NOW = AT + 86400


def event(form: str, line: str, zone=timezone.utc):
    return PARSERS[form]()(line.encode(), Clock(NOW, zone))


def count(form: str, data: str):
    counter = LogCounter(form, Clock(NOW))
    counter.add(data.encode())
    counter.finish()
    return counter.tally


POSTGRESQL_PREFIXES = [
    "2026-11-20 10:00:00.123 UTC [4711] ",  # %m [%p], the default
    "2026-11-20 10:00:00.123 UTC [4711] eve@shop ",  # Debian: %m [%p] %q%u@%d
    "2026-11-20 10:00:00 GMT [4711]: [3-1] user=eve,db=shop,app=psql,client=192.0.2.7 ",  # pgBadger's
    "2026-11-20 10:00:00 UTC:192.0.2.7(51234):eve@shop:[4711]:",  # managed services
    "< 2026-11-20 10:00:00.123 UTC >",  # older Red Hat
    "1795168800.123 [4711] ",  # %n
    "[4711] 2026-11-20 10:00:00.123 UTC eve@shop ",
]


@pytest.mark.parametrize("prefix", POSTGRESQL_PREFIXES)
def test_postgresql_with_the_usual_prefixes(prefix):
    found = event("postgresql", f'{prefix}FATAL:  password authentication failed for user "eve"')
    assert (int(found.moment), found.level, found.text) == (AT, "ERROR", b'password authentication failed for user "eve"')
    assert found.account in (b"eve", b"")
    assert found.address == (b"192.0.2.7" if "192" in prefix else b"")
    detail = f"{prefix}DETAIL:  Connection matched pg_hba.conf line 1"
    tally = count(
        "postgresql", f"{prefix}ERROR:  deadlock detected\n{detail}\n\tProcess 1 waits\n{prefix}STATEMENT:  SELECT 'out of memory'\n"
    )
    assert (tally.lines, tally.parsed, tally.continued, tally.errors(), tally.unparsed) == (1, 1, 3, 1, 0)
    assert dict(tally.tags) == {"deadlocks": 1}


def test_postgresql_times_in_the_zone_of_the_server():
    found = event("postgresql", "2026-11-20 11:00:00.000 CET [1] LOG:  checkpoint starting: time", ZoneInfo("Europe/Berlin"))
    assert (found.moment, found.level) == (AT, "INFO")


def test_what_clients_ask_for_is_not_what_the_server_says():
    tally = count(
        "postgresql",
        "2026-11-20 10:00:00.123 UTC [1] LOG:  duration: 1500.250 ms  statement: SELECT 'authentication failed'\n"
        "2026-11-20 10:00:00.123 UTC [1] LOG:  statement: INSERT INTO notes VALUES ('out of memory, I/O error')\n"
        '2026-11-20 10:00:00.123 UTC [1] PANIC:  could not write to file "pg_wal/xlogtemp": No space left on device\n',
    )
    assert dict(tally.tags) == {"io_errors": 1}
    assert dict(tally.latencies) == {b"1.500": 1}
    assert tally.by_level()["EMERGENCY"] == 1


CSV = (
    '2026-11-20 10:00:00.123 UTC,"eve","shop",4711,"192.0.2.7:51234",6743.12,{number},"SELECT",2026-11-20 09:00:00 UTC,3/12,0,'
    '{severity},40P01,"{message}",,,,,,"{query}",,,"psql","client backend",,0\n'
)


def test_postgresql_csv_records_may_hold_line_ends_and_forged_lines():
    forged = '\n2026-11-20 10:00:00.123 UTC,"x","x",1,"",1.1,1,"",,,0,PANIC,00000,""forged"",,,,,,,,,""""\n'
    tally = count(
        "postgresql_csv",
        CSV.format(number=1, severity="ERROR", message="deadlock detected", query=f"SELECT ''{forged}''")
        + CSV.format(number=2, severity="FATAL", message='password authentication failed for user ""eve""', query=""),
    )
    assert (tally.lines, tally.parsed, tally.continued, tally.errors(), tally.unparsed) == (2, 2, 2, 2, 0)
    assert (dict(tally.tags), dict(tally.auth_addresses), dict(tally.accounts)) == (
        {"deadlocks": 1, "auth_failures": 1}, {b"192.0.2.7": 1}, {b"eve": 1},
    )  # fmt: skip


def test_a_quote_that_never_closes_does_not_eat_the_log():
    data = CSV.format(number=1, severity="ERROR", message="broken", query="open").replace('open"', "open") + ("x" * 1000 + "\n") * 1200
    tally = count("postgresql_csv", data + CSV.format(number=2, severity="ERROR", message="after", query=""))
    assert "after" in tally.templates


def test_postgresql_json():
    record = {"timestamp": "2026-11-20 10:00:00.123 UTC", "user": "eve", "remote_host": "192.0.2.7", "pid": 1, "error_severity": "FATAL",
              "message": 'password authentication failed for user "eve"'}  # fmt: skip
    found = event("postgresql_json", json.dumps(record))
    assert (int(found.moment), found.level, found.account, found.address) == (AT, "ERROR", b"eve", b"192.0.2.7")
    assert event("postgresql_json", '{"timestamp": "2026-11-20 10:00:00 UTC"}') is None


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("Nov 20 10:00:00 web1 sshd[811]: Failed password for root from 192.0.2.7 port 22 ssh2", "",
         "sshd: Failed password for root from 192.0.2.7 port 22 ssh2"),
        ("2026-11-20T10:00:00.5+00:00 web1 app[9]: error: no route", "ERROR", "app: error: no route"),
        ("<11>Nov 20 10:00:00 web1 app: gone", "ERROR", "app: gone"),
        ("<10>1 2026-11-20T10:00:00.003Z web1 app 12 ID47 [x@1 a=\"b\\]\\\"\" c=\"d\"][y@2] \ufeffdied", "CRITICAL", "app: died"),
        ("<14>1 2026-11-20T10:00:00Z web1 app - - - up", "INFO", "app: up"),
        ("<14>1 2026-11-20T10:00:00Z web1 app - - -", "INFO", "app: "),
        ("Nov 20 10:00:00 web1 kernel: [12345.678901] Out of memory: Killed process 77 (x)", "",
         "kernel: Out of memory: Killed process 77 (x)"),
        ("Nov 20 10:00:00 web1 last message repeated", "", "last message repeated"),
    ],
)  # fmt: skip
def test_syslog(line, level, text):
    found = event("syslog", line)
    assert (int(found.moment), found.level, found.text.decode()) == (AT, level, text)


def test_the_same_message_groups_in_every_month_and_process():
    lines = ("Nov 20 10:00:00 web1 app[1]: error: no route to 10.0.0.1", "Oct  3 10:00:00 web1 app[22]: error: no route to 10.0.0.2")
    assert len({template_of(event("syslog", line).text) for line in lines}) == 1


def test_repeated_messages_count_as_often_as_they_came():
    tally = count(
        "syslog",
        "Nov 20 10:00:00 web1 sshd[1]: Failed password for root from 192.0.2.7 port 22 ssh2\n"
        "Nov 20 10:00:01 web1 sshd[1]: message repeated 4 times: [ Failed password for root from 192.0.2.7 port 22 ssh2]\n",
    )
    assert (tally.tags["auth_failures"], dict(tally.auth_addresses)) == (5, {b"192.0.2.7": 5})


def test_nginx_errors():
    tally = count(
        "nginx_error",
        '2026/11/20 10:00:00 [error] 7#7: *1 open() "/srv/x" failed (2: No such file), client: 192.0.2.7, server: _, request: "GET /x?authentication+failed"\n'
        '2026/11/20 10:00:00 [error] 7#7: *2 limiting requests, excess: 5.2 by zone "api", client: 192.0.2.8, server: _\n'
        "2026/11/20 10:00:00 [emerg] 7#7: bind() to 0.0.0.0:80 failed (98: Address already in use)\n"
        '2026/11/20 10:00:00 [error] 7#7: *3 FastCGI sent in stderr: "PHP message: a\n'
        'PHP message: b" while reading upstream, client: 192.0.2.7\n',
    )
    assert (tally.lines, tally.continued, tally.errors(), tally.by_level()["EMERGENCY"]) == (4, 1, 4, 1)
    assert (dict(tally.tags), dict(tally.limited_addresses)) == ({"rate_limited": 1}, {b"192.0.2.8": 1})


def docker(text: str, stream: str = "stdout") -> str:
    return json.dumps({"log": text, "stream": stream, "time": "2026-11-20T10:00:00.123456789Z"}) + "\n"


def test_containers():
    tally = count(
        "docker",
        docker("2026-11-20 10:00:00 ERROR cannot reach db-7\n")
        + docker(json.dumps({"level": "error", "msg": "boom 7", "ts": 1}) + "\n", "stderr")
        + docker("ERROR a long line that comes ")
        + docker("INFO between\n", "stderr")
        + docker("in two pieces: ERROR\n")
        + "not JSON\n",
    )
    assert (tally.lines, tally.unparsed, tally.errors()) == (6, 1, 3)
    assert set(tally.templates) == {"ERROR cannot reach db-<n>", "boom <n>", "ERROR a long line that comes"}


def test_the_journal():
    entry = {"__REALTIME_TIMESTAMP": str(int(AT * 1e6)), "PRIORITY": "2", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": "I/O error, dev vda"}
    found = event("journal", json.dumps(entry))
    assert (found.moment, found.level, found.text) == (AT, "CRITICAL", b"kernel: I/O error, dev vda")
    assert event("journal", json.dumps({**entry, "MESSAGE": [72, 105, 255]})).text == b"kernel: Hi\xff"
    assert event("journal", json.dumps({**entry, "MESSAGE": None})).text == b"kernel: (no text)"
    assert event("journal", '{"MESSAGE": "no time"}') is None


@pytest.mark.parametrize(
    ("first", "form"),
    [
        (POSTGRESQL_PREFIXES[1] + "LOG:  starting", "postgresql"),
        (CSV.format(number=1, severity="LOG", message="m", query="").strip(), "postgresql_csv"),
        ('{"timestamp": "2026-11-20 10:00:00.123 UTC", "error_severity": "LOG", "message": "m"}', "postgresql_json"),
        ("2026/11/20 10:00:00 [error] 7#7: *1 x, client: 192.0.2.7", "nginx_error"),
        ("Nov 20 10:00:00 web1 sshd[811]: x", "syslog"),
        ("<13>1 2026-11-20T10:00:00Z web1 app - - - x", "syslog"),
        ("2026-11-20T10:00:00.5+00:00 web1 app[9]: x", "syslog"),
        (docker("x\n").strip(), "docker"),
        ('{"time": "2026-11-20T10:00:00Z", "log": "x", "level": "info", "stream": "y"}', "json"),
        ('192.0.2.1 - - [20/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 5', "access"),
        ("2026-11-20 10:00:00 ERROR boom", "plain"),
        ("2026-11-20T10:00:00Z ERROR main: boom", "plain"),
        ("", "plain"),
    ],
)  # fmt: skip
def test_the_format_is_told_from_the_first_lines(tmp_path, first, form):
    path = tmp_path / "x.log"
    path.write_text(first + "\n")
    assert form_of(str(path), "auto") == form
    expected = form if form.startswith("postgresql") else "postgresql"
    assert form_of(str(path), "postgresql") == expected


LINES = st.one_of(
    st.binary(max_size=300).map(lambda data: data.replace(b"\n", b" ")),
    st.builds(
        lambda start, rest: start.encode() + rest,
        st.sampled_from(
            [*POSTGRESQL_PREFIXES, "<11>1 2026-11-20T10:00:00Z h a - - [", "Nov 20 10:00:00 h ", "2026/11/20 10:00:00 [error] 1#1: ", CSV[:90],
             '{"log": "', '{"__REALTIME_TIMESTAMP": "', docker("")[:-3]]
        ),
        st.binary(max_size=100).map(lambda data: data.replace(b"\n", b" ")),
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PARSERS)), st.lists(LINES, max_size=8))
def test_whatever_comes_is_counted_once(form, lines):
    counter = LogCounter(form, Clock(NOW))
    counter.add(b"\n".join(lines) + b"\n")
    counter.finish()
    tally = counter.tally
    assert tally.parsed + tally.unparsed == tally.lines
    assert tally.lines + tally.continued == sum(1 for line in b"\n".join(lines).split(b"\n") if line.rstrip())


@pytest.mark.parametrize("form", sorted(log_forms.PARSERS))
def test_long_lines_of_one_character_take_no_time(form):
    for sign in (b" ", b"[", b'"', b"<", b"a", b"1", b"\\", b'[x@1 a="\\'):
        LogCounter(form, Clock(NOW)).add(b"<11>1 2026-11-20T10:00:00Z h a - - " + sign * 100_000 + b"\n" + sign * 100_000 + b"\n")
