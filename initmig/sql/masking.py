"""Masks secrets: in SQL by its tokens, in any other text by their shape.

docs/reference/secrets.md lists which secrets are masked, and which are not. Import this module
only if a text may contain a secret, because it needs re.

Masking tokenizes a statement again. It happens only when a statement is shown: in an error, or in
the output of `plan` and `rehearse`.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.sql.scanner import BETWEEN, extents, mentions, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.core.errors import Problem
    from initmig.sql.scanner import Token

MASK = "***"

Span = tuple[int, int]
"""Start and end of a secret in a text."""

# --- names and shapes of secrets ---

_KEYS = "access|account|aes|api|auth|client|crypt|decryption|encryption|hmac|license|master|private"
_KEYS = f"{_KEYS}|secret|server|service|session|shared|sign|signing|ssh|stripe|webhook"
_SECRET_NAME = rf"""(?xi)
    password | passwd | passphrase | passcode | apikey
  | (?<![^\W_]) (?: secrets? | tokens? | credentials? | pwd | pw | pass(?![^\W]) | jwt
                  | (?:{_KEYS})[_-]?keys? ) (?![^\W_])
"""
"""A part of a secret's name, with `_` between its words."""

_HUMPS = r"(?<=[a-z0-9])(?=[A-Z])"

_SIGNS = (
    *("pass", "pwd", "pw", "secret", "token", "credential", "key", "jwt", "://", "scram", "md5"),
    *("execute", "dblink", "pgp_", "crypt", "gen_salt", "hmac", "digest", "sign", "verify"),
    *("pg_read_", "lo_import", "bearer", "basic", "akia", "asia", "ghp_", "gho_", "ghs_", "ghu_"),
    *("ghr_", "xox", "eyj", "$2", "sk_", "rk_", "program", "mapping", "subscription", "system"),
)
"""Each statement with a secret contains one of them, unless it begins as in `_MASKED_WHOLE`.

Searching for them takes a tenth of the time of reading the tokens.
"""

_SIGNS_IN_BODY = (*_SIGNS, "role", "user", "group", "server", "foreign", "label")

_MASKED_WHOLE = (
    (("CREATE", "ALTER"), ("ROLE", "USER", "GROUP")),
    (("CREATE", "ALTER"), ("SUBSCRIPTION", "SERVER")),
    (("CREATE", "ALTER", "IMPORT"), ("FOREIGN",)),
    (("ALTER",), ("SYSTEM",)),
    (("SECURITY",), ("LABEL",)),
    (("EXECUTE",),),
)
"""The first words of the statements whose literals are all masked: `CREATE ROLE`, ..."""

_MAYBE_WHOLE = "|".join(
    BETWEEN.join(f"(?:{'|'.join(words)})" for words in kind) for kind in _MASKED_WHOLE
)
_MAYBE_WHOLE = rf"(?ia)(?:{_MAYBE_WHOLE})(?![\w$])"
_HAS_BODY = r"(?ia)(?:DO|CREATE)(?![\w$])"

_MASKED_CALLS = r"""(?xi)
    dblink\w* | pgp_\w+ | crypt | gen_salt | hmac | digest | (?:en|de)crypt(?:_iv)? | crypto_\w+
  | pg_read_\w+ | lo_import | sign | verify
"""
"""Functions whose literal arguments are all masked."""

_DEFINITIONS = (
    *(
        "AGGREGATE",
        "COLLATION",
        "COMMENT",
        "CONVERSION",
        "DOMAIN",
        "EXTENSION",
        "INDEX",
        "OPERATOR",
    ),
    *(
        "POLICY",
        "PUBLICATION",
        "SCHEMA",
        "SEQUENCE",
        "STATISTICS",
        "TABLE",
        "TABLESPACE",
        "TRIGGER",
    ),
    *("TYPE", "UNIQUE"),
)
"""Objects of CREATE and ALTER. There, a column called password does not indicate a secret."""

_BEFORE_KIND = ("OR", "REPLACE", "TEMP", "TEMPORARY", "UNLOGGED", "GLOBAL", "LOCAL", "CONSTRAINT")
_PREFIXES = ("e", "n", "b", "x")
_QUOTES = ("string", "dollar")

