"""Errors of code that was written for psycopg2; the rest is in docs/how-to/psycopg2.md."""

from __future__ import annotations

import psycopg
import pytest

from initmig.engine.python_hints import hint_for

# the messages of psycopg 3.3 and psycopg2 2.9
MIXED = {
    "Json": psycopg.ProgrammingError("cannot adapt type 'Json' using placeholder '%s'"),
    "range": psycopg.ProgrammingError("cannot adapt type 'DateTimeTZRange' using placeholder '%s'"),
    "AsIs": psycopg.ProgrammingError("cannot adapt type 'AsIs' using placeholder '%s'"),
    "as_string": TypeError("argument 2 must be a connection or a cursor"),
    "register_uuid": TypeError("argument 2 must be a connection, cursor or None"),
    "SQL": AttributeError("'Composed' object has no attribute 'decode'"),
}
OTHERS = [
    psycopg.ProgrammingError("cannot adapt type 'Colour' using placeholder '%s'"),
    psycopg.errors.UndefinedFunction("function f(integer) does not exist"),
    psycopg.errors.SyntaxError('syntax error at or near "FORM"'),
    psycopg.errors.InvalidTextRepresentation('invalid input syntax for type integer: "x"'),
    TypeError("argument 1 must be str"),
    AttributeError("'str' object has no attribute 'decode'"),
    KeyError("UUID"),
    NameError("name 'Cursor' is not defined"),
    ImportError("cannot import name 'psycopg2'"),
]


@pytest.mark.parametrize("name", MIXED)
def test_psycopg2_object_is_reported_with_a_link_to_the_guide(name: str) -> None:
    assert "belongs to psycopg2" in hint_for(MIXED[name])
    assert "docs/how-to/psycopg2.md" in hint_for(MIXED[name])


@pytest.mark.parametrize(
    ("error", "write"),
    [
        (NameError("name 'RealDictCursor' is not defined"), "psycopg.rows.dict_row"),
        (NameError("name 'NamedTupleCursor' is not defined"), "namedtuple_row"),
        (NameError("name 'execute_values' is not defined"), "cursor.executemany"),
        (ModuleNotFoundError("No module named 'psycopg.extras'"), "no module psycopg.extras"),
        (ModuleNotFoundError("No module named 'psycopg.extensions'"), "psycopg.extensions"),
    ],
    ids=str,
)
def test_name_that_only_psycopg2_has_gets_advice(error: Exception, write: str) -> None:
    assert write in hint_for(error)
    assert "docs/how-to/psycopg2.md" in hint_for(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_unrelated_error_gets_no_advice(error: Exception) -> None:
    assert hint_for(error) == ""
