"""Any number of copies run at the same time: each migration is applied once, every copy exits 0."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.proxy import MakeProxy, Message, Verdict
    from tests.support.yoyo import Yoyo

pytestmark = pytest.mark.any_version

# Applying one of these a second time fails.
TRANSACTIONAL = {
    "0001_a.sql": "CREATE TABLE a (id int); INSERT INTO a SELECT generate_series(1, 1000)",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()')\n",
    "0003_c.sql": "ALTER TABLE a ADD c int; SELECT pg_sleep(0.5)",
}
FILES = {
    **TRANSACTIONAL,
    "0004_index.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY a_id ON a (id);",
    "0005_d.sql": "CREATE TABLE d ()",
}


def assert_applied_once(database: Database, ids: list[str]) -> None:
    applied = "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc"
    logged = "SELECT migration_id FROM _yoyo_log ORDER BY created_at_utc"
    assert [id for (id,) in database.query(applied)] == ids
    assert [id for (id,) in database.query(logged)] == ids
    assert database.value("SELECT count(*) FROM a") == 1000
    assert database.query("SELECT * FROM yoyo_lock") == []
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    advisory = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    )
    wait_until(lambda: database.value(advisory) == 0)


def ids(files: dict[str, str]) -> list[str]:
    return [name.rpartition(".")[0] for name in files]


def test_sixteen_copies_apply_each_migration_once_on_an_empty_database(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, FILES)
    copies = [initmig.start(url=database.url, folder=folder) for _ in range(16)]
    results = [copy.result() for copy in copies]
    assert [result.code for result in results] == [0] * 16, "\n".join(
        r.err for r in results if r.code
    )
    assert sum(result.err.count(" applied 000") for result in results) == len(FILES)
    assert_applied_once(database, ids(FILES))


def test_copy_opens_one_connection_at_a_time(
    database: Database,
    server: DatabaseServer,
    make_proxy: MakeProxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    write(folder, FILES)
    proxy = make_proxy(server)
    left: list[int] = []

    def before(message: Message) -> Verdict:
        if message.type == "startup":
            time.sleep(0.5)  # time for the messages of the previous connection to arrive
            left.append(proxy.count("X"))
        return "forward"

    proxy.before = before
    assert initmig(url=proxy.url(database.name), folder=folder).code == 0
    assert left == [0, 1]


def test_sixteen_copies_with_transaction_all_apply_each_migration_once(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, TRANSACTIONAL)
    argv = ["migrate", "--transaction=all"]
    copies = [initmig.start(*argv, url=database.url, folder=folder) for _ in range(16)]
    results = [copy.result() for copy in copies]
    assert [result.code for result in results] == [0] * 16, "\n".join(
        r.err for r in results if r.code
    )
    leaders = [result for result in results if " applied 0001_a" in result.err]
    assert len(leaders) == 1
    assert_applied_once(database, ids(TRANSACTIONAL))


def test_eight_copies_behind_a_transaction_pooler_apply_each_migration_once(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    write(folder, FILES)
    with running_pgbouncer(server) as bouncer:
        url = bouncer.url(database.name)
        copies = [initmig.start("--log-level=debug", url=url, folder=folder) for _ in range(8)]
        results = [copy.result() for copy in copies]
    assert [result.code for result in results] == [0] * 8, "\n".join(
        r.err for r in results if r.code
    )
    assert any("through a pooler" in result.err for result in results)
    assert sum(result.err.count(" applied 000") for result in results) == len(FILES)
    assert_applied_once(database, ids(FILES))


def test_copy_behind_a_transaction_pooler_waits_for_a_direct_copy(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT pg_sleep(60)"})
    direct = initmig.start("--log-level=debug", url=database.url, folder=folder)
    direct.wait_for_line("[1/1] 0001_a")
    with running_pgbouncer(server) as bouncer:
        url = bouncer.url(database.name)
        queued = initmig("--queue-timeout=1s", url=url, folder=folder)
    assert queued.code == 5
    assert "waiting for another migrator: pid" in queued.err
    assert "[queue-timeout]" in queued.err
    direct.terminate()
    assert direct.result().code == 143


@pytest.mark.parametrize("stock", [1, 4])
def test_stock_yoyo_and_initmig_started_together_apply_each_migration_once(
    database: Database, initmig: Initmig, yoyo: Yoyo, folder: Path, stock: int
) -> None:
    write(folder, TRANSACTIONAL)
    # On an empty database, two copies of stock yoyo can fail when both create their tables.
    assert yoyo("list", database=database, folder=folder).code == 0
    copies = [initmig.start(url=database.url, folder=folder) for _ in range(4)]
    copies += [yoyo.start("apply", database=database, folder=folder) for _ in range(stock)]
    results = [copy.result() for copy in copies]
    assert [r.code for r in results] == [0] * len(results), "\n".join(
        r.err for r in results if r.code
    )
    assert_applied_once(database, ids(TRANSACTIONAL))