_PAIR = r"(?a)(?<![\w.-])([\w.-]++)\\?[\"']{0,2}\s*+(?:=>|:=|=|:(?!:))\s*+(?=\S)"
_OPEN_PAIR = r"(?a)(?<![\w.-])([\w.-]++)[\"']{0,2}\s*+(?:=>|:=|=|:)?\s*+[\"']?\Z"
_DYNAMIC = r"(?i)(?<!\w)password\s*+(?:[%'\"$|?]|[eu]&?')"
_SHAPES = r"""(?x)
    -----BEGIN[ A-Z]*PRIVATE[ ]KEY | SCRAM-SHA-256\$ | (?<!\w)md5[0-9a-f]{32} | \$2[abxy]\$\d\d\$
  | (?<!\w)(?:AKIA|ASIA)[0-9A-Z]{16} | (?<!\w)gh[opsur]_\w{20} | (?<!\w)xox[abprs]-
  | (?<!\w)eyJ[\w-]{8,}+\.eyJ | (?<!\w)[sr]k_(?:live|test)_
  | (?<!\w)(?i:bearer|basic)\s+[\w.+/=~-]++(?:(?<=[\w.+/=~-]{8})|\Z)
  | ://[^\s/@]*:[^\s@]*@ | ://[^\s/@:]*:(?=\d*[^\s\d/])[^\s@/]+\Z
"""

_USERINFO = r"://[^\s/@:'\"]*:([^\s@'\"]*)@"

_SQL = (
    r"(?ia)\s*+(?:ALTER|COPY|CREATE|DELETE|DO|EXECUTE|IMPORT|INSERT|MERGE|SECURITY|SELECT|SET|UPDATE"
    r"|WITH)(?![\w$])"
)
"""The beginning of dynamic SQL."""

# --- any text ---

_SECRET = r"(?i:password|oauth_client_secret|scram_client_key|scram_server_key)\s*=(?!>)\s*"  # noqa: S105
_SQL_SECRET = r"(?i:(?<!\w)password(?:\s++|--[^\r\n]*+[\r\n]|/\*(?:[^*]|\*(?!/))*+\*/)++)"  # noqa: S105
_DOLLAR_QUOTED = r"\$(?P<tag>\w*+)\$(?:[^$]++|\$(?!(?P=tag)\$))*+(?:\$(?P=tag)\$)?"
_QUOTED = rf"""(?xs)
      ://([^\r\n]*)                                                     # a URL, and its line
    | ({_SECRET}) (?: \*\*\*(?![^\s/,;)&'"])                           # a key and its value
                    | '(?:[^'\\]++|\\.)*+'? | (?:[^\s\\]++|\\.?)++ )
    | ({_SQL_SECRET}) (?: (?i:e)'(?:[^'\\]++|\\.?|'')*+'? | (?i:u&)?'(?:[^']++|'')*+'?
                        | {_DOLLAR_QUOTED} )                            # in SQL
    | ((?:Failing\ row|failing\ row)\ contains\ ) (?: \([^\r\n]*\) | \([^\r\n]* )
"""
_VALUE = r"""(?xs)
    (?P<open>\\?["']) (?: (?!(?P=open)) (?:\\?.) )*+ (?P=open)? | [^\s,;)}\]"']++
"""


def mask(text: str) -> str:
    """As `dsn.mask_secrets`."""
    text = _compiled(_QUOTED).sub(_masked, text)
    return _blotted(text, _pairs(text, bare=False))


def _masked(match: re.Match[str]) -> str:
    rest, key, word, row = match.group(1, 2, 3, 5)
    if row:
        return f"{row}({MASK})"
    return f"://{_masked_url(rest)}" if key is None and word is None else f"{key or word}{MASK}"


