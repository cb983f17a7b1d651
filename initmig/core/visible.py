r"""Escape invisible characters and control characters in all output.

initmig's output contains text from others: the server, rows, other sessions, and files. Without
escapes, such text can end a line and forge one of initmig's lines, clear the screen, or display
in a different order than programs read it:

- `Trojan Source <https://trojansource.codes>`_ (CVE-2021-42574, CVE-2021-42694)
- `UTR 36 <https://www.unicode.org/reports/tr36/>`_, 3 (text that looks like other text)
- `UTS 55 <https://www.unicode.org/reports/tr55/>`_, 3.2 (source code with bidirectional text)
- `CWE-117 <https://cwe.mitre.org/data/definitions/117.html>`_ (log forging),
  `CWE-150 <https://cwe.mitre.org/data/definitions/150.html>`_ (escape sequences)

The general category of a character decides, so there is no list of characters to maintain.
These are escaped:

- Cc: C0, DEL and C1, such as line ends, ESC and CSI
- Cf: bidirectional controls, zero-width characters, joiners, soft hyphen, tags
- Cs: lone surrogates, which represent bytes that are not UTF-8
- Co: private use
- Cn: unassigned in Python's version of Unicode
- Zl: line separator
- Zp: paragraph separator

These are kept:

- Zs: spaces, including U+3000 of Japanese and U+00A0 of French messages
- all others: letters, marks, numbers, punctuation, symbols

An emoji that joins several with U+200D is shown as its parts, with ``\u200d`` between them, because
the joiner can also make two different names look alike. Letters that look like others are kept:
they are normal text in Cyrillic, for example.

Backslashes are kept, so paths and SQL stay readable, and escaping twice changes nothing. ``\x1b``
is therefore either ESC or these four characters. JSON output distinguishes them.
"""

from __future__ import annotations

CONTINUATION = "    | "
"""Prefix of every line of a text except the first. No line of initmig's starts with it."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class SafeText(str):
    """Escaped text to which initmig has added its own escape sequences."""

    __slots__ = ()


def in_one_line(text: str) -> str:
    """Escape *text*, including line ends and tabs."""
    return text if text.isprintable() else text.translate(_Escapes())


def in_lines(text: str) -> str:
    """Escape *text* but keep line ends and tabs. Later lines start with `CONTINUATION`."""
    return text if text.isprintable() else f"\n{CONTINUATION}".join(_lines(text))


def with_line_breaks(text: str) -> str:
    """Escape *text*, which initmig wrote, but keep its line ends and tabs."""
    return text if type(text) is SafeText or text.isprintable() else "\n".join(_lines(text))


def to_json(value: object, *, indent: int | None = None) -> str:
    """*value* as JSON, on one line without *indent*. Parsing it returns *value*.

    A lone surrogate is an exception, because many parsers reject it: it becomes the text of its
    escape.
    """
    from json import dumps

    document = dumps(value, indent=indent, ensure_ascii=False)
    return document if document.isprintable() else document.translate(_JSONEscapes())


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return ["\t".join(map(in_one_line, line.split("\t"))) for line in lines]


def _is_shown(character: str) -> bool:
    from unicodedata import category

    return character.isprintable() or category(character) == "Zs"


class _Escapes:
    """Maps code points for `str.translate`."""

    def __getitem__(self, code: int) -> str:
        character = chr(code)
        if _is_shown(character):
            return character
        return _SHORT.get(character) or _escape(code)


class _JSONEscapes:
    """Maps code points of a JSON document. Only its strings can contain such characters."""

    def __getitem__(self, code: int) -> str:
        character = chr(code)
        if character == "\n" or _is_shown(character):
            return character
        if 0xD800 <= code < 0xE000:
            return f"\\{_escape(code)}"
        units = character.encode("utf-16-be").hex()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _escape(code: int) -> str:
    """The *code* point as a Python escape."""
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
