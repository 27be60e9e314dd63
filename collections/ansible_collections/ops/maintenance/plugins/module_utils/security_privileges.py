# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that give their user more rights than he has: set-user-id, set-group-id, file capabilities, against a baseline."""

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
import typing as t

from . import security_walk
from .errors import MaintenanceError
from .record import Finding
from .security_common import Review, shown, unknown, why_unread
from .security_drift import Change, Question, changes, compared
from .security_files import group_name, user_name

OPTIONS: dict[str, t.Any] = {"privileged_roots": {"type": "list", "elements": "str", "default": []}}
IDS = ("security.privileged_files",)

_CAPABILITIES = """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast net_admin
net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time
sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon
bpf checkpoint_restore
""".split()  # noqa: SIM905 - the kernel's order, as a list of lines it would be a page
_NONE = (errno.ENODATA, errno.ENOTSUP)


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with the declared roots, one sentence each."""
    return [
        f"privileged_roots holds {root!r}, expected an absolute path; write it from the root on."
        for root in params["privileged_roots"]
        if not os.path.isabs(root)
    ]


def look(review: Review) -> list[Finding]:
    """Walk each declared root once."""
    return [_root(review, root) for root in review.params["privileged_roots"]]


def _root(review: Review, root: str) -> Finding:
    unread: list[str] = []
    try:
        found = privileged(root, security_walk.until(review.params), unread)
    except (OSError, MaintenanceError) as error:
        return unknown(IDS[0], shown(root), f"it could not be looked at: {why_unread(error)}", "Correct the path in the inventory.")
    review.count("security.privileged_files", shown(root), len(found))
    question = Question(IDS[0], "security_privileges.json", "privileged file", "privileged files", rank)
    return compared(review, question, root, found, unread)


def privileged(root: str, ends: float, unread: list[str]) -> dict[str, str]:
    """Return path to mode, owner and capabilities of what gives rights."""
    found = {}
    for path, _relative, status in security_walk.below(root, ends, unread):
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
            bits = status.st_mode & (stat.S_ISUID | stat.S_ISGID)
            capabilities = _capabilities_of(path, unread)
            if bits or capabilities:
                owner = f"{user_name(status.st_uid)}:{group_name(status.st_gid)}"
                found[path] = " ".join(filter(None, [f"{stat.S_IMODE(status.st_mode):04o}", owner, capabilities]))
    return found


def _capabilities_of(path: str, unread: list[str]) -> str:
    try:
        return capabilities(os.getxattr(path, "security.capability", follow_symlinks=False))
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno not in _NONE:
            unread.append(f"capabilities of {shown(path)}: {why_unread(error)}")
        return ""


def capabilities(raw: bytes) -> str:
    """Say what the attribute of the kernel holds, as ``getcap`` would: ``cap_net_raw=ep``."""
    try:
        magic, low, inherited_low = struct.unpack_from("<III", raw)
        high, inherited_high = struct.unpack_from("<II", raw, 12) if len(raw) >= 20 else (0, 0)
    except struct.error:
        return f"capabilities of an unknown form ({raw[:20].hex()})"
    permitted, inherited = low | high << 32, inherited_low | inherited_high << 32
    parts = []
    for bits, flags in ((permitted, "ep" if magic & 1 else "p"), (inherited & ~permitted, "i")):
        names = [_name(number) for number in range(64) if bits >> number & 1]
        if names:
            parts.append(f"{','.join(names)}={flags}")
    return " ".join(parts)


def _name(number: int) -> str:
    return f"cap_{_CAPABILITIES[number]}" if number < len(_CAPABILITIES) else f"cap_{number}"


def rank(change: Change) -> str:
    """A new way to become root is critical; another group, or one less, is a warning."""
    mode, owner, *rest = (change.new or "0 none").split()
    gives_root = rest or (int(mode, 8) & stat.S_ISUID and owner.startswith("root:"))
    return "critical" if gives_root else "warning"


def passes_bad_sample(_review: Review) -> str:
    """Plant a set-group-id program; return it when it is not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "planted")
        with open(path, "wb") as sample:
            os.fchmod(sample.fileno(), 0o2755)
        found = privileged(folder, security_walk.until({"integrity_seconds": 10}), [])
        root_shell = Change("planted", "", "4755 root:root")
        return "" if changes({}, found) and rank(root_shell) == "critical" else "a new privileged program as none"
