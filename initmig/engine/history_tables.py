"""Creates the history tables by yoyo's own code, and upgrades those of an older yoyo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yoyo import internalmigrations
from yoyo.internalmigrations import v2

from initmig.core.errors import DatabaseRefused, PlanError
from initmig.core.home import LOCK, LOG, VERSION
from initmig.engine.channel import open_channel
from initmig.engine.recorder import Recorder
from initmig.history import maintenance, store, trust
from initmig.history.location import columns_of, home_of, trusted_home

if TYPE_CHECKING:
    from collections.abc import Collection

    from initmig.engine.channel import Channel
    from initmig.postgres import Session

_CREATED_CONCURRENTLY = ("42P07", "23505")
"""duplicate_table, or unique_violation in pg_type: another session created it concurrently."""


def prepare(channel: Channel, *, upgrades: bool = True) -> Recorder:
    """Create missing history tables, repair the rows of the others; return a recorder for them.

    The caller holds the migration lock and yoyo's lock. If *upgrades* is false, the table of 0.1.0
    is not changed.

    :raises PlanError: the tables are from a newer yoyo, or cannot be trusted
    """
    session, home = channel.session, channel.home
    _create_tables(channel, upgrades=upgrades)
    # under the lock, so that it also checks tables that another session has just created
    trust.require_trusted(session, home)
    position = maintenance.repair(session, home)
    half_applied = frozenset(each.id for each in store.unfinished_migrations(session))
    return Recorder(channel, position=position, half_applied=half_applied)


def create_lock_table(session: Session) -> None:
    """Create yoyo's lock table if it does not exist; stock yoyo may do the same concurrently."""
    if columns_of(session, home_of(session), (LOCK,)):
        return
    try:
        session.query(_channel_to_create(session).yoyo.lock_table_definition)
    except DatabaseRefused as error:
        if error.sqlstate not in _CREATED_CONCURRENTLY:
            raise


def try_create_tables(session: Session) -> None:
    """Try to create the missing tables in the open transaction, which the caller rolls back.

    :raises InitmigError: they cannot be created
    """
    trusted_home(session)
    create_lock_table(session)
    _create_tables(_channel_to_create(session), upgrades=True)


def _channel_to_create(session: Session) -> Channel:
    return open_channel(session, emit=lambda _: None)


def _create_tables(channel: Channel, *, upgrades: bool) -> None:
    """Create missing history tables, and upgrade the tables of an older yoyo.

    :raises PlanError: the tables are from a newer yoyo
    """
    home = channel.home
    existing = columns_of(channel.session, home, home.tables)
    columns = existing.get(home.table, ())
    if "ctime" in columns and "migration_hash" not in columns:
        with channel.transactions.for_own_sql():
            internalmigrations.upgrade(channel.yoyo)  # tables of yoyo before version 6
    else:
        _create_missing_tables(channel, existing)
    channel.batch.send()  # in an outer transaction, no COMMIT has sent the batch
    maintenance.create_own_table(channel.session, home, upgrades=upgrades)


def _create_missing_tables(channel: Channel, existing: Collection[str]) -> None:
    make = {
        channel.home.table: v2.create_migration_table,
        LOG: v2.create_log_table,
        VERSION: v2.create_version_table,
    }
    version = _schema_version(channel, existing)
    missing = [name for name in make if name not in existing]
    if not missing and version is not None:
        return
    with channel.transactions.for_own_sql():
        for name in missing:
            make[name](channel.yoyo)
        if version is None:
            internalmigrations.mark_schema_version(channel.yoyo, _newest_version())


def _schema_version(channel: Channel, existing: Collection[str]) -> int | None:
    """The version of yoyo's tables; None if it is not recorded.

    :raises PlanError: a newer yoyo has changed them
    """
    if VERSION not in existing:
        return None
    table = channel.home.version
    version: int | None
    [(version,)] = channel.session.query(f"SELECT max(version) FROM {table}")
    newest = _newest_version()
    if version is not None and version > newest:
        raise PlanError(
            "newer-yoyo",
            f"a newer yoyo has changed the history tables: {table} has version"
            f" {version}, and this image's yoyo knows versions up to {newest}",
            hint="deploy an image that contains the newer yoyo",
        )
    return version


def _newest_version() -> int:
    return int(max(internalmigrations.schema_versions))
