"""The image is small, reproducible and minimal, and works under every restriction."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from dev.release.images import SBOM, read_docker_archive, read_tar
from initmig.version import __version__
from tests.support.docker import (
    REPOSITORY,
    build_repository,
    docker,
    docker_out,
    exit_code,
    logs,
    unique,
)
from tests.support.migrations import write
from tests.support.place import HARDENED, assert_applied, openssl, request
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dev.release.images import Files
    from tests.containers.conftest import RunImage
    from tests.support.docker import Containers, Postgres
    from tests.support.place import Place

MEGABYTE = 1_000_000
OPT = "opt/initmig"
SITE = f"{OPT}/lib/python3/dist-packages"
BUNDLE = f"{OPT}/cert.pem"
SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
ONE = {"0001_one.sql": "CREATE TABLE one ()"}
SLEEPING = {"0001_sleeping.sql": "CREATE TABLE leftover (); SELECT pg_sleep(60)"}


@pytest.fixture(scope="module")
def saved(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `docker save`."""
    archive = tmp_path_factory.mktemp("saved") / "image.tar"
    docker_out("save", f"--output={archive}", image)
    return archive


@pytest.fixture(scope="module")
def files(saved: Path) -> Files:
    """Every path of the image's root file system."""
    return read_docker_archive(saved).files


@pytest.fixture(scope="module")
def bill(files: Files) -> dict[str, Any]:
    """The bill of materials in the image."""
    parsed: dict[str, Any] = json.loads(files[SBOM].content)
    return parsed


# ---- its content


def test_unpacked_image_has_at_most_45_mb(files: Files) -> None:
    assert sum(len(file.content) for file in files.values()) <= 45 * MEGABYTE


def test_compressed_image_has_at_most_16_mb(saved: Path) -> None:
    assert len(gzip.compress(saved.read_bytes(), 6)) <= 16 * MEGABYTE


def test_only_links_and_well_known_files_are_outside_of_opt_initmig(files: Files) -> None:
    outside = {path for path, file in files.items() if file.kind != tarfile.DIRTYPE}
    outside = {
        path for path in outside if not path.startswith((f"{OPT}/", "var/lib/dpkg/status.d/"))
    }
    assert outside == {
        "etc/group",
        "etc/nsswitch.conf",
        "etc/os-release",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/initmig",
        "usr/bin/python3.13",
        "usr/share/zoneinfo",
    }
    assert {"tmp", "migrations"} < files.keys()


def test_labels_describe_the_image(image: str) -> None:
    labels = json.loads(docker_out("inspect", "--format={{json .Config.Labels}}", image))
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "initmig"
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels[f"{prefix}version"] == __version__
    assert "PostgreSQL migrations" in labels[f"{prefix}description"]
    assert {f"{prefix}{name}" for name in ("source", "revision", "created")} <= labels.keys()


def test_version_is_printed_without_any_privilege(run_image: RunImage) -> None:
    result = run_image("--version", options=[*HARDENED, "--network=none", "--user=123456:0"])
    assert (result.code, result.out, result.err) == (0, f"initmig {__version__}\n", "")


def test_image_has_no_programs_except_python_and_initmig(files: Files, run_image: RunImage) -> None:
    folders = re.compile(r"(usr/|usr/local/|opt/|opt/initmig/)?s?bin/")
    programs = {path for path in files if folders.match(path)}
    names = ("initmig", "python3.13")
    assert programs == {f"{folder}/bin/{name}" for folder in ("usr", OPT) for name in names}
    assert run_image("-c", ":", options=["--entrypoint=sh"]).code == 127
    assert run_image("-c", ":", options=["--entrypoint=/bin/sh"]).code == 127


def test_image_has_no_setuid_file_and_belongs_to_root(files: Files) -> None:
    assert [path for path, file in files.items() if file.mode & 0o6000] == []
    assert {file.owner for file in files.values()} == {(0, 0)}
    kinds = {file.kind for file in files.values()}
    assert kinds == {tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE}


