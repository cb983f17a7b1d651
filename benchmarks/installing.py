"""Installs the tools, once, below `.bench/`."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.measuring import Command, CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.peers.peer import Peer

REPOSITORY: Final = Path(__file__).resolve().parent.parent
KEPT: Final = REPOSITORY / ".bench"
_PIP: Final = Path(__file__).parent / "peers" / "requirements-pip.txt"
_NODE_PINS: Final = [
    Path(__file__).parent / "peers" / name for name in ("package.json", "package-lock.json")
]


class Home(NamedTuple):
    """The folder of an installed tool. initmig is built from a *source* folder."""

    folder: Path
    source: Path

    def program(self, name: str, *arguments: str, **environment: str) -> Command:
        """A command of the tool's virtual environment."""
        return Command((str(self.folder / "bin" / name), *arguments), self.folder, environment)

    def node_program(self, name: str, *arguments: str, **environment: str) -> Command:
        """A command of the shared `node_modules`."""
        program = str(self.node_modules / ".bin" / name)
        return Command((program, *arguments), self.folder, environment)

    @property
    def node_modules(self) -> Path:
        """The folder into which npm installs the JavaScript tools, and some others."""
        return self.folder.parent / "node" / "node_modules"


class Installed(NamedTuple):
    """The installed peers with their folders, and the reasons why others were left out."""

    homes: dict[str, Home]
    versions: dict[str, str]
    left_out: dict[str, str]


def install(peers: Iterable[Peer], source: Path) -> Installed:
    """Install those of the *peers* that can be installed on this machine."""
    installed = Installed({}, {}, {})
    for peer in peers:
        home = Home(KEPT / "peers" / peer.name.lower(), source)
        home.folder.mkdir(parents=True, exist_ok=True)
        try:
            _require(peer.needs)
            peer.install(home)
            installed.versions[peer.name] = peer.version(home)
            installed.homes[peer.name] = home
        except CommandFailed as error:
            installed.left_out[peer.name] = str(error)
    return installed


def _require(programs: Sequence[str]) -> None:
    if missing := [program for program in programs if not shutil.which(program)]:
        raise CommandFailed(f"not on PATH: {', '.join(missing)}")


# --- Python ---


def install_requirements(home: Home, requirements: Path) -> None:
    """Create a virtual environment with *requirements*, which pin all packages."""
    key = _digest([_PIP, requirements])
    if _is_made_from(home.folder, key):
        return
    shutil.rmtree(home.folder)
    _run(sys.executable, "-m", "venv", str(home.folder))
    # from 3.12, venv does not install it: its hook takes time at each start of the interpreter
    _run(*home.program("python", "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools").argv)
    _pip(home, "--require-hashes", "--requirement", str(_PIP))
    _pip(home, "--require-hashes", "--no-deps", "--requirement", str(requirements))
    _note(home.folder, key)


def install_initmig(home: Home) -> None:
    """Install initmig as users do: its locked requirements, and its wheel."""
    install_requirements(home, home.source / "requirements.lock")
    wheels = home.folder / "wheels"
    key = _digest([home.source / "pyproject.toml", *sorted(home.source.glob("initmig/**/*.py"))])
    if _is_made_from(wheels, key):
        return
    shutil.rmtree(wheels, ignore_errors=True)
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels))
    _run(sys.executable, "-m", "pip", *build, str(home.source))
    _pip(home, "--no-deps", "--force-reinstall", *map(str, wheels.glob("*.whl")))
    _note(wheels, key)


def _pip(home: Home, *arguments: str) -> None:
    _run(*home.program("python", "-m", "pip", "install", "--quiet", *arguments).argv)


# --- npm ---


def install_node_modules(home: Home) -> None:
    """Install the shared `node_modules`, once. No script of a package is run."""
    folder = home.node_modules.parent
    key = _digest(_NODE_PINS)
    if _is_made_from(folder, key):
        return
    folder.mkdir(exist_ok=True)
    for path in _NODE_PINS:
        shutil.copy(path, folder)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    _note(folder, key)


def node_package_version(home: Home, package: str) -> str:
    """The version of *package* in `node_modules`."""
    version: str = json.loads((home.node_modules / package / "package.json").read_text())["version"]
    return version


def only_file(folder: Path, pattern: str) -> str:
    """The only file of *folder* that matches *pattern*. Raises CommandFailed without one."""
    for path in folder.glob(pattern):
        return str(path)
    raise CommandFailed(f"there is no {pattern} for this machine")


# --- installations are made again when their sources change ---


def _digest(paths: Iterable[Path]) -> str:
    parts = [sys.version.encode(), *(path.read_bytes() for path in paths)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _is_made_from(folder: Path, key: str) -> bool:
    note = folder / "made-from"
    return note.exists() and note.read_text() == key


def _note(folder: Path, key: str) -> None:
    (folder / "made-from").write_text(key)


def _run(*argv: str, folder: Path = REPOSITORY) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"`{' '.join(argv)}` failed: {done.stderr.strip()[:1000]}")
