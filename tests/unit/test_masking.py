"""Masking in SQL and server messages; tests/integration tests it with a real server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.config.dsn import mask_secrets
from initmig.core.errors import Problem, ServerMessage
from initmig.engine.python_strings import PythonStrings, without_strings
from initmig.sql.lines import Lines
from initmig.sql.masking import mask_sql, masked_problem, secret_values, secrets_in
from initmig.sql.scanner import octets
from tests.support.secret_forms import CANARY, FORMS, READABLE, secret_sql

PAGE = Path(__file__).parents[2] / "docs/reference/secrets.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under *heading* that are code."""
    _, _, section = PAGE.read_text().partition(f"\n## {heading}\n")
    lines = section.partition("\n## ")[0].splitlines()
    found = [
        re.findall(r"(?<=\| )`([^`]+)`(?= \|)", line) for line in lines if line.startswith("|")
    ]
    return [cells for cells in found if cells]


@pytest.mark.parametrize(("example", "shown"), rows("What is masked"))
def test_the_masked_examples_of_the_page_are_masked(example: str, shown: str) -> None:
    assert mask_sql(example) == shown


@pytest.mark.parametrize("example", [cells[0] for cells in rows("What is not masked")])
def test_the_unmasked_examples_of_the_page_are_not_masked(example: str) -> None:
    assert mask_sql(example) == example


def test_the_page_has_all_its_rows() -> None:
    assert len(rows("What is masked")) == 11
    assert len(rows("What is not masked")) == 5


@pytest.mark.parametrize("name", FORMS)
def test_no_form_shows_its_secret(name: str) -> None:
    masked = mask_sql(FORMS[name])
    assert CANARY not in masked
    assert mask_sql(masked) == masked


KEYWORD_AFTER_SECRET = ("wrong type", "DO with a variable")
"""Forms whose secret is recognized only by the text after it."""


@pytest.mark.parametrize("name", [name for name in FORMS if name not in KEYWORD_AFTER_SECRET])
def test_a_form_that_is_cut_shows_nothing_of_its_secret(name: str) -> None:
    sql = FORMS[name]
    after = sql.index(CANARY) + len(CANARY)
    for end in range(after - len(CANARY) + 4, after):
        assert CANARY[:4] not in mask_sql(sql[:end]), sql[:end]


@pytest.mark.parametrize("name", READABLE)
def test_sql_without_a_secret_is_unchanged(name: str) -> None:
    assert mask_sql(READABLE[name]) == READABLE[name]
    assert list(secrets_in(READABLE[name], bodies=True)) == []


@pytest.mark.parametrize("name", FORMS)
def test_no_line_of_a_file_shows_its_secret(name: str) -> None:
    data = f"SELECT 'é';\n{FORMS[name]};\nSELECT 1".encode()
    lines = Lines("a.sql", data)
    for offset in range(0, len(data), 3):
        place = lines.place(offset)
        assert CANARY not in place.source
        assert 0 <= place.column - place.before - 1 <= len(place.source)


def test_the_caret_stays_under_its_word() -> None:
    sql = "ALTER ROLE app PASSWORD 'a long secret'; SELECT oops"
    place = Lines("a.sql", sql.encode()).place(sql.index("oops"))
    assert place.column == sql.index("oops") + 1
    assert place.source[place.column - place.before - 1 :] == "oops"