def test_only_tmp_can_be_written_by_other_users(files: Files) -> None:
    others = {
        path for path, file in files.items() if file.mode & 0o022 and file.kind != tarfile.SYMTYPE
    }
    assert others == {"tmp"}
    assert files["tmp"].mode & 0o7777 == 0o1777


def test_every_file_can_be_read_by_any_user(files: Files) -> None:
    assert [path for path, file in files.items() if not file.mode & 0o004] == []


def test_every_link_has_a_target(files: Files) -> None:
    links = {path: file.link for path, file in files.items() if file.kind == tarfile.SYMTYPE}
    targets = {
        path: os.path.normpath(os.path.join("/", os.path.dirname(path), link))[1:]
        for path, link in links.items()
    }
    assert len(targets) > 10
    assert {path for path, target in targets.items() if target not in files} == set()


def test_libraries_and_programs_are_stripped(files: Files) -> None:
    binaries = {path: file for path, file in files.items() if file.content[:4] == b"\x7fELF"}
    assert f"{OPT}/bin/python3.13" in binaries
    assert [path for path, file in binaries.items() if b".debug_info" in file.content] == []


def test_bytecode_is_not_checked_at_startup(files: Files) -> None:
    bytecode = {path: file for path, file in files.items() if path.endswith(".pyc")}
    assert f"{SITE}/initmig/cli/main.pyc" in bytecode
    unchecked_hash = (1).to_bytes(4, "little")
    assert {file.content[4:8] for file in bytecode.values()} == {unchecked_hash}
    assert [path for path in files if path.endswith(".py") or "__pycache__" in path] == []


def test_image_has_no_trace_of_the_build_machine(files: Files) -> None:
    traces = re.compile(rb"/rootfs|/opt/(site|image)|file:///src|\bbuildkitsandbox\b")
    assert [path for path, file in files.items() if traces.search(file.content)] == []
    notes = ("direct_url.json", "RECORD", "INSTALLER", "REQUESTED")
    assert [path for path in files if path.endswith(notes)] == []


# ---- the bill of materials and the licences


def test_bill_of_materials_is_valid_cyclonedx(files: Files) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(files[SBOM].content.decode()) is None
    assert validator.validate_str('{"bomFormat": "other"}') is not None


def test_bill_of_materials_has_every_wheel(files: Files, bill: dict[str, Any]) -> None:
    inside = {found[1] for path in files if (found := _DIST_INFO.fullmatch(path))}
    listed = {
        f"{part['name'].replace('-', '_')}-{part['version']}"
        for part in bill["components"]
        if part["purl"].startswith("pkg:pypi/")
    }
    assert listed == inside
    assert {f"initmig-{__version__}"} < listed


_DIST_INFO = re.compile(rf"{SITE}/([^/]+)\.dist-info")


def test_bill_of_materials_has_every_debian_package(files: Files, bill: dict[str, Any]) -> None:
    folder = "var/lib/dpkg/status.d/"
    status = [file.content.decode() for path, file in files.items() if path.startswith(folder)]
    inside = {(_field(text, "Package"), _field(text, "Version")) for text in status if text}
    listed = {
        (part["name"], part["version"])
        for part in bill["components"]
        if part["purl"].startswith("pkg:deb/debian/")
    }
    assert listed == inside
    assert {"libc6", "python3.13-minimal", "ca-certificates"} < {name for name, _ in listed}


def _field(text: str, name: str) -> str:
    [value] = re.findall(rf"^{name}: (.*)$", text, re.MULTILINE)
    return str(value)


def test_bill_of_materials_has_the_libraries_bundled_with_the_driver(
    files: Files, bill: dict[str, Any]
) -> None:
    [driver] = [part for part in bill["components"] if part["name"] == "psycopg-binary"]
    folder = f"{SITE}/psycopg_binary.libs/"
    inside = {
        path.removeprefix(folder): hashlib.sha256(file.content).hexdigest()
        for path, file in files.items()
        if path.startswith(folder) and file.content
    }
    parts = [part for part in driver["components"] if part["type"] == "file"]
    assert {part["name"]: part["hashes"][0]["content"] for part in parts} == inside
    assert any(name.startswith("libpq-") for name in inside)


