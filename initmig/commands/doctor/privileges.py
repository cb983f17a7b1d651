"""Decides which privileges a role lacks, and which statement by which role grants them."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import (
    SUPERUSER,
    Check,
    or_superuser,
    refused_check,
    superuser_or_admin,
)
from initmig.commands.doctor.facts import Extension, RelationAccess, Schema
from initmig.core.errors import PlanError
from initmig.sql.requirements import Creates, Fills, Obscures, Requires, Uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Level
    from initmig.commands.doctor.facts import MigrationRole, Server
    from initmig.core.errors import Place, Problem
    from initmig.sql.missing import Missing
    from initmig.sql.requirements import Privilege, StatedRequirement


def check_role(server: Server, migration_role: MigrationRole) -> Check:
    """The roles that log in and run the migrations."""
    if migration_role.name == server.login:
        return Check("role", "ok", migration_role.name)
    return Check(
        "role", "ok", f"logs in as {server.login}, runs migrations as {migration_role.name}"
    )


def refused_role(server: Server, role: str, problem: Problem) -> Check:
    """The check for a login that cannot switch to *role*."""
    refused = refused_check("role", problem)
    if not problem.server.lacks_privilege:
        return refused._replace(hint="create the role, or correct --role")
    options = " WITH SET TRUE" if server.major >= 16 else ""
    return refused._replace(
        statement=f"GRANT {role} TO {server.login}{options};", by=superuser_or_admin(role), hint=""
    )


def check_schemas(
    schemas: Sequence[Schema], migration_role: MigrationRole, history: Schema
) -> Iterator[Check]:
    """Check USAGE on the *schemas* of the search path, in its order, and on the *history* schema.

    The role needs USAGE on the history schema and on at least one schema of the path.
    """
    default_schema = default_schema_of(schemas)
    if default_schema:
        yield Check("schema", "ok", f"new objects go to {default_schema.name}")
    elif not schemas:
        yield Check("schema", "failure", "the search path is empty", hint="set --schema")
    unusable = list(takewhile(lambda schema: not schema.has_usage, schemas))
    if not history.has_usage and history.name and history not in unusable:
        unusable.append(history)
    for schema in unusable:
        found = f"{migration_role.name} lacks USAGE on the schema {schema.name}"
        if not schema.owner:
            found = f"the schema {schema.name} does not exist"
        level: Level = "warning" if default_schema and schema != history else "failure"
        yield Check("schema", level, found, *_granting_usage(schema, migration_role))


def default_schema_of(schemas: Iterable[Schema]) -> Schema | None:
    """The schema where PostgreSQL creates an object whose name has no schema."""
    return next((schema for schema in schemas if schema.has_usage), None)


def _granting_usage(schema: Schema, migration_role: MigrationRole) -> tuple[str, str]:
    if schema.owner:
        statement = f"GRANT USAGE, CREATE ON SCHEMA {schema.name} TO {migration_role.name};"
        return statement, or_superuser(schema.owner)
    if migration_role.can_create_in_database:
        return f"CREATE SCHEMA {schema.name};", migration_role.name
    return f"CREATE SCHEMA {schema.name} AUTHORIZATION {migration_role.name};", SUPERUSER


def refused_table(
    schema: Schema, migration_role: MigrationRole, verb: str, problem: Problem
) -> Check:
    """The check for a role that cannot *verb* its own table in the schema."""
    refused = refused_check("table", problem)
    if refused.level == "failure":
        refused = refused._replace(
            found=f"{migration_role.name} cannot {verb} a table in {schema.name}: {refused.found}"
        )
    if schema.has_create:
        return refused
    return refused._replace(
        statement=f"GRANT CREATE ON SCHEMA {schema.name} TO {migration_role.name};",
        by=or_superuser(schema.owner),
        hint="",
    )


def refused_history(
    tables: Sequence[RelationAccess], migration_role: MigrationRole, problem: Problem
) -> Check:
    """The check for a role that cannot write the history; *tables* are the existing ones."""
    refused = refused_check("history", problem)
    if not problem.server.lacks_privilege or not tables:
        return refused
    names = ", ".join(table.name for table in tables)
    owners = " and ".join(sorted({table.owner for table in tables}))
    return refused._replace(
        statement=f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {migration_role.name};",
        by=or_superuser(owners),
        hint="",
    )


def untrusted_history(found: str, statement: str) -> Check:
    """The check for an untrusted history table; *statement* removes the reason."""
    return Check(
        "history",
        "failure",
        found,
        statement,
        SUPERUSER if statement else "",
        "" if statement else "remove it, or name another schema with --history-schema",
        exit_code=PlanError.exit_code,
    )


# --- pending migrations ---


def check_requirement(
    stated: StatedRequirement,
    known: RelationAccess | Schema | Extension | None,
    migration_role: MigrationRole,
    server: Server,
) -> Iterator[Check]:
    """Check one need of a statement; *known* is the object that it names, if that exists."""
    match stated.requirement, known:
        case Uses() as need, RelationAccess() as relation:
            yield from _check_use(stated.place, need, relation, migration_role, server)
        case Fills(), Schema() as schema if not (schema.has_usage and schema.has_create):
            yield _lacks(
                f"{stated.place} creates an object in {schema.name}, but {migration_role.name}"
                f" lacks {_missing_privileges(schema)} on this schema",
                *_granting_usage(schema, migration_role),
            )
        case Creates() as need, (Extension() | None) as extension:
            what = f"{stated.place} creates the {need.what} {need.name}"
            yield from _check_creation(what, need, extension, migration_role, server)
        case Requires(what, major), _ if server.major < major:
            yield Check(
                "pending",
                "failure",
                f"{stated.place}: {what} needs PostgreSQL {major}, but the server runs"
                f" {server.version}",
                hint="upgrade the server, or rewrite the statement",
            )
        case Obscures(setting), _:
            yield Check(
                "pending",
                "warning",
                f"{stated.place} sets {setting}, so not all privileges that the rest of the file"
                " needs are checked",
                hint="test the migration on a copy of the database",
            )


def _missing_privileges(schema: Schema) -> str:
    has = {"USAGE": schema.has_usage, "CREATE": schema.has_create}
    return " and ".join(each for each in has if not has[each])


def _check_use(
    place: Place,
    need: Uses,
    relation: RelationAccess,
    migration_role: MigrationRole,
    server: Server,
) -> Iterator[Check]:
    what, role = f"{place} {need.action} {relation.name}", migration_role.name
    schema_by = or_superuser(relation.schema_owner)
    if not relation.has_schema_usage:
        statement = f"GRANT USAGE ON SCHEMA {relation.schema} TO {role};"
        found = f"{what}, but {role} lacks USAGE on the schema {relation.schema}"
        yield _lacks(found, statement, schema_by)
    if need.privilege not in _OWNER_PRIVILEGES and not relation.has_privilege:
        statement = f"GRANT {need.privilege} ON {relation.name} TO {role};"
        found = f"{what}, but {role} lacks {need.privilege} on it"
        yield _lacks(found, statement, or_superuser(relation.owner))
    if need.privilege in _OWNER_PRIVILEGES and not _is_owner(relation, need.privilege):
        found = f"{what}, which is owned by {relation.owner}"
        yield _lacks(found, *_granting_ownership(relation, role, server))
    if need.privilege == "index" and not relation.has_schema_create:
        statement = f"GRANT CREATE ON SCHEMA {relation.schema} TO {role};"
        found = f"{what}, but {role} lacks CREATE on the schema {relation.schema}"
        yield _lacks(found, statement, schema_by)


_OWNER_PRIVILEGES: tuple[Privilege, ...] = ("owner", "drop", "index")


def _is_owner(relation: RelationAccess, privilege: Privilege) -> bool:
    return relation.is_owner or (privilege == "drop" and relation.is_schema_owner)


def _granting_ownership(
    relation: RelationAccess, role: str, server: Server
) -> tuple[str, str, str]:
    """The statement that grants the owner's privileges, who has to run it, and a hint.

    The owner changes only if it is a superuser, because membership in that role would grant every
    privilege. Otherwise it stays: it may be the application, which would lose its privileges.
    https://www.postgresql.org/docs/current/role-membership.html
    """
    if relation.owner_is_superuser:
        return f"ALTER TABLE {relation.name} OWNER TO {role};", SUPERUSER, ""
    hint = f"or run with --role={relation.owner}" if relation.can_become_owner else ""
    if server.major >= 16:
        statement = f"GRANT {relation.owner} TO {role} WITH INHERIT TRUE;"
    elif relation.can_become_owner:
        return f"ALTER ROLE {role} INHERIT;", SUPERUSER, hint
    else:
        statement = f"GRANT {relation.owner} TO {role};"
    return statement, superuser_or_admin(relation.owner), hint


def _check_creation(
    what: str,
    need: Creates,
    extension: Extension | None,
    migration_role: MigrationRole,
    server: Server,
) -> Iterator[Check]:
    role = migration_role.name
    match need.what:
        case "database" if not migration_role.can_create_databases:
            yield _lacks(
                f"{what}, but {role} lacks CREATEDB", f"ALTER ROLE {role} CREATEDB;", SUPERUSER
            )
        case "role" if not migration_role.can_create_roles:
            yield _lacks(
                f"{what}, but {role} lacks CREATEROLE", f"ALTER ROLE {role} CREATEROLE;", SUPERUSER
            )
        case "schema" if not migration_role.can_create_in_database:
            yield _lacks_database_create(what, migration_role, server)
        case "extension" if extension is None or not extension.available:
            yield Check(
                "pending",
                "failure",
                f"{what}, which is not available on the server",
                hint="install the extension's package on the database server",
            )
        case "extension" if extension and _needs_superuser(extension, migration_role):
            yield _lacks(
                f"{what}, which only a superuser can create",
                f"CREATE EXTENSION {extension.name};",
                SUPERUSER,
                hint="then write IF NOT EXISTS in the migration",
            )
        case "extension" if extension and not (
            extension.installed or migration_role.can_create_in_database
        ):
            yield _lacks_database_create(what, migration_role, server)


def _needs_superuser(extension: Extension, migration_role: MigrationRole) -> bool:
    """Whether only a superuser can create *extension*, and it is not installed yet.

    https://www.postgresql.org/docs/current/sql-createextension.html
    """
    needs_superuser = extension.superuser and not extension.trusted
    return needs_superuser and not (extension.installed or migration_role.is_superuser)


def _lacks_database_create(what: str, migration_role: MigrationRole, server: Server) -> Check:
    return _lacks(
        f"{what}, but {migration_role.name} lacks CREATE on the database {server.database}",
        f"GRANT CREATE ON DATABASE {server.database} TO {migration_role.name};",
        or_superuser(server.database_owner),
    )


def _lacks(found: str, statement: str, by: str, hint: str = "") -> Check:
    return Check("pending", "failure", found, statement, by, hint)


def missing_table(missing: Missing) -> Check:
    """The check for a table that does not exist when a statement uses it."""
    found = f"{missing.place} uses {missing.name}, which does not exist and is not created earlier"
    hint = f"did you mean {' or '.join(missing.nearest)}?" if missing.nearest else ""
    if missing.removed_at:
        found = (
            f"{missing.place} uses {missing.name}, which no longer exists after"
            f" {missing.removed_at}"
        )
        hint = ""
    return Check("pending", "failure", found, hint=hint or "fix the migration")


def unread_statement(path: str, reason: str) -> Check:
    """The warning that PostgreSQL's parser could not read part of a file, for this *reason*."""
    return Check(
        "pending",
        "warning",
        f"not all privileges that {path} needs are checked: PostgreSQL 17's parser cannot read"
        f" {reason}",
        hint="ignore this if the syntax is newer and your server supports it",
    )


def no_missing_privileges(python: Sequence[str]) -> Check:
    """The check if nothing is missing; the migrations with these ids call *python* functions."""
    words = f"; Python functions are not checked: {', '.join(python)}" if python else ""
    return Check("pending", "ok", f"no missing privileges found for the pending migrations{words}")
