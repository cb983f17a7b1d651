import json
from time import perf_counter
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from initmig.config.dsn import Dsn, mask_secrets, parse_dsn

PASSWORDS = st.text("abcdefghXYZ0189@:/?#%&=' \\\"[],;.$!*é漢", min_size=1, max_size=24)
PLACES = st.sampled_from(["{}", "could not use {}", "line 1\n{}\nline 3", "x='{}'"])


def as_value(password: str) -> str:
    """A quoted value: https://www.postgresql.org/docs/current/libpq-connect.html"""
    return "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"


def as_bare_value(password: str) -> str:
    escaped = password.replace("\\", "\\\\").replace(" ", "\\ ")
    return f"\\{escaped}" if escaped.startswith("'") else escaped


FORMS = {
    "in a URL": "postgres://app:{raw}@db:5432/shop",
    "in a URL without user": "postgresql://:{raw}@db",
    "in a URL with an odd user": "postgresql://app@corp:{raw}@db/shop?sslmode=require",
    "encoded in a URL": "postgresql+psycopg://app:{encoded}@db:5432,db2:5433/shop?user=a@b",
    "in a parameter": "postgresql://app@db/shop?password={raw}&sslmode=require",
    "in a parameter, with port": "postgresql://app@db:5432/shop?sslpassword={raw}",
    "encoded in a parameter": "ecto://db:5432/shop?user=app&password={encoded}",
    "twice": "postgres://app:{raw}@db/shop?PASSWORD={raw}",
    "a quoted value": "host=db password={value} user=app",
    "a bare value": "host=db PassWord = {bare} user=app",
    "of a key": "sslpassword={value}",
    "in the environment": "PGPASSWORD={bare}",
}