def test_image_has_the_licence_of_everything_inside(files: Files, bill: dict[str, Any]) -> None:
    texts = [path for path, file in files.items() if file.content]
    for part in bill["components"]:
        if part["purl"].startswith("pkg:deb/"):
            assert f"{OPT}/share/doc/{part['name']}/copyright" in texts
        else:
            name = f"{part['name'].replace('-', '_')}-{part['version']}"
            pattern = re.compile(rf"{SITE}/{name}\.dist-info/(.*/)?(LICEN|COPYING)", re.IGNORECASE)
            assert list(filter(pattern.match, texts)), f"no licence of {name}"
    assert f"{OPT}/share/common-licenses/GPL-3" in texts


# ---- reproducible builds


@pytest.fixture(scope="module")
def build_stage(image: str) -> Iterator[str]:  # noqa: ARG001 - fills its cache
    name = unique("build")
    build_repository(name, "--target=build")
    yield name
    docker("rmi", "--no-prune", name)


def test_image_built_in_another_environment_has_the_same_bytes(
    build_stage: str, files: Files, containers: Containers, tmp_path: Path
) -> None:
    """The environment has another name, clock, umask, language and certificate authority."""
    ca = ("-x509", "-out=ca.crt")
    openssl(tmp_path, *request("ca", "CN=authority of this machine"), *ca)
    script = """
        set -e
        umask 077
        update-ca-certificates
        grep -qFf <(sed -n 2p "$CA") /etc/ssl/certs/ca-certificates.crt
        exec /opt/image/rootfs /again
    """
    certificate = "/usr/local/share/ca-certificates/own.crt"
    name = containers.start(
        build_stage,
        "bash",
        "-c",
        script,
        env={"TZ": "Asia/Tokyo", "LANG": "C.UTF-8", "HOME": "/elsewhere", "CA": certificate},
        options=[f"--volume={tmp_path}/ca.crt:{certificate}:ro", "--hostname=elsewhere"],
    )
    assert exit_code(name) == 0, logs(name).err
    archive = tmp_path / "again.tar"
    with archive.open("wb") as output:
        copy = ["docker", "cp", f"{name}:/again/.", "-"]
        subprocess.run(copy, stdout=output, check=True)
    again = read_tar(archive.read_bytes())
    again.pop("", None)
    assert again == files
    assert {file.modified for file in again.values()} == {0}


# ---- under restrictions


@pytest.mark.parametrize("user", ["123456:0", "123456:654321", "0:0"])
def test_migration_is_applied_under_any_user_id(
    run_image: RunImage, place: Place, folder: Path, user: str
) -> None:
    write(folder, ONE)
    options = place.options(folder, f"--user={user}")
    assert_applied(run_image(env=place.env, options=options), place, "0001_one")


