"""Judges facts about the server, the connection to it and its activity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import SUPERUSER, Check, or_superuser
from initmig.core.durations import format_duration
from initmig.core.errors import PlanError
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Level
    from initmig.commands.doctor.facts import (
        CommitSettings,
        ConnectionLimit,
        Server,
        Setting,
        Timeout,
    )
    from initmig.core.errors import Problem
    from initmig.core.events import WaitingForYoyo, WaitingInQueue
    from initmig.sql.not_in_transaction import Refused

_OLDEST_MAJOR = 14
_MOST_CLOCK_DIFFERENCE_SECONDS = 5.0
_REMOVE_FROM_CLIENT = "remove it from the URL or PGOPTIONS"


def check_version(server: Server) -> Check:
    """Check that initmig supports the server's version."""
    found = f"PostgreSQL {server.version}"
    if server.major >= _OLDEST_MAJOR:
        return Check("server", "ok", found)
    return Check(
        "server",
        "failure",
        f"{found} is not supported: initmig needs {_OLDEST_MAJOR} or newer",
        hint="upgrade the server",
    )


def check_tls(server: Server) -> Check:
    """Check that the connection is encrypted, or stays on this machine."""
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


def check_clock(ahead_seconds: float) -> Check:
    """Check that the server's clock differs by less than 5 seconds from this machine's."""
    apart = format_duration(abs(ahead_seconds))
    if abs(ahead_seconds) < _MOST_CLOCK_DIFFERENCE_SECONDS:
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


def check_pooler(*, pooled: bool) -> Check:
    """Warn about a pooler in transaction mode. In statement mode no check gets this far."""
    if not pooled:
        return Check("pooler", "ok", "none: the session has its own server connection")
    return Check(
        "pooler",
        "warning",
        "a pooler shares server connections: the migration lock needs a second one",
        hint="allow at least two server connections, or connect to PostgreSQL directly",
    )


def refused_plan(problem: Problem) -> Check:
    """The check for a *problem* with which `migrate` would refuse to start."""
    return Check(
        "plan", "failure", problem.message, hint=problem.hint, exit_code=PlanError.exit_code
    )


def refused_statement(refused: Refused) -> Check:
    """The check for a statement that the server will refuse inside, or outside, a transaction."""
    level: Level = "failure" if refused.direction == "apply" else "warning"
    found = f"{refused.place}: {refused.fact}"
    return Check("pending", level, found, hint=refused.next_step)


def check_writing(server: Server) -> Check:
    """Check that the server accepts writes."""
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


def check_timeouts(server: Server, timeouts: Iterable[Timeout], *, pooled: bool) -> Iterator[Check]:
    """Warn about *timeouts* that would end a migration. initmig sets all others itself."""
    ending = [
        each for each in timeouts if pooled and each.name in _TIMEOUT_EFFECTS and each.seconds > 0
    ]
    for timeout in ending:
        by_client = timeout.source == "client"
        yield Check(
            "timeouts",
            "warning",
            f"{timeout.name} is {timeout.value}: {_TIMEOUT_EFFECTS[timeout.name]}",
            "" if by_client else _setting(server, timeout.name, "0"),
            "" if by_client else _setter(server),
            hint=_REMOVE_FROM_CLIENT if by_client else "",
        )
    if not ending:
        yield Check("timeouts", "ok", "no server timeout could end a migration")


# Behind a pooler, initmig can override these only in its own transactions.
_TIMEOUT_EFFECTS = {
    "idle_in_transaction_session_timeout": "PostgreSQL ends a non-transactional Python"
    " function that leaves its own transaction idle for longer",
    "transaction_timeout": "PostgreSQL ends a non-transactional Python function whose own"
    " transaction takes longer",
}


class _SettingEffect(Record):
    """The effect of a setting on a migration."""

    level: Level
    words: str
    safe_value: str
    """The value without this effect."""
    by_superuser: bool = False


# tests/integration/test_doctor.py has a migration for each setting that the setting makes fail.
_SETTING_EFFECTS = {
    "exit_on_error": _SettingEffect(
        "failure", "every error ends the connection, even an expected one", "off"
    ),
    "restrict_nonsystem_relation_kind": _SettingEffect(
        "warning", "a statement fails if it uses such a relation", "''"
    ),
    "row_security": _SettingEffect(
        "warning",
        "a statement fails if row level security applies to the role on its table",
        "on",
    ),
    "standard_conforming_strings": _SettingEffect(
        "warning", "a backslash in an ordinary string is an escape character", "on"
    ),
    "temp_file_limit": _SettingEffect(
        "warning",
        "a statement fails if it needs more temporary disk space, as large sorts do",
        "-1",
        by_superuser=True,
    ),
}


