"""Mistyped connection strings are refused or tried, and no message contains the password.

initmig accepts each string that libpq's PQconninfoParse accepts, unless
docs/reference/connecting.md lists the reason for the refusal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import pq

from initmig.config.dsn import LIBPQ, SCHEMES, Dsn, parse_dsn
from tests.support.connecting import attempt
from tests.support.examples import examples
from tests.support.ports import closed_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig

pytestmark = [pytest.mark.long, pytest.mark.any_version]

SECRETS = ("Zq7xKw", "Wv9pLm")
"""The two halves of every password."""

STRICTER = (
    "must be percent-encoded",
    "begins with",
    "ends with",
    "is a command",
    "is a variable",
    "is for another program",
    "separates its pairs with semicolons",
    "libpq does not know the parameter",
    "cannot begin with",
    "not UTF-8, or contains a NUL",
    "contains a =: write",
)
"""Refusals of initmig where libpq would accept the string, as documented."""

BETWEEN = st.text("@:/?#%&= '\"\\[],;.+-_<>{}$\n\té=1a", max_size=3)
PASSWORDS = BETWEEN.map(lambda between: between.join(SECRETS))
NAMES = st.sampled_from(
    [
        *sorted(LIBPQ - {"host", "hostaddr", "port", "service"}),
        "sslMode",
        "useSSL",
        "Schema",
        "x-y",
        "zz",
    ]
)
VALUES = st.one_of(
    st.sampled_from(["", "1", "0", "-1", "disable", "require", "x", "9" * 12, "/missing"]),
    st.text("ab@:/?#%&= '\"\\,;", max_size=4),
)
PARAMETERS = st.lists(st.tuples(NAMES, VALUES), max_size=3)
AROUND = st.sampled_from(
    [
        *(("", ""), ('"', '"'), ("'", "'"), ("<", ">"), ("", ";"), ("", "\n"), (" ", " ")),
        *(("psql ", ""), ("DATABASE_URL=", ""), ("\ufeff", ""), ("", "\0"), ("", "\udc80")),
    ]
)


@st.composite
def urls(draw: st.DrawFn, port: int) -> str:
    password = draw(PASSWORDS)
    password = quote(password, safe="") if draw(st.booleans()) else password
    scheme = draw(st.sampled_from([*SCHEMES, "jdbc:postgresql", "mysql", "POSTGRES"]))
    parameters = [
        f"{name}{draw(st.sampled_from(['=', '=', '=', '']))}{value}"
        for name, value in draw(PARAMETERS)
    ]
    if draw(st.booleans()):
        account = f"me:{password}@"
    else:
        account = ""
        parameters.insert(draw(st.integers(0, len(parameters))), f"password={password}")
    query = draw(st.sampled_from(["?", "?", "/?", "&"])) + "&".join(parameters)
    return f"{scheme}://{account}127.0.0.1:{port}/shop{query if parameters else ''}"


@st.composite
def pairs(draw: st.DrawFn, port: int) -> str:
    password = draw(PASSWORDS)
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    written = draw(st.sampled_from([f"'{escaped}'", escaped, password, f"'{password}'"]))
    others = [
        f"{name}={draw(st.sampled_from(['', ' ']))}{draw(st.sampled_from([value, repr(value)]))}"
        for name, value in draw(PARAMETERS)
    ]
    others.insert(draw(st.integers(0, len(others))), f"password={written}")
    text = " ".join(["host=127.0.0.1", f"port={port}", *others])
    return text.replace(" ", ";") if draw(st.integers(0, 9)) == 0 else text


PORT = closed_port()


@st.composite
def strings(draw: st.DrawFn) -> str:
    before, after = draw(AROUND)
    return f"{before}{draw(st.one_of(urls(PORT), pairs(PORT)))}{after}"


def libpq_accepts(text: str) -> bool:
    """Whether PQconninfoParse accepts *text*, with initmig's additional schemes."""
    scheme, separator, rest = text.strip().partition("://")
    if separator and scheme.lower() in SCHEMES:
        text = f"postgresql://{rest}"
    try:
        pq.Conninfo.parse(text.encode())
    except (psycopg.Error, ValueError):
        return False
    return "\0" not in text


def parsed(text: str) -> tuple[Dsn | None, str]:
    """The parsed *text*, or the message of the refusal."""
    try:
        return parse_dsn(text), ""
    except ValueError as error:
        return None, str(error)


def assert_no_secret(message: str) -> None:
    assert not [half for half in SECRETS if half in message], message


@settings(max_examples=examples(1000))
@given(strings())
@example(f"postgres://127.0.0.1/d?password={'&'.join(SECRETS)}=1")
@example(f"host=127.0.0.1 password={' '.join(SECRETS)}=1")
def test_parsing_agrees_with_libpq_except_as_documented(text: str) -> None:
    accepts = libpq_accepts(text)
    dsn, refusal = parsed(text)
    if dsn is None:
        assert_no_secret(refusal)
        assert not accepts or any(each in refusal for each in STRICTER), refusal
    elif accepts:
        assert_no_secret(str(dsn))
    else:  # an unknown parameter is left to libpq
        got = attempt(text, python=False)
        assert (got.id, got.exit_code) == ("malformed-url", 2), got


@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
@settings(max_examples=examples(150))
@given(text=strings())
@example(text=f"host=127.0.0.1 port={PORT} keepalives= password='{SECRETS[0]}'")
@example(text=f"host=127.0.0.1 port={PORT} sslcert= password='{SECRETS[0]}'")
@example(text=f"host=127.0.0.1 port={PORT} passfile= password='{SECRETS[0]}'")
@example(text=f"host=127.0.0.1 port={PORT} sslmode= password='{SECRETS[0]}'")
@example(text=f"host=127.0.0.1 port= password='{SECRETS[0]}'")
@example(text=f"service= password='{SECRETS[0]}'")
@example(text=f"host= password='{SECRETS[0]}'")
@example(text=f"hostaddr= password='{SECRETS[0]}'")
def test_attempt_fails_with_an_initmig_error_without_the_password(text: str, python: bool) -> None:
    got = attempt(text, python=python, limit=2)
    assert got.exit_code in (2, 3, 4), got
    assert_no_secret(got.message + got.hint)


@settings(max_examples=examples(30))
@given(strings().filter(lambda text: not re.search("[\0\udc80]", text)))
def test_command_exits_as_documented_and_never_prints_the_password(text: str) -> None:
    result = COMMAND[0](
        "wait", "--for=database", "--wait-timeout=0", url=text, env={"INITMIG_LOG_LEVEL": "debug"}
    )
    assert result.code in (2, 3, 4), result.err
    assert "Traceback" not in result.err
    assert not re.search(r"(?m)^WARNING", result.err)
    assert_no_secret(result.err + result.out)


COMMAND: list[Initmig] = []


@pytest.fixture(autouse=True)
def command(initmig: Initmig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hypothesis does not accept a function-scoped fixture as an argument."""
    COMMAND[:] = [initmig]
    # libpq writes files to the current folder for some parameters, such as sslkeylogfile
    monkeypatch.chdir(tmp_path)
