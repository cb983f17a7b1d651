import os
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.command import Initmig
from tests.support.databases import Database
from tests.support.migrations import write
from tests.support.namespaces import in_place_of

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()', 'DROP TABLE b')",
}


def test_user_without_name_or_home_migrates_and_is_recorded_by_uid(
    initmig: Initmig, database: Database, folder: Path, nameless_user: list[str]
) -> None:
    uid = next(word for word in nameless_user if word.startswith("--reuid=")).partition("=")[2]
    env = {"HOME": "/nonexistent"}
    write(folder, FILES)
    applied = initmig(url=database.url, folder=folder, env=env, prefix=nameless_user)
    assert applied.code == 0, applied.err
    who = f"uid-{uid}", os.uname().nodename
    recorded = "SELECT DISTINCT username::text, hostname::text FROM "
    assert database.query(f"{recorded} _initmig_migration") == [who]
    assert database.query(f"{recorded} _yoyo_log") == [who]
    status = initmig("status", url=database.url, folder=folder, prefix=nameless_user)
    assert status.out.count("@".join(who)) == 2
    undone = initmig(
        "rollback", "--all", url=database.url, folder=folder, env=env, prefix=nameless_user
    )
    assert (undone.code, {"a", "b"} & database.tables()) == (0, set())


def test_user_name_too_long_for_the_history_is_truncated(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"{'u' * 300}:x:{os.getuid()}:0::/root:/bin/sh\n")
    prefix = in_place_of("/etc/passwd", passwd)
    result = initmig(url=database.url, folder=write(folder, FILES), prefix=prefix)
    assert result.code == 0, result.err
    recorded = "SELECT DISTINCT username::text FROM "
    for table in ("_initmig_migration", "_yoyo_log"):
        assert database.value(f"{recorded} {table}") == "u" * 255


def test_nameless_user_without_a_user_in_the_url_is_an_error(
    initmig: Initmig, database: Database, folder: Path, nameless_user: list[str]
) -> None:
    parts = urlsplit(database.url)
    url = f"postgresql://{parts.hostname}:{parts.port}{parts.path}"
    result = initmig(url=url, folder=write(folder, FILES), prefix=nameless_user)
    assert "local user with ID" in result.err
    assert "[malformed-url]" in result.err
    assert "PGUSER" in result.err
    assert (result.code, database.tables()) == (2, set())
