"""`baseline` records migrations as applied without running them, to adopt an existing schema."""

from __future__ import annotations

import hashlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import JSON
from tests.support.databases import ASLEEP, WAIT_FOR_GATE
from tests.support.fork_server import Interruption, KillableRuns
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.processes import succeeded
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Result
    from tests.support.proxy import MakeProxy
    from tests.support.yoyo import Yoyo

# If one of the first three ran by mistake, it would leave a table.
FILES = {
    "0001_a.sql": "CREATE TABLE never_1 ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.py": (
        "from yoyo import step\n"
        "__breaking__ = True\n"
        "step('CREATE TABLE never_2 ()', 'DROP TABLE b')\n"
    ),
    "0003_c.sql": "-- transactional: false\nCREATE TABLE never_3 (); VACUUM",
    "0004_d.sql": "-- depends: 0002_b\nCREATE TABLE d ()",
    "post-apply.sql": "CREATE TABLE IF NOT EXISTS hooked ()",
}
IDS = ["0001_a", "0002_b", "0003_c", "0004_d"]
EXISTING = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (); INSERT INTO a VALUES (1)"
BOOKKEEPING = {
    *("_initmig_migration", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock"),
}


@pytest.fixture
def existing(database: Database, folder: Path) -> Database:
    """A database with tables and rows but without a history. The files are in *folder*."""
    database.execute(EXISTING)
    write(folder, FILES)
    return database


def recorded(database: Database) -> list[str]:
    if "_yoyo_migration" not in database.tables():
        return []
    return [
        id
        for (id,) in database.query(
            "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc"
        )
    ]


def logged(database: Database) -> list[tuple[Any, ...]]:
    return database.query("SELECT operation, migration_id FROM _yoyo_log ORDER BY created_at_utc")


def own_rows(database: Database) -> list[tuple[Any, ...]]:
    return database.query(
        "SELECT migration_id, checksum, breaking, state FROM _initmig_migration ORDER BY 1"
    )


def own_row(name: str, *, breaking: bool = False) -> tuple[Any, ...]:
    checksum = hashlib.sha256(FILES[name].encode()).hexdigest()
    return (name.rpartition(".")[0], checksum, breaking, "applied")


def states(initmig: Initmig, database: Database, folder: Path) -> dict[str, str]:
    result = succeeded(initmig("status", "--json", url=database.url, folder=folder))
    return {row["id"]: row["state"] for row in json.loads(result.out)["migrations"]}


def record_events(result: Result) -> list[str]:
    """The events that concern records, with their migration ids, in the order emitted."""
    kinds = ("record_planned", "lock_acquired", "migration_recorded", "finished")
    return [
        " ".join(filter(None, (event["event"], event.get("id"))))
        for event in result.events
        if event["event"] in kinds
    ]


# --- recording ---


def test_records_migrations_up_to_and_including_the_id_and_runs_none(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    result = succeeded(initmig("baseline", "--to=0003_c", url=existing.url, folder=folder))

    assert existing.tables() == {"a", "b"} | BOOKKEEPING
    assert recorded(existing) == IDS[:3]
    assert logged(existing) == [("mark", id) for id in IDS[:3]]
    assert own_rows(existing) == [
        own_row("0001_a.sql"),
        own_row("0002_b.py", breaking=True),
        own_row("0003_c.sql"),
    ]
    assert existing.query("SELECT * FROM yoyo_lock") == []
    assert "info    recorded 3 migrations as applied in" in result.err
    assert states(initmig, existing, folder) == {
        **dict.fromkeys(IDS[:3], "applied"),
        "0004_d": "pending",
    }


def test_planned_records_are_logged_before_the_lock_is_taken(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    result = initmig(
        "baseline",
        "--to=0002",
        "--log-level=debug",
        url=existing.url,
        folder=folder,
        env=JSON,
    )

    assert record_events(result) == [
        "record_planned 0001_a",
        "record_planned 0002_b",
        "lock_acquired",
        "migration_recorded 0001_a",
        "migration_recorded 0002_b",
        "finished",
    ]
    assert result.events[1]["message"].endswith(f": 0001_a ({folder}/0001_a.sql)")


def test_nothing_is_written_before_the_planned_records_are_logged(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    with existing.connect() as other:
        other.execute("CREATE TABLE yoyo_lock (locked INT DEFAULT 1, ctime TIMESTAMP, pid INT)")
        other.execute("ALTER TABLE yoyo_lock ADD PRIMARY KEY (locked)")
        other.execute("INSERT INTO yoyo_lock VALUES (1, now(), 1)")
        running = initmig.start("baseline", "--to=0001", url=existing.url, folder=folder)
        running.wait_for_line("waiting for yoyo")
        assert f": 0001_a ({folder}/0001_a.sql)" in running.err
        assert existing.tables() == {"a", "b", "yoyo_lock"}
        other.execute("DELETE FROM yoyo_lock")
    succeeded(running.result())
    assert recorded(existing) == IDS[:1]


def test_status_shows_no_duration_for_recorded_migrations(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0003", url=existing.url, folder=folder))
    succeeded(initmig("migrate", url=existing.url, folder=folder))
    shown = succeeded(initmig("status", "--json", url=existing.url, folder=folder))
    seconds = [row["duration_seconds"] for row in json.loads(shown.out)["migrations"]]
    assert seconds[:3] == [None, None, None]
    assert seconds[3] > 0


def test_migrate_applies_the_rest_and_runs_the_hooks(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0003", url=existing.url, folder=folder))
    assert "hooked" not in existing.tables()
    succeeded(initmig("migrate", url=existing.url, folder=folder))
    assert existing.tables() == {"a", "b", "d", "hooked"} | BOOKKEEPING
    assert recorded(existing) == IDS


def test_recorded_migration_can_be_rolled_back(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0002", url=existing.url, folder=folder))
    succeeded(initmig("rollback", "--all", url=existing.url, folder=folder))
    assert existing.tables() == BOOKKEEPING
    assert recorded(existing) == []


def test_records_in_the_order_of_the_plan(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.sql": "-- depends: 0003_c\nSELECT 1",
            "0002_b.sql": "SELECT 1",
            "0003_c.sql": "SELECT 1",
        },
    )
    succeeded(initmig("baseline", "--to=0003", url=database.url, folder=folder))
    assert recorded(database) == ["0002_b", "0003_c"]


def test_status_shows_a_file_that_changed_after_baseline(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0001", url=existing.url, folder=folder))
    write(folder, {"0001_a.sql": "SELECT 2"})
    assert states(initmig, existing, folder)["0001_a"] == "changed"


def test_older_image_is_refused_once_a_breaking_migration_is_recorded(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0002", url=existing.url, folder=folder))
    for name in ("0002_b.py", "0004_d.sql"):
        (folder / name).unlink()
    for argv in (["migrate"], ["baseline", "--to=0003"]):
        result = initmig(*argv, url=existing.url, folder=folder)
        assert result.code == 6
        assert "0002_b [image-too-old]" in result.err
    assert recorded(existing) == IDS[:2]


def test_history_is_created_in_the_given_schema(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    url = existing.login_role("CREATE SCHEMA app AUTHORIZATION {role}")
    succeeded(initmig("baseline", "--to=0001", "--schema=app", url=url, folder=folder))
    assert existing.tables("app") == BOOKKEEPING
    assert existing.tables() == {"a", "b"}


# --- existing records ---


def test_applied_migration_is_left_unchanged_and_reported(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE applied ()"})
    succeeded(initmig("migrate", "--to=0001", url=existing.url, folder=folder))
    row = "SELECT m::text, l::text, i::text FROM _yoyo_migration m, _yoyo_log l,"
    row += " _initmig_migration i WHERE (m.migration_id, l.migration_id, i.migration_id)"
    row += " = ('0001_a', '0001_a', '0001_a')"
    before = existing.query(row)
    result = succeeded(initmig("baseline", "--to=0002", url=existing.url, folder=folder))

    assert "already applied, left unchanged: 0001_a\n" in result.err
    assert "recorded 1 migration as applied in" in result.err
    assert recorded(existing) == IDS[:2]
    assert existing.query(row) == before
    assert len(before) == 1


def test_nothing_to_do_is_logged_writes_nothing_and_exits_0(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0003", url=existing.url, folder=folder))
    reader = existing.login_role(
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    again = succeeded(initmig("baseline", "--to=0002", url=reader, folder=folder))
    assert "already applied, left unchanged: 0001_a, 0002_b" in again.err
    assert "nothing to do up to" in again.err
    assert "1 of 4 migrations pending" in again.err
    assert len(logged(existing)) == 3


def test_pending_migration_before_an_applied_id_is_recorded(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    # `migrate --to` would apply it, too
    succeeded(initmig("baseline", "--to=0001", url=existing.url, folder=folder))
    write(folder, {"0000_first.sql": "CREATE TABLE never_0 ()"})
    succeeded(initmig("baseline", "--to=0001", url=existing.url, folder=folder))
    assert recorded(existing) == ["0001_a", "0000_first"]


# --- refusals ---


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--to=0009"], (6, "no migration has the id '0009'")),
        (["--to=000"], (6, "0001_a, 0002_b, 0003_c, 0004_d [ambiguous-id]")),
        (["--to=post-apply"], (6, "no migration has the id 'post-apply'")),
        ([], (2, "`baseline` needs --to ID")),
        (["--to="], (2, "`baseline` needs --to ID")),
        (["--to"], (2, "--to needs a value [invalid-flag]")),
        (["--all"], (2, "`baseline` does not take --all [misplaced-flag]")),
        (["--to=0001", "0002"], (2, "unexpected argument 0002")),
    ],
)
def test_invalid_arguments_are_refused_and_nothing_is_written(
    existing: Database, initmig: Initmig, folder: Path, argv: list[str], expected: tuple[int, str]
) -> None:
    result = initmig("baseline", *argv, url=existing.url, folder=folder)
    code, message = expected
    assert result.code == code
    assert message in result.err
    assert existing.tables() == {"a", "b"}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"0001_a.sql": "COMMIT;"}, "COMMIT would end the transaction"),
        ({"0002_b.py": "raise ValueError('no')"}, "0002_b raised ValueError: no when it was imp"),
        ({"0003_c.sql": "-- depends: 0009\n"}, "0003_c depends on 0009, which does not exist"),
    ],
)
def test_file_that_migrate_cannot_load_is_refused(
    existing: Database, initmig: Initmig, folder: Path, file: dict[str, str], message: str
) -> None:
    write(folder, file)
    result = initmig("baseline", "--to=0003", url=existing.url, folder=folder)
    assert result.code == 2
    assert message in result.err
    assert existing.tables() == {"a", "b"}


def test_half_applied_migration_is_refused(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    text = "-- transactional: false\nCREATE TABLE c (); VACUUM; SELECT 1 / 0"
    write(folder, {"0003_c.sql": text})
    succeeded(initmig("baseline", "--to=0002", url=existing.url, folder=folder))
    assert initmig("migrate", url=existing.url, folder=folder).code == 1
    result = initmig("baseline", "--to=0004", url=existing.url, folder=folder)
    assert result.code == 6
    assert "0003_c is half-applied: interrupted after 2 parts [half-applied]" in result.err
    assert "`initmig migrate`" in result.err
    assert recorded(existing) == IDS[:2]


def test_role_without_write_privileges_on_the_history_records_nothing(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0001", url=existing.url, folder=folder))
    url = existing.login_role(
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT INSERT, UPDATE, DELETE ON yoyo_lock, _yoyo_migration, _initmig_migration TO {role}",
    )
    result = initmig("baseline", "--to=0003", url=url, folder=folder)
    assert result.code == 4
    assert "permission denied for table _yoyo_log (42501)" in result.err
    assert "[missing-privilege]" in result.err
    assert recorded(existing) == IDS[:1]
    assert existing.query("SELECT * FROM yoyo_lock") == []


# --- alongside stock yoyo ---


def test_stock_yoyo_lists_the_records_and_can_unmark_them(
    existing: Database, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    succeeded(initmig("baseline", "--to=0002", url=existing.url, folder=folder))
    listed = succeeded(yoyo("list", database=existing, folder=folder)).out.splitlines()[2:]
    assert [line.split()[:2] for line in listed] == [
        ["A", "0001_a"],
        ["A", "0002_b"],
        ["U", "0003_c"],
        ["U", "0004_d"],
    ]
    succeeded(yoyo("unmark", "--match=0002", database=existing, folder=folder))
    assert states(initmig, existing, folder)["0002_b"] == "pending"
    succeeded(initmig("baseline", "--to=0003", url=existing.url, folder=folder))
    succeeded(yoyo("apply", database=existing, folder=folder))
    assert existing.tables() == {"a", "b", "d", "hooked"} | BOOKKEEPING
    assert [id for id, *_ in own_rows(existing)] == IDS[:3]


def test_writes_the_same_rows_as_yoyo_mark(
    existing: Database, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    def rows() -> list[list[tuple[Any, ...]]]:
        return [
            existing.query("SELECT migration_hash, migration_id FROM _yoyo_migration ORDER BY 2"),
            existing.query(
                "SELECT migration_hash, migration_id, operation FROM _yoyo_log"
                " ORDER BY created_at_utc"
            ),
        ]

    succeeded(yoyo("mark", "--match=000[123]", database=existing, folder=folder))
    by_yoyo = rows()
    existing.execute("DROP TABLE _yoyo_log, _yoyo_migration, _yoyo_version, yoyo_lock")
    succeeded(initmig("baseline", "--to=0003", url=existing.url, folder=folder))
    assert rows() == by_yoyo
    assert len(by_yoyo[1]) == 3


def test_migration_marked_by_yoyo_is_left_unchanged(
    existing: Database, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    succeeded(yoyo("mark", "--match=0001", database=existing, folder=folder))
    result = succeeded(initmig("baseline", "--to=0002", url=existing.url, folder=folder))
    assert "already applied, left unchanged: 0001_a\n" in result.err
    assert logged(existing) == [("mark", "0001_a"), ("mark", "0002_b")]
    assert [id for id, *_ in own_rows(existing)] == ["0001_a", "0002_b"]
    marked_by_yoyo = "SELECT checksum FROM _initmig_migration WHERE migration_id = '0001_a'"
    assert existing.value(marked_by_yoyo) == ""


# --- concurrent, pooled and killed ---


def test_two_concurrent_copies_record_each_migration_once_and_exit_0(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    existing.execute(
        "CREATE TABLE yoyo_lock (locked INT DEFAULT 1, ctime TIMESTAMP, pid INT NOT NULL,"
        " PRIMARY KEY (locked)); INSERT INTO yoyo_lock VALUES (1, now(), 1)"
    )
    copies = [
        initmig.start("baseline", "--to=0003", url=existing.url, folder=folder) for _ in range(2)
    ]
    for copy in copies:
        copy.wait_for_line("waiting for")  # one waits for yoyo, the other one for the first copy
    existing.execute("DELETE FROM yoyo_lock")
    results = [succeeded(copy.result()) for copy in copies]
    assert logged(existing) == [("mark", id) for id in IDS[:3]]
    logs = "".join(result.err for result in results)
    assert logs.count("recorded 3 migrations as applied") == 1
    assert logs.count("nothing to do: another migrator applied") == 1


def test_migration_applied_while_baseline_waits_is_not_recorded_again(
    existing: Database, initmig: Initmig, folder: Path
) -> None:
    existing.execute("CREATE TABLE gate ()")
    write(folder, {"0001_a.sql": f"{WAIT_FOR_GATE} CREATE TABLE applied ()"})
    migrating = initmig.start("migrate", "--to=0001", url=existing.url, folder=folder)
    wait_until(lambda: existing.value(ASLEEP) == 1)
    running = initmig.start("baseline", "--to=0002", url=existing.url, folder=folder)
    running.wait_for_line("waiting for another migrator")
    existing.execute("DROP TABLE gate")
    succeeded(migrating.result())
    result = succeeded(running.result())
    assert "recorded 1 migration as applied in" in result.err
    log = logged(existing)
    assert log.count(("apply", "0001_a")) == 1
    assert [row for row in log if row[0] == "mark"] == [("mark", "0002_b")]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_records_through_a_pooler(
    existing: Database, server: DatabaseServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    with running_pgbouncer(server, pool_mode=mode, default_pool_size=2) as bouncer:
        url = bouncer.url(existing.name)
        succeeded(initmig("baseline", "--to=0003", url=url, folder=folder))
    assert recorded(existing) == IDS[:3]
    assert existing.tables() == {"a", "b"} | BOOKKEEPING
    assert existing.query("SELECT * FROM yoyo_lock") == []


@pytest.mark.any_version
def test_kill_at_any_message_records_all_or_nothing_and_a_rerun_succeeds(
    existing: Database,
    server: DatabaseServer,
    make_proxy: MakeProxy,
    killable_runs: KillableRuns,
    folder: Path,
) -> None:
    argv = ("baseline", "--to=0003", "--log-level=error", "--lock-timeout=1m")
    proxy = make_proxy(server)
    found: list[list[str]] = []
    killed = True
    while killed:
        existing.execute(f"DROP TABLE IF EXISTS {', '.join(BOOKKEEPING)}")
        interruption = Interruption(proxy, len(found) + 1)
        interruption.kill_before(killable_runs)
        done = killable_runs.run(*argv, url=proxy.url(existing.name), folder=folder)
        killed = interruption.happened
        assert done.code == (-signal.SIGKILL if killed else 0), done.err
        found.append(recorded(existing))
        assert found[-1] in ([], IDS[:3])
        again = killable_runs.run(*argv, url=existing.url, folder=folder)
        assert (again.code, recorded(existing)) == (0, IDS[:3]), again.err
        assert logged(existing) == [("mark", id) for id in IDS[:3]]
        assert existing.tables() == {"a", "b"} | BOOKKEEPING
    assert found[0] == []
    assert found[-2:] == [IDS[:3]] * 2  # killed while releasing the lock; not killed
