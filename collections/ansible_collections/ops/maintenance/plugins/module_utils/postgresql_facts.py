# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a PostgreSQL database the one it is: its properties, privileges and settings, its objects and rows."""

from __future__ import annotations

import typing as t

from .errors import MaintenanceError
from .postgresql import Session, StatementError, extension_schema, major_version
from .postgresql_dump import shown_name, split_name
from .record import Json

_LISTS = (
    *("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries"),
    *("temp_tablespaces", "unix_socket_directories"),
)
_PROVIDERS = {"i": "icu", "b": "builtin", "c": "libc"}
_NOT_OURS = "nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'"
_NO_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend WHERE classid = {classid}::regclass AND objid = {oid} AND deptype = 'e')"


def properties(session: Session, database: str) -> dict[str, Json]:
    """Return all that belongs to a database but lies outside it; empty when there is no such database."""
    major = major_version(session)
    locale = "NULL::text" if major < 15 else "daticulocale" if major < 17 else "datlocale"
    rules = "NULL::text" if major < 16 else "daticurules"
    provider = "'c'" if major < 15 else "datlocprovider::text"
    statement = (
        "SELECT d.oid::bigint AS oid, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,"
        " datctype AS ctype, datconnlimit AS connection_limit, datistemplate AS is_template, datallowconn AS allows_connections,"
        " spcname AS tablespace, shobj_description(d.oid, 'pg_database') AS comment, datacl IS NULL AS has_default_acl,"
        " {locale} AS locale, {rules} AS icu_rules, {provider} AS provider"
        " FROM pg_database d JOIN pg_tablespace s ON s.oid = dattablespace WHERE datname = %s"
    )
    found = session.rows(statement.format(locale=locale, rules=rules, provider=provider), [database])
    if not found:
        return {}
    known = dict(found[0])
    known["acl"] = None if known.pop("has_default_acl") else _acl(session, known["oid"])
    known["settings"] = _settings(session, known["oid"])
    return known


def _acl(session: Session, oid: int) -> list[list[Json]]:
    statement = (
        "SELECT CASE WHEN grantee = 0 THEN '' ELSE pg_get_userbyid(grantee) END AS grantee, privilege_type, is_grantable"
        " FROM pg_database, aclexplode(datacl) WHERE pg_database.oid = %s ORDER BY 1, 2"
    )
    return [[row["grantee"], row["privilege_type"], row["is_grantable"]] for row in session.rows(statement, [oid])]


def _settings(session: Session, oid: int) -> list[list[str]]:
    """Return role (empty for all), name and value of each setting that is given for a database."""
    statement = (
        "SELECT CASE WHEN setrole = 0 THEN '' ELSE pg_get_userbyid(setrole) END AS role, unnest(setconfig) AS setting"
        " FROM pg_db_role_setting WHERE setdatabase = %s ORDER BY 1, 2"
    )
    return [[row["role"], *row["setting"].split("=", 1)] for row in session.rows(statement, [oid])]


def roles_of(known: t.Mapping[str, Json]) -> set[str]:
    """Return the roles that a database's properties refer to."""
    grantees = {grantee for grantee, _privilege, _option in known["acl"] or ()}
    return ({known["owner"]} | grantees | {role for role, _name, _value in known["settings"]}) - {""}


