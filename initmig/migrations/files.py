"""Lists, identifies, reads and checksums migration files."""

from __future__ import annotations

import os

from initmig.core.errors import ConfigError, Problem
from initmig.core.model import HOOK, PACKAGE, Listing, MigrationFile
from initmig.core.records import TYPE_CHECKING, Record
from initmig.core.visible import in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from initmig.core.errors import Place
    from initmig.sql.scanner import Scan
    from initmig.sql.source import Header, Source

_SUFFIXES = (".sql", ".py")
_ROLLBACK = ".rollback.sql"
_LARGE = 1 << 16
"""From this size in bytes, loading OpenSSL is worth its time."""
_FIRST_MIGRATION_HINT = ". To write the first migration, run `initmig new NAME`"
_YOYO_TEMPORARY = "_tmp_yoyonew"
"""The prefix of the file that yoyo's `new` opens in the editor."""


class OtherEntries(Record):
    """The entries of migration folders that are not migrations."""

    ignored: tuple[str, ...]
    """The paths that look like migrations: ``.SQL``, a pipe, a subfolder that contains SQL."""
    names: tuple[str, ...]
    """The names of all entries, relative to their folder, with one level of subfolders."""


class Contents(Record):
    """The contents of a migration's files. They are read once, for all uses."""

    file: MigrationFile
    data: bytes
    rollback: bytes
    """Empty if there is no rollback file."""
    sources: tuple[Source, ...] = ()
    """The sources of an SQL file and its rollback; empty for Python."""


class SqlFiles(Record):
    """The SQL of a migration for the server, in UTF-8, and its parsed header."""

    apply: bytes
    rollback: bytes
    checksum: str
    rollback_checksum: str
    header: Header
    ignored: Sequence[Place]
    """The places of directives that neither yoyo nor initmig reads."""
    scan: Scan
    rollback_scan: Scan


def list_files(sources: Sequence[str]) -> Listing:
    """List the migrations in the folders that *sources* name, without reading them.

    :raises ConfigError: a folder does not exist or cannot be listed, a source names no folder, two
        files have the same id, or a rollback file has no migration
    """
    problems: list[Problem] = []
    folders = _folders(sources, problems)
    listed = [file for folder in folders for file in _list_folder(folder, problems)]
    packages = [file for file in listed if file.id == PACKAGE and not file.is_sql]
    files = [file for file in listed if file not in packages] if packages else listed
    found = dict(zip([file.id for file in files], files, strict=True))
    if len(found) < len(files):
        problems.extend(_same_ids(files))
    if problems:
        raise ConfigError.of(tuple(problems))
    hooks = tuple([found.pop(id) for id in list(found) if id.startswith(HOOK)])
    return Listing(tuple(found.values()), hooks, tuple(packages[:1]))


def _folders(sources: Sequence[str], problems: list[Problem]) -> Sequence[str]:
    """The folders that *sources* name, without duplicates."""
    if len(sources) == 1 and not any(sign in sources[0] for sign in "*?[:"):
        return sources  # the usual case, which needs no further module
    from initmig.migrations.sources import expand

    return expand(sources, problems)


def _list_folder(folder: str, problems: list[Problem]) -> Iterator[MigrationFile]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _is_migration(entry))
    except OSError as error:
        problems.append(
            Problem(
                "folder-unreadable",
                f"cannot list the migrations folder {folder}: {error.strerror}",
                hint="set --migrations or INITMIG_MIGRATIONS to the folder with the migrations"
                + _FIRST_MIGRATION_HINT * isinstance(error, FileNotFoundError),
            )
        )
        return
    if _is_unprintable("".join(names)):
        problems.extend(_unprintable(folder, name) for name in names if _is_unprintable(name))
    rollbacks = {name for name in names if name.endswith(_ROLLBACK)}
    before = _join(folder, "")
    for name in names:
        if name in rollbacks:
            continue
        id = name.rpartition(".")[0] or name
        rollback = ""
        if id + _ROLLBACK in rollbacks and name.endswith(".sql"):
            rollbacks.remove(id + _ROLLBACK)
            rollback = before + id + _ROLLBACK
        yield MigrationFile._make((id, before + name, rollback, folder))
    problems.extend(_orphan(folder, name) for name in sorted(rollbacks))


def _is_migration(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    if not name.endswith(_SUFFIXES) or _is_incidental(name):
        return False
    # list a broken link, so that it is reported as unreadable and not overlooked
    return entry.is_file() or not os.path.exists(entry.path)


def _is_incidental(name: str) -> bool:
    """Whether an editor, the operating system, yoyo or Python creates files of this *name*."""
    return name.startswith((".", _YOYO_TEMPORARY)) or name.endswith("~") or name == "__pycache__"


def list_other_entries(sources: Sequence[str]) -> OtherEntries:
    """List the entries of the migration folders that `list_files` leaves out.

    Folders that cannot be listed are skipped.
    """
    ignored: list[str] = []
    names: list[str] = []
    for folder in _folders(sources, []):
        for entry in _entries(folder):
            if _is_migration(entry) or _is_incidental(entry.name):
                continue
            inside = [each.name for each in _entries(entry.path)] if entry.is_dir() else []
            names += [entry.name, *(f"{entry.name}/{name}" for name in inside)]
            if entry.name.lower().endswith(_SUFFIXES):
                ignored.append(_join(folder, entry.name))
            # subfolders with Python may be packages that the migrations import
            elif any(name.lower().endswith(".sql") for name in inside):
                ignored.append(_join(folder, entry.name) + os.sep)
    return OtherEntries(tuple(sorted(ignored)), tuple(sorted(names)))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name)


