"""The statements of a non-transactional file, and their effects on a transaction.

PostgreSQL's own parser reads them. Its trees: https://github.com/pganalyze/libpg_query
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from initmig.core.records import Record
from initmig.sql.lines import Lines, offset_of
from initmig.sql.masking import secret_values, without_values
from initmig.sql.scanner import Spans, octets, scan, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from initmig.sql.scanner import Scan

# The parser has no protection against overflowing the stack with `1 + 1 + 1 ...`. A character takes
# 70 bytes of stack, which usually has 8 MB, and up to 800 bytes of memory.
_MAX_LENGTH = 64 * 1024

_T = TypeVar("_T")

Node = dict[str, Any]
"""A tree of the parser, or a part of one."""


class CreateIndex(Record):
    """CREATE INDEX; *name* is as in the catalog, or empty, *table* is quoted."""

    name: str
    table: str
    concurrently: bool


class DropIndexConcurrently(Record):
    """DROP INDEX CONCURRENTLY; *names* are quoted."""

    names: tuple[str, ...]


class ReindexConcurrently(Record):
    """REINDEX CONCURRENTLY; *name* is quoted, and empty for the database connected to."""

    what: Literal["index", "table", "schema", "database"]
    name: str


class DetachConcurrently(Record):
    """ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY; both names are quoted."""

    table: str
    partition: str


class Creates(Record):
    """CREATE of something that is not in the schemas; *name* is as in the catalog."""

    what: Literal["database", "tablespace", "subscription"]
    name: str


class Drops(Record):
    """DROP of something that is not in the schemas; *name* is as in the catalog."""

    what: Literal["database", "tablespace", "subscription"]
    name: str


class NotInTransaction(Record):
    """Any other statement that the server refuses in a transaction block, such as VACUUM."""


class OpensBlock(Record):
    """BEGIN, START TRANSACTION."""


class EndsBlock(Record):
    """COMMIT, END; or, without *commits*, ROLLBACK, ABORT, PREPARE TRANSACTION.

    With *chains* it also begins the next block.
    """

    commits: bool
    chains: bool = False


class EndsItsBlocks(Record):
    """Several statements in one message, with transaction blocks that begin and end among them."""


class SetsSession(Record):
    """SET, RESET, or SELECT set_config(), whose effect outlasts the transaction.

    *name* is in lower case, or "all".
    """

    name: str


# Distinguish them with isinstance() or match.
Kind = (
    CreateIndex
    | DropIndexConcurrently
    | ReindexConcurrently
    | DetachConcurrently
    | Creates
    | Drops
    | NotInTransaction
    | OpensBlock
    | EndsBlock
    | EndsItsBlocks
    | SetsSession
)

_NOT_IN_TRANSACTION = (
    DropIndexConcurrently
    | ReindexConcurrently
    | DetachConcurrently
    | Creates
    | Drops
    | NotInTransaction
)


class Statement(Record):
    """One SQL statement, from its first token on, without its semicolon; offsets in bytes."""

    start: int
    end: int
    text: str
    kind: Kind | None
    """None for an ordinary statement, or if the parser cannot read it."""


class Found(Sequence[tuple[int, int, "_T | None"]]):
    """The start and end of each statement, in bytes, with its result if there is one.

    *results* are by the number of the statement, because few statements have one.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], results: Mapping[int, _T] = {}) -> None:
        self._spans = spans
        self._results = results

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int, _T | None]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, int, _T | None]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return *self._spans[index], self._results.get(index % len(self))


class Reading(Record):
    """The statements of a text in order."""

    statements: tuple[Statement, ...]
    fell_back: str
    """Why and where the parser could not read all of it; otherwise empty."""


def read_statements(data: bytes) -> Reading:
    """The statements of *data* in order, split by the parser or, if it fails, by `scan`."""
    found, fell_back = read_kinds(data)
    statements = (Statement(*each[:2], data[each[0] : each[1]].decode(), each[2]) for each in found)
    return Reading(tuple(statements), fell_back)


