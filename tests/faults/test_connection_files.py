"""Files that a connection needs, and security that only one side requires: no retries for them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.connecting import KINDS, as_pairs, attempt
from tests.support.migrations import write
from tests.support.servers import debian_server
from tests.support.tls import Authority, speak_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer

pytestmark = pytest.mark.any_version

RULES = "hostssl all certified all cert\nhostnossl all tls_only all reject"


class Secure(NamedTuple):
    """A server with TLS, and a folder with the files to connect to it."""

    server: Server
    folder: Path

    def pairs(self, **parameters: str) -> str:
        """Parameters that connect, changed by *parameters*, where `{}` is the folder."""
        filled = {name: value.replace("{}", str(self.folder)) for name, value in parameters.items()}
        own = {"host": "db.example", "hostaddr": "127.0.0.1", "sslmode": "require"}
        return as_pairs(self.server.url(), **{**own, **filled})


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    own = Authority(folder)
    certificate, key = own.issue("db.example")
    _, client_key = own.issue("postgres")
    own.encrypted(client_key, "open sesame")
    own.revocations()
    Authority(folder / "other").issue("stranger")
    (folder / "garbage").write_text("garbage")
    (folder / "empty").touch()
    for name in ("garbage", "empty"):
        (folder / name).chmod(0o600)
    (folder / "public.key").write_bytes(client_key.read_bytes())
    (folder / "public.key").chmod(0o644)
    (folder / "folder").mkdir()
    with debian_server() as server:
        speak_tls(server, certificate, key, authority=own.certificate, rules=RULES)
        yield Secure(server, folder)


CLIENT = {"sslcert": "{}/postgres.crt", "sslkey": "{}/postgres.key"}
ROOT = {"sslmode": "verify-full", "sslrootcert": "{}/authority.crt"}
CONNECTS = {
    "without options": {},
    "verified": ROOT,
    "with a client certificate": CLIENT,
    "with a password for the key": {
        **CLIENT,
        "sslkey": "{}/postgres.encrypted",
        "sslpassword": "open sesame",
    },
    "with a list of revoked certificates": {
        **ROOT,
        "sslcrl": "{}/revoked.crl",
        "sslcrldir": "{}/folder",
    },
    "with channel binding": {"channel_binding": "require"},
    "without TLS, other parameters ignored": {"sslmode": "disable", "sslrootcert": "/missing"},
}
FILES = {
    **{
        f"{name} {what}": {**CLIENT, **ROOT, name: f"{{}}/{file}"}
        for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl")
        for what, file in (
            ("missing", "missing"),
            ("below a file", "garbage/x"),
            ("a folder", "folder"),
            ("empty", "empty"),
            ("garbage", "garbage"),
        )
    },
    **{
        f"{name} {what} but optional for libpq": {"sslmode": mode, name: f"{{}}/{file}"}
        for name in ("sslrootcert", "sslcert", "sslcrl", "sslcrldir")
        for mode in ("prefer", "require")
        for what, file in (("missing", "missing"),)
    },
    "sslcrldir a file": {**ROOT, "sslcrldir": "{}/garbage"},
    "no default sslrootcert": {"sslmode": "verify-full"},
    "no sslkey": {"sslcert": "{}/postgres.crt"},
    "key of another certificate": {**CLIENT, "sslkey": "{}/other/stranger.key"},
    "key open to others": {**CLIENT, "sslkey": "{}/public.key"},
    "key without its password": {**CLIENT, "sslkey": "{}/postgres.encrypted"},
    "key with a wrong password": {
        **CLIENT,
        "sslkey": "{}/postgres.encrypted",
        "sslpassword": "s3cret",
    },
}
MISMATCHES = {
    "another host name": {**ROOT, "host": "other.example"},
    "another authority": {**ROOT, "sslrootcert": "{}/other/authority.crt"},
    "the system's authorities": {"sslmode": "verify-full", "sslrootcert": "system"},
    "a client of another authority": {
        "sslcert": "{}/other/stranger.crt",
        "sslkey": "{}/other/stranger.key",
    },
    "no TLS to bind to": {"sslmode": "disable", "channel_binding": "require"},
    "another method": {"require_auth": "md5"},
    "no method": {"require_auth": "none"},
    "GSSAPI": {"gssencmode": "require"},
    "a client certificate that the server does not request": {"sslcertmode": "require"},
}
VALUES = {
    "weak mode for the system's authorities": {"sslrootcert": "system", "sslmode": "require"},
    "weak mode for direct negotiation": {"sslnegotiation": "direct", "sslmode": "prefer"},
    "versions in the wrong order": {
        "ssl_min_protocol_version": "TLSv1.3",
        "ssl_max_protocol_version": "TLSv1.2",
    },
}
LOGINS = {
    "needs TLS": {"sslmode": "disable", "user": "tls_only"},
    "needs a client certificate": {"user": "certified", "sslcertmode": "disable"},
}


def parametrized(cases: dict[str, dict[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("parameters", cases.values(), ids=cases)


@KINDS
@parametrized(CONNECTS)
def test_consistent_security_settings_connect(
    secure: Secure, parameters: dict[str, str], *, python: bool
) -> None:
    got = attempt(secure.pairs(**parameters), python=python)
    assert got.id == "", got


@KINDS
@parametrized(FILES)
def test_unusable_tls_file_is_not_retried(
    secure: Secure, parameters: dict[str, str], *, python: bool
) -> None:
    got = attempt(secure.pairs(**parameters), python=python)
    assert (got.id, got.exit_code, got.is_final) == ("tls-file", 2, True), got
    assert "s3cret" not in got.message
    assert got.hint


@KINDS
@parametrized(MISMATCHES)
def test_security_mismatch_is_not_retried(
    secure: Secure, parameters: dict[str, str], *, python: bool
) -> None:
    got = attempt(secure.pairs(**parameters), python=python)
    assert (got.id, got.exit_code, got.is_final) == ("security-mismatch", 4, True), got


@KINDS
def test_expired_certificate_is_not_retried(
    secure: Secure, tmp_path: Path, *, python: bool
) -> None:
    own = Authority(tmp_path)
    with debian_server() as server:
        speak_tls(server, *own.issue("db.example", expired=True))
        got = attempt(secure._replace(server=server, folder=tmp_path).pairs(**ROOT), python=python)
    assert (got.id, got.exit_code, got.is_final) == ("security-mismatch", 4, True), got
    assert "certificate verify failed" in got.message


@KINDS
@parametrized(VALUES)
def test_conflicting_values_are_not_retried(
    secure: Secure, parameters: dict[str, str], *, python: bool
) -> None:
    got = attempt(secure.pairs(**parameters), python=python)
    assert (got.id, got.exit_code, got.is_final) == ("malformed-url", 2, True), got


@KINDS
@parametrized(LOGINS)
def test_refusal_by_the_server_is_reported_as_a_refused_login(
    secure: Secure, parameters: dict[str, str], *, python: bool
) -> None:
    got = attempt(secure.pairs(**parameters), python=python)
    assert (got.id, got.exit_code) == ("login-refused", 4), got


@KINDS
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_server_without_tls_is_not_retried(
    server: DatabaseServer, secure: Secure, mode: str, *, python: bool
) -> None:
    root = str(secure.folder / "authority.crt")
    pairs = as_pairs(server.url(), sslmode=mode, sslrootcert=root)
    got = attempt(pairs, python=python)
    assert (got.id, got.exit_code, got.is_final) == ("security-mismatch", 4, True), got


@pytest.mark.parametrize(
    ("parameters", "code", "id"),
    [
        ("sslmode=require", 4, "security-mismatch"),
        ("sslmode=verify-full&sslrootcert=/missing", 2, "tls-file"),
        ("sslcert=/missing", 2, "tls-file"),
        ("require_auth=md5", 4, "security-mismatch"),
    ],
)
def test_command_exits_without_waiting_after_a_final_error(
    initmig: Initmig, database: Database, parameters: str, code: int, id: str
) -> None:
    url = f"{database.url}?{parameters}"
    result = initmig("wait", "--for=database", url=url, env={"INITMIG_LOG_FORMAT": "json"})
    events = [json.loads(line) for line in result.err.splitlines()]
    assert result.code == code
    assert [event.get("error") for event in events] == [id]


def test_encrypted_key_without_a_password_does_not_prompt(
    initmig: Initmig, secure: Secure, tmp_path: Path
) -> None:
    if shutil.which("script") is None:
        pytest.skip("needs script, of bsdutils")
    write(tmp_path, {"0001_a.sql": "SELECT 1"})
    encrypted = {**CLIENT, "sslkey": "{}/postgres.encrypted"}
    on_a_terminal = ["sh", "-c", 'exec script -qec "$*" /dev/null', "sh"]
    result = initmig(url=secure.pairs(**encrypted), folder=tmp_path, prefix=on_a_terminal)
    assert result.code == 2, result.out
    assert "[tls-file]" in result.out
    assert "pass phrase" not in result.out


# --- messages that libpq would write to stderr ---


PASSWORD_FILES = {
    "open to others": 0o644,
    "open to the group": 0o640,
}


def password_file(folder: Path, database: Database, mode: int) -> tuple[Path, str]:
    """A password file, and the parameters of *database* without the password."""
    file = folder / "passwords"
    file.write_text("*:*:*:*:postgres\n")
    file.chmod(mode)
    return file, as_pairs(database.url, password="").replace("password='' ", "")


@KINDS
def test_password_file_is_used(database: Database, tmp_path: Path, *, python: bool) -> None:
    file, pairs = password_file(tmp_path, database, 0o600)
    got = attempt(f"{pairs} passfile='{file}'", python=python)
    assert (got.id, got.warnings) == ("", ())


@KINDS
@pytest.mark.parametrize("what", [*PASSWORD_FILES, "missing", "a folder"])
def test_ignored_password_file_is_reported(
    database: Database,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    what: str,
    *,
    python: bool,
) -> None:
    file, pairs = password_file(tmp_path, database, PASSWORD_FILES.get(what, 0o600))
    path = {"missing": tmp_path / "missing", "a folder": tmp_path}.get(what, file)
    got = attempt(f"{pairs} passfile='{path}'", python=python)
    assert (got.id, got.exit_code, got.warnings) == ("login-refused", 4, ("passfile",)), got
    assert capfd.readouterr().err == ""
    got = attempt(f"{pairs} passfile='{path}'", python=python, password="postgres")
    assert (got.id, got.warnings) == ("", ())


@KINDS
def test_other_warnings_of_libpq_are_reported(
    secure: Secure, capfd: pytest.CaptureFixture[str], *, python: bool
) -> None:
    got = attempt(secure.pairs(sslkeylogfile="{}/missing/keys"), python=python)
    assert (got.id, got.warnings) == ("", ("sslkeylogfile",))
    encrypted = {**CLIENT, "sslkey": "{}/postgres.encrypted", "sslpassword": "x" * 2000}
    got = attempt(secure.pairs(**encrypted), python=python)
    assert (got.id, got.warnings) == ("tls-file", ("sslpassword",))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_warning_is_logged_once_for_all_attempts(
    initmig: Initmig, database: Database, tmp_path: Path, log_format: str
) -> None:
    file, pairs = password_file(tmp_path, database, 0o644)
    env = {"PGPASSFILE": str(file), "INITMIG_LOG_FORMAT": log_format}
    result = initmig("wait", "--for=database", "--wait-timeout=2s", url=pairs, env=env)
    assert result.code == 4
    lines = result.err.splitlines()
    logged = [line for line in lines if str(file) in line]
    assert len(logged) == 1, result.err
    assert not any(line.startswith("WARNING") for line in lines)
    if log_format == "json":
        [event] = [each for each in map(json.loads, lines) if each["event"] == "parameter_ignored"]
        assert event["parameter"] == "passfile"
        assert "password file" in event["reason"]
    else:
        assert "warning ignored the connection parameter passfile: " in logged[0]
