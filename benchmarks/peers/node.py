"""Tools in JavaScript, all in one `node_modules`."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.installing import install_node_modules, node_package_version
from benchmarks.peers.peer import Peer, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.installing import Home
    from benchmarks.measuring import Command
    from benchmarks.migrations import Migration

_NEEDS: Final = ("node", "npm")


def _version_of(package: str) -> Callable[[Home], str]:
    return partial(node_package_version, package=package)


# --- knex ---

_KNEXFILE = """\
module.exports = {
  client: "pg",
  connection: process.env.DATABASE_URL,
  migrations: { directory: `${__dirname}/migrations` },
};
"""


def _write_knex(folder: Path, migrations: Sequence[Migration]) -> None:
    (folder / "knexfile.js").write_text(_KNEXFILE)
    (folder / "migrations").mkdir()
    for migration in migrations:
        up = f"exports.up = (knex) => knex.raw({json.dumps(migration.sql)});\n"
        down = "exports.down = () => {};\n"
        (folder / "migrations" / f"{migration.id}.js").write_text(up + down)


def _knex(home: Home, folder: Path, url: str) -> Command:
    knexfile = str(folder / "knexfile.js")
    # knex must be found from the folder of its file.
    where = {"DATABASE_URL": url, "NODE_PATH": str(home.node_modules)}
    return home.node_program("knex", "migrate:latest", "--knexfile", knexfile, **where)


KNEX: Final = Peer(
    "knex", "interpreted", install_node_modules, _version_of("knex"), _write_knex, _knex, _NEEDS
)


# --- node-pg-migrate ---


def _node_pg_migrate(home: Home, folder: Path, url: str) -> Command:
    options = ("--migrations-dir", str(folder), "--no-single-transaction")
    return home.node_program("node-pg-migrate", "up", *options, DATABASE_URL=url)


NODE_PG_MIGRATE: Final = Peer(
    "node-pg-migrate",
    "interpreted",
    install_node_modules,
    _version_of("node-pg-migrate"),
    partial(write_files, form="-- Up Migration\n{sql}\n-- Down Migration\n"),
    _node_pg_migrate,
    _NEEDS,
)


# --- graphile-migrate ---


def _write_graphile(folder: Path, migrations: Sequence[Migration]) -> None:
    """Write each file as `graphile-migrate commit` does: with its hash and the previous hash."""
    (folder / ".gmrc").write_text("{}\n")
    committed = folder / "migrations" / "committed"
    committed.mkdir(parents=True)
    before = ""
    for migration in migrations:
        body = migration.sql.strip()
        digest = hashlib.sha1(f"{before}\n{body}".strip().encode() + b"\n").hexdigest()
        header = f"--! Previous: {before or '-'}\n--! Hash: sha1:{digest}\n"
        (committed / f"{migration.number:06}.sql").write_text(f"{header}\n{body}\n")
        before = f"sha1:{digest}"


def _graphile_migrate(home: Home, folder: Path, url: str) -> Command:
    command = home.node_program("graphile-migrate", "migrate", DATABASE_URL=url)
    return command._replace(folder=folder)


GRAPHILE_MIGRATE: Final = Peer(
    "graphile-migrate",
    "interpreted",
    install_node_modules,
    _version_of("graphile-migrate"),
    _write_graphile,
    _graphile_migrate,
    _NEEDS,
)
