"""Scratch databases: each is created, used, and dropped."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from initmig import postgres
from initmig.commands.context import with_session
from initmig.commands.verify.embedded import find_programs, running_server
from initmig.config.options import Secret
from initmig.core.errors import ConfigError, DatabaseRefused, InitmigError
from initmig.core.events import ScratchDatabaseLeft
from initmig.core.quoting import USER_SCHEMA
from initmig.migrations.files import read_bytes
from initmig.postgres import Session, quote_identifier
from initmig.postgres.programs import for_programs, in_database
from initmig.sql.masking import secret_values, without_values
from initmig.sql.scanner import octets, spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.postgres import Settings

_PREFIX = "initmig_verify_"


@contextmanager
def scratch_database(run: Run) -> Iterator[Session]:
    """Create a database with the configured baseline and schemas, and yield a session in it.

    The database is on the configured server, or on an embedded one if no URL is set.

    :raises InitmigError: the database cannot be created
    """
    given = run.settings
    with _on_given_server(run) if given.conninfo.read() else _on_own_server(given) as settings:
        if run.config.from_baseline:
            _load(run.config.from_baseline, settings)
        session = postgres.connect(settings)
        try:
            named = (*settings.schema, settings.history_schema)
            _create_schemas(session, [name for name in named if name])
            yield session
        finally:
            session.close()


@contextmanager
def _on_own_server(given: Settings) -> Iterator[Settings]:
    with running_server() as conninfo:
        own = postgres.Settings(Secret(conninfo))
        if given.role:
            _create_owner(own, quote_identifier(given.role))
        yield given._replace(conninfo=own.conninfo, password=own.password)


def _create_owner(settings: Settings, role: str) -> None:
    session = postgres.connect(settings)
    try:
        session.command(f"CREATE ROLE {role}; ALTER DATABASE postgres OWNER TO {role}")
    finally:
        session.close()


@contextmanager
def _on_given_server(run: Run) -> Iterator[Settings]:
    """Create a database and drop it. Changes nothing in the database that the URL names."""
    name = _PREFIX + secrets.token_hex(8)
    attempted: list[str] = []

    def create(session: Session) -> None:
        # CREATE DATABASE cannot run in a transaction, nor in one message with SET LOCAL. If the
        # role does not exist, this raises an error while there is nothing to drop.
        session.apply_session_settings()
        attempted.append(name)
        _create(session, name)

    try:
        with_session(run, create)
        yield in_database(run.settings, name)
    finally:
        if attempted:
            _drop(run, name)


def _create(session: Session, name: str) -> None:
    try:
        session.command(f"CREATE DATABASE {quote_identifier(name)}")
    except DatabaseRefused as error:
        server = error.server
        if not server.lacks_privilege:
            raise
        raise DatabaseRefused(
            "missing-privilege",
            "the role lacks the privilege to create a scratch database",
            hint="run ALTER ROLE ... CREATEDB on this scratch server, or give no URL to use the"
            " embedded PostgreSQL",
            server=server,
        ) from error


def _drop(run: Run, name: str) -> None:
    """Drop the database, even if CREATE was interrupted. If that fails, emit a warning."""
    try:
        session = postgres.connect(run.settings)
        try:
            session.apply_session_settings()
            session.command(f"DROP DATABASE IF EXISTS {quote_identifier(name)} WITH (FORCE)")
        finally:
            session.close()
    except InitmigError as error:
        run.emit(ScratchDatabaseLeft(name, str(error)))


def _create_schemas(session: Session, schemas: Sequence[str]) -> None:
    """Create the schemas of ``--schema`` and ``--history-schema`` before the first migration."""
    for name in schemas:
        if name != USER_SCHEMA and not name.startswith("pg_"):
            session.command(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(name)}")


def _load(path: str, settings: Settings) -> None:
    """Run *path* with psql: a dump has COPY data and commands that only psql knows."""
    with for_programs(settings) as (conninfo, environment):
        done = subprocess.run(
            [_psql(), "-Xq", "--set=ON_ERROR_STOP=1", f"--file={path}", f"--dbname={conninfo}"],
            capture_output=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    if done.returncode:
        raise ConfigError(
            "baseline-not-loaded",
            f"psql cannot load the baseline: {_output(path, done.stderr or done.stdout)}",
            hint="dump it as plain SQL with pg_dump --no-owner --no-privileges; roles that it names"
            " have to exist",
        )


def check_baseline(path: str) -> None:
    """:raises ConfigError: *path* is unreadable, or has no statement because the dump failed"""
    if not any(spans(octets(read_bytes(path)))):
        raise ConfigError(
            "baseline-not-loaded",
            f"the baseline {path} has no statements",
            hint="dump the schema again, and check that pg_dump exits 0",
        )


def _output(path: str, words: str) -> str:
    """The output of psql, without the secrets that it repeats from the dump at *path*."""
    sql = Path(path).read_bytes() if Path(path).is_file() else b""
    return without_values(words.strip(), secret_values(octets(sql)))


def _psql() -> str:
    programs = find_programs()
    found = str(programs / "psql") if programs else shutil.which("psql")
    if found is None:
        raise ConfigError(
            "psql-not-found",
            "--from-baseline needs psql, which is not on PATH",
            hint="install PostgreSQL's client programs, or initmig with its extra `verify`",
        )
    return found
