"""One kind of run, done undisturbed, and then disturbed at each of its messages."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.forking import Blow, Forking
from tests.support.migrations import write
from tests.support.statements import reads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.proxy import Message, Proxy

# All that two runs must have in common: schema, data, and what is recorded how often.
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
    # a dead initmig's row has a negative one, and is in the way of nobody but a stock yoyo
    "SELECT pid FROM yoyo_lock WHERE pid > 0",
)
_OF_INITMIG = ("_initmig_migration", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")
_EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"

Picture = list[tuple[str, list[tuple[Any, ...]]]]


class Run(NamedTuple):
    """What to do to which files."""

    argv: tuple[str, ...]
    files: Mapping[str, str]
    before: tuple[str, ...] = ()
    """A run that has to come first, as an application before a rollback."""
    databases: tuple[str, ...] = ()
    """What the names of databases end with that the files create, after that of the test's own."""


class Trial:
    """*run* on an empty database, again and again."""

    def __init__(
        self, run: Run, *, database: Database, proxy: Proxy, forking: Forking, folder: Path
    ) -> None:
        self.database = database
        self.proxy = proxy
        self.folder = folder
        self._kind = run
        self._forking = forking
        names = {
            name: text.replace("{database}", database.name) for name, text in run.files.items()
        }
        write(folder, names)
        self.begin()
        done = self.run(proxy.url(database.name))
        assert done == (0, ""), done
        proxy.wait_until_quiet()
        self.messages = [message for message in proxy.messages if message.type != "X"]
        self.undisturbed = self.picture()

    def begin(self) -> None:
        """An empty database, or what the runs begin with."""
        self._disturb_nothing()
        self.database.execute(_EMPTY)
        for suffix in self._kind.databases:
            self.database.execute(f'DROP DATABASE IF EXISTS "{self.database.name}{suffix}"')
        if self._kind.before:
            done = self._forking.run(*self._kind.before, url=self.database.url, folder=self.folder)
            assert done.code == 0, done.err

    def _disturb_nothing(self) -> None:
        self.proxy.before = lambda _: "forward"
        self.proxy.after = lambda _: None

    def run(self, url: str) -> tuple[int, str]:
        """The exit code, and what it says at level error."""
        # the watch would else look on a slow machine, and its messages be counted
        patient = ["--lock-timeout=1m", "--wait-timeout=20s"]
        argv = [*self._kind.argv, "--log-level=error", *patient]
        done = self._forking.run(*argv, url=url, folder=self.folder)
        return done.code, done.err

    def picture(self) -> Picture:
        """Everything that has to be as after an undisturbed run."""
        tables = sorted(self.database.tables() - set(_OF_INITMIG))
        rows = [f'SELECT * FROM "{table}" AS t ORDER BY t::text' for table in tables]
        queries = [*_SCHEMA, *_RECORDED, *rows]
        with self.database.connect() as connection:
            return [(query, connection.execute(query.encode()).fetchall()) for query in queries]

    def blows(self, *, answered: bool) -> list[Message]:
        """The messages to strike at: all but the farewells, which nobody waits for.

        With *answered* those that the server answers by themselves, or as the last of several.
        Where another kind of run begins in the same way, those of the beginning are left out.
        """
        begin = 0
        if self._kind.argv[0] != "migrate":
            begin = max(n for n, message in enumerate(self.messages) if _reads_history(message))
        struck = self.messages[begin:]
        return [message for message in struck if not answered or message.type in ("Q", "S")]

    def kill(
        self, message: Message, *, answered: bool, first: Callable[[], object] = lambda: None
    ) -> None:
        """One run, killed with SIGKILL at *message*: before the server sees it, or *answered*.

        *first* is called just before that.
        """
        self.begin()
        blow = self._blow(message, first)
        code, said = self._kill(blow, answered=answered)
        assert (blow.struck, code) == (True, -signal.SIGKILL), (message, said)

    def kill_rerun(self, number: int, *, answered: bool) -> bool:
        """Whether the run after that was killed as well, at its message *number*."""
        self._disturb_nothing()
        blow = Blow(self.proxy, number)
        code, said = self._kill(blow, answered=answered)
        assert code == (-signal.SIGKILL if blow.struck else 0), (number, said)
        return blow.struck

    def _blow(self, message: Message, first: Callable[[], object] = lambda: None) -> Blow:
        return Blow(self.proxy, self.messages.index(message) + 1, first=first)

    def _kill(self, blow: Blow, *, answered: bool) -> tuple[int, str]:
        if answered:
            blow.kill_after(self._forking)
        else:
            blow.kill_before(self._forking)
        return self.run(self.proxy.url(self.database.name))

    def cut(self, message: Message, *, answered: bool) -> None:
        """One run to its end, whose connection is closed at *message*."""
        self.begin()
        blow = self._blow(message)
        if answered:
            blow.cut_after()
        else:
            blow.cut_before()
        ended = self.run(self.proxy.url(self.database.name))
        assert (blow.struck, ended) == (True, (0, "")), message

    def check_rerun(self, message: Message) -> None:
        """A plain run now ends well, and leaves what an undisturbed one leaves."""
        assert self.run(self.database.url) == (0, ""), message
        assert self.picture() == self.undisturbed, message


def _reads_history(message: Message) -> bool:
    return message.type == "Q" and reads(message.query, "_yoyo_migration", "_yoyo_log")
