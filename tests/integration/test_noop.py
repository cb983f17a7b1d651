"""Without pending migrations, the common case, a run sends one read-only query and exits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.statements import kinds, statements
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.processes import Processes
    from tests.support.proxy import MakeProxy, Proxy
    from tests.support.servers import MakeServer, MakeStandby

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()')\n",
    "post-apply.sql": "CREATE TABLE never_again ()",
}
READ_ALL = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
)
LOADED = """
import os, sys
from initmig.cli.main import main
print(main(["migrate"], os.environ), *sys.modules)
"""


@pytest.fixture
def applied(database: Database, initmig: Initmig, folder: Path) -> Database:
    """A database where everything in *folder* is applied."""
    write(folder, FILES)
    assert initmig(url=database.url, folder=folder).code == 0
    return database


def sent(proxy: Proxy) -> list[tuple[str, str]]:
    """The messages of the only client after its login, with the texts of its queries."""
    proxy.wait_until_quiet()
    assert proxy.connections == 1
    messages = [(m.type, m.query if m.type == "Q" else "") for m in proxy.messages]
    return [
        each for each in messages if each[0] not in ("startup", "p", "ssl request", "gss request")
    ]


def assert_one_query(proxy: Proxy, settings: Sequence[str] = ()) -> None:
    """Assert that the client sent only one query, which starts with *settings* and has a guard."""
    (kind, text), terminate = sent(proxy)
    assert (kind, terminate) == ("Q", ("X", ""))
    found = statements(text)
    assert [each.kind for each in found[: len(settings)]] == list(settings)
    saved_path, guard, query = found[len(settings) :]
    assert {each.kind for each in (saved_path, guard, query)} == {"SELECT"}
    # if the table might be a planted one, the guard fails and the query does not run
    assert "pg_class" in guard.relations
    assert "_yoyo_migration" not in guard.relations
    assert "_yoyo_migration" in query.relations


def test_noop_sends_one_query_and_disconnects(
    applied: Database, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    result = initmig(url=proxy.url(applied.name), folder=folder)
    assert result.code == 0
    assert "nothing to do: 2 migrations, all applied" in result.err
    assert_one_query(proxy)


def test_noop_needs_only_select(
    applied: Database, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    reader = applied.login_role(
        "GRANT USAGE ON SCHEMA public TO {role}", "GRANT SELECT ON _yoyo_migration TO {role}"
    )
    result = initmig(url=proxy.through(reader), folder=folder)
    assert result.code == 0, result.err
    assert_one_query(proxy)


def test_noop_sets_schema_and_role_in_the_same_message(
    database: Database, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    database.execute('CREATE SCHEMA "an App"')
    owner = Database(database.login_role('GRANT ALL ON SCHEMA "an App" TO {role}'))
    role = owner.value("SELECT current_user")
    flags = ("--schema", "an App", "--role", role)
    write(folder, FILES)
    assert initmig(*flags, url=database.url, folder=folder).code == 0
    # a login role whose only privilege is SET ROLE
    guest = database.login_role("ALTER ROLE {role} NOINHERIT", f"GRANT {role} TO {{role}}")
    result = initmig(*flags, url=proxy.through(guest), folder=folder)
    assert result.code == 0, result.err
    assert "nothing to do: 2 migrations, all applied" in result.err
    assert_one_query(proxy, ["SET LOCAL role", "SET LOCAL search_path"])
    assert database.tables() == set()
    assert "_yoyo_migration" in database.tables("an App")


def test_noop_works_with_read_only_transactions(
    applied: Database, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    applied.execute(f"ALTER DATABASE {applied.name} SET default_transaction_read_only = on")
    result = initmig(url=proxy.url(applied.name), folder=folder)
    assert result.code == 0, result.err
    assert_one_query(proxy)


def test_noop_works_on_a_standby_and_causes_no_warning_in_the_server_log(
    make_server: MakeServer,
    make_standby: MakeStandby,
    make_proxy: MakeProxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    primary = make_server()
    database = create_database(primary)
    write(folder, FILES)
    assert initmig(url=database.url, folder=folder).code == 0
    schema = ("--schema=public", "--role=postgres")
    since = primary.log_size()
    assert initmig(url=database.url, folder=folder).code == 0
    assert initmig(*schema, url=database.url, folder=folder).code == 0
    assert primary.log_lines_above_log(since=since) == []

    standby = make_standby(primary)
    copy = Database(standby.url(database.name))
    wait_until(lambda: "_initmig_migration" in copy.tables())
    proxy = make_proxy(standby)
    since = standby.log_size()
    result = initmig(url=proxy.url(database.name), folder=folder)
    assert result.code == 0, result.err
    assert_one_query(proxy)
    assert initmig(*schema, url=copy.url, folder=folder).code == 0
    assert standby.log_lines_above_log(since=since) == []


def test_noop_writes_nothing_and_runs_no_hook(
    applied: Database, initmig: Initmig, folder: Path
) -> None:
    applied.execute("DROP TABLE never_again")
    before = applied.query("SELECT xmin::text, * FROM _yoyo_migration")
    logged = applied.value("SELECT count(*) FROM _yoyo_log")
    assert initmig(url=applied.url, folder=folder).code == 0
    assert "never_again" not in applied.tables()
    assert applied.query("SELECT xmin::text, * FROM _yoyo_migration") == before
    assert applied.value("SELECT count(*) FROM _yoyo_log") == logged


def test_noop_does_not_wait_for_the_lock(applied: Database, initmig: Initmig, folder: Path) -> None:
    with applied.connect() as other:
        other.execute("INSERT INTO yoyo_lock VALUES (1, now(), 1)")
        other.execute("BEGIN; LOCK TABLE a, b, yoyo_lock, _yoyo_log")
        result = initmig("--queue-timeout=1s", url=applied.url, folder=folder)
    assert result.code == 0
    assert "nothing to do: 2 migrations, all applied" in result.err


def without_password(url: str, folder: Path) -> dict[str, str]:
    """The environment for *url* with its password in a file in *folder*."""
    password = f":{urlsplit(url).password}"
    write(folder, {"passfile": f"*:*:*:*{password}\n"})
    (folder / "passfile").chmod(0o600)
    return {
        "DATABASE_URL": url.replace(f"{password}@", "@"),
        "PGPASSFILE": str(folder / "passfile"),
    }


def with_tls_file(url: str, folder: Path) -> dict[str, str]:
    write(folder, {"root.crt": ""})
    root = folder / "root.crt"
    return {"DATABASE_URL": url, "PGSSLMODE": "allow", "PGSSLROOTCERT": str(root)}


@pytest.mark.parametrize(
    "environment",
    [lambda url, _: {"DATABASE_URL": url}, without_password, with_tls_file],
    ids=["password", "password file", "TLS file"],
)
def test_noop_imports_only_the_modules_it_needs(
    environment: Callable[[str, Path], dict[str, str]],
    applied: Database,
    initmig: Initmig,
    processes: Processes,
    folder: Path,
) -> None:
    write(folder, {"0003_\u00e9.sql": "SELECT 1", "post-apply.sql": "SELECT 1"})
    assert initmig(url=applied.url, folder=folder).code == 0
    env = environment(applied.url, folder.parent) | {"INITMIG_MIGRATIONS": str(folder)}
    # without `site`, sys.modules has only the imports of initmig
    path = f"import sys; sys.path[:] = {sys.path!r}"
    command = [sys.executable, "-I", "-S", "-c", f"{path}\n{LOADED}"]
    result = processes.start(command, env=env).result()
    code, *modules = result.out.split()
    assert code == "0", result.err
    assert "initmig.commands.migrate" in modules
    ours = {name for name in modules if name.startswith("initmig.")}
    others = ["engine", "locking", "sql", "commands.applying", "commands.serve"]
    others += ["cli.help", "cli.completion", "config.suggestions", "core.events"]
    others += ["config.password_command"]
    others += ["reporting.event_words", "reporting.terminal"]
    assert ours & {f"initmig.{each}" for each in others} == set()
    assert "initmig.postgres.dbapi" not in ours
    foreign = {name.partition(".")[0] for name in modules}
    assert foreign & {"psycopg", "yoyo", "sqlparse", "tenacity", "pgparse", "asyncio"} == set()
    # modules of the standard library that take a millisecond or more
    assert foreign & {"collections", "contextlib", "enum", "functools", "logging"} == set()
    assert foreign & {"datetime", "json", "operator", "random", "re", "signal"} == set()
    assert foreign & {"ctypes", "struct", "types", "typing"} == set()
    assert "unicodedata" not in foreign


def test_noop_does_not_read_the_files(applied: Database, initmig: Initmig, folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink()
        # A regular file whose first byte no user can read, not even root.
        (folder / name).symlink_to("/proc/self/mem")
    assert initmig(url=applied.url, folder=folder).code == 0
    refused = initmig("--changed=fail", url=applied.url, folder=folder)
    assert refused.code == 2
    assert "cannot read" in refused.err


def test_more_queries_are_sent_if_the_database_is_ahead(
    applied: Database, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    (folder / "0002_b.py").unlink()
    result = initmig(url=proxy.url(applied.name), folder=folder)
    assert result.code == 0
    assert "0002_b is applied, but unknown here" in result.err
    # the query of every run, the location of the history, whether it can be trusted, its tables,
    # and their rows
    messages = sent(proxy)
    assert [kind for kind, _ in messages] == ["Q", "Q", "Q", "Q", "Q", "X"]
    found = [kind for _, text in messages for kind in kinds(text)]
    assert set(found) <= {"SELECT", "SET LOCAL search_path"}
