# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The security review: a table of checks, each proven against a bad sample where that is asked for."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import (
    security_account_files,
    security_account_rights,
    security_account_use,
    security_aide,
    security_api_use,
    security_app_disable,
    security_app_users,
    security_attestations,
    security_baseline,
    security_certificates,
    security_configuration,
    security_endpoints,
    security_files,
    security_firewall,
    security_firewall_log,
    security_host_policy,
    security_login_patterns,
    security_logins,
    security_lynis,
    security_network,
    security_openscap,
    security_packages,
    security_privileges,
    security_secret_scan,
    security_secrets,
    security_sshd,
    security_trees,
    security_updates,
    security_walk,
)
from .errors import InputError, MaintenanceError, refuse
from .host import Host
from .record import Finding, Outcome, status_of
from .security_common import Review, distrusted, pattern_problems, source_problems, unknown, why_unread

_PARTS: tuple[t.Any, ...] = (
    security_account_files,
    security_account_rights,
    security_account_use,
    security_aide,
    security_api_use,
    security_app_disable,
    security_app_users,
    security_attestations,
    security_baseline,
    security_certificates,
    security_configuration,
    security_endpoints,
    security_files,
    security_firewall,
    security_firewall_log,
    security_host_policy,
    security_login_patterns,
    security_logins,
    security_lynis,
    security_network,
    security_openscap,
    security_packages,
    security_privileges,
    security_secret_scan,
    security_secrets,
    security_sshd,
    security_trees,
    security_updates,
    security_walk,
)
OPTIONS: dict[str, t.Any] = {name: option for part in _PARTS for name, option in getattr(part, "OPTIONS", {}).items()}
SUBJECT, OPERATION = "security", "security_review"


@dataclass(frozen=True)
class Check:
    """One question of the review.

    :param ids: findings that it makes; the first one says so when it could not look at all.
    :param declared: whether the inventory asks for it.
    :param passes_bad_sample: plants what must be noticed and returns what was not (empty: all was).
    """

    ids: t.Sequence[str]
    declared: t.Callable[[t.Mapping[str, t.Any]], bool]
    look: t.Callable[[Review], list[Finding]]
    passes_bad_sample: t.Callable[[Review], str]


CHECKS = (
    Check(
        security_logins.IDS,
        lambda params: bool(params["login_sources"]) or params["journal"] != "false",
        security_logins.look,
        security_logins.passes_bad_sample,
    ),
    Check(security_api_use.IDS, lambda params: bool(params["api_sources"]), security_api_use.look, security_api_use.passes_bad_sample),
    Check(
        security_files.IDS,
        lambda params: bool(params["files"] or params["world_writable_roots"]),
        security_files.look,
        security_files.passes_bad_sample,
    ),
    Check(security_updates.IDS, lambda params: bool(params["updates"]), security_updates.look, security_updates.passes_bad_sample),
    Check(
        security_certificates.IDS,
        lambda params: bool(params["certificates"]),
        security_certificates.look,
        security_certificates.passes_bad_sample,
    ),
    Check(security_baseline.IDS, lambda params: bool(params["accounts"]), security_baseline.look, security_baseline.passes_bad_sample),
    *(
        Check(part.IDS, lambda params: bool(params["accounts"]), part.look, part.passes_bad_sample)
        for part in (security_account_files, security_account_use, security_account_rights)
    ),
    Check(security_app_users.IDS, lambda params: bool(params["user_rules"]), security_app_users.look, security_app_users.passes_bad_sample),
    Check(
        security_app_disable.IDS,
        lambda params: bool(params["disable_users"]),
        security_app_disable.look,
        security_app_disable.passes_bad_sample,
    ),
    Check(security_secrets.IDS, lambda params: bool(params["secrets"]), security_secrets.look, security_secrets.passes_bad_sample),
    Check(
        security_secret_scan.IDS,
        lambda params: bool(params["secret_scans"]),
        security_secret_scan.look,
        security_secret_scan.passes_bad_sample,
    ),
    Check(security_lynis.IDS, lambda params: bool(params["lynis_report"]), security_lynis.look, security_lynis.passes_bad_sample),
    Check(
        security_sshd.IDS,
        lambda params: bool(params["sshd"] or params["sshd_policy"]),
        security_sshd.look,
        security_sshd.passes_bad_sample,
    ),
    Check(
        security_host_policy.IDS,
        lambda params: bool(params["host_policy"]),
        security_host_policy.look,
        security_host_policy.passes_bad_sample,
    ),
    Check(
        security_openscap.IDS,
        lambda params: bool(params["openscap_results"] or params["openscap_content"]),
        security_openscap.look,
        security_openscap.passes_bad_sample,
    ),
    Check(
        security_network.IDS,
        lambda params: params["listening"] is not None,
        security_network.look_listening,
        security_network.listening_passes_bad_sample,
    ),
    Check(
        security_firewall.IDS,
        lambda params: params["firewall"] != "ignore",
        security_firewall.look,
        security_firewall.passes_bad_sample,
    ),
    Check(
        security_firewall_log.IDS,
        lambda params: bool(params["firewall_logs"]),
        security_firewall_log.look,
        security_firewall_log.passes_bad_sample,
    ),
    Check(
        security_configuration.IDS,
        lambda params: bool(params["configurations"]),
        security_configuration.look,
        security_configuration.passes_bad_sample,
    ),
    Check(
        security_endpoints.IDS,
        lambda params: bool(params["endpoints"]),
        security_endpoints.look,
        security_endpoints.passes_bad_sample,
    ),
    Check(
        security_privileges.IDS,
        lambda params: bool(params["privileged_roots"]),
        security_privileges.look,
        security_privileges.passes_bad_sample,
    ),
    Check(
        security_packages.IDS,
        lambda params: bool(params["package_integrity"]),
        security_packages.look,
        security_packages.passes_bad_sample,
    ),
    Check(security_trees.IDS, lambda params: bool(params["trees"]), security_trees.look, security_trees.passes_bad_sample),
    Check(
        security_attestations.IDS,
        lambda params: bool(params["attestations"]),
        security_attestations.look,
        security_attestations.passes_bad_sample,
    ),
    Check(security_aide.IDS, lambda params: bool(params["aide"]), security_aide.look, security_aide.passes_bad_sample),
)


