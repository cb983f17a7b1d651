"""Code that a role with CREATE on a schema can put there, under the names of PostgreSQL's objects.

Each object logs that it ran, and then does the same as PostgreSQL's object.
"""

from __future__ import annotations

import re
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yoyo

import initmig
from tests.support.statement_log import entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

MARK: Final = "HOSTILE"

# `strike` returns true, so that it can be part of any condition.
_STRIKE = f"""
CREATE FUNCTION {{schema}}.strike(what pg_catalog.text) RETURNS pg_catalog.bool
LANGUAGE plpgsql AS $$ BEGIN RAISE LOG '{MARK} % ran as %', what, current_user; RETURN true; END $$
"""

# The types of the values in initmig's statements, in the tables that they read and in literals.
_TYPES: Final = [
    "text",
    "varchar",
    "name",
    "char",
    "bpchar",
    "oid",
    "regclass",
    "regtype",
    "regnamespace",
    "regproc",
    "regrole",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "bool",
    "timestamp",
    "timestamptz",
    "date",
    "interval",
    "inet",
    "xid",
    "bytea",
    "aclitem",
    "pg_node_tree",
    "int2vector",
    "oidvector",
    "_text",
    "_name",
    "_oid",
    "_int2",
    "_int4",
    "_int8",
    "_aclitem",
    "_char",
    "_varchar",
    "_timestamp",
    "tsvector",
    "jsonb",
]
_FOR_ANY: Final = ("text", "varchar", "name", "oid", "int4", "int8", "timestamp")
_ELEMENTS: Final = {"anyelement", "anynonarray", "anycompatible", "anycompatiblenonarray"}
_ARRAYS: Final = {"anyarray", "anycompatiblearray"}
_OPERATORS: Final = "= <> < > <= >= + - * / % | & || << >> <<= ~ ~* !~ !~* ~~ !~~ ~~* @> <@ && ^"

_MOST_OVERLOADS = 24
"""The most overloads of one function or operator; those closest to the original come first."""

_FUNCTIONS = r"""
SELECT proname, prokind, proretset, r.typname,
    ARRAY(SELECT t.typname::text FROM unnest(proargtypes) WITH ORDINALITY AS a (oid, i)
          JOIN pg_type t ON t.oid = a.oid ORDER BY i),
    provariadic <> 0,
    ARRAY(SELECT t.typname::text FROM unnest(proallargtypes, proargmodes) WITH ORDINALITY
          AS a (oid, mode, i) JOIN pg_type t ON t.oid = a.oid WHERE mode IN ('o', 't') ORDER BY i),
    ARRAY(SELECT name FROM unnest(proargnames, proargmodes) WITH ORDINALITY AS a (name, mode, i)
          WHERE mode IN ('o', 't') ORDER BY i)
FROM pg_proc p JOIN pg_type r ON r.oid = prorettype LEFT JOIN pg_aggregate ON aggfnoid = p.oid
WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s)
    AND pronargs <= 4 AND prokind <> 'p' AND coalesce(aggkind, 'n') = 'n'
    -- types that a function in PL/pgSQL cannot have
    AND NOT (prorettype::regtype::text || proargtypes::regtype[]::text) ~
        '"?(internal|cstring|record|anyenum|anyrange|anymultirange|trigger|\w+_handler)\M'
ORDER BY p.oid"""

_OPERATORS_OF = r"""
SELECT oprname, coalesce(l.typname, ''), r.typname, res.typname FROM pg_operator
LEFT JOIN pg_type l ON l.oid = oprleft JOIN pg_type r ON r.oid = oprright
JOIN pg_type res ON res.oid = oprresult WHERE oprname = ANY (%s)
    AND NOT ARRAY[l.typname, r.typname]
        && ARRAY['record', 'anyenum', 'anyrange', 'anymultirange']::name[]
ORDER BY pg_operator.oid"""

_CASTS = """
SELECT s.typname, t.typname FROM pg_cast JOIN pg_type s ON s.oid = castsource
JOIN pg_type t ON t.oid = casttarget WHERE castcontext = 'i'"""

