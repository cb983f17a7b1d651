"""Decides what a role lacks for what is to be done, and who can give it that."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import SUPERUSER, Check, of_refusal, or_admin, or_superuser
from initmig.commands.doctor.facts import Extension, Found, Schema
from initmig.core.errors import PlanError
from initmig.sql.requirements import Creates, Fills, Obscures, Requires, Uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Level
    from initmig.commands.doctor.facts import Server, Worker
    from initmig.core.errors import Place, Problem
    from initmig.sql.missing import Missing
    from initmig.sql.requirements import Privilege, StatedRequirement


def of_role(server: Server, worker: Worker) -> Check:
    """Who logged in, and who does the work."""
    if worker.name == server.login:
        return Check("role", "ok", worker.name)
    return Check("role", "ok", f"logs in as {server.login}, runs migrations as {worker.name}")


def of_refused_role(server: Server, role: str, problem: Problem) -> Check:
    """Why the user that logged in cannot work as *role*."""
    refused = of_refusal("role", problem)
    if not problem.server.lacks_privilege:
        return refused._replace(hint="create the role, or correct --role")
    options = " WITH SET TRUE" if server.major >= 16 else ""
    return refused._replace(
        statement=f"GRANT {role} TO {server.login}{options};", by=or_admin(role), hint=""
    )


def of_schemas(schemas: Sequence[Schema], worker: Worker, history: Schema) -> Iterator[Check]:
    """Where objects go; *schemas* are those of the search path, in its order.

    Without the one for the *history* nothing can be done.
    """
    home = home_of(schemas)
    if home:
        yield Check("schema", "ok", f"new objects go to {home.name}")
    elif not schemas:
        yield Check("schema", "failure", "the search path is empty", hint="set --schema")
    unusable = list(takewhile(lambda schema: not schema.usable, schemas))
    if not history.usable and history.name and history not in unusable:
        unusable.append(history)
    for schema in unusable:
        found = f"{worker.name} lacks USAGE on the schema {schema.name}"
        if not schema.owner:
            found = f"the schema {schema.name} does not exist"
        level: Level = "warning" if home and schema != history else "failure"
        yield Check("schema", level, found, *_usable(schema, worker))


def home_of(schemas: Iterable[Schema]) -> Schema | None:
    """The one in which objects are made whose name says no schema."""
    return next((schema for schema in schemas if schema.usable), None)


def _usable(schema: Schema, worker: Worker) -> tuple[str, str]:
    if schema.owner:
        statement = f"GRANT USAGE, CREATE ON SCHEMA {schema.name} TO {worker.name};"
        return statement, or_superuser(schema.owner)
    if worker.creates_in_database:
        return f"CREATE SCHEMA {schema.name};", worker.name
    return f"CREATE SCHEMA {schema.name} AUTHORIZATION {worker.name};", SUPERUSER


def of_table(schema: Schema, worker: Worker, verb: str, problem: Problem) -> Check:
    """Why the role cannot *verb* a table of its own in the schema."""
    refused = of_refusal("table", problem)
    if refused.level == "failure":
        refused = refused._replace(
            found=f"{worker.name} cannot {verb} a table in {schema.name}: {refused.found}"
        )
    if schema.creatable:
        return refused
    return refused._replace(
        statement=f"GRANT CREATE ON SCHEMA {schema.name} TO {worker.name};",
        by=or_superuser(schema.owner),
        hint="",
    )


def of_history(tables: Sequence[Found], worker: Worker, problem: Problem) -> Check:
    """Why the role cannot keep the history in *tables*, those that are there."""
    refused = of_refusal("history", problem)
    if not problem.server.lacks_privilege or not tables:
        return refused
    names = ", ".join(table.name for table in tables)
    owners = " and ".join(sorted({table.owner for table in tables}))
    return refused._replace(
        statement=f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {worker.name};",
        by=or_superuser(owners),
        hint="",
    )


def of_doubt(found: str, statement: str) -> Check:
    """A table of the history that `migrate` does not trust; *statement* removes the reason."""
    return Check(
        "history",
        "failure",
        found,
        statement,
        SUPERUSER if statement else "",
        "" if statement else "remove it, or name another schema with --history-schema",
        exit_code=PlanError.exit_code,
    )


# --- what is pending ---


def of_need(
    stated: StatedRequirement,
    known: Found | Schema | Extension | None,
    worker: Worker,
    server: Server,
) -> Iterator[Check]:
    """What a statement lacks; *known* is what the server knows of the thing that it names."""
    match stated.requirement, known:
        case Uses() as need, Found() as found:
            yield from _of_use(stated.place, need, found, worker, server)
        case Fills(), Schema() as schema if not (schema.usable and schema.creatable):
            yield _lacking(
                f"{stated.place} creates an object in {schema.name}, but {worker.name} lacks"
                f" {_lacked(schema)} on this schema",
                *_usable(schema, worker),
            )
        case Creates() as need, (Extension() | None) as extension:
            what = f"{stated.place} creates the {need.what} {need.name}"
            yield from _of_creation(what, need, extension, worker, server)
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


def _lacked(schema: Schema) -> str:
    has = {"USAGE": schema.usable, "CREATE": schema.creatable}
    return " and ".join(each for each in has if not has[each])


def _of_use(
    place: Place, need: Uses, found: Found, worker: Worker, server: Server
) -> Iterator[Check]:
    what = f"{place} {need.action} {found.name}"
    schema_by = or_superuser(found.schema_owner)
    if not found.schema_usable:
        statement = f"GRANT USAGE ON SCHEMA {found.schema} TO {worker.name};"
        lacks = f"{what}, but {worker.name} lacks USAGE on the schema {found.schema}"
        yield _lacking(lacks, statement, schema_by)
    if need.privilege not in _OWNERS and not found.privileged:
        statement = f"GRANT {need.privilege} ON {found.name} TO {worker.name};"
        lacks = f"{what}, but {worker.name} lacks {need.privilege} on it"
        yield _lacking(lacks, statement, or_superuser(found.owner))
    if need.privilege in _OWNERS and not _is_owner(found, need.privilege):
        yield _lacking(f"{what}, which is owned by {found.owner}", *_owning(found, worker, server))
    if need.privilege == "index" and not found.schema_creatable:
        statement = f"GRANT CREATE ON SCHEMA {found.schema} TO {worker.name};"
        lacks = f"{what}, but {worker.name} lacks CREATE on the schema {found.schema}"
        yield _lacking(lacks, statement, schema_by)


_OWNERS: tuple[Privilege, ...] = ("owner", "drop", "index")


def _is_owner(found: Found, privilege: Privilege) -> bool:
    return found.owned or (privilege == "drop" and found.schema_owned)


def _owning(found: Found, worker: Worker, server: Server) -> tuple[str, str, str]:
    """The statement that gives the role the owner's rights, who has to run it, what else helps.

    Not those of a superuser, who has all rights. Else the owner stays, for it may be the
    application, that would lose its own.
    https://www.postgresql.org/docs/current/role-membership.html
    """
    if found.owner_is_superuser:
        return f"ALTER TABLE {found.name} OWNER TO {worker.name};", SUPERUSER, ""
    hint = f"or run with --role={found.owner}" if found.member else ""
    if server.major >= 16:
        statement = f"GRANT {found.owner} TO {worker.name} WITH INHERIT TRUE;"
    elif found.member:
        return f"ALTER ROLE {worker.name} INHERIT;", SUPERUSER, hint
    else:
        statement = f"GRANT {found.owner} TO {worker.name};"
    return statement, or_admin(found.owner), hint


def _of_creation(
    what: str, need: Creates, extension: Extension | None, worker: Worker, server: Server
) -> Iterator[Check]:
    role = f"ALTER ROLE {worker.name}"
    match need.what:
        case "database" if not worker.creates_databases:
            yield _lacking(
                f"{what}, but {worker.name} lacks CREATEDB", f"{role} CREATEDB;", SUPERUSER
            )
        case "role" if not worker.creates_roles:
            yield _lacking(
                f"{what}, but {worker.name} lacks CREATEROLE", f"{role} CREATEROLE;", SUPERUSER
            )
        case "schema" if not worker.creates_in_database:
            yield _lacking_create(what, worker, server)
        case "extension" if extension is None or not extension.available:
            yield Check(
                "pending",
                "failure",
                f"{what}, which is not available on the server",
                hint="install the extension's package on the database server",
            )
        case "extension" if extension and _is_barred(extension, worker):
            yield _lacking(
                f"{what}, which only a superuser can create",
                f"CREATE EXTENSION {extension.name};",
                SUPERUSER,
                hint="then write IF NOT EXISTS in the migration",
            )
        case "extension" if extension and not (extension.installed or worker.creates_in_database):
            yield _lacking_create(what, worker, server)


def _is_barred(extension: Extension, worker: Worker) -> bool:
    """Whether *extension* has to be created, and only a superuser may.

    https://www.postgresql.org/docs/current/sql-createextension.html
    """
    needs_superuser = extension.superuser and not extension.trusted
    return needs_superuser and not (extension.installed or worker.superuser)


def _lacking_create(what: str, worker: Worker, server: Server) -> Check:
    return _lacking(
        f"{what}, but {worker.name} lacks CREATE on the database {server.database}",
        f"GRANT CREATE ON DATABASE {server.database} TO {worker.name};",
        or_superuser(server.database_owner),
    )


def _lacking(found: str, statement: str, by: str, hint: str = "") -> Check:
    return Check("pending", "failure", found, statement, by, hint)


def of_missing(missing: Missing) -> Check:
    """A table that a statement uses, and that is not there by then."""
    found = f"{missing.place} uses {missing.name}, which does not exist and is not created earlier"
    hint = f"did you mean {' or '.join(missing.nearest)}?" if missing.nearest else ""
    if missing.removed_at:
        found = (
            f"{missing.place} uses {missing.name}, which no longer exists after"
            f" {missing.removed_at}"
        )
        hint = ""
    return Check("pending", "failure", found, hint=hint or "fix the migration")


def of_unread(path: str, reason: str) -> Check:
    """What PostgreSQL's parser did not read, which is not looked up."""
    return Check(
        "pending",
        "warning",
        f"not all privileges that {path} needs are checked: PostgreSQL 17's parser cannot read"
        f" {reason}",
        hint="ignore this if the syntax is newer and your server supports it",
    )


def of_needs(unseen: Sequence[str]) -> Check:
    """That nothing was found missing; the migrations *unseen*, by their ids, call functions."""
    words = f"; Python functions are not checked: {', '.join(unseen)}" if unseen else ""
    return Check("pending", "ok", f"no missing privileges found for the pending migrations{words}")
