"""What was planted by plant/patching.yml arrives as findings, and nothing of it on the clean host."""

from __future__ import annotations

from helpers import findings, of_kind


def test_pending_security_updates_are_found_by_their_archive():
    first = findings("patching.pending", host="fossa-faulty")[0]
    assert first["state"] == "warning"
    named = {line.split()[0] for line in first["evidence"]}
    assert {"demo-tls", "demo-both"} <= named
    assert "libsecurity-foo" not in named


def test_needed_reboot_is_found():
    assert findings("patching.reboot", host="fossa-faulty")[0]["state"] == "warning"


def test_clean_host_has_no_such_finding():
    own = [found for found in findings(host="fossa-clean") if found["id"].startswith("patching.")]
    assert {"patching.pending", "patching.reboot", "patching.refresh"} <= {found["id"] for found in own}
    assert [found for found in own if found["state"] != "ok"] == []


def test_the_application_was_seen_to_work_after_the_reboot():
    records = of_kind("record", host="fossa-faulty")
    done = [{(action["operation"], action["status"]) for action in record.get("actions", [])} for record in records]
    rebooted = [place for place, actions in enumerate(done) if ("reboot", "changed") in actions]
    assert len(rebooted) == 1
    seen = [record for record in records[rebooted[0] + 1 :] if record["operation"] == "validation"]
    assert seen
    assert not [found["id"] for found in seen[0]["findings"] if found["state"] == "critical"]
