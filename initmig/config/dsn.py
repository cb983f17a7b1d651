"""Checks connection strings for libpq, and masks their secrets."""

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
"""The accepted schemes; the longer ones are for applications that share ``DATABASE_URL``."""

_SIGNS = (
    *("://", "passw", "passphrase", "passcode", "pwd", "secret", "token", "credential", "jwt"),
    *("apikey", "api-key", "_key", "accesskey", "privatekey", "failing row"),
)
"""Every text with a secret contains at least one of these."""


_MOST_KNOWN = 8
_SHORTEST_KNOWN = 8
"""A shorter password may be a part of other words."""

_known: list[str] = []
"""The latest secrets that are masked by their value."""


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
"""The parameters of libpq 18. Other versions may have more, so libpq decides on other names."""

_DIGITS = frozenset("0123456789")
_HEX_DIGITS = _DIGITS | set("abcdefABCDEF")
_SCHEME = _DIGITS | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+.-")
_KEYWORD = frozenset("abcdefghijklmnopqrstuvwxyz_")


class Dsn:
    """A connection string; only *conninfo* shows its secrets.

    It is not a tuple, because ``"%s" % dsn`` and ``json.dumps(dsn)`` would show a tuple's items.
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
    """Check a URL or ``key=value`` string for libpq; an empty string means the ``PG*`` variables.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING

    :raises ValueError: libpq would take part of the password for something else, and repeat it in
        its error message. This error repeats only the scheme, and names that are not secret
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

        if problem := wrapping(text):
            raise ValueError(problem)
    _check_url(rest)
    return Dsn(f"postgresql://{rest}")


def trimmed(text: str) -> str:
    """*text* without trailing blanks and line ends, which values from files often have.

    A blank after a backslash is part of the value and stays.
    """
    short = text.rstrip()
    return text.rstrip("\r\n") if short.endswith("\\") else short


def is_transmittable(text: str) -> bool:
    """Whether *text* is valid UTF-8 without NUL, which ends strings in C libraries."""
    if text.isascii():
        return "\0" not in text
    # a lone surrogate represents a byte that is not UTF-8
    return not any(each == "\0" or "\ud800" <= each < "\ue000" for each in text)


def _is_scheme(text: str) -> bool:
    """Whether the *text* before ``://`` is a scheme, and not part of a value."""
    name = text.removeprefix("jdbc:")
    return name.isascii() and name[:1].isalpha() and set(name) <= _SCHEME


def mask_secrets(text: str) -> str:
    """Replace each secret in *text* by ``***``; it may quote connection strings, JSON or SQL.

    For text that is only SQL, use `sql.masking.mask_sql`.

    Masks too much rather than too little. A password may contain ``@ : / ? & =`` and spaces. In
    a URL it therefore ends at the last ``@`` of the line, and as a parameter at the end of the
    line.
    """
    for secret in tuple(_known):  # another thread may add one
        text = text.replace(secret, "***")
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return text
    from initmig.sql.masking import mask

    return mask(text)


def mask_from_now_on(secret: str) -> None:
    """Let `mask_secrets` also mask the text *secret*, until several newer ones are known."""
    if len(secret) >= _SHORTEST_KNOWN and secret not in _known:
        _known[:] = [*_known, secret][-_MOST_KNOWN:]


def _check_pairs(text: str) -> None:
    """Check that libpq can split *text* into keys and values.

    libpq decides about keys that are unknown here.

    :raises ValueError: it cannot, or a key is one of another program
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

    if problem := wrapping(text) or in_pairs(text, LIBPQ):
        raise ValueError(problem)


def _check_url(rest: str) -> None:
    """Check that libpq splits the URL after ``://`` as its author intended.

    In libpq, everything before the first ``@`` is the user and password, unless a ``/`` comes
    earlier: ``conninfo_uri_parse_options`` in
    https://github.com/postgres/postgres/blob/master/src/interfaces/libpq/fe-connect.c

    :raises ValueError: a part must be percent-encoded, or a parameter is wrong
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
            not all(_is_parameter(each) or _parameter_problem(each, rest) for each in given),
            "/ as %2F and ? as %3F; parameters are key=value, joined by &",
        ),
    ):
        if wrong:
            raise ValueError(
                f"user name and password in the URL must be percent-encoded: write {remedy}"
            )
    for each in given:
        if problem := _parameter_problem(each, rest):
            raise ValueError(problem)


def _parameter_problem(parameter: str, rest: str) -> str:
    """The problem of a *parameter* of the URL that ends in *rest*, if it is safe to show.

    Empty if there is no problem, or if the parameter may be part of a password.
    """
    key, equals, value = parameter.partition("=")
    # libpq accepts JDBC's ssl=true
    if not key or (key in LIBPQ and equals and "=" not in value) or parameter == "ssl=true":
        return ""
    from initmig.config.foreign_parameters import in_url

    return in_url(key, equals, rest, LIBPQ)


def _is_escape(text: str) -> bool:
    """Whether *text*, which follows a ``%``, begins with two hexadecimal digits, not ``00``."""
    return text[:2] != "00" and len(text) > 1 and set(text[:2]) <= _HEX_DIGITS


def _is_host(text: str) -> bool:
    """Whether *text* is a host or ``[IPv6]``, optionally followed by a port."""
    if text.startswith("["):
        _, end, port = text.partition("]")
        complete = end != ""
    else:
        name, colon, port = text.partition(":")
        complete, port = not {"[", "]"} & set(name), colon + port
    return complete and (not port or (port[0] == ":" and set(port[1:]) <= _DIGITS))


def _is_parameter(text: str) -> bool:
    """Whether *text* is ``key=value``, or empty."""
    key, equals, value = text.partition("=")
    is_key = len(key) > 2 and set(key) <= _KEYWORD
    return not text or (bool(equals) and "=" not in value and is_key)
