# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed about accounts, sudo rules and authorised keys since the baseline that was accepted."""

from __future__ import annotations

import os
import tempfile
import typing as t

from . import security_accounts, security_authorized_keys
from .errors import MaintenanceError
from .judge import many
from .paths import read_state
from .record import Finding, clean
from .security_accounts import ADMIN_GROUPS, Account
from .security_common import Review, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "accounts": {"type": "bool", "default": True},
    "accept_baseline": {"type": "bool", "default": False},
}
IDS = (
    "security.accounts",
    "security.root_accounts",
    "security.shared_ids",
    "security.empty_password",
    "security.sudo",
    "security.sudo_syntax",
    "security.ssh_keys",
)
STATE_FILE = "security_baseline.json"
_ADVICE = "Find out who made each change; then accept it with security_review_accept_baseline, or undo it."
_READ = "Run with become: true so that it can be read."


def look(review: Review) -> list[Finding]:
    """Read accounts, rules and keys once, judge them, and compare them with the baseline."""
    try:
        found = security_accounts.accounts(review.etc)
    except (OSError, MaintenanceError) as error:
        return [unknown(name, "accounts", f"the accounts could not be read: {why_unread(error)}", _READ) for name in IDS]
    review.count("security.accounts", "accounts", len(found))
    try:
        baseline, trouble = read_state(review.params["state_dir"], STATE_FILE), ""
    except (OSError, MaintenanceError) as error:
        baseline, trouble = {}, str(error)
    now: dict[str, t.Any] = {"accounts": found}
    findings = [_root_accounts(found), _shared_ids(review), _empty_passwords(review), *_sudo(review, now)]
    places = security_authorized_keys.places(review)
    keys, unread = security_authorized_keys.authorized_keys(found, places.patterns)
    if not places.is_known:  # what is read elsewhere this time is neither gone nor new
        keys, unread = {}, dict.fromkeys(found, "; ".join(places.gaps))
    now["keys"] = keys
    findings += _compared(review, baseline, now, trouble, unread, places.gaps if places.is_known else ())
    if not trouble:
        _keep(review, baseline, now, unread)
    return findings


def _root_accounts(found: t.Mapping[str, Account]) -> Finding:
    twins = security_accounts.root_twins(found)
    return Finding(
        "security.root_accounts",
        "critical" if twins else "ok",
        "accounts",
        f"{many(len(twins), 'account')} besides root with uid 0",
        value=len(twins),
        unit="count",
        threshold="critical from 1",
        advice="Remove them or give them a uid of their own." if twins else "",
        evidence=twins,
    )


def _shared_ids(review: Review) -> Finding:
    shared = security_accounts.shared_numbers(review.etc)
    return Finding(
        "security.shared_ids",
        "warning" if shared else "ok",
        "accounts",
        f"{many(len(shared), 'number')} with several names: to the kernel they are one account or one group",
        value=len(shared),
        unit="count",
        threshold="warning from 1 (uid 0 has a finding of its own)",
        advice="Give each account and each group a number of its own, and its files to it." if shared else "",
        evidence=[clean(line, 200) for line in shared[:20]],
    )


def _empty_passwords(review: Review) -> Finding:
    try:
        names = security_accounts.empty_passwords(review.etc)
    except (OSError, MaintenanceError) as error:
        return unknown("security.empty_password", "accounts", f"the shadow file could not be read: {why_unread(error)}", _READ)
    return Finding(
        "security.empty_password",
        "critical" if names else "ok",
        "accounts",
        f"{many(len(names), 'account')} with an empty password",
        value=len(names),
        unit="count",
        threshold="critical from 1",
        advice="Lock them (passwd --lock) or set a password." if names else "",
        evidence=names,
    )


def _sudo(review: Review, now: dict[str, t.Any]) -> list[Finding]:
    path = os.path.join(review.etc, "sudoers")
    try:
        now["sudo"] = security_accounts.flat_rules(security_accounts.sudo_rules(path))
    except FileNotFoundError:
        if not os.path.lexists(path):
            now["sudo"] = []  # no sudo on this host: a rule that appears later is drift
            return []
        return [unknown("security.sudo", path, "a file that it includes is not there", "Correct the include line.")]
    except (OSError, MaintenanceError) as error:
        return [unknown("security.sudo", path, f"the rules could not be read: {why_unread(error)}", _READ)]
    return [_syntax(review, path)]


