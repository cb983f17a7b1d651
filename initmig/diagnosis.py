"""Decides what to make of a server's facts: ok, a warning or a failure, and what mends it.

Names in the facts, and in the SQL made of them, are quoted where they have to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from initmig.dsn import mask_secrets
from initmig.durations import format_duration
from initmig.errors import DatabaseRefused, PlanError
from initmig.needs import Creates, Fills, Obscures, Requires, Uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.errors import Place, Problem
    from initmig.events import WaitingForYoyo
    from initmig.needs import Right, Stated

Level = Literal["ok", "warning", "failure"]

_OLDEST_MAJOR = 14
_CLOCKS_APART_SECONDS = 5.0

_SUPERUSER = "a superuser"
_INSUFFICIENT_PRIVILEGE = "42501"
_NOT_TRIED = {"55P03": "lock timeout", "57014": "statement timeout"}
"""SQLSTATEs of a trial that others stood in the way of: it tells nothing of rights."""


class Check(NamedTuple):
    """One line of `doctor`: what was looked at, and what was *found*."""

    subject: str
    level: Level
    found: str
    statement: str = ""
    """SQL that mends it; empty where none does."""
    by: str = ""
    """Who has to run *statement*."""
    hint: str = ""
    exit_code: int = DatabaseRefused.exit_code
    """Of a failure."""


class Server(NamedTuple):
    """What the server says of itself and of the session, whoever asks."""

    version_number: int
    """As ``server_version_num``: 150004 is 15.4."""
    version: str
    tls: str
    """The protocol; empty where the connection is not encrypted."""
    local: bool
    """Whether the client is on the same machine."""
    standby: bool
    read_only: bool
    login: str
    database: str
    database_owner: str

    @property
    def major(self) -> int:
        """Its major version."""
        return self.version_number // 10000


class Limit(NamedTuple):
    """A limit of connections that are *used* already, this one among them."""

    of: Literal["the server", "the role", "the database"]
    limit: int
    used: int


class Timeout(NamedTuple):
    """A timeout that holds for the session, unless it is set for a transaction."""

    name: str
    value: str
    """As PostgreSQL shows it, e.g. 30s."""
    seconds: float
    source: str
    """As in ``pg_settings``."""


class Worker(NamedTuple):
    """The role that does the work, and what it may do in the database."""

    name: str
    superuser: bool
    creates_databases: bool
    creates_roles: bool
    creates_in_database: bool
    """Schemas and trusted extensions: CREATE on the database."""


class Schema(NamedTuple):
    """A schema of the search path; *owner* is empty where it does not exist."""

    name: str
    key: str
    """The same, never quoted."""
    owner: str
    usable: bool
    creatable: bool


class Found(NamedTuple):
    """A relation that a migration uses, and what the role may do with it."""

    name: str
    """With its schema."""
    owner: str
    owner_is_superuser: bool
    owned: bool
    """By the role, or one whose rights it has."""
    member: bool
    """Whether the role could become the owner with SET ROLE."""
    privileged: bool
    schema: str
    schema_owner: str
    schema_owned: bool
    schema_usable: bool
    schema_creatable: bool


class Extension(NamedTuple):
    """An extension that a migration creates, as the server knows it."""

    name: str
    installed: bool
    available: bool
    superuser: bool
    trusted: bool


# --- the server, and the way to it ---


def of_version(server: Server) -> Check:
    """Whether initmig supports the server."""
    found = f"PostgreSQL {server.version}"
    if server.major >= _OLDEST_MAJOR:
        return Check("server", "ok", found)
    return Check(
        "server", "failure", f"{found}; {_OLDEST_MAJOR} is the oldest supported", hint="upgrade it"
    )


def of_tls(server: Server) -> Check:
    """Whether others can read what is said."""
    if server.tls:
        return Check("tls", "ok", server.tls)
    if server.local:
        return Check("tls", "ok", "off, and the server is on this machine")
    return Check(
        "tls",
        "warning",
        "off: whoever is between here and the server can read everything",
        hint="sslmode=verify-full in the URL, with the server's certificate authority",
    )


def of_clock(ahead_seconds: float) -> Check:
    """Whether the server's clock, so many seconds ahead of this machine's, is near enough."""
    apart = format_duration(abs(ahead_seconds))
    if abs(ahead_seconds) < _CLOCKS_APART_SECONDS:
        return Check("clock", "ok", f"{apart} apart")
    where = "ahead of" if ahead_seconds > 0 else "behind"
    return Check(
        "clock",
        "warning",
        f"the server's clock is {apart} {where} this machine's",
        hint="synchronize both: certificates and tokens are judged by them; migrations are"
        " recorded by the server's",
    )


def of_pooler(*, pooled: bool) -> Check:
    """Whether a pooler stands in the way, of a mode in which transactions are possible."""
    if not pooled:
        return Check("pooler", "ok", "none, a connection of its own")
    return Check(
        "pooler",
        "warning",
        "behind a pooler: the lock takes a second server connection",
        hint="let it have two at least, or connect to PostgreSQL directly",
    )


def of_refusal(subject: str, problem: Problem) -> Check:
    """What the server, or the pooler before it, refused."""
    sqlstate = problem.server.sqlstate
    if reason := _NOT_TRIED.get(sqlstate):
        return Check(
            subject,
            "warning",
            f"not known, after a {reason}: {mask_secrets(problem.message)}",
            hint="run again when less is going on",
        )
    message = mask_secrets(problem.message)
    found = f"{message} ({sqlstate})" if sqlstate else message
    return Check(subject, "failure", found, hint=problem.hint or problem.server.hint)


def of_plan(problem: Problem) -> Check:
    """Why `migrate` would refuse to start."""
    return Check(
        "plan", "failure", problem.message, hint=problem.hint, exit_code=PlanError.exit_code
    )


def of_writing(server: Server) -> Check:
    """Whether anything can be written."""
    if server.standby:
        return Check(
            "writing",
            "failure",
            "the server is a standby",
            hint="name the primary; with several hosts, target_session_attrs=read-write",
        )
    if server.read_only:
        return Check(
            "writing",
            "failure",
            "transactions are read-only (default_transaction_read_only)",
            _setting(server, "default_transaction_read_only", "off"),
            _setter(server),
        )
    return Check("writing", "ok", "the server is a primary, transactions may write")


def of_timeouts(server: Server, timeouts: Iterable[Timeout]) -> Iterator[Check]:
    """What of *timeouts* would end a migration; those that initmig sets itself do not."""
    ending = [each for each in timeouts if _ends_migrations(each)]
    for timeout in ending:
        by_client = timeout.source == "client"
        yield Check(
            "timeouts",
            "warning",
            f"{timeout.name} is {timeout.value}: {_ENDING[timeout.name]}",
            "" if by_client else _setting(server, timeout.name, "0"),
            "" if by_client else _setter(server),
            hint="take it out of the URL, or PGOPTIONS" if by_client else "",
        )
    if not ending:
        yield Check("timeouts", "ok", "none that would end a migration")


_ENDING = {
    "idle_in_transaction_session_timeout": "ends a migration in Python that computes so long",
    "idle_session_timeout": "ends the connection that has the lock, while Python computes so long",
    "transaction_timeout": "ends a migration that takes so long",
    "statement_timeout": "ends what initmig asks before it sets its own",
}
_SHORT_SECONDS = 1.0


def _ends_migrations(timeout: Timeout) -> bool:
    if timeout.name == "statement_timeout":
        return 0 < timeout.seconds < _SHORT_SECONDS
    return timeout.name in _ENDING and timeout.seconds > 0


def of_limits(server: Server, limits: Iterable[Limit]) -> Iterator[Check]:
    """Whether there is a connection beside this one, for who watches or waits."""
    free = {limit: limit.limit - limit.used for limit in limits}
    for limit in (each for each in free if free[each] < 1):
        yield Check(
            "connections",
            "warning",
            f"{limit.of} has no connection left beside this one:"
            f" {limit.used} of {limit.limit} are in use",
            *_raised(server, limit),
        )
    if all(each > 0 for each in free.values()):
        yield Check("connections", "ok", f"{min(free.values())} free")


def _raised(server: Server, limit: Limit) -> tuple[str, str, str]:
    """The statement that raises *limit*, who has to run it, and what else helps."""
    to = f"CONNECTION LIMIT {limit.used + 1};"
    match limit.of:
        case "the role":
            return f"ALTER ROLE {server.login} {to}", _SUPERUSER, ""
        case "the database":
            by = _or_superuser(server.database_owner)
            return f"ALTER DATABASE {server.database} {to}", by, ""
    return "", "", "raise max_connections, or have others use a pooler"


def _setting(server: Server, name: str, value: str) -> str:
    """SQL that wins over the role's, the database's and the server's own setting."""
    return f"ALTER ROLE {server.login} IN DATABASE {server.database} SET {name} = {value};"


