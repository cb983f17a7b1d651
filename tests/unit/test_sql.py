from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core.errors import Place
from initmig.sql.lines import Lines, characters, in_characters, offset_of
from initmig.sql.scanner import (
    Directive,
    Scan,
    Scanner,
    blanked,
    mentions,
    octets,
    scan,
    split,
)

ONE_STATEMENT = {
    "plain string": "SELECT 'a;b'",
    "quote in a string": "SELECT 'it''s; fine'",
    "backslash in a plain string": r"SELECT '\'",
    "escape string": r"SELECT E'a\';b', e'\\'",
    "escape string with doubled quote": r"SELECT E'a'';\''",
    "continued escape string": "SELECT E'a'\n  'b\\';'",
    "continued escape string after a comment": "SELECT E'a' -- c\n 'b\\';'",
    "word that ends with e": r"SELECT date'\'",
    "other strings": "SELECT B'01', X'1F', N'a;', U&'d\\0061t;'",
    "string with CRLF": "SELECT 'a;\r\nb'",
    "quoted identifier": 'SELECT ";", "a"";", U&";"',
    "line comment": "SELECT 1 -- ; it's\n + 1",
    "line comment up to a return": "SELECT 1 -- ;\r + 1",
    "block comment": "SELECT /* ; ' */ 1",
    "nested comments": "SELECT /* a /* ; */ ; /*/*/* ; */*/*/ */ 1",
    "stars in a comment": "SELECT /***;***/ 1",
    "operators": "SELECT 1 # 2, a #> '{;}', 4 / 2 - -1, a -|- b, a @> b",
    "hash before a string of several lines": "SELECT a # 'b;\n;c'",
    "dollar quotes": "SELECT $$;'$$, $tag$;$$;$Tag$;$tag$, $é1$;$é1$",
    "dollar quotes side by side with the tag": "SELECT $a$ $b$a$",
    "dollar in a word": "SELECT a$b$ + 1, é$x$",
    "parameter": "PREPARE p AS SELECT $1, $2",
    "rule with two statements": "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)",
    "column named begin": "CREATE TABLE t (begin date, atomic int)",
    "begin without atomic": "CREATE VIEW v AS SELECT begin FROM t",
    "block": "DO $$ BEGIN COMMIT; END; $$",
    "body": "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
    "empty body": "create procedure p() begin atomic end",
    "body after a comment": "CREATE FUNCTION f() BEGIN /* /* */ */ -- c\n ATOMIC SELECT 1; END",
    "cases in a body": "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN true THEN "
    "(case when false then 1 end) END; SELECT 2; END",
    "end as a name in a body": "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1 AS end, t.end, "
    '"end", a_end, end$ FROM t; SELECT 2; END',
    "never closed string": "SELECT 'a; SELECT 2",
    "never closed escape string": "SELECT E'a; \\",
    "never closed identifier": 'SELECT "a; SELECT 2',
    "never closed dollar quotes": "SELECT $a$; $b$ SELECT 2",
    "never closed comment": "SELECT 1 /* /* */ ; SELECT 2",
    "never closed parenthesis": "SELECT (1; SELECT 2",
    "in parentheses": "(SELECT 1)",
}

MARKS = [*"'\"$;()\\/*-\n\r eE1é#", "$$", "--", "/*", "*/", "$a$", "E'", "\\.\n"]
WORDS = ["BEGIN ATOMIC", "END", "CASE", "CREATE ", "COMMIT", "COPY t FROM STDIN;\n"]
SQL = st.lists(st.sampled_from([*ONE_STATEMENT.values(), *MARKS, *WORDS]), max_size=12).map("".join)


def scanned(text: str) -> Scan:
    return scan(text, transactional=True)


def texts(text: str) -> list[str]:
    return [statement.text for statement in split(text)]


@pytest.mark.parametrize("text", ONE_STATEMENT.values(), ids=ONE_STATEMENT)
def test_a_semicolon_inside_of_something_ends_no_statement(text: str) -> None:
    assert texts(text) == [text]