def test_a_secret_is_masked_before_a_line_is_cut() -> None:
    sql = f"ALTER ROLE app PASSWORD '{CANARY * 20_000}' VALID UNTIL 'now'"
    for offset in (24, len(sql) // 2, len(sql) - 20):
        assert CANARY[:4] not in Lines("a.sql", sql.encode()).place(offset).source


HUGE = [
    f"INSERT INTO users (id, password) VALUES {', '.join([f'(1, $${CANARY}$$)'] * 100_000)}",
    f"INSERT INTO t VALUES {', '.join(['(1, $$x$$)'] * 200_000)}, ('a://b:{CANARY}@c/d')",
]


@pytest.mark.parametrize("sql", HUGE, ids=["column", "URL"])
def test_a_huge_statement_shows_no_secret(sql: str) -> None:
    assert CANARY not in mask_sql(sql)
    problem = Problem("x", f'invalid input syntax for type integer: "{CANARY}"')
    assert CANARY not in masked_problem(problem, secret_values(octets(sql.encode()))).message


SECRETS = secret_values("ALTER ROLE a PASSWORD 'it''s a Kanari3nVogel'; SET x.token = 'kurz'")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("syntax error at or near \"'it''s a Kanari3nVogel'\"", 'syntax error at or near "***"'),
        ("unterminated quoted string at or near \"'it''s a Kanari3n\"", None),
        ('invalid input syntax for type integer: "it\'s a Kanari3nVogel"', None),
        ('invalid value: "Kanari3nVogel"', 'invalid value: "***"'),
        ('invalid value: "kurz"', 'invalid value: "***"'),
        ('invalid value: "kurzum"', 'invalid value: "kurzum"'),
        ('relation "users" does not exist', 'relation "users" does not exist'),
        ('column "token" of relation "t" does not exist', None),
    ],
)
def test_a_message_does_not_repeat_a_secret(text: str, shown: str | None) -> None:
    message = masked_problem(Problem("x", text), SECRETS).message
    assert "anari3n" not in message
    assert message == (shown or message)


@pytest.mark.parametrize(
    ("sqlstate", "table", "detail", "shown"),
    [
        ("23505", "users", "Key (email)=(ann@example.org) already exists.", ""),
        ("23505", "users", "Key (lower(email), n)=(ann (b), 1) already exists.", ""),
        ("23503", "c", 'Key (id)=(1) is not present in table "p".', ""),
        (
            "23505",
            "users",
            "Key (token)=(abc) already exists.",
            "Key (token)=(***) already exists.",
        ),
        (
            "23505",
            "users",
            "Key (id, api_key)=(1, a) b)) already exists.",
            "Key (id, api_key)=(***) already exists.",
        ),
        ("23505", "secrets", "Key (n)=(abc) already exists.", "Key (n)=(***) already exists."),
        ("23505", "t", "Schlüssel »(token)=(abc)« existiert bereits.", "Schlüssel »(token)=(***)«"),
        ("23502", "t", "Failing row contains (1, a) (b, null).", "Failing row contains (***)."),
        (
            "23514",
            "t",
            "Fehlgeschlagene Zeile enthält (1, x).",
            "Fehlgeschlagene Zeile enthält (***).",
        ),
        ("23514", "t", "Failing row contains (1, a\nb=(c)).", "Failing row contains (***)."),
        ("42883", "", "No function matches f(integer).", ""),
    ],
)
def test_a_detail_shows_a_key_but_no_row(
    sqlstate: str, table: str, detail: str, shown: str
) -> None:
    server = ServerMessage(sqlstate, detail, table=table)
    message = masked_problem(Problem("x", "y", server=server)).server.detail
    assert message.startswith(shown or detail)


