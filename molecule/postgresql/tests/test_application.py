"""The application that was at work during the whole week lost no transaction; what its transactions took is told."""

from __future__ import annotations

import json
from datetime import datetime

from helpers import of_kind, runs
from load import p95

testinfra_hosts = ["shop"]

FIRST = 1


def test_no_transaction_failed_and_none_was_held_up(host, capsys):
    name = host.backend.get_hostname()
    # A failed transaction ends the application at once, without a word in this file.
    timed = json.loads(host.file("/var/tmp/application/load.json").content_string)
    [upkeep] = [
        record for record in of_kind("record", runs()[FIRST], host=name, operation="postgresql_upkeep") if record["status"] == "changed"
    ]
    done = {action["operation"] for action in upkeep["actions"] if action["status"] == "changed"}
    assert {"vacuum", "create_index", "reindex", "analyze"} <= done
    begin, end = (datetime.fromisoformat(upkeep[key]).timestamp() for key in ("started", "finished"))
    during = [taken for ended, taken in timed if begin <= ended <= end]
    other = [taken for ended, taken in timed if not begin <= ended <= end]
    with capsys.disabled():
        words = (
            f"p95 {p95(during):.1f} ms in {end - begin:.1f} s of upkeep ({len(during)} transactions), {p95(other):.1f} ms before and after"
        )
        print(f"\npgbench on {name}: {words}, {len(timed)} transactions, 0 failed")
    assert len(during) > 20
    assert p95(during) < 2000, "the application was held up"
