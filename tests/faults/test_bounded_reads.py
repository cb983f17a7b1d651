"""A lock on the history tables makes each command time out, and name the session that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from initmig.commands.serve.serve import check, reading_run
from initmig.config.config import parse_config
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import DatabaseUnavailable
from initmig.migrations.files import list_files
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database

pytestmark = pytest.mark.any_version

FIRST = {"0001_a.sql": "CREATE TABLE a ();", "0001_a.rollback.sql": "DROP TABLE a;"}
SECOND = {"0002_b.sql": "CREATE TABLE b ();"}
TABLES = "_yoyo_migration, yoyo_lock, _yoyo_log, _yoyo_version, _initmig_migration"

COMMANDS = [
    ("migrate",),
    ("status",),
    ("status", "--check"),
    ("plan",),
    ("rehearse",),
    ("wait",),
    ("baseline", "--to=0001_a"),
    ("rollback", "--all"),
    ("unlock",),
    ("doctor",),
    ("migrate", "--each-schema=publi%"),
]
HOLDER = "(the app, user postgres, idle in transaction, transaction open for"
INITMIG_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE 'initmig%' AND datname = current_database()"""


@pytest.fixture
def migrated(database: Database, initmig: Initmig, folder: Path) -> Database:
    """A database on which the first migration in *folder* is applied."""
    assert initmig(url=database.url, folder=write(folder, FIRST)).code == 0
    return database


@pytest.mark.parametrize("pending", [{}, SECOND], ids=["nothing-pending", "pending"])
def test_each_command_times_out_on_a_locked_history_and_names_the_holder(
    migrated: Database, initmig: Initmig, folder: Path, pending: dict[str, str]
) -> None:
    write(folder, pending)
    with migrated.connect() as other:
        other.execute("SET application_name = 'the app'")
        other.execute(f"BEGIN; LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE".encode())
        started = [
            initmig.start(*command, "--wait-timeout=2s", url=migrated.url, folder=folder)
            for command in COMMANDS
        ]
        for command, running in zip(COMMANDS, started, strict=True):
            ended = running.result(120)
            problem = f"{command}: {ended.code}\n{ended.out}{ended.err}"
            assert "Traceback" not in ended.err, problem
            if command == ("doctor",):
                # doctor reads the locks, and takes its own with a lock timeout
                assert ended.code in (0, 3, 4), problem
                continue
            assert ended.code == 3, problem
            assert "no-answer" in ended.err, problem
            assert HOLDER in ended.err, problem
            assert f"LOCK TABLE {TABLES}"[:50] in ended.err, problem
        # an abandoned query does not keep waiting in the server, and uses no connection slot
        wait_until(lambda: migrated.value(INITMIG_SESSIONS) == 0)


def test_wait_for_database_does_not_read_the_history(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    with migrated.connect() as other:
        other.execute(f"BEGIN; LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE".encode())
        result = initmig("wait", "--for=database", url=migrated.url, folder=folder)
    assert result.code == 0, result.err


def test_serve_check_names_the_session_that_locks_the_history(
    migrated: Database, folder: Path
) -> None:
    config = parse_config(["serve"], {"DATABASE_URL": migrated.url})
    listing = list_files((str(folder),))
    with migrated.connect() as other:
        other.execute("SET application_name = 'the app'")
        other.execute(f"BEGIN; LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE".encode())
        with pytest.raises(DatabaseUnavailable) as failed:
            check(reading_run(config, listing, lambda _: None, SYSTEM_CLOCK))
    assert failed.value.id == "no-answer"
    assert HOLDER in str(failed.value)
