"""The changes that statements leave in their session, such as settings and temporary tables.

PostgreSQL's parser reads them. It cannot see the effects of functions, procedures and DO blocks.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from initmig.core.records import Record
from initmig.sql.statements import Node, nodes, read_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_T = TypeVar("_T")

_WITH_HOLD = 0x20  # CURSOR_OPT_HOLD

_TEMPORARY = "temporary object"
_STATEMENT = "prepared statement"
_CURSOR = "cursor"
_CHANNEL = "channel"
_LOCK = "advisory lock"
SETTING = "setting"

_OF_THE_TRANSACTION = {
    *("transaction", "transaction snapshot", "transaction_isolation", "transaction_read_only"),
    *("transaction_deferrable", "seed"),  # "seed" cannot be reset
}


_WORDS = {"": "a setting", "all": "all settings"}


class Leaves(Record):
    """Something that stays in the session."""

    kind: str
    key: str
    """Identifies it among its kind. For a setting this is its name, or empty if unknown."""
    words: str
    """A description for a message."""
    until_commit: bool = False


class Removes(Record):
    """The thing of this *kind* and *key* ends; without a key, all of the kind."""

    kind: str
    key: str = ""


Change = Leaves | Removes


def changes(data: bytes) -> Iterator[Change]:
    """The changes that the statements of *data* make to the session, in order."""
    for _, _, found in read_each(data, lambda tree: tuple(_changes(tree)) or None)[0]:
        yield from found or ()


def left(changes: Iterable[tuple[_T, Change]], *, commits: bool) -> Sequence[tuple[_T, Leaves]]:
    """The leftovers after all *changes*, each with its companion in *changes*.

    *commits* is whether a COMMIT follows, which removes leftovers that last until then.
    """
    kept: dict[int, tuple[_T, Leaves]] = {}
    alike: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, (at, change) in enumerate(changes):
        of_kind = alike[change.kind]
        if isinstance(change, Leaves):
            kept[number] = (at, change)
            of_kind[change.key].append(number)
        elif change.key:
            for last in of_kind[change.key][-1:]:
                of_kind[change.key].pop()
                del kept[last]
        else:
            for each in (number for numbers in of_kind.values() for number in numbers):
                del kept[each]
            of_kind.clear()
    return [each for each in kept.values() if not (commits and each[1].until_commit)]


def _changes(tree: Node) -> Iterator[Change]:
    [(name, node)] = tree.items()
    yield from _READ[name](node) if name in _READ else ()
    calls = [call for key, call in nodes(tree) if key == "FuncCall"]
    for call in sorted(calls, key=lambda call: call.get("location", 0)):
        yield from _of_call(call)


def _relation(node: Node, what: str, on_commit: str) -> Iterator[Change]:
    if node.get("relpersistence") == "t" or node.get("schemaname") == "pg_temp":
        name = node["relname"]
        drops = on_commit == "ONCOMMIT_DROP"
        yield Leaves(_TEMPORARY, name, f"the temporary {what} {name}", until_commit=drops)


def _created_as(node: Node) -> Iterator[Change]:
    return _relation(node["rel"], "table", node.get("onCommit", ""))


def _named(name: list[Node], what: str) -> Iterator[Change]:
    *schema, own = _strings(name)
    if schema == ["pg_temp"]:
        yield Leaves(_TEMPORARY, own, f"the temporary {what} {own}")


def _drop(node: Node) -> Iterator[Change]:
    for each in node["objects"]:
        *schema, own = _strings(next(iter(each.values())))
        if schema in ([], ["pg_temp"]):
            yield Removes(_TEMPORARY, own)


def _declare(node: Node) -> Iterator[Change]:
    if node["options"] & _WITH_HOLD:
        name = node["portalname"]
        yield Leaves(_CURSOR, name, f"the cursor {name} WITH HOLD")


def _listen(node: Node) -> Iterator[Change]:
    yield Leaves(_CHANNEL, node["conditionname"], f"LISTEN {node['conditionname']}")


def _prepare(node: Node) -> Iterator[Change]:
    yield Leaves(_STATEMENT, node["name"], f"the prepared statement {node['name']}")


def _removes(kind: str, key: str) -> Callable[[Node], Iterator[Change]]:
    return lambda node: iter([Removes(kind, node.get(key, ""))])


def _discard(node: Node) -> Iterator[Change]:
    if node["target"] == "DISCARD_TEMP":
        yield Removes(_TEMPORARY)


def _strings(node: object) -> list[str]:
    """The parts of a name, in order, from any node that can hold them."""
    match node:
        case {"String": {"sval": text}}:
            return [text]
        case {"items": inner} | {"objname": inner} | {"names": inner}:
            return _strings(inner)
        case list():
            return [text for each in node for text in _strings(each)]
    return [""]


def _set(node: Node) -> Iterator[Change]:
    if "is_local" not in node:
        yield from map(_setting, _names(node))


def _names(node: Node) -> Iterator[str]:
    name = node.get("name", "all").lower()
    if name == "session characteristics":
        for each in node["args"]:
            yield f"default_{each['DefElem']['defname']}"
    elif name not in _OF_THE_TRANSACTION:
        yield name


def _setting(name: str) -> Leaves:
    return Leaves(SETTING, name, _WORDS.get(name, f"the setting {name}"))


def _of_call(node: Node) -> Iterator[Change]:
    name = _strings(node["funcname"])[-1]
    arguments = node.get("args", [])
    if name == "set_config":
        yield from _set_config(arguments)
    elif name.startswith(("pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_unlock")):
        key = f"{name.endswith('_shared')} {_without_places(arguments)}"
        words = "an advisory lock"
        yield Removes(_LOCK, key) if "unlock" in name else Leaves(_LOCK, key, words)


def _set_config(arguments: Sequence[Node]) -> Iterator[Change]:
    match arguments:
        case [_, _, {"A_Const": {"boolval": {"boolval": True}}}]:
            return
        case [{"A_Const": {"sval": {"sval": name}}}, _, _]:
            if name.lower() not in _OF_THE_TRANSACTION:
                yield _setting(name.lower())
        case _:
            yield _setting("")


def _without_places(node: object) -> object:
    match node:
        case dict():
            return {key: _without_places(node[key]) for key in node if key != "location"}
        case list():
            return [_without_places(each) for each in node]
    return node


_READ: Mapping[str, Callable[[Node], Iterator[Change]]] = {
    "CreateStmt": lambda node: _relation(node["relation"], "table", node.get("oncommit", "")),
    "CreateTableAsStmt": lambda node: _created_as(node["into"]),
    "SelectStmt": lambda node: (
        _created_as(node["intoClause"]) if "intoClause" in node else iter(())
    ),
    "ViewStmt": lambda node: _relation(node["view"], "view", ""),
    "CreateSeqStmt": lambda node: _relation(node["sequence"], "sequence", ""),
    "CompositeTypeStmt": lambda node: _relation(node["typevar"], "type", ""),
    "CreateFunctionStmt": lambda node: _named(node["funcname"], "function"),
    "CreateEnumStmt": lambda node: _named(node["typeName"], "type"),
    "CreateRangeStmt": lambda node: _named(node["typeName"], "type"),
    "CreateDomainStmt": lambda node: _named(node["domainname"], "domain"),
    "DropStmt": _drop,
    "DiscardStmt": _discard,
    "PrepareStmt": _prepare,
    "DeallocateStmt": _removes(_STATEMENT, "name"),
    "DeclareCursorStmt": _declare,
    "ClosePortalStmt": _removes(_CURSOR, "portalname"),
    "ListenStmt": _listen,
    "UnlistenStmt": _removes(_CHANNEL, "conditionname"),
    "VariableSetStmt": _set,
}