def _is_unprintable(name: str) -> bool:
    if name.isascii() and name.isprintable():
        return False
    # a surrogate represents a byte that is not UTF-8
    return any(c < " " or "\x7f" <= c < "\xa0" or "\ud800" <= c < "\ue000" for c in name)


def _unprintable(folder: str, name: str) -> Problem:
    return Problem(
        "invalid-file-name",
        f"the name of {in_one_line(_join(folder, name))} is not UTF-8, or contains control"
        " characters",
        hint="rename it, preferably in ASCII",
    )


def _same_ids(files: Sequence[MigrationFile]) -> Iterator[Problem]:
    found: dict[str, MigrationFile] = {}
    for file in files:
        other = found.setdefault(file.id, file)
        if other is not file:
            yield Problem(
                "duplicate-id",
                f"{other.path} and {file.path} have the same id, {file.id}",
                hint="rename the one that is not applied yet",
            )


def _orphan(folder: str, name: str) -> Problem:
    migration = name.removesuffix(_ROLLBACK) + ".sql"
    return Problem(
        "rollback-without-migration",
        f"{_join(folder, name)} is the rollback of {migration}, which does not exist",
        hint=f"add {migration}, or remove the rollback file",
    )


def checksum(path: str) -> str:
    """SHA-256 of the file *path*, in hexadecimal; :raises ConfigError: it cannot be read."""
    return digest(read_bytes(path))


def differs_in_line_ends(path: str, recorded: str) -> bool:
    """Whether *path* would have the *recorded* checksum with other line ends (LF or CRLF)."""
    unix = read_bytes(path).replace(b"\r\n", b"\n")
    return recorded in (digest(unix), digest(unix.replace(b"\n", b"\r\n")))


def digest(data: bytes) -> str:
    """SHA-256 of *data*, in hexadecimal."""
    return str(_sha256(len(data))(data).hexdigest())


def _sha256(size: int) -> Any:
    """The SHA-256 function: hashlib's fallback for small data.

    Loading OpenSSL takes a tenth of the startup time.
    """
    for module in ("_sha2", "_sha256") if size < _LARGE else ():  # Python 3.12 and later, or older
        try:
            return __import__(module).sha256
        except ImportError:
            continue
    from hashlib import sha256

    return sha256


def read_bytes(path: str) -> bytes:
    """The content of *path*; :raises ConfigError: it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from None
    except MemoryError:
        raise MemoryError(f"could not read {path}") from None


def check_readable(path: str) -> None:
    """Check that *path* can be opened, without reading it; :raises ConfigError: it cannot."""
    try:
        with open(path, "rb") as file:
            file.read(0)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(
        "file-unreadable",
        f"cannot read {path}: {error.strerror}",
        hint="correct the path, or create the file"
        if isinstance(error, FileNotFoundError)
        else "make it readable by the user that runs initmig",
    )


def read(file: MigrationFile) -> Contents:
    """Read *file* and its rollback now; :raises ConfigError: one of them cannot be read."""
    rollback = read_bytes(file.rollback_path) if file.rollback_path else b""
    data = read_bytes(file.path)
    return Contents(file, data, rollback, _sources(file, data, rollback) if file.is_sql else ())


def _sources(file: MigrationFile, data: bytes, rollback: bytes) -> tuple[Source, Source]:
    from initmig.migrations.foreign import marks_in
    from initmig.sql.source import Source

    apply = Source(file.path, data, find_marks=marks_in)
    return apply, Source(file.rollback_path, rollback, undoes=apply, find_marks=marks_in)


def dependencies(file: MigrationFile) -> frozenset[str]:
    """The ids that *file* declares as dependencies; empty if it cannot be parsed.

    The file is not run, and problems in it are not reported.
    """
    try:
        data = read_bytes(file.path)
        if file.is_sql:
            from initmig.sql.source import depends_of

            return depends_of(data)
        return _python_dependencies(data)
    except (ConfigError, SyntaxError, ValueError, TypeError, RecursionError):
        return frozenset()


def may_have_steps(file: MigrationFile) -> bool:
    """Whether *file* may define steps: False for Python without any of yoyo's names for them."""
    if file.is_sql:
        return True
    try:
        data = read_bytes(file.path)
    except ConfigError:
        return True
    return any(word in data for word in (b"step", b"group", b"transaction"))


def _python_dependencies(data: bytes) -> frozenset[str]:
    import ast

    for node in ast.parse(data).body:
        match node:
            case ast.Assign([ast.Name("__depends__")], value) | ast.AnnAssign(
                ast.Name("__depends__"), _, ast.expr() as value
            ):
                names = ast.literal_eval(value)
                return frozenset([names] if isinstance(names, str) else names)
    return frozenset()


def read_all(files: Iterable[MigrationFile]) -> tuple[list[Contents], list[Problem]]:
    """Read all *files*; return their contents, and a problem for each that cannot be read."""
    found: list[Contents] = []
    problems: list[Problem] = []
    for file in files:
        try:
            found.append(read(file))
        except ConfigError as error:
            problems.extend(error.problems)
    return found, problems


def parse_sql(contents: Contents) -> SqlFiles:
    """Parse an SQL file and its rollback, with every check that needs no server.

    :raises ConfigError: with every problem of both
    """
    apply, rollback = (source.content for source in contents.sources)
    if problems := (*apply.problems, *rollback.problems):
        raise ConfigError.of(problems)
    return SqlFiles(
        apply.data,
        rollback.data,
        digest(contents.data),
        digest(contents.rollback),
        apply.header,
        apply.ignored,
        apply.scan,
        rollback.scan,
    )
