"""The schema of a database as text, object by object, read from the system catalogs.

Every name is qualified, and no text contains an OID, so that two snapshots of the same schema are
equal. `catalogs` lists the columns that a snapshot contains or leaves out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.verify.catalogs import FIRST_USER_OID, FORMS, SOURCES, Sql
from initmig.history.location import home_of
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from initmig.commands.verify.catalogs import Acl, Phrase, Source
    from initmig.commands.verify.comparison import Snapshot
    from initmig.postgres import Session

# JIT compilation of so long a query would take longer than the query.
_SETTINGS = "SET LOCAL jit = off; "

_READABLE = """
SELECT relname || '.' || attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND attnum > 0
    AND has_column_privilege(c.oid, attnum, 'SELECT')"""

# Objects that are not compared:
# - the history, temporary tables, and the objects that belong to them
# - the members of extensions
# - parts of other objects, such as the functions and casts of a range type
_ABSENT = """
WITH RECURSIVE history AS (
    SELECT 'pg_class'::regclass::oid AS classid, oid AS objid FROM pg_class
    WHERE relname IN ({history}) OR relpersistence = 't'
    UNION SELECT d.classid, d.objid FROM history h
        JOIN pg_depend d ON d.refclassid = h.classid AND d.refobjid = h.objid
    WHERE deptype IN ('a', 'i')
), member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    UNION SELECT d.classid, d.objid FROM member m
        JOIN pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid
    WHERE deptype IN ('a', 'i')
), absent AS MATERIALIZED (
    SELECT classid, objid FROM history UNION ALL SELECT classid, objid FROM member
    UNION ALL SELECT classid, objid FROM pg_depend WHERE deptype = 'i'
        AND classid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_cast'::regclass)
)"""

_PHRASES = """
SELECT {number}::float8 AS source, ({order})::float8 AS place, {before} AS before,
    {classid}::oid AS classid, {objid} AS objid, {objsubid} AS objsubid, '' AS behind,
    concat_ws(' ', {phrases}) AS phrase
FROM {rows} WHERE ({where}) AND ({classid}, {objid}) NOT IN (SELECT classid, objid FROM absent)"""

_ACLS = """
SELECT {classid}::oid, {objid}, {objsubid}, {owner}, ({kind})::"char", {acl}
FROM {catalog} WHERE {acl} IS NOT NULL AND {where}"""

# The differences from the original privileges. Either initdb or the extension granted these, or
# they are the defaults for the kind of object.
_PRIVILEGES = """
SELECT {number}, 0, CASE WHEN now THEN 'grant on ' ELSE 'revoke on ' END, classid, objid, objsubid,
    CASE WHEN now THEN ' to ' ELSE ' from ' END
        || CASE grantee WHEN 0 THEN 'public' ELSE grantee::regrole::text END,
    string_agg(concat(lower(privilege_type), CASE WHEN is_grantable THEN ' with grant option' END,
        CASE WHEN grantor <> owner THEN ' by ' || grantor::regrole END), ', '
        ORDER BY privilege_type, is_grantable, grantor::regrole::text)
FROM ({acls}) AS owned (classid, objid, objsubid, owner, kind, acl)
, LATERAL (SELECT coalesce((SELECT initprivs FROM pg_init_privs p
    WHERE p.classoid = owned.classid AND p.objoid = owned.objid AND p.objsubid = owned.objsubid),
    acldefault(kind, owner))) AS t (original)
, LATERAL (SELECT * FROM (SELECT *, true AS now FROM aclexplode(acl)) AS a
    FULL JOIN (SELECT *, true AS before FROM aclexplode(original)) AS o
    USING (grantor, grantee, privilege_type, is_grantable)) AS differing
WHERE acl IS DISTINCT FROM original AND (now IS NULL OR before IS NULL)
    AND (classid, objid) NOT IN (SELECT classid, objid FROM history)
GROUP BY now, classid, objid, objsubid, grantee"""

_ALL = """{absent}
SELECT before || CASE WHEN classid = 'pg_database'::regclass THEN 'the database'
    WHEN classid IN ('pg_amop'::regclass, 'pg_amproc'::regclass) THEN identity
    ELSE type || ' ' || identity END || behind, phrase
FROM ({sources}) AS said, pg_identify_object(classid, objid, objsubid)
WHERE phrase <> '' ORDER BY source, place, phrase"""


def take_snapshot(session: Session) -> Snapshot:
    """The current schema: the definition of each object by its kind and name.

    :raises InitmigError: a query failed
    """
    readable = {name for (name,) in session.query(_READABLE)}
    snapshot: dict[str, str] = {}
    for name, phrase in session.query(_SETTINGS + _query(readable, home_of(session).tables)):
        snapshot[name] = f"{snapshot[name]} {phrase}" if name in snapshot else phrase
    return snapshot


def _query(readable: Collection[str], history: Iterable[str]) -> str:
    """The SQL for all *readable* columns, without the tables of the *history*."""
    catalogs = {column.partition(".")[0] for column in readable}
    sources = [
        _phrases(number, source, readable)
        for number, source in enumerate(SOURCES)
        if source.is_read and (source.read or source.catalog in catalogs)
    ]
    acls = "\nUNION ALL".join(_acl(source, source.acl) for source in SOURCES if source.acl)
    sources.append(_PRIVILEGES.format(number=len(SOURCES), acls=acls))
    absent = _ABSENT.format(history=", ".join(map(quote_literal, history)))
    return _ALL.format(absent=absent, sources="\nUNION ALL".join(sources))


def _phrases(number: int, source: Source, readable: Collection[str]) -> str:
    classid, objid, objsubid = source.address
    phrases = [
        _sql(column, phrase)
        for column, phrase in source.shown.items()
        if source.read or f"{source.catalog}.{column}" in readable
    ]
    return _PHRASES.format(
        number=number,
        order=source.order,
        before=source.before,
        classid=classid,
        objid=objid,
        objsubid=objsubid,
        phrases=", ".join([*phrases, source.definition or "NULL"]),
        rows=f"{source.read or source.catalog} {source.joined}",
        where=source.where or f"{objid} >= {FIRST_USER_OID}",
    )


def _acl(source: Source, acl: Acl) -> str:
    classid, objid, objsubid = source.address
    return _ACLS.format(
        classid=classid,
        objid=objid,
        objsubid=objsubid,
        owner=acl.owner,
        kind=acl.kind,
        acl=acl.column,
        catalog=source.catalog,
        where=acl.where,
    )


def _sql(column: str, phrase: Phrase) -> str:
    """The *phrase* as an SQL expression."""
    if isinstance(phrase, Sql):
        return phrase
    if not isinstance(phrase, str):
        cases = " ".join(
            f"WHEN {quote_literal(value)} THEN {quote_literal(words)}"
            for value, words in phrase.items()
        )
        return f"CASE {column}::text {cases} END"
    before, _, rest = phrase.partition("{")
    form, _, after = rest.partition("}")
    value = FORMS[form].format(column=column)
    return f"{quote_literal(before)} || {value} || {quote_literal(after)}"