def test_migration_is_applied_without_privileges_and_writable_paths(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    write(folder, ONE)
    options = place.options(folder, *HARDENED, "--user=123456:0")
    result = run_image(env=place.env, options=options)
    assert_applied(result, place, "0001_one")
    assert "warning" not in result.err


def test_migration_is_applied_with_only_the_network_of_the_database(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    assert docker_out("network", "inspect", "--format={{.Internal}}", place.network) == "true"
    write(folder, ONE)
    result = run_image(env=place.env, options=place.options(folder))
    assert_applied(result, place, "0001_one")


def test_container_stopped_during_a_migration_rolls_back_and_exits_143(
    containers: Containers, image: str, place: Place, folder: Path
) -> None:
    write(folder, SLEEPING)
    options = place.options(folder, *HARDENED)
    name = containers.start(image, env=place.env, options=options)
    asleep = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    wait_until(lambda: place.postgres.value(asleep) == "1")
    assert docker("stop", "--time=30", name).seconds < 25, (
        "stopped by SIGTERM, and not killed after 30 s"
    )
    assert exit_code(name) == 143, logs(name).err
    assert "stopped by SIGTERM" in logs(name).err
    assert place.postgres.value("SELECT to_regclass('leftover') IS NULL") == "t"
    assert place.postgres.applied() == []
    assert place.postgres.value(asleep) == "0"


@pytest.mark.parametrize(
    ("code", "command", "content"),
    [
        (0, "migrate", "SELECT 1"),
        (1, "migrate", "SELECT 1/0"),
        (2, "migrate --no-such-option", "SELECT 1"),
        (6, "migrate --to=no_such_migration", "SELECT 1"),
        (7, "status --check", "SELECT 1"),
    ],
)
def test_exit_codes_pass_through(  # noqa: PLR0913, PLR0917 - three of them are parametrized
    run_image: RunImage, place: Place, folder: Path, code: int, command: str, content: str
) -> None:
    write(folder, {"0001_one.sql": content})
    result = run_image(*command.split(), env=place.env, options=place.options(folder))
    assert result.code == code, result.err


@pytest.mark.parametrize(("code", "change"), [(3, (":5432/", ":1/")), (4, (":secret@", ":wrong@"))])
def test_exit_codes_of_the_connection_pass_through(
    run_image: RunImage, place: Place, folder: Path, code: int, change: tuple[str, str]
) -> None:
    write(folder, ONE)
    env = {"DATABASE_URL": place.postgres.url.replace(*change)}
    result = run_image("--wait-timeout=1", env=env, options=place.options(folder))
    assert result.code == code, result.err


def test_database_is_found_by_its_name(
    run_image: RunImage, network: str, postgres: Postgres, folder: Path
) -> None:
    write(folder, ONE)
    options = [f"--network={network}", f"--volume={folder}:/migrations:ro"]
    result = run_image(env={"DATABASE_URL": postgres.url}, options=options)
    assert result.code == 0, result.err
    assert postgres.applied() == ["0001_one"]


@pytest.mark.parametrize("content", ["SELECT 1", "SELECT\n1/0;\n-- ä line more"])
def test_every_line_of_the_log_is_an_event(
    run_image: RunImage, place: Place, folder: Path, content: str
) -> None:
    write(folder, {"0001_one.sql": content})
    env = {**place.env, "INITMIG_LOG_FORMAT": "json", "INITMIG_LOG_LEVEL": "debug"}
    result = run_image(env=env, options=place.options(folder))
    assert result.err.endswith("\n")
    assert len(result.events) > 1
    assert all(event["event"] for event in result.events)
    assert result.out == ""


INJECTED = "import os; os.write(2, b'injected\\n'); os._exit(99)"
EVIL = {
    "sitecustomize.py": INJECTED,
    "usercustomize.py": INJECTED,
    "json.py": INJECTED,
    "initmig/__init__.py": INJECTED,
    "lib/python3.13/site-packages/usercustomize.py": INJECTED,
    ".local/lib/python3.13/site-packages/usercustomize.py": INJECTED,
}


@pytest.mark.parametrize(
    ("env", "directory"),
    [
        ({"PYTHONPATH": "/evil"}, "/"),
        ({"PYTHONUSERBASE": "/evil"}, "/"),
        ({"HOME": "/evil"}, "/"),
        ({}, "/evil"),
    ],
)
def test_environment_and_working_directory_cannot_inject_code(
    run_image: RunImage, tmp_path: Path, env: Mapping[str, str], directory: str
) -> None:
    evil = write(tmp_path / "evil", EVIL)
    options = [f"--volume={evil}:/evil:ro", f"--workdir={directory}"]
    python = [*options, "--entrypoint=python3.13"]
    assert run_image("-c", "import json", env=env, options=python).code == 99
    others = {
        "PYTHONSTARTUP": "/evil/json.py",
        "PYTHONINSPECT": "1",
        "PYTHONHOME": "/evil",
        "PYTHONWARNINGS": "error",
        "PYTHONVERBOSE": "1",
    }
    result = run_image("migrate", "--no-such-option", env={**others, **env}, options=options)
    assert result.code == 2
    assert "--no-such-option" in result.err
    assert "injected" not in result.err


# ---- connections and files


WITH_TLS = {
    "0001_tls.sql": "CREATE TABLE proof AS SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
}


def connect_with(place: Place, *parameters: str) -> dict[str, str]:
    return {"DATABASE_URL": f"{place.postgres.url}?{'&'.join(parameters)}"}


def test_server_is_verified_with_a_mounted_certificate(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    write(folder, WITH_TLS)
    env = connect_with(place, "sslmode=verify-full", "sslrootcert=/tls/ca.crt")
    options = place.options(folder, f"--volume={place.ca}:/tls/ca.crt:ro")
    assert_applied(run_image(env=env, options=options), place, "0001_tls")
    assert place.postgres.value("SELECT ssl FROM proof") == "t"


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("require", "ok tls TLSv1.3"),
        ("disable", "warning tls off: anyone on the network between here and the server can read"),
    ],
)
def test_doctor_reports_whether_the_connection_is_encrypted(
    run_image: RunImage, place: Place, folder: Path, mode: str, line: str
) -> None:
    write(folder, WITH_TLS)
    env = connect_with(place, f"sslmode={mode}")
    result = run_image("doctor", env=env, options=place.options(folder))
    lines = [" ".join(each.split()) for each in result.out.splitlines()]
    assert any(each.startswith(line) for each in lines), result.err
    assert result.code == 0


def test_server_certificate_of_another_authority_is_refused(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    write(folder, WITH_TLS)
    env = connect_with(place, "sslmode=verify-full", "sslrootcert=/tls/ca.crt")
    other = place.ca.with_name("other.crt")
    options = place.options(folder, f"--volume={other}:/tls/ca.crt:ro")
    result = run_image("--wait-timeout=1", env=env, options=options)
    assert result.code == 4, result.err
    assert "certificate verify failed" in result.err


def test_server_is_verified_with_the_certificates_of_the_system(
    run_image: RunImage, place: Place, folder: Path, files: Files
) -> None:
    write(folder, WITH_TLS)
    env = connect_with(place, "sslrootcert=system")
    bundle = folder.with_name("bundle.crt")
    bundle.write_bytes(files[BUNDLE].content + place.ca.read_bytes())
    options = place.options(folder, f"--volume={bundle}:{SYSTEM_BUNDLE}:ro")
    assert_applied(run_image(env=env, options=options), place, "0001_tls")
    assert place.postgres.value("SELECT ssl FROM proof") == "t"


def test_certificates_of_the_system_are_only_the_public_ones(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    write(folder, WITH_TLS)
    env = connect_with(place, "sslrootcert=system")
    result = run_image("--wait-timeout=1", env=env, options=place.options(folder))
    assert result.code == 4, result.err
    assert "certificate verify failed" in result.err


def test_openssl_reads_more_than_a_hundred_public_certificates(run_image: RunImage) -> None:
    code = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    result = run_image("-I", "-c", code, options=["--entrypoint=python3.13"])
    assert int(result.out) > 100, result.err


def test_connection_string_is_read_from_a_secret(
    run_image: RunImage, place: Place, folder: Path, tmp_path: Path
) -> None:
    write(folder, ONE)
    secret = tmp_path / "secret"
    secret.write_text(f"{place.postgres.url}\n")
    env = {"DATABASE_URL_FILE": "/run/secrets/database-url"}
    options = place.options(folder, *HARDENED, f"--volume={secret}:/run/secrets/database-url:ro")
    assert_applied(run_image(env=env, options=options), place, "0001_one")


def test_password_is_printed_by_a_program_of_the_image(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    write(folder, ONE)
    postgres = place.postgres
    command = shlex.join(["python3.13", "-c", f"print({postgres.password!r})"])
    bare = postgres.url.replace(f":{postgres.password}@", "@")
    env = {"DATABASE_URL": bare, "INITMIG_PASSWORD_COMMAND": command}
    result = run_image(env=env, options=place.options(folder, *HARDENED))
    assert_applied(result, place, "0001_one")


def test_config_map_is_read_once(run_image: RunImage, place: Place, folder: Path) -> None:
    sql = {f"000{number}_{name}.sql": f"CREATE TABLE {name} ()" for number, name in enumerate("ab")}
    write(folder / "..2026_01_01_00_00_00.1", sql)
    (folder / "..data").symlink_to("..2026_01_01_00_00_00.1")
    for name in sql:
        (folder / name).symlink_to(f"..data/{name}")
    result = run_image(env=place.env, options=place.options(folder, *HARDENED))
    assert_applied(result, place, "0000_a", "0001_b")
    listed = run_image("status", "--json", env=place.env, options=place.options(folder))
    assert [row["state"] for row in json.loads(listed.out)["migrations"]] == ["applied", "applied"]


USES_LIBRARY = """
import csv, hashlib, io, json, re, uuid
from datetime import date, datetime
from decimal import Decimal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo
from yoyo import step

def fill(connection):
    [[name, amount]] = csv.reader(io.StringIO("ä,1.10"))
    summer = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    facts = {
        "name": name,
        "total": str(Decimal(amount) * 3),
        "day": date(2026, 7, 1).isoformat(),
        "offset": summer.utcoffset().total_seconds(),
        "digest": hashlib.sha256(b"").hexdigest()[:8],
        "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "example.org")),
        "host": urlsplit("https://example.org/a").hostname,
        "word": re.search(r"\\w+", "one two")[0],
    }
    connection.execute("CREATE TABLE facts (fact jsonb)")
    connection.execute("INSERT INTO facts VALUES (%s)", [json.dumps(facts)])

step(fill)
"""


def test_python_migrations_can_use_the_standard_library(
    run_image: RunImage, place: Place, folder: Path
) -> None:
    write(folder, {"0001_facts.py": USES_LIBRARY})
    result = run_image(env=place.env, options=place.options(folder, *HARDENED))
    assert_applied(result, place, "0001_facts")
    assert json.loads(place.postgres.value("SELECT fact FROM facts")) == {
        "name": "ä",
        "total": "3.30",
        "day": "2026-07-01",
        "offset": 7200.0,
        "digest": "e3b0c442",
        "id": "aad03681-8b63-5304-89e0-8ca8f49461b5",
        "host": "example.org",
        "word": "one",
    }


IMPORTS_ALL = """
import pkgutil, sys
for module in pkgutil.walk_packages(["/opt/initmig/lib/python3.13"]):
    if not module.name.endswith("__main__"):
        try:
            __import__(module.name)
        except ImportError as error:
            print(error.name)
print(len(sys.modules))
"""


def test_rest_of_the_standard_library_needs_nothing_that_was_removed(run_image: RunImage) -> None:
    result = run_image("-c", IMPORTS_ALL, options=["--entrypoint=python3.13"])
    *missing, number = result.out.split()
    assert int(number) > 300, result.err
    # of Chinese, Japanese and Korean character sets, of distutils, and of Windows
    east_asian = {f"_codecs_{name}" for name in ("cn", "hk", "jp", "kr", "tw", "iso2022")}
    assert set(missing) == east_asian | {"distutils", "msvcrt"}


def test_application_adds_its_migrations_with_two_lines(
    image: str, containers: Containers, place: Place, tmp_path: Path
) -> None:
    example = shutil.copytree(REPOSITORY / "examples/image", tmp_path / "example")
    dockerfile = example / "Dockerfile"
    first, second = dockerfile.read_text().splitlines()
    assert first == "FROM initmig"
    dockerfile.write_text(f"FROM {image}\n{second}\n")
    name = unique("example")
    docker_out("build", "--pull=false", f"--tag={name}", example)
    try:
        result = containers.run(name, env=place.env, options=place.options())
        assert_applied(result, place, "0001_notes")
    finally:
        containers.clean_up()
        docker("rmi", "--no-prune", name)
