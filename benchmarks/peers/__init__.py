"""The tools that initmig is compared with: how to install them, write migrations and run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import node, programs, python

if TYPE_CHECKING:
    from benchmarks.peers.peer import Peer

PEERS: tuple[Peer, ...] = (
    programs.PSQL,
    python.MINIMAL,
    python.INITMIG,
    programs.DBMATE,
    python.YANDEX_PGMIGRATE,
    node.KNEX,
    python.YOYO,
    node.GRAPHILE_MIGRATE,
    node.NODE_PG_MIGRATE,
    python.DJANGO,
    python.ALEMBIC,
    programs.LIQUIBASE,
)
