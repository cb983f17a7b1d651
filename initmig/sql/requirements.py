"""The privileges and the server version that the SQL of migrations requires.

Only statements that PostgreSQL's parser can read count. The code of functions, DO blocks and
EXECUTE is not analysed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from initmig.core.records import Record
from initmig.sql.statements import nodes, read_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from initmig.core.errors import Place
    from initmig.core.model import Step
    from initmig.sql.statements import Node

Privilege = Literal[
    "owner", "drop", "index", "REFERENCES", "TRIGGER", "INSERT", "UPDATE", "DELETE", "TRUNCATE"
]
"""A privilege on a table, or ``owner`` if the role must own it.

``drop``: the owner of the schema is enough. ``index``: CREATE in the schema is required too.
"""


class Relation(Record):
    """The name of a table, a view, an index or a sequence, as in the catalog."""

    schema: str
    """Empty if the search path decides."""
    name: str


class Uses(Record):
    """A statement that requires a *privilege* on a relation, if that exists; *action* is a verb."""

    relation: Relation
    privilege: Privilege
    action: str


class Makes(Record):
    """A statement that makes a relation, which then belongs to the migrations."""

    relation: Relation


class Fills(Record):
    """A statement that makes an object in a *schema* that it names."""

    schema: str


class Creates(Record):
    """CREATE of an object outside of schemas; *version* is an extension's, if it is given."""

    what: Literal["extension", "schema", "database", "role"]
    name: str
    version: str = ""


class Requires(Record):
    """A statement that needs a server of at least this *major* version."""

    what: str
    major: int


class Obscures(Record):
    """A statement that changes the meaning of names or the privileges, such as SET ROLE."""

    setting: str


Requirement = Uses | Makes | Fills | Creates | Requires | Obscures


class StatedRequirement(Record):
    """A requirement of a statement that begins at the byte *start* of a step in the file *path*."""

    path: str
    step: Step
    start: int
    requirement: Requirement

    @property
    def place(self) -> Place:
        """The place of the statement."""
        return self.step.place_at(self.start)


def read_requirements(path: str, step: Step) -> tuple[tuple[StatedRequirement, ...], str]:
    """The requirements of a *step* in SQL, in order, and why the parser did not read all of it.

    A step whose errors are ignored has no requirements.
    """
    if "apply" in step.may_fail:
        return (), ""
    found, fell_back = read_each(step.data, lambda tree: tuple(_requirements_of(tree)))
    stated = (
        StatedRequirement(path, step, start, requirement)
        for start, _, requirements in found
        for requirement in requirements or ()
    )
    return tuple(stated), fell_back


def outstanding(stated: Iterable[StatedRequirement], home: str) -> Iterator[StatedRequirement]:
    """The requirements that the database must meet, without those on objects of the migrations.

    Names without a schema are created in the schema *home*. Once a file has set another role or
    search path, the meaning of its names is unknown.
    """
    made: set[Relation] = set()
    schemas: set[str] = set()
    path, obscured = "", set[str]()
    for each in stated:
        if each.path != path:
            path, obscured = each.path, set()
        match each.requirement:
            case Obscures(setting):
                obscured.add(setting)
                yield each
            case Uses(relation, _, _) | Makes(relation) if _is_obscure(relation, obscured):
                pass
            case Makes(relation):
                made.add(_at_home(relation, home))
            case Uses(relation, _, _) if _at_home(relation, home) in made:
                pass
            case Creates() | Fills() if obscured - {_SEARCH_PATH}:
                pass
            case Fills(schema) if schema in schemas:
                pass
            case Creates("schema", name):
                schemas.add(name)
                yield each
            case _:
                yield each


_SEARCH_PATH = "search_path"


def _is_obscure(relation: Relation, obscured: set[str]) -> bool:
    return bool(obscured - {_SEARCH_PATH}) or bool(obscured and not relation.schema)


def _at_home(relation: Relation, home: str) -> Relation:
    return relation if relation.schema else relation._replace(schema=home)


