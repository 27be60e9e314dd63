# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""npm's lock file (``package-lock.json`` of the versions 1, 2 and 3): what is pinned, and where it comes from."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from .errors import MaintenanceError

Json = t.Mapping[str, t.Any]


class Pinned(t.NamedTuple):
    """One package of a lock file.

    :param place: where npm puts it, such as ``node_modules/a/node_modules/b``.
    :param registry: it comes from a registry, so that advisories can name it; not from a repository, a file or an address.
    """

    place: str
    name: str
    version: str
    development: bool = False
    registry: bool = True


@dataclass(frozen=True)
class Lock:
    """The packages of a lock file; links to folders of the project itself are left out."""

    packages: tuple[Pinned, ...]
    linked: frozenset[str] = frozenset()

    @classmethod
    def of(cls, text: str) -> Lock:
        """Read a lock file.

        :raises MaintenanceError: it is none, or is damaged.
        """
        try:
            data = json.loads(text)
            if isinstance(data.get("packages"), dict):
                return cls(*_from_places(data["packages"]))
            if "lockfileVersion" in data and data["lockfileVersion"] == 1:
                return cls(tuple(_from_tree(data.get("dependencies", {}), "")))
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise MaintenanceError(f"the lock file cannot be read ({error}); write it anew with npm install --package-lock-only") from error
        raise MaintenanceError("the lock file has neither packages nor dependencies; write it anew with npm install --package-lock-only")

    def missing(self, wanted: t.Iterable[str]) -> list[str]:
        """Return what is asked for and not pinned at the top."""
        pinned = {package.place[len("node_modules/") :] for package in self.packages} | self.linked
        return sorted(set(wanted) - pinned)


def _from_places(places: Json) -> tuple[tuple[Pinned, ...], frozenset[str]]:
    found, linked = [], set()
    for place, item in places.items():
        inside, last = place.rpartition("node_modules/")[1:]
        if item.get("link"):
            linked.add(last)
        elif inside:  # else a folder of the project itself
            found.append(_pinned(place, str(item.get("name", last)), item))
    return tuple(found), frozenset(linked)


def _from_tree(tree: Json, above: str) -> t.Iterator[Pinned]:
    for name, item in tree.items():
        place = f"{above}node_modules/{name}"
        yield _pinned(place, name, item)
        yield from _from_tree(item.get("dependencies", {}), f"{place}/")


def _pinned(place: str, name: str, item: Json) -> Pinned:
    version, origin = str(item.get("version", "")), str(item.get("resolved", "https:"))
    if version.startswith("npm:"):  # an alias of lock version 1: npm:other@1.2.3
        name, _at, version = version[len("npm:") :].rpartition("@")
    # A tarball of a registry carries the name of its package; a Git or file address, or one of elsewhere, does not.
    registry = version[:1].isdigit() and origin.startswith(("https:", "http:", "registry.")) and (origin == "https:" or "/-/" in origin)
    return Pinned(place, name, version, bool(item.get("dev") or item.get("devOptional")), registry)


def declared_names(text: str, production: bool) -> list[str]:
    """Return the packages that a ``package.json`` asks for and that must be pinned; optional ones need not be.

    :raises MaintenanceError: it is no JSON object.
    """
    try:
        data = json.loads(text)
        kinds = ("dependencies",) if production else ("dependencies", "devDependencies")
        optional = data.get("optionalDependencies", {})
        return sorted(name for kind in kinds for name in data.get(kind, {}) if name not in optional)
    except (ValueError, AttributeError, TypeError) as error:
        raise MaintenanceError(f"package.json cannot be read ({error}); correct it") from error