def read_kinds(data: bytes, scanned: Scan | None = None) -> tuple[Found[Kind], str]:
    """The same without the text of the statements, as a file can have many or large ones."""
    return read_each(data, _kind, scanned)


def read_each(
    data: bytes, read: Callable[[Node], _T | None], scanned: Scan | None = None
) -> tuple[Found[_T], str]:
    """The start and end of each statement of *data*, with the result of *read* for its tree.

    The second value is as in `Reading`. *scanned* is the `Scan` of *data* as text that is not
    transactional; without it, *data* is scanned here. Only one tree is in memory at a time, unless
    the parser has to split the text.
    """
    scanned = scanned or scan(octets(data), transactional=False)
    results: dict[int, _T] = {}
    refused = ""
    for number, (start, _, tree, error) in enumerate(_parse_each(data, scanned.statements)):
        result = None if tree is None else read(tree)
        if result is not None:
            results[number] = result
        refused = refused or (_placed(error, data, start) if error else "")
    if refused and not scanned.copies:  # the parser would take the data for SQL
        with suppress(_Refused):
            split = list(_as_parsed(data, read))
            results = {n: each[2] for n, each in enumerate(split) if each[2] is not None}
            return Found(Spans(each[:2] for each in split), results), ""
    # If the parser reads each statement by itself, it would split the text in the same way.
    return Found(scanned.statements, results), refused


def parsed(data: bytes) -> Iterator[Parsed]:
    """Each statement of *data* in order, split as in `read_each`, but read one by one."""
    if len(data) > _MAX_LENGTH:  # which the parser does not split
        yield from _parse_each(data, spans(octets(data)))
        return
    scanned = scan(octets(data), transactional=False)
    found = list(_parse_each(data, scanned.statements))
    if any(each.error for each in found) and not scanned.copies:
        with suppress(_Refused):
            found = [Parsed(*each) for each in _as_parsed(data, lambda tree: tree)]
    yield from found


def _parse_each(data: bytes, statements: Iterable[tuple[int, int]]) -> Iterator[Parsed]:
    for start, end in statements:
        try:
            yield Parsed(start, end, _only(_parse(data, start, end)))
        except _Refused as error:
            yield Parsed(start, end, None, error)


def nodes(tree: Node) -> Iterator[tuple[str, Node]]:
    """Every node with its name in its parent. Deep trees need no recursion."""
    left: list[tuple[str, Any]] = [("", tree)]
    while left:
        name, value = left.pop()
        if isinstance(value, list):
            left.extend((name, each) for each in value)
        elif isinstance(value, dict):
            yield name, value
            left.extend(value.items())


def trees(sql: bytes) -> list[Node] | None:
    """The tree of each statement of *sql*; None if PostgreSQL's parser cannot read it."""
    with suppress(_Refused):
        return [each["stmt"] for each in _parse(sql)]
    return None


def cannot_run_in_transaction(kind: Kind | None) -> bool:
    """Whether the server refuses such a statement in a transaction block."""
    return isinstance(kind, _NOT_IN_TRANSACTION) or (
        isinstance(kind, CreateIndex) and kind.concurrently
    )


class _Refused(Exception):
    """The parser cannot read a text, from the character at *offset* on."""

    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__(why)
        self.offset = offset


class Parsed(Record):
    """One statement, by its offsets in bytes, and its tree, or the parser's error."""

    start: int
    end: int
    tree: Node | None
    error: _Refused | None = None


def _parse(data: bytes, start: int = 0, end: int | None = None) -> list[Node]:
    """The tree of each statement; :raises _Refused: the parser cannot read the text."""
    from pgparse import PGQueryError, parse

    end = len(data) if end is None else end
    text = data[start : min(end, start + 4 * _MAX_LENGTH + 1)].decode(errors="replace")
    if len(text) > _MAX_LENGTH:
        raise _Refused(f"more than {_MAX_LENGTH} characters")
    try:
        parsed: list[Node] = parse(text)
    except PGQueryError as error:
        # it quotes what it cannot read
        words = without_values(error.message, secret_values(octets(data[start:end])))
        raise _Refused(words, max(0, error.position - 1)) from None
    except RecursionError:
        raise _Refused("nested too deeply") from None
    return parsed