def _requirements_of(tree: Node) -> Iterator[Requirement]:
    [(kind, node)] = tree.items()
    read = _STATEMENTS.get(kind)
    if read:
        yield from read(node)
    yield from _filled(kind, node)
    yield from _made(kind, node)  # before its references: a table may reference itself
    for name, each in nodes(tree):
        if each.get("contype") == "CONSTR_FOREIGN" and "pktable" in each:
            yield from _uses(each["pktable"], "REFERENCES", "references")
        yield from (rule for rule, applies in _RULES if applies(name, each))


def _relation(node: Node) -> Relation:
    return Relation(node.get("schemaname", ""), node["relname"])


def _named(items: Iterable[Node]) -> Relation:
    """The relation with these parts of a name, ``a.b`` or ``b``."""
    *schema, name = [item["String"]["sval"] for item in items]
    return Relation(schema[-1] if schema else "", name)


def _uses(node: Node, privilege: Privilege, action: str) -> Iterator[Requirement]:
    if node.get("relpersistence") != "t":
        yield Uses(_relation(node), privilege, action)


def _using(
    privilege: Privilege, action: str, key: str = "relation"
) -> Callable[[Node], Iterator[Requirement]]:
    return lambda node: _uses(node[key], privilege, action) if key in node else iter(())


def _create_table(node: Node) -> Iterator[Requirement]:
    for parent in node.get("inhRelations", ()):
        yield from _uses(parent["RangeVar"], "owner", "attaches a table to")


def _create_view(node: Node) -> Iterator[Requirement]:
    if "replace" in node:
        yield from _uses(node["view"], "owner", "replaces")


def _alter_table(node: Node) -> Iterator[Requirement]:
    yield from _uses(node["relation"], "owner", "alters")
    for command in node["cmds"]:
        match command:
            case {
                "AlterTableCmd": {
                    "subtype": "AT_AttachPartition",
                    "def": {"PartitionCmd": {"name": partition}},
                }
            }:
                yield from _uses(partition, "owner", "attaches")


_RELATIONS = ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE")
_OF_TABLES = ("TRIGGER", "POLICY", "RULE")


def _drop(node: Node) -> Iterator[Requirement]:
    what = node["removeType"].removeprefix("OBJECT_")
    for each in node["objects"]:
        if what in _RELATIONS:
            yield Uses(_named(each["List"]["items"]), "drop", "drops")
        elif what in _OF_TABLES:
            table = _named(each["List"]["items"][:-1])
            yield Uses(table, "owner", f"drops a {what.lower()} of")


def _rename(node: Node) -> Iterator[Requirement]:
    if "relation" in node:
        yield from _uses(node["relation"], "index" if _renames(node) else "owner", "renames")


def _renames(node: Node) -> bool:
    """Whether it renames the relation itself, not a part of it."""
    return "relation" in node and node["renameType"].removeprefix("OBJECT_") in _RELATIONS


def _truncate(node: Node) -> Iterator[Requirement]:
    for each in node["relations"]:
        yield from _uses(each["RangeVar"], "TRUNCATE", "truncates")


def _create_extension(node: Node) -> Iterator[Requirement]:
    options = [option["DefElem"] for option in node.get("options", ())]
    versions = [
        each["arg"]["String"]["sval"] for each in options if each["defname"] == "new_version"
    ]
    yield Creates("extension", node["extname"], "".join(versions[:1]))


def _create_schema(node: Node) -> Iterator[Requirement]:
    if "schemaname" in node:
        yield Creates("schema", node["schemaname"])


def _set(node: Node) -> Iterator[Requirement]:
    if node.get("name") in (_SEARCH_PATH, "role", "session_authorization"):
        yield Obscures(node["name"])