@pytest.mark.parametrize(
    "text",
    [text for name, text in ONE_STATEMENT.items() if "never" not in name],
)
def test_a_semicolon_outside_ends_the_statement(text: str) -> None:
    assert texts(f"SELECT 0; {text}\n; SELECT 9") == ["SELECT 0", text, "SELECT 9"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ;; -- c\n ; /* c */", []),
        ("\ufeffSELECT 1;", ["SELECT 1"]),
        ("-- c\n/* c */ SELECT 1", ["SELECT 1"]),
        ("SELECT 1 -- kept\n;", ["SELECT 1 -- kept"]),
        ("SELECT 1;\r\nSELECT 2\r\n", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1);SELECT 2", ["SELECT 1)", "SELECT 2"]),
        ("BEGIN; SELECT 1; COMMIT; SELECT 2;", ["BEGIN", "SELECT 1", "COMMIT", "SELECT 2"]),
        ("SELECT begin atomic; SELECT 2", ["SELECT begin atomic", "SELECT 2"]),
        ("SELECT 1 AS case; SELECT 2", ["SELECT 1 AS case", "SELECT 2"]),
        ("SELECT 1 \\gexec\nSELECT 2", ["SELECT 1", "SELECT 2"]),
        ("\\set a it's\nSELECT 1", ["SELECT 1"]),
        ("COPY t FROM stdin;\n1;\t'\n\\.\nSELECT 1", ["COPY t FROM stdin", "SELECT 1"]),
        ("COPY t FROM stdin;\n1;", ["COPY t FROM stdin"]),
        ("SELECT 1 \xa0; SELECT 2", ["SELECT 1 \xa0", "SELECT 2"]),
    ],
)
def test_a_text_is_split_where_psql_would_split_it(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


@given(SQL)
def test_statements_are_in_order_at_their_offsets(text: str) -> None:
    before = 0
    for statement in split(text):
        assert before <= statement.start < statement.end <= len(text)
        assert text[statement.start : statement.end] == statement.text
        before = statement.end


@given(SQL)
def test_a_statement_split_again_is_one_statement(text: str) -> None:
    for statement in split(text):
        assert texts(statement.text) == [statement.text]


@given(st.lists(st.sampled_from([t for n, t in ONE_STATEMENT.items() if "never" not in n])))
def test_joined_statements_are_split_again(statements: list[str]) -> None:
    assert texts("\n;".join(statements)) == statements


@pytest.mark.parametrize(
    ("text", "name", "effect"),
    [
        ("BEGIN;", "BEGIN", "begin a transaction"),
        ("start /* c */ transaction", "START TRANSACTION", "begin a transaction"),
        ("COMMIT", "COMMIT", "end the transaction"),
        ("COMMIT AND CHAIN", "COMMIT", "end the transaction"),
        ("End Work;", "END", "end the transaction"),
        ("ROLLBACK;", "ROLLBACK", "end the transaction"),
        ("abort", "ABORT", "end the transaction"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION", "end the transaction"),
    ],
)
@pytest.mark.parametrize(
    "before", ["", "\ufeff", "SELECT 1;", "-- c\r", "/* c */", ";\f\n ", "/**/\t"]
)
def test_a_command_that_begins_or_ends_a_transaction_is_found(
    before: str, text: str, name: str, effect: str
) -> None:
    (finding,) = scanned(f"{before}{text}").transaction_commands

    assert finding.offset == len(before)
    assert finding.id == "transaction-command"
    assert finding.message.startswith(f"{name} would {effect}")
    assert finding.hint.startswith("delete it, because initmig runs each file in one transaction")
    assert "`-- transactional: false`" in finding.hint


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "begin work read only;",
        "START TRANSACTION /* c */ DEFERRABLE",
    ],
)
def test_a_transaction_with_modes_has_another_remedy(text: str) -> None:
    (finding,) = scanned(text).transaction_commands

    assert finding.hint.startswith("write SET TRANSACTION with its modes instead, and delete the")