def _masked_url(rest: str) -> str:
    """Mask the passwords in the text after ``://``: before ``@``, and in a parameter."""
    key = re.search(_SECRET, rest)
    after_key = key.end() if key else len(rest)
    after_colon = rest.find(":") + 1 or len(rest)
    start = min(after_colon, after_key)
    at = rest.rfind("@")
    if at >= after_key:  # the "@" belongs to the parameter, or the key to the userinfo
        return f"{rest[:start]}{MASK}"
    parameter = MASK if rest[after_key:] else ""
    if at <= start:
        return f"{rest[:after_key]}{parameter}"
    return f"{rest[:start]}{MASK}{rest[at:after_key]}{parameter}"


def _pairs(text: str, *, bare: bool) -> Iterator[Span]:
    """The values of `"api_key": "..."`, `secret => '...'`, and if *bare*, `token=...`.

    In SQL, `token=...` is usually a column, and the reader needs to see it.
    """
    after = 0
    for pair in _compiled(_PAIR).finditer(text):
        if pair.start() < after or not is_secret_name(pair[1]):
            continue
        if (value := _compiled(_VALUE).match(text, pair.end())) and value[0] != MASK:
            after = value.end()
            if not (value["open"] or bare):
                continue
            quote = len(value["open"] or "")
            closed = quote if value[0][quote:].endswith(value["open"] or "") else 0
            yield value.start() + quote, value.end() - closed


def is_secret_name(name: str) -> bool:
    """Whether *name*, of a column, a setting or the like, is called as secrets are."""
    return bool(_compiled(_SECRET_NAME).search(_compiled(_HUMPS).sub("_", name)))


def _has_secret(content: str) -> bool:
    """Whether a literal or a comment has a secret in it."""
    return (
        any(is_secret_name(pair[1]) for pair in _compiled(_PAIR).finditer(content))
        or bool(_compiled(_DYNAMIC).search(content))
        or bool(_compiled(_SHAPES).search(content))
    )


def _announces_secret(content: str) -> bool:
    """Whether a literal ends with the name of a secret, so that another literal is the secret."""
    found = _compiled(_OPEN_PAIR).search(content)
    if found is None or not is_secret_name(found[1]):
        return False
    return found.start() == 0 or content.rstrip("\"' ")[-1:] in "=:>" or content[-1:].isspace()


# --- SQL ---


def mask_sql(sql: str) -> str:
    """*sql*, one or more statements, with its secrets masked. Its end can be cut off."""
    return _blotted(sql, [*secrets_in(sql), *_spelled(sql)])


def hidden_in(sql: str) -> list[Span]:
    """The parts of *sql* that an error hides: secrets, and function bodies that handle secrets."""
    return _merged([*secrets_in(sql, bodies=True), *_spelled(sql)])


def _spelled(sql: str) -> Iterator[Span]:
    """The text after PASSWORD, and passwords of URLs, even if a quote is unbalanced."""
    if mentions(sql, _PASSWORDS):
        for found in _compiled(_QUOTED).finditer(sql):
            if found[3]:
                yield found.end(3), found.end()
    if mentions(sql, ("://",)):
        for found in _compiled(_USERINFO).finditer(sql):
            yield found.span(1)


def secrets_in(sql: str, *, bodies: bool = False) -> list[Span]:
    """The secrets of *sql*; with *bodies*, also a whole function or DO body that has one.

    The offsets count characters, for both text and `octets`.
    """
    spans: list[Span] = []
    before = 0
    for start, end, after in extents(sql):
        spans += _in_comments(sql, before, start)
        before = after
        if sql[start] == "\\":
            spans += _in_command(sql, start, end)
            continue
        found, all_of_it = _in_statement(sql, start, end, bodies=bodies)
        spans += found
        if all_of_it:
            spans += _copied(sql, end, after)
    spans += _in_comments(sql, before, len(sql))
    return spans


def _copied(sql: str, start: int, end: int) -> Iterator[Span]:
    """The COPY data after a statement that ends at *start*, if any."""
    first = sql.find("\n", start, end) + 1
    if first:
        yield first, end - 3 if sql.endswith("\n\\.", first, end) else end


def _has_sign(text: str, signs: Sequence[str], start: int = 0, end: int | None = None) -> bool:
    end = len(text) if end is None else end
    if end - start > _SHORT:
        return mentions(text, signs, start, end)  # which copies a piece at a time
    lower = text[start:end].lower()
    return any(map(lower.__contains__, signs))