def _setter(server: Server) -> str:
    return _or_superuser(server.login)


def _or_superuser(role: str) -> str:
    return f"{role}, or {_SUPERUSER}"


# --- the role and its schema ---


def of_role(server: Server, worker: Worker) -> Check:
    """Who logged in, and who does the work."""
    if worker.name == server.login:
        return Check("role", "ok", worker.name)
    return Check("role", "ok", f"{server.login} works as {worker.name}")


def of_refused_role(server: Server, role: str, problem: Problem) -> Check:
    """Why the user that logged in cannot work as *role*."""
    refused = of_refusal("role", problem)
    if problem.server.sqlstate != _INSUFFICIENT_PRIVILEGE:
        return refused._replace(hint="create it, or correct --role")
    options = " WITH SET TRUE" if server.major >= 16 else ""
    return refused._replace(
        statement=f"GRANT {role} TO {server.login}{options};", by=_granter(role), hint=""
    )


def of_schemas(schemas: Sequence[Schema], worker: Worker) -> Iterator[Check]:
    """Where objects go; *schemas* are those of the search path, in its order."""
    home = home_of(schemas)
    if home:
        yield Check("schema", "ok", f"{home.name}, of the search path")
    elif not schemas:
        yield Check("schema", "failure", "the search path is empty", hint="set --schema")
    for schema in schemas:
        if schema.usable:
            break
        found = f"{worker.name} may not use {schema.name}"
        if not schema.owner:
            found = f"{schema.name} does not exist"
        yield Check("schema", "warning" if home else "failure", found, *_usable(schema, worker))


