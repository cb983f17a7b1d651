"""The facts that `doctor` reads from the server, as records.

Names are quoted where SQL needs it. A field called `key` has the same name without quotes.
"""

from __future__ import annotations

from typing import Literal

from initmig.core.records import Record


class Server(Record):
    """The server, the connection to it, and the database."""

    version_number: int
    """As ``server_version_num``: 150004 is 15.4."""
    version: str
    tls: str
    """The protocol version; empty if the connection is not encrypted."""
    local: bool
    """Whether the client is on the same machine."""
    standby: bool
    read_only: bool
    login: str
    database: str
    database_owner: str

    @property
    def major(self) -> int:
        """The major version."""
        return self.version_number // 10000


class ConnectionLimit(Record):
    """A connection limit, and how many connections are *used*, including this one."""

    of: Literal["the server", "the role", "the database"]
    limit: int
    used: int


class Timeout(Record):
    """A timeout of the session; a transaction can override it."""

    name: str
    value: str
    """As PostgreSQL shows it, e.g. 30s."""
    seconds: float
    source: str
    """As in ``pg_settings``."""


class Setting(Record):
    """A setting of the session that can make a migration fail."""

    name: str
    value: str
    source: str
    """As in ``pg_settings``."""
    set_by: str
    """The source in words."""


class CommitSettings(Record):
    """The settings that make a COMMIT wait for standbys."""

    standby_names: str
    """``synchronous_standby_names``"""
    level: str
    """``synchronous_commit``"""
    connected_standbys: int
    """Only the synchronous ones, if the role can see which ones are; otherwise all."""


class MigrationRole(Record):
    """The role that runs the migrations, and its privileges in the database."""

    name: str
    is_superuser: bool
    can_create_databases: bool
    can_create_roles: bool
    can_create_in_database: bool
    """CREATE on the database, for schemas and trusted extensions."""


class Schema(Record):
    """A schema of the search path; *owner* is empty if the schema does not exist."""

    name: str
    key: str
    owner: str
    has_usage: bool
    """Whether the migration role has USAGE."""
    has_create: bool
    """Whether the migration role has CREATE."""


class RelationAccess(Record):
    """A relation that a migration uses, and the privileges of the migration role on it."""

    name: str
    """With the schema."""
    owner: str
    owner_is_superuser: bool
    is_owner: bool
    """Whether the role owns it, or has the privileges of the role that does."""
    can_become_owner: bool
    """Whether the role could become the owner with SET ROLE."""
    has_privilege: bool
    schema: str
    schema_owner: str
    is_schema_owner: bool
    has_schema_usage: bool
    has_schema_create: bool


class Extension(Record):
    """An extension that a migration creates, as the server knows it."""

    name: str
    installed: bool
    available: bool
    superuser: bool
    """As in ``pg_available_extension_versions``."""
    trusted: bool
    """As in ``pg_available_extension_versions``."""


class AppRole(Record):
    """The application's role, and the settings of its new sessions in this database."""

    name: str
    key: str
    is_superuser: bool
    runs_migrations: bool
    """Whether it is also the migration role."""
    can_log_in: bool
    has_login_member: bool
    """Whether a role that can log in is a member of it, other than the migration role."""
    connection_limit: int
    """-1 for no limit."""
    password_expires_seconds: float
    """From now; negative once it has expired."""
    can_connect: bool
    """Whether it has CONNECT on the database."""
    read_only: bool
    """Whether its transactions are read-only by default."""
    search_path: str
    """As PostgreSQL shows it."""
    switches_to: str
    """The role that its sessions switch to when they start (ALTER ROLE ... SET role), unquoted."""


class AppSchema(Record):
    """A schema that the application may have to use."""

    name: str
    key: str
    owner: str
    has_usage: bool
    """Whether the application has USAGE."""
    has_create: bool
    """Whether the migration role has CREATE and USAGE."""
    has_tables: bool
    """Whether the migration role owns a table in it."""


class AppObject(Record):
    """A table, view or sequence, and the privileges that the application needs on it.

    Privileges are separated by commas.
    """

    name: str
    """With the schema."""
    schema: str
    kind: Literal["table", "view", "sequence"]
    owner: str
    column: str
    """One of its columns; empty if it has no columns."""
    needed: str
    lacking: str
    partial: str
    """Lacking privileges that the application has on some columns only."""
    hidden: str
    """Privileges that the application has, but row level security hides every row from it."""


class AppFunction(Record):
    """A function that the application needs EXECUTE on, because *user* calls it."""

    name: str
    """With schema and arguments."""
    owner: str
    user: str
    """A table, view, index or constraint, as PostgreSQL describes it."""


class AppView(Record):
    """A view that fails, because *reader* lacks SELECT on a *table* that it reads."""

    name: str
    table: str
    table_owner: str
    reader: str
    """The view's owner, or the application for a view with security_invoker."""


class PathSchema(Record):
    """A schema where PostgreSQL looks up names of a migration or of the history."""

    key: str
    name: str
    exists: bool
    untrusted_owner: str
    """The owner if initmig has no reason to trust that role; otherwise empty."""
    is_user_schema: bool
    """Whether it is ``$user`` of the search path."""


class Grant(Record):
    """Privileges that a role has on an object, although initmig has no reason to trust it."""

    kind: Literal["SCHEMA", "DATABASE", "TABLE"]
    name: str
    owner: str
    grantor: str
    grantee: str
    """``PUBLIC``, or a role."""
    member: str
    """The untrusted role, a member of the *grantee*; empty if the grantee itself is untrusted."""
    privileges: str
    """Separated by commas."""


class ConnectPrivileges(Record):
    """The untrusted roles that can log in to the database."""

    roles: tuple[str, ...]
    through_public: tuple[str, ...]
    """Roles that can connect only because PUBLIC has CONNECT."""
    login_has_grant: bool
    """Whether initmig's login could still connect after a REVOKE from PUBLIC."""