LEFT_OUT = {
    "plainly": ("BEGIN; a; COMMIT;", "       a;        "),
    "without the last semicolon": ("BEGIN;\na;\nEND", "      \na;\n   "),
    "in lower case": ("begin work;\na;\nend transaction;", "           \na;\n                "),
    "with comments around": ("-- é\nBEGIN;a;COMMIT;\n/* 漢 */", "-- é\n      a;       \n/* 漢 */"),
    "with comments between": (
        "START/* 漢\n */TRANSACTION -- é\n; a; COMMIT AND NO CHAIN;;",
        "     /* 漢\n */            -- é\n  a;                     ;",
    ),
    "with savepoints": (
        "BEGIN; SAVEPOINT x; ROLLBACK TO x; END;",
        "       SAVEPOINT x; ROLLBACK TO x;     ",
    ),
    "with nothing": ("BEGIN; COMMIT;", "              "),
    "with functions": (
        "BEGIN; CREATE FUNCTION f() AS $$BEGIN; COMMIT; END$$; COMMIT;",
        "       CREATE FUNCTION f() AS $$BEGIN; COMMIT; END$$;        ",
    ),
    "with data": (
        "BEGIN; COPY t FROM STDIN;\nCOMMIT\n\\.\nCOMMIT;",
        "       COPY t FROM STDIN;\nCOMMIT\n\\.\n       ",
    ),
}


@pytest.mark.parametrize(("text", "kept"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_frame_is_blanked_and_other_text_keeps_its_place(text: str, kept: str) -> None:
    left = blanked(text.encode(), scanned(octets(text.encode())).frame)

    assert left.decode() == kept
    assert len(left) == len(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN; a;",
        "a; COMMIT;",
        "BEGIN; a; ROLLBACK;",
        "BEGIN; a; COMMIT; b;",
        "a; BEGIN; b; COMMIT;",
        "BEGIN; a; COMMIT; BEGIN; b; COMMIT;",
        "BEGIN; a; COMMIT; COMMIT;",
        "BEGIN; BEGIN; a; COMMIT;",
        "BEGIN; a; COMMIT AND CHAIN;",
        "BEGIN; a; PREPARE TRANSACTION 'x';",
        "BEGIN READ ONLY; a; COMMIT;",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE; a; COMMIT;",
        "BEGINS; a; COMMIT;",
        "COMMIT; a; BEGIN;",
    ],
)
def test_text_without_a_frame_is_kept(text: str) -> None:
    assert [*scanned(text).frame] == []


def test_every_such_command_is_found_once() -> None:
    text = "BEGIN;\nINSERT INTO t VALUES (1);\nCOMMIT;\nSELECT 1;\nROLLBACK;"

    assert [finding.offset for finding in scanned(text).transaction_commands] == [0, 33, 51]


@pytest.mark.parametrize(
    "text",
    [
        *ONE_STATEMENT.values(),
        "ROLLBACK TO x",
        "ROLLBACK TO SAVEPOINT x",
        "rollback work -- c\n to x",
        "ROLLBACK PREPARED 'x'",
        "COMMIT PREPARED 'x'",
        "SAVEPOINT x; RELEASE x",
        "PREPARE p AS SELECT 1",
        "START_X; BEGINS; COMMIT$; ENDÉ",
        "SELECT 1\nEND",
        "INSERT INTO t VALUES (';\nCOMMIT;')",
        "CREATE TABLE t (\nbegin date,\nend_ date)",
        "-- COMMIT;\n/*\nCOMMIT;\n*/",
        "COPY t FROM STDIN;\nCOMMIT\n\\.\n",
    ],
)
def test_commands_that_keep_the_transaction_open_are_not_reported(text: str) -> None:
    assert [*scanned(text).transaction_commands] == []


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("\\connect", "the database in its settings"),
        ("\\copy", "INSERT ... VALUES, or a Python migration that uses cursor.copy()"),
        ("\\i", "make that file a separate migration"),
        ("\\set", "write the values"),
        ("\\if", "IF in a DO block"),
        ("\\gexec", "EXECUTE each row"),
        ("\\g", "end the statement with a semicolon"),
        ("\\;", "end the statement with a semicolon"),
        ("\\echo", "RAISE NOTICE"),
        ("\\timing", "only psql knows"),
        ("\\!", "only psql knows"),
        ("\\.", "only psql knows"),
    ],
)
@pytest.mark.parametrize("before", ["", "SELECT 1;\n", "SELECT 1 ", "-- c\n  "])
def test_a_command_of_psql_is_found(before: str, command: str, hint: str) -> None:
    (finding,) = scanned(f"{before}{command} it's \\x ;\nSELECT 2;").psql_only

    assert finding.offset == len(before)
    assert finding.id == "psql-command"
    assert finding.message == f"{command} is a psql command, not SQL"
    assert hint in finding.hint