_SHORT = 1 << 12


def _in_comments(sql: str, start: int, end: int) -> Iterator[Span]:
    if end - start > 1 and _has_sign(sql, _SIGNS, start, end):
        for token in tokens(sql, start, end):
            if token.kind == "comment" and _has_secret(sql[token.start : token.end]):
                yield _inside(sql, token)


def _in_command(sql: str, start: int, end: int) -> Iterator[Span]:
    """The arguments of a psql command."""
    _, blank, rest = sql[start:end].partition(" ")
    if blank and any(map(is_secret_name, rest.split())):
        yield end - len(rest), end


class _Statement(Record):
    """The properties of a statement that need more than one of its tokens."""

    sql: str
    tokens: Sequence[Token]
    words: Sequence[str]
    """Its words in upper case, and for each other token its kind, in lower case."""
    first: Sequence[str]
    """Its first words, without the optional ones between CREATE and the kind of object."""

    @classmethod
    def of(cls, sql: str, start: int, end: int) -> _Statement:
        """The text of *sql* from *start* to *end*."""
        found = list(tokens(sql, start, end))
        words = [
            sql[each.start : each.end].upper() if each.kind == "word" else each.kind
            for each in found
        ]
        first = (each for each in words if each.isupper() and each not in _BEFORE_KIND)
        return cls(sql, found, words, list(islice(first, 6)))

    def text(self, token: Token) -> str:
        return self.sql[token.start : token.end]


def _in_statement(sql: str, start: int, end: int, *, bodies: bool) -> tuple[list[Span], bool]:
    """The secrets of a statement, and whether each of its literals is one."""
    if not (
        _has_sign(sql, _SIGNS, start, end)
        or _compiled(_MAYBE_WHOLE).match(sql, start, end)
        or (
            _has_sign(sql, _SIGNS_IN_BODY, start, end)
            and _compiled(_HAS_BODY).match(sql, start, end)
        )
    ):
        return [], False
    if end - start > _HUGE:
        return _in_huge(sql, start, end)
    statement = _Statement.of(sql, start, end)
    body = _body(statement)
    called = _called(statement)
    every = _is_masked_whole(statement) or _is_named_secret(statement, body)
    spans = [*_settings(statement), *_unquoted(statement)]
    for number in _literals(statement):
        token = statement.tokens[number]
        if number in body:
            spans += _in_body(statement, number, whole=bodies)
        elif every or number in called or _is_secret(statement.text(token)):
            spans.append(_quoted(statement, number))
    spans += _comments_of(statement, every=every)
    return _merged(spans), every


_HUGE = 1 << 20
"""In characters. The tokens of a longer statement, with a million rows, would fill the memory."""


def _in_huge(sql: str, start: int, end: int) -> tuple[list[Span], bool]:
    """As `_in_statement`: everything after its first literal, or values with a secret's shape."""
    beginning = _Statement.of(sql, start, start + _PIECE)
    literals = _literals(beginning)
    body = _body(beginning)
    if literals and (body or _is_masked_whole(beginning) or _is_named_secret(beginning, body)):
        return [(beginning.tokens[literals[0]].start, end)], True
    text = sql[start:end]
    shapes = (each.span() for each in _compiled(_SHAPES).finditer(text))
    found = [*_pairs(text, bare=True), *shapes]
    return [(start + first, start + last) for first, last in found], False


_PIECE = 1 << 16


def _literals(statement: _Statement) -> list[int]:
    return [n for n, each in enumerate(statement.tokens) if each.kind in _QUOTES]


def _is_masked_whole(statement: _Statement) -> bool:
    first = statement.first
    for kind in _MASKED_WHOLE:
        if len(first) >= len(kind) and all(
            word in words for word, words in zip(first, kind, strict=False)
        ):
            return True
    words = statement.words
    if first[:1] == ["COPY"] and "PROGRAM" in words:
        return True
    # EXPLAIN EXECUTE, CREATE TABLE ... AS EXECUTE
    return any(
        word == "EXECUTE" and following not in ("FUNCTION", "PROCEDURE", "ON")
        for word, following in zip(words, [*words[1:], ""], strict=True)
    ) and first[:1] in (["EXPLAIN"], ["CREATE"])