@pytest.mark.parametrize(
    ("text", "conninfo"),
    [
        ("", ""),
        ("postgres://db/shop", "postgresql://db/shop"),
        ("postgresql://db/shop", "postgresql://db/shop"),
        ("postgresql+psycopg://db/shop", "postgresql://db/shop"),
        ("postgresql+psycopg2://db/shop", "postgresql://db/shop"),
        ("postgresql+asyncpg://db/shop", "postgresql://db/shop"),
        ("ecto://db/shop", "postgresql://db/shop"),
        ("ECTO://db/shop", "postgresql://db/shop"),
        (" postgres://db/shop\n", "postgresql://db/shop"),
        ("postgres://", "postgresql://"),
        ("host=db user='a b' password=a://b", "host=db user='a b' password=a://b"),
        ("password=it\\'s\\ me\\ ", "password=it\\'s\\ me\\ "),
    ],
)
def test_scheme_is_replaced_by_the_one_that_libpq_accepts(text: str, conninfo: str) -> None:
    assert parse_dsn(text).conninfo == conninfo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgres://me:pw@h1:5432,h2:5433/d?target_session_attrs=read-write&ssl=true",
            {"host": "h1,h2", "port": "5432,5433", "user": "me", "password": "pw"},
        ),
        ("postgres://me@%2Frun%2Fpg/d%20b", {"host": "/run/pg", "dbname": "d b"}),
        ("postgres://me:p#a:b@h/d", {"password": "p#a:b", "host": "h"}),
        ("postgres://me:%40%3A%2F%3F%23%25@h/d", {"password": "@:/?#%"}),
        ("postgres:///d?user=me@srv&host=/run/pg", {"user": "me@srv", "dbname": "d"}),
        ("postgres://me:pw@[::1]:5432/d", {"host": "::1", "port": "5432"}),
        ("postgres://me@h:/d?user=x&", {"host": "h", "user": "x"}),
        ("postgres://?host=h", {"host": "h"}),
        ("host = h password = 'it\\'s' user=a\\ b", {"password": "it's", "user": "a b"}),
    ],
)
def test_valid_connection_string_is_accepted(text: str, expected: dict[str, str]) -> None:
    assert expected.items() <= conninfo_to_dict(parse_dsn(text).conninfo).items()


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("postgres://me:s3cr@et@h/d", "write @ as %40"),
        ("postgres://me:s3cr/et@h/d", "write / as %2F"),
        ("postgres://me:s3@cr/et@h/d", "write / as %2F and @ as %40"),
        ("postgres://me:s3cr?et@h/d", r"write \? as %3F"),
        ("postgres://me:s3@cr?et@h/d", r"write / as %2F and \? as %3F"),
        ("postgres://me:s3/cr?et@h/d", "write / as %2F"),
        ("postgres://me:s3cr%et@h/d", "write % as %25"),
        ("postgres://me:s3cr%0", "write % as %25"),
        ("postgres://me:s3%00cret@h/d", "write % as %25"),
        ("postgres://me:s3 cret@h/d", "write a space as %20"),
        ("postgres://me:s3cret", "@ after them; a port is a number"),
        ("postgres://me:s3cret/d", "@ after them; a port is a number"),
        ("postgres://me:pw@[::1/s3cret", "a port is a number"),
        ("postgres://h?password=ab@s3cret", r"/\? instead of \?"),
        ("postgres://h/d?password=ab&s3cret", "parameters are key=value"),
        ("postgres://h/d?password=ab=s3cret", "write it as %3D"),
        ("postgres://h/d?password=ab&s3cret=a=b", "parameters are key=value"),
        ("postgres://h/d?password=ab&S3-CRET=1", "parameters are key=value"),
        ("password=my s3cret", "single quotes"),
        ("password='my s3cret", "single quotes"),
        ("password='my' s3cret'", "single quotes"),
        ("s3cret", "neither a URL"),
        ("postgres:me:s3cret@h", "neither a URL"),
        ("me:s3cret://x@h", "neither a URL"),
    ],
)
def test_password_that_libpq_would_misread_is_refused(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as caught:
        parse_dsn(text)

    assert "s3" not in str(caught.value)
    assert "cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("schema=app", "schema of the URL: leave it out, and name the schema with --schema"),
        ("sslmode=require&schema=app", "schema of the URL: leave it out, and name the schema"),
        ("schema=", "schema of the URL: leave it out, and name the schema with --schema"),
        ("currentSchema=app", "currentSchema of the URL: leave it out, and name the schema"),
        ("search_path=app,public", "search_path of the URL: leave it out, and name the schema"),
        ("role=app", "role of the URL: leave it out, and name the role with --role"),
        ("lock_timeout=5s", "lock_timeout of the URL: leave it out, and set --lock-timeout"),
        ("ssl=require", "ssl of the URL: write sslmode instead, such as sslmode=require"),
        ("sslaccept=strict", "sslaccept of the URL: write sslmode instead"),
        ("connectTimeout=10", "connectTimeout of the URL: write connect_timeout instead"),
        ("charset=utf8", "charset of the URL: leave it out: initmig always uses UTF-8"),
        (
            "connection_limit=5",
            "connection_limit of the URL: leave it out: it configures a connection pool",
        ),
        ("pgbouncer=true", "pgbouncer of the URL: leave it out: it configures a connection pool"),
        (
            "pool_timeout=2",
            "pool_timeout of the URL: leave it out: it configures a connection pool",
        ),
        ("driver=x", "driver of the URL: leave it out: it is for another program"),
        ("x-migrations-table=m", "x-migrations-table of the URL: leave it out: initmig keeps"),
    ],
)
def test_unknown_parameter_is_refused_with_a_remedy(parameters: str, message: str) -> None:
    text = f"postgresql+psycopg://me:s3cret@db/shop?{parameters}"
    with pytest.raises(ProgrammingError, match="invalid URI query parameter"):
        conninfo_to_dict(text.replace("+psycopg", ""))

    with pytest.raises(ValueError, match="libpq does not know the parameter ") as caught:
        parse_dsn(text)

    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["mysql", "jdbc:postgresql", "http", "sqlite+x"])
def test_unsupported_scheme_is_named_in_the_error(scheme: str) -> None:
    with pytest.raises(ValueError, match=r"write postgres://, postgresql://.*key=value") as caught:
        parse_dsn(f"{scheme}://app:s3cret@db/shop")

    assert f"begin with {scheme}://;" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@given(PASSWORDS)
def test_accepted_password_is_the_one_that_libpq_reads(password: str) -> None:
    assume("�" not in unquote(password))  # psycopg shows only UTF-8
    try:
        dsn = parse_dsn(f"postgres://app:{password}@db.example/shop")
    except ValueError:
        assume(False)
        return
    try:
        read = conninfo_to_dict(dsn.conninfo)
    except ProgrammingError as error:
        pytest.fail(f"{dsn.conninfo!r} was accepted, and libpq says: {error}")

    assert read["password"] == unquote(password)
    assert read["host"] == "db.example"


@given(PASSWORDS)
def test_encoded_password_is_always_accepted(password: str) -> None:
    dsn = parse_dsn(f"postgres://app:{quote(password, safe='')}@db.example/shop")

    assert conninfo_to_dict(dsn.conninfo)["password"] == password


