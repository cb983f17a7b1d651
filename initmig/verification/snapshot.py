"""The schema of a database as text: what stands in the catalog, object by object.

Every name is qualified, no OID is in it, and nothing depends on chance, so that two snapshots of
the same schema are equal. Rights and owners are in it; rows, the position of a sequence, and what
belongs to the server and not to the database, as roles, are not. Neither is the order of columns:
PostgreSQL cannot put a column back where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from initmig.postgres import Session
    from initmig.verification.comparison import Snapshot

_HISTORY = ("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock", "_initmig_migration")

_FIRST_USER_OID = 16384
"""What initdb makes is below: https://www.postgresql.org/docs/current/system-catalog-initial-data.html"""

# What an extension has made comes and goes with it; so does what is a part of another object, as
# the functions and casts of a range. But the sequence of an identity is told of.
_SHARED = f"""
WITH member AS (
    SELECT classid, objid FROM pg_depend
    WHERE deptype = 'e' OR (deptype = 'i' AND classid <> 'pg_class'::regclass)
), namespace AS (
    SELECT oid, quote_ident(nspname) AS name, nspowner, nspacl FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        AND ('pg_namespace'::regclass, oid) NOT IN (SELECT classid, objid FROM member)
), relation AS (
    SELECT c.*, n.name || '.' || quote_ident(relname) AS name,
        CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'f' THEN 'foreign table'
            WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
            WHEN 'c' THEN 'type' END AS kind
    FROM pg_class c JOIN namespace n ON n.oid = relnamespace
    WHERE relname NOT IN ({", ".join(map(quote_literal, _HISTORY))})
        AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM member)
), type AS (
    SELECT t.*, n.name || '.' || quote_ident(typname) AS name
    FROM pg_type t JOIN namespace n ON n.oid = typnamespace
    WHERE typtype IN ('b', 'd', 'e', 'r') AND typcategory <> 'A'
        AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM member)
), routine AS (
    SELECT p.*, p.oid::regprocedure::text AS name,
        CASE prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind
    FROM pg_proc p JOIN namespace n ON n.oid = pronamespace
    WHERE ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM member)
)"""

_SCHEMAS = "SELECT 'schema ' || name, 'owner ' || nspowner::regrole FROM namespace"

_EXTENSIONS = """
SELECT 'extension ' || quote_ident(extname),
    concat_ws(' ', 'version', extversion, 'schema', extnamespace::regnamespace)
FROM pg_extension"""

_TABLES = """
SELECT kind || ' ' || name, concat_ws(' ',
    'owner ' || relowner::regrole,
    CASE relpersistence WHEN 'u' THEN 'unlogged' END,
    (SELECT CASE WHEN relispartition THEN 'partition of ' ELSE 'inherits ' END
        || string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno)
        FROM pg_inherits WHERE inhrelid = relation.oid),
    pg_get_expr(relpartbound, oid),
    'partition by ' || pg_get_partkeydef(oid),
    'of ' || nullif(reloftype, 0)::regtype,
    (SELECT 'using ' || amname FROM pg_am WHERE pg_am.oid = relam AND amname <> 'heap'),
    'with (' || array_to_string(reloptions, ', ') || ')',
    (SELECT 'tablespace ' || quote_ident(spcname) FROM pg_tablespace t WHERE t.oid = reltablespace),
    'replica identity ' || CASE WHEN relkind = 'c' THEN NULL WHEN relreplident = 'n' THEN 'nothing'
        WHEN relreplident = 'f' THEN 'full' WHEN relreplident = 'i' THEN (
            SELECT indexrelid::regclass::text FROM pg_index
            WHERE indrelid = relation.oid AND indisreplident) END,
    CASE WHEN relrowsecurity THEN 'row level security' END,
    CASE WHEN relforcerowsecurity THEN 'forced for its owner' END,
    (SELECT 'server ' || quote_ident(srvname)
        || coalesce(' options (' || array_to_string(ftoptions, ', ') || ')', '')
        FROM pg_foreign_table JOIN pg_foreign_server s ON s.oid = ftserver
        WHERE ftrelid = relation.oid))
FROM relation WHERE relkind IN ('r', 'p', 'f', 'c')"""