_STATEMENTS: dict[str, Callable[[Node], Iterator[Requirement]]] = {
    "CreateStmt": _create_table,
    "ViewStmt": _create_view,
    "AlterTableStmt": _alter_table,
    "AlterObjectSchemaStmt": _using("owner", "moves"),
    "DropStmt": _drop,
    "RenameStmt": _rename,
    "IndexStmt": _using("index", "indexes"),
    "CreateTrigStmt": _using("TRIGGER", "creates a trigger on"),
    "RuleStmt": _using("owner", "creates a rule on"),
    "CreatePolicyStmt": _using("owner", "creates a policy on", "table"),
    "AlterPolicyStmt": _using("owner", "alters a policy of", "table"),
    "InsertStmt": _using("INSERT", "inserts into"),
    "UpdateStmt": _using("UPDATE", "updates"),
    "DeleteStmt": _using("DELETE", "deletes from"),
    "TruncateStmt": _truncate,
    "CreateExtensionStmt": _create_extension,
    "CreateSchemaStmt": _create_schema,
    "CreatedbStmt": lambda node: iter([Creates("database", node["dbname"])]),
    "CreateRoleStmt": lambda node: iter([Creates("role", node["role"])]),
    "VariableSetStmt": _set,
}


def _filled(kind: str, node: Node) -> Iterator[Requirement]:
    match kind, node:
        case (
            ("CreateStmt", {"relation": {"schemaname": schema}})
            | ("ViewStmt", {"view": {"schemaname": schema}})
            | ("CreateTableAsStmt", {"into": {"rel": {"schemaname": schema}}})
            | ("CreateSeqStmt", {"sequence": {"schemaname": schema}})
            | ("AlterObjectSchemaStmt", {"newschema": schema})
        ):
            yield Fills(schema)


def _made(kind: str, node: Node) -> Iterator[Requirement]:
    match kind, node:
        # with IF NOT EXISTS, the relation can be an existing one
        case (("CreateStmt" | "CreateTableAsStmt" | "IndexStmt"), {"if_not_exists": True}):
            return
        case ("CreateStmt", {"relation": made}) | ("ViewStmt", {"view": made}):
            yield Makes(_relation(made))
        case "CreateTableAsStmt", {"into": {"rel": made}}:
            yield Makes(_relation(made))
        case ("IndexStmt", {"idxname": name}) | ("RenameStmt", {"newname": name}):
            if kind == "IndexStmt" or _renames(node):
                yield Makes(_relation(node["relation"])._replace(name=name))
        case "AlterObjectSchemaStmt", {"relation": {"relname": name}, "newschema": schema}:
            yield Makes(Relation(schema, name))


# New features in the release notes that the tree shows beyond doubt. The parser does not read
# syntax that is newer than itself.
# https://www.postgresql.org/docs/release/
_RULES: tuple[tuple[Requires, Callable[[str, Node], bool]], ...] = (
    (Requires("NULLS NOT DISTINCT", 15), lambda _, node: "nulls_not_distinct" in node),
    (Requires("MERGE", 15), lambda name, _: name == "MergeStmt"),
    (
        Requires("ON DELETE SET with a list of columns", 15),
        lambda _, node: "fk_del_set_cols" in node,
    ),
    (
        Requires("a view with security_invoker", 15),
        lambda name, node: name == "DefElem" and node.get("defname") == "security_invoker",
    ),
    (
        Requires("ALTER TABLE ... SET ACCESS METHOD", 15),
        lambda _, node: node.get("subtype") == "AT_SetAccessMethod",
    ),
    (
        Requires("a subquery in FROM without an alias", 16),
        lambda name, node: name == "RangeSubselect" and "alias" not in node,
    ),
    (
        Requires("a JSON constructor of the SQL standard", 16),
        lambda name, _: name in ("JsonObjectConstructor", "JsonArrayConstructor"),
    ),
    (
        Requires("MERGE ... RETURNING", 17),
        lambda name, node: name == "MergeStmt" and "returningList" in node,
    ),
    (
        Requires("MERGE ... WHEN NOT MATCHED BY SOURCE", 17),
        lambda _, node: node.get("matchKind") == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE",
    ),
    (
        Requires("ALTER COLUMN ... SET EXPRESSION", 17),
        lambda _, node: node.get("subtype") == "AT_SetExpression",
    ),
    (Requires("JSON_TABLE", 17), lambda name, _: name == "JsonTable"),
)
