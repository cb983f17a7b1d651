"""Every column of PostgreSQL's system catalogs: how a snapshot shows it, or why it does not.

This module is data. `snapshot` builds its query from it, docs/reference/verify.md lists it, and the
tests compare it with the catalogs of each version of PostgreSQL.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_USER_OID = 16384
"""Objects that initdb creates have lower OIDs: https://www.postgresql.org/docs/current/system-catalog-initial-data.html"""

# Why a column is not compared.
NUMBER = "a number that the server assigns"
FOLLOWS = "follows from other columns"
STORAGE = "how and where the data is stored"
ESTIMATE = "statistics and estimates"
STATE = "runtime state"
SERVER = "belongs to the server, not to the database"
ROWS = "data, not schema"
ORDER = "the order of columns, which a rollback cannot restore"
CREATION = "fixed when the database is created"
SCRATCH = "the name of the scratch database"
EXTENSION = "set by the script of the extension"
ORIGIN = "the original privileges, which the others are compared with"
IGNORED = "PostgreSQL ignores it"


class Sql(str):
    """A phrase that is an SQL expression."""

    __slots__ = ()


Phrase: TypeAlias = "str | Sql | Mapping[str, str]"
"""The words for a column: text with a placeholder ``{form}`` of FORMS, or text for each value.

NULL, and a value that has no text, adds no words.
"""

_IDENTITY = "(pg_identify_object('{catalog}'::regclass, nullif({{column}}, 0), 0)).identity"
_HIDDEN = "E'\\x02' || md5({value}) || E'\\x03'"
# The CASE saves time, because the column is NULL in most rows.
_ITEMS = (
    "CASE WHEN {column} IS NOT NULL THEN (SELECT string_agg(item::text, ', ' ORDER BY item::text)"
    " FROM unnest({column}) AS item {where}) END"
)
_OPTIONS = (
    "CASE WHEN {{column}} IS NOT NULL THEN (SELECT string_agg(name || '=' || {value}, ', '"
    " ORDER BY name) FROM unnest({{column}}) AS pair, LATERAL (SELECT split_part(pair, '=', 1),"
    " substr(pair, strpos(pair, '=') + 1)) AS t (name, value)) END"
)
_SECRET = "name ~* 'pass|pwd|secret|token|key|credential'"  # noqa: S105

FORMS: Mapping[str, str] = MappingProxyType(
    {
        "": "nullif({column}::text, '')",
        "number": "nullif({column}, 0)",
        "quoted": "quote_literal({column}::text)",
        "name": "quote_ident(nullif({column}::text, ''))",
        "role": "nullif({column}, 0)::regrole",
        "schema": "nullif({column}, 0)::regnamespace",
        "collation": "nullif({column}, 0)::regcollation",
        "type": "format_type(nullif({column}, 0), NULL)",
        "routine": "nullif({column}::oid, 0)::regprocedure",
        "encoding": "pg_encoding_to_char({column})",
        "list": _ITEMS.replace("{where}", ""),
        "options": _OPTIONS.format(
            value=f"CASE WHEN {_SECRET} THEN {_HIDDEN.format(value='value')} ELSE value END"
        ),
        "hidden options": _OPTIONS.format(value=_HIDDEN.format(value="value")),
        "hidden": _HIDDEN.format(value="{column}"),
    }
    | {
        catalog: _IDENTITY.format(catalog=catalog)
        for catalog in (
            *("pg_foreign_data_wrapper", "pg_foreign_server", "pg_opclass", "pg_operator"),
            *("pg_opfamily", "pg_tablespace", "pg_ts_parser", "pg_ts_template"),
        )
    }
)
"""For each placeholder, SQL that makes text of the value of {column}.

The text between ``\\x02`` and ``\\x03`` is the digest of a secret: see `comparison.Snapshot`.
"""


class Acl(Record):
    """The privileges that a column holds."""

    column: str
    owner: str
    """SQL for the OID of the object's owner."""
    kind: str
    """SQL for the kind of object, as `acldefault` takes it."""
    where: str = "true"
    """SQL condition for the rows to read."""


