"""Changes to the schema of `full_schema`, each with the columns of the catalogs that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Change(NamedTuple):
    """A statement, and the statement that undoes it."""

    columns: str
    """The columns that show the change, separated by spaces."""
    do: str
    undo: str = ""
    """Empty if only ROLLBACK can undo the change."""
    since: int = 14
    """The first version of PostgreSQL that has the statement."""


_TS = "ALTER TEXT SEARCH"


def _on_database(statement: str) -> str:
    """The *statement* with the name of the database for ``%I``."""
    quoted = statement.replace("'", "''")
    return f"DO $$ BEGIN EXECUTE format('{quoted}', current_database()); END $$"


_DROP_TOUCHED = "DROP TRIGGER touched ON plain;"
_TOUCHED = """CREATE TRIGGER touched BEFORE UPDATE OF b ON plain FOR EACH ROW WHEN (NEW.a > 0)
    EXECUTE FUNCTION touch('x')"""

CHANGES = (
    Change(
        "pg_namespace.nspowner",
        'ALTER SCHEMA "My App" OWNER TO pg_monitor',
        'ALTER SCHEMA "My App" OWNER TO CURRENT_USER',
    ),
    Change(
        "pg_namespace.nspname",
        "ALTER SCHEMA other RENAME TO another",
        "ALTER SCHEMA another RENAME TO other",
    ),
    Change(
        "pg_namespace.nspacl",
        'GRANT USAGE ON SCHEMA "My App" TO pg_monitor',
        'REVOKE USAGE ON SCHEMA "My App" FROM pg_monitor',
    ),
    Change("pg_extension.extowner", "UPDATE pg_extension SET extowner = 'pg_monitor'::regrole"),
    Change("pg_extension.extversion", "UPDATE pg_extension SET extversion = '0.9'"),
    Change(
        "pg_extension.extnamespace", "UPDATE pg_extension SET extnamespace = 'other'::regnamespace"
    ),
    # Relations
    Change(
        "pg_class.relname",
        'ALTER TABLE "My App"."T.1" RENAME TO "T.2"',
        'ALTER TABLE "My App"."T.2" RENAME TO "T.1"',
    ),
    Change(
        "pg_class.relnamespace",
        "ALTER TABLE piled SET SCHEMA other",
        "ALTER TABLE other.piled SET SCHEMA public",
    ),
    Change(
        "pg_class.relowner",
        "ALTER VIEW w OWNER TO pg_monitor",
        "ALTER VIEW w OWNER TO CURRENT_USER",
    ),
    Change("pg_class.relkind", "CREATE TABLE more ()", "DROP TABLE more"),
    Change("pg_class.relkind", "DROP VIEW w", "CREATE VIEW w AS SELECT 1 AS one"),
    Change(
        "pg_class.relpersistence",
        "ALTER TABLE piled SET UNLOGGED",
        "ALTER TABLE piled SET LOGGED",
    ),
    Change(
        "pg_class.relpersistence",
        "ALTER SEQUENCE s SET UNLOGGED",
        "ALTER SEQUENCE s SET LOGGED",
        since=15,
    ),
    Change(
        "pg_class.relispopulated",
        "REFRESH MATERIALIZED VIEW mv WITH NO DATA",
        "REFRESH MATERIALIZED VIEW mv",
    ),
    Change(
        "pg_class.reloptions",
        "ALTER TABLE plain SET (autovacuum_enabled = off)",
        "ALTER TABLE plain RESET (autovacuum_enabled)",
    ),
    Change(
        "pg_class.reloptions",
        "ALTER INDEX quick_pkey RESET (fillfactor)",
        "ALTER INDEX quick_pkey SET (fillfactor = 60)",
    ),
    Change(
        "pg_class.reloptions",
        "ALTER VIEW w SET (security_barrier)",
        "ALTER VIEW w RESET (security_barrier)",
    ),
    Change(
        "pg_class.reltoastrelid",
        "ALTER TABLE plain SET (toast.autovacuum_enabled = off)",
        "ALTER TABLE plain RESET (toast.autovacuum_enabled)",
    ),
    Change(
        "pg_class.reltablespace",
        "UPDATE pg_class SET reltablespace = (SELECT oid FROM pg_tablespace"
        " WHERE spcname = 'pg_global') WHERE relname = 'v'",
    ),
    Change(
        "pg_class.relam",
        "CREATE TABLE more (a int) USING piles",
        "DROP TABLE more",
    ),
    Change(
        "pg_class.relreplident",
        "ALTER TABLE piled REPLICA IDENTITY NOTHING",
        "ALTER TABLE piled REPLICA IDENTITY DEFAULT",
    ),
    Change(
        "pg_class.relrowsecurity",
        "ALTER TABLE piled ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE piled DISABLE ROW LEVEL SECURITY",
    ),
    Change(
        "pg_class.relforcerowsecurity",
        "ALTER TABLE piled FORCE ROW LEVEL SECURITY",
        "ALTER TABLE piled NO FORCE ROW LEVEL SECURITY",
    ),
    Change("pg_class.reloftype", "ALTER TABLE typed NOT OF", "ALTER TABLE typed OF pair"),
    Change(
        "pg_class.relpartbound pg_class.relispartition pg_inherits.inhparent pg_inherits.inhrelid",
        "ALTER TABLE parted DETACH PARTITION parted_1",
        "ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (10)",
    ),
    Change(
        "pg_class.relpartbound",
        "ALTER TABLE parted DETACH PARTITION parted_1;"
        " ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (5)",
        "ALTER TABLE parted DETACH PARTITION parted_1;"
        " ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (10)",
    ),
    Change(
        "pg_class.relacl",
        "GRANT SELECT ON ancestor TO pg_monitor",
        "REVOKE SELECT ON ancestor FROM pg_monitor",
    ),
    Change(
        "pg_class.relacl",
        "GRANT USAGE ON SEQUENCE s TO pg_monitor",
        "REVOKE USAGE ON SEQUENCE s FROM pg_monitor",
    ),
    Change(
        "pg_class.relacl",
        "GRANT SELECT ON pg_catalog.pg_authid TO pg_monitor",
        "REVOKE SELECT ON pg_catalog.pg_authid FROM pg_monitor",
    ),
    Change(
        "pg_inherits.inhseqno pg_attribute.attinhcount pg_constraint.coninhcount",
        "ALTER TABLE child NO INHERIT ancestor; ALTER TABLE child INHERIT ancestor",
    ),
    Change(
        "pg_inherits.inhseqno",
        "UPDATE pg_inherits SET inhseqno = 3 WHERE inhrelid = 'child'::regclass AND inhseqno = 1",
    ),
    Change(
        "pg_inherits.inhdetachpending",
        "UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'parted_1'::regclass",
    ),
    Change(
        "pg_partitioned_table.partrelid",
        "UPDATE pg_partitioned_table SET partrelid = 'parted_1'::regclass"
        " WHERE partrelid = 'hashed'::regclass",
    ),
    Change(
        "pg_partitioned_table.partexprs",
        "DROP TABLE listed;"
        ' CREATE TABLE listed (a text COLLATE "C", b int) PARTITION BY LIST (upper(a))',
        "DROP TABLE listed;"
        ' CREATE TABLE listed (a text COLLATE "C", b int) PARTITION BY LIST (lower(a))',
    ),
    # Columns
    Change(
        "pg_attribute.attname",
        'ALTER TABLE "My App"."T.1" RENAME "a b" TO "a.b"',
        'ALTER TABLE "My App"."T.1" RENAME "a.b" TO "a b"',
    ),
    Change(
        "pg_attribute.attrelid pg_attribute.attisdropped",
        "ALTER TABLE piled ADD b int",
        "ALTER TABLE piled DROP b",
    ),
    Change(
        "pg_attribute.atttypid",
        "ALTER TABLE piled ALTER a TYPE bigint",
        "ALTER TABLE piled ALTER a TYPE int",
    ),
    Change(
        "pg_attribute.atttypmod",
        "ALTER TABLE quick ALTER note TYPE varchar(9)",
        "ALTER TABLE quick ALTER note TYPE text",
    ),
    Change(
        "pg_attribute.attcollation",
        'ALTER TABLE quick ALTER note TYPE text COLLATE "C"',
        "ALTER TABLE quick ALTER note TYPE text",
    ),
    Change(
        "pg_attribute.attnotnull",
        "ALTER TABLE piled ALTER a SET NOT NULL",
        "ALTER TABLE piled ALTER a DROP NOT NULL",
    ),
    Change(
        "pg_attribute.attislocal",
        "UPDATE pg_attribute SET attislocal = true"
        " WHERE attrelid = 'child'::regclass AND attname = 'kept'",
    ),
    Change(
        "pg_attribute.attinhcount",
        "UPDATE pg_attribute SET attinhcount = 5"
        " WHERE attrelid = 'child'::regclass AND attname = 'kept'",
    ),
    Change(
        "pg_attribute.attidentity",
        "ALTER TABLE plain ALTER d SET GENERATED ALWAYS",
        "ALTER TABLE plain ALTER d SET GENERATED BY DEFAULT",
    ),
    Change(
        "pg_attribute.attgenerated",
        'ALTER TABLE "My App"."T.1" ALTER twice DROP EXPRESSION',
    ),
    Change(
        "pg_attribute.attgenerated",
        "ALTER TABLE newest ADD virtual int GENERATED ALWAYS AS (a) VIRTUAL",
        "ALTER TABLE newest DROP virtual",
        since=18,
    ),
    Change(
        "pg_attribute.attstorage",
        "ALTER TABLE quick ALTER note SET STORAGE main",
        "ALTER TABLE quick ALTER note SET STORAGE extended",
    ),
    Change(
        "pg_attribute.attcompression",
        "ALTER TABLE quick ALTER note SET COMPRESSION pglz",
        "ALTER TABLE quick ALTER note SET COMPRESSION default",
    ),
    Change(
        "pg_attribute.attstattarget",
        "ALTER TABLE quick ALTER note SET STATISTICS 0",
        "ALTER TABLE quick ALTER note SET STATISTICS -1",
    ),
    Change(
        "pg_attribute.attstattarget",
        "ALTER INDEX plain_b ALTER COLUMN 1 SET STATISTICS -1",
        "ALTER INDEX plain_b ALTER COLUMN 1 SET STATISTICS 70",
    ),
    Change(
        "pg_attribute.attoptions",
        "ALTER TABLE quick ALTER note SET (n_distinct = 9)",
        "ALTER TABLE quick ALTER note RESET (n_distinct)",
    ),
    Change(
        "pg_attribute.attfdwoptions",
        "ALTER FOREIGN TABLE far ALTER a OPTIONS (SET name 'c')",
        "ALTER FOREIGN TABLE far ALTER a OPTIONS (SET name 'b')",
    ),
    Change(
        "pg_attribute.attacl",
        "GRANT SELECT (b) ON parted TO pg_monitor",
        "REVOKE SELECT (b) ON parted FROM pg_monitor",
    ),
    Change(
        "pg_attrdef.adbin pg_attrdef.adrelid pg_attrdef.adnum",
        "ALTER TABLE quick ALTER note SET DEFAULT 'y'",
        "ALTER TABLE quick ALTER note DROP DEFAULT",
    ),
    Change(
        "pg_attrdef.adbin",
        "ALTER VIEW v ALTER a SET DEFAULT 4",
        "ALTER VIEW v ALTER a SET DEFAULT 3",
    ),
    Change(
        "pg_attrdef.adnum",
        "UPDATE pg_attrdef SET adnum = 2 WHERE adrelid = 'v'::regclass",
    ),
    Change(
        "pg_attrdef.adrelid",
        "UPDATE pg_attrdef SET adrelid = 'w'::regclass WHERE adrelid = 'v'::regclass",
    ),
    Change(
        "pg_class.relkind",
        "CREATE TYPE pair_too AS (a int)",
        "DROP TYPE pair_too",
    ),
    Change(
        "pg_class.relkind",
        "CREATE OR REPLACE VIEW w AS SELECT 2 AS one",
        "CREATE OR REPLACE VIEW w AS SELECT 1 AS one",
    ),
    # Constraints
    Change(
        "pg_constraint.conname",
        "ALTER TABLE referring RENAME CONSTRAINT later TO soon",
        "ALTER TABLE referring RENAME CONSTRAINT soon TO later",
    ),
    Change(
        "pg_constraint.conname",
        "ALTER TABLE newest RENAME CONSTRAINT never_null TO not_null",
        "ALTER TABLE newest RENAME CONSTRAINT not_null TO never_null",
        since=18,
    ),
    Change(
        "pg_constraint.contypid",
        "ALTER DOMAIN code ADD CONSTRAINT filled CHECK (VALUE <> '')",
        "ALTER DOMAIN code DROP CONSTRAINT filled",
    ),
    Change(
        "pg_constraint.conbin",
        (
            "ALTER DOMAIN email DROP CONSTRAINT at; ALTER DOMAIN email ADD CONSTRAINT at"
            " CHECK (VALUE ~ '@@')"
        ),
        (
            "ALTER DOMAIN email DROP CONSTRAINT at; ALTER DOMAIN email ADD CONSTRAINT at"
            " CHECK (VALUE ~ '@')"
        ),
    ),
    Change(
        "pg_constraint.convalidated",
        "ALTER TABLE referring VALIDATE CONSTRAINT later",
        "ALTER TABLE referring DROP CONSTRAINT later, ADD CONSTRAINT later CHECK (d > 0) NOT VALID",
    ),
    Change(
        "pg_constraint.convalidated",
        "ALTER TABLE newest VALIDATE CONSTRAINT c_not_null",
        (
            "ALTER TABLE newest DROP CONSTRAINT c_not_null, ADD CONSTRAINT c_not_null NOT"
            " NULL c NOT VALID"
        ),
        since=18,
    ),
    Change(
        "pg_constraint.condeferrable pg_constraint.condeferred",
        "ALTER TABLE referring ALTER CONSTRAINT d_parted DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE referring ALTER CONSTRAINT d_parted NOT DEFERRABLE",
    ),
    Change(
        "pg_constraint.conenforced",
        (
            "ALTER TABLE newest DROP CONSTRAINT unchecked, ADD CONSTRAINT unchecked CHECK"
            " (c > 0) NOT VALID"
        ),
        (
            "ALTER TABLE newest DROP CONSTRAINT unchecked, ADD CONSTRAINT unchecked CHECK"
            " (c > 0) NOT ENFORCED"
        ),
        since=18,
    ),
    *(
        Change(
            f"pg_constraint.{column}",
            f"ALTER TABLE referring DROP CONSTRAINT d_parted, ADD CONSTRAINT d_parted {changed}",
            "ALTER TABLE referring DROP CONSTRAINT d_parted, ADD CONSTRAINT d_parted"
            " FOREIGN KEY (d) REFERENCES parted ON UPDATE SET NULL ON DELETE SET NULL;"
            " ALTER TABLE referring DISABLE TRIGGER ALL",
            since,
        )
        for column, changed, since in [
            (
                "confrelid",
                "FOREIGN KEY (d) REFERENCES target ON UPDATE SET NULL ON DELETE SET NULL",
                14,
            ),
            ("confupdtype", "FOREIGN KEY (d) REFERENCES parted ON DELETE SET NULL", 14),
            ("confdeltype", "FOREIGN KEY (d) REFERENCES parted ON UPDATE SET NULL", 14),
            (
                "confdelsetcols",
                "FOREIGN KEY (d) REFERENCES parted ON UPDATE SET NULL ON DELETE SET NULL (d)",
                15,
            ),
            (
                "confmatchtype",
                (
                    "FOREIGN KEY (d) REFERENCES parted MATCH FULL ON UPDATE SET NULL ON"
                    " DELETE SET NULL"
                ),
                14,
            ),
            (
                "conkey",
                "FOREIGN KEY (c) REFERENCES parted ON UPDATE SET NULL ON DELETE SET NULL",
                14,
            ),
            ("contype", "CHECK (d > 0)", 14),
        ]
    ),
    Change(
        "pg_constraint.confkey",
        "ALTER TABLE parted ADD UNIQUE (a, b); ALTER TABLE referring ADD CONSTRAINT ab"
        " FOREIGN KEY (c, d) REFERENCES parted (a, b)",
    ),
    Change(
        "pg_constraint.confkey",
        "UPDATE pg_constraint SET confkey = '{2}' WHERE conname = 'd_parted' AND conparentid = 0",
    ),
    Change(
        "pg_constraint.conexclop",
        "ALTER TABLE referring DROP CONSTRAINT apart, ADD CONSTRAINT apart"
        " EXCLUDE USING gist (int4range(a::int, b) WITH =)",
        "ALTER TABLE referring DROP CONSTRAINT apart, ADD CONSTRAINT apart"
        " EXCLUDE USING gist (int4range(a::int, b) WITH &&)",
    ),
    Change(
        "pg_constraint.connoinherit",
        "ALTER TABLE referring DROP CONSTRAINT c_check, ADD CONSTRAINT c_check CHECK (c > 0)",
        (
            "ALTER TABLE referring DROP CONSTRAINT c_check, ADD CONSTRAINT c_check CHECK"
            " (c > 0) NO INHERIT"
        ),
    ),
    Change(
        "pg_constraint.conrelid",
        "ALTER TABLE piled ADD CONSTRAINT piled_check CHECK (a > 0)",
        "ALTER TABLE piled DROP CONSTRAINT piled_check",
    ),
    Change(
        "pg_constraint.conislocal",
        "ALTER TABLE child ADD CONSTRAINT positive CHECK (id > 0)",
    ),
    Change(
        "pg_constraint.coninhcount",
        "UPDATE pg_constraint SET coninhcount = 4"
        " WHERE conrelid = 'child'::regclass AND conname = 'positive'",
    ),
    Change(
        "pg_constraint.conparentid",
        "UPDATE pg_constraint SET conparentid = oid WHERE conname = 'b_parted'",
    ),
    Change(
        "pg_constraint.conperiod",
        (
            "ALTER TABLE newest DROP CONSTRAINT temporal, ADD CONSTRAINT temporal UNIQUE"
            " (during, during2)"
        ),
        "ALTER TABLE newest DROP CONSTRAINT temporal,"
        " ADD CONSTRAINT temporal UNIQUE (during, during2 WITHOUT OVERLAPS)",
        since=18,
    ),
    # Indexes
    Change(
        "pg_index.indisclustered",
        "ALTER TABLE quick SET WITHOUT CLUSTER",
        "ALTER TABLE quick CLUSTER ON quick_pkey",
    ),
    Change(
        "pg_index.indisreplident",
        'ALTER TABLE "My App"."T.1" REPLICA IDENTITY DEFAULT',
        'ALTER TABLE "My App"."T.1" REPLICA IDENTITY USING INDEX identity',
    ),
    Change(
        "pg_index.indisvalid",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'plain_a'::regclass",
    ),
    *(
        Change(
            f"pg_index.{column}",
            f"DROP INDEX plain_a; CREATE {changed}",
            "DROP INDEX plain_a; CREATE INDEX plain_a ON plain (a) WHERE a > 0",
            since,
        )
        for column, changed, since in [
            ("indpred", "INDEX plain_a ON plain (a) WHERE a > 1", 14),
            ("indexprs", "INDEX plain_a ON plain ((a + 1)) WHERE a > 0", 14),
            ("indkey", "INDEX plain_a ON plain (c) WHERE a > 0", 14),
            ("indisunique", "UNIQUE INDEX plain_a ON plain (a) WHERE a > 0", 14),
            ("indoption", "INDEX plain_a ON plain (a DESC) WHERE a > 0", 14),
            ("indnkeyatts", "INDEX plain_a ON plain (a) INCLUDE (c) WHERE a > 0", 14),
            ("indclass", "INDEX plain_a ON plain (a class) WHERE a > 0", 14),
            ("indrelid", "INDEX plain_a ON piled (a) WHERE a > 0", 14),
        ]
    ),
    Change(
        "pg_index.indnullsnotdistinct",
        "DROP INDEX no_nulls; CREATE UNIQUE INDEX no_nulls ON plain (c)",
        "DROP INDEX no_nulls; CREATE UNIQUE INDEX no_nulls ON plain (c) NULLS NOT DISTINCT",
        since=15,
    ),
    Change(
        "pg_index.indcollation",
        "DROP INDEX plain_b; CREATE UNIQUE INDEX plain_b ON plain"
        ' (lower(b) COLLATE "POSIX" text_pattern_ops DESC) INCLUDE (a)',
    ),
    Change(
        "pg_index.indexrelid",
        "CREATE INDEX more ON plain (c)",
        "DROP INDEX more",
    ),
    # Sequences
    *(
        Change(
            f"pg_sequence.{column}", f"ALTER SEQUENCE s {changed}", f"ALTER SEQUENCE s {original}"
        )
        for column, changed, original in [
            ("seqtypid", "AS bigint", "AS int"),
            ("seqstart", "START 6", "START 5"),
            ("seqincrement", "INCREMENT 3", "INCREMENT 2"),
            ("seqmin", "MINVALUE 1", "MINVALUE 2"),
            ("seqmax", "MAXVALUE 98", "MAXVALUE 99"),
            ("seqcache", "CACHE 4", "CACHE 3"),
            ("seqcycle", "NO CYCLE", "CYCLE"),
        ]
    ),
    Change(
        "pg_sequence.seqrelid",
        "CREATE SEQUENCE more",
        "DROP SEQUENCE more",
    ),
    Change(
        "pg_depend.refobjid",
        "ALTER SEQUENCE owned OWNED BY target.a",
        "ALTER SEQUENCE owned OWNED BY plain.a",
    ),
    Change(
        "pg_depend.refobjsubid",
        "ALTER SEQUENCE owned OWNED BY plain.c",
        "ALTER SEQUENCE owned OWNED BY plain.a",
    ),
    Change(
        "pg_depend.refclassid pg_depend.objid pg_depend.classid pg_depend.deptype",
        "ALTER SEQUENCE owned OWNED BY NONE",
        "ALTER SEQUENCE owned OWNED BY plain.a",
    ),
    Change(
        "pg_depend.refobjid pg_depend.deptype",
        "ALTER FUNCTION one() DEPENDS ON EXTENSION plpgsql",
        "ALTER FUNCTION one() NO DEPENDS ON EXTENSION plpgsql",
    ),
    Change(
        "pg_depend.deptype",
        "ALTER EXTENSION plpgsql ADD FUNCTION one()",
        "ALTER EXTENSION plpgsql DROP FUNCTION one()",
    ),
    # Triggers, rules, policies
    Change(
        "pg_trigger.tgname",
        "ALTER TRIGGER touched ON plain RENAME TO touching",
        "ALTER TRIGGER touching ON plain RENAME TO touched",
    ),
    Change(
        "pg_trigger.tgenabled",
        "ALTER TABLE plain DISABLE TRIGGER touched",
        "ALTER TABLE plain ENABLE TRIGGER touched",
    ),
    Change(
        "pg_trigger.tgenabled",
        "ALTER TABLE referring ENABLE TRIGGER ALL",
        "ALTER TABLE referring DISABLE TRIGGER ALL",
    ),
    Change(
        "pg_trigger.tgenabled",
        "ALTER TABLE parted_1 DISABLE TRIGGER parted_touched",
        "ALTER TABLE parted_1 ENABLE TRIGGER parted_touched",
    ),
    *(
        Change(
            f"pg_trigger.{column}",
            f"{_DROP_TOUCHED} {_TOUCHED.replace(original, changed)}",
            f"{_DROP_TOUCHED} {_TOUCHED}",
        )
        for column, original, changed in [
            ("tgqual", "NEW.a > 0", "NEW.a > 1"),
            ("tgtype", "BEFORE", "AFTER"),
            ("tgattr", "OF b", "OF a"),
            ("tgargs", "'x'", "'y'"),
            ("tgfoid", "touch(", "touch_too("),
        ]
    ),
    Change(
        "pg_rewrite.ev_enabled",
        "ALTER TABLE plain DISABLE RULE forget",
        "ALTER TABLE plain ENABLE RULE forget",
    ),
    Change(
        "pg_rewrite.ev_qual",
        "CREATE OR REPLACE RULE forget AS ON DELETE TO plain WHERE OLD.a > 1 DO INSTEAD NOTHING",
        "CREATE OR REPLACE RULE forget AS ON DELETE TO plain WHERE OLD.a > 0 DO INSTEAD NOTHING",
    ),
    Change(
        "pg_rewrite.ev_action",
        "CREATE OR REPLACE RULE notice AS ON INSERT TO plain DO ALSO NOTIFY other",
        "CREATE OR REPLACE RULE notice AS ON INSERT TO plain DO ALSO NOTIFY plain",
    ),
    Change(
        "pg_rewrite.is_instead",
        "CREATE OR REPLACE RULE notice AS ON INSERT TO plain DO INSTEAD NOTIFY plain",
        "CREATE OR REPLACE RULE notice AS ON INSERT TO plain DO ALSO NOTIFY plain",
    ),
    Change(
        "pg_policy.polqual",
        "ALTER POLICY own ON plain USING (a > 3)",
        "ALTER POLICY own ON plain USING (a > 0)",
    ),
    Change(
        "pg_policy.polwithcheck",
        "ALTER POLICY all_of_it ON plain WITH CHECK (a > 4)",
        "ALTER POLICY all_of_it ON plain WITH CHECK (a > 2)",
    ),
    Change(
        "pg_policy.polroles",
        "ALTER POLICY own ON plain TO PUBLIC",
        "ALTER POLICY own ON plain TO pg_monitor",
    ),
    Change(
        "pg_policy.polrelid",
        "CREATE POLICY own ON quick",
        "DROP POLICY own ON quick",
    ),
    # Statistics
    Change(
        "pg_statistic_ext.stxstattarget",
        "ALTER STATISTICS a_b SET STATISTICS 80",
        "ALTER STATISTICS a_b SET STATISTICS 90",
    ),
    Change(
        "pg_statistic_ext.stxkind",
        "DROP STATISTICS a_b; CREATE STATISTICS a_b (mcv) ON a, c FROM plain;"
        " ALTER STATISTICS a_b SET STATISTICS 90",
        "DROP STATISTICS a_b; CREATE STATISTICS a_b ON a, c FROM plain;"
        " ALTER STATISTICS a_b SET STATISTICS 90",
    ),
    Change(
        "pg_statistic_ext.stxexprs",
        "DROP STATISTICS other.of_expression;"
        " CREATE STATISTICS other.of_expression (ndistinct) ON a, (a + 2) FROM plain;"
        " ALTER STATISTICS other.of_expression OWNER TO pg_monitor",
        "DROP STATISTICS other.of_expression;"
        " CREATE STATISTICS other.of_expression (ndistinct) ON a, (a + 1) FROM plain;"
        " ALTER STATISTICS other.of_expression OWNER TO pg_monitor",
    ),
    Change(
        "pg_statistic_ext.stxrelid",
        "DROP STATISTICS a_b; CREATE STATISTICS a_b ON a, b FROM parted;"
        " ALTER STATISTICS a_b SET STATISTICS 90",
    ),
    # Types
    Change(
        "pg_enum.enumlabel",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'down'",
        "ALTER TYPE mood RENAME VALUE 'down' TO 'sad'",
    ),
    Change("pg_enum.enumtypid", "ALTER TYPE mood ADD VALUE 'calm' BEFORE 'glad'"),
    Change(
        "pg_enum.enumsortorder",
        "UPDATE pg_enum SET enumsortorder = 9 WHERE enumlabel = 'sad'",
    ),
    Change(
        "pg_type.typnotnull", "ALTER DOMAIN code SET NOT NULL", "ALTER DOMAIN code DROP NOT NULL"
    ),
    Change(
        "pg_type.typdefaultbin pg_type.typdefault",
        "ALTER DOMAIN code SET DEFAULT 'x'",
        "ALTER DOMAIN code DROP DEFAULT",
    ),
    Change(
        "pg_type.typdefaultbin",
        "UPDATE pg_type SET typdefaultbin = NULL WHERE typname = 'email'",
    ),
    Change(
        "pg_type.typdefault",
        "UPDATE pg_type SET typdefault = '6' WHERE typname = 'crate'",
    ),
    Change(
        "pg_type.typnamespace",
        "ALTER DOMAIN amount SET SCHEMA other",
        "ALTER DOMAIN other.amount SET SCHEMA public",
    ),
    Change(
        "pg_type.typacl",
        "GRANT USAGE ON TYPE span TO pg_monitor",
        "REVOKE USAGE ON TYPE span FROM pg_monitor",
    ),
    Change(
        "pg_type.typstorage",
        "ALTER TYPE cord SET (storage = main)",
        "ALTER TYPE cord SET (storage = extended)",
    ),
    Change(
        "pg_type.typsend",
        "ALTER TYPE crate SET (send = NONE)",
        "ALTER TYPE crate SET (send = crate_send)",
    ),
    Change("pg_type.typalign", "UPDATE pg_type SET typalign = 'd' WHERE typname = 'cord'"),
    Change("pg_type.typcategory", "UPDATE pg_type SET typcategory = 'X' WHERE typname = 'cord'"),
    Change("pg_type.typdelim", "UPDATE pg_type SET typdelim = '!' WHERE typname = 'cord'"),
    Change("pg_type.typelem", "UPDATE pg_type SET typelem = 'int'::regtype WHERE typname = 'cord'"),
    Change(
        "pg_range.rngtypid",
        "CREATE TYPE more AS RANGE (subtype = date)",
        "DROP TYPE more",
    ),
    Change(
        "pg_range.rngmultitypid",
        "ALTER TYPE span_multirange RENAME TO spans",
        "ALTER TYPE spans RENAME TO span_multirange",
    ),
    Change(
        "pg_range.rngcanonical",
        "UPDATE pg_range SET rngcanonical = 'int4range_canonical'::regproc"
        " WHERE rngtypid = 'span'::regtype",
    ),
    # Routines
    Change(
        "pg_proc.prosrc",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    ),
    Change(
        "pg_proc.prosqlbody",
        "CREATE OR REPLACE PROCEDURE three(INOUT a int) LANGUAGE sql BEGIN ATOMIC SELECT 2; END",
        "CREATE OR REPLACE PROCEDURE three(INOUT a int) LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
    ),
    Change(
        "pg_proc.proargdefaults",
        "CREATE OR REPLACE FUNCTION two(a int DEFAULT 3, VARIADIC b text[] DEFAULT '{}')"
        " RETURNS SETOF int LANGUAGE plpgsql SET work_mem = '1MB' AS 'BEGIN END'",
        "CREATE OR REPLACE FUNCTION two(a int DEFAULT 2, VARIADIC b text[] DEFAULT '{}')"
        " RETURNS SETOF int LANGUAGE plpgsql SET work_mem = '1MB' AS 'BEGIN END'",
    ),
    Change(
        "pg_proc.pronamespace",
        "ALTER FUNCTION one() SET SCHEMA other",
        "ALTER FUNCTION other.one() SET SCHEMA public",
    ),
    Change(
        "pg_proc.prosecdef",
        "ALTER FUNCTION one() SECURITY DEFINER",
        "ALTER FUNCTION one() SECURITY INVOKER",
    ),
    Change("pg_proc.procost", "ALTER FUNCTION one() COST 7", "ALTER FUNCTION one() COST 100"),
    Change(
        "pg_proc.proconfig",
        "ALTER FUNCTION one() SET search_path = public",
        "ALTER FUNCTION one() RESET search_path",
    ),
    Change(
        "pg_proc.proacl",
        "GRANT EXECUTE ON FUNCTION one() TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION one() FROM PUBLIC",
    ),
    Change(
        "pg_proc.proacl",
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO pg_monitor",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) FROM pg_monitor",
    ),
    Change(
        "pg_proc.prosupport",
        "UPDATE pg_proc SET prosupport = 'textlike_support'::regproc WHERE proname = 'one'",
    ),
    Change(
        "pg_proc.protrftypes",
        "UPDATE pg_proc SET protrftypes = ARRAY['mood'::regtype::oid] WHERE proname = 'one'",
    ),
    Change(
        "pg_proc.prokind pg_aggregate.aggfnoid",
        "DROP AGGREGATE smallest(int)",
        "CREATE AGGREGATE smallest(int) (sfunc = int4smaller, stype = int, sortop = <)",
    ),
    Change(
        "pg_aggregate.aggtransfn",
        "CREATE OR REPLACE AGGREGATE smallest(int) (sfunc = int4larger, stype = int, sortop = <)",
        "CREATE OR REPLACE AGGREGATE smallest(int) (sfunc = int4smaller, stype = int, sortop = <)",
    ),
    # Publications and subscriptions
    Change(
        "pg_publication.pubowner",
        "ALTER PUBLICATION changes OWNER TO pg_monitor",
        "ALTER PUBLICATION changes OWNER TO CURRENT_USER",
    ),
    Change(
        "pg_publication.pubtruncate",
        "ALTER PUBLICATION changes SET (publish = 'insert, truncate')",
        "ALTER PUBLICATION changes SET (publish = 'insert')",
    ),
    Change(
        "pg_publication.pubviaroot",
        "ALTER PUBLICATION changes SET (publish_via_partition_root)",
        "ALTER PUBLICATION changes SET (publish_via_partition_root = false)",
    ),
    Change(
        "pg_publication.pubgencols",
        "ALTER PUBLICATION generated SET (publish_generated_columns = none)",
        "ALTER PUBLICATION generated SET (publish_generated_columns = stored)",
        since=18,
    ),
    Change(
        "pg_publication_rel.prrelid pg_publication_rel.prpubid",
        "ALTER PUBLICATION changes ADD TABLE plain",
        "ALTER PUBLICATION changes DROP TABLE plain",
    ),
    Change(
        "pg_publication_rel.prqual",
        "ALTER PUBLICATION part SET TABLE plain (a, b) WHERE (a > 1), ancestor",
        "ALTER PUBLICATION part SET TABLE plain (a, b) WHERE (a > 0), ancestor",
        since=15,
    ),
    Change(
        "pg_publication_rel.prattrs",
        "ALTER PUBLICATION part SET TABLE plain (a) WHERE (a > 0), ancestor",
        "ALTER PUBLICATION part SET TABLE plain (a, b) WHERE (a > 0), ancestor",
        since=15,
    ),
    Change(
        "pg_publication_namespace.pnnspid",
        "ALTER PUBLICATION of_schema SET TABLES IN SCHEMA public",
        "ALTER PUBLICATION of_schema SET TABLES IN SCHEMA other",
        since=15,
    ),
    Change(
        "pg_publication_namespace.pnpubid",
        "ALTER PUBLICATION changes ADD TABLES IN SCHEMA other",
        "ALTER PUBLICATION changes DROP TABLES IN SCHEMA other",
        since=15,
    ),
    Change(
        "pg_subscription.subconninfo",
        "ALTER SUBSCRIPTION follows CONNECTION 'host=nowhere password=tell-nobody-too'",
        "ALTER SUBSCRIPTION follows CONNECTION 'host=nowhere password=tell-nobody'",
    ),
    Change(
        "pg_subscription.subsynccommit",
        "ALTER SUBSCRIPTION follows SET (synchronous_commit = local)",
        "ALTER SUBSCRIPTION follows SET (synchronous_commit = off)",
    ),
    Change(
        "pg_subscription.subowner",
        "UPDATE pg_subscription SET subowner = 'pg_monitor'::regrole WHERE subname = 'follows'",
    ),
    Change(
        "pg_subscription.subdbid",
        "UPDATE pg_subscription SET subdbid = 1 WHERE subname = 'follows'",
    ),
    # Foreign data
    Change(
        "pg_foreign_data_wrapper.fdwvalidator",
        "ALTER FOREIGN DATA WRAPPER wrapper NO VALIDATOR",
        "ALTER FOREIGN DATA WRAPPER wrapper VALIDATOR postgresql_fdw_validator",
    ),
    Change(
        "pg_foreign_data_wrapper.fdwhandler",
        "UPDATE pg_foreign_data_wrapper SET fdwhandler = 'one'::regproc WHERE fdwname = 'wrapper'",
    ),
    Change(
        "pg_foreign_data_wrapper.fdwowner",
        "UPDATE pg_foreign_data_wrapper SET fdwowner = 'pg_monitor'::regrole"
        " WHERE fdwname = 'wrapper'",
    ),
    Change(
        "pg_foreign_data_wrapper.fdwacl",
        "GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO PUBLIC",
        "REVOKE USAGE ON FOREIGN DATA WRAPPER wrapper FROM PUBLIC",
    ),
    Change(
        "pg_foreign_server.srvoptions",
        "ALTER SERVER remote OPTIONS (SET host 'i')",
        "ALTER SERVER remote OPTIONS (SET host 'h')",
    ),
    Change(
        "pg_foreign_server.srvowner",
        "ALTER SERVER remote_too OWNER TO pg_monitor",
        "ALTER SERVER remote_too OWNER TO CURRENT_USER",
    ),
    Change(
        "pg_foreign_server.srvacl",
        "GRANT USAGE ON FOREIGN SERVER remote_too TO pg_monitor",
        "REVOKE USAGE ON FOREIGN SERVER remote_too FROM pg_monitor",
    ),
    Change(
        "pg_foreign_server.srvversion",
        "ALTER SERVER remote VERSION '2'",
        "ALTER SERVER remote VERSION '1'",
    ),
    Change(
        "pg_foreign_table.ftoptions",
        """ALTER FOREIGN TABLE far OPTIONS (SET "table" 'y')""",
        """ALTER FOREIGN TABLE far OPTIONS (SET "table" 'x')""",
    ),
    Change(
        "pg_foreign_table.ftrelid",
        "CREATE FOREIGN TABLE more () SERVER remote",
        "DROP FOREIGN TABLE more",
    ),
    Change(
        "pg_user_mapping.umoptions",
        "ALTER USER MAPPING FOR PUBLIC SERVER remote_too OPTIONS (SET password 'tell-nobody-too')",
        "ALTER USER MAPPING FOR PUBLIC SERVER remote_too OPTIONS (SET password 'tell-nobody')",
    ),
    Change(
        "pg_user_mapping.umuser pg_user_mapping.umserver",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER remote",
        "DROP USER MAPPING FOR CURRENT_USER SERVER remote",
    ),
    # Privileges
    Change(
        "pg_default_acl.defaclacl pg_default_acl.defaclobjtype",
        "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO pg_monitor",
        "ALTER DEFAULT PRIVILEGES REVOKE USAGE ON SEQUENCES FROM pg_monitor",
    ),
    Change(
        "pg_default_acl.defaclrole",
        "ALTER DEFAULT PRIVILEGES FOR ROLE pg_monitor GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE pg_monitor REVOKE SELECT ON TABLES FROM PUBLIC",
    ),
    Change(
        "pg_language.lanacl",
        "GRANT USAGE ON LANGUAGE my_trusted TO pg_monitor",
        "REVOKE USAGE ON LANGUAGE my_trusted FROM pg_monitor",
    ),
    Change(
        "pg_language.lanacl",
        "REVOKE USAGE ON LANGUAGE plpgsql FROM pg_monitor",  # which belongs to an extension
        "GRANT USAGE ON LANGUAGE plpgsql TO pg_monitor",
    ),
    Change(
        "pg_language.lanowner",
        "ALTER LANGUAGE my_pl OWNER TO pg_monitor",
        "ALTER LANGUAGE my_pl OWNER TO CURRENT_USER",
    ),
    Change(
        "pg_language.lanplcallfoid",
        "UPDATE pg_language SET lanplcallfoid = 'one'::regproc WHERE lanname = 'my_pl'",
    ),
    # Operators, and objects for indexes and types
    Change(
        "pg_operator.oprrest",
        "ALTER OPERATOR === (text, text) SET (restrict = NONE)",
        "ALTER OPERATOR === (text, text) SET (restrict = eqsel)",
    ),
    Change(
        "pg_operator.oprjoin",
        "ALTER OPERATOR === (text, text) SET (join = NONE)",
        "ALTER OPERATOR === (text, text) SET (join = eqjoinsel)",
    ),
    Change(
        "pg_operator.oprowner",
        "ALTER OPERATOR === (text, text) OWNER TO pg_monitor",
        "ALTER OPERATOR === (text, text) OWNER TO CURRENT_USER",
    ),
    Change(
        "pg_operator.oprcode",
        "UPDATE pg_operator SET oprcode = 'textne'::regproc"
        " WHERE oprname = '===' AND oprleft = 'text'::regtype",
    ),
    Change(
        "pg_operator.oprresult",
        "UPDATE pg_operator SET oprresult = 'int'::regtype"
        " WHERE oprname = '===' AND oprleft = 'text'::regtype",
    ),
    Change(
        "pg_operator.oprnamespace",
        'ALTER OPERATOR other.=== (int, int) SET SCHEMA "My App"',
        'ALTER OPERATOR "My App".=== (int, int) SET SCHEMA other',
    ),
    Change(
        "pg_opfamily.opfnamespace",
        "ALTER OPERATOR FAMILY family_too USING btree SET SCHEMA other",
        "ALTER OPERATOR FAMILY other.family_too USING btree SET SCHEMA public",
    ),
    Change(
        "pg_opclass.opcnamespace",
        "ALTER OPERATOR CLASS class USING btree SET SCHEMA other",
        "ALTER OPERATOR CLASS other.class USING btree SET SCHEMA public",
    ),
    Change(
        "pg_amop.amopopr",
        "ALTER OPERATOR FAMILY family_too USING btree ADD OPERATOR 3 = (text, text)",
        "ALTER OPERATOR FAMILY family_too USING btree DROP OPERATOR 3 (text, text)",
    ),
    Change(
        "pg_amproc.amproc",
        (
            "ALTER OPERATOR FAMILY family USING btree ADD FUNCTION 1 (int, bigint)"
            " btint48cmp(int, bigint)"
        ),
        "ALTER OPERATOR FAMILY family USING btree DROP FUNCTION 1 (int, bigint)",
    ),
    Change(
        "pg_am.amname",
        "DROP ACCESS METHOD trees",
        "CREATE ACCESS METHOD trees TYPE INDEX HANDLER bthandler",
    ),
    Change(
        "pg_cast.castcontext",
        "DROP CAST (mood AS xml); CREATE CAST (mood AS xml) WITH INOUT AS IMPLICIT",
        "DROP CAST (mood AS xml); CREATE CAST (mood AS xml) WITH INOUT AS ASSIGNMENT",
    ),
    Change(
        "pg_collation.collnamespace",
        "ALTER COLLATION plain_c SET SCHEMA other",
        "ALTER COLLATION other.plain_c SET SCHEMA public",
    ),
    Change(
        "pg_collation.collversion",
        "UPDATE pg_collation SET collversion = '1' WHERE collname = 'plain_c'",
    ),
    Change(
        "pg_conversion.condefault",
        "DROP CONVERSION to_utf8; CREATE DEFAULT CONVERSION to_utf8 FOR 'LATIN1' TO 'UTF8'"
        " FROM iso8859_1_to_utf8; ALTER CONVERSION to_utf8 OWNER TO pg_monitor",
        "DROP CONVERSION to_utf8; CREATE CONVERSION to_utf8 FOR 'LATIN1' TO 'UTF8'"
        " FROM iso8859_1_to_utf8; ALTER CONVERSION to_utf8 OWNER TO pg_monitor",
    ),
    Change(
        "pg_transform.trftype pg_transform.trflang",
        (
            "CREATE TRANSFORM FOR pair LANGUAGE my_trusted (FROM SQL WITH FUNCTION"
            " from_pair(internal))"
        ),
        "DROP TRANSFORM FOR pair LANGUAGE my_trusted",
    ),
    *(
        Change(
            f"pg_transform.{column}",
            f"CREATE OR REPLACE TRANSFORM FOR pair LANGUAGE my_pl ({part})",
            "CREATE OR REPLACE TRANSFORM FOR pair LANGUAGE my_pl ("
            "FROM SQL WITH FUNCTION from_pair(internal), TO SQL WITH FUNCTION into_pair(internal))",
        )
        for column, part in [
            ("trftosql", "FROM SQL WITH FUNCTION from_pair(internal)"),
            ("trffromsql", "TO SQL WITH FUNCTION into_pair(internal)"),
        ]
    ),
    Change(
        "pg_event_trigger.evtenabled",
        "ALTER EVENT TRIGGER watching ENABLE REPLICA",
        "ALTER EVENT TRIGGER watching DISABLE",
    ),
    Change(
        "pg_event_trigger.evtowner",
        "UPDATE pg_event_trigger SET evtowner = 'pg_monitor'::regrole WHERE evtname = 'watching'",
    ),
    # Text search
    Change(
        "pg_ts_config_map.mapdict",
        f"{_TS} CONFIGURATION search ALTER MAPPING FOR email WITH english_stem",
        f"{_TS} CONFIGURATION search ALTER MAPPING FOR email WITH simple",
    ),
    Change(
        "pg_ts_config_map.maptokentype",
        f"{_TS} CONFIGURATION search DROP MAPPING FOR url",
        f"{_TS} CONFIGURATION search ADD MAPPING FOR url WITH simple",
    ),
    Change(
        "pg_ts_config_map.mapseqno",
        f"{_TS} CONFIGURATION search ALTER MAPPING FOR word WITH english_stem, dictionary",
        f"{_TS} CONFIGURATION search ALTER MAPPING FOR word WITH dictionary, english_stem",
    ),
    Change(
        "pg_ts_config_map.mapcfg",
        f"{_TS} CONFIGURATION search_too ADD MAPPING FOR word WITH simple",
        f"{_TS} CONFIGURATION search_too DROP MAPPING FOR word",
    ),
    Change(
        "pg_ts_config.cfgnamespace",
        f"{_TS} CONFIGURATION search_too SET SCHEMA other",
        f"{_TS} CONFIGURATION other.search_too SET SCHEMA public",
    ),
    Change(
        "pg_ts_dict.dictinitoption",
        f"{_TS} DICTIONARY dictionary (accept = false)",
        f"{_TS} DICTIONARY dictionary (accept)",
    ),
    Change(
        "pg_ts_dict.dictnamespace",
        f"{_TS} DICTIONARY dictionary_too SET SCHEMA other",
        f"{_TS} DICTIONARY other.dictionary_too SET SCHEMA public",
    ),
    Change(
        "pg_ts_parser.prsnamespace",
        f"{_TS} PARSER parser SET SCHEMA other",
        f"{_TS} PARSER other.parser SET SCHEMA public",
    ),
    Change(
        "pg_ts_template.tmplnamespace",
        f"{_TS} TEMPLATE template SET SCHEMA other",
        f"{_TS} TEMPLATE other.template SET SCHEMA public",
    ),
    # The database
    Change(
        "pg_database.datdba",
        "UPDATE pg_database SET datdba = 'pg_monitor'::regrole WHERE datname = current_database()",
    ),
    Change(
        "pg_database.datacl",
        _on_database("GRANT CREATE ON DATABASE %I TO pg_monitor"),
        _on_database("REVOKE CREATE ON DATABASE %I FROM pg_monitor"),
    ),
    Change(
        "pg_database.datconnlimit",
        _on_database("ALTER DATABASE %I CONNECTION LIMIT 5"),
        _on_database("ALTER DATABASE %I CONNECTION LIMIT -1"),
    ),
    Change(
        "pg_db_role_setting.setconfig",
        _on_database("ALTER DATABASE %I SET work_mem = '7MB'"),
        _on_database("ALTER DATABASE %I SET work_mem = '8MB'"),
    ),
    Change(
        "pg_db_role_setting.setrole pg_db_role_setting.setdatabase",
        _on_database("ALTER ROLE CURRENT_USER IN DATABASE %I RESET ALL"),
        _on_database("ALTER ROLE CURRENT_USER IN DATABASE %I SET work_mem = '9MB'"),
    ),
    Change(
        "pg_shdescription.description",
        _on_database("COMMENT ON DATABASE %I IS 'more'"),
        _on_database("COMMENT ON DATABASE %I IS 'about it'"),
    ),
    Change(
        "pg_shdescription.objoid pg_shdescription.classoid",
        _on_database("COMMENT ON DATABASE %I IS NULL"),
        _on_database("COMMENT ON DATABASE %I IS 'about it'"),
    ),
    Change(
        "pg_description.description",
        "COMMENT ON COLUMN plain.a IS 'the second'",
        "COMMENT ON COLUMN plain.a IS 'the first'",
    ),
    Change(
        "pg_description.objoid pg_description.classoid pg_description.objsubid",
        "COMMENT ON CONSTRAINT later ON referring IS 'x'",
        "COMMENT ON CONSTRAINT later ON referring IS NULL",
    ),
    # No provider of security labels is available here.
    Change(
        "pg_seclabel.label pg_seclabel.provider pg_seclabel.objoid pg_seclabel.classoid"
        " pg_seclabel.objsubid",
        (
            "INSERT INTO pg_seclabel VALUES ('plain'::regclass, 'pg_class'::regclass, 1,"
            " 'p', 'secret')"
        ),
    ),
    Change(
        "pg_shseclabel.label pg_shseclabel.provider pg_shseclabel.objoid pg_shseclabel.classoid",
        "INSERT INTO pg_shseclabel SELECT oid, 'pg_database'::regclass, 'p', 'secret'"
        " FROM pg_database WHERE datname = current_database()",
    ),
)


class Row(NamedTuple):
    """A row of a catalog, to change columns that no statement changes separately."""

    object: str
    """The name of the object in a snapshot."""
    catalog: str
    where: str
    """SQL condition for the row."""
    values: Mapping[str, str]
    """A different value, as SQL, for each of some columns."""


ROWS = (
    Row(
        "aggregate public.total(integer)",
        "pg_aggregate",
        "aggfnoid = 'total'::regproc",
        {
            "aggtranstype": "'bigint'::regtype",
            "aggtransspace": "4",
            "agginitval": "'7'",
            "aggfinalfn": "'int4um'::regproc",
            "aggfinalextra": "true",
            "aggfinalmodify": "'w'",
            "aggcombinefn": "'int4mi'::regproc",
            "aggserialfn": "'int4um'::regproc",
            "aggdeserialfn": "'int4um'::regproc",
            "aggmtransfn": "'int4mi'::regproc",
            "aggminvtransfn": "'int4pl'::regproc",
            "aggmtranstype": "'bigint'::regtype",
            "aggmtransspace": "5",
            "aggminitval": "'8'",
            "aggmfinalfn": "'int4um'::regproc",
            "aggmfinalextra": "true",
            "aggmfinalmodify": "'w'",
            "aggsortop": "'<(int,int)'::regoperator",
            "aggkind": "'h'",
            "aggnumdirectargs": "1",
        },
    ),
    Row(
        "function public.two(integer,pg_catalog.text[])",
        "pg_proc",
        "proname = 'two'",
        {
            "proowner": "10",
            "proname": "'three_'",
            "prolang": "(SELECT oid FROM pg_language WHERE lanname = 'sql')",
            "prorows": "7",
            "proleakproof": "true",
            "proisstrict": "true",
            "provolatile": "'i'",
            "proparallel": "'s'",
            "prorettype": "'text'::regtype",
            "proretset": "false",
            "proargnames": "'{c,d}'",
            "proargmodes": "'{i,i}'",
            "probin": "'library'",
            "proargtypes": "'23 25'",
            "proallargtypes": "'{23,25}'",
        },
    ),
    Row(
        "aggregate public.summed(bigint)",
        "pg_proc",
        "proname = 'summed'",
        {"proparallel": "'s'", "prorettype": "'text'::regtype", "proargnames": "'{c}'"},
    ),
    Row(
        "access method piles",
        "pg_am",
        "amname = 'piles'",
        {"amhandler": "'bthandler'::regproc", "amtype": "'i'"},
    ),
    Row(
        "operator 3 (integer, integer) of public.family USING btree",
        "pg_amop",
        "amopstrategy = 3 AND amopfamily ="
        " (SELECT oid FROM pg_opfamily WHERE opfname = 'family' AND opfmethod = 403)",
        {
            "amopfamily": "(SELECT oid FROM pg_opfamily WHERE opfname = 'family_too')",
            "amoplefttype": "'text'::regtype",
            "amoprighttype": "'text'::regtype",
            "amopstrategy": "9",
            "amopsortfamily": "(SELECT oid FROM pg_opfamily WHERE opfname = 'family_too')",
        },
    ),
    Row(
        "operator 15 (pg_catalog.box, pg_catalog.point) of public.distance USING gist",
        "pg_amop",
        (
            "amopstrategy = 15 AND amopfamily = (SELECT oid FROM pg_opfamily WHERE"
            " opfname = 'distance')"
        ),
        {"amoppurpose": "'s'"},
    ),
    Row(
        "function 1 (integer, integer) of public.family USING btree",
        "pg_amproc",
        "amprocnum = 1 AND amprocfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'family')",
        {
            "amprocfamily": "(SELECT oid FROM pg_opfamily WHERE opfname = 'family_too')",
            "amproclefttype": "'text'::regtype",
            "amprocrighttype": "'text'::regtype",
            "amprocnum": "2",
        },
    ),
    Row(
        "cast (integer AS public.pair)",
        "pg_cast",
        "casttarget = 'pair'::regtype",
        {
            "castfunc": "'one'::regproc",
            "castmethod": "'i'",
            "castsource": "'text'::regtype",
            "casttarget": "'mood'::regtype",
        },
    ),
    Row(
        "collation public.plain_c",
        "pg_collation",
        "collname = 'plain_c'",
        {
            "collowner": "'pg_monitor'::regrole",
            "collname": "'plain_d'",
            "collprovider": "'i'",
            "collcollate": "'POSIX'",
            "collctype": "'POSIX'",
            "collisdeterministic": "false",
            "colliculocale": "'de'",
            "collicurules": "'& a < b'",
            "colllocale": "'de'",
        },
    ),
    Row(
        "conversion public.to_utf8",
        "pg_conversion",
        "conname = 'to_utf8'",
        {
            "conname": "'to_unicode'",
            "connamespace": "'other'::regnamespace",
            "conowner": "10",
            "conforencoding": "9",
            "contoencoding": "9",
            "conproc": "'one'::regproc",
        },
    ),
    Row(
        "the database",
        "pg_database",
        "datname = current_database()",
        {"datallowconn": "false", "datcollversion": "'x'", "datistemplate": "true"},
    ),
    Row(
        "default acl for role postgres in schema other on functions",
        "pg_default_acl",
        "defaclnamespace <> 0",
        {"defaclnamespace": "'public'::regnamespace", "defaclobjtype": "'T'"},
    ),
    Row(
        "event trigger dropped",
        "pg_event_trigger",
        "evtname = 'dropped'",
        {
            "evtname": "'undropped'",
            "evtevent": "'table_rewrite'",
            "evtfoid": "'watch'::regproc",
            "evttags": "'{DROP TABLE}'",
        },
    ),
    Row("extension plpgsql", "pg_extension", "true", {"extname": "'plsql'"}),
    Row(
        "foreign-data wrapper wrapper",
        "pg_foreign_data_wrapper",
        "fdwname = 'wrapper'",
        {"fdwname": "'packing'", "fdwoptions": "'{a=b}'"},
    ),
    Row(
        "server remote",
        "pg_foreign_server",
        "srvname = 'remote'",
        {
            "srvname": "'distant'",
            "srvfdw": "(SELECT oid FROM pg_foreign_data_wrapper WHERE fdwname = 'wrapper_too')",
            "srvtype": "'y'",
        },
    ),
    Row(
        "foreign table public.farther",
        "pg_foreign_table",
        "ftrelid = 'farther'::regclass",
        {"ftserver": "(SELECT oid FROM pg_foreign_server WHERE srvname = 'remote_too')"},
    ),
    Row(
        "language my_trusted",
        "pg_language",
        "lanname = 'my_trusted'",
        {"lanname": "'my'", "lanpltrusted": "false", "laninline": "0", "lanvalidator": "0"},
    ),
    Row(
        "operator class public.points USING gist",
        "pg_opclass",
        "opcname = 'points'",
        {
            "opcname": "'dots'",
            "opcmethod": "405",
            "opcowner": "'pg_monitor'::regrole",
            "opcdefault": "true",
            "opcintype": "'box'::regtype",
            "opckeytype": "0",
            "opcfamily": "(SELECT oid FROM pg_opfamily WHERE opfname = 'family')",
        },
    ),
    Row(
        "operator family public.family_too USING btree",
        "pg_opfamily",
        "opfname = 'family_too'",
        {"opfname": "'kin'", "opfmethod": "405", "opfowner": "10"},
    ),
    Row(
        "operator public.===(pg_catalog.text,pg_catalog.text)",
        "pg_operator",
        "oprname = '===' AND oprleft = 'text'::regtype",
        {
            "oprname": "'===='",
            "oprleft": "'xml'::regtype",
            "oprright": "'xml'::regtype",
            "oprcanhash": "false",
            "oprcanmerge": "false",
            "oprcom": "0",
            "oprnegate": "0",
        },
    ),
    Row(
        "table public.parted",
        "pg_partitioned_table",
        "partrelid = 'parted'::regclass",
        {"partattrs": "'2'", "partstrat": "'l'"},
    ),
    Row(
        "table public.listed",
        "pg_partitioned_table",
        "partrelid = 'listed'::regclass",
        {
            "partclass": "(SELECT oid::text::oidvector FROM pg_opclass"
            " WHERE opcname = 'text_pattern_ops' AND opcmethod = 403)",
            "partcollation": "'951'",
        },
    ),
    Row(
        "policy own on public.plain",
        "pg_policy",
        "polname = 'own'",
        {"polname": "'foreign'", "polcmd": "'d'", "polpermissive": "true"},
    ),
    Row(
        "publication changes",
        "pg_publication",
        "pubname = 'changes'",
        {
            "pubname": "'news'",
            "puballtables": "true",
            "pubinsert": "false",
            "pubupdate": "true",
            "pubdelete": "true",
        },
    ),
    Row(
        "type public.span",
        "pg_range",
        "rngtypid = 'span'::regtype",
        {
            "rngsubtype": "'float4'::regtype",
            "rngsubdiff": "0",
            "rngsubopc": "(SELECT oid FROM pg_opclass"
            " WHERE opcname = 'float4_ops' AND opcmethod = 403)",
        },
    ),
    Row("type public.words", "pg_range", "rngtypid = 'words'::regtype", {"rngcollation": "100"}),
    Row(
        "rule notice on public.plain",
        "pg_rewrite",
        "rulename = 'notice'",
        {"rulename": "'remark'", "ev_type": "'2'", "ev_class": "'ancestor'::regclass"},
    ),
    Row(
        "statistics object public.a_b",
        "pg_statistic_ext",
        "stxname = 'a_b'",
        {
            "stxname": "'a_c'",
            "stxnamespace": "'other'::regnamespace",
            "stxkeys": "'1 2'",
            "stxowner": "'pg_monitor'::regrole",
        },
    ),
    Row(
        "subscription follows",
        "pg_subscription",
        "subname = 'follows'",
        {
            "subname": "'heeds'",
            "subbinary": "true",
            "subdisableonerr": "true",
            "subenabled": "true",
            "subfailover": "true",
            "suborigin": "'none'",
            "subpasswordrequired": "false",
            "subpublications": "'{more}'",
            "subrunasowner": "true",
            "subslotname": "'x'",
            "substream": "'t'",
            "subtwophasestate": "'p'",
        },
    ),
    Row(
        "trigger late on public.plain",
        "pg_trigger",
        "tgname = 'late' AND tgrelid = 'plain'::regclass",
        {
            "tgconstrrelid": "0",
            "tgdeferrable": "false",
            "tginitdeferred": "false",
            "tgisinternal": "true",
            "tgparentid": "oid",
            "tgrelid": "'quick'::regclass",
        },
    ),
    Row(
        "trigger changed on public.plain",
        "pg_trigger",
        "tgname = 'changed'",
        {"tgnewtable": "'more_rows'"},
    ),
    Row(
        "trigger removed on public.plain",
        "pg_trigger",
        "tgname = 'removed'",
        {"tgoldtable": "'more_rows'"},
    ),
    Row(
        "text search configuration public.search",
        "pg_ts_config",
        "cfgname = 'search'",
        {
            "cfgname": "'find'",
            "cfgowner": "'pg_monitor'::regrole",
            "cfgparser": "(SELECT oid FROM pg_ts_parser WHERE prsname = 'parser')",
        },
    ),
    Row(
        "text search dictionary public.dictionary",
        "pg_ts_dict",
        "dictname = 'dictionary'",
        {
            "dictname": "'lexicon'",
            "dictowner": "'pg_monitor'::regrole",
            "dicttemplate": "(SELECT oid FROM pg_ts_template WHERE tmplname = 'simple')",
        },
    ),
    Row(
        "text search parser public.unused",
        "pg_ts_parser",
        "prsname = 'unused'",
        {"prsname": "'reader'", "prsheadline": "'prsd_headline'::regproc"}
        | dict.fromkeys(
            ("prsstart", "prstoken", "prsend", "prslextype"), "'prsd_headline'::regproc"
        ),
    ),
    Row(
        "text search template public.template",
        "pg_ts_template",
        "tmplname = 'template'",
        {"tmplname": "'form'", "tmplinit": "0", "tmpllexize": "'dsynonym_lexize'::regproc"},
    ),
    Row(
        "type public.cord",
        "pg_type",
        "typname = 'cord'",
        {
            "typname": "'rope'",
            "typowner": "'pg_monitor'::regrole",
            "typlen": "4",
            "typbyval": "true",
            "typispreferred": "true",
            "typisdefined": "false",
            "typinput": "'one'::regproc",
            "typoutput": "'one'::regproc",
            "typreceive": "'one'::regproc",
            "typmodin": "0",
            "typmodout": "0",
            "typanalyze": "0",
            "typsubscript": "'one'::regproc",
            "typcollation": "0",
            "typtype": "'e'",
        },
    ),
    Row(
        "type public.code",
        "pg_type",
        "typname = 'code'",
        {"typbasetype": "'bpchar'::regtype", "typtypmod": "44", "typcollation": "951"},
    ),
)
