"""--transaction=all applies all pending migrations or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write
from tests.support.statements import commits

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.proxy import Proxy

ALL = "--transaction=all"
FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()')\n",
    "0003_c.sql": "-- depends: 0002_b\nCREATE TABLE c ()",
}


def recorded(database: Database) -> list[str]:
    query = "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc, migration_id"
    return [id for (id,) in database.query(query)]


def test_all_are_applied_in_one_transaction(
    database: Database,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    write(folder, FILES)
    result = initmig(ALL, url=proxy.url(database.name), folder=folder)
    assert result.code == 0, result.err
    assert recorded(database) == ["0001_a", "0002_b", "0003_c"]
    proxy.wait_until_quiet()
    first = next(n for n, query in enumerate(proxy.queries) if FILES["0001_a.sql"] in query)
    assert sum(commits(query) for query in proxy.queries[first:]) == 1
    logged = "SELECT migration_id FROM _yoyo_log ORDER BY created_at_utc"
    assert [id for (id,) in database.query(logged)] == recorded(database)


@pytest.mark.parametrize("broken", ["0002_b.py", "0003_c.sql"])
def test_failure_of_one_migration_rolls_back_all(
    database: Database, initmig: Initmig, folder: Path, broken: str
) -> None:
    failing = {
        "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()')\nstep('SELECT 1/0')\n",
        "0003_c.sql": "CREATE TABLE c ();\nSELECT 1/0",
    }
    write(folder, {**FILES, broken: failing[broken]})
    result = initmig(ALL, url=database.url, folder=folder)
    assert result.code == 1
    assert broken.rpartition(".")[0] in result.err
    assert "division by zero (22012)" in result.err
    assert " applied " not in result.err
    assert recorded(database) == []
    assert {"a", "b", "c"} & database.tables() == set()
    assert database.query("SELECT * FROM yoyo_lock") == []

    write(folder, FILES)
    assert initmig(ALL, url=database.url, folder=folder).code == 0
    assert recorded(database) == ["0001_a", "0002_b", "0003_c"]


def test_failure_of_the_commit_rolls_back_all(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    deferred = (
        "CREATE TABLE p (id int PRIMARY KEY);"
        "CREATE TABLE q (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO q VALUES (1)"
    )
    write(folder, {**FILES, "0002_b.sql": deferred, "0003_c.sql": "CREATE TABLE c ()"})
    (folder / "0002_b.py").unlink()
    result = initmig(ALL, url=database.url, folder=folder)
    assert result.code == 1
    assert "violates foreign key constraint" in result.err
    assert recorded(database) == []
    assert {"a", "p", "q", "c"} & database.tables() == set()


def test_migrations_applied_by_an_earlier_run_are_kept(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": FILES["0001_a.sql"]})
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "CREATE TABLE b ()", "0003_c.sql": "SELECT 1/0"})
    assert initmig(ALL, url=database.url, folder=folder).code == 1
    assert recorded(database) == ["0001_a"]
    assert "b" not in database.tables()


def test_non_transactional_migrations_are_refused_before_anything_runs(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            **FILES,
            "0004_d.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY d ON a ((1));",
            "0005_e.py": "from yoyo import step\n__transactional__ = False\nstep('VACUUM')\n",
        },
    )
    result = initmig(ALL, url=database.url, folder=folder)
    assert result.code == 6
    assert "0004_d, 0005_e [not-transactional]" in result.err
    assert "a" not in database.tables()
    assert recorded(database) == []


def test_non_transactional_migrations_after_the_target_are_ignored(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {**FILES, "0004_d.sql": "-- transactional: false\nVACUUM;"})
    result = initmig(ALL, "--to=0003_c", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert recorded(database) == ["0001_a", "0002_b", "0003_c"]


def test_ignored_error_of_a_step_does_not_abort_the_transaction(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    ignoring = (
        "from yoyo import step\n"
        "step('SELECT 1/0', ignore_errors='apply')\n"
        "step('CREATE TABLE b ()')\n"
    )
    write(folder, {**FILES, "0002_b.py": ignoring})
    result = initmig(ALL, url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert {"a", "b", "c"} < database.tables()


def test_hundreds_of_migrations_fit_in_one_transaction(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {f"{n:04}_x.sql": "SELECT 1" for n in range(300)})
    result = initmig(ALL, url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert database.value("SELECT count(*) FROM _initmig_migration") == 300
