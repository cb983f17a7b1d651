"""Loads files as migrations, and reports the problems of all files together."""

from __future__ import annotations

from contextlib import suppress
from ctypes import CDLL
from typing import TYPE_CHECKING

from yoyo.migrations import Migration as YoyoMigration
from yoyo.topologicalsort import CycleError, topological_sort

from initmig.core.errors import ConfigError, Place, Problem
from initmig.core.events import LargeFileRead
from initmig.core.model import HOOK, longest_id
from initmig.engine.captured_output import capture_output
from initmig.engine.sql_migration import SqlMigration
from initmig.migrations.files import read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from initmig.core.events import Emit
    from initmig.core.model import Migration, MigrationFile
    from initmig.migrations.files import Contents


_M_MMAP_THRESHOLD = -3

_SLOW_TO_READ_BYTES = 1_000_000
"""A file of this size takes seconds to read in a container with little CPU."""


def accept_all(_: Sequence[Contents]) -> Sequence[Problem]:
    """Raise no objections."""
    return ()


def load(
    files: Sequence[MigrationFile],
    *,
    known: Collection[str],
    emit: Emit,
    objections: Callable[[Sequence[Contents]], Sequence[Problem]] = accept_all,
) -> tuple[Migration, ...]:
    """Read and check *files*, and return them in dependency order.

    The files may also depend on *known* ids. If *objections* finds a problem in the content, no
    migration is loaded.

    :raises ConfigError: lists every problem of every file
    """
    _return_freed_memory()
    contents, problems = read_all(files)
    if refused := objections(contents):
        raise ConfigError.of((*refused, *problems))
    if not all(file.is_sql for file in files):
        for id in known:
            YoyoMigration(id, "", "")  # yoyo resolves dependencies among its instances
    loaded: list[Migration] = []
    contents.reverse()
    with capture_output(emit):
        while contents:
            path = contents[-1].file.path
            try:
                # removed from the list, so that no content is in memory twice
                loaded.append(_loaded(contents.pop(), emit))
            except ConfigError as error:
                problems.extend(error.problems)
            except MemoryError:
                raise MemoryError(f"could not read {path}") from None
    ids = {file.id for file in files} | set(known)
    for migration in loaded:
        problems.extend(_missing_dependencies(migration, ids))
        problems.extend(_too_long(migration))
    if problems:
        raise ConfigError.of(tuple(problems))
    return _in_dependency_order(loaded)


def _return_freed_memory() -> None:
    """Make glibc return the memory of a large file to the system when it is freed.

    By default, glibc raises its threshold up to 32 MB when it frees such blocks, and later blocks
    do not fit into the gaps. https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    with suppress(AttributeError):  # another C library
        CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _loaded(contents: Contents, emit: Emit) -> Migration:
    if len(contents.data) >= _SLOW_TO_READ_BYTES:
        emit(LargeFileRead(contents.file.path, len(contents.data)))
    if contents.file.is_sql:
        return SqlMigration(contents, emit).description
    from initmig.engine.python_migration import PythonMigration

    return PythonMigration(contents).description


def _missing_dependencies(migration: Migration, ids: Collection[str]) -> Iterator[Problem]:
    for id in sorted(migration.depends):
        if id not in ids:
            yield Problem(
                "unknown-dependency",
                f"{migration.id} depends on {id}, which does not exist",
                hint="correct the name, or add the migration",
                place=Place(migration.file.path),
            )


def _too_long(migration: Migration) -> Iterator[Problem]:
    longest = longest_id(transactional=migration.transactional or migration.id.startswith(HOOK))
    if len(migration.id) > longest:
        kind = "" if migration.transactional else "non-transactional "
        yield Problem(
            "id-too-long",
            f"{migration.id} has {len(migration.id)} characters, and the id of a {kind}migration"
            f" can have at most {longest}",
            hint="give the file a shorter name. If it is already applied, undo it by hand first",
            place=Place(migration.file.path),
        )


def _in_dependency_order(migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """*migrations* in yoyo's order: the given order, but after their dependencies."""
    by_id = {migration.id: migration for migration in migrations}
    graph = {id: by_id[id].depends & by_id.keys() for id in by_id}
    try:
        return tuple(by_id[id] for id in topological_sort(by_id, graph))
    except CycleError as error:
        cycle = error.args[1]
        raise ConfigError(
            "dependency-cycle",
            f"these migrations depend on each other: {', '.join(cycle)}",
            hint="remove one of the dependencies (`depends`, `__depends__`)",
            place=Place(by_id[cycle[0]].file.path),
        ) from None
