"""What initmig sends, as a server that logs every statement has seen it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from initmig.sql.statements import nodes, read_each

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.sql.statements import Node

SETTINGS: Final = {
    "log_statement": "all",
    "log_line_prefix": "%m [%p] %q%u|%a|",
    "max_prepared_transactions": "4",
}
"""For the server whose log is to be read."""

THEIRS: Final = "/* theirs */"
"""The comment inside each statement of a migration, which is its author's and not initmig's."""

PINNED: Final = ("pg_catalog", "pg_temp")
"""The search path in which a name without a schema is PostgreSQL's own."""

_ENTRY = re.compile(
    r"^\d{4}-\d\d-\d\d \S+ \S+ \[(?P<pid>\d+)\] "
    r"(?:(?P<user>[^|]*)\|(?P<application>[^|]*)\|)?(?P<level>[A-Z]+):  (?P<text>.*)",
)
_MESSAGE = re.compile(r"(?:statement|execute [^:]*): (?P<sql>.*)", re.DOTALL)


class Entry(NamedTuple):
    """One entry of the log; *user* and *application* are empty for the server's own."""

    pid: int
    user: str
    application: str
    level: str
    text: str


class Sent(NamedTuple):
    """A statement that initmig has sent; *tree* is None where the parser does not read it.

    *pinned*: the search path is `PINNED` for it, until the end of its transaction at the latest.
    """

    text: str
    tree: Node | None
    pinned: bool


def entries(log: str) -> Iterator[Entry]:
    """The entries of the text *log*, in their order."""
    found: list[str] = []
    for line in log.splitlines():
        if _ENTRY.match(line):
            yield from _entry(found)
            found = [line]
        elif found:
            found.append(line.removeprefix("\t"))
    yield from _entry(found)


def _entry(lines: list[str]) -> Iterator[Entry]:
    if not lines:
        return
    first = _ENTRY.match(lines[0])
    assert first
    text = "\n".join([first["text"], *lines[1:]])
    yield Entry(
        int(first["pid"]), first["user"] or "", first["application"] or "", first["level"], text
    )


def sent_by_initmig(log: str) -> list[Sent]:
    """initmig's own statements in *log*, without those of migrations, which have `THEIRS`."""
    transactions: dict[int, _Transaction] = {}
    sent: list[Sent] = []
    for entry in entries(log):
        message = _MESSAGE.match(entry.text) if entry.level == "LOG" else None
        if message and entry.application.startswith("initmig"):
            transaction = transactions.setdefault(entry.pid, _Transaction())
            sent.extend(transaction.follow(message["sql"]))
    return [each for each in sent if THEIRS not in each.text]


class _Transaction:
    """What is open in one session: a block, and the search path that holds until its end."""

    def __init__(self) -> None:
        self._in_block = False
        self._pinned = False

    def follow(self, message: str) -> Iterator[Sent]:
        data = message.encode()
        found, _ = read_each(data, lambda tree: tree)
        for start, end, tree in found:
            yield Sent(data[start:end].decode(), tree, self._pinned)
            if tree:
                self._apply(tree)
        # A message without a block is a transaction of its own.
        self._pinned = self._pinned and self._in_block

    def _apply(self, tree: Node) -> None:
        [(name, node)] = tree.items()
        if name == "TransactionStmt":
            kind = node["kind"].removeprefix("TRANS_STMT_")
            if kind in ("BEGIN", "START"):
                self._in_block = True
            elif kind in ("COMMIT", "ROLLBACK", "PREPARE"):
                self._in_block = self._pinned = False
            elif kind == "ROLLBACK_TO":
                self._pinned = False
        elif name == "VariableSetStmt" and node.get("name", "search_path") == "search_path":
            values = tuple(_texts(node))
            self._pinned = values == PINNED and "is_local" in node
        elif any(_sets_path(call) for key, call in nodes(node) if key == "FuncCall"):
            self._pinned = False


def _sets_path(call: Node) -> bool:
    name = call["funcname"][-1]["String"]["sval"]
    return name == "set_config" and any(text == "search_path" for text in _texts(call))


def _texts(node: Node) -> Iterator[str]:
    return (each["sval"] for _, each in _strings(node))


def _strings(node: Node) -> Iterator[tuple[str, Node]]:
    # `nodes` gives the last one of a list first
    found = [(name, each) for name, each in nodes(node) if name == "sval" and "sval" in each]
    return reversed(found)