def home_of(schemas: Iterable[Schema]) -> Schema | None:
    """The one in which objects are made whose name says no schema."""
    return next((schema for schema in schemas if schema.usable), None)


def _usable(schema: Schema, worker: Worker) -> tuple[str, str]:
    if schema.owner:
        statement = f"GRANT USAGE, CREATE ON SCHEMA {schema.name} TO {worker.name};"
        return statement, _or_superuser(schema.owner)
    if worker.creates_in_database:
        return f"CREATE SCHEMA {schema.name};", worker.name
    return f"CREATE SCHEMA {schema.name} AUTHORIZATION {worker.name};", _SUPERUSER


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
        by=_or_superuser(schema.owner),
        hint="",
    )


def of_history(tables: Sequence[Found], worker: Worker, problem: Problem) -> Check:
    """Why the role cannot keep the history in *tables*, those that are there."""
    refused = of_refusal("history", problem)
    if problem.server.sqlstate != _INSUFFICIENT_PRIVILEGE or not tables:
        return refused
    names = ", ".join(table.name for table in tables)
    owners = " and ".join(sorted({table.owner for table in tables}))
    return refused._replace(
        statement=f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {worker.name};",
        by=_or_superuser(owners),
        hint="",
    )


# --- what is pending ---


def of_need(
    stated: Stated, known: Found | Schema | Extension | None, worker: Worker, server: Server
) -> Iterator[Check]:
    """What a statement lacks; *known* is what the server knows of the thing that it names."""
    match stated.need, known:
        case Uses() as need, Found() as found:
            yield from _of_use(stated.place, need, found, worker, server)
        case Fills(), Schema() as schema if not (schema.usable and schema.creatable):
            yield _lacking(
                f"{stated.place} makes something in {schema.name}, and {worker.name} may not",
                *_usable(schema, worker),
            )
        case Creates() as need, (Extension() | None) as extension:
            what = f"{stated.place} creates the {need.what} {need.name}"
            yield from _of_creation(what, need, extension, worker, server)
        case Requires(what, major), _ if server.major < major:
            yield Check(
                "pending",
                "failure",
                f"{stated.place}: {what} needs PostgreSQL {major}, and this is {server.version}",
                hint="upgrade the server, or write it otherwise",
            )
        case Obscures(setting), _:
            yield Check(
                "pending",
                "warning",
                f"{stated.place} sets {setting}: what rights the rest of the file needs is not"
                " looked up",
                hint="try it on a copy of the database",
            )


def _of_use(
    place: Place, need: Uses, found: Found, worker: Worker, server: Server
) -> Iterator[Check]:
    what = f"{place} {need.action} {found.name}"
    schema_by = _or_superuser(found.schema_owner)
    if not found.schema_usable:
        statement = f"GRANT USAGE ON SCHEMA {found.schema} TO {worker.name};"
        yield _lacking(f"{what}, and {worker.name} may not use its schema", statement, schema_by)
    if need.right not in _OWNERS and not found.privileged:
        statement = f"GRANT {need.right} ON {found.name} TO {worker.name};"
        lacks = f"{what}, and {worker.name} has not the right to: {need.right}"
        yield _lacking(lacks, statement, _or_superuser(found.owner))
    if need.right in _OWNERS and not _is_owner(found, need.right):
        yield _lacking(f"{what}, which belongs to {found.owner}", *_owning(found, worker, server))
    if need.right == "index" and not found.schema_creatable:
        statement = f"GRANT CREATE ON SCHEMA {found.schema} TO {worker.name};"
        lacks = f"{what}, and {worker.name} may not create in its schema"
        yield _lacking(lacks, statement, schema_by)


