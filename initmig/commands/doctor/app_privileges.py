"""Decides which privileges the application's role lacks, and which statements grant them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import (
    SUPERUSER,
    Check,
    check_password_expiry,
    or_superuser,
    refused_check,
    superuser_or_alterer,
)
from initmig.core.durations import counted
from initmig.core.quoting import USER_SCHEMA, split_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.facts import (
        AppFunction,
        AppObject,
        AppRole,
        AppSchema,
        AppView,
        MigrationRole,
        Schema,
        Server,
    )
    from initmig.core.errors import Problem

ROLE, TABLES, NEW_TABLES = "app-role", "app-tables", "app-new-tables"

_SHOWN_NAMES = 3
_NAMES_PER_STATEMENT = 100
_VERBS = {
    "SELECT": "select from",
    "INSERT": "insert into",
    "UPDATE": "update",
    "DELETE": "delete from",
}


def missing_role(role: str) -> Check:
    """The check for a *role*, quoted, that does not exist."""
    return Check(
        ROLE,
        "failure",
        f"the role {role} does not exist",
        f"CREATE ROLE {role} LOGIN;",
        f"{SUPERUSER}, or a role with CREATEROLE",
        hint="add a password; or correct --app-role",
    )


def check_role(
    app: AppRole, server: Server, default_schema: Schema, *, tried: bool
) -> Iterator[Check]:
    """Check that the application can log in, write, and find new tables in *default_schema*."""
    if app.is_superuser:
        found = f"{app.name} is a superuser, so it can do everything"
        hint = "give the application a role with fewer privileges"
        yield Check(ROLE, "warning", found, hint=hint)
    elif app.runs_migrations:
        hint = "give the application a role that cannot alter tables"
        yield Check(
            ROLE, "warning", f"{app.name} is also the role that runs the migrations", hint=hint
        )
    else:
        how = "with SET ROLE" if tried else "in the catalog, because SET ROLE is not allowed"
        yield Check(ROLE, "ok", f"{app.name}: privileges checked {how}")
    yield from _check_login(app, server)
    yield from _check_settings(app, server, default_schema)


def _check_login(app: AppRole, server: Server) -> Iterator[Check]:
    alter, by = f"ALTER ROLE {app.name}", superuser_or_alterer(app.name)
    if not (app.can_log_in or app.has_login_member):
        yield _failed(ROLE, f"{app.name} cannot log in (NOLOGIN)", f"{alter} LOGIN;", by)
    if app.connection_limit == 0:
        found = f"{app.name} cannot open a connection (CONNECTION LIMIT 0)"
        yield _failed(ROLE, found, f"{alter} CONNECTION LIMIT -1;", by)
    if not app.can_connect:
        yield _failed(
            ROLE,
            f"{app.name} lacks CONNECT on the database {server.database}",
            f"GRANT CONNECT ON DATABASE {server.database} TO {app.name};",
            or_superuser(server.database_owner),
        )
    if app.password_expires_seconds <= 0:
        found = f"the password of {app.name} has expired (VALID UNTIL)"
        yield _failed(ROLE, found, f"{alter} VALID UNTIL 'infinity';", by)
    yield from check_password_expiry(ROLE, app.name, app.password_expires_seconds)


def _check_settings(app: AppRole, server: Server, default_schema: Schema) -> Iterator[Check]:
    alter, by = f"ALTER ROLE {app.name} IN DATABASE {server.database} SET", or_superuser(app.name)
    if app.read_only:
        found = f"transactions of {app.name} are read-only (default_transaction_read_only)"
        yield _failed(ROLE, found, f"{alter} default_transaction_read_only = off;", by)
    if default_schema.key not in _schemas_of(app):
        yield Check(
            ROLE,
            "warning",
            f"{app.name} cannot find tables in {default_schema.name} unless queries name the"
            f" schema: its search_path is {app.search_path}",
            f"{alter} search_path = {default_schema.name};",
            by,
            hint="or set it where the application connects, or name the schema in its queries",
        )


def _schemas_of(app: AppRole) -> Sequence[str]:
    try:
        names = split_names(app.search_path)
    except ValueError:  # an empty name: the search path is empty
        return ()
    return [app.switches_to or app.key if name == USER_SCHEMA else name for name in names]


def check_objects(objects: Sequence[AppObject], role: str) -> Iterator[Check]:
    """Check the privileges of *role*, with one statement for *objects* that lack the same ones."""
    incomplete = [each for each in objects if each.lacking]
    for (kind, owner, lacking, partial), group in _grouped(incomplete):
        on = "SEQUENCE " if kind == "sequence" else ""
        for names in _batches([each.name for each in group]):
            found = f"{role} lacks {lacking} on {_shown(names)}"
            found += f" ({partial}: granted on some columns only)" if partial else ""
            statement = f"GRANT {lacking} ON {on}{', '.join(names)} TO {role};"
            yield _failed(TABLES, found, statement, or_superuser(owner))


def _grouped(
    objects: Iterable[AppObject],
) -> Iterable[tuple[tuple[str, str, str, str], Iterable[AppObject]]]:
    def key(each: AppObject) -> tuple[str, str, str, str]:
        # a view takes the same GRANT as a table
        kind = "sequence" if each.kind == "sequence" else "table"
        return kind, each.owner, each.lacking, each.partial

    return groupby(sorted(objects, key=lambda each: (*key(each), each.name)), key)


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _NAMES_PER_STATEMENT):
        yield names[start : start + _NAMES_PER_STATEMENT]


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown = ", ".join(names[:_SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def check_row_security(objects: Iterable[AppObject], role: str) -> Iterator[Check]:
    """Report tables whose row level security hides every row from *role*; no GRANT helps."""
    for each in objects:
        if each.hidden:
            hint = f"CREATE POLICY ... ON {each.name} TO {role}, as {or_superuser(each.owner)}"
            verbs = _verbs(each.hidden)
            found = f"row level security on {each.name}: no policy lets {role} {verbs} it"
            yield Check(TABLES, "failure", found, hint=hint)


def _verbs(privileges: str) -> str:
    *others, last = [_VERBS[each] for each in privileges.split(", ")]
    return f"{', '.join(others)} or {last}" if others else last


def check_schemas(schemas: Iterable[AppSchema], role: str) -> Iterator[Check]:
    """Report *schemas* on which *role* lacks USAGE."""
    for each in schemas:
        if not each.has_usage:
            yield _failed(
                TABLES,
                f"{role} lacks USAGE on the schema {each.name}",
                f"GRANT USAGE ON SCHEMA {each.name} TO {role};",
                or_superuser(each.owner),
            )


def check_functions(functions: Iterable[AppFunction], role: str) -> Iterator[Check]:
    """Report *functions* that *role* calls when it uses a table, but cannot execute."""
    for each in functions:
        found = f"{role} lacks EXECUTE on {each.name}, which is called by {each.user}"
        statement = f"GRANT EXECUTE ON ROUTINE {each.name} TO {role};"
        yield _failed(TABLES, found, statement, or_superuser(each.owner))


def check_views(views: Iterable[AppView]) -> Iterator[Check]:
    """Report *views* that fail for every reader."""
    for each in views:
        found = f"the view {each.name} fails: {each.reader} lacks SELECT on {each.table}"
        statement = f"GRANT SELECT ON {each.table} TO {each.reader};"
        yield _failed(TABLES, found, statement, or_superuser(each.table_owner))


def refused_statement(sql: str, role: str, problem: Problem) -> Check:
    """The check for *sql* that the server refused, although the catalog shows the privileges."""
    refused = refused_check(TABLES, problem)
    level = refused.level if problem.server.lacks_privilege else "warning"
    return refused._replace(level=level, found=f"{role} cannot {sql}: {refused.found}")


def usable_objects(objects: Sequence[AppObject], schemas: Sequence[AppSchema]) -> Check:
    """The check if no privilege is missing."""
    names = ", ".join(each.name for each in schemas)
    counts = [
        counted(count, kind)
        for kind in ("table", "view", "sequence")
        if (count := sum(each.kind == kind for each in objects))
    ]
    if not counts:
        return Check(TABLES, "ok", f"no tables yet in {names}")
    return Check(TABLES, "ok", f"can use {', '.join(counts)} in {names}")


def check_new_table(
    schema: AppSchema,
    migration_role: MigrationRole,
    role: str,
    lacking: str,
    *,
    uses_sequence: bool,
) -> Iterator[Check]:
    """Check the privileges of *role* on a new table of the migration role in the *schema*."""
    default = (
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {migration_role.name} IN SCHEMA {schema.name} GRANT"
    )
    origin = f"that {migration_role.name} creates in {schema.name}"
    by = or_superuser(migration_role.name)
    if lacking:
        found = f"{role} lacks {lacking} on new tables {origin}"
        yield _failed(NEW_TABLES, found, f"{default} {lacking} ON TABLES TO {role};", by)
    if not uses_sequence:
        found = f"{role} lacks USAGE on new sequences {origin}"
        yield _failed(NEW_TABLES, found, f"{default} USAGE ON SEQUENCES TO {role};", by)


def usable_new_tables(schemas: Sequence[str], migration_role: MigrationRole) -> Check:
    """The check if the application can use new tables in the *schemas*."""
    if not schemas:
        return Check(
            NEW_TABLES, "warning", f"not checked: {migration_role.name} cannot create a table"
        )
    found = f"can use new tables that {migration_role.name} creates in {', '.join(schemas)}"
    return Check(NEW_TABLES, "ok", found)


def _failed(subject: str, found: str, statement: str, by: str) -> Check:
    return Check(subject, "failure", found, statement, by)
