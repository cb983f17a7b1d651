"""A migration in SQL, which goes to the server unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yoyo.migrations import Migration as YoyoMigration

from initmig.core.model import Migration, Step
from initmig.engine.batch import Script
from initmig.engine.parts import places_of
from initmig.migrations.files import parse_sql
from initmig.migrations.scaffold import is_template
from initmig.sql.lines import Lines
from initmig.sql.scanner import mentions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.core.events import Emit
    from initmig.core.model import Direction, MigrationFile, Sliceable
    from initmig.engine.channel import Channel
    from initmig.engine.parts import Part
    from initmig.migrations.files import Contents
    from initmig.sql.scanner import Scan


def _shown_rollback(file: MigrationFile, data: bytes, scan: Scan, kept: Sliceable) -> Sliceable:
    """The rollback to show for a step: *kept*, which holds *data*, or empty if not written yet."""
    if not file.rollback_path or is_template(data):
        return b""
    if scan.first is None:
        return f"-- {file.rollback_path} has nothing to undo".encode()
    return kept


class SqlMigration(YoyoMigration):  # type: ignore[misc]
    """A yoyo migration whose SQL initmig splits only if it is not transactional.

    :raises ConfigError: the file or its rollback is not valid; lists every problem of both
    """

    def __init__(self, contents: Contents, emit: Emit) -> None:
        file = contents.file
        super().__init__(file.id, file.path, file.folder)
        source = parse_sql(contents)
        self.use_transactions = source.header.transactional
        both = (source.apply, source.rollback)
        self.sets_isolation = any(mentions(each, ["isolation"]) for each in both)
        self.sets_session = any(mentions(each, ["set"]) for each in both)
        self._scripts: dict[Direction, Script] = {}
        self._parts: dict[Direction, Sequence[Part]] = {"apply": (), "rollback": ()}
        apply: Sliceable = source.apply
        rollback: Sliceable = source.rollback
        if self.use_transactions:
            self._scripts["apply"] = Script.of(file.path, source.apply, source.scan.copies)
            self._scripts["rollback"] = Script.of(
                file.rollback_path, source.rollback, source.rollback_scan.copies
            )
        else:
            from initmig.engine.sql_parts import parts_of

            self._parts["apply"], apply = parts_of(file.path, source.apply, source.scan, emit)
            self._parts["rollback"], rollback = parts_of(
                file.rollback_path, source.rollback, source.rollback_scan, emit
            )
        undoing = _shown_rollback(file, source.rollback, source.rollback_scan, rollback)
        shown = Step(apply, undoing, place_at=Lines(file.path, apply).numbers)
        self.description = Migration(
            file,
            source.checksum,
            *source.header,
            (shown,),
            self,
            source.rollback_checksum,
            places_of(self._parts["apply"]),
            places_of(self._parts["rollback"]),
            source.ignored,
            source.scan.first is not None,
        )

    def run(self, channel: Channel, direction: Direction) -> None:
        """Send the SQL to the server.

        :raises StatementFailed: with its place in the file
        """
        channel.run(self._scripts[direction])

    def statements(self) -> Sequence[Part]:
        """The statements to apply, each to be run in an open transaction."""
        return self.visible_parts("apply")

    def visible_parts(self, direction: Direction) -> Sequence[Part]:
        """The statements that run in the *direction*, for inspection."""
        from initmig.engine.sql_parts import statements_of

        return statements_of(self._scripts[direction])

    def parts(self, direction: Direction) -> Sequence[Part]:
        """The parts that the journal counts, in the order run; empty if it is transactional."""
        return self._parts[direction]