def _syntax(review: Review, path: str) -> Finding:
    finding_id = "security.sudo_syntax"
    try:
        ran = review.host.run(["visudo", "-c", *([] if review.etc == "/etc" else ["-f", path])])
    except MaintenanceError as error:
        return unknown(finding_id, path, f"the rules were not checked: {error}", "Install sudo's visudo.")
    said = [line for line in f"{ran.stdout}\n{ran.stderr}".splitlines() if line.strip() and not line.endswith("parsed OK")]
    ignored = security_accounts.sudoers_leftovers(os.path.join(review.etc, "sudoers.d"))
    state = "critical" if ran.rc else "warning" if ignored else "ok"
    summary = "visudo refuses the rules" if ran.rc else f"the rules parse; sudo ignores {many(len(ignored), 'file')}"
    return Finding(
        finding_id,
        state,
        path,
        summary,
        threshold="critical when visudo refuses a file, warning when sudo ignores one because of its name",
        advice="Correct the file with visudo -f, or rename it without a dot or tilde." if state != "ok" else "",
        evidence=[*said, *(f"ignored: {name}" for name in ignored)],
    )


class Drift(t.NamedTuple):
    """One difference from the baseline."""

    state: str
    line: str


def account_drift(old: t.Mapping[str, Account], new: t.Mapping[str, Account]) -> list[Drift]:
    """Return what changed between two lists of accounts; a new way to become root is critical."""
    found = [Drift("warning", f"removed account {name}") for name in sorted(set(old) - set(new))]
    found += [
        Drift(_rank(set(new[name]["groups"]), new[name]), f"new account {name}: {_said(new[name])}") for name in sorted(set(new) - set(old))
    ]
    for name in sorted(set(old) & set(new)):
        if old[name] != new[name]:
            gained = set(new[name]["groups"]) - set(old[name]["groups"])
            risen = new[name] if new[name]["uid"] != old[name]["uid"] else {}
            found.append(Drift(_rank(gained, risen), f"changed account {name}: {_said(old[name])} -> {_said(new[name])}"))
    return found


def _rank(groups: set[str], account: t.Mapping[str, t.Any]) -> str:
    return "critical" if groups & ADMIN_GROUPS or account.get("uid") == "0" else "warning"


def _said(account: t.Mapping[str, t.Any]) -> str:
    return f"uid {account['uid']} gid {account['gid']} shell {account['shell']} home {account['home']} groups {','.join(account['groups'])}"


def rule_drift(old: t.Sequence[str], new: t.Sequence[str]) -> list[Drift]:
    """Return which sudo rules came (critical: somebody may do more) and went."""
    came = [Drift("critical", f"new rule {rule}") for rule in sorted(set(new) - set(old))]
    return came + [Drift("warning", f"removed rule {rule}") for rule in sorted(set(old) - set(new))]


def key_drift(old: t.Mapping[str, t.Sequence[str]], new: t.Mapping[str, t.Sequence[str]], unread: t.Container[str] = ()) -> list[Drift]:
    """Return which keys came (critical for root) and went; accounts whose keys are not known now are left out."""
    found = []
    for name in sorted(set(old) | set(new)):
        before, after = set(old.get(name, ())), set(new.get(name, ()))
        if name in unread:
            continue
        found += [Drift("critical" if name == "root" else "warning", f"new key of {name}: {key}") for key in sorted(after - before)]
        found += [Drift("warning", f"removed key of {name}: {key}") for key in sorted(before - after)]
    return found


def _compared(
    review: Review,
    baseline: t.Mapping[str, t.Any],
    now: t.Mapping[str, t.Any],
    trouble: str,
    unread: t.Mapping[str, str],
    elsewhere: t.Sequence[str],
) -> list[Finding]:
    first_seen = set(baseline.get("unread", ())) - set(unread)
    known_keys = {name: keys for name, keys in now["keys"].items() if name not in first_seen}
    parts: list[tuple[str, str, t.Callable[[t.Any], list[Drift]]]] = [
        ("security.accounts", "accounts", lambda old: account_drift(old, now["accounts"])),
        ("security.sudo", "sudo", lambda old: rule_drift(old, now["sudo"])),
        ("security.ssh_keys", "keys", lambda old: key_drift(old, known_keys, unread)),
    ]
    findings = []
    for finding_id, part, drift in parts:
        if part not in now:
            continue  # unread; its own finding says so
        gaps = "; ".join(list(dict.fromkeys([*elsewhere, *unread.values()]))[:5]) if part == "keys" else ""
        if trouble:
            findings.append(unknown(finding_id, part, f"there is no baseline to compare with: {trouble}", "Follow that advice."))
        elif part not in baseline:
            findings.append(_first_sight(review, finding_id, part, len(now[part]), gaps))
        else:
            findings.append(_drift(review, finding_id, part, drift(baseline[part]), str(baseline.get("accepted", "")), gaps))
    return findings


