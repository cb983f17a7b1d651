"""Any role that may connect can take the migration lock's key; whoever waits says who it is."""

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
NO_INITMIG = "a session that holds the migration lock but is not initmig"
NOT_BY_AN_INITMIG = f"timed out after 0.5 s waiting for {NO_INITMIG}"


class Case(NamedTuple):
    """What sessions of a role without any privilege but CONNECT do, and what is said of them."""

    sessions: tuple[str, ...]
    is_migrator: bool = False
    state: str = "idle"
    named: int = 1
    """How many of the sessions, the first ones."""
    more: str = ""
    at_rest: bool = True


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
    "who calls itself an initmig": Case(
        (f"SET application_name = 'initmig'; SELECT {TAKE}",), is_migrator=True
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_holder_is_named_with_its_role_and_the_statement_that_ends_it(
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

        [told, failed] = [
            each for each in result.events if each["event"] in ("waiting_in_queue", "failed")
        ]
        assert result.code == 5
        assert (told["holder_role"], told["is_migrator"]) == (role, case.is_migrator)
        assert told["holder_pid"] == shown[0]
        for pid in shown:
            assert f"pid {pid} (" in told["holder"]
        assert f", user {role}, from 127.0.0.1), connected for " in told["holder"]
        assert told["holder"].endswith(f", {case.state}{case.more}")
        assert told["next_step"].endswith(f" end it: {ending}")
        assert failed["error"] == "queue-timeout"
        assert failed["next"].endswith(f", or raise --queue-timeout; {told['next_step']}")
        assert (NOT_BY_AN_INITMIG in failed["message"]) is not case.is_migrator
        assert (NO_INITMIG in text.err) is not case.is_migrator
        assert f"; {told['next_step']}" in text.err

        [lock] = [each for each in json.loads(examined.out)["checks"] if each["subject"] == "lock"]
        who = "a session that does not belong to initmig holds the migration lock: pid"
        who = "another migrator holds the migration lock: pid" if case.is_migrator else who
        assert lock["found"].startswith(who)
        assert (lock["level"], lock["hint"]) == ("warning", told["next_step"])

        with database.connect() as superuser:
            for each in pids:
                superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [each])
    assert initmig(url=database.url, folder=folder).code == 0


def test_who_is_no_initmig_is_named_before_one_that_looks_whether_the_lock_is_free(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    with database.connect() as looking, database.connect() as other:
        looking.execute(f"SET application_name = 'initmig'; SELECT {SHARE}".encode())
        other.execute(f"SELECT {SHARE}".encode())
        result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
        pids = other.info.backend_pid, looking.info.backend_pid
    assert result.code == 5
    assert f"{NOT_BY_AN_INITMIG}: pid {pids[0]} (no application name" in result.err
    assert f"; pid {pids[1]} (initmig" in result.err


@pytest.mark.parametrize(
    "script",
    [
        "SELECT pg_advisory_lock(hash1, hash2)",  # two numbers are another space of keys
        "SELECT pg_advisory_lock(key + 1)",
    ],
)
def test_other_keys_are_in_nobodys_way(
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


def test_key_of_another_database_is_in_nobodys_way(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    elsewhere = Database(database.url.removesuffix(database.name) + "postgres")
    with elsewhere.connect() as other:
        other.execute(f"SELECT {TAKE}".encode())
        assert initmig("--queue-timeout=1s", url=database.url, folder=folder).code == 0
    assert "a" in database.tables()


def test_initmig_of_another_name_is_one_all_the_same(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute("CREATE TABLE gate ()")
    write(folder, {"0001_gated.sql": f"CREATE TABLE once ();{WAIT_FOR_GATE}"})
    url = f"{database.url}?application_name="
    leader = initmig.start("--log-level=debug", url=f"{url}pod-1", folder=folder)
    leader.wait_for_line("[1/1] 0001_gated")
    result = initmig("--queue-timeout=500ms", "--log-format=json", url=f"{url}pod-2", folder=folder)
    [told, *_] = [each for each in result.events if each["event"] == "waiting_in_queue"]
    assert (told["is_migrator"], told["next_step"]) == (True, "")
    assert "(pod-1, user postgres" in told["holder"]
    database.execute("DROP TABLE gate")
    assert leader.result().code == 0


def test_lock_row_that_cannot_be_read_is_not_waited_for(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "CREATE TABLE b ()"})
    with database.connect(autocommit=False) as other:
        other.execute(f"LOCK TABLE yoyo_lock; SELECT {TAKE}".encode())
        result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
        assert (result.code, result.seconds < 40) == (5, True)
        assert NOT_BY_AN_INITMIG in result.err


def test_prepared_transaction_that_holds_the_key_is_named(
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
    assert (
        f"{NOT_BY_AN_INITMIG}: prepared transaction 'it''s mine' (user {role}), prepared "
        in result.err
    )
    assert "end it: ROLLBACK PREPARED 'it''s mine';" in result.err
    database.execute("ROLLBACK PREPARED 'it''s mine'")
    assert initmig(url=database.url, folder=folder).code == 0