@pytest.mark.parametrize("text", ["\\", "\\\nSELECT 1"])
def test_a_backslash_alone_is_found(text: str) -> None:
    (finding,) = scanned(text).psql_only

    assert (finding.id, finding.message.split()[0]) == ("psql-command", "\\")


@pytest.mark.parametrize(
    "text",
    [
        "COPY t FROM STDIN;",
        "COPY t FROM STDIN;\n1\n",
        "COPY t FROM STDIN;\n1\n\\.1\n",
        "COPY t FROM STDIN;\n1\n \\.\n",
        "COPY t FROM STDIN; 1\n\\.\n",
        "COPY t FROM STDIN; SELECT 1;\n1\n\\.\n",
        'copy public."t(" (a, "b)") from /* c */ stdin with (format csv);\n1,2',
        "COPY t(a)FROM stdin",
        "copy binary t from stdin;",
    ],
)
def test_copy_from_stdin_without_its_data_is_found(text: str) -> None:
    [finding] = scanned(f"\n{text}").psql_only
    assert (finding.id, finding.offset) == ("copy-without-data", 1)
    assert finding.message.startswith("COPY ... FROM STDIN has no data")
    assert finding.hint.endswith("or write INSERT ... VALUES")
    assert [*scanned(text).copies] == []


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("COPY t FROM STDIN;\n1\n\\.\n", ["1\n"]),
        ("COPY t FROM STDIN;\n1\n\\.", ["1\n"]),
        ("COPY t FROM STDIN; \t\n1\n\\.\n", ["1\n"]),
        ("COPY t FROM STDIN;\n\\.\n", [""]),
        ("COPY t FROM STDIN;\n\n\\.\n", ["\n"]),
        ("COPY t FROM STDIN;\r\n1\r\n2\r\n\\.\r\nSELECT 1;", ["1\r\n2\r\n"]),
        ("COPY t FROM STDIN;\n\\N\t\\i\n\\.x\n\\.\n", ["\\N\t\\i\n\\.x\n"]),
        ("COPY t FROM STDIN;\n';\n\\.\nCOPY u(a) FROM stdin;\n$$\n\\.\n", ["';\n", "$$\n"]),
        ("SELECT 'COPY t FROM stdin;\n1\n\\.\n'", []),
        ("/* COPY t FROM stdin;\n1\n\\.\n*/", []),
        ("COPY t TO stdout;\nSELECT 'stdin'", []),
    ],
)
def test_data_of_copy_is_what_psql_would_send(text: str, data: list[str]) -> None:
    found = scanned(text).copies

    assert [text[each.start : each.end] for each in found] == data
    assert [text[each.statement : each.statement + 4] for each in found] == ["COPY"] * len(data)
    assert all(text[: each.after].endswith(("\\.", "\\.\r")) for each in found)
    assert [*scanned(text).psql_only] == []


