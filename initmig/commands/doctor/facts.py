"""What the server knows that `doctor` judges. Names are quoted where SQL needs them to be."""

from __future__ import annotations

from typing import Literal

from initmig.core.records import Record


class Server(Record):
    """What the server says of itself and of the session, whoever asks."""

    version_number: int
    """As ``server_version_num``: 150004 is 15.4."""
    version: str
    tls: str
    """The protocol; empty where the connection is not encrypted."""
    local: bool
    """Whether the client is on the same machine."""
    standby: bool
    read_only: bool
    login: str
    database: str
    database_owner: str

    @property
    def major(self) -> int:
        """Its major version."""
        return self.version_number // 10000


class Limit(Record):
    """A limit of connections that are *used* already, this one among them."""

    of: Literal["the server", "the role", "the database"]
    limit: int
    used: int


class Timeout(Record):
    """A timeout that holds for the session, unless it is set for a transaction."""

    name: str
    value: str
    """As PostgreSQL shows it, e.g. 30s."""
    seconds: float
    source: str
    """As in ``pg_settings``."""


class Setting(Record):
    """A setting of the session that a migration may fail by."""

    name: str
    value: str
    source: str
    """As in ``pg_settings``."""
    set_by: str
    """The same in words."""


class Commits(Record):
    """What a COMMIT waits for."""

    names: str
    """``synchronous_standby_names``"""
    level: str
    """``synchronous_commit``"""
    standbys: int
    """Those that are connected; where the role may know, those that confirm a COMMIT."""


class Worker(Record):
    """The role that does the work, and what it may do in the database."""

    name: str
    superuser: bool
    creates_databases: bool
    creates_roles: bool
    creates_in_database: bool
    """Schemas and trusted extensions: CREATE on the database."""


class Schema(Record):
    """A schema of the search path; *owner* is empty where it does not exist."""

    name: str
    key: str
    """The same, never quoted."""
    owner: str
    usable: bool
    creatable: bool


class Found(Record):
    """A relation that a migration uses, and what the role may do with it."""

    name: str
    """With its schema."""
    owner: str
    owner_is_superuser: bool
    owned: bool
    """By the role, or one whose rights it has."""
    member: bool
    """Whether the role could become the owner with SET ROLE."""
    privileged: bool
    schema: str
    schema_owner: str
    schema_owned: bool
    schema_usable: bool
    schema_creatable: bool


class Extension(Record):
    """An extension that a migration creates, as the server knows it."""

    name: str
    installed: bool
    available: bool
    superuser: bool
    trusted: bool


class AppRole(Record):
    """The application's role, and what a login as it would meet in this database."""

    name: str
    key: str
    """The same, never quoted."""
    superuser: bool
    migrates: bool
    """Whether it is also the role that migrates."""
    logs_in: bool
    login_member: bool
    """Whether a role that may log in is a member of it, other than the one that migrates."""
    connection_limit: int
    """-1 for no limit."""
    password_expires_seconds: float
    """From now; negative once it has expired."""
    connects: bool
    """Whether it has CONNECT on the database."""
    read_only: bool
    """Whether its transactions are read-only by default."""
    search_path: str
    """That of its new sessions, as PostgreSQL shows it."""
    becomes: str
    """The role that its sessions switch to by themselves (ALTER ROLE ... SET role), unquoted."""


class AppSchema(Record):
    """A schema that the application may have to use."""

    name: str
    key: str
    """The same, never quoted."""
    owner: str
    usable: bool
    """By the application."""
    creatable: bool
    """By the role that migrates."""
    filled: bool
    """Whether the role that migrates owns a table there."""


class AppObject(Record):
    """A table, view or sequence, and the privileges that the application needs on it."""

    name: str
    """With its schema."""
    schema: str
    kind: Literal["table", "view", "sequence"]
    owner: str
    column: str
    """One of its columns; empty where there is none."""
    needed: str
    """Privileges, separated by commas, as all below."""
    lacking: str
    partial: str
    """Those of *lacking* that it has on some columns."""
    hidden: str
    """Those that it has, but row security lets them reach no row."""


class AppFunction(Record):
    """A function that the application may not execute, and what executes it for the application."""

    name: str
    """With its schema and arguments."""
    owner: str
    user: str
    """In PostgreSQL's words."""


class AppView(Record):
    """A view that fails, because *reader* lacks SELECT on a *table* that it reads."""

    name: str
    table: str
    table_owner: str
    reader: str
    """The view's owner, or the application for a view with security_invoker."""


class PathSchema(Record):
    """A schema in which names of a migration, or of the history, are looked up."""

    key: str
    """The name, never quoted."""
    name: str
    exists: bool
    foreign_owner: str
    """The role that owns it, where initmig has no reason to trust that; else empty."""
    of_user: bool
    """Whether it is ``$user`` of the search path."""


class Grant(Record):
    """What lets a role do something with an object, whom initmig has no reason to trust."""

    kind: Literal["SCHEMA", "DATABASE", "TABLE"]
    name: str
    owner: str
    grantor: str
    grantee: str
    """``PUBLIC``, or a role."""
    member: str
    """Whom initmig does not trust; empty where that is the *grantee* itself."""
    privileges: str
    """Separated by commas."""


class Connecting(Record):
    """The roles that may log in to the database, and that initmig has no reason to trust."""

    roles: tuple[str, ...]
    by_public: tuple[str, ...]
    """Those of *roles* that may because everybody may."""
    login_granted: bool
    """Whether initmig's own login would still be let in, without what everybody may."""
