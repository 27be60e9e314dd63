# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A question to dnf's own library, answered in the interpreter that dnf runs in: JSON on stdin, JSON on stdout.

That interpreter may be older than the one that runs the modules (3.6 on RHEL 8), so nothing newer is used here, and nothing
of this collection. Packages are lists of name, architecture and ``epoch:version-release``. It reads; it never installs.
"""

import json
import os
import sys
import typing as t

if t.TYPE_CHECKING:
    Question = t.Dict[str, t.Any]  # noqa: UP006


def ask(question: "Question") -> "Question":
    """Answer with what is pending, or what one of :data:`_QUESTIONS` asks for; ``problem`` says why dnf could not."""
    import dnf  # type: ignore[import-not-found]
    import hawkey  # type: ignore[import-not-found]

    base = dnf.Base()
    try:
        asked = next((word for word in _QUESTIONS if word in question), "")
        enabled = _load(base, question["conf"], asked not in _INSTALLED_ONLY)
        return _QUESTIONS[asked](base, question[asked]) if asked else _pending(base, enabled)
    except (dnf.exceptions.Error, hawkey.Exception, OSError, RuntimeError) as error:
        return {"problem": str(error)}
    finally:
        base.close()


def _load(base: "t.Any", conf: "Question", available: bool) -> "list[str]":
    base.conf.read()
    for name, value in conf.items():
        setattr(base.conf, name, value)
    variables = base.conf.substitutions
    variables.update_from_etc(base.conf.installroot)
    variables.update({name: "" for name, value in variables.items() if value is None})  # no release outside the family
    base.init_plugins()
    base.pre_configure_plugins()
    base.read_all_repos()
    base.configure_plugins()
    enabled = sorted(repo.id for repo in base.repos.iter_enabled())
    if available:
        base.fill_sack_from_repos_in_cache()
    else:
        base.fill_sack(load_system_repo=True, load_available_repos=False)
    return enabled


def _pending(base: "t.Any", enabled: "list[str]") -> "Question":
    import hawkey

    # Excludes and version locks hide an update from every ordinary query: that is a hold, and a hold is told.
    everything = base.sack.query(flags=hawkey.IGNORE_REGULAR_EXCLUDES)
    allowed = {_nevra(package) for package in base.sack.query().upgrades()}
    loaded = {repo.id: repo for repo in base.repos.iter_enabled()}
    return {
        "repos": [_repo(name, loaded.get(name)) for name in enabled],
        "upgrades": [
            {"package": _nevra(package), "repo": package.reponame, "allowed": _nevra(package) in allowed}
            for package in everything.upgrades()
        ],
        "advisories": [_advisory(base, found) for found in everything.installed().latest().get_advisory_pkgs(hawkey.GT)],
    }


def _repo(name: str, repo: "t.Any") -> "Question":
    primary = repo.get_metadata_path("primary") if repo else ""
    return {
        "id": name,
        "as_of": os.stat(primary).st_mtime if primary else None,
        "advisories": bool(repo and repo.get_metadata_path("updateinfo")),
    }


def _advisory(base: "t.Any", found: "t.Any") -> "Question":
    import hawkey

    advisory = found.get_advisory(base.sack)
    return {
        "package": _nevra(found),
        "id": advisory.id,
        "security": advisory.type == hawkey.ADVISORY_SECURITY,
        "severity": (advisory.severity or "").lower(),
        "issued": advisory.updated.isoformat() + "+00:00" if advisory.updated else "",
    }


def _rehearse(base: "t.Any", wanted: "list[list[str]]") -> "Question":
    for name, arch, evr in wanted:
        offered = list(base.sack.query().available().filter(name=name, evr=evr, arch=[arch, "noarch"]))
        if not offered:
            return {"problem": f"{name}-{evr} is offered by no repository, or is excluded"}
        base.package_install(offered[0])
    base.resolve(allow_erasing=False)
    incoming, outgoing = base.transaction.install_set, base.transaction.remove_set
    replaced = {package.name: package for package in outgoing}
    names = {package.name for package in incoming}
    return {
        "install": [
            {"package": _nevra(package), "repo": package.reponame, "installed": _evr(replaced.get(package.name))} for package in incoming
        ],
        "remove": [_nevra(package) for package in outgoing if package.name not in names],
    }


def _weigh(base: "t.Any", specs: "list[str]") -> "Question":
    """Say how large everything is that installing these takes, and how much of it is not in the cache yet."""
    for spec in specs:
        base.install(spec)
    base.resolve(allow_erasing=False)
    replaced = {package.name: package for package in base.transaction.remove_set}
    return {"weights": [_weight(package, replaced.get(package.name)) for package in base.transaction.install_set]}


def _weight(package: "t.Any", replaced: "t.Any") -> "Question":
    # What a repository on the host itself has is installed from where it is.
    return {
        "name": package.name,
        "fetch": 0 if os.path.isfile(package.localPkg()) and package.verifyLocalPkg() else package.downloadsize,
        "unpacked": package.installsize,
        "replaced": replaced.installsize if replaced else 0,
    }


def _removable(base: "t.Any", _asked: "t.Any") -> "Question":
    """Say what nothing needs any more, and of what several versions may be there at once."""
    several = [_nevra(package) for package in base._get_installonly_query(base.sack.query().installed())]
    base.autoremove()
    base.resolve(allow_erasing=True)
    return {
        "unneeded": [_nevra(package) for package in base.transaction.remove_set],
        "several": several,
        "limit": base.conf.installonly_limit,
    }


def _rehearse_removal(base: "t.Any", names: "list[list[str]]") -> "Question":
    base.conf.clean_requirements_on_remove = False
    for name, arch, evr in names:
        for package in base.sack.query().installed().filter(name=name, arch=arch, evr=evr):
            base.package_remove(package)
    base.resolve(allow_erasing=True)
    return {"remove": [_nevra(package) for package in base.transaction.remove_set]}


def _rehearse_completion(base: "t.Any", asked: "t.Dict[str, t.Any]") -> "Question":  # noqa: UP006
    """Say what removing older versions and installing others in the same transaction would do."""
    for name, arch, evr in asked["remove"]:
        for package in base.sack.query().installed().filter(name=name, arch=arch, evr=evr):
            base.package_remove(package)
    for name, arch, evr in asked["upgrade"]:
        for package in list(base.sack.query().available().filter(name=name, arch=arch, evr=evr))[:1]:
            base.package_upgrade(package)
    base.resolve(allow_erasing=True)
    return {
        "install": [_nevra(package) for package in base.transaction.install_set],
        "remove": [_nevra(package) for package in base.transaction.remove_set],
    }


def _offered(base: "t.Any", wanted: "list[list[str]]") -> "Question":
    """Say which of these a repository has, so that they could be installed again."""
    query = base.sack.query().available()
    return {"offered": [_nevra(package) for name, arch, evr in wanted for package in list(query.filter(name=name, arch=arch, evr=evr))[:1]]}


def _nevra(package: "t.Any") -> "t.Tuple[str, str, str]":  # noqa: UP006
    return (package.name, package.arch, package.evr)


def _evr(package: "t.Any") -> str:
    return str(package.evr) if package else ""


_QUESTIONS: "t.Dict[str, t.Callable[[t.Any, t.Any], Question]]" = {  # noqa: UP006
    "install": _rehearse,
    "specs": _weigh,
    "removable": _removable,
    "remove": _rehearse_removal,
    "complete": _rehearse_completion,
    "offered": _offered,
}
_INSTALLED_ONLY = ("removable", "remove")


if __name__ == "__main__":
    json.dump(ask(json.load(sys.stdin)), sys.stdout)
