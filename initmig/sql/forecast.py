"""What each statement of a migration will lock, by PostgreSQL's own rules, and what is safer.

Only what PostgreSQL's parser tells: what a function, a DO block or EXECUTE does is not seen. The
lock modes are those of the manual, and of AlterTableGetLockLevel() in PostgreSQL's tablecmds.c:
https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from initmig.sql.locks import LOCK_MODES, strongest
from initmig.sql.source import place_at
from initmig.sql.statements import nodes, options_of, read_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from initmig.errors import Place
    from initmig.model import Migration
    from initmig.sql.statements import Node

_ACCESS_EXCLUSIVE, _EXCLUSIVE = "ACCESS EXCLUSIVE", "EXCLUSIVE"
_SHARE_ROW_EXCLUSIVE, _SHARE = "SHARE ROW EXCLUSIVE", "SHARE"
_SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
_ROW_EXCLUSIVE = "ROW EXCLUSIVE"


class Lock(NamedTuple):
    """A table, as it stands in the statement, or an index whose table it means, and the mode."""

    table: str
    mode: str


class Forecast(NamedTuple):
    """What one statement will do to tables that are there before the migrations run."""

    place: Place
    locks: tuple[Lock, ...]
    advice: tuple[str, ...]
    """Where a safer form exists: what the statement costs, and that form."""


class Finding(NamedTuple):
    """What another tool says of the statement at a place of the file *path*, both from 1."""

    path: str
    line: int
    column: int
    words: str


class _Expected(NamedTuple):
    locks: tuple[Lock, ...]
    advice: tuple[str, ...]
    makes: tuple[str, ...]


def forecast_of(
    migrations: Iterable[Migration], findings: Sequence[Finding] = ()
) -> dict[str, tuple[Forecast, ...]]:
    """By id, what each statement of the *migrations* in SQL will do, in the order of the plan.

    A table that a statement of theirs has made before holds up nobody. To the advice come the
    *findings*.
    """
    made: set[str] = set()
    return {
        migration.id: _with_findings(
            tuple(_forecasts(migration.file.path, step.data, made)),
            [each for each in findings if each.path == migration.file.path],
        )
        for migration in migrations
        if migration.file.is_sql
        for step in migration.steps
    }


def _with_findings(
    forecasts: tuple[Forecast, ...], findings: Iterable[Finding]
) -> tuple[Forecast, ...]:
    """*forecasts* with the *findings*, each at the last statement that begins before it."""
    said: dict[Place, list[str]] = {}
    for finding in findings:
        begun = [
            each.place
            for each in forecasts
            if (each.place.line, each.place.column) <= (finding.line, finding.column)
        ]
        for place in (begun or [each.place for each in forecasts[:1]])[-1:]:
            said.setdefault(place, []).append(finding.words)
    return tuple(
        each._replace(advice=(*each.advice, *said.get(each.place, ()))) for each in forecasts
    )


def _forecasts(path: str, data: bytes, made: set[str]) -> Iterator[Forecast]:
    """What the statements of *data* will do; adds to what is *made*."""
    statements, _ = read_each(data, _expected)
    for start, _, expected in statements:
        if expected is None:
            continue  # the parser does not read it
        locks = tuple(lock for lock in expected.locks if lock.table not in made)
        made.update(expected.makes)
        yield Forecast(place_at(path, data, start), locks, expected.advice if locks else ())


def _expected(tree: Node) -> _Expected:
    [(kind, node)] = tree.items()
    modes: dict[str, list[str]] = {}
    for lock in (*_STATEMENTS.get(kind, _nothing)(node), *_referenced(kind, node)):
        modes.setdefault(lock.table, []).append(lock.mode)
    locks = tuple(Lock(table, strongest(each)) for table, each in modes.items())
    return _Expected(locks, tuple(_advice(kind, node)), tuple(_made(kind, node)))


def _nothing(_: Node) -> Iterator[Lock]:
    return iter(())


# --- locks ---


def _name(node: Node) -> str:
    return ".".join(node[key] for key in ("schemaname", "relname") if key in node)


def _dotted(items: Iterable[Node]) -> str:
    return ".".join(item["String"]["sval"] for item in items)


def _locking(mode: str, key: str = "relation") -> Callable[[Node], Iterator[Lock]]:
    return lambda node: iter([Lock(_name(node[key]), mode)] if key in node else ())


_WEAK_SUBCOMMANDS = {
    **dict.fromkeys(
        (
            *("AT_SetStatistics", "AT_ClusterOn", "AT_DropCluster", "AT_SetOptions"),
            *("AT_ResetOptions", "AT_SetRelOptions", "AT_ResetRelOptions", "AT_ReplaceRelOptions"),
            *("AT_ValidateConstraint", "AT_AttachPartition", "AT_DetachPartitionFinalize"),
        ),
        _SHARE_UPDATE_EXCLUSIVE,
    ),
    **dict.fromkeys(
        (
            *("AT_EnableTrig", "AT_EnableAlwaysTrig", "AT_EnableReplicaTrig", "AT_EnableTrigAll"),
            *("AT_EnableTrigUser", "AT_DisableTrig", "AT_DisableTrigAll", "AT_DisableTrigUser"),
        ),
        _SHARE_ROW_EXCLUSIVE,
    ),
}


def _alter_table(node: Node) -> Iterator[Lock]:
    if node.get("objtype") not in ("OBJECT_TABLE", "OBJECT_MATVIEW"):
        yield Lock(_name(node["relation"]), _ACCESS_EXCLUSIVE)
        return
    for command in _commands(node):
        yield Lock(_name(node["relation"]), _mode_of(command))
        match command.get("def"):
            case {"PartitionCmd": {"name": partition, **rest}}:
                weak = "concurrent" in rest
                yield Lock(_name(partition), _SHARE_UPDATE_EXCLUSIVE if weak else _ACCESS_EXCLUSIVE)


def _commands(node: Node) -> list[Node]:
    return [command["AlterTableCmd"] for command in node["cmds"]]


def _mode_of(command: Node) -> str:
    match command:
        case {"subtype": "AT_AddConstraint", "def": {"Constraint": {"contype": "CONSTR_FOREIGN"}}}:
            return _SHARE_ROW_EXCLUSIVE
        case {"def": {"PartitionCmd": {"concurrent": True}}}:
            return _SHARE_UPDATE_EXCLUSIVE
    return _WEAK_SUBCOMMANDS.get(command["subtype"], _ACCESS_EXCLUSIVE)


def _create_table(node: Node) -> Iterator[Lock]:
    mode = _ACCESS_EXCLUSIVE if "partbound" in node else _SHARE_UPDATE_EXCLUSIVE
    for parent in node.get("inhRelations", ()):
        yield Lock(_name(parent["RangeVar"]), mode)


def _drop(node: Node) -> Iterator[Lock]:
    what = node["removeType"].removeprefix("OBJECT_")
    mode = _SHARE_UPDATE_EXCLUSIVE if "concurrent" in node else _ACCESS_EXCLUSIVE
    for each in node["objects"]:
        if what in ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE"):
            yield Lock(_dotted(each["List"]["items"]), mode)
        elif what in ("TRIGGER", "POLICY", "RULE"):
            yield Lock(_dotted(each["List"]["items"][:-1]), mode)


def _rename(node: Node) -> Iterator[Lock]:
    if "relation" in node:
        weak = node["renameType"] == "OBJECT_INDEX"
        mode = _SHARE_UPDATE_EXCLUSIVE if weak else _ACCESS_EXCLUSIVE
        yield Lock(_name(node["relation"]), mode)


def _several(mode: str) -> Callable[[Node], Iterator[Lock]]:
    return lambda node: (Lock(_name(each["RangeVar"]), mode) for each in node["relations"])


def _index(node: Node) -> Iterator[Lock]:
    weak = "concurrent" in node
    yield Lock(_name(node["relation"]), _SHARE_UPDATE_EXCLUSIVE if weak else _SHARE)


def _reindex(node: Node) -> Iterator[Lock]:
    if "relation" in node:
        # of the table it is SHARE; but every query locks all indexes of its tables
        weak = options_of(node).get("concurrently", False)
        yield Lock(_name(node["relation"]), _SHARE_UPDATE_EXCLUSIVE if weak else _ACCESS_EXCLUSIVE)


def _refresh(node: Node) -> Iterator[Lock]:
    mode = _EXCLUSIVE if "concurrent" in node else _ACCESS_EXCLUSIVE
    yield Lock(_name(node["relation"]), mode)


def _vacuum(node: Node) -> Iterator[Lock]:
    mode = _ACCESS_EXCLUSIVE if options_of(node).get("full") else _SHARE_UPDATE_EXCLUSIVE
    for each in node.get("rels", ()):
        yield Lock(_name(each["VacuumRelation"]["relation"]), mode)


def _copy(node: Node) -> Iterator[Lock]:
    if "is_from" in node:
        yield Lock(_name(node["relation"]), _ROW_EXCLUSIVE)


def _lock(node: Node) -> Iterator[Lock]:
    return _several(LOCK_MODES[node["mode"] - 1])(node)  # the parser counts them from 1


_STATEMENTS: Mapping[str, Callable[[Node], Iterator[Lock]]] = {
    "AlterTableStmt": _alter_table,
    "AlterObjectSchemaStmt": _locking(_ACCESS_EXCLUSIVE),
    "AlterPolicyStmt": _locking(_ACCESS_EXCLUSIVE, "table"),
    "ClusterStmt": _locking(_ACCESS_EXCLUSIVE),
    "CopyStmt": _copy,
    "CreatePolicyStmt": _locking(_ACCESS_EXCLUSIVE, "table"),
    "CreateStmt": _create_table,
    "CreateTrigStmt": _locking(_SHARE_ROW_EXCLUSIVE),
    "DeleteStmt": _locking(_ROW_EXCLUSIVE),
    "DropStmt": _drop,
    "IndexStmt": _index,
    "InsertStmt": _locking(_ROW_EXCLUSIVE),
    "LockStmt": _lock,
    "MergeStmt": _locking(_ROW_EXCLUSIVE),
    "RefreshMatViewStmt": _refresh,
    "ReindexStmt": _reindex,
    "RenameStmt": _rename,
    "RuleStmt": _locking(_ACCESS_EXCLUSIVE),
    "TruncateStmt": _several(_ACCESS_EXCLUSIVE),
    "UpdateStmt": _locking(_ROW_EXCLUSIVE),
    "VacuumStmt": _vacuum,
}


def _referenced(kind: str, node: Node) -> Iterator[Lock]:
    """The tables that new foreign keys refer to."""
    if kind in ("CreateStmt", "AlterTableStmt"):
        for each in _constraints(node):
            if each["contype"] == "CONSTR_FOREIGN":
                yield Lock(_name(each["pktable"]), _SHARE_ROW_EXCLUSIVE)


def _constraints(node: Node) -> Iterator[Node]:
    """Every constraint below *node*, be it a table's or a column's."""
    return (each for name, each in nodes(node) if name == "Constraint")


def _made(kind: str, node: Node) -> Iterator[str]:
    match kind, node:
        case "CreateStmt", {"relation": relation}:
            if "if_not_exists" not in node:
                yield _name(relation)
        case "CreateTableAsStmt", {"into": {"rel": relation}}:
            yield _name(relation)


# --- advice ---

_IN_TWO = (
    "add it NOT VALID, which takes no time, and VALIDATE CONSTRAINT in the next migration, which"
    " blocks no writes"
)
_CONCURRENTLY = "in a file of its own with `-- transactional: false`"

_VOLATILE = {
    *("clock_timestamp", "gen_random_uuid", "nextval", "random", "statement_timestamp"),
    *("timeofday", "uuid_generate_v1", "uuid_generate_v4", "uuidv4", "uuidv7"),
}
_SERIAL = {"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"}


def _advice(kind: str, node: Node) -> Iterator[str]:
    match kind:
        case "AlterTableStmt":
            for command in _commands(node):
                yield from _advice_on(command)
        case "IndexStmt" if "concurrent" not in node:
            yield f"blocks writes until it is built: CREATE INDEX CONCURRENTLY, {_CONCURRENTLY}"
        case "DropStmt" if node["removeType"] == "OBJECT_INDEX" and "concurrent" not in node:
            yield f"waits for, and blocks, everybody: DROP INDEX CONCURRENTLY, {_CONCURRENTLY}"
        case "ReindexStmt" if not options_of(node).get("concurrently"):
            yield f"blocks everybody until it is built: REINDEX CONCURRENTLY, {_CONCURRENTLY}"
        case "RefreshMatViewStmt" if "concurrent" not in node:
            yield "blocks reads until it is done: CONCURRENTLY, with a unique index on the view"
        case "UpdateStmt" | "DeleteStmt" if "whereClause" not in node:
            yield "touches every row in one transaction: do it in portions"
        case "RenameStmt" if node["renameType"] in ("OBJECT_TABLE", "OBJECT_COLUMN"):
            yield _BREAKS
        case "DropStmt" if node["removeType"] == "OBJECT_TABLE":
            yield _BREAKS


_BREAKS = (
    "an application of the release before may still use it: see expand and contract, and"
    " `-- breaking: true`"
)


def _advice_on(command: Node) -> Iterator[str]:
    match command:
        case {"subtype": "AT_DropColumn"}:
            yield _BREAKS
        case {"subtype": "AT_SetNotNull"}:
            yield (
                "reads the whole table while nobody else can: ADD CHECK (... IS NOT NULL) NOT VALID"
                " and VALIDATE it in an earlier migration, then it need not"
            )
        case {"subtype": "AT_AlterColumnType"}:
            yield (
                "rewrites the table while nobody can use it, unless the types are stored alike: add"
                " a new column, fill it in portions, and drop the old one in a later release"
            )
        case {"subtype": "AT_AddColumn", "def": {"ColumnDef": column}} if _rewrites(column):
            yield (
                "rewrites the table while nobody can use it: add the column without the default,"
                " SET DEFAULT, and fill it in portions"
            )
        case {"subtype": "AT_AddConstraint", "def": {"Constraint": constraint}}:
            yield from _advice_on_constraint(constraint)


def _advice_on_constraint(constraint: Node) -> Iterator[str]:
    match constraint:
        case {"contype": "CONSTR_FOREIGN"} if "skip_validation" not in constraint:
            yield f"reads the table while writes to both are blocked: {_IN_TWO}"
        case {"contype": "CONSTR_CHECK"} if "skip_validation" not in constraint:
            yield f"reads the whole table while nobody else can: {_IN_TWO}"
        case {"contype": "CONSTR_UNIQUE" | "CONSTR_PRIMARY"} if "indexname" not in constraint:
            yield (
                "builds an index while nobody can use the table: CREATE UNIQUE INDEX CONCURRENTLY"
                f" {_CONCURRENTLY}, then ADD ... USING INDEX"
            )


def _rewrites(column: Node) -> bool:
    """Whether a new *column* has another value in each row."""
    names = {_dotted(column["typeName"]["names"][-1:])} if "typeName" in column else set()
    if names & _SERIAL:
        return True
    for constraint in _constraints(column):
        if constraint["contype"] in ("CONSTR_IDENTITY", "CONSTR_GENERATED"):
            return True
        if constraint["contype"] == "CONSTR_DEFAULT" and _calls(constraint) & _VOLATILE:
            return True
    return False


def _calls(node: Node) -> set[str]:
    calls = (each for name, each in nodes(node) if name == "FuncCall")
    return {_dotted(call["funcname"][-1:]) for call in calls}
