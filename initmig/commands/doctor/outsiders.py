"""Decides which other roles could make initmig run their code, change the history, or block it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor.checks import Check, or_admin, or_superuser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from initmig.commands.doctor.facts import Connecting, Grant, PathSchema, Server, Worker

    _K = TypeVar("_K")

SUBJECTS = PATH, HISTORY, KEY = "search-path", "history-privileges", "lock-key"

_SHOWN_NAMES = 3
_NOBODY = "no other role can connect, so none can hold the migration lock"


def of_path(path: Sequence[PathSchema], grants: Sequence[Grant], worker: Worker) -> Iterator[Check]:
    """Whether others may create objects in the schemas where names are looked up."""
    checks = list(_of_owners(path, worker))
    for schema in (each for each in path if each.exists):
        what = f"create objects in {schema.name}, which migrations can then run as {worker.name}"
        on_schema = [each for each in grants if (each.kind, each.name) == ("SCHEMA", schema.name)]
        checks.extend(_revoking(PATH, what, on_schema))
    missing = [schema.name for schema in path if not schema.exists]
    if missing:
        what = f"create the missing schema {' or '.join(missing)} of the search path"
        on_database = [each for each in grants if each.kind == "DATABASE"]
        checks.extend(_revoking(PATH, what, on_database, hint="or create the schema yourself"))
    yield from checks or [
        Check(PATH, "ok", "no untrusted role can create objects where names are looked up")
    ]


def _of_owners(path: Iterable[PathSchema], worker: Worker) -> Iterator[Check]:
    for schema in path:
        if schema.of_user and schema.foreign_owner:
            found = (
                f"{schema.name} is in the search path as $user and is owned by"
                f" {schema.foreign_owner}; migrations can run its objects as {worker.name}"
            )
            statement = f"ALTER SCHEMA {schema.name} OWNER TO {worker.name};"
            yield Check(PATH, "warning", found, statement, or_superuser(schema.foreign_owner))


def of_history(grants: Iterable[Grant]) -> Iterator[Check]:
    """Whether others may change the history, or have a trigger of theirs run when it changes."""
    on_tables = [each for each in grants if each.kind == "TABLE"]
    alike = [
        key._replace(name=", ".join(each.name for each in group))
        for key, group in _grouped(on_tables, lambda grant: grant._replace(name=""))
    ]
    checks = [
        check
        for names, group in _grouped(alike, lambda grant: grant.name)
        for check in _revoking(HISTORY, f"change {names}", group)
    ]
    yield from checks or [Check(HISTORY, "ok", "no untrusted role can change it")]


def of_connecting(connecting: Connecting, server: Server) -> Check:
    """Whether anybody may connect, which is all that it takes to hold the migration lock's key."""
    names = _some(connecting.roles)
    if not connecting.by_public:
        found = f"only roles with a grant of CONNECT could hold the migration lock: {names}"
        return Check(KEY, "ok", found if names else _NOBODY)
    revoke = f"REVOKE CONNECT ON DATABASE {server.database} FROM PUBLIC;"
    grant = f"GRANT CONNECT ON DATABASE {server.database} TO {server.login}; "
    return Check(
        KEY,
        "warning",
        f"every role can connect, and could then hold the migration lock: {names}",
        revoke if connecting.login_granted else grant + revoke,
        or_superuser(server.database_owner),
        hint="GRANT CONNECT to your application's roles first",
    )


def _revoking(subject: str, what: str, grants: Iterable[Grant], hint: str = "") -> Iterator[Check]:
    """A warning for each statement that keeps others from doing *what* the *grants* let them."""
    direct = [each for each in grants if not each.member]
    for grant, group in _grouped(direct, lambda grant: grant._replace(grantee="")):
        roles = [each.grantee for each in group]
        on = "" if grant.kind == "TABLE" else f"{grant.kind} "
        statement = f"REVOKE {grant.privileges} ON {on}{grant.name} FROM {', '.join(roles)};"
        by = or_superuser(grant.owner) if grant.grantor == grant.owner else grant.grantor
        found = f"{_some(roles)} can {what} ({grant.privileges})"
        yield Check(subject, "warning", found, statement, by, hint)
    through = [each for each in grants if each.member]
    for granted, group in _grouped(through, lambda grant: grant.grantee):
        roles = list(dict.fromkeys(each.member for each in group))
        found = f"{_some(roles)} can {what}, as a member of {granted}"
        statement = f"REVOKE {granted} FROM {', '.join(roles)};"
        yield Check(subject, "warning", found, statement, or_admin(granted), hint)


def _grouped(items: Iterable[Grant], key: Callable[[Grant], _K]) -> list[tuple[_K, list[Grant]]]:
    """The *items* that are alike in *key*, in the order in which each key comes first."""
    groups: dict[_K, list[Grant]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def _some(names: Sequence[str]) -> str:
    """*names* in words; of many, the first ones and how many more there are."""
    shown, more = names[:_SHOWN_NAMES], len(names) - _SHOWN_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