class Source(Record):
    """Rows of a catalog; each row describes one object.

    A catalog can have several sources, and an object is described by several of them.
    """

    catalog: str
    shown: Mapping[str, Phrase] = MappingProxyType({})
    """The phrases of columns, in the order of the text."""
    definition: str = ""
    """SQL for the text after the phrases."""
    named: str = ""
    """Columns that the name of the object shows, separated by spaces."""
    defined: str = ""
    """Columns that the definition, or the phrase of another column, shows."""
    omitted: Mapping[str, str] = MappingProxyType({})
    """Columns that are not compared, for each reason."""
    acl: Acl | None = None
    read: str = ""
    """SQL to read instead of the catalog."""
    joined: str = ""
    """SQL after ``FROM catalog``."""
    where: str = ""
    """SQL condition for the rows to read. By default, initdb must not have made the object."""
    before: str = "''"
    """SQL for the text before the name of the object."""
    object: tuple[str, str, str] | None = None
    """SQL for catalog, OID and column number of the object. By default, it is the row itself."""
    order: str = "0"
    """SQL for a number that sorts the rows of one object."""

    @property
    def is_read(self) -> bool:
        """Whether a snapshot has text from it."""
        return bool(self.shown or self.definition)

    @property
    def compared(self) -> frozenset[str]:
        """The columns that are compared."""
        acl = (self.acl.column,) if self.acl else ()
        return frozenset((*self.shown, *self.named.split(), *self.defined.split(), *acl))

    @property
    def address(self) -> tuple[str, str, str]:
        """SQL for catalog, OID and column number of the object."""
        return self.object or (f"'{self.catalog}'::regclass", f"{self.catalog}.oid", "0")

    @property
    def columns(self) -> frozenset[str]:
        """All columns that this source lists."""
        return self.compared | frozenset(" ".join(self.omitted.values()).split())


_RELATION = "'pg_class'::regclass"
_ENABLED = MappingProxyType(
    {"D": "(disabled)", "R": "(enabled for replica)", "A": "(enabled always)"}
)
_INHERITED = (
    "CASE WHEN {count} > 0 THEN 'inherited'"
    " || CASE WHEN {count} > 1 THEN ' ' || {count} || ' times' ELSE '' END END"
)
_LOCAL = "CASE WHEN {local} AND {count} > 0 THEN 'and declared here' END"
_OF_CONSTRAINT = (
    "LEFT JOIN (SELECT conindid FROM pg_constraint WHERE contype IN ('p', 'u', 'x')) AS c"
    " ON conindid = {index}"
)
_NAMED = "CASE WHEN conname <> {usual} THEN 'constraint ' || quote_ident(conname) END"

