"""The checks of `doctor` for servers that a test cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from initmig.commands.doctor.facts import (
    CommitSettings,
    ConnectionLimit,
    MigrationRole,
    RelationAccess,
    Server,
    Setting,
    Timeout,
)
from initmig.commands.doctor.privileges import check_requirement, refused_role
from initmig.commands.doctor.server_checks import (
    check_clock,
    check_connections,
    check_settings,
    check_timeouts,
    check_tls,
    check_version,
)
from initmig.core.errors import Problem, ServerMessage
from initmig.sql.requirements import Relation, Requirement, Requires, StatedRequirement, Uses
from tests.support.steps import step_of

if TYPE_CHECKING:
    from initmig.commands.doctor.checks import Check

SERVER = Server(
    version_number=180001,
    version="18.1",
    tls="TLSv1.3",
    local=False,
    standby=False,
    read_only=False,
    login="app",
    database="db",
    database_owner="dba",
)
WORKER = MigrationRole(
    "app",
    is_superuser=False,
    can_create_databases=False,
    can_create_roles=False,
    can_create_in_database=False,
)
NOT_OWNED = RelationAccess(
    name="public.t",
    owner="other",
    owner_is_superuser=False,
    is_owner=False,
    can_become_owner=False,
    has_privilege=False,
    schema="public",
    schema_owner="dba",
    is_schema_owner=False,
    has_schema_usage=True,
    has_schema_create=True,
)


def checks_of(
    need: Requirement, known: RelationAccess | None = None, server: Server = SERVER
) -> list[Check]:
    stated = StatedRequirement("a.sql", step_of("a.sql", "-- é\nDROP".encode()), 6, need)
    return list(check_requirement(stated, known, WORKER, server))


@pytest.mark.parametrize(("number", "level"), [(130022, "failure"), (140000, "ok"), (190000, "ok")])
def test_postgresql_14_is_the_oldest_supported(number: int, level: str) -> None:
    check = check_version(SERVER._replace(version_number=number))
    assert (check.subject, check.level) == ("server", level)
    assert ("needs 14" in check.found) == (level == "failure")


@pytest.mark.parametrize(
    ("tls", "local", "level"),
    [("TLSv1.3", False, "ok"), ("", True, "ok"), ("", False, "warning")],
)
def test_unencrypted_remote_connection_is_a_warning(tls: str, local: bool, level: str) -> None:
    check = check_tls(SERVER._replace(tls=tls, local=local))
    assert check.level == level
    assert ("sslmode=verify-full" in check.hint) == (level == "warning")


@pytest.mark.parametrize(
    ("ahead", "level"), [(0.0, "ok"), (-4.9, "ok"), (5.0, "warning"), (-3600.0, "warning")]
)
def test_clock_difference_of_5_seconds_is_a_warning(ahead: float, level: str) -> None:
    assert check_clock(ahead).level == level


def test_statement_newer_than_the_server_fails_with_its_location() -> None:
    need = Requires("MERGE", 15)
    assert checks_of(need) == []
    [check] = checks_of(need, server=SERVER._replace(version_number=140020, version="14.20"))
    assert check.found == "a.sql:2:1: MERGE needs PostgreSQL 15, but the server runs 14.20"
    assert check.level == "failure"


@pytest.mark.parametrize(
    ("number", "member", "statement", "hint"),
    [
        (160000, False, "GRANT other TO app WITH INHERIT TRUE;", ""),
        (160000, True, "GRANT other TO app WITH INHERIT TRUE;", "or run with --role=other"),
        (150000, False, "GRANT other TO app;", ""),
        (150000, True, "ALTER ROLE app INHERIT;", "or run with --role=other"),
    ],
)
def test_owner_privileges_are_granted_in_the_syntax_of_the_server_version(
    number: int, member: bool, statement: str, hint: str
) -> None:
    need = Uses(Relation("", "t"), "owner", "alters")
    server = SERVER._replace(version_number=number)
    [check] = checks_of(need, NOT_OWNED._replace(can_become_owner=member), server)
    assert check.found == "a.sql:2:1 alters public.t, which is owned by other"
    assert (check.statement, check.hint) == (statement, hint)


def test_schema_owner_can_drop_its_tables_but_not_alter_them() -> None:
    relation, mine = Relation("", "t"), NOT_OWNED._replace(is_schema_owner=True)
    assert checks_of(Uses(relation, "drop", "drops"), mine) == []
    assert len(checks_of(Uses(relation, "owner", "alters"), mine)) == 1


def test_table_that_does_not_exist_needs_no_privilege() -> None:
    assert checks_of(Uses(Relation("", "t"), "owner", "alters"), None) == []


@pytest.mark.parametrize(
    ("number", "statement"),
    [(160000, "GRANT boss TO app WITH SET TRUE;"), (150000, "GRANT boss TO app;")],
)
def test_set_role_is_granted_in_the_syntax_of_the_server_version(
    number: int, statement: str
) -> None:
    problem = Problem("missing-privilege", "permission denied", server=ServerMessage("42501"))
    check = refused_role(SERVER._replace(version_number=number), "boss", problem)
    assert check.statement == statement
    assert check.by == "a superuser, or a role with the ADMIN OPTION on boss"


@pytest.mark.parametrize(
    ("name", "seconds", "pooled", "warns"),
    [
        ("idle_in_transaction_session_timeout", 60.0, True, True),
        ("idle_in_transaction_session_timeout", 60.0, False, False),
        ("transaction_timeout", 3600.0, True, True),
        ("transaction_timeout", 3600.0, False, False),
        ("transaction_timeout", 0.0, True, False),
        ("idle_session_timeout", 60.0, True, False),  # the pooler opens another connection
        ("idle_session_timeout", 60.0, False, False),
        ("statement_timeout", 0.5, True, False),  # migrations use --statement-timeout
        ("lock_timeout", 0.5, True, False),  # migrations use --lock-timeout
    ],
)
def test_timeout_that_initmig_does_not_replace_is_a_warning(
    name: str, seconds: float, pooled: bool, warns: bool
) -> None:
    timeout = Timeout(name, f"{seconds:g}s", seconds, "user")
    [check] = check_timeouts(SERVER, [timeout], pooled=pooled)
    statement = f"ALTER ROLE app IN DATABASE db SET {name} = 0;" if warns else ""
    assert (check.level, check.statement) == ("warning" if warns else "ok", statement)


def test_timeout_from_the_url_gets_a_hint_instead_of_a_statement() -> None:
    timeout = Timeout("transaction_timeout", "1s", 1.0, "client")
    [check] = check_timeouts(SERVER, [timeout], pooled=True)
    assert (check.statement, check.hint) == ("", "remove it from the URL or PGOPTIONS")


def test_limit_with_the_fewest_free_connections_is_reported() -> None:
    limits = [ConnectionLimit("the server", 97, 7), ConnectionLimit("the role", 10, 8)]
    assert [check.found for check in check_connections(SERVER, limits)] == ["2 free"]
    [full] = check_connections(SERVER, [*limits, ConnectionLimit("the database", 3, 3)])
    assert full.statement == "ALTER DATABASE db CONNECTION LIMIT 4;"
    assert full.by == "dba, or a superuser"
    [server] = check_connections(SERVER, [ConnectionLimit("the server", 7, 7)])
    assert (server.level, server.statement) == ("warning", "")
    assert "max_connections" in server.hint


def test_setting_from_the_client_gets_a_hint_that_names_its_source() -> None:
    setting = Setting("exit_on_error", "on", "client", "the connection string or PGOPTIONS")
    [check] = check_settings(SERVER, [setting], CommitSettings("", "on", 0))
    assert "set by the connection string or PGOPTIONS" in check.found
    assert (check.level, check.statement, check.by) == ("failure", "", "")
    assert "PGOPTIONS" in check.hint


@pytest.mark.parametrize(
    ("names", "level", "standbys", "waits"),
    [
        ("", "on", 0, False),
        ("a", "on", 0, True),
        ("a, b", "on", 1, False),
        ("*", "remote_apply", 0, True),
        ("(a, b)", "on", 0, True),
        ("2 (a, b)", "on", 1, True),
        ("FIRST 2 (a, b)", "remote_write", 1, True),
        ("ANY 2 (*)", "on", 2, False),
        ('"2 (x"', "on", 0, True),
        ("a", "local", 0, False),
        ("a", "off", 0, False),
    ],
)
def test_commits_that_wait_for_missing_standbys_are_a_failure(
    names: str, level: str, standbys: int, waits: bool
) -> None:
    [check] = check_settings(SERVER, [], CommitSettings(names, level, standbys))
    assert check.level == ("failure" if waits else "ok")
