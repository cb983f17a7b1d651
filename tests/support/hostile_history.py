"""Replacements of a history table: by other roles, hostile or harmless.

A superuser prepares the schema, and then the role `attacker`, which has CREATE on it, runs the
script. ``{t}`` is the table, ``{columns}`` its columns with their types, ``{first}`` the name
of the first one. The schema ``truth`` has the real tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tests.support.hostile_objects import MARK

if TYPE_CHECKING:
    from tests.support.databases import Database

TABLES: Final = ("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock", "_initmig_migration")

STRIKE = f"""
CREATE FUNCTION strike(what text) RETURNS bool LANGUAGE plpgsql
    AS $$ BEGIN RAISE LOG '{MARK} % ran as %', what, current_user; RETURN true; END $$;
CREATE FUNCTION calmly(what text) RETURNS bool LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN RAISE LOG '{MARK} % ran as %', what, current_user; RETURN true; END $$;
CREATE FUNCTION calmly(what text, value anyelement) RETURNS bool LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN RAISE LOG '{MARK} % ran as %', what, current_user; RETURN true; END $$;
CREATE FUNCTION pull() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE LOG '{MARK} % ran as %', TG_NAME, current_user; RETURN coalesce(NEW, OLD); END $$;
CREATE TYPE own AS (v text);
CREATE FUNCTION as_text(o own) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN RAISE LOG '{MARK} cast ran as %', current_user; RETURN o.v; END $$;
CREATE CAST (own AS text) WITH FUNCTION as_text(own) AS IMPLICIT;
CREATE DOMAIN checked AS text CHECK (strike('domain'));
"""

_ROWS = "INSERT INTO public.{t} SELECT * FROM truth.{t};"
_COPY = f"CREATE TABLE public.{{t}} (LIKE truth.{{t}} INCLUDING ALL); {_ROWS}"
_BARE = f"CREATE TABLE public.{{t}} (LIKE truth.{{t}}); {_ROWS}"

IN_ITS_PLACE: Final = {
    "view": "CREATE VIEW public.{t} AS SELECT * FROM truth.{t} WHERE public.strike('view')",
    "rule-view": "CREATE VIEW public.{t} AS SELECT * FROM truth.{t};"
    "CREATE RULE r AS ON INSERT TO public.{t} DO INSTEAD SELECT public.strike('rule')",
    "materialized-view": "CREATE MATERIALIZED VIEW public.{t} AS SELECT * FROM truth.{t}",
    "foreign-table": "CREATE FOREIGN TABLE public.{t} ({columns}) SERVER far",
    "partitioned": "CREATE TABLE public.{t} ({columns}) PARTITION BY LIST ({first});"
    "CREATE TABLE public.part PARTITION OF public.{t} DEFAULT;"
    "INSERT INTO public.{t} SELECT * FROM truth.{t}",
    "partition": "CREATE TABLE public.whole ({columns}) PARTITION BY LIST ({first});"
    "CREATE TABLE public.{t} PARTITION OF public.whole DEFAULT;"
    "INSERT INTO public.{t} SELECT * FROM truth.{t}",
    "parent": _BARE
    + "CREATE TABLE public.child (CHECK (public.strike('child'))) INHERITS (public.{t})",
    "sequence": "CREATE SEQUENCE public.{t}",
    "type": "CREATE TYPE public.{t} AS ({columns})",
}
"""Relations that are not plain tables. A role that only reads refuses them too."""

WITH_CODE: Final = {
    "plain": _COPY,
    "trigger": _COPY + "CREATE TRIGGER pulled BEFORE INSERT OR UPDATE OR DELETE ON public.{t}"
    " FOR EACH ROW EXECUTE FUNCTION public.pull()",
    "statement-trigger": _COPY + "CREATE TRIGGER pulled AFTER INSERT OR UPDATE OR DELETE"
    " ON public.{t} EXECUTE FUNCTION public.pull()",
    "deferred-trigger": _COPY + "CREATE CONSTRAINT TRIGGER pulled AFTER INSERT OR UPDATE OR DELETE"
    " ON public.{t} INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.pull()",
    "rule": _COPY + "CREATE RULE r AS ON INSERT TO public.{t} DO ALSO SELECT public.strike('rule');"
    "CREATE RULE s AS ON DELETE TO public.{t} DO ALSO SELECT public.strike('rule')",
    "policy": _COPY + "ALTER TABLE public.{t} ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON public.{t} USING (public.strike('policy'))",
    "forced-policy": _COPY + "ALTER TABLE public.{t} FORCE ROW LEVEL SECURITY;"
    "ALTER TABLE public.{t} ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON public.{t} USING (public.strike('policy'))",
    "check": _COPY + "ALTER TABLE public.{t} ADD CHECK (public.strike('check'))",
    "default": _COPY + "ALTER TABLE public.{t} ADD extra bool DEFAULT public.strike('default')",
    "default-of-ours": _COPY + "ALTER TABLE public.{t} ALTER {first}"
    " SET DEFAULT public.strike('default')::text::{first_type}",
    "generated": _COPY + "ALTER TABLE public.{t} ADD extra bool"
    " GENERATED ALWAYS AS (public.calmly('generated')) STORED",
    "index": _COPY + "CREATE INDEX ON public.{t} (public.calmly('index', {first}))",
    "partial-index": _COPY
    + "CREATE INDEX ON public.{t} ({first}) WHERE public.calmly('partial', {first})",
    "constant-index": _COPY + "CREATE INDEX ON public.{t} ((public.calmly('constant')))",
    "statistics": _COPY
    + "CREATE STATISTICS public.s ON (public.calmly('statistics', {first})), {first}"
    " FROM public.{t}",
    "domain": _COPY + "ALTER TABLE public.{t} ADD extra public.checked",
    "own-type": _COPY + "ALTER TABLE public.{t} ADD extra public.own",
    "exclusion": _COPY + "ALTER TABLE public.{t} ADD EXCLUDE (public.calmly('exclusion', {first})"
    " WITH =) WHERE (false)",
}
"""Plain tables that run code of the role that created them."""

ON_TRUE_TABLE: Final = {
    # a cascade into the attacker's table fires its triggers, deferred ones at COMMIT
    "cascade": "CREATE TABLE public.mine (r {first_type} REFERENCES public.{t} ON DELETE CASCADE);"
    "INSERT INTO public.mine SELECT {first} FROM public.{t};"
    "CREATE CONSTRAINT TRIGGER pulled AFTER DELETE ON public.mine"
    " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.pull()",
    "trigger": "CREATE TRIGGER pulled BEFORE INSERT OR UPDATE OR DELETE ON public.{t}"
    " FOR EACH ROW EXECUTE FUNCTION public.pull()",
    "truncate-trigger": "CREATE TRIGGER pulled BEFORE TRUNCATE ON public.{t}"
    " EXECUTE FUNCTION public.pull()",
    "deferred-trigger": "CREATE CONSTRAINT TRIGGER pulled AFTER INSERT OR UPDATE OR DELETE"
    " ON public.{t} INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.pull()",
}
"""Changes by a role that has ALL on the table, as many application roles have."""

HARMLESS: Final = {
    "nothing": "SELECT",
    "owner-of-database": "CREATE ROLE o_{db}; GRANT ALL ON SCHEMA public TO o_{db};"
    "ALTER DATABASE {db} OWNER TO o_{db}; ALTER TABLE public.{t} OWNER TO o_{db}",
    "owner-of-schema": "CREATE ROLE o_{db}; ALTER SCHEMA public OWNER TO o_{db};"
    "ALTER TABLE public.{t} OWNER TO o_{db}",
    "another-superuser": "CREATE ROLE o_{db} SUPERUSER; ALTER TABLE public.{t} OWNER TO o_{db}",
    "granted-role": "CREATE ROLE o_{db}; GRANT ALL ON SCHEMA public TO o_{db};"
    "GRANT o_{db} TO postgres; ALTER TABLE public.{t} OWNER TO o_{db}",
    "row-security": "ALTER TABLE public.{t} ENABLE ROW LEVEL SECURITY",
    "comments": "COMMENT ON TABLE public.{t} IS 'x'; COMMENT ON COLUMN public.{t}.{first} IS 'x'",
    "privileges": "GRANT ALL ON public.{t} TO attacker WITH GRANT OPTION;"
    "GRANT SELECT ON public.{t} TO PUBLIC",
    "replica-identity": "ALTER TABLE public.{t} REPLICA IDENTITY FULL",
    "index": "CREATE INDEX extra ON public.{t} ({first}); CLUSTER public.{t} USING extra",
    "unique-index": "CREATE UNIQUE INDEX extra ON public.{t} ({first} DESC)",
    "publication": "CREATE PUBLICATION p_{db} FOR TABLE public.{t}",
    "all-tables": "CREATE PUBLICATION p_{db} FOR ALL TABLES",
    "statistics": "ALTER TABLE public.{t} ALTER {first} SET STATISTICS 500; ANALYZE public.{t}",
    "options": "ALTER TABLE public.{t} SET (autovacuum_enabled = off, fillfactor = 70)",
    "storage": "ALTER TABLE public.{t} ALTER {first} SET STORAGE PLAIN",
    "unlogged": "ALTER TABLE public.{t} SET UNLOGGED",
    "referenced": "CREATE TABLE public.mine (r {first_type} REFERENCES public.{t})",
    "another-column": "ALTER TABLE public.{t} ADD note text",
    "event-trigger-elsewhere": "CREATE TABLE public.other (n int);"
    "CREATE TRIGGER pulled BEFORE INSERT ON public.other EXECUTE FUNCTION"
    " suppress_redundant_updates_trigger()",
}
"""Harmless changes that a superuser makes to such tables."""


class Columns(NamedTuple):
    """The columns of a table, as values for a script."""

    columns: str
    first: str
    first_type: str


def columns_of(database: Database, table: str) -> Columns:
    """The columns of *table* in public. Without a primary key, *first* is the first column."""
    rows = database.query(
        "SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [f"public.{table}"],
    )
    listed = ", ".join(f"{name} {type}" for name, type in rows)
    keys = database.query(
        "SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_index"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
        " WHERE indrelid = %s::regclass AND indisprimary",
        [f"public.{table}"],
    )
    [first, first_type] = (keys or rows)[0]
    return Columns(listed, first, first_type)


def replace(database: Database, table: str, script: str) -> None:
    """Replace *table* in public with the result of *script*, which `attacker` runs."""
    filled = _filled(database, table, script)
    database.execute(
        "CREATE SCHEMA truth; GRANT USAGE ON SCHEMA truth TO PUBLIC;"
        f"ALTER TABLE public.{table} SET SCHEMA truth; GRANT SELECT ON truth.{table} TO PUBLIC;"
        f"GRANT CREATE ON SCHEMA public TO attacker;"
        "CREATE FOREIGN DATA WRAPPER wrapper; CREATE SERVER far FOREIGN DATA WRAPPER wrapper;"
        "GRANT USAGE ON FOREIGN SERVER far TO attacker;"
        f"SET ROLE attacker; {STRIKE}; {filled}"
    )


def add(database: Database, table: str, script: str) -> None:
    """Run *script* as `attacker`, who has all privileges on *table* in public."""
    filled = _filled(database, table, script)
    database.execute(
        f"GRANT ALL ON public.{table} TO attacker; GRANT CREATE ON SCHEMA public TO attacker;"
        f"SET ROLE attacker; {STRIKE}; {filled}"
    )


def change(database: Database, table: str, script: str) -> None:
    """Run *script* on *table* in public as superuser."""
    for statement in _filled(database, table, script).split(";"):
        database.execute(statement)


def _filled(database: Database, table: str, script: str) -> str:
    columns = columns_of(database, table)
    return script.format(t=table, db=database.name, **columns._asdict())
