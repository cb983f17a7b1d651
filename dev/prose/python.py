"""The texts of Python code: strings, docstrings, comments and names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING

from dev.prose.comments import Comment, paragraphs, texts_of_comments
from dev.prose.texts import CODE, Text, count, without_code

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMON = re.compile(
    r"\b(?:an?|and|are|at|be|by|for|has|in|is|it|its|no|not|of|on|or|that|the|to|was|with)\b"
)
_SQL_START = re.compile(
    r"\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|SET|FROM|WHERE)\b"
)
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b")


def texts_of_python(source: str, *, with_strings: bool = True) -> list[Text]:
    """The docstrings, comments and names of *source*, and the strings that a person may read."""
    tree = ast.parse(source)
    strings = _strings(tree) if with_strings else ()
    return [*strings, *_docstrings(tree), *texts_of_comments(_comments(source)), *_names(tree)]


def _strings(tree: ast.Module) -> Iterator[Text]:
    """All strings except docstrings and single words."""
    for line, literal in _literals(tree):
        for part in without_code(literal).split("\n"):
            if " " in part.strip():
                yield Text(line, part, is_code=not _is_prose(part))


def _literals(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Each string below *node* with its line; values in it are one word."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, "".join(_literal(part) for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _literals(part.value)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    for child in ast.iter_child_nodes(node):
        yield from _literals(child)


def _literal(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else CODE


def _is_prose(text: str) -> bool:
    if _SQL_START.match(text) or re.search(r"\(\?|\||::", text):
        return False
    common = len(_COMMON.findall(text))
    is_list_of_names = not common and (count(text) > 12 or ";" in text)
    return not is_list_of_names and len(_CAPITALS.findall(text)) <= max(common, 1)


def _docstrings(tree: ast.Module) -> Iterator[Text]:
    """Every string that is a statement, so those of attributes too."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(words))):
                yield from paragraphs(node.lineno, words)


def _comments(source: str) -> Iterator[Comment]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            follows_code = bool(token.line[:column].strip())
            yield Comment(line, column, token.string, follows_code=follows_code)


def _names(tree: ast.Module) -> Iterator[Text]:
    """Each name that *tree* defines, at its first definition."""
    seen: set[str] = set()
    for line, name in sorted(_definitions(tree)):
        if name not in seen and name.strip("_") and not name.startswith("__"):
            seen.add(name)
            yield name_text(line, name)


def name_text(line: int, name: str) -> Text:
    """The words of an identifier."""
    parts = re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name.replace("_", " "))
    return Text(line, parts.strip().removeprefix("test "), is_code=True, kind="name")


def _definitions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
