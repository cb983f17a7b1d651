import pytest

from initmig.sql.leftovers import changes, left

LEAVES = {
    "CREATE TEMP TABLE t (a int)": "the temporary table t",
    "CREATE TEMPORARY TABLE t (a int) ON COMMIT DELETE ROWS": "the temporary table t",
    "CREATE TABLE pg_temp.t (a int)": "the temporary table t",
    "CREATE TEMP TABLE t PARTITION OF p DEFAULT": "the temporary table t",
    "CREATE TEMP TABLE t AS SELECT 1": "the temporary table t",
    "SELECT 1 AS a INTO TEMP t": "the temporary table t",
    "CREATE TEMP VIEW v AS SELECT 1": "the temporary view v",
    "CREATE TEMP SEQUENCE s": "the temporary sequence s",
    "CREATE TYPE pg_temp.c AS (a int)": "the temporary type c",
    "CREATE TYPE pg_temp.e AS ENUM ('a')": "the temporary type e",
    "CREATE TYPE pg_temp.r AS RANGE (subtype = int)": "the temporary type r",
    "CREATE DOMAIN pg_temp.d AS int": "the temporary domain d",
    "CREATE FUNCTION pg_temp.f() RETURNS int RETURN 1": "the temporary function f",
    "CREATE TEMP TABLE t (); DROP TABLE public.t": "the temporary table t",
    "DROP TABLE IF EXISTS t; CREATE TEMP TABLE t ()": "the temporary table t",
    "CREATE TEMP TABLE t (); DROP TABLE u; DEALLOCATE ALL; CLOSE ALL": "the temporary table t",
    "PREPARE p AS SELECT 1": "the prepared statement p",
    "PREPARE p AS SELECT 1; DEALLOCATE q": "the prepared statement p",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1": "the cursor c WITH HOLD",
    "LISTEN c": "LISTEN c",
    "LISTEN c; UNLISTEN d": "LISTEN c",
    "SELECT pg_advisory_lock(1)": "an advisory lock",
    "SELECT pg_catalog.pg_try_advisory_lock_shared(1, 2)": "an advisory lock",
    "INSERT INTO t SELECT 1 WHERE pg_try_advisory_lock(1)": "an advisory lock",
    "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(2)": "an advisory lock",
    "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock_shared(1)": "an advisory lock",
    "SELECT pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_unlock(1)": "an advisory lock",
    "SELECT pg_advisory_unlock(1), pg_advisory_lock(1)": "an advisory lock",
    "SET Work_Mem = '1MB'": "the setting work_mem",
    "SET TIME ZONE 'UTC'": "the setting timezone",
    "RESET work_mem": "the setting work_mem",
    "RESET ALL": "all settings",
    "SET ROLE r": "the setting role",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": (
        "the setting default_transaction_read_only"
    ),
    "SELECT set_config('App.Tenant', 'x', false)": "the setting app.tenant",
    "SELECT 1 FROM t WHERE set_config('a.b', c, d) > ''": "the setting a.b",
    "SELECT set_config(name, setting, false) FROM pg_settings": "a setting",
}
LEAVES_NOTHING = [
    "CREATE TABLE t ()",
    "CREATE TEMP TABLE t () ON COMMIT DROP",
    "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1",
    "CREATE TEMP TABLE t (); DROP TABLE t",
    "CREATE TEMP TABLE t (); DROP TABLE IF EXISTS pg_temp.t, u",
    "CREATE TEMP VIEW v AS SELECT 1; DROP VIEW v",
    "CREATE FUNCTION pg_temp.f() RETURNS int RETURN 1; DROP FUNCTION pg_temp.f()",
    "CREATE TYPE pg_temp.c AS (a int); DROP TYPE pg_temp.c",
    "CREATE TEMP TABLE t (); CREATE TEMP SEQUENCE s; DISCARD TEMP",
    "PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p",
    "PREPARE p AS SELECT 1; PREPARE q AS SELECT 1; DEALLOCATE ALL",
    "DECLARE c CURSOR FOR SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1; CLOSE c",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1; CLOSE ALL",
    "LISTEN c; UNLISTEN c",
    "LISTEN c; LISTEN d; UNLISTEN *",
    "NOTIFY c",
    "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1)",
    "SELECT pg_advisory_lock(f('a')); SELECT 1;\nSELECT  pg_advisory_unlock( f('a') )",
    "SET LOCAL work_mem = '1MB'",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET transaction_read_only = on",
    "SELECT set_config('a.b', 'x', true)",
]


def words(sql: str, *, commits: bool = True) -> list[str]:
    """The objects and settings that *sql* leaves in the session, in words."""
    found = left(((None, change) for change in changes(sql.encode())), commits=commits)
    return [leaves.words for _, leaves in found]


@pytest.mark.parametrize(("sql", "expected"), LEAVES.items(), ids=LEAVES)
def test_object_left_in_the_session_is_found(sql: str, expected: str) -> None:
    assert words(sql) == [expected]


@pytest.mark.parametrize("sql", LEAVES_NOTHING)
def test_statement_that_leaves_nothing_is_not_reported(sql: str) -> None:
    assert words(sql) == []


def test_on_commit_drop_table_exists_until_the_commit() -> None:
    sql = "CREATE TEMP TABLE t () ON COMMIT DROP"
    assert words(sql, commits=False) == ["the temporary table t"]