@given(SQL)
def test_data_of_copy_is_between_statements(text: str) -> None:
    statements = split(text)
    for each in scanned(text).copies:
        assert each.start <= each.end < each.after
        [_] = [one for one in statements if one.start == each.statement and one.end < each.start]
        assert not [one for one in statements if each.start <= one.start < each.after]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\restrict aB3\n", f"{' ' * 13}\n"),
        ("-- c\n\\unrestrict aB3; SELECT 1\r\nSELECT 2", f"-- c\n{' ' * 25}\r\nSELECT 2"),
        ("\\restricted a", "\\restricted a"),
        ("SELECT '\\restrict a'", "SELECT '\\restrict a'"),
        ("COPY t FROM stdin;\n\\restrict a\n\\.\n", "COPY t FROM stdin;\n\\restrict a\n\\.\n"),
        ("\\i a\n\\restrict b", f"\\i a\n{' ' * 11}"),
    ],
)
def test_restrictions_become_blanks(text: str, expected: str) -> None:
    assert blanked(text.encode(), scanned(text).restrictions).decode() == expected


@pytest.mark.parametrize(
    "text",
    [
        *(text for name, text in ONE_STATEMENT.items() if "never" not in name),
        "SELECT $$\\i$$ /* \\i */ -- \\i",
        "COPY t FROM '/stdin'; SELECT a FROM stdin",
        "COPY (SELECT (1) FROM stdin) TO '/x'",
        "COPY t (a, stdin) TO STDOUT",
    ],
)
def test_sql_that_the_server_understands_is_not_reported(text: str) -> None:
    assert [*scanned(text).psql_only] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("SELECT 1; -- depends: a", []),
        ("-- depends: a b", [Directive("depends", "a b", 3)]),
        ("--transactional :false \r\nSELECT 1", [Directive("transactional", "false", 2)]),
        ("\ufeff  --\tbreaking:\nSELECT 1", [Directive("breaking", "", 6)]),
        ("/* c\n-- no: x */\n-- yes: x", [Directive("yes", "x", 20, False)]),
        ("-- a: 1\n\n-- two words: x\n-- a: 2", [Directive("a", "1", 3), Directive("a", "2", 28)]),
        ("-- see https://example.org\n-- b: x: y", [Directive("b", "x: y", 30)]),
        ("; -- depends: a", []),
    ],
)
def test_directives_are_read_from_the_comments_at_the_top(
    text: str, expected: list[Directive]
) -> None:
    found = Scanner(octets(text.encode())).directives()

    assert found == [each._replace(offset=len(text[: each.offset].encode())) for each in expected]


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        ("", 0, Place("f", 1, 1, "")),
        ("ab\ncd", 0, Place("f", 1, 1, "ab")),
        ("ab\ncd", 2, Place("f", 1, 3, "ab")),
        ("ab\ncd", 3, Place("f", 2, 1, "cd")),
        ("ab\ncd", 5, Place("f", 2, 3, "cd")),
        ("ab\r\ncd\r\nef", 9, Place("f", 3, 2, "ef")),
        ("ab\r\ncd", 2, Place("f", 1, 3, "ab")),
        ("ab\r\ncd", 3, Place("f", 1, 3, "ab")),
        ("ab\rcd\ref", 4, Place("f", 2, 2, "cd")),
        ("ab\r\r\ncd", 5, Place("f", 3, 1, "cd")),
        ("é漢\nü!", 4, Place("f", 2, 2, "ü!")),
        ("\n\n", 2, Place("f", 3, 1, "")),
    ],
)
def test_a_position_is_a_line_and_a_column(text: str, offset: int, expected: Place) -> None:
    assert Lines("f", text.encode()).place(len(text[:offset].encode())) == expected