def _is_named_secret(statement: _Statement, body: Sequence[int]) -> bool:
    """Whether the name of a column, table, function or setting in it is that of a secret."""
    first = statement.first
    is_definition = first[:1] in (["CREATE"], ["ALTER"]) and {*first[1:2]} & {*_DEFINITIONS}
    if first[:1] == ["COMMENT"] or (is_definition and "SELECT" not in statement.words):
        return False
    for number, token in enumerate(statement.tokens):
        if token.kind in ("word", "name"):
            if is_secret_name(statement.text(token)):
                return True
        elif token.kind not in _QUOTES or number in body:
            continue
        elif _announces_secret(_content(statement.text(token))):
            return True
    return False


def _called(statement: _Statement) -> set[int]:
    """The literals in calls of functions that take secrets."""
    found: set[int] = set()
    depths: list[bool] = []
    before = ""
    for number, token in enumerate(statement.tokens):
        text = statement.text(token) if token.kind in ("other", "word", "name") else ""
        if text == "(":
            is_call = bool(_compiled(_MASKED_CALLS).fullmatch(before.strip('"')))
            depths.append(is_call or (bool(depths) and depths[-1]))
        elif text == ")" and depths:
            depths.pop()
        elif token.kind in _QUOTES and depths and depths[-1]:
            found.add(number)
        if token.kind != "comment":
            before = text
    return found


def _settings(statement: _Statement) -> Iterator[Span]:
    """The value in SET for a setting with the name of a secret, quoted or not."""
    if statement.first[:1] in (["INSERT"], ["UPDATE"], ["MERGE"], ["WITH"]):
        return
    significant = [each for each in statement.tokens if each.kind != "comment"]
    for number, token in enumerate(significant):
        if statement.text(token).upper() != "SET":
            continue
        name = ""
        for at in range(number + 1, min(number + 12, len(significant))):
            word = statement.text(significant[at])
            if word == "=" or word.upper() == "TO":
                if is_secret_name(name) and at + 1 < len(significant):
                    yield significant[at + 1].start, significant[-1].end
                break
            name += word if word == "." else f"{'' if name.endswith('.') else ' '}{word}"


def _unquoted(statement: _Statement) -> Iterator[Span]:
    """The value after PASSWORD without quotes, or in double quotes."""
    if not _is_masked_whole(statement):
        return
    significant = [each for each in statement.tokens if each.kind != "comment"]
    for each, following in pairwise(significant):
        if each.kind not in ("word", "name") or following.kind not in ("word", "name", "number"):
            continue
        word = statement.text(each).strip('"').lower()
        if word in _PASSWORDS and statement.text(following).upper() not in ("NULL", "REQUIRED"):
            yield following.start, following.end


_PASSWORDS = ("password", "sslpassword", "passwd")


def _comments_of(statement: _Statement, *, every: bool) -> Iterator[Span]:
    for token in statement.tokens:
        if token.kind == "comment":
            text = statement.text(token)
            if _has_secret(text) or (every and any(each in text for each in "'\"$=:")):
                yield _inside(statement.sql, token)


def _inside(sql: str, comment: Token) -> Span:
    """The text of a *comment* without its marks and the blanks next to them."""
    start, end = comment.start + 2, comment.end
    if sql.startswith("/*", comment.start) and sql.endswith("*/", start, end):
        end -= 2
    start += sql.startswith(" ", start, end)
    return start, max(start, end - sql.endswith(" ", start, end))


def _body(statement: _Statement) -> list[int]:
    """The literals that are the body of a DO block or a function."""
    words, first = statement.words, statement.first
    if first[:1] == ["DO"]:
        return [each for each in _literals(statement) if words[each - 1] != "LANGUAGE"]
    if first[:1] == ["CREATE"] and first[1:2] in (["FUNCTION"], ["PROCEDURE"]):
        begins = words.index("AS") if "AS" in words else len(words)
        return [number for number in _literals(statement) if number > begins]
    return []


