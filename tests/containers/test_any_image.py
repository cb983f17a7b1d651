"""The folder /opt/initmig runs in any image, and leaves the image and its programs alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.docker import BASE_IMAGE, REPOSITORY, docker, docker_out, unique
from tests.support.migrations import write
from tests.support.place import HARDENED, assert_applied, openssl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker import Containers, Postgres
    from tests.support.place import Place

INITMIG = "--entrypoint=/opt/initmig/bin/initmig"
RESTRICTED = (*HARDENED, "--user=123456:0", "--hostname=here")
LIBRARIES = {
    "debian": {"libc.so.6", "ld-linux-x86-64.so.2", "libm.so.6"},  # libm: from /etc/ld.so.preload
    "musl": {"ld-musl-x86_64.so.1"},
    "distroless": {"libc.so.6", "ld-linux-x86-64.so.2"},
    "static": set[str](),
}
"""By image, the libraries that its own programs load."""

LOOKS_AROUND = """
import grp, json, pwd, socket, ssl, subprocess
from datetime import datetime
from zoneinfo import ZoneInfo
from yoyo import step

def read(path):
    with open(path) as file:
        return file.read()

def look_around(connection):
    child = subprocess.run(
        ["cat", "/proc/self/maps", "/proc/self/environ"], capture_output=True, check=True, text=True
    )
    summer = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    found = {
        "users": [len(pwd.getpwall()), len(grp.getgrall())],
        "address": socket.gethostbyname("localhost"),
        "offset": summer.utcoffset().total_seconds(),
        "authorities": len(ssl.create_default_context().get_ca_certs()),
        "child": child.stdout.replace("\\0", "\\n"),
        "maps": read("/proc/self/maps"),
    }
    connection.execute("CREATE TABLE found (report jsonb)")
    connection.execute("INSERT INTO found VALUES (%s)", [json.dumps(found)])

step(look_around)
"""
MIGRATIONS = {"0001_one.sql": "CREATE TABLE one ()", "0002_looks_around.py": LOOKS_AROUND}


class Base(NamedTuple):
    """An image into which initmig was copied."""

    image: str
    libraries: set[str]
    """Names of the libraries that its own programs load."""


@pytest.fixture(scope="module", params=LIBRARIES)
def base(request: pytest.FixtureRequest, image: str) -> Iterator[Base]:
    name = unique("base")
    arguments = {"BASE": request.param, "BASE_IMAGE": BASE_IMAGE, "INITMIG": image}
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    folder = REPOSITORY / "tests/containers/bases"
    docker_out("build", "--pull=false", f"--tag={name}", *options, folder, timeout=600)
    yield Base(name, LIBRARIES[request.param])
    docker("rmi", "--no-prune", name)


def libraries(maps: str) -> set[str]:
    """The paths of the libraries in the text of /proc/PID/maps."""
    return set(re.findall(r" (/\S*\.so\b\S*)$", maps, re.MULTILINE))


def file_names(paths: set[str]) -> set[str]:
    return {path.rpartition("/")[2] for path in paths}


def variables(text: str) -> dict[str, str]:
    """The environment in the lines after those of /proc/PID/maps."""
    return dict(re.findall(r"^([A-Za-z_]\w*)=(.*)$", text.replace("\0", "\n"), re.MULTILINE))


def test_initmig_migrates_and_becomes_the_program_of_the_image(
    base: Base, containers: Containers, place: Place, folder: Path
) -> None:
    write(folder, MIGRATIONS)
    env = {**place.env, "INITMIG_MIGRATIONS": "/migrations"}
    options = place.options(folder, *RESTRICTED)

    result = containers.run(base.image, env=env, options=options)

    assert_applied(result, place, "0001_one", "0002_looks_around")
    report = json.loads(place.postgres.value("SELECT report FROM found"))
    assert report["offset"] == 7200
    assert report["address"] == "127.0.0.1"
    assert report["authorities"] > 100
    # initmig's process has only its own libraries, and the programs only those of the image
    ours = libraries(report["maps"])
    assert {path for path in ours if not path.startswith("/opt/initmig/")} == set()
    assert {"libc.so.6", "libz.so.1"} < file_names(ours)
    for output in (result.out, report["child"]):
        assert file_names(libraries(output)) == base.libraries
        assert "/opt/initmig" not in output
    # the programs have the environment that they would have without initmig
    plain = containers.run(
        base.image, "/proc/self/environ", env=env, options=[*options, "--entrypoint=cat"]
    )
    assert variables(result.out) == variables(report["child"]) == variables(plain.out)


def test_initmig_looks_for_no_library_of_the_image(
    base: Base, containers: Containers, place: Place, folder: Path
) -> None:
    imports = "import asyncio, bz2, ctypes, decimal, lzma, pwd, socket, ssl, uuid\n"
    uses = "pwd.getpwall(); socket.getaddrinfo('localhost', 1)\n"
    write(folder, {"0001_one.py": f"{imports}{uses}from yoyo import step\nstep('SELECT 1')\n"})
    url = f"{place.postgres.url}?gssencmode=prefer"
    env = {"DATABASE_URL": url, "INITMIG_MIGRATIONS": "/migrations", "LD_DEBUG": "libs"}

    result = containers.run(base.image, env=env, options=[*place.options(folder), INITMIG])

    assert_applied(result, place, "0001_one")
    tried = set(re.findall(r"(?:trying file=|calling init: )(\S+)", result.err))
    assert {path for path in tried if not path.startswith("/opt/initmig/")} == set()
    assert len(tried) > 30


def test_server_is_found_by_its_name(
    base: Base, containers: Containers, network: str, postgres: Postgres, folder: Path
) -> None:
    write(folder, {"0001_one.sql": "CREATE TABLE one ()"})
    env = {"DATABASE_URL": postgres.url, "INITMIG_MIGRATIONS": "/migrations"}
    options = [f"--network={network}", f"--volume={folder}:/migrations:ro"]

    result = containers.run(base.image, env=env, options=options)

    assert result.code == 0, result.err
    assert postgres.applied() == ["0001_one"]


def test_server_is_verified_with_an_authority_of_the_image(
    base: Base, containers: Containers, place: Place, folder: Path
) -> None:
    write(folder, {"0001_one.sql": "CREATE TABLE one ()"})
    env = {"DATABASE_URL": f"{place.postgres.url}?sslrootcert=system"}
    options = place.options(folder, *RESTRICTED, INITMIG)
    command = ("migrate", "--migrations=/migrations")

    result = containers.run(base.image, *command, "--wait-timeout=1", env=env, options=options)
    assert result.code == 4, result.err
    assert "certificate verify failed" in result.err

    digest = openssl(folder, "x509", "-noout", "-subject_hash", f"-in={place.ca}").strip()
    added = f"--volume={place.ca}:/etc/ssl/certs/{digest}.0:ro"
    result = containers.run(base.image, *command, env=env, options=[*options, added])
    assert_applied(result, place, "0001_one")
