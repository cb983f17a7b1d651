"""`doctor --app-role`: what the application lacks, on the tables that are there and on new ones.

The catalog says what is lacking. Where the server lets the session become the application's role,
each operation is also tried. On tables that are there, EXPLAIN tries it: the server checks the
privileges, and then runs nothing, so no trigger fires, no sequence advances and no row is locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor import app_privileges as privileges
from initmig.commands.doctor import queries
from initmig.commands.doctor.app_queries import AppQueries
from initmig.commands.doctor.checks import of_refusal
from initmig.commands.doctor.savepoint import trial
from initmig.core.errors import DatabaseRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Check
    from initmig.commands.doctor.facts import AppObject, AppSchema, Schema, Server, Worker
    from initmig.config.config import Config
    from initmig.postgres import Session

_EXPLAINED = {
    "SELECT": "SELECT * FROM {name} WHERE false",
    "INSERT": "INSERT INTO {name} DEFAULT VALUES",
    "UPDATE": "UPDATE {name} SET {column} = DEFAULT WHERE false",
    "DELETE": "DELETE FROM {name} WHERE false",
}
_STATEMENTS_AT_A_TIME = 200

_MAKE_TABLE = "CREATE TABLE {name} (id serial, note text)"
_USE_TABLE = """
INSERT INTO {name} DEFAULT VALUES;
SELECT * FROM {name};
UPDATE {name} SET note = 'two';
DELETE FROM {name}"""


def examine(
    session: Session, config: Config, server: Server, worker: Worker, home: Schema
) -> Iterator[Check]:
    """What the application's role can do in the schemas of the search path.

    If that is the server's, also in others where the role that migrates owns a table.
    """
    history = queries.history_names(session)
    ask = AppQueries(session, config.app_role, history)
    app = ask.role()
    if app is None:
        yield privileges.of_missing_role(queries.quoted(session, config.app_role))
        return
    if app.becomes:
        ask = AppQueries(session, app.becomes, history)
    name = queries.quoted(session, app.becomes or app.key)
    application = _Application(session, ask, name, worker)
    yield from privileges.of_role(app, server, home, tried=application.tried)
    if app.superuser:
        return
    schemas = ask.schemas(everywhere=not config.schema)
    yield from application.use_tables(schemas, home)
    if not server.standby:
        yield from application.use_new_tables(schemas, home)


class _Application:
    """The role *name*, quoted, in whose place things are tried where the server allows that."""

    def __init__(self, session: Session, ask: AppQueries, name: str, worker: Worker) -> None:
        self._session = session
        self._ask = ask
        self._name = name
        self._worker = worker
        self.tried = self._try("SELECT") is None
        """Whether the session may become the role."""

    def use_tables(self, schemas: Sequence[AppSchema], home: Schema) -> Iterator[Check]:
        """Use everything that is there."""
        objects = self._ask.objects([each.key for each in schemas])
        places = {home.name, *(each.schema for each in objects)}
        used = [each for each in schemas if each.name in places]
        keys = [each.key for each in schemas]
        called = [
            *privileges.of_functions(self._ask.functions(keys), self._name),
            *privileges.of_views(self._ask.views(keys)),
        ]
        checks = [
            *privileges.of_schemas(used, self._name),
            *privileges.of_objects(objects, self._name),
            *called,
            *privileges.of_hidden(objects, self._name),
        ]
        if self.tried and not called:
            reached = {each.name for each in used if each.usable}
            checks.extend(self._explain(_statements(o for o in objects if o.schema in reached)))
        yield from checks or [privileges.of_allowed(objects, used)]

    def use_new_tables(self, schemas: Sequence[AppSchema], home: Schema) -> Iterator[Check]:
        """Use a table in each schema where the role that migrates has made one, or will."""
        places = [
            each for each in schemas if each.creatable and (each.filled or each.name == home.name)
        ]
        checks = [check for each in places for check in self._use_new_table(each)]
        yield from checks or [privileges.of_new_tables([s.name for s in places], self._worker)]

    def _use_new_table(self, schema: AppSchema) -> Iterator[Check]:
        [(pid,)] = self._session.query("SELECT pg_backend_pid()")
        table = f"{schema.name}._initmig_doctor_{pid}"
        with trial(self._session):
            try:
                self._session.query(_MAKE_TABLE.format(name=table))
            except DatabaseRefused as error:
                yield of_refusal(privileges.NEW_TABLES, error.problems[0])
                return
            lacking, uses_sequence = self._ask.lacking_on(table)
            found = privileges.of_new_table(
                schema, self._worker, self._name, lacking, uses_sequence=uses_sequence
            )
            checks = list(found)
            if self.tried and schema.usable and not checks:
                refused = self._try(_USE_TABLE.format(name=table))
                if refused:
                    checks.append(of_refusal(privileges.NEW_TABLES, refused.problems[0]))
        yield from checks

    def _explain(self, statements: Sequence[str]) -> Iterator[Check]:
        """What the server refuses of *statements*, found by halving: most often it is nothing."""
        for start in range(0, len(statements), _STATEMENTS_AT_A_TIME):
            yield from self._explain_all(statements[start : start + _STATEMENTS_AT_A_TIME])

    def _explain_all(self, statements: Sequence[str]) -> Iterator[Check]:
        refused = self._try(";".join(f"EXPLAIN {each}" for each in statements))
        if refused is None:
            return
        if len(statements) == 1:
            yield privileges.of_refused_trial(statements[0], self._name, refused.problems[0])
            return
        middle = len(statements) // 2
        yield from self._explain_all(statements[:middle])
        yield from self._explain_all(statements[middle:])

    def _try(self, sql: str) -> DatabaseRefused | None:
        """Why the server refuses *sql* to the application's role; None where it does not."""
        try:
            with trial(self._session):
                self._session.query(f"SET LOCAL ROLE {self._name}; {sql}")
        except DatabaseRefused as error:
            return error
        return None


def _statements(objects: Iterable[AppObject]) -> Sequence[str]:
    """One for each privilege that the catalog says the application has."""
    return [
        _EXPLAINED[privilege].format(name=each.name, column=each.column)
        for each in objects
        for privilege in each.needed.split(", ")
        if privilege in _EXPLAINED and privilege not in each.lacking.split(", ")
        if each.column or privilege != "UPDATE"
    ]
