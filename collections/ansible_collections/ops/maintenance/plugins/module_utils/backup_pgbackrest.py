# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of pgBackRest: what its info and verify say is parsed, for both end with 0 whatever they found; a backup is restored and started."""

from __future__ import annotations

import os
import re
import shlex
import time
import typing as t

from . import backup_physical as physical
from .backup_adaptor import Around, Climb
from .backup_kinds import Verdict
from .backup_repository import OPTIONS, Json, Ladder, Tool, entry, name_of, problems_of, timed
from .backup_sets import Declared, Listing
from .errors import MaintenanceError
from .judge import human_bytes
from .postgresql_scratch import Cluster, scratch_cluster
from .record import clean

_USER = "postgres"
# Status codes of info: the stanza (or one of its repositories) holds nothing to restore.
_NOTHING = (1, 2, 3)
_BACKUP = re.compile(r"^backup: (\S+), status: ([^,]+), total files checked: (\d+), total valid files: (\d+)")
_ARCHIVE = re.compile(r"^archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)")
_COUNTS = re.compile(r"^missing: (\d+), checksum invalid: (\d+), size invalid: (\d+), other: (\d+)")


class PgBackRest:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = OPTIONS
    needs_root = False

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
        """See :class:`backup_adaptor.Adaptor`."""
        yield from problems_of(declared, needs=("member",))
        yield from physical.problems(declared, params)

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List the backups of the stanza, in all its repositories."""
        listing, stanza = Listing(), _info(_tool(timed(declared, around)), declared)
        for repo in stanza["repo"]:
            code, said = repo["status"]["code"], _first(repo["status"]["message"])
            if code in _NOTHING:
                listing.strange.append(f"repository {repo['key']}: {said}")
            elif code:
                text = f"repository {repo['key']} of stanza {stanza['name']} cannot be looked at: {said}"
                if not stanza["backup"]:
                    raise MaintenanceError(text)
                listing.strange.append(text)
        for backup in stanza["backup"]:
            stamp = backup["timestamp"]
            path = f"{stanza['name']}@{backup['database'].get('repo-key', 1)}::{backup['label']}"
            took = float(stamp["stop"] - stamp["start"])
            listing.backups.append(entry(path, int(backup["info"]["size"]), float(stamp["stop"]), around.zone, took))
        listing.backups.sort(key=lambda item: (item.moment, item.path))
        return listing

    def climb(self, climb: Climb) -> None:
        """See :class:`backup_adaptor.Adaptor`."""
        ladder = Ladder(climb)
        tool, label, key = _tool(ladder.declared), name_of(climb.backup), _key(climb.backup.path)
        with ladder.looking(1):
            stanza = _info(tool, ladder.declared)
            _encryption(ladder, stanza, key)
            ladder.rung(1, judge_info(stanza, label, key, ladder.declared["repository"]["id"]))
        if ladder.wants(2):
            with ladder.looking(2):
                ran = tool.run("verify", f"--repo={key}", "--output=text", "--verbose")
                ladder.rung(2, [Verdict(2, state, text) for state, text in read_verify(ran.stdout, label, ran.rc, tool.why(ran))])
        if ladder.wants(3):
            with ladder.looking(3):
                backup = _backup(stanza, label, key)
                _restored(ladder, tool, label, key, _major(stanza, backup, key))


def _tool(declared: Declared) -> Tool:
    return _Configured("pgbackrest", {**declared, "repository": {**declared["repository"], "os_user": _user(declared)}})


def _user(declared: Declared) -> str:
    return str(declared["repository"]["os_user"] or _USER)


class _Configured(Tool):
    """pgBackRest with its configuration and stanza; it logs to nowhere, and takes locks only below the scratch folder."""

    def __init__(self, name: str, declared: Declared) -> None:
        super().__init__(name, declared)
        repository = declared["repository"]
        self.always = [f"--stanza={repository['member']}", "--log-level-file=off", "--log-level-console=warn"]
        if repository["configuration"]:
            self.always.append(f"--config={repository['configuration']}")
        if declared["root"]:
            self.always.append(f"--repo1-path={declared['root']}")

    def run(self, *args: str, cwd: str = "/", env: t.Mapping[str, str] | None = None) -> t.Any:
        """See :class:`backup_repository.Tool`."""
        return super().run(*self.always, *args, cwd=cwd, env=env)


def _first(text: str) -> str:
    return clean(text.splitlines()[0], 300) if text else "no message"


def _info(tool: Tool, declared: Declared) -> Json:
    ran = tool.run("info", "--output=json")
    if ran.rc != 0:
        raise MaintenanceError(tool.why(ran))
    name = declared["repository"]["member"]
    found = next((stanza for stanza in tool.json_of(ran) if stanza["name"] == name), None)
    if found is None:
        raise MaintenanceError(f"pgbackrest knows no stanza {name!r}; correct repository.member, or the configuration")
    return found


def _key(path: str) -> int:
    return int(path.partition("::")[0].rpartition("@")[2])


def _backup(stanza: Json, label: str, key: int) -> Json:
    for backup in stanza["backup"]:
        if backup["label"] == label and backup["database"].get("repo-key", 1) == key:
            return backup
    raise MaintenanceError(f"the backup {label} is no longer in the repository")


def _major(stanza: Json, backup: Json, key: int) -> int:
    for database in stanza["db"]:
        if database["id"] == backup["database"]["id"] and database.get("repo-key", 1) == key:
            return int(str(database["version"]).partition(".")[0])
    raise MaintenanceError("the stanza does not say the version of PostgreSQL of this backup")


def judge_info(stanza: Json, label: str, key: int, system_identifier: str = "") -> list[Verdict]:
    """Level 1: status of stanza and repositories, errors noted with the backup, write-ahead log from its start to its stop there."""
    backup = _backup(stanza, label, key)
    verdicts = [
        Verdict(1, "critical" if repo["key"] == key else "warning", f"repository {repo['key']}: {_first(repo['status']['message'])}")
        for repo in stanza["repo"]
        if repo["status"]["code"]
    ]
    if stanza["status"]["code"] and not verdicts:
        verdicts.append(Verdict(1, "critical", f"the stanza's status is {stanza['status']['code']}: {_first(stanza['status']['message'])}"))
    if backup.get("error") is not False:
        said = "pages with wrong checksums were copied" if backup.get("error") else "pgbackrest does not say whether there were errors"
        verdicts.append(Verdict(1, "critical" if backup.get("error") else "unknown", f"{label}: {said}"))
    verdicts += _log_gap(stanza, backup, key)
    found = {str(item["system-id"]) for item in stanza["db"] if item["id"] == backup["database"]["id"]}
    if system_identifier and system_identifier not in found:
        verdicts.append(Verdict(1, "critical", f"it is a backup of another cluster: system identifier {', '.join(found)}"))
    return verdicts or [Verdict(1, "ok", f"{backup['type']} backup without errors, its write-ahead log is there")]


def _log_gap(stanza: Json, backup: Json, key: int) -> list[Verdict]:
    start, stop = backup["archive"].get("start"), backup["archive"].get("stop")
    if not start or not stop:
        return [Verdict(1, "critical", "no write-ahead log is noted for it, so it cannot become consistent")]
    for archive in stanza["archive"]:
        if archive["database"]["id"] == backup["database"]["id"] and archive["database"].get("repo-key", 1) == key:
            low, high = archive.get("min"), archive.get("max")
            # Segments of one timeline sort by name; one of another timeline is no gap.
            if low and high and not (low[:8] == start[:8] and low > start) and not (high[:8] == stop[:8] and high < stop):
                return []
            return [Verdict(1, "critical", f"write-ahead log {start} to {stop} is needed, the archive holds {low} to {high}")]
    return [Verdict(1, "critical", f"write-ahead log {start} to {stop} is needed, the archive holds none")]


def read_verify(said: str, label: str, rc: int, why: str) -> list[tuple[str, str]]:
    """Return (state, text) of what ``pgbackrest verify`` said; it ends with 0 even where it found damage."""
    verdicts: list[tuple[str, str]] = []
    state, subject, is_ours = "", "", False
    for line in (line.strip() for line in said.splitlines()):
        backup, archive, counts = _BACKUP.match(line), _ARCHIVE.match(line), _COUNTS.match(line)
        if line.startswith("status:"):
            state = line.partition(":")[2].strip()
        elif line.startswith("No usable"):
            verdicts.append(("critical", line))
        elif backup:
            name, status, checked, valid = backup.groups()
            subject = f"backup {name}"
            sound = status == "valid" and checked == valid and int(checked) > 0
            is_ours = is_ours or name == label
            verdicts.append(
                ("ok" if sound else "critical" if name == label else "warning", f"{subject} is {status}, {valid} of {checked} files valid")
            )
        elif archive:
            name, checked, valid = archive.groups()
            subject = f"archive {name}"
            verdicts.append(("ok" if checked == valid else "critical", f"{subject}: {valid} of {checked} segments valid"))
        elif counts and any(int(count) for count in counts.groups()):
            verdicts.append(("critical" if subject in (f"backup {label}", "") or "archive" in subject else "warning", f"{subject}: {line}"))
    if rc != 0:
        verdicts.append(("critical" if verdicts else "unknown", why))
    elif not is_ours:
        verdicts.append(("critical" if state == "error" else "unknown", f"verify says nothing of the backup {label}"))
    elif state != "ok" and all(found == "ok" for found, _text in verdicts):
        verdicts.append(("critical", f"verify says: status {state or 'unknown'}"))
    return verdicts


def _encryption(ladder: Ladder, stanza: Json, key: int) -> None:
    cipher = next((str(repo.get("cipher", "")) for repo in stanza["repo"] if repo["key"] == key), "")
    is_encrypted = cipher not in ("", "none")
    ladder.encryption("ok" if is_encrypted else "critical", f"the cipher of repository {key} is {cipher or 'not said'}")


def _restored(ladder: Ladder, tool: Tool, label: str, key: int, major: int) -> None:
    climb = ladder.climb
    status = os.statvfs(climb.scratch.path)
    free = status.f_bavail * status.f_frsize
    if climb.backup.size > free:
        raise MaintenanceError(f"{climb.scratch.path} has {human_bytes(free)} to spare, restoring needs {human_bytes(climb.backup.size)}")
    with scratch_cluster(climb.scratch.path, major, tool.os_user) as cluster:
        started = time.monotonic()
        # Tablespaces would go to where the source has them, unless they are told otherwise.
        apart = [f"--pg1-path={cluster.data}", f"--lock-path={cluster.socket}", f"--spool-path={cluster.socket}", f"--repo={key}"]
        ran = tool.run("restore", f"--set={label}", "--type=immediate", f"--tablespace-map-all={cluster.folder}/spaces", *apart)
        climb.restore_seconds = time.monotonic() - started
        if ran.rc != 0:
            climb.say(3, "critical", f"pgbackrest restore: {tool.why(ran)}")
            return
        physical.prove_running(cluster, climb, physical.setting(_restore_command(tool, cluster, key)))


def _restore_command(tool: Tool, cluster: Cluster, key: int) -> str:
    always = t.cast("_Configured", tool).always
    apart = [f"--pg1-path={cluster.data}", f"--lock-path={cluster.socket}", f"--repo={key}"]
    words = [tool.program, *always, "--no-archive-async", *apart, "archive-get"]
    return " ".join(shlex.quote(word).replace("%", "%%") for word in words) + ' %f "%p"'