_RELATIONS = """
SELECT relname, string_agg(quote_ident(attname), ', ' ORDER BY attnum)
FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') AND relname = ANY (%s)
    AND attnum > 0 AND atttypid <> ALL (ARRAY['anyarray', '_pg_statistic']::regtype[]) GROUP BY 1"""


def hostile_objects_for(connection: psycopg.Connection, schema: str) -> str:
    """SQL that creates every hostile object that a role with CREATE on *schema* can create.

    It has an object for every name that initmig or yoyo uses, on the server of *connection*.
    """
    statements = _statements(connection, *_names_written())
    return ";\n".join(statements).replace("{schema}", schema)


def executed(log: str) -> set[str]:
    """The hostile objects that have run for initmig, according to the server's *log*."""
    return {
        entry.text
        for entry in entries(log)
        if entry.text.startswith(MARK) and entry.application.startswith("initmig")
    }


def _names_written() -> tuple[list[str], list[str]]:
    """The names that the source code calls, and every word in it."""
    modules = [initmig, yoyo]
    files = [path for each in modules for path in Path(str(each.__file__)).parent.rglob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    return sorted(set(re.findall(r"(\w+)\(", text))), sorted(set(re.findall(r"\w+", text)))


def _statements(
    connection: psycopg.Connection, calls: list[str], words: list[str]
) -> Iterator[str]:
    casts = _Casts(connection)
    yield _STRIKE
    seen: set[tuple[str, ...]] = set()
    for row in connection.execute(_FUNCTIONS, [calls]).fetchall():
        yield from _overloads(_Function(*row), casts, seen)
    rows = connection.execute(_OPERATORS_OF, [_OPERATORS.split()]).fetchall()
    for number, row in enumerate(rows):
        yield from _operators(number, row, casts, seen)
    for name, columns in connection.execute(_RELATIONS, [words]).fetchall():
        yield (
            f'CREATE VIEW {{schema}}."{name}" AS SELECT {columns} FROM pg_catalog."{name}"'
            f" WHERE {{schema}}.strike('relation {name}')"
        )
    for name in _TYPES:
        yield (
            f'CREATE DOMAIN {{schema}}."{name}" AS {_type(name)}'
            f" CHECK ({{schema}}.strike('type {name}'))"
        )


class _Casts:
    """The implicit casts: which types PostgreSQL accepts in place of another one."""

    def __init__(self, connection: psycopg.Connection) -> None:
        found = connection.execute(_CASTS).fetchall()
        self._into: dict[str, list[str]] = {}
        for source, target in found:
            if source in _TYPES:
                self._into.setdefault(target, []).append(source)

    def into(self, wanted: str) -> list[str]:
        """The types that PostgreSQL accepts for *wanted*, starting with itself."""
        return [wanted, *self._into.get(wanted, [])]


class _Function(NamedTuple):
    name: str
    kind: str
    returns_set: bool
    returns: str
    takes: list[str]
    variadic: bool
    columns: list[str]
    names: list[str]


def _type(name: str) -> str:
    return f'pg_catalog."{name}"'


def _signatures(
    takes: Sequence[str], casts: _Casts
) -> Iterator[tuple[tuple[str, ...], Mapping[str, str]]]:
    """The signatures to create, each with the types that replace its pseudo-types."""
    vague = _ELEMENTS | _ARRAYS | {"any"}
    if not vague.intersection(takes):
        choices = product(*(casts.into(each) for each in takes))
        closest = sorted(
            choices, key=lambda choice: sum(a != b for a, b in zip(choice, takes, strict=True))
        )
        yield from ((each, {}) for each in islice(closest, _MOST_OVERLOADS))
        return
    for element in _FOR_ANY:
        replaced = dict.fromkeys(_ELEMENTS | {"any"}, element)
        replaced |= dict.fromkeys(_ARRAYS, f"_{element}")
        yield tuple(replaced.get(each, each) for each in takes), replaced


def _overloads(function: _Function, casts: _Casts, seen: set[tuple[str, ...]]) -> Iterator[str]:
    takes = list(function.takes)
    if function.variadic and takes[-1] == "any":
        forms = [[*takes[:-1], *["any"] * count] for count in (1, 2, 3)]
    elif function.variadic:
        forms = [takes, [*takes[:-1], "text"], [*takes[:-1], "text", "text"]]
    else:
        forms = [takes]
    for form in forms:
        for types, replaced in _signatures(form, casts):
            if (function.name, *types) not in seen:
                seen.add((function.name, *types))
                yield from _function(function, form, types, replaced)


def _function(
    function: _Function, form: Sequence[str], types: Sequence[str], replaced: Mapping[str, str]
) -> Iterator[str]:
    returns = replaced.get(function.returns, function.returns)
    listed = ", ".join(map(_type, types))
    named = f'{{schema}}."{function.name}"'
    what = f"{function.name}({', '.join(types)})"
    if function.kind == "a":
        yield from _aggregate(named, what, returns, listed)
        return
    given = ", ".join(
        f"${number}" if wanted in replaced else f"${number}::{_type(wanted)}"
        for number, wanted in enumerate(form, 1)
    )
    original = f'pg_catalog."{function.name}"({given})'
    declared = _type(returns)
    if function.columns:
        columns = zip(function.names, function.columns, strict=True)
        listed_columns = ", ".join(f'"{name}" {_type(type)}' for name, type in columns)
        declared = f"TABLE ({listed_columns})"
    elif function.returns_set:
        declared = f"SETOF {declared}"
    result = f"RETURN {original};"
    if function.kind == "w":
        result = "RETURN NULL;"
    elif returns == "void":
        result = f"PERFORM {original};"
    elif function.columns or function.returns_set:
        result = f"RETURN QUERY SELECT * FROM {original};"
    yield (
        f"CREATE FUNCTION {named}({listed}) RETURNS {declared} LANGUAGE plpgsql AS $$ BEGIN"
        f" PERFORM {{schema}}.strike('function {what}'); {result} END $$"
    )


def _aggregate(named: str, what: str, returns: str, listed: str) -> Iterator[str]:
    state = re.sub(r"\W+", "_", f"state_of_{what}")[:60]
    takes = ", ".join(filter(None, (_type(returns), listed)))
    yield (
        f"CREATE FUNCTION {{schema}}.{state}({takes}) RETURNS {_type(returns)} LANGUAGE plpgsql"
        f" AS $$ BEGIN PERFORM {{schema}}.strike('aggregate {what}'); RETURN $1; END $$"
    )
    yield (
        f"CREATE AGGREGATE {named}({listed or '*'})"
        f" (sfunc = {{schema}}.{state}, stype = {_type(returns)})"
    )


def _operators(
    number: int, row: Sequence[Any], casts: _Casts, seen: set[tuple[str, ...]]
) -> Iterator[str]:
    name, left, right, returns = row
    wanted = [each for each in (left, right) if each]
    for index, (types, replaced) in enumerate(_signatures(wanted, casts)):
        key = (name, *types, *([""] if not left else []))
        if key in seen:
            continue
        seen.add(key)
        function = f"{{schema}}.operator_{number}_{index}"
        given = [
            f"${i}" if each in replaced else f"${i}::{_type(each)}"
            for i, each in enumerate(wanted, 1)
        ]
        operation = f" OPERATOR(pg_catalog.{name}) ".join(["", *given] if not left else given)
        listed = ", ".join(map(_type, types))
        yield (
            f"CREATE FUNCTION {function}({listed}) RETURNS {_type(replaced.get(returns, returns))}"
            f" LANGUAGE plpgsql AS $$ BEGIN PERFORM"
            f" {{schema}}.strike('operator {name} ({', '.join(types)})');"
            f" RETURN {operation}; END $$"
        )
        sides = [f"LEFTARG = {_type(types[0])}"] if left else []
        sides.append(f"RIGHTARG = {_type(types[-1])}")
        yield f"CREATE OPERATOR {{schema}}.{name} (FUNCTION = {function}, {', '.join(sides)})"