def _first_sight(review: Review, finding_id: str, part: str, count: int, gaps: str) -> Finding:
    written = "would become" if review.check_mode else "became"
    return Finding(
        finding_id,
        "unknown" if gaps else "ok",
        part,
        f"first sight: {many(count, 'entry', 'entries')} {written} the baseline; later runs report what changes",
        threshold="warning from the first change",
        not_covered="; ".join(filter(None, [gaps, "changes before this run"])),
        advice="Make them readable for the review." if gaps else "",
    )


def _drift(review: Review, finding_id: str, part: str, found: list[Drift], since: str, gaps: str) -> Finding:
    accepted = review.params["accept_baseline"]
    state = "critical" if any(drift.state == "critical" for drift in found) else "warning" if found else "unknown" if gaps else "ok"
    if accepted:
        state = "unknown" if gaps else "ok"
    said = " (accepted as the new baseline)" if accepted and found else ""
    return Finding(
        finding_id,
        state,
        part,
        f"{many(len(found), 'change')} since the baseline of {since}{said}",
        value=len(found),
        unit="count",
        threshold="warning from 1, critical for a new way to become root",
        not_covered=gaps,
        advice="" if state == "ok" else "Make them readable for the review." if state == "unknown" else _ADVICE,
        evidence=[drift.line for drift in found[:20]],
    )


def _keep(review: Review, baseline: t.Mapping[str, t.Any], now: t.Mapping[str, t.Any], unread: t.Mapping[str, str]) -> None:
    """Write what is seen for the first time, and all of it when the user accepts it; never what was not read."""
    accepted = review.params["accept_baseline"]
    merged = {**baseline, **now} if accepted else {**now, **baseline}
    merged["keys"], merged["unread"] = kept_keys(baseline, now["keys"], unread, accepted)
    if review.check_mode or all(merged.get(part) == baseline.get(part) for part in merged):
        return
    if merged.get("accepted") is None or review.params["accept_baseline"]:
        merged["accepted"] = review.now.isoformat(timespec="seconds")
    review.keep(STATE_FILE, merged)


def kept_keys(
    baseline: t.Mapping[str, t.Any], now: t.Mapping[str, t.Any], unread: t.Collection[str], accepted: bool
) -> tuple[dict[str, t.Any], list[str]]:
    """Return the keys of the next baseline, and the accounts whose keys nobody has seen yet."""
    if "keys" not in baseline:
        return dict(now), sorted(unread)
    old, never = baseline["keys"], set(baseline.get("unread", ()))
    if accepted:
        return {**{name: old[name] for name in unread if name in old}, **now}, sorted(name for name in unread if name not in old)
    return {**old, **{name: now[name] for name in never if name in now}}, sorted(never & set(unread))


def passes_bad_sample(_review: Review) -> str:
    """Plant a second root account without a password and a new sudo rule; return what was not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as etc:
        for name, text in (
            ("passwd", "root:x:0:0::/root:/bin/sh\nplanted:x:0:0::/:/bin/sh\n"),
            ("group", "root:x:0:\n"),
            ("shadow", "root:*:1:0:9:7:::\nplanted::1:0:9:7:::\n"),
            ("sudoers", "planted ALL=(ALL) NOPASSWD: ALL\n"),
        ):
            with open(os.path.join(etc, name), "w", encoding="utf-8") as sample:
                sample.write(text)
        found = security_accounts.accounts(etc)
        rules = security_accounts.flat_rules(security_accounts.sudo_rules(os.path.join(etc, "sudoers")))
        if not security_accounts.root_twins(found) or not security_accounts.empty_passwords(etc):
            return "a second root account without a password as none"
        if not account_drift({"root": found["root"]}, found) or not rule_drift([], rules):
            return "a new account and a new sudo rule as no change"
    return "" if key_drift({}, {"root": ["SHA256:planted"]}) else "a new key of root as no change"
