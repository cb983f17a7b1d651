"""`doctor --app-role`: the privileges that the application lacks, on existing and on new tables.

The catalog shows the missing privileges. If the session can switch to the application's role, it
also tries each operation. On existing tables it uses EXPLAIN: the server checks the privileges but
runs nothing, so no trigger fires, no sequence advances and no row is locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor import app_privileges as privileges
from initmig.commands.doctor import queries
from initmig.commands.doctor.app_queries import AppQueries
from initmig.commands.doctor.checks import refused_check
from initmig.commands.doctor.savepoint import rolled_back_savepoint
from initmig.core.errors import DatabaseRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Check
    from initmig.commands.doctor.facts import AppObject, AppSchema, MigrationRole, Schema, Server
    from initmig.config.config import Config
    from initmig.postgres import Session

_STATEMENTS = {
    "SELECT": "SELECT * FROM {name} WHERE false",
    "INSERT": "INSERT INTO {name} DEFAULT VALUES",
    "UPDATE": "UPDATE {name} SET {column} = DEFAULT WHERE false",
    "DELETE": "DELETE FROM {name} WHERE false",
}
_STATEMENTS_PER_QUERY = 200

_CREATE_TABLE = "CREATE TABLE {name} (id serial, note text)"
_USE_TABLE = """
INSERT INTO {name} DEFAULT VALUES;
SELECT * FROM {name};
UPDATE {name} SET note = 'two';
DELETE FROM {name}"""


def check_application(
    session: Session,
    config: Config,
    server: Server,
    migration_role: MigrationRole,
    default_schema: Schema,
) -> Iterator[Check]:
    """Check the application's role in the schemas of the search path.

    Without `--schema`, also check other schemas where the migration role owns a table.
    """
    history = queries.history_names(session)
    app_queries = AppQueries(session, config.app_role, history)
    app = app_queries.role()
    if app is None:
        yield privileges.missing_role(queries.quoted(session, config.app_role))
        return
    if app.switches_to:
        app_queries = AppQueries(session, app.switches_to, history)
    name = queries.quoted(session, app.switches_to or app.key)
    application = _Application(session, app_queries, name, migration_role)
    can_switch = application.can_switch
    yield from privileges.check_role(app, server, default_schema, tried=can_switch)
    if app.is_superuser:
        return
    schemas = app_queries.schemas(everywhere=not config.schema)
    yield from application.check_existing_tables(schemas, default_schema)
    if not server.standby:
        yield from application.check_new_tables(schemas, default_schema)


class _Application:
    """The application's role *name*, quoted. The session acts as it if the server allows that."""

    def __init__(
        self, session: Session, queries: AppQueries, name: str, migration_role: MigrationRole
    ) -> None:
        self._session = session
        self._queries = queries
        self._name = name
        self._migration_role = migration_role
        self.can_switch = self._try("SELECT") is None
        """Whether the session can switch to the role."""

    def check_existing_tables(
        self, schemas: Sequence[AppSchema], default_schema: Schema
    ) -> Iterator[Check]:
        """Check the existing tables, views and sequences, and the functions they call."""
        objects = self._queries.objects([each.key for each in schemas])
        used_schemas = {default_schema.name, *(each.schema for each in objects)}
        used = [each for each in schemas if each.name in used_schemas]
        keys = [each.key for each in schemas]
        failing_calls = [
            *privileges.check_functions(self._queries.functions(keys), self._name),
            *privileges.check_views(self._queries.views(keys)),
        ]
        checks = [
            *privileges.check_schemas(used, self._name),
            *privileges.check_objects(objects, self._name),
            *failing_calls,
            *privileges.check_row_security(objects, self._name),
        ]
        if self.can_switch and not failing_calls:
            reachable = {each.name for each in used if each.has_usage}
            checks.extend(self._explain(_statements(o for o in objects if o.schema in reachable)))
        yield from checks or [privileges.usable_objects(objects, used)]

    def check_new_tables(
        self, schemas: Sequence[AppSchema], default_schema: Schema
    ) -> Iterator[Check]:
        """Check a new table in each schema where the migration role creates tables."""
        targets = [
            each
            for each in schemas
            if each.has_create and (each.has_tables or each.name == default_schema.name)
        ]
        checks = [check for each in targets for check in self._check_new_table(each)]
        names = [each.name for each in targets]
        yield from checks or [privileges.usable_new_tables(names, self._migration_role)]

    def _check_new_table(self, schema: AppSchema) -> Iterator[Check]:
        [(pid,)] = self._session.query("SELECT pg_backend_pid()")
        table = f"{schema.name}._initmig_doctor_{pid}"
        with rolled_back_savepoint(self._session):
            try:
                self._session.query(_CREATE_TABLE.format(name=table))
            except DatabaseRefused as error:
                yield refused_check(privileges.NEW_TABLES, error.problems[0])
                return
            lacking, uses_sequence = self._queries.lacking_on(table)
            found = privileges.check_new_table(
                schema, self._migration_role, self._name, lacking, uses_sequence=uses_sequence
            )
            checks = list(found)
            if self.can_switch and schema.has_usage and not checks:
                refused = self._try(_USE_TABLE.format(name=table))
                if refused:
                    checks.append(refused_check(privileges.NEW_TABLES, refused.problems[0]))
        yield from checks

    def _explain(self, statements: Sequence[str]) -> Iterator[Check]:
        """The *statements* that the server refuses. It rarely refuses any, so try many together."""
        for start in range(0, len(statements), _STATEMENTS_PER_QUERY):
            yield from self._explain_batch(statements[start : start + _STATEMENTS_PER_QUERY])

    def _explain_batch(self, statements: Sequence[str]) -> Iterator[Check]:
        refused = self._try(";".join(f"EXPLAIN {each}" for each in statements))
        if refused is None:
            return
        if len(statements) == 1:
            yield privileges.refused_statement(statements[0], self._name, refused.problems[0])
            return
        middle = len(statements) // 2
        yield from self._explain_batch(statements[:middle])
        yield from self._explain_batch(statements[middle:])

    def _try(self, sql: str) -> DatabaseRefused | None:
        """The error with which the server refuses *sql* to the application's role, or None."""
        try:
            with rolled_back_savepoint(self._session):
                self._session.query(f"SET LOCAL ROLE {self._name}; {sql}")
        except DatabaseRefused as error:
            return error
        return None


def _statements(objects: Iterable[AppObject]) -> Sequence[str]:
    """A statement for each privilege that the application has according to the catalog."""
    return [
        _STATEMENTS[privilege].format(name=each.name, column=each.column)
        for each in objects
        for privilege in each.needed.split(", ")
        if privilege in _STATEMENTS and privilege not in each.lacking.split(", ")
        if each.column or privilege != "UPDATE"
    ]
