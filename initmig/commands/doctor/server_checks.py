"""Decides what to make of the server, the way to it, and what goes on there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import SUPERUSER, Check, or_superuser
from initmig.core.durations import format_duration
from initmig.core.errors import PlanError
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Level
    from initmig.commands.doctor.facts import Commits, Limit, Server, Setting, Timeout
    from initmig.core.errors import Problem
    from initmig.core.events import WaitingForYoyo, WaitingInQueue
    from initmig.sql.not_in_transaction import Refused

_OLDEST_MAJOR = 14
_CLOCKS_APART_SECONDS = 5.0
_OF_CLIENT = "remove it from the URL or PGOPTIONS"


def of_version(server: Server) -> Check:
    """Whether initmig supports the server."""
    found = f"PostgreSQL {server.version}"
    if server.major >= _OLDEST_MAJOR:
        return Check("server", "ok", found)
    return Check(
        "server",
        "failure",
        f"{found} is not supported: initmig needs {_OLDEST_MAJOR} or newer",
        hint="upgrade the server",
    )


def of_tls(server: Server) -> Check:
    """Whether others can read what is said."""
    if server.tls:
        return Check("tls", "ok", server.tls)
    if server.local:
        return Check("tls", "ok", "off, but the server is on this machine")
    return Check(
        "tls",
        "warning",
        "off: anyone on the network between here and the server can read everything",
        hint="set sslmode=verify-full in the URL, and sslrootcert to the server's CA certificate",
    )


def of_clock(ahead_seconds: float) -> Check:
    """Whether the server's clock, so many seconds ahead of this machine's, is near enough."""
    apart = format_duration(abs(ahead_seconds))
    if abs(ahead_seconds) < _CLOCKS_APART_SECONDS:
        return Check(
            "clock", "ok", f"the clocks of the server and of this machine differ by {apart}"
        )
    where = "ahead of" if ahead_seconds > 0 else "behind"
    return Check(
        "clock",
        "warning",
        f"the server's clock is {apart} {where} this machine's",
        hint="synchronize both clocks: certificates and tokens expire by them, and migrations are"
        " recorded with the server's time",
    )


def of_pooler(*, pooled: bool) -> Check:
    """Whether a pooler stands in the way, of a mode in which transactions are possible."""
    if not pooled:
        return Check("pooler", "ok", "none: the session has its own server connection")
    return Check(
        "pooler",
        "warning",
        "a pooler shares server connections: the migration lock needs a second one",
        hint="allow at least two server connections, or connect to PostgreSQL directly",
    )


def of_plan(problem: Problem) -> Check:
    """Why `migrate` would refuse to start."""
    return Check(
        "plan", "failure", problem.message, hint=problem.hint, exit_code=PlanError.exit_code
    )


def of_refused(refused: Refused) -> Check:
    """A statement that the server will refuse where it stands."""
    level: Level = "failure" if refused.direction == "apply" else "warning"
    found = f"{refused.place}: {refused.fact}"
    return Check("pending", level, found, hint=refused.next_step)


def of_writing(server: Server) -> Check:
    """Whether anything can be written."""
    if server.standby:
        return Check(
            "writing",
            "failure",
            "the server is a standby",
            hint="connect to the primary; with several hosts, set target_session_attrs=read-write",
        )
    if server.read_only:
        return Check(
            "writing",
            "failure",
            "transactions are read-only (default_transaction_read_only)",
            _setting(server, "default_transaction_read_only", "off"),
            _setter(server),
        )
    return Check("writing", "ok", "the server is a primary, and transactions can write")


def of_timeouts(server: Server, timeouts: Iterable[Timeout], *, pooled: bool) -> Iterator[Check]:
    """What of *timeouts* would end a migration; those that initmig sets itself do not."""
    ending = [each for each in timeouts if pooled and each.name in _ENDING and each.seconds > 0]
    for timeout in ending:
        by_client = timeout.source == "client"
        yield Check(
            "timeouts",
            "warning",
            f"{timeout.name} is {timeout.value}: {_ENDING[timeout.name]}",
            "" if by_client else _setting(server, timeout.name, "0"),
            "" if by_client else _setter(server),
            hint=_OF_CLIENT if by_client else "",
        )
    if not ending:
        yield Check("timeouts", "ok", "no server timeout could end a migration")


# Behind a pooler initmig sets them in its own transactions alone.
_ENDING = {
    "idle_in_transaction_session_timeout": "PostgreSQL ends a non-transactional Python"
    " function that leaves its own transaction idle for longer",
    "transaction_timeout": "PostgreSQL ends a non-transactional Python function whose own"
    " transaction takes longer",
}


class _Harm(Record):
    """What a setting does to a migration."""

    level: Level
    effect: str
    good: str
    """The value with which it does not."""
    by_superuser: bool = False


# Each has ended a migration in tests/integration/test_doctor.py.
_HARM = {
    "exit_on_error": _Harm(
        "failure", "every error ends the connection, even an expected one", "off"
    ),
    "restrict_nonsystem_relation_kind": _Harm(
        "warning", "a statement fails if it uses such a relation", "''"
    ),
    "row_security": _Harm(
        "warning",
        "a statement fails if row level security applies to the role on its table",
        "on",
    ),
    "standard_conforming_strings": _Harm(
        "warning", "a backslash in an ordinary string is an escape character", "on"
    ),
    "temp_file_limit": _Harm(
        "warning",
        "a statement fails if it needs more temporary disk space, as large sorts do",
        "-1",
        by_superuser=True,
    ),
}


def of_settings(server: Server, settings: Iterable[Setting], commits: Commits) -> Iterator[Check]:
    """Which *settings* end a migration, and whether its COMMIT would wait for ever."""
    checks = [_of_setting(server, each) for each in settings]
    if not server.standby:
        checks.extend(_of_commits(server, commits))
    yield from checks or [Check("settings", "ok", "no server setting could end a migration")]


def of_left_out(name: str, reason: str, effect: str) -> Check:
    """That initmig has to go on without a setting of its own."""
    return Check("settings", "warning", f"{name} cannot be set ({reason}): {effect}")


def _of_setting(server: Server, setting: Setting) -> Check:
    harm = _HARM[setting.name]
    found = f"{setting.name} is {setting.value}, set by {setting.set_by}: {harm.effect}"
    if setting.source == "client":
        return Check("settings", harm.level, found, hint=_OF_CLIENT)
    by = SUPERUSER if harm.by_superuser else _setter(server)
    statement = _setting(server, setting.name, harm.good)
    return Check("settings", harm.level, found, statement, by)


def _of_commits(server: Server, commits: Commits) -> Iterator[Check]:
    needed = _confirming(commits.names)
    if commits.level in ("off", "local") or commits.standbys >= needed:
        return
    there = f"{commits.standbys} of {needed} synchronous standbys are connected"
    yield Check(
        "settings",
        "failure",
        f"every COMMIT waits forever: {there} (synchronous_standby_names is {commits.names})",
        hint="start the standby, or change synchronous_standby_names; or let COMMIT not wait:"
        f" {_setting(server, 'synchronous_commit', 'local')}",
    )


def _confirming(names: str) -> int:
    """How many standbys have to confirm a COMMIT: ``a, b``, ``2 (a, b)``, ``ANY 2 (a, b)``.

    https://www.postgresql.org/docs/current/runtime-config-replication.html
    """
    if not names.strip():
        return 0
    words = names.partition("(")[0].split() if "(" in names else []
    return int(words[-1]) if words and words[-1].isdigit() else 1


def of_limits(server: Server, limits: Iterable[Limit]) -> Iterator[Check]:
    """Whether there is a connection beside this one, for who watches or waits."""
    free = {limit: limit.limit - limit.used for limit in limits}
    for limit in (each for each in free if free[each] < 1):
        yield Check(
            "connections",
            "warning",
            f"{limit.of} has no free connection besides this one:"
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
            return f"ALTER ROLE {server.login} {to}", SUPERUSER, ""
        case "the database":
            by = or_superuser(server.database_owner)
            return f"ALTER DATABASE {server.database} {to}", by, ""
    return "", "", "raise max_connections, or connect other clients through a pooler"


def _setting(server: Server, name: str, value: str) -> str:
    """SQL that wins over the role's, the database's and the server's own setting."""
    return f"ALTER ROLE {server.login} IN DATABASE {server.database} SET {name} = {value};"


def _setter(server: Server) -> str:
    return or_superuser(server.login)


def of_migrations(total: int, pending: Sequence[str]) -> Check:
    """What there is to apply, by its ids, where nothing speaks against it."""
    ids = f": {', '.join(pending)}" if pending else ""
    return Check("plan", "ok", f"{len(pending)} of {total} migrations pending{ids}")


def of_others(holder: WaitingInQueue | None, yoyo: WaitingForYoyo | None) -> Check:
    """Whether `migrate` would have to wait for another migrator, or for who is in its place."""
    if yoyo:
        return Check(
            "lock",
            "warning",
            f"yoyo with process id {yoyo.pid} has held its lock row since {yoyo.locked_at_utc} UTC",
            hint="if that yoyo is no longer running, remove its row with `initmig unlock`",
        )
    if holder and holder.is_migrator:
        found = f"another migrator holds the migration lock: {holder.holder}"
        return Check("lock", "warning", found, hint=holder.next_step)
    if holder:
        found = (
            f"a session that does not belong to initmig holds the migration lock: {holder.holder}"
        )
        return Check("lock", "warning", found, hint=holder.next_step)
    return Check("lock", "ok", "free")