# Of a column's parameters, those that somebody can set: 15.20 keeps a version of the column there,
# pg_attver, which is never the same again.
_COLUMNS = """
SELECT 'column ' || name || '.' || quote_ident(attname), concat_ws(' ',
    format_type(atttypid, atttypmod),
    CASE WHEN attcollation <> typcollation THEN 'collate ' || attcollation::regcollation END,
    CASE WHEN attnotnull THEN 'not null' END,
    CASE WHEN attgenerated <> '' THEN 'generated always as (' || pg_get_expr(adbin, adrelid) || ')'
        || CASE attgenerated WHEN 's' THEN ' stored' ELSE ' virtual' END
        ELSE 'default ' || pg_get_expr(adbin, adrelid) END,
    CASE attidentity WHEN 'a' THEN 'generated always as identity'
        WHEN 'd' THEN 'generated by default as identity' END,
    CASE WHEN attstorage <> typstorage THEN 'storage ' || attstorage::text END,
    'compression ' || nullif(attcompression::text, ''),
    'statistics ' || nullif(attstattarget, -1),
    'with (' || (SELECT string_agg(option, ', ' ORDER BY option) FROM unnest(attoptions) AS option
        WHERE option LIKE 'n\\_distinct%') || ')',
    'options (' || array_to_string(attfdwoptions, ', ') || ')')
FROM relation
JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relkind IN ('r', 'p', 'f', 'c')"""

# From PostgreSQL 18 on, NOT NULL is a constraint, too: here it stands with its column.
_CONSTRAINTS = """
SELECT 'constraint ' || quote_ident(conname) || ' on ' || name, pg_get_constraintdef(c.oid)
FROM pg_constraint c JOIN (
    SELECT oid AS relid, 0::oid AS typid, name FROM relation
    UNION ALL SELECT 0, oid, name FROM type) AS owner
ON conrelid = relid AND contypid = typid
WHERE contype NOT IN ('n', 't') AND conparentid = 0"""

_INDEXES = """
SELECT 'index ' || i.name, concat_ws(' ', pg_get_indexdef(i.oid),
    CASE WHEN NOT indisvalid THEN '(invalid)' END, CASE WHEN indisclustered THEN '(clustered)' END)
FROM pg_index JOIN relation t ON t.oid = indrelid JOIN relation i ON i.oid = indexrelid
WHERE NOT i.relispartition
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.oid AND contype IN ('p', 'u', 'x'))
"""

_VIEWS = """
SELECT kind || ' ' || name, concat_ws(' ', 'owner ' || relowner::regrole,
    'with (' || array_to_string(reloptions, ', ') || ')') || E'\\n' || pg_get_viewdef(oid)
FROM relation WHERE relkind IN ('v', 'm')"""

_SEQUENCES = """
SELECT kind || ' ' || name, concat_ws(' ', 'owner ' || relowner::regrole,
    'as', format_type(seqtypid, NULL), 'start', seqstart, 'increment', seqincrement,
    'minvalue', seqmin, 'maxvalue', seqmax, 'cache', seqcache, CASE WHEN seqcycle THEN 'cycle' END,
    (SELECT CASE deptype WHEN 'i' THEN 'identity of ' ELSE 'owned by ' END
        || refobjid::regclass || '.' || quote_ident(attname)
        FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND objid = relation.oid
            AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')))
FROM relation JOIN pg_sequence ON seqrelid = oid"""

_ROUTINES = """
SELECT kind || ' ' || name, 'owner ' || proowner::regrole || E'\\n' || CASE prokind
    WHEN 'a' THEN (SELECT concat_ws(' ', 'sfunc', aggtransfn, 'stype', aggtranstype::regtype,
        'finalfunc ' || nullif(aggfinalfn::oid, 0)::regproc, 'initcond ' || agginitval,
        'combinefunc ' || nullif(aggcombinefn::oid, 0)::regproc)
        FROM pg_aggregate WHERE aggfnoid = routine.oid)
    ELSE pg_get_functiondef(oid) END
FROM routine"""

_TRIGGERS = """
SELECT 'trigger ' || quote_ident(tgname) || ' on ' || name, concat_ws(' ', pg_get_triggerdef(t.oid),
    CASE tgenabled WHEN 'D' THEN '(disabled)' WHEN 'R' THEN '(enabled for replica)'
        WHEN 'A' THEN '(enabled always)' END)
FROM pg_trigger t JOIN relation ON relation.oid = tgrelid
WHERE NOT tgisinternal AND tgparentid = 0"""