def missing_roles(session: Session, known: t.Mapping[str, Json]) -> list[str]:
    """Return the roles that a database's properties refer to and that do not exist any more."""
    wanted = sorted(roles_of(known))
    present = {row["rolname"] for row in session.rows("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [wanted])}
    return [role for role in wanted if role not in present]


def create(session: Session, name: str, known: t.Mapping[str, Json]) -> None:
    """Create an empty database with the encoding, locale, tablespace and owner of another."""
    text = session.literal
    clauses = [
        f"TEMPLATE template0 OWNER {session.identifier(known['owner'])} ENCODING {text(known['encoding'])}",
        f"LC_COLLATE {text(known['collate'])} LC_CTYPE {text(known['ctype'])} TABLESPACE {session.identifier(known['tablespace'])}",
    ]
    if known["provider"] != "c":
        kind = _PROVIDERS[known["provider"]]
        clauses.append(f"LOCALE_PROVIDER {kind} {kind.upper()}_LOCALE {text(known['locale'])}")
        if known["icu_rules"]:
            clauses.append(f"ICU_RULES {text(known['icu_rules'])}")
    session.execute(f"CREATE DATABASE {session.identifier(name)} {' '.join(clauses)}")


def apply(session: Session, name: str, known: t.Mapping[str, Json]) -> None:
    """Give a new database the privileges, settings, comment and limits of another, as one transaction."""
    database = session.identifier(name)
    with session.transaction():
        if known["acl"] is not None:
            session.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, {session.identifier(known['owner'])}")
        for grantee, privilege, grantable in known["acl"] or ():
            to = session.identifier(grantee) if grantee else "PUBLIC"
            session.execute(f"GRANT {_privilege(privilege)} ON DATABASE {database} TO {to}{' WITH GRANT OPTION' if grantable else ''}")
        for role, setting, value in known["settings"]:
            who = f"ROLE {session.identifier(role)} IN DATABASE {database}" if role else f"DATABASE {database}"
            session.execute(f"ALTER {who} SET {_setting(session, setting)} TO {_value(session, setting, value)}")
        session.execute(f"COMMENT ON DATABASE {database} IS {session.literal(known['comment'])}")
        session.execute(f"ALTER DATABASE {database} CONNECTION LIMIT {int(known['connection_limit'])}")


def _privilege(name: str) -> str:
    if name not in ("CREATE", "CONNECT", "TEMPORARY"):
        raise MaintenanceError(f"A database has the privilege {name!r}, which is not known here; grant it by hand.")
    return name


def _setting(session: Session, name: str) -> str:
    return ".".join(session.identifier(part) for part in name.split("."))


def _value(session: Session, name: str, value: str) -> str:
    """Write a setting's value; PostgreSQL keeps a list as quoted names, which have to be given one by one."""
    if name.lower() not in _LISTS:
        return session.literal(value)
    items = [item.strip() for item in _split_list(value)]
    return ", ".join(session.literal(item) for item in items) or "''"


def _split_list(value: str) -> list[str]:
    items: list[str] = []
    item, at, quoted = "", 0, False
    while at < len(value):
        letter = value[at]
        if letter == '"' and quoted and value[at : at + 2] == '""':
            item, at = item + '"', at + 1
        elif letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            items, item = [*items, item], ""
        else:
            item += letter
        at += 1
    return [*items, item] if value else []


def differences(wanted: t.Mapping[str, Json], now: t.Mapping[str, Json]) -> list[str]:
    """Name the properties of a database that are not as they were."""
    names = ("owner", "encoding", "collate", "ctype", "acl", "settings", "comment", "connection_limit", "tablespace")
    return [name for name in names if wanted[name] != now.get(name)]


# What lies inside


def objects(session: Session) -> dict[str, int]:
    """Count what a dump carries, without what extensions bring along and without what a dump leaves out (invalid indexes)."""
    of_class = _NO_EXTENSION.format(classid="'pg_class'", oid="c.oid")
    of_proc = _NO_EXTENSION.format(classid="'pg_proc'", oid="p.oid")
    relations = f"FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {_NOT_OURS} AND {of_class}"
    return dict(
        session.rows(
            f"SELECT (SELECT count(*) {relations} AND relkind IN ('r', 'p', 'f')) AS tables,"  # noqa: S608 - no input in it
            f" (SELECT count(*) {relations} AND relkind IN ('v', 'm')) AS views,"
            f" (SELECT count(*) {relations} AND relkind = 'S') AS sequences,"
            f" (SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid IN (SELECT c.oid {relations})) AS indexes,"
            " (SELECT count(*) FROM pg_constraint WHERE contype IN ('c', 'f', 'p', 'u', 'x')"
            f" AND conrelid IN (SELECT c.oid {relations})) AS constraints,"
            f" (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN (SELECT c.oid {relations})) AS triggers,"
            f" (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {_NOT_OURS} AND {of_proc}) AS routines"
        )[0]
    )


def invalid_indexes(session: Session) -> list[str]:
    """Name the indexes that PostgreSQL does not use because they were not built to the end."""
    statement = (
        "SELECT nspname, relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE NOT indisvalid ORDER BY 1, 2"
    )
    return [shown_name(row["nspname"], row["relname"]) for row in session.rows(statement)]


def table_of(session: Session, declared: str) -> tuple[str, str] | None:
    """Return schema and name of a declared table (without a schema: in ``public``), None when there is none."""
    parts = split_name(declared)
    schema, name = parts if len(parts) == 2 else ("public", parts[0] if len(parts) == 1 else declared)
    statement = (
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s"
        " AND relkind IN ('r', 'p', 'm')"
    )
    return (schema, name) if session.value(statement, [schema, name]) else None


def counts(session: Session, tables: t.Iterable[tuple[str, str]], *, only: bool = False) -> dict[str, int]:
    """Count the rows of tables; ``only`` leaves out what tables that inherit hold, as a dump lists them."""
    word = "ONLY " if only else ""
    return {
        shown_name(*table): int(session.value(f"SELECT count(*) FROM {word}{session.identifier(*table)}"))  # noqa: S608 - quoted
        for table in tables
    }


def extension_tables(session: Session) -> set[str]:
    """Name the tables that extensions own; of those a dump holds only a part of the rows."""
    statement = (
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'"
    )
    return {shown_name(row["nspname"], row["relname"]) for row in session.rows(statement)}


def row_problems(session: Session, wanted: t.Mapping[str, int], *, at_least: bool = False) -> list[str]:
    """Compare the rows of tables with what a dump holds, read from the tables themselves and not from an index.

    :param at_least: more rows are no problem.
    """
    for way in ("indexscan", "indexonlyscan", "bitmapscan"):
        session.set(f"enable_{way}", "off")
    extensions = extension_tables(session)
    problems = []
    for table, count in wanted.items():
        parts = split_name(table)
        try:
            now = counts(session, [(parts[0], parts[1])], only=True)[table]
        except StatementError as error:
            problems.append(f"{table}: {error}")
            continue
        if now < count or (now > count and not at_least and table not in extensions):
            problems.append(f"{table} has {now} row(s), expected {count}")
    return problems


def has_amcheck(session: Session) -> bool:
    """Whether the extension that compares indexes with their tables is installed in this database."""
    return bool(extension_schema(session, "amcheck"))


def damage(session: Session) -> list[str]:
    """Compare every B-tree index with its table through amcheck, where it is installed; the first damage is enough."""
    schema = extension_schema(session, "amcheck")
    if not schema:
        return []
    statement = (
        "SELECT {function}(c.oid::regclass, true) FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam"
        " WHERE amname = 'btree' AND relkind = 'i' AND relpersistence = 'p' AND indisvalid AND indisready"
    )
    try:
        session.rows(statement.format(function=session.identifier(schema, "bt_index_check")))
    except StatementError as error:
        return [str(error)]
    return []
