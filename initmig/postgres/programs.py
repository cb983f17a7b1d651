"""How others connect: another database, and PostgreSQL's own programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from initmig.dsn import parse_dsn

if TYPE_CHECKING:
    from initmig.postgres.parameters import Settings


def in_database(settings: Settings, name: str) -> Settings:
    """The same server as in *settings*, which have been connected with, and its database *name*."""
    conninfo = parse_dsn(settings.conninfo).conninfo
    return settings._replace(conninfo=make_conninfo(conninfo, dbname=name))


def for_programs(settings: Settings) -> tuple[str, dict[str, str]]:
    """A connection string without the password, which `ps` would show, and variables with it."""
    parameters = conninfo_to_dict(parse_dsn(settings.conninfo).conninfo)
    password = parameters.pop("password", None) or settings.password
    variables = {"PGPASSWORD": str(password)} if password else {}
    return make_conninfo("", **parameters), variables
