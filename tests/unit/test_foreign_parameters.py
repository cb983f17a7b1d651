"""Connection parameters of other programs, and text around a connection string."""

from __future__ import annotations

import pytest
from psycopg import pq

from initmig.config.dsn import LIBPQ, parse_dsn

# From the documentation of each program.
OTHERS = {
    "JDBC": "currentSchema ssl sslfactory sslhostnameverifier ApplicationName connectTimeout"
    " socketTimeout loginTimeout tcpKeepAlive targetServerType loadBalanceHosts gssEncMode"
    " prepareThreshold preferQueryMode reWriteBatchedInserts stringtype binaryTransfer"
    " kerberosServerName channelBinding readOnly loggerLevel sslMode sslCert",
    "Npgsql": "SearchPath SslMode TrustServerCertificate Timeout CommandTimeout KeepAlive"
    " MaxPoolSize MinPoolSize Pooling IncludeErrorDetail Username MaxAutoPrepare"
    " TargetSessionAttributes RootCertificate ApplicationName PersistSecurityInfo",
    "Prisma": "schema connection_limit pool_timeout pgbouncer sslaccept sslidentity socket_timeout"
    " statement_cache_size",
    "SQLAlchemy": "driver pool_size max_overflow pool_pre_ping isolation_level echo charset",
    "asyncpg": "database timeout command_timeout prepared_statement_cache_size direct_tls",
    "pgx": "pool_max_conns pool_min_conns pool_max_conn_lifetime default_query_exec_mode"
    " statement_cache_mode search_path statement_timeout",
    "node-postgres": "connectionTimeoutMillis idleTimeoutMillis query_timeout uselibpqcompat max",
    "Ecto": "ssl_opts pool_count queue_target socket_options",
    "R2DBC": "sslRootCert statementTimeout lockWaitTimeout preparedStatementCacheQueries maxSize"
    " initialSize tcpKeepAlive",
    "golang-migrate": "x-migrations-table x-multi-statement x-statement-timeout x-lock-strategy",
    "MySQL": "useSSL requireSSL verifyServerCertificate ssl-mode serverTimezone",
}
NAMES = [name for names in OTHERS.values() for name in names.split()]


@pytest.mark.parametrize("name", NAMES)
def test_parameter_of_another_program_is_refused_with_a_remedy(name: str) -> None:
    for parameters in (f"{name}=1", name, f"sslmode=require&{name}=a", f"{name}=&user=x"):
        with pytest.raises(ValueError, match="libpq does not know the parameter") as caught:
            parse_dsn(f"postgres://me:s3cret@db/shop?{parameters}")
        message = str(caught.value)
        assert f"parameter {name} of the URL: " in message
        assert message.partition(" of the URL: ")[2].startswith(("write ", "leave it out"))
        assert "s3cret" not in message


@pytest.mark.parametrize("name", [name for name in NAMES if name.isidentifier()])
def test_parameter_of_another_program_is_refused_in_key_value_form(name: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {name}: (write |leave it out)"):
        parse_dsn(f"host=db password='s3cret' {name}=1")


@pytest.mark.parametrize("name", NAMES)
def test_parameter_of_another_program_is_unknown_to_libpq(name: str) -> None:
    assert name not in LIBPQ


def test_list_of_libpq_parameters_is_complete() -> None:
    assert {each.keyword.decode() for each in pq.Conninfo.get_defaults()} == LIBPQ


@pytest.mark.parametrize("name", sorted(LIBPQ))
def test_libpq_parameter_needs_a_value_in_a_url(name: str) -> None:
    assert parse_dsn(f"postgres://db/shop?{name}=x").conninfo.endswith(f"?{name}=x")
    with pytest.raises(ValueError, match=f"{name} of the URL has no value: write {name}=VALUE"):
        parse_dsn(f"postgres://me:s3cret@db/shop?{name}")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("Ssl-Cert-Mode=x", "write sslcertmode instead"),
        ("connect_timeouts2=5", "did you mean connect_timeout?"),
        ("foo-bar=1", "parameter foo-bar: leave it out"),
        (
            "options=-c a=b".replace(" ", "%20"),
            "the value of options in the URL contains a =: write it as %3D",
        ),
    ],
)
def test_unknown_parameter_or_invalid_value_is_named_in_the_error(
    parameter: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"parameter|value") as caught:
        parse_dsn(f"postgres://me:s3cret@db/shop?{parameter}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgres://db/shop?password=ab&s3-cret=1",
        "postgres://db/shop?password=ab&s3cret",
        "postgres://db/shop?sslpassword=ab&S3cret=1&x=2",
        "postgres://me:12/ab?S3cret=1@db/shop",
        "password=ab s3cret",
    ],
)
def test_possible_part_of_a_password_is_not_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"parameter|pair") as caught:
        parse_dsn(text)
    assert "s3" not in str(caught.value).lower()


