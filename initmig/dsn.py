"""Connection strings: what libpq gets, and what a reader may see of it."""

import re
from typing import Final

SCHEMES = (
    "postgres",
    "postgresql",
    "postgresql+psycopg",
    "postgresql+psycopg2",
    "postgresql+asyncpg",
    "ecto",
)
"""What a URL may begin with; the longer ones are for applications that share ``DATABASE_URL``."""

_MASK = "***"
_SECRET = r"(?i:password|oauth_client_secret|scram_client_key|scram_server_key)\s*=\s*"  # noqa: S105

_SQL_SECRET = r"(?i:password\s++(?:e|u&)?)"  # noqa: S105
_DOLLAR_QUOTED = r"\$(?P<tag>\w*+)\$(?:[^$]++|\$(?!(?P=tag)\$))*+(?:\$(?P=tag)\$)?"


class Dsn:
    """A connection string; only *conninfo* shows its secrets.

    Not a tuple, because ``"%s" % dsn`` and ``json.dumps(dsn)`` would look into one.
    """

    __slots__ = ("conninfo",)

    def __init__(self, conninfo: str) -> None:
        self.conninfo: Final = conninfo

    def __str__(self) -> str:
        return mask_secrets(self.conninfo)

    def __repr__(self) -> str:
        return f"Dsn({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dsn) and self.conninfo == other.conninfo

    def __hash__(self) -> int:
        return hash(self.conninfo)


def parse_dsn(text: str) -> Dsn:
    """Check a URL or ``key=value`` string for libpq; an empty one stands for its ``PG*`` variables.

    Raises ValueError where libpq would take a part of the password for something else, and
    repeat it in its own errors. This error repeats nothing of *text* but the scheme.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or not re.fullmatch(r"(?:jdbc:)?[A-Za-z][A-Za-z0-9+.-]*", scheme):
        _check_pairs(text)
        return Dsn(text)
    if scheme.lower() not in SCHEMES:
        accepted = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(
            f"a connection string cannot begin with {scheme}://; "
            f"write {accepted} or key=value pairs of libpq"
        )
    _check_url(rest)
    return Dsn(f"postgresql://{rest}")


def mask_secrets(text: str) -> str:
    """Put ``***`` for every password of a connection string or of SQL that *text* may quote.

    Rather too much than too little: a password may hold ``@ : / ? & =`` and spaces, so that in
    a URL it ends at the last ``@`` of the line, and as a parameter at the end of the line.
    """
    quotable = rf"""(?xs)
          ://([^\r\n]*)                                                     # a URL, and its line
        | ({_SECRET}) (?: '(?:[^'\\]++|\\.)*+'? | (?:[^\s\\]++|\\.?)++ )    # a key and its value
        | ({_SQL_SECRET}) (?: '(?:[^'\\]++|\\.?|'')*+'? | {_DOLLAR_QUOTED} )  # in SQL
    """
    return re.sub(quotable, _masked, text)


def _masked(match: re.Match[str]) -> str:
    rest, key, word = match.group(1, 2, 3)
    return f"://{_masked_url(rest)}" if key is None and word is None else f"{key or word}{_MASK}"


def _masked_url(rest: str) -> str:
    """Mask the passwords in what follows ``://``: before ``@``, and in a parameter."""
    key = re.search(_SECRET, rest)
    after_key = key.end() if key else len(rest)
    after_colon = rest.find(":") + 1 or len(rest)
    start = min(after_colon, after_key)
    at = rest.rfind("@")
    if at >= after_key:  # the "@" belongs to the parameter, or the key to the userinfo
        return f"{rest[:start]}{_MASK}"
    parameter = _MASK if rest[after_key:] else ""
    if at <= start:
        return f"{rest[:after_key]}{parameter}"
    return f"{rest[:start]}{_MASK}{rest[at:after_key]}{parameter}"


def _check_pairs(text: str) -> None:
    """Raise ValueError unless libpq can split *text* into keys and values."""
    value = r"(?:'(?:[^'\\]++|\\.)*+'|(?!')(?:[^\s\\]++|\\.?)*+)"
    if not re.fullmatch(rf"(?s)(?:\s*+[A-Za-z_]\w*+\s*+=\s*+{value})*+\s*", text):
        raise ValueError(
            "the connection string is neither a URL nor made of key=value pairs; "
            "in a pair, write a value with spaces in single quotes"
        )


def _check_url(rest: str) -> None:
    """Raise ValueError if libpq would split what follows ``://`` elsewhere than its author.

    To libpq, all before the first ``@`` is user and password, unless a ``/`` comes earlier:
    ``conninfo_uri_parse_options`` in
    https://github.com/postgres/postgres/blob/master/src/interfaces/libpq/fe-connect.c
    """
    userinfo, at, _ = rest.partition("/")[0].partition("@")
    address, _, parameters = (rest[len(userinfo) + 1 :] if at else rest).partition("?")
    hosts, _, database = address.partition("/")
    host = r"(?:\[[^\]]*\]|[^:,\[\]]*)(?::[0-9]*)?"
    for wrong, remedy in (
        (re.search(r"\s", rest), "a space as %20"),
        (re.search(r"%(?![0-9A-Fa-f]{2})|%00", rest), "% as %25"),
        (at and "?" in userinfo, "? as %3F (or, where parameters begin, /? instead of ?)"),
        ("@" in hosts, "@ as %40"),
        ("@" in database, "/ as %2F and @ as %40"),
        (
            not re.fullmatch(f"{host}(?:,{host})*+", hosts),
            "/ as %2F and ? as %3F, and @ after them; a port is a number",
        ),
        (
            not re.fullmatch(r"(?:[a-z_]{3,}+=[^=&]*+(?:&|\Z))*+", parameters),
            "/ as %2F and ? as %3F; parameters are key=value, joined by &",
        ),
    ):
        if wrong:
            raise ValueError(
                f"user name and password in the URL must be percent-encoded: write {remedy}"
            )