def run(params: dict[str, t.Any], check_mode: bool, host: Host, etc: str = "/etc") -> Outcome:
    """Ask everything that is declared, in one pass; change nothing but the modes that may be corrected."""
    validate(params)
    review = Review(params, host, check_mode, host.now(), etc)
    findings = [finding for check in CHECKS if check.declared(params) for finding in _findings(check, review)]
    if not findings:
        advice = "Declare what is to be reviewed."
        findings = [unknown("security.review", SUBJECT, "nothing was declared, so nothing was looked at", advice)]
    findings += review.unkept
    bad = sum(finding.state != "ok" for finding in findings)
    return Outcome(
        SUBJECT,
        OPERATION,
        status_of(review.actions, check_mode),
        f"{bad} of {len(findings)} findings need attention",
        findings=findings,
        metrics=review.metrics,
        actions=review.actions,
    )


def _findings(check: Check, review: Review) -> list[Finding]:
    try:
        passed = check.passes_bad_sample(review) if review.params["self_test"] else ""
        found = check.look(review)
    except InputError:
        raise
    except (MaintenanceError, OSError) as error:
        advice = "Correct what is named there, then look again."
        return [unknown(check.ids[0], SUBJECT, f"it could not be looked at: {why_unread(error)}", advice)]
    return [distrusted(finding, passed) for finding in found] if passed else found


def validate(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what cannot be meant, all of it at once, before anything is looked at.

    :raises InputError: one sentence for each problem.
    """
    refuse(input_problems(params))


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    wrong = [
        f"{name} is {params[name]}, expected a number from {least} on; correct it."
        for name, least in (
            ("days", 1),
            ("failed_logins_warning", 0),
            ("failed_logins_critical", 0),
            ("brute_force_failures", 2),
            ("brute_force_minutes", 1),
            ("success_after_failures", 1),
            ("updates_max_age_days", 1),
            ("integrity_seconds", 1),
            ("aide_seconds", 1),
        )
        if params[name] is not None and params[name] < least
    ]
    wrong += source_problems("login_sources", params["login_sources"])
    for source in params["login_sources"]:
        for name in ("failure_pattern", "success_pattern"):
            wrong += pattern_problems(f"{name} of login_sources, {source['name']},", source[name] or "")
    for part in _PARTS:
        wrong += part.validate(params) if hasattr(part, "validate") else []
    return wrong
