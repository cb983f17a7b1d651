"""The statements of a file that does not run in one transaction, and what they do to one.

PostgreSQL's own parser tells; https://github.com/pganalyze/libpg_query describes its trees.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from initmig.sql.scanner import copy_data, position, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Nothing in the parser keeps `1 + 1 + 1 ...` from overflowing the stack: 70 bytes of it for a
# character, where 8 MB are usual. Of memory a character needs up to 800 bytes.
_MAX_LENGTH = 64 * 1024

_T = TypeVar("_T")

Node = dict[str, Any]
"""A tree, or a part of one, as the parser gives it."""


class CreateIndex(NamedTuple):
    """CREATE INDEX; *name* is as in the catalog, or empty, *table* is quoted."""

    name: str
    table: str
    concurrently: bool


class DropIndexConcurrently(NamedTuple):
    """DROP INDEX CONCURRENTLY; *names* are quoted."""

    names: tuple[str, ...]


class ReindexConcurrently(NamedTuple):
    """REINDEX CONCURRENTLY; *name* is quoted, and empty for the database connected to."""

    what: Literal["index", "table", "schema", "database"]
    name: str


class DetachConcurrently(NamedTuple):
    """ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY; both names are quoted."""

    table: str
    partition: str


class Creates(NamedTuple):
    """CREATE of something that is not in the schemas; *name* is as in the catalog."""

    what: Literal["database", "tablespace", "subscription"]
    name: str


class Drops(NamedTuple):
    """DROP of something that is not in the schemas; *name* is as in the catalog."""

    what: Literal["database", "tablespace", "subscription"]
    name: str


class Alone(NamedTuple):
    """Anything else that the server refuses in a transaction block, as VACUUM."""


class OpensBlock(NamedTuple):
    """BEGIN, START TRANSACTION."""


class EndsBlock(NamedTuple):
    """COMMIT, END; or, without *commits*, ROLLBACK, ABORT, PREPARE TRANSACTION.

    With *chains* the next block begins at once.
    """

    commits: bool
    chains: bool = False


class EndsItsBlocks(NamedTuple):
    """Several statements in one message, with transaction blocks that begin and end among them."""


class SetsSession(NamedTuple):
    """SET, RESET, or SELECT set_config(), that outlasts the transaction.

    *name* is in lower case, or "all".
    """

    name: str


# To be told apart with isinstance() or match: as tuples, Alone() is false and equals OpensBlock().
Kind = (
    CreateIndex
    | DropIndexConcurrently
    | ReindexConcurrently
    | DetachConcurrently
    | Creates
    | Drops
    | Alone
    | OpensBlock
    | EndsBlock
    | EndsItsBlocks
    | SetsSession
)

_ALONE = DropIndexConcurrently | ReindexConcurrently | DetachConcurrently | Creates | Drops | Alone


class Statement(NamedTuple):
    """One SQL statement, from its first token on, without its semicolon; offsets in characters."""

    start: int
    end: int
    text: str
    kind: Kind | None
    """None for what is nothing special, or not known to the parser."""


class Reading(NamedTuple):
    """The statements of a text in order."""

    statements: tuple[Statement, ...]
    fell_back: str
    """Why the parser did not read all of it, and where; else empty."""


def read_statements(text: str) -> Reading:
    """Statements of *text* in order, where the parser fails as `initmig.sql.split` has them."""
    found, fell_back = read_each(text, _kind)
    return Reading(tuple(Statement(*each) for each in found), fell_back)


def read_each(
    text: str, read: Callable[[Node], _T]
) -> tuple[list[tuple[int, int, str, _T | None]], str]:
    """What *read* finds in the tree of each statement of *text*, None where there is no tree.

    Each with its start, end and text, as in `Statement`; beside them why the parser did not read
    all of it, as in `Reading`. One tree is in memory at a time, where the parts are parsed alone.
    """
    parts = split(text)
    found: list[_T | None] = []
    refused = ""
    for part in parts:
        try:
            found.append(read(_only(_parse(part.text))))
        except _Refused as error:
            found.append(None)
            refused = refused or _placed(error, text, part.start)
    if refused and not copy_data(text):  # the parser would take the data for SQL
        with suppress(_Refused):
            return list(_as_parsed(text, read)), ""
    # Where the parser reads each part as one statement, it has no other way to part them.
    each = zip(parts, found, strict=True)
    return [(*part, what) for part, what in each], refused


def nodes(tree: Node) -> Iterator[tuple[str, Node]]:
    """Every node, with the name under which it stands; without recursion, however deep."""
    left: list[tuple[str, Any]] = [("", tree)]
    while left:
        name, value = left.pop()
        if isinstance(value, list):
            left.extend((name, each) for each in value)
        elif isinstance(value, dict):
            yield name, value
            left.extend(value.items())


def runs_alone(kind: Kind | None) -> bool:
    """Whether the server refuses such a statement in a transaction block."""
    return isinstance(kind, _ALONE) or (isinstance(kind, CreateIndex) and kind.concurrently)


class _Refused(Exception):
    """The parser does not read a text, from the character at *offset* on."""

    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__(why)
        self.offset = offset


def _parse(text: str) -> list[Node]:
    """What the parser has for each statement; :raises _Refused: it is no SQL to it."""
    from pgparse import PGQueryError, parse

    if len(text) > _MAX_LENGTH:
        raise _Refused(f"more than {_MAX_LENGTH} characters")
    try:
        parsed: list[Node] = parse(text)
    except PGQueryError as error:
        raise _Refused(error.message, max(0, error.position - 1)) from None
    except RecursionError:
        raise _Refused("nested too deeply") from None
    return parsed


def _placed(refused: _Refused, text: str, start: int) -> str:
    return f"line {position(text, start + refused.offset).line}: {refused}"


def _only(parsed: list[Node]) -> Node:
    if len(parsed) != 1:
        raise _Refused("more statements than one")
    tree: Node = parsed[0]["stmt"]
    return tree


def _as_parsed(text: str, read: Callable[[Node], _T]) -> Iterator[tuple[int, int, str, _T | None]]:
    """The statements as the parser parts them; :raises _Refused: it does not."""
    data = text.encode()
    for each in _parse(text):
        first = each.get("stmt_location", 0)  # in bytes, and before any comment
        after = first + each["stmt_len"] if "stmt_len" in each else len(data)
        start = len(data[:first].decode())
        inside = split(data[first:after].decode())
        start, end = start + inside[0].start, start + inside[-1].end
        yield start, end, text[start:end], read(each["stmt"])


def _kind(tree: Node) -> Kind | None:
    [(name, node)] = tree.items()
    read = _KINDS.get(name)
    return read(node) if read else None


def _create_index(node: Node) -> Kind | None:
    return CreateIndex(node.get("idxname", ""), _relation(node["relation"]), "concurrent" in node)


def _drop(node: Node) -> Kind | None:
    if "concurrent" not in node:
        return None
    names = [each["List"]["items"] for each in node["objects"]]
    return DropIndexConcurrently(
        tuple(_dotted(part["String"]["sval"] for part in name) for name in names)
    )


def _reindex(node: Node) -> Kind | None:
    what = node["kind"].removeprefix("REINDEX_OBJECT_").lower()
    relation = _relation(node["relation"]) if "relation" in node else ""
    if options_of(node).get("concurrently") and what != "system":
        return ReindexConcurrently(what, relation or _quoted(node.get("name", "")))
    return None if relation else Alone()


def _alter_table(node: Node) -> Kind | None:
    match node["cmds"][0]:
        case {"AlterTableCmd": {"def": {"PartitionCmd": {"concurrent": True, "name": partition}}}}:
            return DetachConcurrently(_relation(node["relation"]), _relation(partition))
    return None


def _transaction(node: Node) -> Kind | None:
    match node["kind"].removeprefix("TRANS_STMT_"):
        case "BEGIN" | "START":
            return OpensBlock()
        case "COMMIT" | "ROLLBACK" | "PREPARE" as command:
            return EndsBlock(command == "COMMIT", "chain" in node)
        case "COMMIT_PREPARED" | "ROLLBACK_PREPARED":
            return Alone()
    return None


def _set(node: Node) -> Kind | None:
    name = node.get("name", "all").lower()
    lasts = "is_local" not in node and name not in ("transaction", "transaction snapshot")
    return SetsSession(name) if lasts else None


def _select(node: Node) -> Kind | None:
    match node.get("targetList"):
        case [{"ResTarget": {"val": {"FuncCall": {"funcname": [*_, name], "args": args}}}}]:
            return _set_config(args) if name == {"String": {"sval": "set_config"}} else None
    return None


def _set_config(args: list[Node]) -> Kind | None:
    match args:
        case [
            {"A_Const": {"sval": {"sval": name}}},
            {"A_Const": _},
            {"A_Const": {"boolval": is_local}},
        ] if not is_local:
            return SetsSession(name.lower())
    return None


def _alter_subscription(node: Node) -> Kind | None:
    changes = node["kind"].endswith("_PUBLICATION")
    refreshes = changes and options_of(node).get("refresh", True)
    return Alone() if refreshes or node["kind"].endswith("_REFRESH") else None


def options_of(node: Node) -> dict[str, bool]:
    """The options of a statement by name, and whether the server would take them for on."""
    options = [each["DefElem"] for key in ("options", "params") for each in node.get(key, ())]
    return {option["defname"]: _is_on(option.get("arg")) for option in options}


def _is_on(value: Node | None) -> bool:
    match value:
        case {"Integer": number}:
            return "ival" in number  # 0 is left out
        case {"String": {"sval": word}}:
            return word.lower() not in ("false", "off")
    return True


def _relation(node: Node) -> str:
    keys = ("catalogname", "schemaname", "relname")
    return _dotted(node[key] for key in keys if key in node)


def _dotted(names: Iterable[str]) -> str:
    return ".".join(map(_quoted, names))


def _quoted(name: str) -> str:
    """*name* as SQL has it; without quotes where the parser reads it the same."""
    try:
        parsed = _parse(f"TABLE {name}")
    except _Refused:
        parsed = []
    match parsed:
        case [{"stmt": {"SelectStmt": {"fromClause": [{"RangeVar": {"relname": read}}]}}}]:
            if read == name:
                return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"' if name else ""


def _alone_if(condition: Callable[[Node], bool]) -> Callable[[Node], Kind | None]:
    return lambda node: Alone() if condition(node) else None


_KINDS: dict[str, Callable[[Node], Kind | None]] = {
    "IndexStmt": _create_index,
    "DropStmt": _drop,
    "ReindexStmt": _reindex,
    "AlterTableStmt": _alter_table,
    "CreatedbStmt": lambda node: Creates("database", node["dbname"]),
    "CreateTableSpaceStmt": lambda node: Creates("tablespace", node["tablespacename"]),
    "CreateSubscriptionStmt": lambda node: Creates("subscription", node["subname"]),
    "DropdbStmt": lambda node: Drops("database", node["dbname"]),
    "DropTableSpaceStmt": lambda node: Drops("tablespace", node["tablespacename"]),
    "DropSubscriptionStmt": lambda node: Drops("subscription", node["subname"]),
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "SelectStmt": _select,
    "VacuumStmt": _alone_if(lambda node: "is_vacuumcmd" in node),  # else it is ANALYZE
    "ClusterStmt": _alone_if(lambda node: "relation" not in node),
    "AlterSystemStmt": lambda _: Alone(),
    "AlterDatabaseStmt": _alone_if(lambda node: "tablespace" in options_of(node)),
    "AlterSubscriptionStmt": _alter_subscription,
    "DiscardStmt": _alone_if(lambda node: node["target"] == "DISCARD_ALL"),
}