def _placed(refused: _Refused, data: bytes, start: int) -> str:
    offset = offset_of(data, start, refused.offset)
    return f"line {Lines('', data).numbers(offset).line}: {refused}"


def _only(parsed: list[Node]) -> Node:
    if len(parsed) != 1:
        raise _Refused("more than one statement")
    tree: Node = parsed[0]["stmt"]
    return tree


def _as_parsed(
    data: bytes, read: Callable[[Node], _T | None]
) -> Iterator[tuple[int, int, _T | None]]:
    """The statements as the parser splits them; :raises _Refused: it cannot read the text.

    The parser's parts include comments, so each part is tokenized to find its first token.
    """
    for each in _parse(data):
        first = each.get("stmt_location", 0)  # before any comment
        after = first + each["stmt_len"] if "stmt_len" in each else len(data)
        inside = list(spans(octets(data[first:after])))
        yield first + inside[0][0], first + inside[-1][1], read(each["stmt"])


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
    return None if relation else NotInTransaction()


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
            return NotInTransaction()
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


def _create_subscription(node: Node) -> Kind | None:
    options = options_of(node)
    makes_slot = options.get("create_slot", options.get("connect", True))
    return Creates("subscription", node["subname"]) if makes_slot else None


def _alter_subscription(node: Node) -> Kind | None:
    options = options_of(node)
    changes = node["kind"].endswith("_PUBLICATION")
    refreshes = changes and options.get("refresh", True)
    is_refused = refreshes or node["kind"].endswith("_REFRESH") or "failover" in options
    return NotInTransaction() if is_refused else None


def options_of(node: Node) -> dict[str, bool]:
    """The options of a statement by name, and whether the server would consider them on."""
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
    """*name* in SQL, quoted only if the parser reads it differently without quotes."""
    try:
        parsed = _parse(f"TABLE {name}".encode())
    except _Refused:
        parsed = []
    match parsed:
        case [{"stmt": {"SelectStmt": {"fromClause": [{"RangeVar": {"relname": read}}]}}}]:
            if read == name:
                return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"' if name else ""


def _not_in_transaction_if(condition: Callable[[Node], bool]) -> Callable[[Node], Kind | None]:
    return lambda node: NotInTransaction() if condition(node) else None


_KINDS: dict[str, Callable[[Node], Kind | None]] = {
    "IndexStmt": _create_index,
    "DropStmt": _drop,
    "ReindexStmt": _reindex,
    "AlterTableStmt": _alter_table,
    "CreatedbStmt": lambda node: Creates("database", node["dbname"]),
    "CreateTableSpaceStmt": lambda node: Creates("tablespace", node["tablespacename"]),
    "CreateSubscriptionStmt": _create_subscription,
    "DropdbStmt": lambda node: Drops("database", node["dbname"]),
    "DropTableSpaceStmt": lambda node: Drops("tablespace", node["tablespacename"]),
    "DropSubscriptionStmt": lambda node: Drops("subscription", node["subname"]),
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "SelectStmt": _select,
    "VacuumStmt": _not_in_transaction_if(lambda node: "is_vacuumcmd" in node),  # otherwise ANALYZE
    "ClusterStmt": _not_in_transaction_if(lambda node: "relation" not in node),
    "AlterSystemStmt": lambda _: NotInTransaction(),
    "AlterDatabaseStmt": _not_in_transaction_if(lambda node: "tablespace" in options_of(node)),
    "AlterSubscriptionStmt": _alter_subscription,
    "DiscardStmt": _not_in_transaction_if(lambda node: node["target"] == "DISCARD_ALL"),
}