@given(st.text("ab\r\n"))
def test_positions_go_through_the_lines_one_by_one(text: str) -> None:
    lines = f"{text}.".splitlines()
    index = Lines("f", f"{text}.".encode())

    for offset in range(len(text) + 1):
        _, line, column, source, _ = index.place(offset)
        assert source == lines[line - 1]
        assert 1 <= column <= len(source) + 1
        if column <= len(source):
            assert source[column - 1] == f"{text}."[offset]


@pytest.mark.parametrize(
    "piece", ["/*", "'", '"', "$a", "$a$", "(", "E'\\", "E'a'\n", "begin ", "--"]
)
def test_time_grows_with_the_text_and_not_faster(piece: str) -> None:
    text = f"CREATE {piece * 100_000}"
    started = process_time()  # the machine may be busy

    split(text)
    scanned(f"{text}\nCOMMIT")
    scanned(f"{text}\\")

    assert process_time() - started < 60, "far more than 300,000 steps need"


# --- bytes ---


def borders(letter: str) -> list[str]:
    """Texts with *letter* before, at and after the border of a piece."""
    return [" " * (65536 - before) + letter * 9 + " " * 70000 for before in range(12)]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🐘"])
def test_no_character_is_split_between_pieces(letter: str) -> None:
    for text in borders(letter):
        data = text.encode()
        pieces = list(in_characters(data, 0, len(data)))
        assert "".join(piece.decode() for _, piece in pieces) == text
        assert [start for start, _ in pieces] == [
            sum(len(piece) for _, piece in pieces[:n]) for n in range(len(pieces))
        ]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🐘"])
def test_an_offset_in_characters_is_found_in_bytes(letter: str) -> None:
    for text in borders(letter):
        data = text.encode()
        first = text.index(letter)
        for number in (0, first, first + 5, first + 9, len(text) - 1, len(text), len(text) + 1):
            assert offset_of(data, 0, number) == len(text[:number].encode())
            assert characters(data, 0, len(text[:number].encode())) == min(number, len(text))


def test_a_word_is_found_at_every_offset() -> None:
    for text in borders("StDin"):
        assert mentions(text, ["stdin"])
        assert mentions(text.encode(), ["stdin", "other"])
        assert not mentions(text, ["stdout", "tstdin"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("letter", ["x", "é", "漢", "🐘"])
def test_places_continue_after_a_block_of_lines(letter: str, end: str) -> None:
    for before in range(8):
        text = f"{' ' * (4096 - before)}{letter}{end}{letter * 3}{end}{' ' * 5000}{letter}"
        index = Lines("f", text.encode())
        for offset in (4095 - before, 4096 - before, len(text) - 1, len(text) - 5003):
            upto = len(text[:offset].encode())
            ahead = text[:offset].replace("\r\n", "\n").replace("\r", "\n")
            line, column = ahead.count("\n") + 1, len(ahead) - ahead.rfind("\n")
            assert index.numbers(upto) == Place("f", line, column)
            assert Lines("f", text.encode()).numbers(upto) == Place("f", line, column)


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🐘"])
def test_only_the_near_part_of_a_very_long_line_is_shown(letter: str) -> None:
    line = f"a{letter}" * 100_000
    data = f"one\n{line}\nthree".encode()
    for column in (1, 2, 3, 50_000, 99_999, 199_998, 199_999, 200_000, 200_001):
        found = Lines("f", data).place(len(f"one\n{line[: column - 1]}".encode()))
        assert (found.line, found.column) == (2, column)
        assert len(found.source.encode()) < 70_000
        assert found.source == line[found.before : found.before + len(found.source)]
        near = line[column - 1 : column + 80]
        assert found.source[column - 1 - found.before :].startswith(near)


@given(st.text("ab;'é🐘\n $-/*(", max_size=60))
def test_octets_are_split_as_the_text_is(text: str) -> None:
    found = [octets_decoded(statement.text) for statement in split(octets(text.encode()))]
    assert found == [statement.text for statement in split(text)]


def octets_decoded(text: str) -> str:
    return text.encode("latin-1").decode()
