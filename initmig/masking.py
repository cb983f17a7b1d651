"""Passwords made unreadable; imported when a text looks as if it had one, as it needs re."""

from __future__ import annotations

import re

_MASK = "***"
_SECRET = r"(?i:password|oauth_client_secret|scram_client_key|scram_server_key)\s*=\s*"  # noqa: S105

_SQL_SECRET = r"(?i:password\s++(?:e|u&)?)"  # noqa: S105
_DOLLAR_QUOTED = r"\$(?P<tag>\w*+)\$(?:[^$]++|\$(?!(?P=tag)\$))*+(?:\$(?P=tag)\$)?"


def mask(text: str) -> str:
    """As `dsn.mask_secrets`."""
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
