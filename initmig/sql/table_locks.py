"""The relations that a statement locks, and the lock modes, by PostgreSQL's own rules.

The modes are those of the manual, and of AlterTableGetLockLevel() in PostgreSQL's tablecmds.c:
https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.sql.locks import LOCK_MODES, strongest
from initmig.sql.relations import RELATIONS, cascades
from initmig.sql.statements import nodes, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from initmig.sql.relations import ForeignKey, Relation, Relations
    from initmig.sql.statements import Node

    Taken = tuple[Relation, str]
    Rule = Callable[[Relations, Node], Iterator[Taken]]

_ACCESS_EXCLUSIVE, _EXCLUSIVE = "ACCESS EXCLUSIVE", "EXCLUSIVE"
_SHARE_ROW_EXCLUSIVE, _SHARE = "SHARE ROW EXCLUSIVE", "SHARE"
_SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
_ROW_EXCLUSIVE = "ROW EXCLUSIVE"


def locks_of(tree: Node, relations: Relations) -> Iterator[Taken]:
    """The locks of the statement with this *tree* on the *relations* before it."""
    [(kind, node)] = tree.items()
    rule = _STATEMENTS.get(kind)
    if rule:
        yield from rule(relations, node)
    if kind in QUERIES:
        yield from _written(relations, tree)


def _all(relations: Iterable[Relation], mode: str) -> Iterator[Taken]:
    return ((each, mode) for each in relations)


def _named(relations: Relations, node: Node, *, family: bool = False) -> list[Relation]:
    """The relation of a RangeVar and, with *family*, all below it unless ONLY is given."""
    found = relations.named(node)
    if found is None:
        return []
    return relations.family_of(found) if family and node.get("inh") else [found]


def _locking(mode: str, key: str = "relation", *, family: bool = False) -> Rule:
    def rule(relations: Relations, node: Node) -> Iterator[Taken]:
        if key in node:
            yield from _all(_named(relations, node[key], family=family), mode)

    return rule


def _ends(relations: Relations, keys: Iterable[ForeignKey], mode: str) -> Iterator[Taken]:
    """Both ends of foreign keys, with those of partitions."""
    for key in keys:
        for part in relations.parts_of(key):
            yield from _all(relations.ends_of(part), mode)


# --- ALTER TABLE ---

_WEAK_SUBCOMMANDS = {
    **dict.fromkeys(
        (
            *("AT_SetStatistics", "AT_ClusterOn", "AT_DropCluster", "AT_SetOptions"),
            *("AT_ResetOptions", "AT_ValidateConstraint", "AT_AttachPartition"),
            "AT_DetachPartitionFinalize",
        ),
        _SHARE_UPDATE_EXCLUSIVE,
    ),
    **dict.fromkeys(
        (
            *("AT_EnableTrig", "AT_EnableAlwaysTrig", "AT_EnableReplicaTrig", "AT_EnableTrigAll"),
            *("AT_EnableTrigUser", "AT_DisableTrig", "AT_DisableTrigAll", "AT_DisableTrigUser"),
        ),
        _SHARE_ROW_EXCLUSIVE,
    ),
}
# For all other options ShareUpdateExclusiveLock is enough: reloptions.c
_STRONG_OPTIONS = {
    *("user_catalog_table", "fastupdate", "gin_pending_list_limit", "buffering"),
    *("pages_per_range", "autosummarize", "security_barrier", "security_invoker", "check_option"),
}
_OPTIONS = ("AT_SetRelOptions", "AT_ResetRelOptions", "AT_ReplaceRelOptions")

# The commands that ATPrepCmd() also applies to the tables below.
_RECURSING = {
    *("AT_AddColumn", "AT_ColumnDefault", "AT_DropNotNull", "AT_SetNotNull", "AT_SetExpression"),
    *("AT_DropExpression", "AT_SetStatistics", "AT_SetStorage", "AT_DropColumn"),
    "AT_AlterColumnType",
}
_RECURSING_SINCE_17 = {"AT_AddIdentity", "AT_SetIdentity", "AT_DropIdentity"}


def _alter_table(relations: Relations, node: Node) -> Iterator[Taken]:
    table = relations.named(node["relation"])
    if table is None:
        return
    commands = [command["AlterTableCmd"] for command in node["cmds"]]
    mode = strongest(map(_mode_of, commands))
    yield table, mode
    for command in commands:
        if node["relation"].get("inh") and _recurses(relations, table, command):
            yield from _all(relations.family_of(table), mode)
        if rule := _COMMANDS.get(command["subtype"]):
            yield from rule(relations, table, command)


def _mode_of(command: Node) -> str:
    match command:
        case {"subtype": "AT_AddConstraint", "def": {"Constraint": {"contype": "CONSTR_FOREIGN"}}}:
            return _SHARE_ROW_EXCLUSIVE
        case {"def": {"PartitionCmd": {"concurrent": True}}}:
            return _SHARE_UPDATE_EXCLUSIVE
        case {"subtype": subtype, "def": {"List": {"items": options}}} if subtype in _OPTIONS:
            names = {option["DefElem"]["defname"] for option in options}
            return _ACCESS_EXCLUSIVE if names & _STRONG_OPTIONS else _SHARE_UPDATE_EXCLUSIVE
    return _WEAK_SUBCOMMANDS.get(command["subtype"], _ACCESS_EXCLUSIVE)


def _recurses(relations: Relations, table: Relation, command: Node) -> bool:
    subtype = command["subtype"]
    if subtype in _RECURSING_SINCE_17:
        return relations.server >= 17
    if subtype == "AT_AddConstraint":
        return bool(command["def"]["Constraint"]["contype"] in ("CONSTR_CHECK", "CONSTR_NOTNULL"))
    if subtype in ("AT_DropConstraint", "AT_ValidateConstraint"):
        return not (
            relations.foreign_key(table, command["name"])
            or relations.index_named(table, command["name"])
        )
    if _WEAK_SUBCOMMANDS.get(subtype) == _SHARE_ROW_EXCLUSIVE:
        return table.kind == "p"
    return subtype in _RECURSING


def _add_column(relations: Relations, table: Relation, command: Node) -> Iterator[Taken]:
    for each in command["def"]["ColumnDef"].get("constraints", ()):
        yield from _constraint(relations, table, each["Constraint"])


def _add_constraint(relations: Relations, table: Relation, command: Node) -> Iterator[Taken]:
    yield from _constraint(relations, table, command["def"]["Constraint"])


def _constraint(relations: Relations, table: Relation, constraint: Node) -> Iterator[Taken]:
    match constraint["contype"]:
        case "CONSTR_FOREIGN":
            yield from _all(_partitions(relations, table), _SHARE_ROW_EXCLUSIVE)
            yield from _referenced(relations, constraint)
        case "CONSTR_PRIMARY":  # and NOT NULL with it, also below
            yield from _all(relations.family_of(table), _ACCESS_EXCLUSIVE)
        case "CONSTR_UNIQUE" | "CONSTR_EXCLUSION":
            mode = _ACCESS_EXCLUSIVE if relations.server >= 18 else _SHARE
            yield from _all(_partitions(relations, table), mode)


def _partitions(relations: Relations, table: Relation) -> list[Relation]:
    """*table*, and where it is partitioned all below it."""
    return relations.family_of(table) if table.kind == "p" else [table]


def _referenced(relations: Relations, constraint: Node) -> Iterator[Taken]:
    for each in _named(relations, constraint["pktable"]):
        yield from _all(_partitions(relations, each), _SHARE_ROW_EXCLUSIVE)


def _drop_part(relations: Relations, table: Relation, command: Node) -> Iterator[Taken]:
    """DROP of a constraint or a column: the foreign keys and views that go with it."""
    yield from _ends(relations, relations.keys_dropped(table, command), _ACCESS_EXCLUSIVE)
    if command["subtype"] == "AT_DropColumn":
        yield from _all(relations.children_of(table), _ACCESS_EXCLUSIVE)  # also with ONLY
        if cascades(command):
            views = relations.views_of(table, command["name"])
            yield from _dropped(relations, views, cascade=True)
    elif index := relations.index_named(table, command["name"]):
        yield from _dropped(relations, [index], cascade=cascades(command))


def _alter_type(relations: Relations, table: Relation, command: Node) -> Iterator[Taken]:
    """Foreign keys of the column are dropped and made again."""
    keys = relations.keys_dropped(table, command)
    yield from _ends(relations, keys, _ACCESS_EXCLUSIVE)


def _alter_key(relations: Relations, table: Relation, command: Node) -> Iterator[Taken]:
    key = relations.foreign_key(table, command["def"]["Constraint"]["conname"])
    for part in relations.parts_of(key) if key else ():
        yield relations.ends_of(part)[0], _ACCESS_EXCLUSIVE


def _attach(relations: Relations, parent: Relation, command: Node) -> Iterator[Taken]:
    for partition in _named(relations, command["def"]["PartitionCmd"]["name"]):
        yield from _all(relations.family_of(partition), _ACCESS_EXCLUSIVE)
    if not parent.table:
        yield from _joined(relations, parent)


def _joined(relations: Relations, parent: Relation) -> Iterator[Taken]:
    """The locks of a new partition of *parent*: on the default one, and through foreign keys."""
    yield from _all(_default_of(relations, parent), _ACCESS_EXCLUSIVE)
    for key in relations.foreign_keys_of(parent):
        referencing, referenced = relations.ends_of(key)
        if referencing.id == parent.id:
            yield referenced, _SHARE_ROW_EXCLUSIVE
        elif relations.server >= 15:
            yield referencing, _SHARE_ROW_EXCLUSIVE


def _default_of(relations: Relations, parent: Relation) -> list[Relation]:
    return [each for each in relations.children_of(parent) if each.partition == "default"]


def _detach(relations: Relations, parent: Relation, command: Node) -> Iterator[Taken]:
    part = command["def"]["PartitionCmd"]
    mode = _SHARE_UPDATE_EXCLUSIVE if "concurrent" in part else _ACCESS_EXCLUSIVE
    yield from _all(_named(relations, part["name"]), mode)
    yield from _all(_default_of(relations, parent), mode)
    for key in relations.foreign_keys_of(parent):
        if key.table == parent.id:
            yield relations.ends_of(key)[1], _SHARE_ROW_EXCLUSIVE
        else:
            yield relations.ends_of(key)[0], _ACCESS_EXCLUSIVE


def _inherit(relations: Relations, _: Relation, command: Node) -> Iterator[Taken]:
    yield from _all(_named(relations, command["def"]["RangeVar"]), _SHARE_UPDATE_EXCLUSIVE)


_COMMANDS: Mapping[str, Callable[[Relations, Relation, Node], Iterator[Taken]]] = {
    "AT_AddColumn": _add_column,
    "AT_AddConstraint": _add_constraint,
    "AT_AddInherit": _inherit,
    "AT_AlterColumnType": _alter_type,
    "AT_AlterConstraint": _alter_key,
    "AT_AttachPartition": _attach,
    "AT_DetachPartition": _detach,
    "AT_DropColumn": _drop_part,
    "AT_DropConstraint": _drop_part,
}


# --- CREATE ---


def _create_table(relations: Relations, node: Node) -> Iterator[Taken]:
    if "if_not_exists" in node and relations.named(node["relation"]):
        return
    mode = _ACCESS_EXCLUSIVE if "partbound" in node else _SHARE_UPDATE_EXCLUSIVE
    for each in node.get("inhRelations", ()):
        for parent in _named(relations, each["RangeVar"]):
            yield parent, mode
            if "partbound" in node:
                yield from _joined(relations, parent)
    for name, each in nodes(node):
        if name == "Constraint" and each["contype"] == "CONSTR_FOREIGN":
            yield from _referenced(relations, each)


def _create_foreign_table(relations: Relations, node: Node) -> Iterator[Taken]:
    yield from _create_table(relations, node["base"])


def _create_schema(relations: Relations, node: Node) -> Iterator[Taken]:
    for each in node.get("schemaElts", ()):
        yield from locks_of(each, relations)


def _create_view(relations: Relations, node: Node) -> Iterator[Taken]:
    if "replace" in node:
        yield from _all(_named(relations, node["view"]), _ACCESS_EXCLUSIVE)


def _create_index(relations: Relations, node: Node) -> Iterator[Taken]:
    mode = _SHARE_UPDATE_EXCLUSIVE if "concurrent" in node else _SHARE
    for table in _named(relations, node["relation"]):
        below = node["relation"].get("inh") and table.kind == "p"
        yield from _all(relations.family_of(table) if below else [table], mode)


def _create_trigger(relations: Relations, node: Node) -> Iterator[Taken]:
    for table in _named(relations, node["relation"]):
        tables = _partitions(relations, table) if "row" in node else [table]
        yield from _all(tables, _SHARE_ROW_EXCLUSIVE)


def _several(mode: str, *, family: bool = False) -> Rule:
    def rule(relations: Relations, node: Node) -> Iterator[Taken]:
        for each in node["relations"]:
            if "RangeVar" in each:
                yield from _all(_named(relations, each["RangeVar"], family=family), mode)

    return rule


def _publication(relations: Relations, node: Node) -> Iterator[Taken]:
    for name, each in nodes(node):
        if name == "pubtable":
            for table in _named(relations, each["relation"]):
                below = each["relation"].get("inh") and table.kind != "p"
                tables = relations.family_of(table) if below else [table]
                yield from _all(tables, _SHARE_UPDATE_EXCLUSIVE)


# --- DROP and RENAME ---


def _drop(relations: Relations, node: Node) -> Iterator[Taken]:
    what = node["removeType"].removeprefix("OBJECT_")
    if "concurrent" in node:
        yield from _all(relations.dropped_by(node), _SHARE_UPDATE_EXCLUSIVE)
    elif what in RELATIONS or what == "SCHEMA":
        yield from _dropped(relations, relations.dropped_by(node), cascade=cascades(node))
    elif what in ("TRIGGER", "POLICY", "RULE"):
        for each in node["objects"]:
            if table := relations.listed(each["List"]["items"][:-1]):
                tables = _partitions(relations, table) if what == "TRIGGER" else [table]
                yield from _all(tables, _ACCESS_EXCLUSIVE)
    elif what == "STATISTIC_EXT":
        for each in node["objects"]:
            table = relations.of_statistics(each["List"]["items"])
            yield from _all([table] if table else [], _SHARE_UPDATE_EXCLUSIVE)


def _dropped(relations: Relations, named: Iterable[Relation], *, cascade: bool) -> Iterator[Taken]:
    dropped = relations.dropped_with(named, cascade=cascade)
    yield from _all(dropped, _ACCESS_EXCLUSIVE)
    ids = {each.id for each in dropped}
    for relation in dropped:
        if relation.partition:  # the others have to know what they may keep now
            for parent in relations.parents_of(relation):
                yield parent, _ACCESS_EXCLUSIVE
                yield from _all(_default_of(relations, parent), _ACCESS_EXCLUSIVE)
    tables = {relations.table_of(each).id: relations.table_of(each) for each in dropped}
    for key in relations.foreign_keys_of(*tables.values()):
        whole = relations.whole_of(key)
        # a key of a single partition does not lock the table that it refers to
        if whole.table in ids or key.referenced in ids or key.unique in ids:
            yield from _ends(relations, [whole], _ACCESS_EXCLUSIVE)


def _rename(relations: Relations, node: Node) -> Iterator[Taken]:
    if "relation" not in node:
        return
    what = node["renameType"].removeprefix("OBJECT_")
    mode = _SHARE_UPDATE_EXCLUSIVE if what == "INDEX" else _ACCESS_EXCLUSIVE
    family = what in ("COLUMN", "TABCONSTRAINT")
    for table in _named(relations, node["relation"], family=family):
        is_whole = what == "TRIGGER" and table.kind == "p" and relations.server >= 15
        yield from _all(relations.family_of(table) if is_whole else [table], mode)


# --- the rest ---


def _reindex(relations: Relations, node: Node) -> Iterator[Taken]:
    if "relation" not in node:
        return
    concurrently = options_of(node).get("concurrently", False)
    for found in _named(relations, node["relation"]):
        for each in relations.family_of(found):
            if concurrently:
                yield each, _SHARE_UPDATE_EXCLUSIVE
                continue
            yield relations.table_of(each), _SHARE
            indexes = [each] if each.table else relations.indexes_of(each)
            yield from _all(indexes, _ACCESS_EXCLUSIVE)


def _refresh(relations: Relations, node: Node) -> Iterator[Taken]:
    mode = _EXCLUSIVE if "concurrent" in node else _ACCESS_EXCLUSIVE
    yield from _all(_named(relations, node["relation"]), mode)


def _vacuum(relations: Relations, node: Node) -> Iterator[Taken]:
    mode = _ACCESS_EXCLUSIVE if options_of(node).get("full") else _SHARE_UPDATE_EXCLUSIVE
    for each in node.get("rels", ()):
        name = each["VacuumRelation"]["relation"]
        for table in _named(relations, name, family=relations.server >= 18):
            yield from _all(_partitions(relations, table), mode)


def _cluster(relations: Relations, node: Node) -> Iterator[Taken]:
    if "relation" in node:
        for table in _named(relations, node["relation"]):
            yield from _all(_partitions(relations, table), _ACCESS_EXCLUSIVE)


def _copy(relations: Relations, node: Node) -> Iterator[Taken]:
    if "is_from" in node:
        yield from _all(_named(relations, node["relation"]), _ROW_EXCLUSIVE)


def _truncate(relations: Relations, node: Node) -> Iterator[Taken]:
    tables = truncated(relations, node)
    yield from _all(tables, _ACCESS_EXCLUSIVE)


def truncated(relations: Relations, node: Node) -> list[Relation]:
    """All tables that a TRUNCATE empties."""
    found = {
        table.id: table
        for each in node["relations"]
        for table in _named(relations, each["RangeVar"], family=True)
    }
    left = list(found.values()) if cascades(node) else []
    for table in left:
        for key in relations.foreign_keys_of(table):
            referencing, referenced = relations.ends_of(key)
            if referenced.id == table.id and referencing.id not in found:
                found[referencing.id] = referencing
                left.append(referencing)
    return list(found.values())


def _lock(relations: Relations, node: Node) -> Iterator[Taken]:
    mode = LOCK_MODES[node["mode"] - 1]  # the parser counts them from 1
    for each in node["relations"]:
        for found in _named(relations, each["RangeVar"], family=True):
            yield found, mode
            yield from _all(_read_by(relations, found), mode)


def _read_by(relations: Relations, view: Relation) -> Iterator[Relation]:
    """The tables that a *view* reads, directly or through other views."""
    for each in relations.read_by(view) if view.kind == "v" else ():
        yield from relations.family_of(each)
        yield from _read_by(relations, each)


def _comment(relations: Relations, node: Node) -> Iterator[Taken]:
    what = node["objtype"].removeprefix("OBJECT_")
    if what in RELATIONS or what == "COLUMN":
        names = node["object"]["List"]["items"]
        found = relations.listed(names[:-1] if what == "COLUMN" else names)
        yield from _all([found] if found else [], _SHARE_UPDATE_EXCLUSIVE)


# --- rows ---

QUERIES = frozenset(
    (
        *("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CopyStmt"),
        *("CreateTableAsStmt", "ExplainStmt", "DeclareCursorStmt", "PrepareStmt"),
    )
)
"""Statements that can contain INSERT, UPDATE, DELETE or MERGE, to run or to prepare."""

_EVENTS = {"InsertStmt": "INSERT", "UpdateStmt": "UPDATE", "DeleteStmt": "DELETE"}


def writes_in(tree: Node) -> Iterator[tuple[Node, str, frozenset[str]]]:
    """Each RangeVar that a query writes to, with the event and the columns of an UPDATE."""
    for kind, node in nodes(tree):
        if kind in _EVENTS:
            yield node["relation"], _EVENTS[kind], _columns_set(node)
        if (conflict := node.get("onConflictClause")) and "targetList" in conflict:
            yield node["relation"], "UPDATE", _columns_set(conflict)
        if kind == "MergeStmt":
            for each in node["mergeWhenClauses"]:
                clause = each["MergeWhenClause"]
                event = clause.get("commandType", "").removeprefix("CMD_")
                yield node["relation"], event, _columns_set(clause)


def _columns_set(node: Node) -> frozenset[str]:
    targets = [each.get("ResTarget", {}) for each in node.get("targetList", ())]
    return frozenset(each["name"] for each in targets if "name" in each)


def _written(relations: Relations, tree: Node) -> Iterator[Taken]:
    for name, event, columns in writes_in(tree):
        for found in _named(relations, name):
            for each in written_relations(relations, found, event):
                yield from _changed(relations, each, event, columns, whole="inh" in name)


def written_relations(relations: Relations, written: Relation, event: str) -> Iterator[Relation]:
    """The relation written to, and the table of a view that PostgreSQL updates automatically."""
    yield written
    if written.kind == "v" and not any(
        each.instead and event in each.events for each in relations.programs_of(written)
    ):
        read = relations.read_by(written)
        if len(read) == 1:
            yield from written_relations(relations, read[0], event)


def _changed(
    relations: Relations, table: Relation, event: str, columns: frozenset[str], *, whole: bool
) -> Iterator[Taken]:
    """Locks on a table whose rows change, its children, and tables whose foreign keys follow it."""
    family = relations.family_of(table) if whole and event != "INSERT" else [table]
    left, seen = list(family), {each.id for each in family}
    yield from _all(family, _ROW_EXCLUSIVE)
    for each in left:
        for key in relations.foreign_keys_of(each):
            referencing, referenced = relations.ends_of(key)
            if referenced.id != each.id or not _follows(key, event, columns):
                continue
            yield from _all(relations.family_of(referencing), _ROW_EXCLUSIVE)
            if referencing.id not in seen and event == "DELETE" and key.on_delete == "c":
                seen.add(referencing.id)
                left.append(referencing)


def _follows(key: ForeignKey, event: str, columns: frozenset[str]) -> bool:
    """Whether rows with the foreign *key* change together with the rows they refer to."""
    acting = {"DELETE": key.on_delete, "UPDATE": key.on_update}.get(event, "a")
    is_touched = event == "DELETE" or not columns.isdisjoint(key.referenced_columns)
    return acting in ("c", "n", "d") and is_touched


_STATEMENTS: Mapping[str, Rule] = {
    "AlterObjectSchemaStmt": _locking(_ACCESS_EXCLUSIVE),
    "AlterPolicyStmt": _locking(_ACCESS_EXCLUSIVE, "table"),
    "AlterPublicationStmt": _publication,
    "AlterTableStmt": _alter_table,
    "ClusterStmt": _cluster,
    "CommentStmt": _comment,
    "CopyStmt": _copy,
    "CreateForeignTableStmt": _create_foreign_table,
    "CreatePolicyStmt": _locking(_ACCESS_EXCLUSIVE, "table"),
    "CreatePublicationStmt": _publication,
    "CreateSchemaStmt": _create_schema,
    "CreateStatsStmt": _several(_SHARE_UPDATE_EXCLUSIVE),
    "CreateStmt": _create_table,
    "CreateTrigStmt": _create_trigger,
    "DropStmt": _drop,
    "IndexStmt": _create_index,
    "LockStmt": _lock,
    "RefreshMatViewStmt": _refresh,
    "ReindexStmt": _reindex,
    "RenameStmt": _rename,
    "RuleStmt": _locking(_ACCESS_EXCLUSIVE),
    "SecLabelStmt": _comment,
    "TruncateStmt": _truncate,
    "VacuumStmt": _vacuum,
    "ViewStmt": _create_view,
}
