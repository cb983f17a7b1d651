"""Reads the file that lists many targets, and selects the targets of a shard."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any
from zlib import crc32

from initmig.config.config import parse_config
from initmig.config.options import Secret
from initmig.core.errors import ConfigError, Place, Problem
from initmig.core.quoting import join_names
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from initmig.config.config import Config
    from initmig.config.options import Shard

_URLS = ("url", "url_env", "url_file")
_AS_FLAGS = {
    "schema": "schema",
    "history_schema": "history_schema",
    "history_table": "history_table",
    "role": "role",
    "password_command": "password",
}
"""Keys that are named like a flag, and the field of each."""
_KEYS = ("name", *_URLS, "migrations", *_AS_FLAGS)
_LISTS = ("migrations", "schema")
"""Keys whose value can also be an array."""


class Target(Record):
    """A database or a schema, and the settings to migrate it."""

    name: str
    config: Config


def read_targets(config: Config, environ: Mapping[str, str]) -> tuple[Target, ...]:
    """The targets in the TOML file ``config.targets``, in its order.

    A setting that a target leaves out is taken from *config*.

    :raises ConfigError: with every problem of the file
    """
    path = config.targets
    problems: list[Problem] = []
    targets: list[Target] = []
    for number, table in enumerate(_tables(path), 1):
        place = f"target {number} of {path}"
        name = str(table.get("name", ""))
        if not name:
            problems.append(
                Problem("invalid-target", f"{place} has no name", hint='add name = "..."')
            )
        elif name in (target.name for target in targets):
            problems.append(
                Problem(
                    "invalid-target",
                    f"{place} has the same name as another target: {name}",
                    hint="rename one of them",
                )
            )
        try:
            targets.append(Target(name, _with(config, table, place, environ)))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError.of(tuple(problems))
    return tuple(targets)


def _tables(path: str) -> Sequence[Mapping[str, Any]]:
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            "targets-file-unreadable",
            f"cannot read the targets file {path}: {error.strerror}",
            hint="check the path, and make the file readable by the user of this process",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "targets-file-unreadable",
            f"the targets file is not valid TOML: {error}",
            hint="see docs/how-to/many-databases.md for an example",
            place=Place(path),
        ) from None
    tables = content.pop("target", None)
    if content or not (isinstance(tables, list) and all(isinstance(t, dict) for t in tables)):
        raise ConfigError(
            "targets-file-unreadable",
            f"the targets file {path} must contain [[target]] tables and nothing else",
            hint="start each target with a line [[target]]",
        )
    return tables


def _with(
    config: Config, table: Mapping[str, Any], place: str, environ: Mapping[str, str]
) -> Config:
    """*config* with the settings in *table*."""
    if problems := tuple(_problems(table, place, environ)):
        raise ConfigError.of(problems)
    flags = []
    if "migrations" in table:
        folders = table["migrations"]
        flags.append(f"--migrations={folders if isinstance(folders, str) else ','.join(folders)}")
    if "url" in table or "url_env" in table:
        url = table.get("url") or environ[table["url_env"]]
        flags.append(f"--database-url={url}")
    for key in _AS_FLAGS:
        if key in table:
            text = table[key] if isinstance(table[key], str) else join_names(table[key])
            flags.append(f"--{key.replace('_', '-')}={text}")
    # apply the same rules as for the command's flags
    parsed = parse_config([config.command, *flags], {})
    changes: dict[str, Any] = {
        field: getattr(parsed, field) for key, field in _AS_FLAGS.items() if key in table
    }
    if "migrations" in table:
        changes["migrations"] = parsed.migrations
    if "url_file" in table:
        changes["database_url"] = Secret(path=table["url_file"])
    elif "url" in table or "url_env" in table:
        changes["database_url"] = parsed.database_url
    return config._replace(**changes)


def _problems(
    table: Mapping[str, Any], place: str, environ: Mapping[str, str]
) -> Iterator[Problem]:
    for key, value in table.items():
        if key not in _KEYS:
            yield Problem(
                "invalid-target",
                f"{place} has an unknown key: {key}",
                hint=f"use only {', '.join(_KEYS)}",
            )
        elif not (isinstance(value, str) or (key in _LISTS and _is_texts(value))):
            yield Problem(
                "invalid-target", f"{place}: {key} is not a string", hint="write it in quotes"
            )
    given = [key for key in _URLS if key in table]
    if len(given) > 1:
        yield Problem(
            "invalid-target", f"{place} has {' and '.join(given)}", hint="keep only one of them"
        )
    variable = table.get("url_env")
    if isinstance(variable, str) and not environ.get(variable, "").strip():
        yield Problem(
            "invalid-target",
            f"{place} takes its URL from {variable}, which is not set",
            hint=f"set {variable}, or use url or url_file",
        )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def of_shard(targets: Sequence[Target], shard: Shard | None) -> tuple[Target, ...]:
    """The *targets* in this shard. It depends only on a target's name, not on other targets."""
    if shard is None:
        return tuple(targets)
    return tuple(
        target for target in targets if crc32(target.name.encode()) % shard.parts == shard.number
    )
