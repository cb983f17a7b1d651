"""The migration files: list, identify, checksum, read."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from initmig.errors import ConfigError, Place, Problem
from initmig.model import Listing, MigrationFile
from initmig.sql import (
    Directive,
    forbidden_in_transaction,
    header_directives,
    position,
    psql_only,
)

_ROLLBACK = ".rollback.sql"
_HOOK = "post-apply"
_YOYO_TEMPORARY = "_tmp_yoyonew"
"""What yoyo's own `new` calls a file that is still in the editor."""

_DIRECTIVES = ("transactional", "depends", "breaking")
_BOOLEANS = {"true": True, "false": False}


class SqlSource(NamedTuple):
    """A migration's SQL as the server gets it, and what its header says."""

    text: str
    rollback: str
    checksum: str
    transactional: bool
    breaking: bool
    depends: frozenset[str]


def list_files(folders: Sequence[str]) -> Listing:
    """The migrations of *folders* by their names alone; nothing is read.

    :raises ConfigError: a folder is not there or cannot be listed, two files have the same id, or
        a rollback file has no migration
    """
    problems: list[Problem] = []
    found: dict[str, MigrationFile] = {}
    for folder in folders:
        for file in _list_folder(folder, problems):
            other = found.setdefault(file.id, file)
            if other is not file:
                problems.append(_same_id(other, file))
    if problems:
        raise ConfigError.of(tuple(problems))
    hooks = tuple(file for file in found.values() if file.id.startswith(_HOOK))
    return Listing(tuple(file for file in found.values() if not file.id.startswith(_HOOK)), hooks)


def _list_folder(folder: str, problems: list[Problem]) -> Iterator[MigrationFile]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _is_migration(entry))
    except OSError as error:
        problems.append(
            Problem(
                f"cannot list the migrations folder {folder}: {error.strerror}",
                hint="set --migrations or INITMIG_MIGRATIONS to the folder of the migrations",
            )
        )
        return
    rollbacks = {name for name in names if name.endswith(_ROLLBACK)}
    for name in names:
        if name in rollbacks:
            continue
        id = os.path.splitext(name)[0]  # noqa: PTH122 - pathlib costs 10 ms
        rollback = id + _ROLLBACK if name.endswith(".sql") else ""
        known = rollback in rollbacks
        rollbacks.discard(rollback)
        yield MigrationFile(
            id, _join(folder, name), _join(folder, rollback) if known else "", folder
        )
    problems.extend(_orphan(folder, name) for name in sorted(rollbacks))


def _is_migration(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    return (
        name.endswith((".sql", ".py")) and not name.startswith(_YOYO_TEMPORARY) and entry.is_file()
    )


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118 - pathlib costs 10 ms


def _same_id(one: MigrationFile, other: MigrationFile) -> Problem:
    return Problem(
        f"{one.path} and {other.path} have the same id, {one.id}",
        hint="rename the one that is not applied yet",
    )


def _orphan(folder: str, name: str) -> Problem:
    migration = name.removesuffix(_ROLLBACK) + ".sql"
    return Problem(
        f"{_join(folder, name)} is the rollback of {migration}, which does not exist",
        hint=f"add {migration}, or remove the rollback file",
    )


def checksum(path: str) -> str:
    """SHA-256 of the bytes of *path*, in hexadecimal; :raises ConfigError: it cannot be read."""
    return _digest(read_bytes(path))


def _digest(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def read_bytes(path: str) -> bytes:
    """The content of *path*; :raises ConfigError: it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms
            return file.read()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}",
            hint="make it readable for the user of this process",
        ) from None


def read_sql(file: MigrationFile) -> SqlSource:
    """What *file* and its rollback say, checked as far as that goes without a server.

    :raises ConfigError: with every problem of both files
    """
    problems: list[Problem] = []
    data = read_bytes(file.path)
    text = _decode(file.path, data, problems)
    directives = _directives(file.path, text, problems)
    transactional = _boolean(directives, "transactional", file.path, text, problems, default=True)
    breaking = _boolean(directives, "breaking", file.path, text, problems, default=False)
    problems.extend(_unfit(file.path, text, transactional=transactional))
    rollback = ""
    if file.rollback_path:
        rollback = _decode(file.rollback_path, read_bytes(file.rollback_path), problems)
        problems.extend(_unfit(file.rollback_path, rollback, transactional=transactional))
    if problems:
        raise ConfigError.of(tuple(problems))
    depends = (id for d in directives if d.name == "depends" for id in d.value.split())
    return SqlSource(text, rollback, _digest(data), transactional, breaking, frozenset(depends))


def _decode(path: str, data: bytes, problems: list[Problem]) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column, _ = position(before, len(before))
        problems.append(
            Problem(
                f"byte 0x{data[error.start]:02x} is not UTF-8",
                hint=f"save the file as UTF-8, for example: iconv -f LATIN1 -t UTF-8 {path}",
                place=Place(path, line, column),
            )
        )
        return ""
    if (nul := text.find("\0")) >= 0:
        problems.append(
            Problem(
                "a NUL character, at which PostgreSQL would stop reading",
                hint="remove it",
                place=place_at(path, text, nul),
            )
        )
    return text


def place_at(path: str, text: str, offset: int) -> Place:
    """The place of the character at *offset* (0-based) in the *text* of *path*."""
    line, column, source = position(text, offset)
    return Place(path, line, column, source)


def _directives(path: str, text: str, problems: list[Problem]) -> list[Directive]:
    """The directives that initmig or yoyo act on; a near miss is a problem, a comment is not."""
    known = []
    for directive in header_directives(text):
        if directive.name in _DIRECTIVES:
            known.append(directive)
        elif meant := _near_miss(directive.name):
            problems.append(
                Problem(
                    f"unknown directive {directive.name!r}",
                    hint=f"write `-- {meant}: {directive.value}`",
                    place=place_at(path, text, directive.offset),
                )
            )
    return known


def _near_miss(name: str) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.lower(), _DIRECTIVES, n=1, cutoff=0.75)), "")


def _boolean(
    directives: Iterable[Directive],
    name: str,
    path: str,
    text: str,
    problems: list[Problem],
    *,
    default: bool,
) -> bool:
    given = [directive for directive in directives if directive.name == name]
    for directive in given:
        if directive.value.lower() not in _BOOLEANS or len(given) > 1:
            problems.append(
                Problem(
                    f"directive {name!r} stands {len(given)} times"
                    if len(given) > 1
                    else f"directive {name!r} is {directive.value!r}, not true or false",
                    hint=f"write `-- {name}: true` or `-- {name}: false`, once",
                    place=place_at(path, text, directive.offset),
                )
            )
            return default
    return _BOOLEANS[given[0].value.lower()] if given else default


def _unfit(path: str, text: str, *, transactional: bool) -> Iterator[Problem]:
    findings = psql_only(text)
    if transactional:
        findings = sorted([*findings, *forbidden_in_transaction(text)])
    for finding in findings:
        yield Problem(finding.message, finding.hint, place_at(path, text, finding.offset))