URL = "postgres://me:s3cret@db/shop"
WRAPPED = {
    f'"{URL}"': 'begins with ": remove the quotes',
    f"'{URL}'": "begins with ': remove the quotes",
    f"`{URL}`": "begins with `: remove the quotes",
    f"\N{LEFT DOUBLE QUOTATION MARK}{URL}\N{RIGHT DOUBLE QUOTATION MARK}": "remove the quotes",
    f"\N{DOUBLE LOW-9 QUOTATION MARK}{URL}\N{LEFT DOUBLE QUOTATION MARK}": "remove the quotes",
    f"\N{LEFT SINGLE QUOTATION MARK}{URL}\N{RIGHT SINGLE QUOTATION MARK}": "remove the quotes",
    f"<{URL}>": "begins with <: remove the brackets",
    f"({URL})": "begins with (: remove the brackets",
    f"[{URL}]": "begins with [: remove the brackets",
    f'{{"url": "{URL}"}}': "begins with {: remove the brackets",
    f'{URL}"': 'ends with ": remove it, or write %22',
    f"{URL}'": "ends with ': remove it, or write %27",
    f"{URL};": "ends with ;: remove it, or write %3B",
    f"{URL},\n": "ends with ,: remove it, or write %2C",
    f"{URL}?sslmode=require;": "ends with ;: remove it",
    f"{URL}>": "ends with >: remove it, or write %3E",
    f"DATABASE_URL={URL}": "begins with DATABASE_URL: set the variable",
    f'DATABASE_URL="{URL}"': "begins with DATABASE_URL: set the variable",
    f"export DATABASE_URL={URL}": "begins with DATABASE_URL",
    f"database_url: {URL}": "begins with database_url",
    f"psql {URL}": "is a command: write only the URL",
    f'psql "{URL}"': "is a command: write only the URL",
    f"$ psql '{URL}'": "is a command: write only the URL",
    f"\ufeff{URL}": "begins with a byte order mark",
    "$DATABASE_URL": "is a variable that was not replaced",
    "${DATABASE_URL}": "is a variable that was not replaced",
    "{{ database_url }}": "is a variable that was not replaced",
    '""': "remove the quotes",
    "'host=db password=s3cret'": "begins with ': remove the quotes",
    "jdbc:postgresql://db/shop?user=me&password=s3cret": "begin with jdbc:postgresql://; write",
    "Host=db;Username=me;Password=s3cret;Database=shop": "as Npgsql does",
    "Server=db;Port=5432;User Id=me;Password=s3cret;": "as Npgsql does",
    "User ID=me;Password=s3cret;Host=db;": "neither a URL",
}


@pytest.mark.parametrize(("text", "message"), WRAPPED.items())
def test_text_around_a_url_is_named_in_the_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="connection string") as caught:
        parse_dsn(text)
    assert message in str(caught.value)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [f"{URL}\n", f" {URL}\r\n", "postgres://[::1]", "postgres://me@db/", "host=db password='a;b'"],
)
def test_url_without_surrounding_text_is_accepted(text: str) -> None:
    assert parse_dsn(text)