def check_settings(
    server: Server, settings: Iterable[Setting], commit_settings: CommitSettings
) -> Iterator[Check]:
    """Check for *settings* that make a migration fail, or its COMMIT wait forever."""
    checks = [_check_setting(server, each) for each in settings]
    if not server.standby:
        checks.extend(_check_commit_settings(server, commit_settings))
    yield from checks or [Check("settings", "ok", "no server setting could end a migration")]


def skipped_setting(name: str, reason: str, effect: str) -> Check:
    """The warning that initmig works without one of its settings, with the *effect*."""
    return Check("settings", "warning", f"{name} cannot be set ({reason}): {effect}")


def _check_setting(server: Server, setting: Setting) -> Check:
    effect = _SETTING_EFFECTS[setting.name]
    found = f"{setting.name} is {setting.value}, set by {setting.set_by}: {effect.words}"
    if setting.source == "client":
        return Check("settings", effect.level, found, hint=_REMOVE_FROM_CLIENT)
    by = SUPERUSER if effect.by_superuser else _setter(server)
    statement = _setting(server, setting.name, effect.safe_value)
    return Check("settings", effect.level, found, statement, by)


def _check_commit_settings(server: Server, commit_settings: CommitSettings) -> Iterator[Check]:
    names = commit_settings.standby_names
    needed = _required_standbys(names)
    if commit_settings.level in ("off", "local") or commit_settings.connected_standbys >= needed:
        return
    connected = (
        f"{commit_settings.connected_standbys} of {needed} synchronous standbys are connected"
    )
    yield Check(
        "settings",
        "failure",
        f"every COMMIT waits forever: {connected} (synchronous_standby_names is {names})",
        hint="start the standby, or change synchronous_standby_names; or let COMMIT not wait:"
        f" {_setting(server, 'synchronous_commit', 'local')}",
    )


def _required_standbys(names: str) -> int:
    """How many standbys must confirm a COMMIT; *names* is ``a, b``, ``2 (a, b)``, ``ANY 2 (a, b)``.

    https://www.postgresql.org/docs/current/runtime-config-replication.html
    """
    if not names.strip():
        return 0
    words = names.partition("(")[0].split() if "(" in names else []
    return int(words[-1]) if words and words[-1].isdigit() else 1


def check_connections(server: Server, limits: Iterable[ConnectionLimit]) -> Iterator[Check]:
    """Check that one more connection is free, for copies that wait or for watching locks."""
    free = {limit: limit.limit - limit.used for limit in limits}
    for limit in (each for each in free if free[each] < 1):
        yield Check(
            "connections",
            "warning",
            f"{limit.of} has no free connection besides this one:"
            f" {limit.used} of {limit.limit} are in use",
            *_raise_limit(server, limit),
        )
    if all(each > 0 for each in free.values()):
        yield Check("connections", "ok", f"{min(free.values())} free")


def _raise_limit(server: Server, limit: ConnectionLimit) -> tuple[str, str, str]:
    """The statement that raises *limit*, the role that has to run it, and a hint."""
    to = f"CONNECTION LIMIT {limit.used + 1};"
    match limit.of:
        case "the role":
            return f"ALTER ROLE {server.login} {to}", SUPERUSER, ""
        case "the database":
            by = or_superuser(server.database_owner)
            return f"ALTER DATABASE {server.database} {to}", by, ""
    return "", "", "raise max_connections, or connect other clients through a pooler"


def _setting(server: Server, name: str, value: str) -> str:
    """SQL that overrides the role's, the database's and the server's own setting."""
    return f"ALTER ROLE {server.login} IN DATABASE {server.database} SET {name} = {value};"


def _setter(server: Server) -> str:
    return or_superuser(server.login)


def pending_migrations(total: int, pending: Sequence[str]) -> Check:
    """The check for a plan that `migrate` accepts; *pending* are ids."""
    ids = f": {', '.join(pending)}" if pending else ""
    return Check("plan", "ok", f"{len(pending)} of {total} migrations pending{ids}")


def check_lock(holder: WaitingInQueue | None, yoyo: WaitingForYoyo | None) -> Check:
    """Check that `migrate` would not have to wait for another migrator, stock yoyo or a session."""
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
