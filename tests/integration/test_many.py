"""Migrating many databases or schemas in one run."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from initmig.core.quoting import quote_identifier
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result

pytestmark = pytest.mark.any_version

FILES = {
    "0001_a.sql": "CREATE TABLE a (id integer)",
    "0002_b.py": "from yoyo import step\nstep('INSERT INTO a VALUES (1)', 'DELETE FROM a')",
}
TENANTS = [f"tenant_{number}" for number in range(1, 7)]
EACH = ("--each-schema", r"tenant\_%")


@pytest.fixture
def tenants(database: Database, folder: Path) -> Database:
    """Six schemas that match the pattern, another one with a similar name, and two migrations."""
    write(folder, FILES)
    for name in (*TENANTS, "tenants"):
        database.execute(f"CREATE SCHEMA {name}")
    return database


def rows_of(database: Database, schema: str) -> list[Any]:
    return database.query(f"SELECT id FROM {schema}.a")


def outcomes(result: Result) -> dict[str, dict[str, Any]]:
    """The --json records by target."""
    records = [json.loads(line) for line in result.out.splitlines()]
    return {record["target"]: record for record in records}


def test_each_matching_schema_is_migrated_with_its_own_history(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    first = initmig("migrate", *EACH, url=tenants.url, folder=folder)
    assert first.code == 0, first.err
    lines = [line.split()[:3] for line in first.out.splitlines()]
    assert lines == [["target", "outcome", "took"], *([name, "applied", "2"] for name in TENANTS)]
    for name in TENANTS:
        assert rows_of(tenants, name) == [(1,)]
        assert f"[{name}] applied 0001_a in " in first.err
    assert "6 targets: applied migrations to 6" in first.err
    assert tenants.query("SELECT FROM pg_tables WHERE schemaname IN ('public', 'tenants')") == []
    second = initmig("migrate", *EACH, "--json", url=tenants.url, folder=folder)
    assert list(outcomes(second)) != []
    assert not any(each["applied"] for each in outcomes(second).values())


def test_failure_of_a_target_does_not_stop_the_others_and_sets_the_exit_code(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    tenants.execute("CREATE TABLE tenant_3.a ()")
    env = {"INITMIG_LOG_FORMAT": "json"}
    result = initmig("migrate", *EACH, "--json", url=tenants.url, folder=folder, env=env)
    assert result.code == 1
    records = outcomes(result)
    assert records["tenant_3"]["exit_code"] == 1
    assert 'relation "a" already exists' in records["tenant_3"]["message"]
    assert [name for name in TENANTS if not records[name]["exit_code"]] == [
        name for name in TENANTS if name != "tenant_3"
    ]
    failed = [event for event in result.events if event["event"] == "failed"]
    assert [event.get("target") for event in failed] == ["tenant_3", None]
    assert failed[1]["message"] == "1 of 6 targets failed: tenant_3"
    assert "the other targets are migrated" in failed[1]["next"]
    tenants.execute("DROP TABLE tenant_3.a")
    again = initmig("migrate", *EACH, "--json", url=tenants.url, folder=folder)
    assert again.code == 0
    assert outcomes(again)["tenant_3"]["applied"] == ["0001_a", "0002_b"]


def test_fail_fast_starts_no_target_after_a_failure(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    tenants.execute("CREATE TABLE tenant_2.a ()")
    flags = (*EACH, "--fail-fast", "--parallel=1", "--json")
    result = initmig("migrate", *flags, url=tenants.url, folder=folder)
    assert result.code == 1
    assert list(outcomes(result)) == ["tenant_1", "tenant_2"]
    assert "6 targets: applied migrations to 1, 1 failed (tenant_2), 4 not started" in result.err
    assert "[targets-failed]" in result.err
    assert "not started: 4" in result.err
    assert tenants.query("SELECT FROM pg_tables WHERE schemaname = 'tenant_3'") == []


def test_parallel_limits_the_number_of_concurrent_targets(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0003_c.sql": "SELECT pg_advisory_xact_lock_shared(4711)"})
    at_the_gate = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    started = "SELECT count(*) FROM pg_tables WHERE tablename = '_yoyo_migration'"
    flags = (*EACH, "--parallel=3", "--lock-timeout=0")
    with tenants.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(4711)")
        running = initmig.start("migrate", *flags, url=tenants.url, folder=folder)
        wait_until(lambda: tenants.value(at_the_gate) == 3)
        assert tenants.value(started) == 3
    assert running.result().code == 0
    assert tenants.value(started) == len(TENANTS)


def test_shards_migrate_each_target_once(tenants: Database, initmig: Initmig, folder: Path) -> None:
    seen: list[str] = []
    for index in range(3):
        flags = (*EACH, f"--shard={index}/3", "--json")
        result = initmig("migrate", *flags, url=tenants.url, folder=folder)
        assert result.code == 0, result.err
        seen += outcomes(result)
    assert sorted(seen) == TENANTS
    env = {"INITMIG_SHARD": "0/1", "INITMIG_EACH_SCHEMA": "tenant_1", "INITMIG_PARALLEL": "1"}
    result = initmig("migrate", "--json", url=tenants.url, folder=folder, env=env)
    assert list(outcomes(result)) == ["tenant_1"]


def test_shard_without_targets_reports_the_total_number(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    each = r"--each-schema=tenant\_1"
    runs = [
        initmig("migrate", each, f"--shard={n}/2", url=tenants.url, folder=folder) for n in (0, 1)
    ]
    assert [run.code for run in runs] == [0, 0]
    [warned] = [run.err for run in runs if "found no targets" in run.err]
    assert re.search(
        r"in shard [01]/2 of the 1 in schemas LIKE 'tenant\\_1'$", warned, re.MULTILINE
    )


def test_next_step_mentions_no_other_targets_if_all_failed(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0009_broken.sql": "SELECT oops"})
    env = {"INITMIG_LOG_FORMAT": "json"}
    result = initmig("migrate", *EACH, url=tenants.url, folder=folder, env=env)
    assert result.events[-1]["error"] == "targets-failed"
    assert "other" not in result.events[-1]["next"]


def test_pattern_without_matches_is_a_warning(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    result = initmig("migrate", "--each-schema=no_match%", url=database.url, folder=folder)
    assert result.code == 0
    assert "warning found no targets in schemas LIKE 'no_match%'" in result.err


def test_sigterm_stops_all_targets_and_rolls_them_back(
    tenants: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0003_c.sql": "CREATE TABLE c (); SELECT pg_sleep(60)"})
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
    asleep += " AND state = 'active' AND pid <> pg_backend_pid()"
    flags = (*EACH, "--parallel=3")
    running = initmig.start("migrate", *flags, url=tenants.url, folder=folder)
    wait_until(lambda: tenants.value(asleep) == 3)
    running.terminate()
    result = running.result()
    assert result.code == 143
    assert result.err.count("stopped by SIGTERM") == 4  # three targets and the parent process
    wait_until(lambda: tenants.value(asleep) == 0)
    assert tenants.query("SELECT FROM pg_tables WHERE tablename = 'c'") == []
    write(folder, {"0003_c.sql": "CREATE TABLE c ()"})
    assert initmig("migrate", *EACH, url=tenants.url, folder=folder).code == 0
    assert tenants.value("SELECT count(*) FROM pg_tables WHERE tablename = 'c'") == len(TENANTS)


def test_killed_process_fails_its_target(tenants: Database, initmig: Initmig, folder: Path) -> None:
    write(
        folder,
        {
            "0003_c.py": "import os\nif os.path.exists('poison'):\n os.kill(os.getpid(), 9)\n"
            "from yoyo import step\nstep('SELECT 1')"
        },
    )
    flags = ("--each-schema=tenant%", "--parallel=2", "--json")
    poison = folder.parent / "poison"
    poison.touch()
    result = initmig("migrate", *flags, url=tenants.url, folder=folder, cwd=folder.parent)
    assert result.code == 1
    assert [each["message"] for each in outcomes(result).values()] == ["its process was killed"] * 2
    assert "7 targets: applied migrations to 0, 2 failed (" in result.err
    poison.unlink()
    again = initmig("migrate", *flags, url=tenants.url, folder=folder, cwd=folder.parent)
    assert again.code == 0, again.err


def test_targets_file_sets_url_schema_and_migrations_of_each_target(
    database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    write(folder, FILES)
    own = write(tmp_path / "own", {"0001_own.sql": "CREATE TABLE own ()"})
    for name in ("one", "two", "three", "four"):
        database.execute(f"CREATE SCHEMA {name}")
    secret = tmp_path / "secret"
    secret.write_text(f"{database.url}\n")
    targets = tmp_path / "targets.toml"
    targets.write_text(
        '[[target]]\nname = "a"\nschema = "one"\n'
        f'[[target]]\nname = "b"\nurl = "{database.url}"\nschema = "two"\n'
        f'[[target]]\nname = "c"\nurl_env = "THREE"\nschema = "three"\nmigrations = "{own}"\n'
        f'[[target]]\nname = "d"\nurl_file = "{secret}"\nschema = "four"\n'
        f'migrations = ["{own}", "{folder}"]\n'
    )
    flags = ("migrate", "--targets", str(targets), "--json")
    result = initmig(*flags, url=database.url, folder=folder, env={"THREE": database.url})
    assert result.code == 0, result.err
    assert {name: each["applied"] for name, each in outcomes(result).items()} == {
        "a": ["0001_a", "0002_b"],
        "b": ["0001_a", "0002_b"],
        "c": ["0001_own"],
        "d": ["0001_own", "0001_a", "0002_b"],
    }


def test_exit_code_is_that_of_the_failure_that_a_retry_does_not_fix(
    database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    write(folder, FILES)
    targets = tmp_path / "targets.toml"
    targets.write_text(
        '[[target]]\nname = "away"\nurl = "postgresql://app:hidden@127.0.0.1:1/x"\n'
        '[[target]]\nname = "nowhere"\nschema = "nowhere"\n[[target]]\nname = "fine"\n'
    )
    flags = ("migrate", "--targets", str(targets), "--wait-timeout=0")
    result = initmig(*flags, url=database.url, folder=folder)
    assert result.code == 4
    assert [line.split()[:3] for line in result.out.splitlines()[1:]] == [
        ["away", "exit", "3:"],
        ["fine", "applied", "2"],
        ["nowhere", "exit", "4:"],
    ]
    assert "hidden" not in result.err + result.out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[target]", "[targets-file-unreadable]"),
        ("", "[targets-file-unreadable]"),
        ('[[target]]\nname = "a"\n[other]', "[targets-file-unreadable]"),
        ('target = "a"', "[targets-file-unreadable]"),
        ("[[target]]", "has no name"),
        (
            '[[target]]\nname = "a"\n[[target]]\nname = "a"',
            "has the same name as another target: a",
        ),
        ('[[target]]\nname = "a"\nport = "1"', "has an unknown key: port"),
        ('[[target]]\nname = "a"\nschema = 1', ": schema is not a string"),
        ('[[target]]\nname = "a"\nurl = "x=y"\nurl_env = "PATH"', "has url and url_env"),
        ('[[target]]\nname = "a"\nurl_env = "NOT_SET"', "takes its URL from NOT_SET, which is not"),
        ('[[target]]\nname = "a"\nurl = "mysql://x"', "cannot begin with mysql://"),
        ('[[target]]\nname = "a"\nmigrations = []', ": migrations is not a string"),
        ('[[target]]\nname = "a"\nschema = []', ": schema is not a string"),
        ('[[target]]\nname = "a"\nschema = ["x", ""]', "contains an empty name"),
        ('[[target]]\nname = "a"\nschema = "x,"', "--schema: 'x,' contains an empty name"),
        ('[[target]]\nname = "a"\nhistory_schema = ["x"]', ": history_schema is not a string"),
        ('[[target]]\nname = "a"\nhistory_schema = "x,y"', "'x,y' is more than one name"),
        ('[[target]]\nname = "a"\nhistory_table = "_yoyo_log"', "--history-table: '_yoyo_log' is"),
    ],
)
def test_invalid_targets_file_is_refused_before_any_change(
    database: Database, initmig: Initmig, folder: Path, text: str, expected: str
) -> None:
    write(folder, FILES)
    targets = folder.parent / "targets.toml"
    targets.write_text('[[target]]\nname = "good"\n' + text if text.startswith("[[") else text)
    result = initmig("migrate", "--targets", str(targets), url=database.url, folder=folder)
    assert result.code == 2
    assert expected in result.err
    assert database.tables() == set()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--targets=x", "--each-schema=y"), "[conflicting-flags]"),
        (("--targets=missing.toml",), "cannot read the targets file missing.toml"),
        (("--parallel=2",), "--parallel needs --targets or --each-schema"),
        (("--json",), "--json needs --targets or --each-schema"),
        (("--each-schema=x", "--parallel=0"), "--parallel: '0'"),
        (("--each-schema=x", "--shard=4/4"), "--shard: '4/4' is not a shard: I starts at 0"),
        (("--each-schema=x", "--shard=1"), "--shard: '1' is not a shard: write I/N"),
        (("--each-schema=x", "--shard=-1/4"), "--shard: '-1/4' is not a shard"),
    ],
)
def test_invalid_flags_are_refused(
    database: Database, initmig: Initmig, folder: Path, flags: tuple[str, ...], expected: str
) -> None:
    result = initmig("migrate", *flags, url=database.url, folder=folder)
    assert result.code == 2
    assert expected in result.err


# --- names ---

ODD = [
    "odd",
    "Odd",
    " odd",
    "odd ",
    "odd,odd",
    ",odd",
    '"odd"',
    'o"dd',
    "o.dd",
    "o'dd",
    r"o\dd",
    r"odd\ ",
    "o\ndd",
    "odd\t",
    "o;dd--",
    "odd$user",
    "odd$initmig$",
    "odd%",
    "odd%(id)s:id",
    "odd{0}",
    "odd*/",
    '"$user"odd',
    "öddé",
    "odde\u0301",
    "odd 🐘",
    "odd".ljust(63, "x"),
    "odd".ljust(63, "x")[:-1],
    "odd" + "é" * 30,
]


def create_schemas(database: Database, names: list[str]) -> None:
    database.execute(";".join(f"CREATE SCHEMA {quote_identifier(name)}" for name in names))


def schemas_of(database: Database, table: str) -> list[str]:
    """The schemas that have the *table*."""
    found = "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    return [name for (name,) in database.query(f"{found} WHERE relname = %s", [table])]


def test_unusual_schema_names_are_used_unchanged(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, FILES | {"0003_name.sql": "CREATE TABLE name AS SELECT current_schema() AS me"})
    create_schemas(database, ODD)
    command = ("migrate", "--each-schema=%d%d%")
    flags = (*command, "--json", "--log-level=debug", "--parallel=2")
    env = {"INITMIG_LOG_FORMAT": "json"}
    result = initmig(*flags, url=database.url, folder=folder, env=env)
    assert result.code == 0, result.err
    assert sorted(outcomes(result)) == sorted(ODD)
    applied = [event["target"] for event in result.events if event["event"] == "migration_applied"]
    assert sorted(applied) == sorted(ODD * 3)
    assert all(len(each["applied"]) == 3 for each in outcomes(result).values())
    assert sorted(schemas_of(database, "name")) == sorted(ODD)
    assert sorted(schemas_of(database, "_yoyo_migration")) == sorted(ODD)
    for name in ODD:
        assert database.query(f"SELECT me FROM {quote_identifier(name)}.name") == [(name,)]
        assert len(database.query(f"SELECT FROM {quote_identifier(name)}._yoyo_migration")) == 3
    again = initmig(*flags, url=database.url, folder=folder)
    assert again.code == 0
    assert [each["applied"] for each in outcomes(again).values()] == [[]] * len(ODD)
    lines = initmig(*command, url=database.url, folder=folder)
    assert len(lines.out.splitlines()) == len(ODD) + 1
    assert "\no\\ndd " in lines.out
    assert "[o\\ndd] nothing to do" in lines.err


def test_schema_that_a_search_path_cannot_name_fails_and_the_others_are_migrated(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, FILES)
    user = database.value("SELECT current_user")
    create_schemas(database, ["$user", user, "other$user"])
    env = {"INITMIG_LOG_FORMAT": "json"}
    flags = ("migrate", "--each-schema=%$user", "--json")
    result = initmig(*flags, url=database.url, folder=folder, env=env)
    assert result.code == 2
    assert {name: each["exit_code"] for name, each in outcomes(result).items()} == {
        "$user": 2,
        "other$user": 0,
    }
    assert "the schema $user" in outcomes(result)["$user"]["message"]
    failed = [event for event in result.events if event["event"] == "failed"]
    assert [(event.get("target"), event["error"]) for event in failed] == [
        ("$user", "invalid-schema-name"),
        (None, "targets-failed"),
    ]
    assert schemas_of(database, "a") == ["other$user"]


@pytest.mark.parametrize(
    ("lines", "schema"),
    [
        ('schema = "one, two"', "one"),
        ("schema = '\"one, two\"'", "one, two"),
        ('schema = ["one, two", "two"]', "one, two"),
        ("schema = ['\"one\"']", '"one"'),
        ('schema = ["one ", "two"]', "one "),
    ],
)
def test_schema_of_a_target_is_a_string_as_in_the_flag_or_a_list(
    database: Database, initmig: Initmig, folder: Path, lines: str, schema: str
) -> None:
    write(folder, FILES)
    create_schemas(database, ["one", "two", "one, two", '"one"', "one "])
    targets = folder.parent / "targets.toml"
    targets.write_text(f'[[target]]\nname = "x"\n{lines}\n')
    result = initmig("migrate", "--targets", str(targets), url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert schemas_of(database, "a") == [schema]


def test_target_uses_its_own_history_schema_and_table(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, FILES)
    create_schemas(database, ["one", "two", "Records, all"])
    targets = folder.parent / "targets.toml"
    targets.write_text(
        "".join(
            f'[[target]]\nname = "{name}"\nschema = "{name}"\n'
            f'history_schema = \'"Records, all"\'\nhistory_table = "{name}_history"\n'
            for name in ("one", "two")
        )
    )
    flags = ("migrate", "--targets", str(targets), "--json")
    for applied in (["0001_a", "0002_b"], []):
        result = initmig(*flags, url=database.url, folder=folder)
        assert result.code == 0, result.err
        assert [each["applied"] for each in outcomes(result).values()] == [applied, applied]
    assert sorted(schemas_of(database, "a")) == ["one", "two"]
    for table in ("one_history", "two_history"):
        assert schemas_of(database, table) == ["Records, all"]


def test_each_schema_with_a_shared_history_schema_is_refused(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    for flags, env in [
        (("--each-schema=x", "--history-schema=y"), {}),
        (("--each-schema=x",), {"INITMIG_HISTORY_SCHEMA": "y"}),
    ]:
        result = initmig("migrate", *flags, url=database.url, folder=folder, env=env)
        assert result.code == 2
        assert "all schemas would share one history" in result.err
        assert "[conflicting-flags]" in result.err
