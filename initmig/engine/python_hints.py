"""Hints for errors of Python steps, mostly of steps that were written for psycopg2.

docs/how-to/psycopg2.md lists the replacements. The differences are from
https://www.psycopg.org/psycopg3/docs/basic/from_pg2.html
"""

from __future__ import annotations

import re

from initmig.core.records import Record

_PAGE = "docs/how-to/psycopg2.md"


class _Hint(Record):
    error: str
    """A regular expression for the name of the exception's class or for the SQLSTATE."""
    message: str
    """A regular expression for the error's text. Its groups fill the placeholders of *advice*."""
    advice: str
    page: str = _PAGE


_REPLACEMENTS = {
    "callproc": 'cursor.execute("SELECT * FROM f(%s)", [x])',
    "dsn": "connection.info.dsn",
    "get_backend_pid": "connection.info.backend_pid",
    "get_dsn_parameters": "connection.info.get_parameters()",
    "get_parameter_status": "connection.info.parameter_status(name)",
    "get_transaction_status": "connection.info.transaction_status",
    "lobject": "the functions lo_from_bytea() and lo_get() in SQL",
    "notices": "connection.add_notice_handler(function)",
    "query": "cursor._query.query",
    "reset": "RESET ALL in SQL",
    "server_version": "connection.info.server_version",
    "set_client_encoding": "SET client_encoding in SQL",
    "set_session": "connection.autocommit or connection.isolation_level, in a migration with"
    " __transactional__ = False",
    "status": "connection.info.transaction_status",
}
"""Attributes of psycopg2's connections and cursors that psycopg 3 lacks, with a replacement."""

_HINTS = (
    _Hint(
        "ModuleNotFoundError",
        r"'psycopg2\b",
        "initmig gives steps a connection of psycopg 3: import psycopg instead",
    ),
    _Hint(
        "ModuleNotFoundError",
        r"'psycopg\.(?P<module>extras|extensions|errorcodes|tz)\b",
        "psycopg 3 has no module psycopg.{module}",
    ),
    _Hint(
        "NameError",
        r"'(RealDict|Dict|NamedTuple|Logging)(Cursor|Connection|Row)'",
        "the class belongs to psycopg2: write"
        " connection.cursor(row_factory=psycopg.rows.dict_row), or namedtuple_row",
    ),
    _Hint(
        "NameError",
        r"'execute_(values|batch)'",
        "the function belongs to psycopg2: write cursor.executemany(statement, rows)",
    ),
    _Hint(
        "ModuleNotFoundError",
        r"No module named '(?P<module>\w+)",
        "install {module} where initmig runs, or in an image built FROM initmig",
        page="docs/how-to/your-own-image.md",
    ),
    _Hint(
        "TypeError",
        r"unexpected keyword argument 'cursor_factory'",
        "write connection.cursor(row_factory=psycopg.rows.dict_row), or namedtuple_row",
    ),
    _Hint(
        "AttributeError|TypeError",
        r"\bUUID\b",
        "psycopg 3 returns uuid columns as uuid.UUID: write str(value), or id::text in the query",
    ),
    _Hint(
        "AttributeError|TypeError",
        r"\bIPv[46](Address|Network|Interface)\b",
        "psycopg 3 returns inet and cidr columns as objects of ipaddress: write str(value)",
    ),
    _Hint(
        "ProgrammingError",
        r"cannot adapt type '(Json|Composed|SQL|Identifier|Literal|AsIs|Inet|\w+Range)'",
        "the object belongs to psycopg2: use psycopg's own class",
    ),
    _Hint(
        "AttributeError",
        r"'(Composed|SQL|Identifier)' object has no attribute 'decode'",
        "the query belongs to psycopg2: import its parts from psycopg.sql",
    ),
    _Hint(
        "ProgrammingError",
        r"cannot adapt type 'dict'",
        "write psycopg.types.json.Jsonb(value)",
    ),
    _Hint(
        "TypeError",
        r"argument 2 must be a connection",
        "the function belongs to psycopg2: use psycopg's own",
    ),
    _Hint(
        "42601",
        r'at or near "\$\d',
        "a parameter stands for one value: write `= ANY(%s)` with a list in place of IN, and"
        " psycopg.sql.Identifier for a name",
    ),
    _Hint(
        "42601",
        r"cannot insert multiple commands into a prepared statement",
        "execute each statement separately, with its own parameters",
    ),
    _Hint(
        "42P18|42804",
        r"could not determine",
        "psycopg 3 sends a string without a type: write a cast, as in %s::text",
    ),
    _Hint(
        "42725|42883",
        r"smallint|double precision",
        "psycopg 3 sends a number as smallint, integer, bigint or double precision, depending on"
        " its value: write a cast, as in %s::int or %s::numeric",
    ),
    _Hint(
        "0A000",
        r"anonymous composite",
        "write a parameter for each value, as in (a, b) = (%s, %s)",
    ),
    _Hint(
        "22007|22P02|42P02|42P18|08P01",
        r"\"\$\d|there is no parameter|could not determine|bind message",
        "a parameter has no effect inside quotes: write make_interval(days => %s), not '%s days',"
        " and put values into the text of a function with psycopg.sql.Literal",
    ),
    _Hint(
        "ProgrammingError",
        r"can't change '(isolation_level|read_only|deferrable)' now",
        "the transaction has already begun: set __transactional__ = False, or write the migration"
        " in SQL with SET TRANSACTION as its first statement",
    ),
)


def hint_for(error: BaseException) -> str:
    """The code to write instead of the code that raised *error*; empty if no hint is known."""
    if isinstance(error, AttributeError) and _is_psycopg(error.obj):
        meant = _REPLACEMENTS.get(error.name or "")
        return f"psycopg 3 has no `{error.name}`: write {meant}; see {_PAGE}" if meant else ""
    names = [getattr(error, "sqlstate", None) or "", *(each.__name__ for each in type(error).mro())]
    for each in _HINTS:
        found = re.search(each.message, str(error))
        if found and any(re.fullmatch(each.error, name) for name in names):
            return f"{each.advice.format(**found.groupdict())}; see {each.page}"
    return ""


def _is_psycopg(thing: object) -> bool:
    return any(each.__module__.partition(".")[0] == "psycopg" for each in type(thing).mro())