_RULES = """
SELECT 'rule ' || quote_ident(rulename) || ' on ' || name, concat_ws(' ', pg_get_ruledef(r.oid),
    CASE ev_enabled WHEN 'D' THEN '(disabled)' WHEN 'R' THEN '(enabled for replica)'
        WHEN 'A' THEN '(enabled always)' END)
FROM pg_rewrite r JOIN relation ON relation.oid = ev_class WHERE rulename <> '_RETURN'"""

_POLICIES = """
SELECT 'policy ' || quote_ident(polname) || ' on ' || name, concat_ws(' ',
    CASE WHEN polpermissive THEN 'permissive' ELSE 'restrictive' END,
    'for ' || CASE polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update'
        WHEN 'd' THEN 'delete' ELSE 'all' END,
    'to ' || (SELECT string_agg(CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END, ', '
        ORDER BY role::regrole::text) FROM unnest(polroles) AS role),
    'using (' || pg_get_expr(polqual, polrelid) || ')',
    'with check (' || pg_get_expr(polwithcheck, polrelid) || ')')
FROM pg_policy JOIN relation ON relation.oid = polrelid"""

_TYPES = """
SELECT 'type ' || name, concat_ws(' ', 'owner ' || typowner::regrole, CASE typtype
    WHEN 'e' THEN 'enum (' || (SELECT string_agg(quote_literal(enumlabel), ', '
        ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = type.oid) || ')'
    WHEN 'd' THEN concat_ws(' ', 'domain', format_type(typbasetype, typtypmod),
        CASE WHEN typcollation <> (SELECT typcollation FROM pg_type WHERE oid = type.typbasetype)
            THEN 'collate ' || typcollation::regcollation END,
        CASE WHEN typnotnull THEN 'not null' END, 'default ' || typdefault)
    WHEN 'r' THEN (SELECT 'range of ' || rngsubtype::regtype FROM pg_range
        WHERE rngtypid = type.oid)
    END)
FROM type"""

_EVENT_TRIGGERS = """
SELECT 'event trigger ' || quote_ident(evtname), concat_ws(' ', 'owner ' || evtowner::regrole,
    'on', evtevent, 'when tag in (' || array_to_string(evttags, ', ') || ')', 'execute', evtfoid,
    CASE evtenabled WHEN 'D' THEN '(disabled)' WHEN 'R' THEN '(enabled for replica)'
        WHEN 'A' THEN '(enabled always)' END)
FROM pg_event_trigger
WHERE ('pg_event_trigger'::regclass, oid) NOT IN (SELECT classid, objid FROM member)"""

_STATISTICS = """
SELECT 'statistics ' || name || '.' || quote_ident(stxname),
    'owner ' || stxowner::regrole || ' ' || pg_get_statisticsobjdef(s.oid)
FROM pg_statistic_ext s JOIN namespace n ON n.oid = stxnamespace"""

_PUBLICATIONS = """
SELECT 'publication ' || quote_ident(pubname), concat_ws(' ', 'owner ' || pubowner::regrole,
    CASE WHEN puballtables THEN 'all tables' END,
    'of ' || (SELECT string_agg(prrelid::regclass::text, ', ' ORDER BY prrelid::regclass::text)
        FROM pg_publication_rel WHERE prpubid = pg_publication.oid),
    CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
    CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END)
FROM pg_publication"""

