"""Values of libpq's parameters, from every source: initmig refuses the values that libpq refuses.

The reference is the error message of libpq's PQconnectdb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.connecting import KINDS, as_pairs, attempt, refusal_by_libpq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer

pytestmark = pytest.mark.any_version

NUMBERS = (
    *("-1", "0", "1", "007", "+7", " 5", "5 ", "\t5", "", " ", "abc", "10s", "5.0", "0x10"),
    *("1e3", "1_0", "- 1", "--1", "+", "2147483647", "2147483648", "-2147483648", "-2147483649"),
    *("99999999999", "9" * 400, "0" * 30 + "5", "\N{ARABIC-INDIC DIGIT FIVE}", "5;", "5\n"),
)
NUMERIC = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
    *("keepalives_count", "tcp_user_timeout"),
)
WORDS = {
    "sslmode": ("disable", "allow", "prefer", "require", "Require", "x", ""),
    "gssencmode": ("disable", "prefer", "require", "x", ""),
    "channel_binding": ("disable", "prefer", "require", "x", ""),
    "target_session_attrs": (
        *("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
        *("Primary", "read_write", "x", ""),
    ),
    "load_balance_hosts": ("disable", "random", "on", "x", ""),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3", "tlsv1.2", "1.2", "x", ""),
    "ssl_max_protocol_version": ("TLSv1.3", "TLSv1", "x", ""),
    "min_protocol_version": ("3.0", "3.2", "latest", "2.0", "x", ""),
    "max_protocol_version": ("3.0", "3.2", "latest", "2.0", "x", ""),
    "require_auth": (
        *("password", "md5", "scram-sha-256", "none", "!none", "!password,!md5", "md5,!none"),
        *("scram-sha-256,md5", "md5,md5", "x", "", "scram", "!"),
    ),
    "sslnegotiation": ("postgres", "direct", "x", ""),
    "sslcertmode": ("disable", "allow", "require", "x", ""),
    "sslcompression": ("0", "1", "x"),
    "sslsni": ("0", "1", "x"),
    "gssdelegation": ("0", "1", "x"),
    "replication": ("false", "off", "x"),
    "hostaddr": ("127.0.0.1", "x", "127.0.0.1,127.0.0.1", "999.1.1.1"),
    "sslrootcert": ("system",),
    "scram_client_key": ("x", "AAAA"),
    "scram_server_key": ("x", "AAAA"),
    "options": ("-cno_such_setting=1", "-c", "--x"),
}
CASES = [
    *((name, value) for name in NUMERIC for value in NUMBERS),
    *((name, value) for name, values in WORDS.items() for value in values),
]
PORTS = ("abc", "10s", "-1", "0", "65536", "99999999999", "1e3", "0x10", "1,2", "1,2,3", ",")

VARIABLES = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "sslmode": "PGSSLMODE",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "require_auth": "PGREQUIREAUTH",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "min_protocol_version": "PGMINPROTOCOLVERSION",
    "sslcertmode": "PGSSLCERTMODE",
}


def check_as_libpq(conninfo: str, *, python: bool) -> None:
    """Assert that libpq and initmig agree on *conninfo*, and that a refusal by libpq is final."""
    refusal = refusal_by_libpq(conninfo)
    got = attempt(conninfo, python=python)
    assert bool(got.id) == bool(refusal), (refusal, got)
    if not any(each in refusal for each in ("FATAL", "server is", "session is")):
        assert got.is_final, (refusal, got)


@KINDS
@pytest.mark.parametrize(("name", "value"), CASES)
def test_pair_is_accepted_or_refused_as_libpq_does(
    server: DatabaseServer, name: str, value: str, *, python: bool
) -> None:
    check_as_libpq(as_pairs(server.url(), **{name: value}), python=python)


@pytest.mark.parametrize(("name", "value"), CASES)
def test_url_parameter_is_accepted_or_refused_as_libpq_does(
    server: DatabaseServer, name: str, value: str
) -> None:
    check_as_libpq(f"{server.url()}?{name}={quote(value, safe='')}", python=False)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, value in CASES if name in VARIABLES]
)
def test_variable_is_accepted_or_refused_as_libpq_does(
    server: DatabaseServer, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLES[name], value)
    check_as_libpq(server.url(), python=False)


@pytest.mark.parametrize(("name", "value"), [each for each in CASES if "\n" not in each[1]])
def test_service_file_value_is_accepted_or_refused_as_libpq_does(
    server: DatabaseServer,
    name: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "services"
    file.write_text(f"[shop]\n{name}={value}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    check_as_libpq(as_pairs(server.url(), service="shop"), python=False)


@KINDS
@pytest.mark.parametrize("port", PORTS)
def test_invalid_port_is_refused(port: str, *, python: bool) -> None:
    pairs = f"host=127.0.0.1 user=me password=s3cret port={port}"
    assert refusal_by_libpq(pairs)
    for each in (pairs, f"postgresql://me:s3cret@127.0.0.1/d?port={quote(port)}"):
        got = attempt(each, python=python)
        if port != ",":
            assert (got.id, got.exit_code) == ("malformed-url", 2), got
        assert got.id
        assert "s3cret" not in got.message


@pytest.mark.parametrize("value", ["-1", "abc", "10s", "99999999999", "0x10"])
def test_connect_timeout_is_accepted_or_refused_without_waiting(
    initmig: Initmig, database: Database, tmp_path: Path, value: str
) -> None:
    file = tmp_path / "services"
    file.write_text(f"[shop]\nconnect_timeout={value}\n")
    code = 0 if value == "-1" else 2
    for url, env in (
        (f"{database.url}?connect_timeout={value}", {}),
        (as_pairs(database.url, connect_timeout=value), {}),
        (database.url, {"PGCONNECT_TIMEOUT": value}),
        (database.url, {"PGSERVICEFILE": str(file), "PGSERVICE": "shop"}),
    ):
        result = initmig("wait", "--for=database", url=url, env=env)
        assert result.code == code, result.err
        assert "waiting up to" not in result.err
        assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "service file"),
        ("[other]\nhost=x\n", 'definition of service "shop" not found'),
        ("[shop]\nhost\n", "syntax error in service file"),
        ("[shop]\nno_such=1\n", "syntax error in service file"),
        ("[shop]\nservice=x\n", "nested"),
        ("", 'definition of service "shop" not found'),
    ],
)
@KINDS
def test_unusable_service_file_is_not_retried(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    message: str,
    *,
    python: bool,
) -> None:
    file = tmp_path / "services"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path))
    for conninfo, service in (("service=shop password=s3cret", ""), ("password=s3cret", "shop")):
        monkeypatch.setenv("PGSERVICE", service or "shop")
        got = attempt(conninfo, python=python)
        assert (got.id, got.exit_code, got.is_final) == ("service-file", 2, True), got
        assert message in got.message
        assert "s3cret" not in got.message


def test_service_file_of_the_system_folder_is_used(
    server: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = as_pairs(server.url()).replace("'", "").replace(" ", "\n")
    (tmp_path / "pg_service.conf").write_text(f"[shop]\n{lines}\n")
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path))
    assert attempt("service=shop", python=False).id == ""


SOCKETS: dict[str, Callable[[Path], str]] = {
    "too long": lambda folder: str(folder / ("x" * 120)),
    "in a file": lambda folder: str(folder / "file"),
    "a folder": lambda folder: str(folder / "folder"),
    "a plain file": lambda folder: str(folder / "plain"),
}


@KINDS
@pytest.mark.parametrize("kind", SOCKETS)
def test_impossible_socket_is_not_retried(tmp_path: Path, kind: str, *, python: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / ".s.PGSQL.5432").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / ".s.PGSQL.5432").touch()
    got = attempt(f"host='{SOCKETS[kind](tmp_path)}' user=me", python=python)
    assert (got.id, got.exit_code, got.is_final) == ("malformed-url", 2, True), got


@KINDS
def test_missing_socket_is_retried(tmp_path: Path, *, python: bool) -> None:
    got = attempt(f"host='{tmp_path}' user=me", python=python)
    assert (got.id, got.exit_code, got.is_final) == ("database-unavailable", 3, False), got


@KINDS
@pytest.mark.parametrize(
    ("conninfo", "message"),
    [
        ("host=h connect_timeouts=5", "connect_timeouts: did you mean connect_"),
        ("postgresql://me:s3cret@h/d?ssl_mode_x=1", "ssl_mode_x: did you mean "),
        ("postgresql://me:s3cret@h/d?no_such_option=1", "no_such_option: leave it out"),
        ("host=h no_such_option=1 password=s3cret", "no_such_option: leave it out"),
        ("host=h password=s3cret s3cret2=1", '"***"'),
        ("postgresql://h/d?password=ab&s3cret=1", "parameters are key=value"),
        ("postgresql://h/d?password=ab&cret=1", '"***"'),
    ],
)
def test_unknown_parameter_is_named_unless_it_can_be_part_of_a_password(
    conninfo: str, message: str, *, python: bool
) -> None:
    got = attempt(conninfo, python=python)
    assert (got.id, got.exit_code) == ("malformed-url", 2)
    assert message in got.message
    assert "cret" not in got.message
