"""The only door to PostgreSQL: connect, ask, run a script; errors become initmig's here.

There are two kinds of connection, for questions by libpq alone, and for work by psycopg. Whatever
imports `session` imports psycopg, and is itself imported once there is work.
"""

from initmig.postgres.errors import (
    QUERY_CANCELED,
    RETRYABLE,
    UNDEFINED_COLUMN,
    UNDEFINED_TABLE,
    LoginRefused,
    StatementFailed,
    refused,
)
from initmig.postgres.parameters import CLIENT_CHECK_INTERVAL, CONNECT_TIMEOUT_SECONDS, Settings
from initmig.postgres.quoting import quote_identifier, quote_literal
from initmig.postgres.reading import open_for_questions

__all__ = [
    "CLIENT_CHECK_INTERVAL",
    "CONNECT_TIMEOUT_SECONDS",
    "QUERY_CANCELED",
    "RETRYABLE",
    "UNDEFINED_COLUMN",
    "UNDEFINED_TABLE",
    "LoginRefused",
    "Settings",
    "StatementFailed",
    "open_for_questions",
    "quote_identifier",
    "quote_literal",
    "refused",
]