# Only that they are there: they are rare, and to change one is rarer.
_RARE = "\nUNION ALL ".join(
    f"SELECT type || ' ' || identity, '' FROM {catalog},"
    f" pg_identify_object('{catalog}'::regclass, {catalog}.oid, 0)"
    f" WHERE {catalog}.oid >= {_FIRST_USER_OID}"
    f" AND ('{catalog}'::regclass, {catalog}.oid) NOT IN (SELECT classid, objid FROM member)"
    for catalog in (
        *("pg_am", "pg_cast", "pg_collation", "pg_conversion", "pg_foreign_data_wrapper"),
        *("pg_foreign_server", "pg_language", "pg_opclass", "pg_operator", "pg_opfamily"),
        *("pg_transform", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template"),
    )
)

_COMMENTS = f"""
SELECT 'comment on ' || type || ' ' || identity, quote_literal(description)
FROM pg_description d, pg_identify_object(classoid, objoid, objsubid)
WHERE (objoid >= {_FIRST_USER_OID} OR classoid = 'pg_namespace'::regclass)
    AND (classoid, objoid) NOT IN (SELECT classid, objid FROM member)"""

# What differs from the rights that an object has at its birth, be it written down or not.
_PRIVILEGES = """
SELECT done || ' on ' || object || direction || CASE grantee WHEN 0 THEN 'public'
        ELSE grantee::regrole::text END,
    string_agg(concat(lower(privilege_type), CASE WHEN is_grantable THEN ' with grant option' END),
        ', ' ORDER BY privilege_type)
FROM (
    SELECT kind || ' ' || name, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END, relowner, relacl
        FROM relation WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
    UNION ALL SELECT 'column ' || name || '.' || quote_ident(attname), 'c', relowner, attacl
        FROM relation JOIN pg_attribute ON attrelid = relation.oid AND NOT attisdropped
    UNION ALL SELECT kind || ' ' || name, 'f', proowner, proacl FROM routine
    UNION ALL SELECT 'type ' || name, 'T', typowner, typacl FROM type
    UNION ALL SELECT 'schema ' || name, 'n', nspowner, nspacl FROM namespace
    UNION ALL SELECT 'language ' || quote_ident(lanname), 'l', lanowner, lanacl FROM pg_language
    UNION ALL SELECT 'foreign-data wrapper ' || quote_ident(fdwname), 'F', fdwowner, fdwacl
        FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'server ' || quote_ident(srvname), 'S', srvowner, srvacl FROM pg_foreign_server
    UNION ALL SELECT 'the database', 'd', datdba, datacl FROM pg_database
        WHERE datname = current_database()
) AS owned (object, class, owner, acl), LATERAL (
    (SELECT 'grant', ' to ', grantee, privilege_type, is_grantable FROM aclexplode(acl)
    EXCEPT SELECT 'grant', ' to ', grantee, privilege_type, is_grantable
        FROM aclexplode(acldefault(class::"char", owner)))
    UNION ALL
    (SELECT 'revoke', ' from ', grantee, privilege_type, is_grantable
        FROM aclexplode(acldefault(class::"char", owner))
    EXCEPT SELECT 'revoke', ' from ', grantee, privilege_type, is_grantable FROM aclexplode(acl))
) AS differing (done, direction, grantee, privilege_type, is_grantable)
WHERE acl IS NOT NULL
GROUP BY done, object, direction, grantee"""

_DEFAULT_PRIVILEGES = """
SELECT concat_ws(' ', 'default privileges of', defaclrole::regrole,
        'in schema ' || nullif(defaclnamespace, 0)::regnamespace, 'on',
        CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'routines'
            WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END),
    (SELECT string_agg(item::text, ', ' ORDER BY item::text) FROM unnest(defaclacl) AS item)
FROM pg_default_acl"""

_PARAMETERS = """
SELECT 'parameters of ' || CASE setrole WHEN 0 THEN 'the database' ELSE setrole::regrole::text END,
    array_to_string(setconfig, ', ')
FROM pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"""

_QUERIES = (
    *(_SCHEMAS, _EXTENSIONS, _TABLES, _COLUMNS, _CONSTRAINTS, _INDEXES, _VIEWS, _SEQUENCES),
    *(_ROUTINES, _TRIGGERS, _RULES, _POLICIES, _TYPES, _EVENT_TRIGGERS, _STATISTICS),
    *(_PUBLICATIONS, _RARE, _COMMENTS, _PRIVILEGES, _DEFAULT_PRIVILEGES, _PARAMETERS),
)

# With nothing on the search path the server qualifies every name, as pg_dump has it do.
_QUALIFIED = "SET LOCAL search_path = ''; "


def take_snapshot(session: Session) -> Snapshot:
    """The schema as it is now: the definition of each object by its kind and name.

    :raises InitmigError: the database cannot be asked
    """
    return {
        name: definition
        for query in _QUERIES
        for name, definition in session.query(f"{_QUALIFIED}{_SHARED}{query}")
    }
