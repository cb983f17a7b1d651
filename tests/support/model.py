"""Images whose migrations leave traces, and the traces that a database has."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.databases import Database

Kind = Literal["sql", "non-transactional sql", "python", "non-transactional python"]
Piece = Literal["row", "rows", "index", "vacuum", "function", "leftover"]
Direction = Literal["apply", "rollback"]
Policy = Literal["warn", "allow", "fail"]

HOOK = "post-apply"
RAN = "ran"
"""The table that hooks write to; it belongs to the application."""

_T = TypeVar("_T")

_BOOKKEEPING = (
    *("_initmig_migration", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock"),
    *("app_b", "app_b_initmig"),  # of the other application
)


class Failure(NamedTuple):
    """The part of a file that fails, counted from 1 in the direction of the run."""

    direction: Direction
    part: int


class Part(NamedTuple):
    """One statement, or several that the journal treats as one, and their traces."""

    sql: str
    alone: bool = False
    """Whether it is journalled before and after, because it cannot be in a transaction."""
    rows: tuple[int, ...] = ()
    once: bool = False
    """Whether it adds its rows only if they are missing."""
    on_index: str = ""
    does: Literal["", "create", "drop"] = ""
    """Whether it creates or drops the index *on_index*, or otherwise the table."""
    fails: bool = False


class File(NamedTuple):
    """A migration or a hook of an image; each of its parts leaves a trace.

    Doing a part twice always shows: rows have no key, and are counted.
    """

    id: str
    kind: Kind
    pieces: tuple[Piece, ...]
    depends: str = ""
    breaking: bool = False
    reversible: bool = True
    fails: Failure | None = None
    edit_number: int = 0
    """The number of the edit that made the file, which its rows contain."""
    invalid: bool = False
    """Whether the file has an invalid directive."""

    @property
    def is_hook(self) -> bool:
        return self.id.startswith(HOOK)

    @property
    def is_non_transactional(self) -> bool:
        return self.kind.startswith("non-transactional")

    @property
    def is_python(self) -> bool:
        return self.kind.endswith("python")

    @property
    def table(self) -> str:
        return RAN if self.is_hook else self.id

    # --- its parts ---

    def parts(self, direction: Direction) -> tuple[Part, ...]:
        """The parts in the order of execution."""
        kinds = (*(() if self.is_hook else ("table",)), *self.pieces)
        pairs = [self._pair(kind, place) for place, kind in enumerate(kinds, 1)]
        chosen = [apply for apply, _ in pairs]
        if direction == "rollback":
            chosen = [rollback for _, rollback in reversed(pairs)]
        if self.fails and self.fails.direction == direction:
            at = min(self.fails.part, len(chosen)) - 1
            chosen[at] = self._failing(chosen[at])
        return tuple(chosen)

    def _pair(self, kind: str, place: int) -> tuple[Part, Part]:
        """A part, and the part that undoes it."""
        value = self.edit_number * 100 + place * 10
        index = f"{self.table}_{place}"
        if kind == "table":
            create = f"CREATE TABLE {self.table} AS SELECT {value} AS n FROM generate_series(1, 2)"
            drop = f"DROP TABLE {self.table}"
            return Part(create, rows=(value, value), does="create"), Part(drop, does="drop")
        if kind == "index":
            word = "CONCURRENTLY " if self.is_non_transactional else ""
            return (
                Part(
                    f"CREATE INDEX {word}{index} ON {self.table} (n)",
                    self.is_non_transactional,
                    on_index=index,
                    does="create",
                ),
                Part(
                    f"DROP INDEX {word}IF EXISTS {index}",
                    self.is_non_transactional,
                    on_index=index,
                    does="drop",
                ),
            )
        if kind == "vacuum" and self.is_non_transactional:
            return Part(f"VACUUM {self.table}", alone=True), Part(
                f"VACUUM {self.table}", alone=True
            )
        if kind == "function" and self.is_python:
            return self._function(value), self._function(-value)
        if kind == "leftover":
            return self._leftover(place), self._leftover(place)
        return self._row_pair(kind, value)

    def _row_pair(self, kind: str, value: int) -> tuple[Part, Part]:
        if kind == "rows":
            return self._rows(value, value + 1), self._rows(-value, -value - 1)
        return self._rows(value), self._rows(-value)

    def _rows(self, *values: int) -> Part:
        inserts = [f"INSERT INTO {self.table} VALUES ({value})" for value in values]
        if len(inserts) > 1 and self.kind == "non-transactional sql":
            inserts = ["BEGIN", *inserts, "COMMIT"]
        return Part("; ".join(inserts), rows=values)

    def _function(self, value: int) -> Part:
        there = f"SELECT FROM {self.table} WHERE n = {value}"
        sql = f"INSERT INTO {self.table} SELECT {value} WHERE NOT EXISTS ({there})"
        return Part(sql, self.is_non_transactional, rows=(value,), once=True)

    def _leftover(self, place: int) -> Part:
        """A leftover in the session, with the name of an object that another migration creates."""
        if place % 2:
            number = int(self.id.rpartition("_")[2])
            return Part(f"CREATE TEMP TABLE IF NOT EXISTS m_{number + 1:02} (n int)")
        return Part(f"PREPARE left_{place} AS SELECT 1")

    def _failing(self, part: Part) -> Part:
        if part.on_index and part.does == "create":
            # two rows of the table are equal: if it is built concurrently, an invalid index remains
            unique = part.sql.replace("INDEX", "UNIQUE INDEX", 1)
            return part._replace(sql=unique, fails=True)
        sql = f"INSERT INTO {self.table} SELECT 1 / 0"
        if part.alone and not part.once:
            sql = "VACUUM nothing"
        return part._replace(sql=sql, fails=True, rows=(), on_index="", does="")

    # --- its text ---

    @property
    def texts(self) -> dict[str, str]:
        """The texts of the files by name."""
        if self.is_python:
            return {f"{self.id}.py": self._python()}
        directives = {
            "transactional": "maybe"
            if self.invalid
            else str(not self.is_non_transactional).lower(),
            "depends": self.depends,
            "breaking": "true" if self.breaking else "",
        }
        head = [f"-- {name}: {value}" for name, value in directives.items() if value]
        texts = {f"{self.id}.sql": self._sql("apply", head)}
        if self.reversible and not self.is_hook:
            texts[f"{self.id}.rollback.sql"] = self._sql("rollback", [])
        return texts

    def _sql(self, direction: Direction, head: list[str]) -> str:
        statements = [f"{part.sql};" for part in self.parts(direction)]
        return "\n".join([*head, *statements, f"-- edit {self.edit_number}", ""])

    def _python(self) -> str:
        lines = ["from yoyo import step", f"__transactional__ = {not self.is_non_transactional}"]
        if self.depends:
            lines.append(f"__depends__ = {{'{self.depends}'}}")
        if self.breaking:
            lines.append("__breaking__ = True")
        if self.invalid:
            lines.append("raise ValueError")
        steps = zip(self.parts("apply"), reversed(self.parts("rollback")), strict=True)
        for apply, rollback in steps:
            undo = f", {_code(rollback)}" if self.reversible else ""
            lines.append(f"step({_code(apply)}{undo})")
        return "\n".join([*lines, f"# edit {self.edit_number}", ""])

    def checksum(self, direction: Direction = "apply") -> str:
        texts = self.texts
        name = f"{self.id}.rollback.sql"
        if direction == "apply" or self.is_python:
            [name] = [each for each in texts if each != name]
        return hashlib.sha256(texts.get(name, "").encode()).hexdigest()


def _code(part: Part) -> str:
    return f"lambda connection: connection.execute({part.sql!r})" if part.once else repr(part.sql)


class Image(NamedTuple):
    """The files of an image by their ids."""

    files: Mapping[str, File] = {}

    @property
    def migrations(self) -> list[File]:
        """The migrations, sorted by name."""
        return [file for id, file in sorted(self.files.items()) if not file.is_hook]

    @property
    def hooks(self) -> list[File]:
        return [file for id, file in sorted(self.files.items()) if file.is_hook]

    @property
    def texts(self) -> dict[str, str]:
        return {name: text for file in self.files.values() for name, text in file.texts.items()}

    def having(self, file: File) -> Image:
        """This image with *file*, which may replace another one."""
        return Image({**self.files, file.id: file})


class Record(NamedTuple):
    """A record of an applied migration."""

    id: str
    checksum: str
    """Empty if stock yoyo applied it, or if it is half rolled back."""
    breaking: bool


class Progress(NamedTuple):
    """The progress of a half-applied migration."""

    direction: Direction
    checksum: str
    done: int = 0
    doubt: Literal["", "new", "existing"] = ""
    """Whether the next part is in doubt; `existing`: its index existed before, and is valid."""


class State(NamedTuple):
    """Everything that tests observe in a database."""

    applied: tuple[Record, ...] = ()
    """In the order applied."""
    pending_hooks: frozenset[str] = frozenset()
    half_applied: Mapping[str, Progress] = {}
    log: tuple[tuple[str, str], ...] = ()
    """Operations and ids, sorted, because the clock of their times may step."""
    rows: Mapping[str, tuple[int, ...]] = {RAN: ()}
    """The sorted rows of each table."""
    indexes: Mapping[str, bool] = {}
    """Whether each index is valid."""

    def has(self, id: str) -> bool:
        return any(record.id == id for record in self.applied)

    def logged(self, operation: str, id: str) -> State:
        return self._replace(log=tuple(sorted((*self.log, (operation, id)))))

    def without(self, id: str) -> State:
        """This state with *id* not applied."""
        return self._replace(applied=tuple(each for each in self.applied if each.id != id))

    def with_progress(self, file: File, progress: Progress) -> State:
        return self._replace(half_applied={**self.half_applied, file.id: progress})

    def without_progress(self, id: str) -> State:
        return self._replace(half_applied=_without(self.half_applied, id))

    def without_index(self, name: str) -> State:
        return self._replace(indexes=_without(self.indexes, name))

    def without_checksum(self, file: File) -> State:
        """This state while *file* is rolled back: its record has no checksum."""
        return self._replace(
            applied=tuple(
                Record(record.id, "", record.breaking or file.breaking)
                if record.id == file.id and record.checksum
                else record
                for record in self.applied
            )
        )

    def after(self, part: Part, table: str) -> State:
        """This state with the traces of *part*."""
        if part.on_index:
            indexes = _without(self.indexes, part.on_index)
            return self._replace(
                indexes=indexes | {part.on_index: True} if part.does == "create" else indexes
            )
        if part.does == "drop":
            indexes = {k: v for k, v in self.indexes.items() if not k.startswith(f"{table}_")}
            return self._replace(rows=_without(self.rows, table), indexes=indexes)
        there = self.rows.get(table, ())
        if part.once and part.rows[0] in there:
            return self
        return self._replace(rows={**self.rows, table: tuple(sorted((*there, *part.rows)))})


def _without(mapping: Mapping[str, _T], key: str) -> dict[str, _T]:
    return {each: value for each, value in mapping.items() if each != key}


# initmig's record applies only to the application that yoyo's row records. Two rows of the same
# migration count as one; rows without a position are last.
_APPLIED = """
SELECT y.migration_id, CASE i.state WHEN 'applied' THEN i.checksum ELSE '' END,
    coalesce(i.breaking, false)
