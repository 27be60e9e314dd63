# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that builds an AnsibleModule, and the only ``try`` around a module's work."""

from __future__ import annotations

import traceback
import typing as t

from ansible.module_utils.basic import AnsibleModule

from .errors import InputError, MaintenanceError
from .host import Host
from .record import Outcome

COMMON = {
    "run_id": {"type": "str", "default": ""},
    "deadline": {"type": "float", "default": 0.0},
    "state_dir": {"type": "path", "default": "/var/lib/ops_maintenance"},
    "self_test": {"type": "bool", "default": False},
}
"""Options that every module has; roles hand them over once, with ``module_defaults`` on the action group."""

Run = t.Callable[[dict[str, t.Any], bool, Host], Outcome]

NO_JOURNAL = (
    "The journal callback is not enabled, so nothing of this is kept for a report. "
    "Add this line to [defaults] in ansible.cfg: callbacks_enabled = ops.maintenance.journal"
)


def run_module(options: dict[str, t.Any], run: Run, *, subject: str, operation: str, needs_check_mode: bool = True, **rules: t.Any) -> None:
    """Build the module, run it, and leave with a record whatever happens.

    :param options: argument spec of the module; :data:`COMMON` is added.
    :param run: ``run(params, check_mode, host)``, which returns an outcome or raises a MaintenanceError.
    :param subject: subject of the record when ``run`` could not make one.
    :param operation: operation of the record when ``run`` could not make one.
    :param rules: ``required_if``, ``mutually_exclusive`` and the like.
    """
    module = AnsibleModule(argument_spec={**COMMON, **options}, supports_check_mode=needs_check_mode, **rules)
    if not module.params["run_id"]:
        module.warn(NO_JOURNAL)
    host = Host()
    started = host.now()
    try:
        outcome = run(module.params, module.check_mode, host)
    except MaintenanceError as error:
        kind = "input" if isinstance(error, InputError) else "work"
        outcome = error.outcome or Outcome(subject, operation, "failed", str(error))
        outcome.status = "failed"
        module.fail_json(msg=str(error), error_kind=kind, maintenance_record=_timed(outcome, started, host))
    except Exception as error:  # a defect: it must still leave a record
        outcome = Outcome(subject, operation, "failed", f"unexpected {type(error).__name__}: {error}")
        module.fail_json(
            msg=f"{operation} on {subject} met an unexpected {type(error).__name__}: {error}. "
            "This is a defect of the collection; nothing more was done. Please report it with the traceback.",
            error_kind="defect",
            exception=traceback.format_exc(),
            maintenance_record=_timed(outcome, started, host),
        )
    result = {
        **outcome.returned,
        "changed": outcome.is_change,
        "maintenance_record": _timed(outcome, started, host),
    }
    if module._diff and (outcome.before or outcome.after):
        result["diff"] = {"before": dict(outcome.before), "after": dict(outcome.after)}
    if outcome.status == "failed":
        module.fail_json(msg=outcome.summary, **result)
    module.exit_json(**result)


def _timed(outcome: Outcome, started: t.Any, host: Host) -> dict[str, t.Any]:
    return {**outcome.record(), "started": started.isoformat(), "finished": host.now().isoformat()}