@given(PASSWORDS)
def test_quoted_password_is_always_accepted(password: str) -> None:
    for value in (as_value(password), as_bare_value(password)):
        dsn = parse_dsn(f"host=db password={value} user=app")

        assert conninfo_to_dict(dsn.conninfo)["password"] == password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://app:pw@db/shop", "postgresql://app:***@db/shop"),
        ("postgres://app:pw@db/shop?sslpassword=x", "postgresql://app:***@db/shop?sslpassword=***"),
        ("host=db password='a b' user=app", "host=db password=*** user=app"),
        ("host=db user=app", "host=db user=app"),
    ],
)
def test_dsn_shows_no_secret(text: str, shown: str) -> None:
    dsn = parse_dsn(text)

    assert str(dsn) == f"{dsn}" == "%s" % dsn == shown  # noqa: UP031
    assert repr(dsn) == f"Dsn({shown!r})"
    with pytest.raises(TypeError):
        json.dumps(dsn)


def test_dsns_with_the_same_conninfo_are_equal() -> None:
    assert parse_dsn("postgres://db/shop") == Dsn("postgresql://db/shop")
    assert len({parse_dsn("postgres://db"), parse_dsn("ecto://db")}) == 1
    assert Dsn("host=db") != Dsn("host=other")
    assert Dsn("host=db") != "host=db"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://app:pw@db/d failed", "postgres://app:***@db/d failed"),
        ("mysql://root:pw@db", "mysql://root:***@db"),
        ("postgres://app:p@ss:w/ord@db/d", "postgres://app:***@db/d"),
        ("postgres://db/d?password=a@b&sslmode=x", "postgres://db/d?password=***"),
        ("postgres://a:b?password=c@db\nnext", "postgres://a:***\nnext"),
        ("postgres://app:pw@db/d?password=x", "postgres://app:***@db/d?password=***"),
        ("PGPASSWORD=x DEBUG=1", "PGPASSWORD=*** DEBUG=1"),
        ("password = 'it\\'s me' user=app", "password = *** user=app"),
        ("password=a\\ b user=app", "password=*** user=app"),
        ("password='never closed", "password=***"),
        ("password='a://b:c' user=me@corp", "password=*** user=me@corp"),
        ("scram_client_key=x user=me", "scram_client_key=*** user=me"),
        ("ALTER ROLE app PASSWORD 'x' LOGIN", "ALTER ROLE app PASSWORD *** LOGIN"),
        ("alter role app encrypted password\n'it''s me'", "alter role app encrypted password\n***"),
        ("ALTER ROLE app PASSWORD E'it\\'s me' LOGIN", "ALTER ROLE app PASSWORD *** LOGIN"),
        ("ALTER ROLE app PASSWORD $a$it$$s $me$a$;", "ALTER ROLE app PASSWORD ***;"),
        ("ALTER ROLE app PASSWORD 'never clo", "ALTER ROLE app PASSWORD ***"),
        ("ALTER ROLE app PASSWORD $$never clo$", "ALTER ROLE app PASSWORD ***"),
        ("OPTIONS (user 'app', password 'x')", "OPTIONS (user 'app', password ***)"),
    ],
)
def test_password_in_a_text_is_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "postgres://me@srv:5432/d",
        "postgres:///d?user=me@srv",
        "postgres://[::1]:5432/d",
        "host=db user=me@corp passfile=/run/x",
        'password authentication failed for user "app"',
        "ALTER ROLE app PASSWORD NULL; SELECT 'x'",
        "https://www.postgresql.org/docs/current/errcodes-appendix.html",
        "ERROR:  duplicate key: (mail)=(me@example.org)",
    ],
)
def test_text_without_a_secret_is_unchanged(text: str) -> None:
    assert mask_secrets(text) == text


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(password=PASSWORDS, place=PLACES)
def test_no_part_of_a_password_survives_masking(form: str, password: str, place: str) -> None:
    parts = {
        "raw": password,
        "encoded": quote(password, safe=""),
        "value": as_value(password),
        "bare": as_bare_value(password),
    }
    masked = mask_secrets(place.format(form.format(**parts)))
    rest = place.format(form.format(**dict.fromkeys(parts, "***")))

    for secret in parts.values():
        for start in range(len(secret) - 3):
            piece = secret[start : start + 4]
            assert piece not in masked or piece in rest


@given(PASSWORDS, st.sampled_from(list(FORMS.values())))
def test_masking_is_idempotent(password: str, form: str) -> None:
    value = as_value(password)
    once = mask_secrets(form.format(raw=password, encoded=password, value=value, bare=value))

    assert mask_secrets(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        *("password", "password=", "password ", "://", "a:@", "'", "\\", "password=\\"),
        *("password '", "password ''", "password $a", "password $$", "password $a$$b$"),
    ],
)
def test_masking_takes_linear_time(piece: str) -> None:
    started = perf_counter()

    mask_secrets(piece * 100_000)

    assert perf_counter() - started < 60, "the time grows faster than the text"