def _in_body(statement: _Statement, number: int, *, whole: bool) -> Iterator[Span]:
    """The literals of a body that handles secrets, or the *whole* body."""
    token = statement.tokens[number]
    text = statement.text(token)
    if not is_about_secrets(_content(text)):
        return
    if whole or token.kind == "string":
        yield _quoted(statement, number)
        return
    mark = text.index("$", 1) + 1
    start = token.start + mark
    end = token.end - mark if text.endswith(text[:mark]) and len(text) >= 2 * mark else token.end
    body = _Statement.of(statement.sql, start, end)
    for each in _literals(body):
        if not _is_format_of_raise(body, each):
            yield _quoted(body, each)
    yield from _comments_of(body, every=True)


def _is_format_of_raise(body: _Statement, number: int) -> bool:
    before = [word for word in body.words[max(0, number - 3) : number] if word != "comment"]
    return before[-1:] == ["RAISE"] or before[-2:-1] == ["RAISE"]


def is_about_secrets(content: str) -> bool:
    """Whether code, or the content of a string in it, handles secrets."""
    if not _has_sign(content, _SIGNS_IN_BODY):
        return False
    words = [each[0] for each in _compiled(r"(?a)[A-Za-z_][\w.]*+").finditer(content)]
    heads = {(a.upper(), b.upper()) for a, b in pairwise(words)}
    return (
        any(map(is_secret_name, words))
        or any(_compiled(_MASKED_CALLS).fullmatch(each.rpartition(".")[2]) for each in words)
        or any((a, b) in heads for kind in _MASKED_WHOLE[:-1] for a in kind[0] for b in kind[1])
        or {"COPY", "PROGRAM"} <= {each.upper() for each in words}
        or _has_secret(content)
    )


def _is_secret(literal: str) -> bool:
    """Whether the content of a *literal* is a secret, or SQL with one."""
    if not _has_sign(literal, _SIGNS_IN_BODY):
        return False
    content = _content(literal)
    return _has_secret(content) or (
        _compiled(_SQL).match(content) is not None and bool(secrets_in(content))
    )


def _quoted(statement: _Statement, number: int) -> Span:
    """The span of a literal, including its quotes and its prefix."""
    token, sql = statement.tokens[number], statement.sql
    start = token.start
    if token.kind == "string" and number:
        before = statement.tokens[number - 1]
        prefix = sql[before.start : start].lower()
        if before.end == start and prefix == "&" and number > 1:
            start = statement.tokens[number - 2].start
        elif before.end == start and prefix in _PREFIXES:
            start = before.start
    return start, token.end


def _content(literal: str) -> str:
    """The value of a *literal*, ignoring the effect of its prefix."""
    if literal.startswith("$"):
        mark = literal.index("$", 1) + 1
        return literal[mark:].removesuffix(literal[:mark])
    return literal[1:].removesuffix("'").replace("''", "'")


