"""The statements of a file that does not run in one transaction, and what they do to one.

PostgreSQL's own parser tells; https://github.com/pganalyze/libpg_query describes its trees.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from initmig.core.records import Record
from initmig.sql.lines import Lines, offset_of
from initmig.sql.masking import secret_values, without_values
from initmig.sql.scanner import copy_data, octets, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Nothing in the parser keeps `1 + 1 + 1 ...` from overflowing the stack: 70 bytes of it for a
# character, where 8 MB are usual. Of memory a character needs up to 800 bytes.
_MAX_LENGTH = 64 * 1024

_T = TypeVar("_T")

Node = dict[str, Any]
"""A tree, or a part of one, as the parser gives it."""


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


class Alone(Record):
    """Anything else that the server refuses in a transaction block, as VACUUM."""


class OpensBlock(Record):
    """BEGIN, START TRANSACTION."""


class EndsBlock(Record):
    """COMMIT, END; or, without *commits*, ROLLBACK, ABORT, PREPARE TRANSACTION.

    With *chains* the next block begins at once.
    """

    commits: bool
    chains: bool = False


class EndsItsBlocks(Record):
    """Several statements in one message, with transaction blocks that begin and end among them."""


class SetsSession(Record):
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


class Statement(Record):
    """One SQL statement, from its first token on, without its semicolon; offsets in bytes."""

    start: int
    end: int
    text: str
    kind: Kind | None
    """None for what is nothing special, or not known to the parser."""


class Found(Sequence[tuple[int, int, "_T | None"]]):
    """Start and end of each statement of a text, in bytes, with what was found in it, if anything.

    In arrays, as with three objects each the statements of a file take more than the file.
    """

    def __init__(self, each: Iterable[tuple[int, int, _T | None]] = ()) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        self._what: dict[int, _T] = {}
        for one in each:
            self.append(*one)

    def append(self, start: int, end: int, what: _T | None) -> None:
        """Add the next one."""
        if what is not None:
            self._what[len(self)] = what
        self._starts.append(start)
        self._ends.append(end)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int, _T | None]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, int, _T | None]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self._starts[index], self._ends[index], self._what.get(index % len(self))


class Reading(Record):
    """The statements of a text in order."""

    statements: tuple[Statement, ...]
    fell_back: str
    """Why the parser did not read all of it, and where; else empty."""


def read_statements(data: bytes) -> Reading:
    """Statements of *data* in order, where the parser fails as `initmig.sql.split` has them."""
    found, fell_back = read_kinds(data)
    statements = (Statement(*each[:2], data[each[0] : each[1]].decode(), each[2]) for each in found)
    return Reading(tuple(statements), fell_back)


def read_kinds(data: bytes) -> tuple[Found[Kind], str]:
    """The same without the text of the statements, which may be many, or large."""
    return read_each(data, _kind)


def read_each(data: bytes, read: Callable[[Node], _T | None]) -> tuple[Found[_T], str]:
    """What *read* finds in the tree of each statement of *data*, None where there is no tree.

    Each with its start and end, as in `Statement`; beside them why the parser did not read all of
    it, as in `Reading`. One tree is in memory at a time, where the parts are parsed alone.
    """
    found: Found[_T] = Found()
    refused = ""
    for start, end, tree, error in _parse_each(data):
        found.append(start, end, None if tree is None else read(tree))
        refused = refused or (_placed(error, data, start) if error else "")
    if refused and not copy_data(octets(data)):  # the parser would take the data for SQL
        with suppress(_Refused):
            return Found(_as_parsed(data, read)), ""
    # Where the parser reads each part as one statement, it has no other way to part them.
    return found, refused


def parsed(data: bytes) -> Iterator[Parsed]:
    """Each statement of *data* in order, parted as by `read_each`, and read one after the other."""
    if len(data) > _MAX_LENGTH:  # which the parser does not part
        yield from _parse_each(data)
        return
    found = list(_parse_each(data))
    if any(each.error for each in found) and not copy_data(octets(data)):
        with suppress(_Refused):
            found = [Parsed(*each) for each in _as_parsed(data, lambda tree: tree)]
    yield from found


def _parse_each(data: bytes) -> Iterator[Parsed]:
    for start, end in spans(octets(data)):
        try:
            yield Parsed(start, end, _only(_parse(data, start, end)))
        except _Refused as error:
            yield Parsed(start, end, None, error)


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


def trees(sql: bytes) -> list[Node] | None:
    """The tree of each statement of *sql*; None where PostgreSQL's parser does not read it."""
    with suppress(_Refused):
        return [each["stmt"] for each in _parse(sql)]
    return None


def runs_alone(kind: Kind | None) -> bool:
    """Whether the server refuses such a statement in a transaction block."""
    return isinstance(kind, _ALONE) or (isinstance(kind, CreateIndex) and kind.concurrently)


class _Refused(Exception):
    """The parser does not read a text, from the character at *offset* on."""

    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__(why)
        self.offset = offset


class Parsed(Record):
    """One statement, by its offsets in bytes, and its tree; else why the parser has none."""

    start: int
    end: int
    tree: Node | None
    error: _Refused | None = None


def _parse(data: bytes, start: int = 0, end: int | None = None) -> list[Node]:
    """What the parser has for each statement; :raises _Refused: it is no SQL to it."""
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
    """The statements as the parser parts them; :raises _Refused: it does not."""
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


def _create_subscription(node: Node) -> Kind | None:
    options = options_of(node)
    makes_slot = options.get("create_slot", options.get("connect", True))
    return Creates("subscription", node["subname"]) if makes_slot else None


def _alter_subscription(node: Node) -> Kind | None:
    options = options_of(node)
    changes = node["kind"].endswith("_PUBLICATION")
    refreshes = changes and options.get("refresh", True)
    is_alone = refreshes or node["kind"].endswith("_REFRESH") or "failover" in options
    return Alone() if is_alone else None


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
        parsed = _parse(f"TABLE {name}".encode())
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
    "CreateSubscriptionStmt": _create_subscription,
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
