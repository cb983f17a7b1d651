"""The only package that talks to PostgreSQL. It translates driver errors to initmig's errors.

Connections use libpq directly. psycopg, which is slow to import, is used for Python steps.
"""

from initmig.core.quoting import quote_identifier, quote_literal
from initmig.postgres.errors import (
    NAME_PRIMARY,
    READ_ONLY,
    TAKES_WRITES,
    UNDEFINED_COLUMN,
    UNDEFINED_TABLE,
    AfterCommit,
    ClientFailed,
    LoginRefused,
    NoAnswer,
    StatementFailed,
    checking_answers,
    internal_error,
    out_of_memory,
)
from initmig.postgres.libpq import OPEN
from initmig.postgres.parameters import (
    Settings,
    commit_then,
    preamble,
)
from initmig.postgres.session import Session, connect

__all__ = [
    "NAME_PRIMARY",
    "OPEN",
    "READ_ONLY",
    "TAKES_WRITES",
    "UNDEFINED_COLUMN",
    "UNDEFINED_TABLE",
    "AfterCommit",
    "ClientFailed",
    "LoginRefused",
    "NoAnswer",
    "Session",
    "Settings",
    "StatementFailed",
    "checking_answers",
    "commit_then",
    "connect",
    "internal_error",
    "out_of_memory",
    "preamble",
    "quote_identifier",
    "quote_literal",
]
