"""What is safer than a statement that blocks others for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.sql.relations import SERIAL
from initmig.sql.statements import nodes, options_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initmig.sql.statements import Node

_IN_TWO = (
    "add it NOT VALID, which takes no time, and VALIDATE CONSTRAINT in the next migration, which"
    " blocks no writes"
)
_CONCURRENTLY = "in a file of its own with `-- transactional: false`"

_VOLATILE = {
    *("clock_timestamp", "gen_random_uuid", "nextval", "random", "statement_timestamp"),
    *("timeofday", "uuid_generate_v1", "uuid_generate_v4", "uuidv4", "uuidv7"),
}


def advice_on(tree: Node) -> Iterator[str]:
    """What the statement costs that the parser reads as *tree*, and what costs less."""
    [(kind, node)] = tree.items()
    match kind:
        case "AlterTableStmt":
            for each in node["cmds"]:
                yield from _advice_on(each["AlterTableCmd"])
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
    if names & SERIAL:
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


def _constraints(node: Node) -> Iterator[Node]:
    """Every constraint below *node*, be it a table's or a column's."""
    return (each for name, each in nodes(node) if name == "Constraint")


def _dotted(items: Iterable[Node]) -> str:
    return ".".join(item["String"]["sval"] for item in items)
