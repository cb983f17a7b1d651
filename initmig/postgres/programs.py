"""Connection settings for other databases and for PostgreSQL's own programs."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from initmig.config.dsn import parse_dsn
from initmig.config.options import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from initmig.postgres.parameters import Settings

_SECRETS = (
    *("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"),
    "options",
)
"""Parameters that contain secrets; `options` can set anything, as in `-c app.token=...`."""

_ONLY_OURS = ("DATABASE_URL", "INITMIG_", "PGPASSWORD", "PGOPTIONS")
"""Prefixes of variables that contain secrets and that a program does not need."""

_VARIABLES = {"password": "PGPASSWORD", "options": "PGOPTIONS"}
"""Variables for values that a service file cannot contain."""

_LONGEST = 900
"""libpq reads lines of at most 1,024 bytes. Tokens of cloud providers may be longer."""

_SERVICE = "initmig"


def in_database(settings: Settings, name: str) -> Settings:
    """*settings*, which a connection has already used, with the database *name*."""
    conninfo = parse_dsn(settings.conninfo.read()).conninfo
    return settings._replace(conninfo=Secret(make_conninfo(conninfo, dbname=name)))


@contextmanager
def for_programs(settings: Settings) -> Iterator[tuple[str, dict[str, str]]]:
    """A connection string without secrets, which `ps` would show, and the environment for it.

    While the block runs, the secrets are in a service file that only this user can read. libpq has
    no variables for most of them, and the environment of a program may be visible to others.
    """
    parameters = conninfo_to_dict(parse_dsn(settings.conninfo.read()).conninfo)
    secrets = {key: str(parameters.pop(key)) for key in _SECRETS if key in parameters}
    if password := settings.password.read():
        secrets.setdefault("password", password)
    if "PGOPTIONS" in os.environ:
        secrets.setdefault("options", os.environ["PGOPTIONS"])
    env = {key: value for key, value in os.environ.items() if not key.startswith(_ONLY_OURS)}
    env |= {_VARIABLES[key]: secrets.pop(key) for key in _VARIABLES if not _fits(secrets.get(key))}
    if not secrets:
        yield make_conninfo("", **parameters), env
        return
    service = str(parameters.pop("service", "") or os.environ.get("PGSERVICE", "") or _SERVICE)
    with tempfile.NamedTemporaryFile("w", prefix="initmig-", encoding="utf-8") as file:
        file.write(_with_secrets(_service_file(), service, secrets))
        file.flush()
        conninfo = make_conninfo("", service=service, **parameters)
        yield conninfo, {**env, "PGSERVICEFILE": file.name}


def _fits(value: str | None) -> bool:
    """Whether a service file can contain *value*: libpq strips trailing blanks."""
    return value is None or (
        value == value.strip() and value.isprintable() and len(value.encode()) < _LONGEST
    )


def _service_file() -> str:
    """The text of the user's service file; empty if it does not exist."""
    path = os.environ.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _with_secrets(text: str, service: str, secrets: Mapping[str, str]) -> str:
    """Add *secrets* at the start of the section *service*: the first value wins."""
    lines = [f"{key}={value}" for key, value in secrets.items()]
    before, header, after = f"\n{text}".partition(f"\n[{service}]")
    if not header:
        return "\n".join([f"[{service}]", *lines, text])
    return "\n".join([before + header, *lines, after.lstrip("\r\n")])
