# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules would refuse of a role's variables, asked of the modules' own checks before any host is touched.

Only what can be told from the input alone: whether a folder, a user or a program is there, the host says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.ops.maintenance.plugins.module_utils import (
    alert_rules,
    backup_rotation,
    backup_verification,
    certificate_renewal,
    container_images,
    container_logs,
    journald_upkeep,
    log_analysis,
    log_retention,
    log_rules,
    logrotate,
    maintenance_mode,
    node_dependencies,
    package_prepare,
    package_updates,
    performance_review,
    port_scan,
    postgresql_minor_update,
    postgresql_retention,
    postgresql_review,
    postgresql_upkeep_options,
    preflight,
    python_dependencies,
    redis_upkeep,
    rollback,
    security_review,
    site_command,
    snapshot,
    sqlite_upkeep_options,
    stale_files,
    validation,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, out_of_range

from .json_queries import query_problems

Params = Mapping[str, Any]


class Call(NamedTuple):
    """One module that a role calls.

    :param names: the role's variable of an option, where it is not the role's name and the option's.
    """

    options: Params
    problems: Callable[[Params], list[str]]
    names: Mapping[str, str] = {}


def _validation(params: Params) -> list[str]:
    return validation.input_problems(params) + query_problems(params["endpoints"])


def _cycle(params: Params) -> list[str]:
    problems = out_of_range(params, ("maintenance_failure_budget_percent",), most=100)
    return problems + out_of_range(params, ("cycle_reserve_seconds",))


def _patching(params: Params) -> list[str]:
    return out_of_range(params, ("patching_reboot_minimum_seconds", "patching_reboot_timeout_seconds", "patching_settle_seconds"))


def _notification(params: Params) -> list[str]:
    problems = out_of_range(params, ("notification_ahead_hours",))
    for channel in params["notification_channels"]:
        where = f"notification_channels of kind {channel['kind']}"
        if channel["kind"] == "mail" and not all(channel["to"] or [""]):
            problems.append(str(InputError.of(f"to in {where}", channel["to"], "the addresses of those to be told", "name them")))
        if channel["kind"] == "file" and not os.path.isabs(channel["path"] or ""):
            problems.append(str(InputError.of(f"path in {where}", channel["path"], "an absolute path", "correct it")))
        problems += [f"{problem} It is in {where}." for problem in out_of_range(channel, ("timeout_seconds",))]
        problems += [f"{problem} It is in {where}." for problem in out_of_range(channel, ("port",), least=1, most=65535)]
    return problems


_DEPENDENCY_LIMITS = {name: f"patching_{name}" for name in python_dependencies.LIMITS}

_UPKEEP = {
    **{option: f"database_maintenance_postgresql_{option}" for option in postgresql_upkeep_options.OPTIONS},
    "servers": "database_maintenance_postgresql",
    "maintenance_mode": "database_maintenance_in_maintenance_mode",
}

_MINOR = {
    "servers": "patching_postgresql",
    **{name: f"patching_postgresql_{name}" for name in ("long_transaction_seconds", "maximum_lag_bytes", "wait_seconds")},
}


_ROLLBACK = ("packages", "again", "keep_sound", "other_cluster", "only", "paths", "volumes")


def _named(prefix: str, options: Params) -> dict[str, str]:
    """Return the role's variables of a module's options, but for those that a role does not hand over."""
    return {option: f"{prefix}_{option}" for option in options if option not in ("expected", "timeout_seconds")}


CALLS: dict[str, tuple[Call, ...]] = {
    "backup_verification": (
        Call(backup_verification.OPTIONS, backup_verification.input_problems),
        Call(
            backup_rotation.OPTIONS,
            backup_rotation.input_problems,
            {"rules": "backup_verification_rotation", "timezone": "backup_verification_timezone"},
        ),
    ),
    "certificate_renewal": (Call(certificate_renewal.OPTIONS, certificate_renewal.input_problems),),
    "container_images": (Call(container_images.OPTIONS, container_images.input_problems),),
    "database_maintenance": (
        Call(
            sqlite_upkeep_options.OPTIONS,
            sqlite_upkeep_options.input_problems,
            {"databases": "database_maintenance_sqlite"},
        ),
        Call(postgresql_upkeep_options.OPTIONS, postgresql_upkeep_options.input_problems, _UPKEEP),
    ),
    "database_review": (
        Call(postgresql_review.OPTIONS, postgresql_review.input_problems, {"servers": "database_review_postgresql"}),
        Call(
            redis_upkeep.OPTIONS,
            redis_upkeep.input_problems,
            {"servers": "database_review_redis", "sample_size": "database_review_redis_sample_size"},
        ),
    ),
    "data_retention": (
        Call(postgresql_retention.OPTIONS, postgresql_retention.input_problems, {"servers": "data_retention_postgresql"}),
        Call(
            stale_files.OPTIONS,
            stale_files.input_problems,
            {"servers": "data_retention_postgresql", "rules": "data_retention_files"},
        ),
        Call(redis_upkeep.OPTIONS, redis_upkeep.input_problems, {"servers": "data_retention_redis"}),
        Call(snapshot.OPTIONS, snapshot.input_problems, _named("data_retention_snapshot", ("root", "encrypt_command", "decrypt_command"))),
    ),
    "log_rotation": (
        Call(log_analysis.OPTIONS, log_analysis.input_problems),
        Call(log_retention.OPTIONS, log_rules.input_problems),
        Call(
            logrotate.OPTIONS,
            logrotate.input_problems,
            {**_named("log_rotation_logrotate", logrotate.OPTIONS), "run_when_due": "log_rotation_logrotate_run"},
        ),
        Call(journald_upkeep.OPTIONS, journald_upkeep.input_problems, _named("log_rotation_journald", journald_upkeep.OPTIONS)),
        Call(alert_rules.OPTIONS, alert_rules.input_problems, _named("log_rotation_alert", alert_rules.OPTIONS)),
        Call(container_logs.OPTIONS, container_logs.input_problems, _named("log_rotation_containers", container_logs.OPTIONS)),
    ),
    "maintenance_mode": (Call(maintenance_mode.OPTIONS, maintenance_mode.input_problems),),
    "patching": (
        Call(
            package_updates.OPTIONS,
            package_updates.input_problems,
            {"restart": "patching_service_restart", "restart_exclude": "patching_service_restart_exclude"},
        ),
        Call(package_prepare.OPTIONS, package_prepare.input_problems),
        Call(postgresql_minor_update.OPTIONS, postgresql_minor_update.input_problems, _MINOR),
        Call(
            python_dependencies.OPTIONS,
            python_dependencies.input_problems,
            {"environments": "patching_python_environments", **_DEPENDENCY_LIMITS},
        ),
        Call(
            node_dependencies.OPTIONS,
            node_dependencies.input_problems,
            {"projects": "patching_node_projects", **_DEPENDENCY_LIMITS},
        ),
    ),
    "performance_review": (Call(performance_review.OPTIONS, performance_review.input_problems),),
    "preflight": (Call(preflight.OPTIONS, preflight.input_problems),),
    "security_review": (
        Call(security_review.OPTIONS, security_review.input_problems, {"servers": "security_review_postgresql"}),
        Call(port_scan.OPTIONS, port_scan.input_problems, {name: f"security_review_scan_{name}" for name in port_scan.OPTIONS}),
    ),
    "snapshot": (
        Call(snapshot.OPTIONS, snapshot.input_problems),
        Call(
            rollback.OPTIONS,
            rollback.input_problems,
            {"snapshot": "snapshot_rollback_id", **{name: f"snapshot_rollback_{name}" for name in _ROLLBACK}},
        ),
    ),
    "validation": (Call(validation.OPTIONS, _validation),),
}
"""The modules of each role, and their checks."""

OWN: dict[str, Callable[[Params], list[str]]] = {"cycle": _cycle, "notification": _notification, "patching": _patching}
"""Checks of variables that no module of a role gets, by the names of the variables."""


def problems(role: str, options: Params, given: Params) -> Iterator[str]:
    """Yield a sentence for each thing that cannot be meant.

    :param options: the options of the role, from its argument spec.
    :param given: values of the role's variables that fit the types of their options.
    """
    values = {**{name: _plain(option) for name, option in options.items() if _plain(option) is not None}, **given}
    for call in CALLS.get(role, ()):
        variables = {option: call.names.get(option, f"{role}_{option}") for option in call.options}
        raw = {option: values[name] for option, name in variables.items() if values.get(name, {}) != {}}  # {} means not given
        yield from _told(role, variables, _asked(call.options, call.problems, raw))
    if role in OWN:
        yield from _told(role, {}, _asked(options, OWN[role], values))
    if role == "site_commands":
        yield from _of_commands(values.get("site_commands") or [])


def _asked(options: Params, check: Callable[[Params], list[str]], raw: Params) -> list[str]:
    spec = {name: {**option, "required": False, "default": _plain(option)} for name, option in options.items()}
    validated = ArgumentSpecValidator(spec).validate({name: value for name, value in raw.items() if name in spec})
    if validated.error_messages:
        return [f"{message}." for message in validated.error_messages]
    params = validated.validated_parameters
    return check({**params, **{name: [] for name, option in options.items() if option["type"] == "list" and params[name] is None}})


def _told(role: str, variables: Mapping[str, str], found: list[str]) -> Iterator[str]:
    """Name the variable that the inventory has, where a sentence begins with the option that the module has."""
    for problem in found:
        option = re.match(r"\w+", problem)
        name = option.group() if option else ""
        if name in variables:
            yield variables[name] + problem[len(name) :]
        else:
            yield problem if name.startswith((f"{role}_", "maintenance_")) else f"role {role}: {problem}"


def _of_commands(commands: list[Any]) -> Iterator[str]:
    for command in commands:
        given = {name: value for name, value in command.items() if name in site_command.OPTIONS}
        for problem in _asked(site_command.OPTIONS, site_command.input_problems, given):
            yield f"site_commands, {command['name']}: {problem}"


def _plain(option: Params) -> Any:
    """Return the default of an option; of an expression, which only Ansible could work out, nothing."""
    default = option.get("default")
    return None if "{{" in str(default) else default