FROM (SELECT migration_id, max(applied_at_utc) AS at FROM _yoyo_migration GROUP BY 1) y
LEFT JOIN _initmig_migration i
    ON i.migration_id = y.migration_id AND i.finished_at = y.at AT TIME ZONE 'UTC'
WHERE y.migration_id NOT LIKE 'post-apply%' AND y.migration_id NOT LIKE 'rolling back %'
ORDER BY i.position NULLS LAST, y.at"""

_APPLIED_BY_YOYO = """
SELECT migration_id, '', false FROM _yoyo_migration GROUP BY 1 ORDER BY max(applied_at_utc)"""

_OWED = "SELECT migration_id FROM _yoyo_migration WHERE migration_id LIKE 'post-apply%'"

_HALF_APPLIED = """
SELECT migration_id, CASE state WHEN 'applying' THEN 'apply' ELSE 'rollback' END, checksum,
    statements_done,
    CASE WHEN before IS NULL THEN ''
         WHEN EXISTS (SELECT FROM pg_index WHERE indexrelid::text = before AND indisvalid)
         THEN 'existing' ELSE 'new' END
FROM _initmig_migration WHERE state <> 'applied'"""

_LOG = """
SELECT operation, migration_id FROM _yoyo_log
WHERE comment IS DISTINCT FROM 'initmig: app_b' ORDER BY 1, 2"""

_INDEXES = """
SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace
    AND i.indrelid NOT IN (SELECT oid FROM pg_class WHERE relname = ANY (%s))"""


def observe(database: Database) -> State:
    """The current state of *database*."""
    with database.connect() as connection:

        def query(sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
            return connection.execute(sql.encode(), parameters or None).fetchall()

        tables = {
            name for (name,) in query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
        rows = {
            table: tuple(n for (n,) in query(f"SELECT n FROM {table} ORDER BY n"))
            for table in tables - set(_BOOKKEEPING)
        }
        indexes = dict(query(_INDEXES, [list(_BOOKKEEPING)]))
        if "_yoyo_migration" not in tables:
            return State(rows=rows, indexes=indexes)
        own = "_initmig_migration" in tables
        return State(
            tuple(Record(*row) for row in query(_APPLIED if own else _APPLIED_BY_YOYO)),
            frozenset(id for (id,) in query(_OWED)),
            {id: Progress(*progress) for id, *progress in query(_HALF_APPLIED)} if own else {},
            tuple((operation, id) for operation, id in query(_LOG)),
            rows,
            indexes,
        )