_OWNERS: tuple[Right, ...] = ("owner", "drop", "index")


def _is_owner(found: Found, right: Right) -> bool:
    return found.owned or (right == "drop" and found.schema_owned)


def _owning(found: Found, worker: Worker, server: Server) -> tuple[str, str, str]:
    """The statement that gives the role the owner's rights, who has to run it, what else helps.

    Not those of a superuser, who has all rights. Else the owner stays, for it may be the
    application, that would lose its own.
    https://www.postgresql.org/docs/current/role-membership.html
    """
    if found.owner_is_superuser:
        return f"ALTER TABLE {found.name} OWNER TO {worker.name};", _SUPERUSER, ""
    hint = f"or --role={found.owner}" if found.member else ""
    if server.major >= 16:
        statement = f"GRANT {found.owner} TO {worker.name} WITH INHERIT TRUE;"
    elif found.member:
        return f"ALTER ROLE {worker.name} INHERIT;", _SUPERUSER, hint
    else:
        statement = f"GRANT {found.owner} TO {worker.name};"
    return statement, _granter(found.owner), hint


def _granter(role: str) -> str:
    return f"{_SUPERUSER}, or who has the ADMIN OPTION on {role}"


def _of_creation(
    what: str, need: Creates, extension: Extension | None, worker: Worker, server: Server
) -> Iterator[Check]:
    role = f"ALTER ROLE {worker.name}"
    match need.what:
        case "database" if not worker.creates_databases:
            yield _lacking(f"{what}: not CREATEDB", f"{role} CREATEDB;", _SUPERUSER)
        case "role" if not worker.creates_roles:
            yield _lacking(f"{what}: not CREATEROLE", f"{role} CREATEROLE;", _SUPERUSER)
        case "schema" if not worker.creates_in_database:
            yield _lacking_create(what, worker, server)
        case "extension" if extension is None or not extension.available:
            yield Check(
                "pending",
                "failure",
                f"{what}, which the server does not have",
                hint="install its package on the server's machine",
            )
        case "extension" if extension and _is_barred(extension, worker):
            yield _lacking(
                f"{what}, which only a superuser may create",
                f"CREATE EXTENSION {extension.name};",
                _SUPERUSER,
                hint="and write IF NOT EXISTS in the migration",
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
        f"{what}, and {worker.name} may not create in the database",
        f"GRANT CREATE ON DATABASE {server.database} TO {worker.name};",
        _or_superuser(server.database_owner),
    )


def _lacking(found: str, statement: str, by: str, hint: str = "") -> Check:
    return Check("pending", "failure", found, statement, by, hint)


def of_unread(path: str, reason: str) -> Check:
    """What PostgreSQL's parser did not read, which is not looked up."""
    return Check(
        "pending",
        "warning",
        f"{path}, {reason}: not read by PostgreSQL 17's parser, so its rights are not looked up",
        hint="syntax that is newer is all right where the server knows it",
    )


def of_migrations(total: int, pending: Sequence[str]) -> Check:
    """What there is to apply, by its ids, where nothing speaks against it."""
    ids = f": {', '.join(pending)}" if pending else ""
    return Check("plan", "ok", f"{len(pending)} of {total} migrations pending{ids}")


def of_needs(unseen: Sequence[str]) -> Check:
    """That what is pending has all it needs, as far as was looked; the ids *unseen* are Python."""
    words = f", as far as SQL tells: {', '.join(unseen)} is Python" if unseen else ""
    return Check("pending", "ok", f"the rights for what is pending are there{words}")


def of_others(holder: str, yoyo: WaitingForYoyo | None) -> Check:
    """Whether `migrate` would have to wait for another migrator; *holder* is one in words."""
    if yoyo:
        return Check(
            "lock",
            "warning",
            f"the lock row of a yoyo with process id {yoyo.pid}, since {yoyo.locked_at_utc} UTC",
            hint="if that yoyo is no more, remove it with `initmig unlock`",
        )
    if holder:
        return Check("lock", "warning", f"another migrator is at work: {holder}")
    return Check("lock", "ok", "free")
