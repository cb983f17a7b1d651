r"""Characters that nobody sees, or that a terminal obeys, made visible in every output.

What initmig shows contains text of others: of the server, of rows, of other sessions, of files.
Raw, such a text can end a line and continue with one that looks like initmig's, clear the screen,
or show its parts in another order than the one that programs read:

- `Trojan Source <https://trojansource.codes>`_ (CVE-2021-42574, CVE-2021-42694)
- `UTR 36 <https://www.unicode.org/reports/tr36/>`_, 3 (text that is shown as another)
- `UTS 55 <https://www.unicode.org/reports/tr55/>`_, 3.2 (source code with bidirectional text)
- `CWE-117 <https://cwe.mitre.org/data/definitions/117.html>`_ (log forging),
  `CWE-150 <https://cwe.mitre.org/data/definitions/150.html>`_ (escape sequences)

The character's general category decides, so that no list of characters has to be kept:

====  =========================================================================  =======
Cc    C0, DEL and C1: line ends, ESC, CSI                                        escaped
Cf    bidirectional controls, zero-width characters, joiners, soft hyphen, tags  escaped
Cs    lone surrogates, which stand for bytes that are not UTF-8                  escaped
Co    private use                                                                escaped
Cn    unassigned, as far as Python's version of Unicode knows                    escaped
Zl    line separator                                                             escaped
Zp    paragraph separator                                                        escaped
Zs    spaces, as U+3000 of Japanese and U+00A0 of French messages                kept
else  letters, marks, numbers, punctuation, symbols                              kept
====  =========================================================================  =======

An emoji that consists of several, joined by U+200D, is shown as these, with ``\u200d`` between
them: the joiner is also what makes two different names look alike. Letters that look like others
are kept: what is no attack in Cyrillic is none here.

A backslash is kept as it is, so that paths and SQL stay readable and a text that was made visible
can be so again. ``\x1b`` is therefore either ESC or these four characters. JSON tells which.
"""

from __future__ import annotations

CONTINUATION = "    | "
"""What a line of a text begins with, other than its first: no line of initmig's own does."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class SafeText(str):
    """A text that was made visible, and then got escape sequences: initmig's own and no others."""

    __slots__ = ()


def in_one_line(text: str) -> str:
    """*text* with every such character as an escape, line ends and tabs included."""
    return text if text.isprintable() else text.translate(_Escapes())


def in_lines(text: str) -> str:
    """*text* with its line ends and tabs; every line but the first begins with `CONTINUATION`."""
    return text if text.isprintable() else f"\n{CONTINUATION}".join(_lines(text))


def with_line_breaks(text: str) -> str:
    """*text* of initmig's own lines, with its line ends and tabs."""
    return text if type(text) is SafeText or text.isprintable() else "\n".join(_lines(text))


def to_json(value: object, *, indent: int | None = None) -> str:
    """*value* as JSON, in one line if there is no *indent*; read, it is *value* again.

    A lone surrogate is an exception, as many readers refuse it: it becomes the text of its escape.
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
    """What `str.translate` looks a code point up in."""

    def __getitem__(self, code: int) -> str:
        character = chr(code)
        if _is_shown(character):
            return character
        return _SHORT.get(character) or _escape(code)


class _JSONEscapes:
    """Likewise, for a document: what is left in it stands in its strings, but for line ends."""

    def __getitem__(self, code: int) -> str:
        character = chr(code)
        if character == "\n" or _is_shown(character):
            return character
        if 0xD800 <= code < 0xE000:
            return f"\\{_escape(code)}"
        units = character.encode("utf-16-be").hex()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _escape(code: int) -> str:
    """The *code* point as Python writes it in a string."""
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
