"""Discards, in the open transaction, the state that a COMMIT and its cleanup would discard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initmig.core.model import Direction, Migration
    from initmig.engine.batch import Batch
    from initmig.engine.channel import Channel

_TEMPORARY_CONSTRAINTS = """
SELECT string_agg(format('%I.%I', n.nspname, c.conname), ', ')
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferrable AND n.oid = pg_my_temp_schema()"""

_CLOSE_CURSORS = """
SELECT string_agg(format('CLOSE %I', name), ';')
FROM pg_cursors WHERE NOT is_holdable AND name <> ''"""

# Runs with the user's search path, which is one of the settings.
_CHANGED_SETTINGS = """
SELECT name, setting, coalesce(reset_val, '') FROM pg_catalog.pg_settings
WHERE source OPERATOR(pg_catalog.=) 'session'
    AND NOT pg_catalog.starts_with(name, 'transaction_')"""


class ChangedSetting(Record):
    """A setting that a session has changed."""

    value: str
    default: str
    """The value after RESET."""


def changed_settings(batch: Batch) -> Mapping[str, ChangedSetting]:
    """The settings that the session has changed, by name."""
    rows = batch.query_by_path(_CHANGED_SETTINGS)
    return {name: ChangedSetting(value, default) for name, value, default in rows}


def reset_settings(channel: Channel, migration: Migration, direction: Direction) -> None:
    """Reset the settings of *migration*, for its record and for the next migration."""
    session = channel.session
    if session.is_dedicated:
        reset = session.reset_sql
    else:  # other settings belong to the pooler and to other clients of this connection
        # imported here, because other runs do not need it
        from initmig.engine.session_state import reset_statements

        made = reset_statements(migration, direction)
        reset = f"{made}RESET SESSION AUTHORIZATION; RESET ROLE; RESET search_path"
    channel.batch.add(f"{reset};{channel.transactions.settings}".rstrip(";"))


def discard_state(channel: Channel, migration: Migration) -> None:
    """Discard the state that *migration* leaves in a dedicated session.

    Advisory locks stay, because the server does not show whether a lock is for the session or the
    transaction.
    """
    reset_settings(channel, migration, "apply")
    channel.batch.add("CLOSE ALL;DEALLOCATE ALL")
    _discard_temporary(channel.batch)


def discard_pooled_state(
    channel: Channel, migration: Migration, original: Mapping[str, ChangedSetting]
) -> None:
    """Discard the state that *migration* leaves in a pooled session and that a ROLLBACK restores.

    *original* are the `changed_settings` before the first migration.
    """
    reset_settings(channel, migration, "apply")
    _close_cursors(channel.batch)
    _undo_set_local(channel.batch, original)
    _discard_temporary(channel.batch)


def _close_cursors(batch: Batch) -> None:
    """Close the cursors that COMMIT would close."""
    [(close,)] = batch.query(_CLOSE_CURSORS)
    if close:
        batch.add(close)


def _undo_set_local(batch: Batch, original: Mapping[str, ChangedSetting]) -> None:
    for name, (value, default) in changed_settings(batch).items():
        before = original[name].value if name in original else default
        if value != before:
            made = f"{quote_literal(name)}, {quote_literal(before)}"
            batch.add(f"SELECT pg_catalog.set_config({made}, true)")


def _discard_temporary(batch: Batch) -> None:
    [(deferrable,)] = batch.query(_TEMPORARY_CONSTRAINTS)
    if deferrable:  # a table with pending trigger events cannot be dropped
        batch.add(f"SET CONSTRAINTS {deferrable} IMMEDIATE")
    batch.add("UNLISTEN *;DISCARD TEMP")
