"""What the server knows that `doctor` judges. Names are quoted where SQL needs them to be."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Server(NamedTuple):
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


class Limit(NamedTuple):
    """A limit of connections that are *used* already, this one among them."""

    of: Literal["the server", "the role", "the database"]
    limit: int
    used: int


class Timeout(NamedTuple):
    """A timeout that holds for the session, unless it is set for a transaction."""

    name: str
    value: str
    """As PostgreSQL shows it, e.g. 30s."""
    seconds: float
    source: str
    """As in ``pg_settings``."""


class Worker(NamedTuple):
    """The role that does the work, and what it may do in the database."""

    name: str
    superuser: bool
    creates_databases: bool
    creates_roles: bool
    creates_in_database: bool
    """Schemas and trusted extensions: CREATE on the database."""


class Schema(NamedTuple):
    """A schema of the search path; *owner* is empty where it does not exist."""

    name: str
    key: str
    """The same, never quoted."""
    owner: str
    usable: bool
    creatable: bool


class Found(NamedTuple):
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


class Extension(NamedTuple):
    """An extension that a migration creates, as the server knows it."""

    name: str
    installed: bool
    available: bool
    superuser: bool
    trusted: bool