FRAME = "PL/pgSQL function inline_code_block line 3 at EXECUTE"


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        (FRAME, FRAME),
        (f"SQL statement \"SELECT 'a\nb'\"\n{FRAME}", f'SQL statement "***"\n{FRAME}'),
        (f'SQL statement "SELECT "a"\n, b"\n{FRAME}', f'SQL statement "***"\n{FRAME}'),
        (f"SQL-Anweisung »SELECT 1«\n{FRAME}", f'SQL-Anweisung "***"\n{FRAME}'),
        (f"instruction SQL « SELECT 'x' »\n{FRAME}", f'instruction SQL "***"\n{FRAME}'),
        ("PL/pgSQL assignment \"v := 'abc'\"", 'PL/pgSQL assignment "***"'),
        ('SQL function "f" statement 1', 'SQL function "f" statement 1'),
        (
            f'SQL statement "a b"\n{FRAME}\nSQL statement "c d"\n{FRAME}',
            f'SQL statement "***"\n{FRAME}\nSQL statement "***"\n{FRAME}',
        ),
        ('COPY users, line 3, column id: "x"', 'COPY users, line 3, column id: "x"'),
        ('COPY users, line 3, column token: "x"', "COPY users, line 3, column token: ***"),
        ('COPY secrets, line 3: "1\tx"', "COPY secrets, line 3: ***"),
    ],
)
def test_a_context_shows_places_and_no_sql(context: str, shown: str) -> None:
    server = ServerMessage(context=context)
    assert masked_problem(Problem("x", "y", server=server)).server.context == shown


@pytest.mark.parametrize(
    "text",
    [
        f'row {{"id": 1, "api_key": "{CANARY}"}} is wrong',
        f'E\'{{\\"clientSecret\\": \\"{CANARY}\\"}}\'',
        f"f(token => '{CANARY}')",
        f"OPTIONS (password '{CANARY}')",
        f"ALTER ROLE a PASSWORD -- it's\n '{CANARY}'",
        f"host=h sslpassword={CANARY}",
        f"https://h/?token='{CANARY}'",
        f"ERROR: Failing row contains (1, {CANARY}).",
        f"oauth_client_secret = '{CANARY}'",
    ],
)
def test_a_secret_is_masked_in_any_text(text: str) -> None:
    assert CANARY not in mask_secrets(text)
    assert mask_secrets(mask_secrets(text)) == mask_secrets(text)


PYTHON = {
    "step": f"step(\"ALTER ROLE app PASSWORD '{CANARY}'\")",
    "over lines": f'step("""\n ALTER ROLE app\n PASSWORD\n \'{CANARY}\'\n""")',
    "joined": f"step('ALTER ROLE app PASSWORD ' + '{CANARY}')",
    "f-string": f"c.execute(f\"ALTER ROLE {{app}} PASSWORD '{CANARY}'\")",
    "parameter": f"c.execute('ALTER ROLE app PASSWORD %s', ['{CANARY}'])",
    "variable": f"password = '{CANARY}'",
    "argument": f"connect(user='a', password='{CANARY}')",
    "bytes": f"api_key = b'{CANARY}'",
    "key": f"x = {{'client_secret': '{CANARY}'}}",
}


@pytest.mark.parametrize("name", PYTHON)
def test_no_line_of_python_shows_its_secret(name: str) -> None:
    source = f"import os\ndef f():\n    x = 'plain'\n{PYTHON[name]}\n"
    strings = PythonStrings("a.py", source)
    shown = [strings.line(number) for number in range(1, source.count("\n") + 1)]
    assert CANARY not in "\n".join(shown)
    assert shown[:3] == ["import os", "def f():", "x = 'plain'"]
    assert CANARY not in strings.without_secrets(f"raised {CANARY}")
    if name != "over lines":
        assert CANARY not in without_strings(PYTHON[name] + " (")


@given(secret_sql(quotes=False))
def test_any_sql_shows_all_but_its_secret(sql: tuple[str, str]) -> None:
    written, shown = sql
    assert mask_sql(written) == shown


@given(secret_sql(quotes=True))
def test_sql_with_any_comments_shows_no_secret(sql: tuple[str, str]) -> None:
    assert CANARY not in mask_sql(sql[0])
    assert CANARY not in Lines("a.sql", sql[0].encode()).place(0).source


@given(st.text(st.sampled_from("'\"$a\\Ee/*-\n;() =password:"), max_size=40))
def test_masking_never_fails_and_is_done_after_once(text: str) -> None:
    once = mask_sql(text)
    assert mask_sql(once) == once or "***" in once
    mask_secrets(text)
