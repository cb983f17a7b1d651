"""No error is among its own causes, so every traceback ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import initmig as library
from initmig.commands.rehearse.rehearse import rehearse
from initmig.config.config import parse_config
from initmig.core.errors import MigrationFailed
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.databases import Database

# The cause of an error depends on the client.
pytestmark = pytest.mark.any_version

IN_PARTS = "-- transactional: false\n"
PYTHON = "from yoyo import step\n"
PYTHON_IN_PARTS = f"{PYTHON}__transactional__ = False\n"
FUNCTION = "def run(connection):\n    connection.execute('SELECT nope')\n"

TRANSACTIONAL = {
    "SQL in a transaction": ("a.sql", "CREATE TABLE a (); SELECT nope"),
    "SQL that the server cannot parse": ("a.sql", "SELECT 'a"),
    "SQL at its COMMIT": (
        "a.sql",
        "CREATE TABLE a (id int UNIQUE INITIALLY DEFERRED); INSERT INTO a VALUES (1), (1)",
    ),
    "SQL that ends its transaction": ("a.sql", "COMMIT; SELECT 1"),
    "SQL that ends the session": ("a.sql", "SELECT pg_terminate_backend(pg_backend_pid())"),
    "Python step in SQL": ("a.py", f"{PYTHON}step('SELECT nope')"),
    "Python function": ("a.py", f"{PYTHON}{FUNCTION}step(run)"),
    "Python function that raises": ("a.py", f"{PYTHON}step(lambda connection: 1 / 0)"),
    "Python function that ends its transaction": (
        "a.py",
        f"{PYTHON}step(lambda connection: connection.execute('SELECT 1; COMMIT'))",
    ),
}
NON_TRANSACTIONAL = {
    "SQL in parts": ("a.sql", f"{IN_PARTS}SELECT 1; SELECT nope"),
    "SQL in parts, outside a transaction": ("a.sql", f"{IN_PARTS}VACUUM nope"),
    "SQL in a block": ("a.sql", f"{IN_PARTS}BEGIN; SELECT nope; COMMIT"),
    "block that ends early": ("a.sql", f"{IN_PARTS}BEGIN; DO 'BEGIN COMMIT; END'; COMMIT"),
    "Python function in parts": ("a.py", f"{PYTHON_IN_PARTS}{FUNCTION}step(run)"),
    "Python function in a block": (
        "a.py",
        f"{PYTHON_IN_PARTS}{FUNCTION}step('BEGIN')\nstep(run)\nstep('COMMIT')",
    ),
    "Python function that leaves a transaction open": (
        "a.py",
        f"{PYTHON_IN_PARTS}step(lambda connection: connection.execute('BEGIN'))",
    ),
}
REFUSED = {
    "Python that cannot be imported": ("a.py", "import nope"),
    "Python that raises when it is imported": ("a.py", "1 / 0"),
    "block without an end": ("a.sql", f"{IN_PARTS}BEGIN; SELECT 1"),
}
FILES = TRANSACTIONAL | NON_TRANSACTIONAL | REFUSED


def causes(error: BaseException, *later: BaseException) -> Iterator[BaseException]:
    """Each error that led to *error*, which led to the *later* ones."""
    for cause in (error.__cause__, error.__context__):
        if cause is not None:
            assert all(cause is not each for each in (error, *later)), f"{cause!r} caused itself"
            yield cause
            yield from causes(cause, error, *later)


@pytest.mark.parametrize(("name", "text"), FILES.values(), ids=FILES)
def test_failed_migration(name: str, text: str, database: Database, folder: Path) -> None:
    write(folder, {name: text})
    with pytest.raises(library.InitmigError) as caught:
        library.migrate(database_url=database.url, migrations=folder)
    list(causes(caught.value))


@pytest.mark.parametrize("name", ["0002_b.sql", "0002_b.py"])
def test_failed_migration_in_one_transaction(name: str, database: Database, folder: Path) -> None:
    _, text = FILES["Python function" if name.endswith(".py") else "SQL in a transaction"]
    write(folder, {"0001_a.sql": "SELECT 1", name: text})
    with pytest.raises(MigrationFailed) as caught:
        library.migrate(database_url=database.url, migrations=folder, transaction="all")
    assert list(causes(caught.value))


def test_migration_that_was_retried(database: Database, folder: Path) -> None:
    write(folder, {"0001_a.sql": "LOCK TABLE busy"})
    database.execute("CREATE TABLE busy ()")
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE busy")
        with pytest.raises(MigrationFailed) as caught:
            library.migrate(
                database_url=database.url, migrations=folder, lock_timeout="50ms", lock_retries=1
            )
    assert list(causes(caught.value))


@pytest.mark.parametrize("transactional", [True, False])
def test_failed_rollback(transactional: bool, database: Database, folder: Path) -> None:
    head = "" if transactional else IN_PARTS
    write(folder, {"a.sql": f"{head}SELECT 1", "a.rollback.sql": "SELECT nope"})
    library.migrate(database_url=database.url, migrations=folder)
    with pytest.raises(MigrationFailed) as caught:
        library.rollback(database_url=database.url, migrations=folder, all=True)
    assert list(causes(caught.value))


@pytest.mark.parametrize(("name", "text"), TRANSACTIONAL.values(), ids=TRANSACTIONAL)
def test_failed_rehearsal(name: str, text: str, database: Database, folder: Path) -> None:
    write(folder, {name: text})
    arguments = ["rehearse", "--database-url", database.url, "--migrations", str(folder)]
    failure: library.InitmigError | None
    try:
        failure = rehearse(parse_config(arguments, {}), lambda _: None).failure
    except library.InitmigError as error:
        failure = error
    assert failure
    list(causes(failure))