def _merged(spans: Iterable[Span]) -> list[Span]:
    """*spans* in order, with adjacent and overlapping ones merged."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _blotted(text: str, spans: Iterable[Span]) -> str:
    """*text* with the mask for each of *spans*."""
    kept, after = [], 0
    for start, end in _merged(spans):
        kept += [text[after:start], MASK]
        after = end
    return "".join([*kept, text[after:]]) if after else text


# --- messages of the server ---

_KEPT = 6
"""Characters of a secret in a row that reveal it. A shorter secret must be a separate word."""


def secret_values(sql: str) -> tuple[str, ...]:
    """The secrets of *sql*, in `octets`: both as written and with their escapes resolved."""
    spans = _merged([*secrets_in(sql), *_spelled(sql)])
    written = (sql[start:end].encode("latin-1").decode(errors="replace") for start, end in spans)
    return tuple(dict.fromkeys(form for each in written for form in _forms(each) if form))


def _forms(written: str) -> Iterator[str]:
    literal = _compiled(r"(?is)(?:[enbx]|u&)?('.*|\$\w*\$.*)").fullmatch(written)
    if not literal:
        yield written
        return
    content = _content(literal[1])
    yield content
    yield literal[1]
    if "\\" in content:
        yield _compiled(
            r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|\+?([0-9a-fA-F]{4,6})|(.))"
        ).sub(_meant, content)


def _meant(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(min(int(code, 16), 0x10FFFF)) if code else escape[4]


def without_values(text: str, values: Sequence[str]) -> str:
    """*text* with everything masked that repeats one of the secret *values*, or a part of it."""
    if not (text and values):
        return text
    spans: list[Span] = []
    grams: dict[str, list[int]] = {}
    for at in range(len(text) - _KEPT + 1):
        grams.setdefault(text[at : at + _KEPT], []).append(at)
    for value in values:
        if len(value) > _HUGE:
            quoted = _compiled(rf"[{_QUOTING}]([^{_QUOTING}]++)[{_QUOTING}]").finditer(text)
            spans += [each.span(1) for each in quoted if each[1] in value]
            continue
        if len(value) < _KEPT:
            if len(value) > 2 or not value.isalpha():
                found = re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text)
                spans += [each.span() for each in found]
            continue
        for at in range(len(value) - _KEPT + 1):
            for there in grams.pop(value[at : at + _KEPT], ()):
                spans.append((there, there + _KEPT))
    return _blotted(text, spans)


_QUOTING = '"\u00ab\u00bb\u201c\u201d\u201e\u300c\u300d\u300e\u300f'
"""The quotes that the server uses, in all its languages."""

_QUERY = rf"""(?xm)
    ^ (?!COPY\ |JSON) ([^{_QUOTING}\r\n]*+) [{_QUOTING}]
    (?! [\w.$-]{{1,63}}[{_QUOTING}] | [\ \u00a0][\w.$-]{{1,63}}[\ \u00a0]\u00bb )
    (?s:.*?)
    (?: [{_QUOTING}] (?=[^\S\r\n]*(?:\n(?:PL/|SQL|COPY|JSON|[^\W\d_]+[ ][^\n]*\d)|\Z)) | \Z )
"""
"""A statement that the server quotes, up to the frame that called it."""

_COPIED = r'(?m)^(COPY [^"\n]*: )".*'
"""A line of data, or a value of it, by table and column."""

_KEY = r"(?s)\(((?:[^()]|\([^()]*\))*+)\) ?= ?\((.*?)\)(?=[^()]*(?:\(|\Z))"
_FAILING_ROW = ("23502", "23514", "44000")
"""The server shows all of a row that breaks a NOT NULL, a CHECK, or the option of a view."""


def masked_context(context: str) -> str:
    """*context* with the places of functions and DO blocks, but without the statements they ran."""

    def of_data(found: re.Match[str]) -> str:
        return f"{found[1]}{MASK}" if is_secret_name(found[1]) else found[0]

    masked = _compiled(_QUERY).sub(lambda found: f'{found[1]}"{MASK}"', context)
    return _compiled(_COPIED).sub(of_data, masked)


def masked_detail(detail: str, sqlstate: str, table: str) -> str:
    """*detail* without the values of a whole row, and of a key with the name of a secret."""
    is_secret_table = is_secret_name(table)

    def of_key(found: re.Match[str]) -> str:
        if is_secret_table or is_secret_name(found[1]):
            return f"{found[0][: found.start(2) - found.start()]}{MASK})"
        return found[0]

    masked = _compiled(_KEY).sub(of_key, detail)
    first = detail.find("(")
    if sqlstate in _FAILING_ROW and first >= 0 and not _compiled(_KEY).search(detail):
        last = detail.rfind(")")
        return f"{detail[: first + 1]}{MASK}{detail[max(first + 1, last) :]}"
    return masked


def masked_problem(problem: Problem, values: Sequence[str] = ()) -> Problem:
    """*problem* with the server's texts masked, including any repetition of *values*."""
    server = problem.server

    def plain(text: str) -> str:
        text = mask(without_values(text, values))
        return _blotted(text, _pairs(text, bare=True))

    detail = masked_detail(server.detail, server.sqlstate, server.table)
    if not _compiled(_KEY).search(server.detail):
        detail = without_values(detail, values)
    return problem._replace(
        message=plain(problem.message),
        server=server._replace(
            detail=mask(detail),
            hint=plain(server.hint),
            context=plain(masked_context(server.context)),
        ),
    )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
