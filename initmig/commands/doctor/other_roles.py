"""Decides which other roles could make initmig run their code, change the history or block it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import Check, or_superuser, superuser_or_admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from initmig.commands.doctor.facts import (
        ConnectPrivileges,
        Grant,
        MigrationRole,
        PathSchema,
        Server,
    )

    _K = TypeVar("_K")

SUBJECTS = PATH, HISTORY, KEY = "search-path", "history-privileges", "lock-key"

_SHOWN_NAMES = 3
_NO_OTHER_ROLE = "no other role can connect, so none can hold the migration lock"


def check_search_path(
    path: Sequence[PathSchema], grants: Sequence[Grant], migration_role: MigrationRole
) -> Iterator[Check]:
    """Warn about untrusted roles that can create objects in a schema of the search *path*."""
    checks = list(_check_owners(path, migration_role))
    for schema in (each for each in path if each.exists):
        role = migration_role.name
        what = f"create objects in {schema.name}, which migrations can then run as {role}"
        on_schema = [each for each in grants if (each.kind, each.name) == ("SCHEMA", schema.name)]
        checks.extend(_revocations(PATH, what, on_schema))
    missing = [schema.name for schema in path if not schema.exists]
    if missing:
        what = f"create the missing schema {' or '.join(missing)} of the search path"
        on_database = [each for each in grants if each.kind == "DATABASE"]
        checks.extend(_revocations(PATH, what, on_database, hint="or create the schema yourself"))
    yield from checks or [
        Check(PATH, "ok", "no untrusted role can create objects where names are looked up")
    ]


def _check_owners(path: Iterable[PathSchema], migration_role: MigrationRole) -> Iterator[Check]:
    for schema in path:
        if schema.is_user_schema and schema.untrusted_owner:
            role = migration_role.name
            found = (
                f"{schema.name} is in the search path as $user and is owned by"
                f" {schema.untrusted_owner}; migrations can run its objects as {role}"
            )
            statement = f"ALTER SCHEMA {schema.name} OWNER TO {role};"
            yield Check(PATH, "warning", found, statement, or_superuser(schema.untrusted_owner))


def check_history(grants: Iterable[Grant]) -> Iterator[Check]:
    """Warn about untrusted roles that can change the history, or create triggers on it."""
    on_tables = [each for each in grants if each.kind == "TABLE"]
    merged = [
        key._replace(name=", ".join(each.name for each in group))
        for key, group in _grouped(on_tables, lambda grant: grant._replace(name=""))
    ]
    checks = [
        check
        for names, group in _grouped(merged, lambda grant: grant.name)
        for check in _revocations(HISTORY, f"change {names}", group)
    ]
    yield from checks or [Check(HISTORY, "ok", "no untrusted role can change it")]


def check_connect(connect_privileges: ConnectPrivileges, server: Server) -> Check:
    """Warn if every role can connect: a session needs no other privilege to hold the lock's key."""
    names = _shortened(connect_privileges.roles)
    if not connect_privileges.through_public:
        found = f"only roles with a grant of CONNECT could hold the migration lock: {names}"
        return Check(KEY, "ok", found if names else _NO_OTHER_ROLE)
    revoke = f"REVOKE CONNECT ON DATABASE {server.database} FROM PUBLIC;"
    grant = f"GRANT CONNECT ON DATABASE {server.database} TO {server.login}; "
    return Check(
        KEY,
        "warning",
        f"every role can connect, and could then hold the migration lock: {names}",
        revoke if connect_privileges.login_has_grant else grant + revoke,
        or_superuser(server.database_owner),
        hint="GRANT CONNECT to your application's roles first",
    )


def _revocations(
    subject: str, what: str, grants: Iterable[Grant], hint: str = ""
) -> Iterator[Check]:
    """A warning for each REVOKE that stops untrusted roles from doing *what* the *grants* allow."""
    direct = [each for each in grants if not each.member]
    for grant, group in _grouped(direct, lambda grant: grant._replace(grantee="")):
        roles = [each.grantee for each in group]
        on = "" if grant.kind == "TABLE" else f"{grant.kind} "
        statement = f"REVOKE {grant.privileges} ON {on}{grant.name} FROM {', '.join(roles)};"
        by = or_superuser(grant.owner) if grant.grantor == grant.owner else grant.grantor
        found = f"{_shortened(roles)} can {what} ({grant.privileges})"
        yield Check(subject, "warning", found, statement, by, hint)
    through = [each for each in grants if each.member]
    for granted, group in _grouped(through, lambda grant: grant.grantee):
        roles = list(dict.fromkeys(each.member for each in group))
        found = f"{_shortened(roles)} can {what}, as a member of {granted}"
        statement = f"REVOKE {granted} FROM {', '.join(roles)};"
        yield Check(subject, "warning", found, statement, superuser_or_admin(granted), hint)


def _grouped(items: Iterable[Grant], key: Callable[[Grant], _K]) -> list[tuple[_K, list[Grant]]]:
    """The *items* grouped by *key*; the groups are in the order of their first items."""
    groups: dict[_K, list[Grant]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def _shortened(names: Sequence[str]) -> str:
    """*names* in words: at most three, and the number of the others."""
    shown, more = names[:_SHOWN_NAMES], len(names) - _SHOWN_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
