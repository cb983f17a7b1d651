"""The columns that `verify` compares agree with the catalogs of each PostgreSQL version."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from initmig import postgres
from initmig.commands.verify.catalogs import SOURCES
from initmig.commands.verify.comparison import compare
from initmig.commands.verify.snapshot import take_snapshot
from initmig.config.options import Secret
from tests.support.databases import Database
from tests.support.full_schema import DROP_SUBSCRIPTIONS, full_schema
from tests.support.schema_changes import CHANGES, ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.postgres import Session

pytestmark = pytest.mark.each_version

COLUMNS = """
SELECT relname || '.' || attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND attnum > 0
    AND NOT attisdropped"""

LISTED = {f"{source.catalog}.{column}" for source in SOURCES for column in source.columns}

# Columns that only these versions have.
ONLY_IN_VERSIONS = {
    (14,): "pg_database.datlastsysoid",
    (15, 16): "pg_collation.colliculocale pg_database.daticulocale",
    (14, 15, 16, 17): "pg_attribute.attcacheoff",
    (15, 16, 17, 18): "pg_constraint.confdelsetcols pg_database.datlocprovider"
    " pg_database.datcollversion pg_index.indnullsnotdistinct pg_parameter_acl.oid"
    " pg_parameter_acl.parname pg_parameter_acl.paracl pg_publication_namespace.oid"
    " pg_publication_namespace.pnpubid pg_publication_namespace.pnnspid pg_publication_rel.prqual"
    " pg_publication_rel.prattrs pg_statistic_ext_data.stxdinherit pg_subscription.subskiplsn"
    " pg_subscription.subtwophasestate pg_subscription.subdisableonerr",
    (16, 17, 18): "pg_auth_members.oid pg_auth_members.inherit_option pg_auth_members.set_option"
    " pg_collation.collicurules pg_database.daticurules pg_subscription.subpasswordrequired"
    " pg_subscription.subrunasowner pg_subscription.suborigin",
    (17, 18): "pg_collation.colllocale pg_database.dathasloginevt pg_database.datlocale"
    " pg_subscription.subfailover",
    (18,): "pg_class.relallfrozen pg_constraint.conenforced pg_constraint.conperiod"
    " pg_publication.pubgencols",
}

UNQUALIFIED = "SET LOCAL search_path = public, pg_catalog; "


def version_of(session: Session) -> int:
    return session.connection.server_version // 10000


@contextmanager
def session_in(database: Database) -> Iterator[Session]:
    session = postgres.connect(postgres.Settings(Secret(database.url)))
    session.apply_session_settings()
    try:
        yield session
    finally:
        session.close()


@pytest.fixture
def populated(database: Database) -> Iterator[Session]:
    """A session in a transaction, in a database with the schema from `everything`."""
    with session_in(database) as session:
        session.command(full_schema(version_of(session)))
        session.command("BEGIN")
        yield session
        session.command("ROLLBACK")
        for statement in DROP_SUBSCRIPTIONS:
            session.command(statement)


@contextmanager
def rolled_back(session: Session) -> Iterator[None]:
    session.command("SAVEPOINT before")
    yield
    session.command("ROLLBACK TO before; RELEASE before")


def test_every_catalog_column_is_listed_and_no_others(database: Database) -> None:
    with session_in(database) as session:
        version = version_of(session)
        existing = {name for (name,) in session.command(COLUMNS)}
    assert existing - LISTED == set()
    assert LISTED - existing == {
        name
        for versions, names in ONLY_IN_VERSIONS.items()
        if version not in versions
        for name in names.split()
    }


@pytest.mark.parametrize("first", range(6))
def test_each_change_is_reported_until_it_is_reverted(first: int, populated: Session) -> None:
    version = version_of(populated)
    before = take_snapshot(populated)
    for change in CHANGES[first::6]:
        if version < change.since:
            continue
        with rolled_back(populated) if not change.undo else nullcontext():
            populated.command(UNQUALIFIED + change.do)
            difference = compare(before, take_snapshot(populated))
            assert difference, change
            assert "tell-nobody" not in " ".join(difference)
        if change.undo:
            populated.command(UNQUALIFIED + change.undo)
    assert compare(before, take_snapshot(populated)) == ()


def test_change_in_a_single_column_is_reported(populated: Session) -> None:
    existing = {name for (name,) in populated.command(COLUMNS)}
    before = take_snapshot(populated)
    for number in range(max(len(row.values) for row in ROWS)):
        with rolled_back(populated):
            changed = [
                (row, column)
                for row in ROWS
                for column in [*row.values][number : number + 1]
                if f"{row.catalog}.{column}" in existing
            ]
            for row, column in changed:
                [_] = populated.command(
                    f"{UNQUALIFIED} UPDATE pg_catalog.{row.catalog}"
                    f" SET {column} = {row.values[column]} WHERE {row.where} RETURNING true"
                )
            after = take_snapshot(populated)
            for row, column in changed:
                assert row.object in before
                assert before[row.object] != after.get(row.object), (row.catalog, column)


def test_role_without_privileges_sees_everything_except_secrets(
    populated: Session, database: Database
) -> None:
    populated.command("COMMIT")
    with session_in(Database(database.login_role())) as session:
        seen = take_snapshot(session)
    difference = compare(take_snapshot(populated), seen)
    assert {line.split()[1] for line in difference} == {"subscription", "user"}
