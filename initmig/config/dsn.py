"""Connection strings: what libpq gets, and what a reader may see of it."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
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

_SIGNS = (
    *("://", "passw", "passphrase", "passcode", "pwd", "secret", "token", "credential", "jwt"),
    *("apikey", "api-key", "_key", "accesskey", "privatekey", "failing row"),
)
"""Where nothing of this is, there is nothing to mask."""


LIBPQ = frozenset(
    (
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "passfile",
        "password",
        "port",
        "replication",
        "require_auth",
        "requirepeer",
        "scram_client_key",
        "scram_server_key",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    )
)
"""The parameters of libpq 18; another version may know more, so that libpq decides on the rest."""

_DIGITS = frozenset("0123456789")
_HEX_DIGITS = _DIGITS | set("abcdefABCDEF")
_SCHEME = _DIGITS | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+.-")
_KEYWORD = frozenset("abcdefghijklmnopqrstuvwxyz_")


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
    if not is_transmittable(text):
        raise ValueError("the connection string is not UTF-8, or contains a NUL character")
    scheme, separator, rest = text.strip().partition("://")
    if not separator or not _is_scheme(scheme):
        _check_pairs(text)
        return Dsn(text)
    if scheme.lower() not in SCHEMES:
        accepted = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(
            f"a connection string cannot begin with {scheme}://; "
            f"write {accepted} or libpq's key=value pairs"
        )
    if not text.strip()[-1:].isalnum():
        from initmig.config.foreign_parameters import wrapping

        if told := wrapping(text):
            raise ValueError(told)
    _check_url(rest)
    return Dsn(f"postgresql://{rest}")


def trimmed(text: str) -> str:
    """*text* without the blanks and line ends at its end, as of a value that was in a file.

    A blank stays where a backslash makes it a part of the value.
    """
    short = text.rstrip()
    return text.rstrip("\r\n") if short.endswith("\\") else short


def is_transmittable(text: str) -> bool:
    """Whether *text* can be sent as UTF-8, to a library that takes NUL for its end."""
    if text.isascii():
        return "\0" not in text
    # a lone surrogate stands for a byte that is not UTF-8
    return not any(each == "\0" or "\ud800" <= each < "\ue000" for each in text)


def _is_scheme(text: str) -> bool:
    """Whether *text*, which stands before ``://``, is a scheme, and not a part of a value."""
    name = text.removeprefix("jdbc:")
    return name.isascii() and name[:1].isalpha() and set(name) <= _SCHEME


def mask_secrets(text: str) -> str:
    """Put ``***`` for each secret of a connection string, JSON or SQL that *text* may quote.

    Text that is SQL from its first to its last character is for `sql.masking.mask_sql`.

    Rather too much than too little: a password may hold ``@ : / ? & =`` and spaces, so that in
    a URL it ends at the last ``@`` of the line, and as a parameter at the end of the line.
    """
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return text
    from initmig.sql.masking import mask

    return mask(text)


def _check_pairs(text: str) -> None:
    """Raise ValueError unless libpq can split *text* into keys and values, and may know the keys.

    A key that nobody is known to have is left to libpq.
    """
    import re

    value = r"(?:'(?:[^'\\]++|\\.)*+'|(?!')(?:[^\s\\]++|\\.?)*+)"
    pair = rf"\s*+([A-Za-z_]\w*+)\s*+=\s*+{value}"
    if not re.fullmatch(rf"(?s)(?:{pair})*+\s*", text):
        from initmig.config.foreign_parameters import wrapping

        raise ValueError(
            wrapping(text)
            or "the connection string is neither a URL nor key=value pairs; "
            "in a pair, put a value with spaces in single quotes"
        )
    if set(re.findall(rf"(?s){pair}", text)) <= LIBPQ and ";" not in text:
        return
    from initmig.config.foreign_parameters import in_pairs, wrapping

    if told := wrapping(text) or in_pairs(text, LIBPQ):
        raise ValueError(told)


def _check_url(rest: str) -> None:
    """Raise ValueError if libpq would split what follows ``://`` elsewhere than its author.

    To libpq, all before the first ``@`` is user and password, unless a ``/`` comes earlier:
    ``conninfo_uri_parse_options`` in
    https://github.com/postgres/postgres/blob/master/src/interfaces/libpq/fe-connect.c
    """
    userinfo, at, _ = rest.partition("/")[0].partition("@")
    address, _, parameters = (rest[len(userinfo) + 1 :] if at else rest).partition("?")
    hosts, _, database = address.partition("/")
    given = parameters.removesuffix("&").split("&")
    for wrong, remedy in (
        (any(c.isspace() for c in rest), "a space as %20"),
        (not all(map(_is_escape, rest.split("%")[1:])), "% as %25"),
        (at and "?" in userinfo, "? as %3F (or, where parameters begin, /? instead of ?)"),
        ("@" in hosts, "@ as %40"),
        ("@" in database, "/ as %2F and @ as %40"),
        (
            not all(map(_is_host, hosts.split(","))),
            "/ as %2F and ? as %3F, and @ after them; a port is a number",
        ),
        (
            not all(_is_parameter(each) or _stranger(each, rest) for each in given),
            "/ as %2F and ? as %3F; parameters are key=value, joined by &",
        ),
    ):
        if wrong:
            raise ValueError(
                f"user name and password in the URL must be percent-encoded: write {remedy}"
            )
    for each in given:
        if told := _stranger(each, rest):
            raise ValueError(told)


def _stranger(parameter: str, rest: str) -> str:
    """What is wrong with a *parameter* of the URL that ends in *rest*, if it can be named."""
    key, equals, value = parameter.partition("=")
    # libpq takes ssl=true from the URLs of JDBC
    if not key or (key in LIBPQ and equals and "=" not in value) or parameter == "ssl=true":
        return ""
    from initmig.config.foreign_parameters import in_url

    return in_url(key, equals, rest, LIBPQ)


def _is_escape(text: str) -> bool:
    """Whether *text*, which follows a ``%``, begins with the two digits of a character."""
    return text[:2] != "00" and len(text) > 1 and set(text[:2]) <= _HEX_DIGITS


def _is_host(text: str) -> bool:
    """Whether *text* is a host, or ``[IPv6]``, with nothing or a port behind it."""
    if text.startswith("["):
        _, end, port = text.partition("]")
        complete = end != ""
    else:
        name, colon, port = text.partition(":")
        complete, port = not {"[", "]"} & set(name), colon + port
    return complete and (not port or (port[0] == ":" and set(port[1:]) <= _DIGITS))


def _is_parameter(text: str) -> bool:
    """Whether *text* is ``key=value``, or nothing."""
    key, equals, value = text.partition("=")
    is_key = len(key) > 2 and set(key) <= _KEYWORD
    return not text or (bool(equals) and "=" not in value and is_key)
