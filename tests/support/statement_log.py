"""The statements that initmig sends, from the log of a server that logs every statement."""

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
"""Settings of a server whose log the test reads."""

THEIRS: Final = "/* theirs */"
"""A comment inside each statement of a migration: its author wrote it, not initmig."""

PINNED: Final = ("pg_catalog", "pg_temp")
"""A search path on which a name without a schema is always PostgreSQL's."""

_ENTRY = re.compile(
    r"^\d{4}-\d\d-\d\d \S+ \S+ \[(?P<pid>\d+)\] "
    r"(?:(?P<user>[^|]*)\|(?P<application>[^|]*)\|)?(?P<level>[A-Z]+):  (?P<text>.*)",
)
_MESSAGE = re.compile(r"(?:statement|execute [^:]*): (?P<sql>.*)", re.DOTALL)


class Entry(NamedTuple):
    """One entry of the log; *user* and *application* are empty in the server's own entries."""

    pid: int
    user: str
    application: str
    level: str
    text: str


class Sent(NamedTuple):
    """A statement that initmig has sent; *tree* is empty (None) if the parser cannot read it.

    *pinned* is whether the search path is `PINNED`, until the end of the transaction at the latest.
    """

    text: str
    tree: Node | None
    pinned: bool


def entries(log: str) -> Iterator[Entry]:
    """The entries of the text *log*, in order."""
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
    """initmig's statements in *log*, without those of migrations, which contain `THEIRS`."""
    transactions: dict[int, _Transaction] = {}
    sent: list[Sent] = []
    for entry in entries(log):
        message = _MESSAGE.match(entry.text) if entry.level == "LOG" else None
        if message and entry.application.startswith("initmig"):
            transaction = transactions.setdefault(entry.pid, _Transaction())
            sent.extend(transaction.follow(message["sql"]))
    return [each for each in sent if THEIRS not in each.text]


class _Transaction:
    """The open transaction block of one session, and whether its search path is pinned."""

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
        # A message outside a block is a separate transaction.
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
    # `nodes` returns the last item of a list first
    found = [(name, each) for name, each in nodes(node) if name == "sval" and "sval" in each]
    return reversed(found)
