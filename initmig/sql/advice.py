"""Safer forms of statements that block other sessions for a long time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from initmig.sql.relations import SERIAL
from initmig.sql.statements import nodes, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from initmig.sql.statements import Node

_IN_TWO = (
    "add it NOT VALID, which does not scan the table, and run VALIDATE CONSTRAINT in the next"
    " migration, which does not block writes"
)
_BLOCKING = "while it blocks reads and writes"
_CONCURRENTLY = "in a separate file with `-- transactional: false`"

_VOLATILE = {
    *("clock_timestamp", "gen_random_uuid", "nextval", "random", "statement_timestamp"),
    *("timeofday", "uuid_generate_v1", "uuid_generate_v4", "uuidv4", "uuidv7"),
}


def advice_on(
    tree: Node, *, breaking: bool, is_checked: Callable[[Node, str], bool]
) -> Iterator[str]:
    """The cost of the statement with this *tree*, and a cheaper form.

    *breaking* is the directive of its migration. *is_checked* takes a RangeVar and a column, and
    returns whether a valid CHECK excludes NULL before the statement.
    """
    return (each for each in _advice_on(tree, is_checked) if not (breaking and each == _BREAKS))


def _advice_on(tree: Node, is_checked: Callable[[Node, str], bool]) -> Iterator[str]:
    [(kind, node)] = tree.items()
    match kind:
        case "AlterTableStmt":
            for each in node["cmds"]:
                yield from _advice_on_command(
                    each["AlterTableCmd"], partial(is_checked, node["relation"])
                )
        case "IndexStmt" if "concurrent" not in node:
            how = f"CREATE INDEX CONCURRENTLY {_CONCURRENTLY}"
            yield f"blocks writes until the index is built: use {how}"
        case "DropStmt" if node["removeType"] == "OBJECT_INDEX" and "concurrent" not in node:
            how = f"DROP INDEX CONCURRENTLY {_CONCURRENTLY}"
            yield f"waits for all queries of the table, and blocks new ones: use {how}"
        case "ReindexStmt" if not options_of(node).get("concurrently"):
            how = f"REINDEX CONCURRENTLY {_CONCURRENTLY}"
            yield f"blocks queries until the index is rebuilt: use {how}"
        case "RefreshMatViewStmt" if "concurrent" not in node:
            how = "CONCURRENTLY, which needs a unique index on the view"
            yield f"blocks reads until it is done: use {how}"
        case "UpdateStmt" | "DeleteStmt" if "whereClause" not in node:
            yield "changes every row in one transaction: change the rows in batches"
        case "RenameStmt" if node["renameType"] in ("OBJECT_TABLE", "OBJECT_COLUMN"):
            yield _BREAKS
        case "DropStmt" if node["removeType"] == "OBJECT_TABLE":
            yield _BREAKS


_BREAKS = (
    "the previous release of the application may still use it: follow"
    " docs/how-to/zero-downtime.md, and put `-- breaking: true` at the top of the file"
)


def _advice_on_command(command: Node, is_checked: Callable[[str], bool]) -> Iterator[str]:
    match command:
        case {"subtype": "AT_DropColumn"}:
            yield _BREAKS
        case {"subtype": "AT_SetNotNull", "name": column} if not is_checked(column):
            yield (
                f"scans the whole table {_BLOCKING}: to avoid the scan, ADD CHECK (... IS NOT NULL)"
                " NOT VALID and VALIDATE it in an earlier migration"
            )
        case {"subtype": "AT_AlterColumnType"}:
            yield (
                f"rewrites the table {_BLOCKING}, unless both types are stored in the same way: add"
                " a new column, fill it in batches, and drop the old one in a later release"
            )
        case {"subtype": "AT_AddColumn", "def": {"ColumnDef": column}} if _rewrites(column):
            yield (
                f"rewrites the table {_BLOCKING}: add the column without the default, then SET"
                " DEFAULT, and fill the old rows in batches"
            )
        case {"subtype": "AT_AddConstraint", "def": {"Constraint": constraint}}:
            yield from _advice_on_constraint(constraint)


def _advice_on_constraint(constraint: Node) -> Iterator[str]:
    match constraint:
        case {"contype": "CONSTR_FOREIGN"} if "skip_validation" not in constraint:
            yield f"scans the table while it blocks writes to both tables: {_IN_TWO}"
        case {"contype": "CONSTR_CHECK"} if "skip_validation" not in constraint:
            yield f"scans the whole table {_BLOCKING}: {_IN_TWO}"
        case {"contype": "CONSTR_UNIQUE" | "CONSTR_PRIMARY"} if "indexname" not in constraint:
            yield (
                f"builds an index {_BLOCKING}: use CREATE UNIQUE INDEX CONCURRENTLY"
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
    """Every constraint in *node*, of a table or of a column."""
    return (each for name, each in nodes(node) if name == "Constraint")


def _dotted(items: Iterable[Node]) -> str:
    return ".".join(item["String"]["sval"] for item in items)
