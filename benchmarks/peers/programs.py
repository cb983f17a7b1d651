"""Tools that are not scripts: psql, a Go program, a Java program."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from benchmarks.installing import install_node_modules, node_package_version, only_file
from benchmarks.measuring import Command, output_of
from benchmarks.peers.peer import Peer, write_files
from dev.programs import find_installation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.installing import Home
    from benchmarks.migrations import Migration


# --- psql: one session, each file and its row in a transaction ---

_HISTORY: Final = "CREATE TABLE history (id text PRIMARY KEY);\n"
_PART: Final = """\
BEGIN;
\\ir {id}.sql
INSERT INTO history VALUES ('{id}');
COMMIT;
"""


def _psql(home: Home, *arguments: str) -> Command:
    own = find_installation().programs / "psql"
    program = str(own) if own.exists() else "psql"
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
    return Command((program, *options, *arguments), home.folder)


def _write_psql(folder: Path, migrations: Sequence[Migration]) -> None:
    write_files(folder, migrations)
    parts = [_PART.format(id=migration.id) for migration in migrations]
    (folder / "all.psql").write_text(_HISTORY + "".join(parts))


def _psql_migrate(home: Home, folder: Path, url: str) -> Command:
    return _psql(home, f"--dbname={url}", f"--file={folder / 'all.psql'}")


def _psql_ask(home: Home, folder: Path, url: str) -> Command:  # noqa: ARG001
    return _psql(home, f"--dbname={url}", "--command=SELECT id FROM history")


def _psql_version(home: Home) -> str:
    return output_of(_psql(home, "--version")).split()[-1]


PSQL: Final = Peer(
    "psql",
    "floor",
    lambda _: None,
    _psql_version,
    _write_psql,
    _psql_migrate,
    ask=_psql_ask,
)


# --- dbmate: the program, without the wrapper script of npm ---


def _dbmate(home: Home, folder: Path, url: str) -> Command:
    options = ("--url", url, "--migrations-dir", str(folder), "--no-dump-schema")
    program = only_file(home.node_modules / "@dbmate", "linux-x64/bin/dbmate")
    return Command((program, *options, "migrate"), home.folder)


DBMATE: Final = Peer(
    "dbmate",
    "compiled",
    install_node_modules,
    partial(node_package_version, package="@dbmate/linux-x64"),
    partial(write_files, form="-- migrate:up\n{sql}\n-- migrate:down\n"),
    _dbmate,
    ("node", "npm"),
)


# --- liquibase ---

_CHANGELOG = """\
<databaseChangeLog
    xmlns="http://www.liquibase.org/xml/ns/dbchangelog"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.liquibase.org/xml/ns/dbchangelog
        http://www.liquibase.org/xml/ns/dbchangelog/dbchangelog-latest.xsd">
    <includeAll path="changes" relativeToChangelogFile="true"/>
</databaseChangeLog>
"""


def _write_liquibase(folder: Path, migrations: Sequence[Migration]) -> None:
    (folder / "changelog.xml").write_text(_CHANGELOG)
    (folder / "changes").mkdir()
    for migration in migrations:
        head = f"--liquibase formatted sql\n--changeset bench:{migration.id}\n"
        (folder / "changes" / f"{migration.id}.sql").write_text(head + migration.sql)


def _liquibase(home: Home, folder: Path, url: str) -> Command:
    parts = urlsplit(url)
    options = (
        f"--url=jdbc:postgresql://{parts.hostname}:{parts.port}{parts.path}?sslmode=disable",
        f"--username={parts.username}",
        f"--password={parts.password}",
        "--changelog-file=changelog.xml",
    )
    root = home.node_modules / "liquibase" / "dist" / "liquibase"
    jar = str(root / "internal" / "lib" / "liquibase-core.jar")
    program = ("java", "-jar", jar, f"--search-path={folder}", "--show-banner=false")
    return Command((*program, "update", *options), home.folder, {"LIQUIBASE_HOME": str(root)})


LIQUIBASE: Final = Peer(
    "liquibase",
    "java",
    install_node_modules,
    partial(node_package_version, package="liquibase"),
    _write_liquibase,
    _liquibase,
    ("node", "npm", "java"),
)
