"""Random file names and rows of the history: no traceback, and no invisible characters."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.integration.test_forged_lines import assert_forges_nothing, assert_is_json, run
from tests.support.command import Initmig
from tests.support.examples import examples
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.fork_server import ForkServer
    from tests.support.processes import Processes

pytestmark = [pytest.mark.any_version, pytest.mark.long]

VALID = {"0001_a.sql": "CREATE TABLE IF NOT EXISTS a (n int)", "0001_a.rollback.sql": "SELECT 1"}
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("plan",),
    ("plan", "--json"),
    ("wait", "--wait-timeout=100ms"),
    ("doctor",),
    ("rehearse",),
    ("rehearse", "--markdown"),
    ("baseline", "--to=0001_a"),
    ("migrate",),
    ("rollback", "--steps=1", "--irreversible=skip"),
    ("unlock",),
)
NASTY = st.sampled_from(
    [*"\n\r\t\x1b\x85\x9b\x7f\u2028\u202e\u2066\u200b\u200d\ufeff\ue000\uffff|`@<\\'\"%/ .", "🦆"]
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | NASTY)
VALUES = st.one_of(st.none(), TEXTS.map(lambda text: text[:200]))
BYTES = st.lists(
    st.binary(min_size=1, max_size=3) | TEXTS.map(str.encode), min_size=1, max_size=6
).map(lambda parts: b"".join(parts).translate(None, b"\0/")[:80])
NAMES = st.builds(
    lambda stem, suffix: (stem + suffix).decode(errors="surrogateescape"),
    BYTES,
    st.sampled_from([b".sql", b".sql", b".rollback.sql", b".py", b".SQL", b"", b"/x.sql"]),
).filter(lambda name: name not in ("", ".", "..") and not name.startswith("./"))


@pytest.fixture
def initmig(processes: Processes, fork: ForkServer) -> Initmig:
    return Initmig(processes, fork)


def assert_output_is_visible(initmig: Initmig, database: Database, folder: Path) -> None:
    for argv in COMMANDS:
        for form in ("text", "json"):
            env = {"DATABASE_URL": database.url, "INITMIG_LOG_FORMAT": form}
            shown = run(initmig, *argv, folder=folder, env=env)
            assert "Traceback" not in shown.err, (argv, shown.err)
            assert "internal-error" not in shown.err, (argv, shown.err)
            (assert_is_json if form == "json" else assert_forges_nothing)(shown)


def test_output_is_visible_text_for_any_file_name(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    @settings(settings.get_profile("faults"), max_examples=examples(20))
    @given(st.lists(NAMES, min_size=1, max_size=4))
    def check(names: list[str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        write(folder, {**VALID, **dict.fromkeys(names, "SELECT 1")})
        assert_output_is_visible(initmig, database, folder)

    check()


def test_output_is_visible_text_for_any_rows_of_the_history(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, VALID)
    env = {"DATABASE_URL": database.url}

    @settings(settings.get_profile("faults"), max_examples=examples(20))
    @given(st.lists(st.tuples(*[VALUES] * 5), min_size=1, max_size=3))
    def check(rows: list[tuple[str | None, ...]]) -> None:
        database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        run(initmig, "migrate", folder=folder, env=env)
        for row in rows:
            id, user, host, version, comment = (sql.Literal(each).as_string() for each in row)
            database.execute(
                f"INSERT INTO _yoyo_migration SELECT md5(random()::text), {id}, now();"
                "INSERT INTO _yoyo_log (id, migration_hash, migration_id, operation, username,"
                " hostname, comment, created_at_utc) SELECT gen_random_uuid(), 'x', {id}, 'apply',"
                f" {user}, {host}, {comment}, now();".replace("{id}", id)
            )
            if row[0] is not None:
                database.execute(
                    "INSERT INTO _initmig_migration (migration_id, checksum, breaking, state,"
                    " statements_done, started_at, username, hostname, image_version)"
                    f" VALUES ({id}, 'x', true, 'applied', 1, now(), coalesce({user}, ''),"
                    f" coalesce({host}, ''), coalesce({version}, '')) ON CONFLICT DO NOTHING"
                )
        assert_output_is_visible(initmig, database, folder)

    check()