SOURCES: tuple[Source, ...] = (
    Source(
        "pg_namespace",
        {"nspowner": "owner {role}"},
        named="nspname",
        omitted={NUMBER: "oid"},
        acl=Acl("nspacl", "nspowner", "'n'"),
        where="nspname !~ '^pg_(toast_)?temp_'",
    ),
    Source(
        "pg_extension",
        {
            "extowner": "owner {role}",
            "extversion": "version {}",
            "extnamespace": "schema {schema}",
        },
        named="extname",
        omitted={NUMBER: "oid", EXTENSION: "extrelocatable extconfig extcondition"},
        where="true",
    ),
    Source(
        "pg_class",
        {
            "relowner": "owner {role}",
            "relpersistence": {"u": "unlogged"},
            "relispopulated": {"false": "not populated"},
            "relpartbound": Sql("pg_get_expr(relpartbound, pg_class.oid)"),
            "reloftype": "of {type}",
            "relam": Sql(
                "CASE WHEN relam <> 0 THEN (SELECT 'using ' || quote_ident(amname) FROM pg_am"
                " WHERE pg_am.oid = relam AND amname <> 'heap') END"
            ),
            "reloptions": "with ({list})",
            "reltoastrelid": Sql(
                "CASE WHEN reltoastrelid <> 0 THEN (SELECT 'toast with (' || "
                + _ITEMS.format(column="toast.reloptions", where="")
                + " || ')' FROM pg_class AS toast WHERE toast.oid = pg_class.reltoastrelid) END"
            ),
            "reltablespace": "tablespace {pg_tablespace}",
            "relreplident": Sql(
                "CASE WHEN relkind IN ('r', 'p', 'm') THEN CASE relreplident"
                " WHEN 'n' THEN 'replica identity nothing' WHEN 'f' THEN 'replica identity full'"
                " WHEN 'i' THEN 'replica identity index' END END"
            ),
            "relrowsecurity": {"true": "row level security"},
            "relforcerowsecurity": {"true": "forced for its owner"},
        },
        definition="CASE WHEN relkind IN ('v', 'm')"
        " THEN E'\\n' || pg_get_viewdef(pg_class.oid) END",
        named="relname relnamespace relkind",
        defined="relispartition",
        omitted={
            NUMBER: "oid reltype",
            FOLLOWS: "relhasindex relnatts relchecks relhasrules relhastriggers relhassubclass"
            " relisshared",
            STORAGE: "relfilenode relfrozenxid relminmxid relrewrite",
            ESTIMATE: "relpages reltuples relallvisible relallfrozen",
        },
        acl=Acl("relacl", "relowner", "CASE relkind WHEN 'S' THEN 's' ELSE 'r' END"),
        where=f"pg_class.oid >= {FIRST_USER_OID} AND relkind IN ('r', 'p', 'f', 'v', 'm', 'S')",
    ),
    Source(
        "pg_class",
        {
            "reloptions": Sql(
                "CASE WHEN conindid IS NOT NULL THEN 'with (' || "
                + _ITEMS.format(column="reloptions", where="")
                + " || ')' END"
            ),
            "reltablespace": "tablespace {pg_tablespace}",
        },
        joined=_OF_CONSTRAINT.format(index="pg_class.oid"),
        where=f"pg_class.oid >= {FIRST_USER_OID} AND relkind IN ('i', 'I')"
        " AND relnamespace <> 'pg_toast'::regnamespace",
    ),
    Source(
        "pg_sequence",
        {
            "seqtypid": "as {type}",
            "seqstart": "start {}",
            "seqincrement": "increment {}",
            "seqmin": "minvalue {}",
            "seqmax": "maxvalue {}",
            "seqcache": "cache {}",
            "seqcycle": {"true": "cycle"},
        },
        named="seqrelid",
        object=(_RELATION, "seqrelid", "0"),
    ),
    Source(
        "pg_depend",
        {
            "deptype": Sql(
                "CASE deptype WHEN 'i' THEN 'identity of ' ELSE 'owned by ' END"
                " || (pg_identify_object(refclassid, refobjid, refobjsubid)).identity"
            )
        },
        defined="classid objid refclassid refobjid refobjsubid",
        omitted={FOLLOWS: "objsubid"},
        joined="JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'",
        where=f"classid = {_RELATION} AND objid >= {FIRST_USER_OID} AND deptype IN ('a', 'i')"
        f" AND refclassid = {_RELATION} AND refobjsubid > 0",
        object=("classid", "objid", "0"),
    ),
    Source(
        "pg_depend",
        {
            "refobjid": Sql(
                "'depends on extension '"
                " || (pg_identify_object(refclassid, refobjid, refobjsubid)).identity"
            )
        },
        where=f"objid >= {FIRST_USER_OID} AND deptype = 'x'",
        object=("classid", "objid", "0"),
    ),
    Source(
        "pg_partitioned_table",
        definition="'partition by ' || pg_get_partkeydef(partrelid)",
        named="partrelid",
        defined="partstrat partattrs partclass partcollation partexprs",
        omitted={FOLLOWS: "partnatts partdefid"},
        object=(_RELATION, "partrelid", "0"),
    ),
    Source(
        "pg_inherits",
        {
            "inhparent": Sql(
                "CASE WHEN relispartition THEN 'partition of ' ELSE 'inherits ' END"
                " || inhparent::regclass"
            ),
            "inhdetachpending": {"true": "(detach pending)"},
        },
        named="inhrelid",
        defined="inhseqno",
        joined="JOIN pg_class ON pg_class.oid = inhrelid",
        object=(_RELATION, "inhrelid", "0"),
        order="inhseqno",
    ),
    Source(
        "pg_foreign_table",
        {
            "ftserver": "server {pg_foreign_server}",
            "ftoptions": "options ({options})",
        },
        named="ftrelid",
        object=(_RELATION, "ftrelid", "0"),
    ),
    Source(
        "pg_attribute",
        {
            "atttypid": Sql(
                "CASE WHEN relkind NOT IN ('v', 'm', 'i', 'I')"
                " THEN format_type(atttypid, atttypmod) END"
            ),
            "attcollation": Sql(
                "CASE WHEN attcollation <> typcollation AND relkind NOT IN ('v', 'm', 'i', 'I')"
                " THEN 'collate ' || attcollation::regcollation END"
            ),
            "attnotnull": {"true": "not null"},
            "attinhcount": Sql(_INHERITED.format(count="attinhcount")),
            "attislocal": Sql(_LOCAL.format(local="attislocal", count="attinhcount")),
            "attidentity": {
                "a": "generated always as identity",
                "d": "generated by default as identity",
            },
            "attgenerated": {"s": "generated stored", "v": "generated virtual"},
            "attstorage": Sql(
                "CASE WHEN attstorage <> typstorage THEN 'storage ' || CASE attstorage"
                " WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main'"
                " ELSE 'extended' END END"
            ),
            "attcompression": {"p": "compression pglz", "l": "compression lz4"},
            "attstattarget": Sql("'statistics ' || nullif(attstattarget, -1)"),
            # Not the others: 15.20 keeps a counter there, pg_attver, which only grows.
            "attoptions": Sql(
                "'with (' || "
                + _ITEMS.format(column="attoptions", where="WHERE item LIKE 'n\\_distinct%'")
                + " || ')'"
            ),
            "attfdwoptions": "options ({options})",
        },
        named="attrelid attname",
        defined="atttypmod attisdropped",
        omitted={
            ORDER: "attnum",
            FOLLOWS: "attlen attbyval attalign atthasdef",
            IGNORED: "attndims",
            ROWS: "atthasmissing attmissingval",
            STATE: "attcacheoff",
        },
        acl=Acl("attacl", "(SELECT relowner FROM pg_class WHERE oid = attrelid)", "'c'"),
        joined="JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid",
        where=f"attrelid >= {FIRST_USER_OID} AND attnum > 0 AND NOT attisdropped"
        " AND (relkind IN ('r', 'p', 'f', 'c', 'v', 'm')"
        " OR (relkind IN ('i', 'I') AND attstattarget >= 0))",
        object=(_RELATION, "attrelid", "attnum"),
    ),
    Source(
        "pg_attrdef",
        {
            "adbin": Sql(
                "CASE attgenerated WHEN '' THEN 'default ' ELSE 'as ' END"
                " || pg_get_expr(adbin, adrelid)"
            )
        },
        named="adrelid adnum",
        omitted={NUMBER: "oid"},
        joined="JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum",
        object=(_RELATION, "adrelid", "adnum"),
    ),
    # NOT NULL is also a constraint, of a column since PostgreSQL 18, of a domain since 17. Its text
    # joins that of the column or domain.
    Source(
        "pg_constraint",
        {
            "conname": Sql(_NAMED.format(usual="relname || '_' || attname || '_not_null'")),
            "convalidated": {"false": "not null not valid"},
            "connoinherit": {"true": "not null not to be inherited"},
            "coninhcount": Sql("'not null ' || " + _INHERITED.format(count="coninhcount")),
            "conislocal": Sql(_LOCAL.format(local="conislocal", count="coninhcount")),
        },
        joined="JOIN pg_class ON pg_class.oid = conrelid"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]",
        where="contype = 'n'",
        object=(_RELATION, "conrelid", "conkey[1]"),
    ),
    Source(
        "pg_constraint",
        {"conname": Sql(_NAMED.format(usual="typname || '_not_null'"))},
        joined="JOIN pg_type ON pg_type.oid = contypid",
        where="contype = 'n'",
        object=("'pg_type'::regclass", "contypid", "0"),
    ),
    Source(
        "pg_constraint",
        {
            "coninhcount": Sql(_INHERITED.format(count="coninhcount")),
            "conislocal": Sql(_LOCAL.format(local="conislocal", count="coninhcount")),
        },
        definition="pg_get_constraintdef(pg_constraint.oid)",
        named="conname conrelid contypid",
        defined="contype condeferrable condeferred convalidated confrelid confupdtype confdeltype"
        " confmatchtype connoinherit conkey confkey conexclop conbin confdelsetcols conenforced"
        " conperiod conparentid",
        omitted={
            NUMBER: "oid",
            FOLLOWS: "connamespace conindid conpfeqop conppeqop conffeqop",
        },
        # For partitions, the server makes further foreign keys, and chooses their names.
        where=f"pg_constraint.oid >= {FIRST_USER_OID} AND contype NOT IN ('n', 't')"
        " AND (contype <> 'f' OR conparentid = 0)",
    ),
    Source(
        "pg_index",
        {
            "indisclustered": {"true": "(clustered)"},
            "indisvalid": {"false": "(invalid)"},
            "indisreplident": {"true": "(replica identity)"},
        },
        definition="CASE WHEN conindid IS NULL THEN pg_get_indexdef(indexrelid) END",
        named="indexrelid",
        defined="indrelid indisunique indkey indcollation indclass indoption indexprs"
        " indpred indnullsnotdistinct indnkeyatts",
        omitted={
            FOLLOWS: "indnatts indisprimary indisexclusion indimmediate",
            STATE: "indcheckxmin indisready indislive",
        },
        joined="JOIN pg_class ON pg_class.oid = indexrelid"
        " AND relnamespace <> 'pg_toast'::regnamespace "
        + _OF_CONSTRAINT.format(index="indexrelid"),
        object=(_RELATION, "indexrelid", "0"),
    ),
    Source(
        "pg_trigger",
        {"tgenabled": _ENABLED},
        definition="CASE WHEN tgparentid = 0 THEN pg_get_triggerdef(pg_trigger.oid) END",
        named="tgname tgrelid",
        defined="tgparentid tgisinternal tgfoid tgtype tgconstrrelid tgdeferrable tginitdeferred"
        " tgattr tgargs tgqual tgoldtable tgnewtable",
        omitted={NUMBER: "oid", FOLLOWS: "tgconstrindid tgconstraint tgnargs"},
        where=f"pg_trigger.oid >= {FIRST_USER_OID} AND (NOT tgisinternal OR tgconstraint = 0)",
    ),
    # DISABLE TRIGGER ALL also disables the triggers of foreign keys, whose names contain OIDs.
    Source(
        "pg_trigger",
        {
            "tgenabled": Sql(
                "'trigger ' || tgfoid::regproc || CASE tgenabled WHEN 'D' THEN ' (disabled)'"
                " WHEN 'R' THEN ' (enabled for replica)' ELSE ' (enabled always)' END"
            )
        },
        where=f"pg_trigger.oid >= {FIRST_USER_OID} AND tgisinternal AND tgconstraint <> 0"
        " AND tgenabled <> 'O'",
        object=("'pg_constraint'::regclass", "tgconstraint", "0"),
    ),
    Source(
        "pg_rewrite",
        {"ev_enabled": _ENABLED},
        definition="CASE WHEN rulename <> '_RETURN' THEN pg_get_ruledef(pg_rewrite.oid) END",
        named="rulename ev_class",
        defined="ev_type is_instead ev_qual ev_action",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_policy",
        {
            "polpermissive": {"true": "permissive", "false": "restrictive"},
            "polcmd": {
                "r": "for select",
                "a": "for insert",
                "w": "for update",
                "d": "for delete",
                "*": "for all",
            },
            "polroles": Sql(
                "'to ' || (SELECT string_agg(name, ', ' ORDER BY name)"
                " FROM unnest(polroles) AS role,"
                " LATERAL (SELECT CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END)"
                " AS t (name))"
            ),
            "polqual": Sql("'using (' || pg_get_expr(polqual, polrelid) || ')'"),
            "polwithcheck": Sql("'with check (' || pg_get_expr(polwithcheck, polrelid) || ')'"),
        },
        named="polname polrelid",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_statistic_ext",
        {
            "stxowner": "owner {role}",
            "stxstattarget": Sql("'statistics ' || nullif(stxstattarget, -1)"),
        },
        definition="pg_get_statisticsobjdef(pg_statistic_ext.oid)",
        named="stxname stxnamespace",
        defined="stxrelid stxkeys stxkind stxexprs",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_type",
        {
            "typowner": "owner {role}",
            "typisdefined": {"false": "(only its name)"},
            "typtype": {"e": "enum", "d": "domain"},
        },
        named="typname typnamespace",
        omitted={NUMBER: "oid typrelid typarray", IGNORED: "typndims"},
        acl=Acl("typacl", "typowner", "'T'"),
    ),
    Source(
        "pg_type",
        {
            "typbasetype": Sql("format_type(typbasetype, typtypmod)"),
            "typcollation": Sql(
                "(SELECT 'collate ' || pg_type.typcollation::regcollation FROM pg_type AS base"
                " WHERE base.oid = pg_type.typbasetype"
                " AND base.typcollation <> pg_type.typcollation)"
            ),
            "typnotnull": {"true": "not null"},
            "typdefaultbin": Sql("'default ' || pg_get_expr(typdefaultbin, 0)"),
        },
        defined="typtypmod",
        where=f"pg_type.oid >= {FIRST_USER_OID} AND typtype = 'd'",
    ),
    Source(
        "pg_type",
        {
            "typinput": "input {routine}",
            "typoutput": "output {routine}",
            "typreceive": "receive {routine}",
            "typsend": "send {routine}",
            "typmodin": "typmod_in {routine}",
            "typmodout": "typmod_out {routine}",
            "typanalyze": "analyze {routine}",
            "typsubscript": "subscript {routine}",
            "typlen": "internallength {}",
            "typbyval": {"true": "passedbyvalue"},
            "typalign": {
                "c": "alignment char",
                "s": "alignment int2",
                "i": "alignment int4",
                "d": "alignment double",
            },
            "typstorage": {
                "p": "storage plain",
                "e": "storage external",
                "m": "storage main",
                "x": "storage extended",
            },
            "typcategory": "category {}",
            "typispreferred": {"true": "preferred"},
            "typdefault": "default {quoted}",
            "typelem": "element {type}",
            "typdelim": "delimiter {quoted}",
            "typcollation": "collate {collation}",
        },
        where=f"pg_type.oid >= {FIRST_USER_OID} AND typtype = 'b' AND typcategory <> 'A'",
    ),
    Source(
        "pg_enum",
        {"enumlabel": "{quoted}"},
        named="enumtypid",
        defined="enumsortorder",
        omitted={NUMBER: "oid"},
        where=f"enumtypid >= {FIRST_USER_OID}",
        object=("'pg_type'::regclass", "enumtypid", "0"),
        order="enumsortorder",
    ),
    Source(
        "pg_range",
        {
            "rngsubtype": "range of {type}",
            "rngmultitypid": "multirange {type}",
            "rngcollation": Sql(
                "(SELECT 'collate ' || rngcollation::regcollation FROM pg_type"
                " WHERE pg_type.oid = rngsubtype AND typcollation <> rngcollation)"
            ),
            "rngsubopc": "operator class {pg_opclass}",
            "rngcanonical": "canonical {routine}",
            "rngsubdiff": "subtype_diff {routine}",
        },
        named="rngtypid",
        object=("'pg_type'::regclass", "rngtypid", "0"),
    ),
    Source(
        "pg_event_trigger",
        {
            "evtowner": "owner {role}",
            "evtevent": "on {}",
            "evttags": "when tag in ({list})",
            "evtfoid": "execute {routine}",
            "evtenabled": _ENABLED,
        },
        named="evtname",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_publication",
        {
            "pubowner": "owner {role}",
            "puballtables": {"true": "all tables"},
            "pubinsert": {"true": "insert"},
            "pubupdate": {"true": "update"},
            "pubdelete": {"true": "delete"},
            "pubtruncate": {"true": "truncate"},
            "pubviaroot": {"true": "via partition root"},
            "pubgencols": {"s": "with stored generated columns"},
        },
        named="pubname",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_publication_namespace",
        {"pnnspid": Sql("E'\\ntables in schema ' || pnnspid::regnamespace")},
        named="pnpubid",
        omitted={NUMBER: "oid"},
        where="true",
        object=("'pg_publication'::regclass", "pnpubid", "0"),
    ),
    Source(
        "pg_publication_rel",
        {
            "prrelid": Sql("E'\\ntable ' || prrelid::regclass"),
            "prattrs": Sql(
                "'(' || (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname)"
                " FROM pg_attribute WHERE attrelid = prrelid AND attnum = ANY (prattrs)) || ')'"
            ),
            "prqual": Sql("'where ' || pg_get_expr(prqual, prrelid)"),
        },
        named="prpubid",
        omitted={NUMBER: "oid"},
        where="true",
        object=("'pg_publication'::regclass", "prpubid", "0"),
    ),
    Source(
        "pg_subscription",
        {
            "subowner": "owner {role}",
            "subenabled": {"true": "enabled"},
            "subconninfo": "connection {hidden}",
            "subslotname": "slot {name}",
            "subpublications": "publications {list}",
            "subsynccommit": "synchronous_commit {}",
            "subbinary": {"true": "binary"},
            "substream": {"true": "streaming", "t": "streaming", "p": "streaming in parallel"},
            "subtwophasestate": {"p": "two phase", "e": "two phase"},
            "subdisableonerr": {"true": "disabled on error"},
            "subpasswordrequired": {"false": "no password required"},
            "subrunasowner": {"true": "run as owner"},
            "suborigin": "origin {}",
            "subfailover": {"true": "failover"},
        },
        named="subname",
        defined="subdbid",
        omitted={NUMBER: "oid", STATE: "subskiplsn"},
        where="subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ),
    Source(
        "pg_foreign_data_wrapper",
        {
            "fdwowner": "owner {role}",
            "fdwhandler": "handler {routine}",
            "fdwvalidator": "validator {routine}",
            "fdwoptions": "options ({options})",
        },
        named="fdwname",
        omitted={NUMBER: "oid"},
        acl=Acl("fdwacl", "fdwowner", "'F'"),
    ),
    Source(
        "pg_foreign_server",
        {
            "srvowner": "owner {role}",
            "srvfdw": "foreign data wrapper {pg_foreign_data_wrapper}",
            "srvtype": "type {quoted}",
            "srvversion": "version {quoted}",
            "srvoptions": "options ({options})",
        },
        named="srvname",
        omitted={NUMBER: "oid"},
        acl=Acl("srvacl", "srvowner", "'S'"),
    ),
    # Only superusers can read the catalog. The view shows the options to those they concern.
    Source(
        "pg_user_mapping",
        {"umoptions": "options ({hidden options})"},
        definition="CASE WHEN umoptions IS NULL THEN 'no options' END",
        named="umuser umserver",
        omitted={NUMBER: "oid"},
        read="(SELECT umid AS oid, umuser, srvid AS umserver, umoptions FROM pg_user_mappings)"
        " AS pg_user_mapping",
    ),
    Source(
        "pg_default_acl",
        {"defaclacl": "{list}"},
        named="defaclrole defaclnamespace defaclobjtype",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_cast",
        {
            "castmethod": {"i": "with inout", "b": "without function"},
            "castfunc": "with function {routine}",
            "castcontext": {"a": "as assignment", "i": "as implicit", "e": "explicit"},
        },
        named="castsource casttarget",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_collation",
        {
            "collowner": "owner {role}",
            "collprovider": {"c": "libc", "i": "icu", "b": "builtin", "d": "default"},
            "collcollate": "lc_collate {quoted}",
            "collctype": "lc_ctype {quoted}",
            "colllocale": "locale {quoted}",
            "colliculocale": "locale {quoted}",
            "collicurules": "rules {quoted}",
            "collisdeterministic": {"false": "not deterministic"},
            "collversion": "version {quoted}",
        },
        named="collname collnamespace",
        omitted={NUMBER: "oid", FOLLOWS: "collencoding"},
    ),
    Source(
        "pg_conversion",
        {
            "conowner": "owner {role}",
            "conforencoding": "from {encoding}",
            "contoencoding": "to {encoding}",
            "conproc": "function {routine}",
            "condefault": {"true": "default"},
        },
        named="conname connamespace",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_language",
        {
            "lanowner": "owner {role}",
            "lanpltrusted": {"true": "trusted"},
            "lanplcallfoid": "handler {routine}",
            "laninline": "inline {routine}",
            "lanvalidator": "validator {routine}",
        },
        named="lanname",
        omitted={NUMBER: "oid", FOLLOWS: "lanispl"},
        acl=Acl("lanacl", "lanowner", "'l'"),
    ),
    Source(
        "pg_transform",
        {"trffromsql": "from sql {routine}", "trftosql": "to sql {routine}"},
        named="trftype trflang",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_am",
        {"amhandler": "handler {routine}", "amtype": {"i": "of indexes", "t": "of tables"}},
        named="amname",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_operator",
        {
            "oprowner": "owner {role}",
            "oprcode": "function {routine}",
            "oprresult": "returns {type}",
            "oprcom": "commutator {pg_operator}",
            "oprnegate": "negator {pg_operator}",
            "oprrest": "restrict {routine}",
            "oprjoin": "join {routine}",
            "oprcanhash": {"true": "hashes"},
            "oprcanmerge": {"true": "merges"},
        },
        named="oprname oprnamespace oprleft oprright",
        omitted={NUMBER: "oid", FOLLOWS: "oprkind"},
    ),
    Source(
        "pg_opfamily",
        {"opfowner": "owner {role}"},
        named="opfname opfnamespace opfmethod",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_opclass",
        {
            "opcowner": "owner {role}",
            "opcdefault": {"true": "default"},
            "opcintype": "for {type}",
            "opcfamily": "family {pg_opfamily}",
            "opckeytype": "storage {type}",
        },
        named="opcname opcnamespace opcmethod",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_amop",
        {
            "amopopr": "{pg_operator}",
            "amoppurpose": {"s": "for search", "o": "for order by"},
            "amopsortfamily": "{pg_opfamily}",
        },
        named="amopfamily amoplefttype amoprighttype amopstrategy",
        omitted={NUMBER: "oid", FOLLOWS: "amopmethod"},
    ),
    Source(
        "pg_amproc",
        {"amproc": "{routine}"},
        named="amprocfamily amproclefttype amprocrighttype amprocnum",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_ts_parser",
        {
            "prsstart": "start {routine}",
            "prstoken": "gettoken {routine}",
            "prsend": "end {routine}",
            "prslextype": "lextypes {routine}",
            "prsheadline": "headline {routine}",
        },
        named="prsname prsnamespace",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_ts_template",
        {"tmplinit": "init {routine}", "tmpllexize": "lexize {routine}"},
        named="tmplname tmplnamespace",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_ts_dict",
        {
            "dictowner": "owner {role}",
            "dicttemplate": "template {pg_ts_template}",
            "dictinitoption": "options ({})",
        },
        named="dictname dictnamespace",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_ts_config",
        {"cfgowner": "owner {role}", "cfgparser": "parser {pg_ts_parser}"},
        named="cfgname cfgnamespace",
        omitted={NUMBER: "oid"},
    ),
    Source(
        "pg_ts_config_map",
        {
            "mapdict": Sql(
                "CASE mapseqno WHEN 1 THEN E'\\n' || alias || ': ' ELSE 'then ' END"
                " || mapdict::regdictionary"
            )
        },
        named="mapcfg",
        defined="maptokentype mapseqno",
        joined="JOIN pg_ts_config ON pg_ts_config.oid = mapcfg JOIN (SELECT prs, tokid, alias"
        " FROM (SELECT DISTINCT cfgparser FROM pg_ts_config"
        f" WHERE oid >= {FIRST_USER_OID}) AS p (prs), ts_token_type(prs))"
        " AS token ON prs = cfgparser AND tokid = maptokentype",
        object=("'pg_ts_config'::regclass", "mapcfg", "0"),
        order="maptokentype * 1000 + mapseqno",
    ),
    Source(
        "pg_proc",
        {"proowner": "owner {role}"},
        definition="E'\\n' || CASE prokind WHEN 'a'"
        " THEN concat_ws(' ', '(' || pg_get_function_arguments(pg_proc.oid) || ')', 'returns',"
        " format_type(prorettype, NULL),"
        " CASE proparallel WHEN 's' THEN 'parallel safe' WHEN 'r' THEN 'parallel restricted' END)"
        " ELSE pg_get_functiondef(pg_proc.oid) END",
        named="proname pronamespace proargtypes prokind",
        defined="prolang procost prorows prosupport prosecdef proleakproof proisstrict proretset"
        " provolatile proparallel prorettype proallargtypes proargmodes proargnames proargdefaults"
        " protrftypes prosrc probin prosqlbody proconfig",
        omitted={NUMBER: "oid", FOLLOWS: "provariadic pronargs pronargdefaults"},
        acl=Acl("proacl", "proowner", "'f'"),
    ),
    Source(
        "pg_aggregate",
        {
            "aggtransfn": Sql("E'\\nsfunc ' || aggtransfn::oid::regprocedure"),
            "aggtranstype": "stype {type}",
            "aggtransspace": "sspace {number}",
            "agginitval": "initcond {quoted}",
            "aggfinalfn": "finalfunc {routine}",
            "aggfinalextra": {"true": "finalfunc_extra"},
            "aggfinalmodify": {"s": "finalfunc shareable", "w": "finalfunc read_write"},
            "aggcombinefn": "combinefunc {routine}",
            "aggserialfn": "serialfunc {routine}",
            "aggdeserialfn": "deserialfunc {routine}",
            "aggmtransfn": "msfunc {routine}",
            "aggminvtransfn": "minvfunc {routine}",
            "aggmtranstype": "mstype {type}",
            "aggmtransspace": "msspace {number}",
            "aggminitval": "minitcond {quoted}",
            "aggmfinalfn": "mfinalfunc {routine}",
            "aggmfinalextra": {"true": "mfinalfunc_extra"},
            "aggmfinalmodify": {"s": "mfinalfunc shareable", "w": "mfinalfunc read_write"},
            "aggsortop": "sortop {pg_operator}",
            "aggkind": {"o": "ordered-set", "h": "hypothetical"},
            "aggnumdirectargs": "direct arguments {number}",
        },
        named="aggfnoid",
        object=("'pg_proc'::regclass", "aggfnoid::oid", "0"),
    ),
    Source(
        "pg_database",
        {
            "datdba": "owner {role}",
            "datistemplate": {"true": "template"},
            "datallowconn": {"false": "no connections"},
            "datconnlimit": Sql("'connection limit ' || nullif(datconnlimit, -1)"),
            "datcollversion": "collation version {quoted}",
        },
        omitted={
            NUMBER: "oid",
            SCRATCH: "datname",
            CREATION: "encoding datcollate datctype datlocprovider daticulocale datlocale"
            " daticurules",
            STORAGE: "dattablespace datfrozenxid datminmxid datlastsysoid",
            FOLLOWS: "dathasloginevt",
        },
        acl=Acl("datacl", "datdba", "'d'", "datname = current_database()"),
        where="datname = current_database()",
    ),
    Source(
        "pg_db_role_setting",
        {"setconfig": "{options}"},
        named="setrole",
        defined="setdatabase",
        where="setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        before="'parameters of '",
        object=(
            "CASE setrole WHEN 0 THEN 'pg_database'::regclass ELSE 'pg_authid'::regclass END",
            "CASE setrole WHEN 0 THEN setdatabase ELSE setrole END",
            "0",
        ),
    ),
    Source(
        "pg_description",
        {"description": "{quoted}"},
        named="objoid classoid objsubid",
        where=f"objoid >= {FIRST_USER_OID}"
        " OR classoid IN ('pg_namespace'::regclass, 'pg_extension'::regclass)",
        before="'comment on '",
        object=("classoid", "objoid", "objsubid"),
    ),
    Source(
        "pg_shdescription",
        {"description": "{quoted}"},
        named="classoid objoid",
        where="classoid = 'pg_database'::regclass"
        " AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        before="'comment on '",
        object=("classoid", "objoid", "0"),
    ),
    Source(
        "pg_seclabel",
        {"label": "{quoted}"},
        named="objoid classoid objsubid provider",
        where=f"objoid >= {FIRST_USER_OID}",
        before="'security label of ' || provider || ' on '",
        object=("classoid", "objoid", "objsubid"),
    ),
    Source(
        "pg_shseclabel",
        {"label": "{quoted}"},
        named="classoid objoid provider",
        where="classoid = 'pg_database'::regclass"
        " AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        before="'security label of ' || provider || ' on '",
        object=("classoid", "objoid", "0"),
    ),
    Source("pg_largeobject", omitted={ROWS: "loid pageno data"}),
    Source("pg_largeobject_metadata", omitted={ROWS: "oid lomowner lomacl"}),
    Source("pg_init_privs", omitted={ORIGIN: "objoid classoid objsubid privtype initprivs"}),
    Source(
        "pg_shdepend",
        omitted={FOLLOWS: "dbid classid objid objsubid refclassid refobjid deptype"},
    ),
    Source(
        "pg_statistic",
        omitted={
            ESTIMATE: "starelid staattnum stainherit stanullfrac stawidth stadistinct"
            " stakind1 stakind2 stakind3 stakind4 stakind5 staop1 staop2 staop3 staop4 staop5"
            " stacoll1 stacoll2 stacoll3 stacoll4 stacoll5"
            " stanumbers1 stanumbers2 stanumbers3 stanumbers4 stanumbers5"
            " stavalues1 stavalues2 stavalues3 stavalues4 stavalues5"
        },
    ),
    Source(
        "pg_statistic_ext_data",
        omitted={ESTIMATE: "stxoid stxdinherit stxdndistinct stxddependencies stxdmcv stxdexpr"},
    ),
    Source("pg_subscription_rel", omitted={STATE: "srsubid srrelid srsubstate srsublsn"}),
    Source(
        "pg_authid",
        omitted={
            SERVER: "oid rolname rolsuper rolinherit rolcreaterole rolcreatedb rolcanlogin"
            " rolreplication rolbypassrls rolconnlimit rolpassword rolvaliduntil"
        },
    ),
    Source(
        "pg_auth_members",
        omitted={SERVER: "oid roleid member grantor admin_option inherit_option set_option"},
    ),
    Source("pg_parameter_acl", omitted={SERVER: "oid parname paracl"}),
    Source("pg_replication_origin", omitted={SERVER: "roident roname"}),
    Source("pg_tablespace", omitted={SERVER: "oid spcname spcowner spcacl spcoptions"}),
)
