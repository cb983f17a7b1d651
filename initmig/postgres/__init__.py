"""The only door to psycopg: connect, ask, run a script; its errors become initmig's here."""

from initmig.postgres.connecting import CLIENT_CHECK_INTERVAL, CONNECT_TIMEOUT_SECONDS, Settings
from initmig.postgres.errors import (
    QUERY_CANCELED,
    RETRYABLE,
    UNDEFINED_COLUMN,
    UNDEFINED_TABLE,
    LoginRefused,
    StatementFailed,
    refused,
)
from initmig.postgres.quoting import quote_identifier, quote_literal
from initmig.postgres.session import Session, connect

__all__ = [
    "CLIENT_CHECK_INTERVAL",
    "CONNECT_TIMEOUT_SECONDS",
    "QUERY_CANCELED",
    "RETRYABLE",
    "UNDEFINED_COLUMN",
    "UNDEFINED_TABLE",
    "LoginRefused",
    "Session",
    "Settings",
    "StatementFailed",
    "connect",
    "quote_identifier",
    "quote_literal",
    "refused",
]
