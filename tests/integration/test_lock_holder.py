"""Any role with CONNECT can hold the migration lock. A waiting migrator names the holder."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.databases import WAIT_FOR_GATE, Database
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.servers import MakeServer

KEY = "SELECT pg_catalog.hashtextextended('public', 20261122)"
TAKE = f"pg_advisory_lock(({KEY}))"
SHARE = f"pg_advisory_lock_shared(({KEY}))"
OTHER_SESSION = "a session that holds the migration lock but is not initmig"
TIMED_OUT = f"timed out after 0.5 s waiting for {OTHER_SESSION}"


class Case(NamedTuple):
    """Sessions of a role with only CONNECT, and how initmig describes them."""

    sessions: tuple[str, ...]
    is_migrator: bool = False
    state: str = "idle"
    named: int = 1
    """The number of sessions that are named, starting with the first."""
    more: str = ""


CASES = {
    "exclusive": Case((f"SELECT {TAKE}",)),
    "shared": Case((f"SELECT {SHARE}",)),
    "for the length of a transaction": Case(
        (f"BEGIN; SELECT pg_advisory_xact_lock(({KEY}))",), state="idle in transaction"
    ),
    "in a transaction that has failed": Case(
        (f"SELECT {TAKE}; BEGIN; SELECT 1/0",), state="idle in transaction (aborted)"
    ),
    "twice in one session": Case((f"SELECT {TAKE}, {TAKE}, {SHARE}",)),
    "shared by two": Case((f"SELECT {SHARE}",) * 2, named=2),
    "shared by five": Case((f"SELECT {SHARE}",) * 5, named=3, more="; and 2 more"),
    "another application": Case((f"SET application_name = 'psql'; SELECT {TAKE}",)),
    "with the application name initmig": Case(
        (f"SET application_name = 'initmig'; SELECT {TAKE}",), is_migrator=True
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_holder_is_named_with_its_role_and_the_statement_that_terminates_it(
    initmig: Initmig, database: Database, folder: Path, case: Case
) -> None:
    url = database.login_role()
    role = urlsplit(url).username
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    with ExitStack() as stack:
        pids = []
        for script in case.sessions:
            other = psycopg.connect(url, autocommit=True)
            stack.callback(other.close)
            for statement in script.split("; "):
                with suppress(psycopg.errors.DivisionByZero):
                    other.execute(statement.encode())
            pids.append(other.info.backend_pid)
        options = ("--queue-timeout=500ms", "--log-format=json")
        result = initmig(*options, url=database.url, folder=folder)
        examined = initmig("doctor", "--json", url=database.url, folder=folder)
        text = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
        shown = sorted(pids)[: case.named]
        ending = " ".join(f"SELECT pg_terminate_backend({pid});" for pid in shown)

        [waiting, failed] = [
            each for each in result.events if each["event"] in ("waiting_in_queue", "failed")
        ]
        assert result.code == 5
        assert (waiting["holder_role"], waiting["is_migrator"]) == (role, case.is_migrator)
        assert waiting["holder_pid"] == shown[0]
        for pid in shown:
            assert f"pid {pid} (" in waiting["holder"]
        assert f", user {role}, from 127.0.0.1), connected for " in waiting["holder"]
        assert waiting["holder"].endswith(f", {case.state}{case.more}")
        assert waiting["next_step"].endswith(f" end it: {ending}")
        assert failed["error"] == "queue-timeout"
        assert failed["next"].endswith(f", or raise --queue-timeout; {waiting['next_step']}")
        assert (TIMED_OUT in failed["message"]) is not case.is_migrator
        assert (OTHER_SESSION in text.err) is not case.is_migrator
        assert f"; {waiting['next_step']}" in text.err

        [lock] = [each for each in json.loads(examined.out)["checks"] if each["subject"] == "lock"]
        session = (
            "another migrator" if case.is_migrator else "a session that does not belong to initmig"
        )
        assert lock["found"].startswith(f"{session} holds the migration lock: pid")
        assert (lock["level"], lock["hint"]) == ("warning", waiting["next_step"])

        with database.connect() as superuser:
            for each in pids:
                superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [each])
    assert initmig(url=database.url, folder=folder).code == 0


def test_other_session_is_named_before_an_initmig_that_checks_the_lock(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    with database.connect() as looking, database.connect() as other:
        looking.execute(f"SET application_name = 'initmig'; SELECT {SHARE}".encode())
        other.execute(f"SELECT {SHARE}".encode())
        result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
        pids = other.info.backend_pid, looking.info.backend_pid
    assert result.code == 5
    assert f"{TIMED_OUT}: pid {pids[0]} (no application name" in result.err
    assert f"; pid {pids[1]} (initmig" in result.err


@pytest.mark.parametrize(
    "script",
    [
        "SELECT pg_advisory_lock(hash1, hash2)",  # two-key locks are separate
        "SELECT pg_advisory_lock(key + 1)",
    ],
)
def test_other_advisory_locks_do_not_block(
    initmig: Initmig, database: Database, folder: Path, script: str
) -> None:
    halves = (
        f"(SELECT key, (key >> 32)::int AS hash1, key::bit(32)::int AS hash2 FROM ({KEY}) k(key))"
    )
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    with database.connect() as other:
        other.execute(f"{script} FROM {halves} AS halves".encode())
        assert initmig("--queue-timeout=1s", url=database.url, folder=folder).code == 0
    assert "a" in database.tables()


def test_lock_in_another_database_does_not_block(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    elsewhere = Database(database.url.removesuffix(database.name) + "postgres")
    with elsewhere.connect() as other:
        other.execute(f"SELECT {TAKE}".encode())
        assert initmig("--queue-timeout=1s", url=database.url, folder=folder).code == 0
    assert "a" in database.tables()


def test_initmig_with_another_application_name_is_recognized(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute("CREATE TABLE gate ()")
    write(folder, {"0001_gated.sql": f"CREATE TABLE once ();{WAIT_FOR_GATE}"})
    url = f"{database.url}?application_name="
    leader = initmig.start("--log-level=debug", url=f"{url}pod-1", folder=folder)
    leader.wait_for_line("[1/1] 0001_gated")
    result = initmig("--queue-timeout=500ms", "--log-format=json", url=f"{url}pod-2", folder=folder)
    [waiting, *_] = [each for each in result.events if each["event"] == "waiting_in_queue"]
    assert (waiting["is_migrator"], waiting["next_step"]) == (True, "")
    assert "(pod-1, user postgres" in waiting["holder"]
    database.execute("DROP TABLE gate")
    assert leader.result().code == 0


def test_locked_lock_table_does_not_block_beyond_the_queue_timeout(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "CREATE TABLE b ()"})
    with database.connect(autocommit=False) as other:
        other.execute(f"LOCK TABLE yoyo_lock; SELECT {TAKE}".encode())
        result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
        assert (result.code, result.seconds < 40) == (5, True)
        assert TIMED_OUT in result.err


def test_prepared_transaction_that_holds_the_lock_is_named(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    database = Database(make_server(max_prepared_transactions=1).url())
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    url = database.login_role()
    role = urlsplit(url).username
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("BEGIN")
        other.execute(f"SELECT pg_advisory_xact_lock(({KEY}))".encode())
        other.execute("PREPARE TRANSACTION 'it''s mine'")
    result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
    assert result.code == 5
    assert f"{TIMED_OUT}: prepared transaction 'it''s mine' (user {role}), prepared " in result.err
    assert "end it: ROLLBACK PREPARED 'it''s mine';" in result.err
    database.execute("ROLLBACK PREPARED 'it''s mine'")
    assert initmig(url=database.url, folder=folder).code == 0
