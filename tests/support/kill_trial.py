"""A run without a fault, and the same run killed or disconnected at each of its messages."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.fork_server import Interruption, KillableRuns
from tests.support.migrations import write
from tests.support.statements import reads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.proxy import Message, Proxy

# Everything that must be equal after two runs: the schema, the data, and the number of records.
_SCHEMA = (
    """SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public'
    ORDER BY table_name, column_name""",
    """SELECT pg_get_indexdef(indexrelid), indisvalid
    FROM pg_index JOIN pg_class ON oid = indexrelid
    WHERE relnamespace = 'public'::regnamespace ORDER BY 1""",
    """SELECT enumtypid::regtype::text, enumlabel FROM pg_enum ORDER BY 1, enumsortorder""",
    """SELECT inhrelid::regclass::text, inhdetachpending FROM pg_inherits ORDER BY 1""",
    """SELECT datname FROM pg_database WHERE datname LIKE current_database() || '%' ORDER BY 1""",
)
_RECORDED = (
    "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc",
    "SELECT migration_id, operation FROM _yoyo_log ORDER BY created_at_utc",
    """SELECT migration_id, checksum, state, statements_done, before FROM _initmig_migration
    ORDER BY finished_at, migration_id""",
    "SELECT version FROM _yoyo_version ORDER BY version",
    # the row of a dead initmig has a negative pid, and blocks only a stock yoyo
    "SELECT pid FROM yoyo_lock WHERE pid > 0",
)
_OF_INITMIG = ("_initmig_migration", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")
_EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"

Snapshot = list[tuple[str, list[tuple[Any, ...]]]]


class Run(NamedTuple):
    """A command, and the files that it runs on."""

    argv: tuple[str, ...]
    files: Mapping[str, str]
    before: tuple[str, ...] = ()
    """The command that has to run first, such as `migrate` before a rollback."""
    databases: tuple[str, ...] = ()
    """The suffixes of the databases that the files create, added to the name of the test's one."""


class KillTrial:
    """Repeats *run* on an empty database."""

    def __init__(
        self,
        run: Run,
        *,
        database: Database,
        proxy: Proxy,
        killable_runs: KillableRuns,
        folder: Path,
    ) -> None:
        self.database = database
        self.proxy = proxy
        self.folder = folder
        self._kind = run
        self._runs = killable_runs
        names = {
            name: text.replace("{database}", database.name) for name, text in run.files.items()
        }
        write(folder, names)
        self.begin()
        done = self.run(proxy.url(database.name))
        assert done == (0, ""), done
        proxy.wait_until_quiet()
        self.messages = [message for message in proxy.messages if message.type != "X"]
        self.undisturbed = self.snapshot()

    def begin(self) -> None:
        """Start from an empty database, or from the result of the command that runs first."""
        self._disturb_nothing()
        self.database.execute(_EMPTY)
        for suffix in self._kind.databases:
            self.database.execute(f'DROP DATABASE IF EXISTS "{self.database.name}{suffix}"')
        if self._kind.before:
            done = self._runs.run(*self._kind.before, url=self.database.url, folder=self.folder)
            assert done.code == 0, done.err

    def _disturb_nothing(self) -> None:
        self.proxy.before = lambda _: "forward"
        self.proxy.after = lambda _: None

    def run(self, url: str) -> tuple[int, str]:
        """Run; return the exit code, and the log at level error."""
        # on a slow machine, the blocker query would add messages to the count
        patient = ["--lock-timeout=1m", "--wait-timeout=20s"]
        argv = [*self._kind.argv, "--log-level=error", *patient]
        done = self._runs.run(*argv, url=url, folder=self.folder)
        return done.code, done.err

    def snapshot(self) -> Snapshot:
        """Everything that must be as after an undisturbed run."""
        tables = sorted(self.database.tables() - set(_OF_INITMIG))
        rows = [f'SELECT * FROM "{table}" AS t ORDER BY t::text' for table in tables]
        queries = [*_SCHEMA, *_RECORDED, *rows]
        with self.database.connect() as connection:
            return [(query, connection.execute(query.encode()).fetchall()) for query in queries]

    def messages_to_interrupt(self, *, answered: bool) -> list[Message]:
        """The messages at which to interrupt: all except farewells, which no side waits for.

        With *answered*, only the messages that the server answers, alone or as the last of several.
        A rollback begins with the same messages as a migration; these are left out.
        """
        begin = 0
        if self._kind.argv[0] != "migrate":
            begin = max(n for n, message in enumerate(self.messages) if _reads_history(message))
        messages = self.messages[begin:]
        return [message for message in messages if not answered or message.type in ("Q", "S")]

    def kill(
        self, message: Message, *, answered: bool, first: Callable[[], object] = lambda: None
    ) -> None:
        """Run, and SIGKILL it at *message*: before the server sees it, or after it has *answered*.

        *first* is called just before that.
        """
        self.begin()
        interruption = self._interruption(message, first)
        code, errors = self._kill(interruption, answered=answered)
        assert (interruption.happened, code) == (True, -signal.SIGKILL), (message, errors)

    def kill_rerun(self, number: int) -> bool:
        """Run again, and kill it before its message *number*; False if it finished before."""
        self._disturb_nothing()
        interruption = Interruption(self.proxy, number)
        code, errors = self._kill(interruption, answered=False)
        assert code == (-signal.SIGKILL if interruption.happened else 0), (number, errors)
        return interruption.happened

    def _interruption(
        self, message: Message, first: Callable[[], object] = lambda: None
    ) -> Interruption:
        return Interruption(self.proxy, self.messages.index(message) + 1, first=first)

    def _kill(self, interruption: Interruption, *, answered: bool) -> tuple[int, str]:
        if answered:
            interruption.kill_after(self._runs)
        else:
            interruption.kill_before(self._runs)
        return self.run(self.proxy.url(self.database.name))

    def cut(self, message: Message, *, answered: bool) -> None:
        """Run until it exits, and close its connection at *message*."""
        self.begin()
        interruption = self._interruption(message)
        if answered:
            interruption.cut_after()
        else:
            interruption.cut_before()
        ended = self.run(self.proxy.url(self.database.name))
        assert (interruption.happened, ended) == (True, (0, "")), message

    def check_rerun(self, message: Message) -> None:
        """Assert that a rerun succeeds, and has the same result as an undisturbed run."""
        assert self.run(self.database.url) == (0, ""), message
        assert self.snapshot() == self.undisturbed, message


def _reads_history(message: Message) -> bool:
    return message.type == "Q" and reads(message.query, "_yoyo_migration", "_yoyo_log")
