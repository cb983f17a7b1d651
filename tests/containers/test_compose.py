"""compose.yaml unchanged, except for the images: they exist, so nothing is pulled or built."""

from __future__ import annotations

import json
import re
import shlex
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml

from tests.support.compose import Project, compose_command, compose_project
from tests.support.docker import REPOSITORY
from tests.support.docker_images import image_id
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PASSWORDS = {
    role: (REPOSITORY / "examples" / "database" / f"{role}-password").read_text().strip()
    for role in ("owner", "app")
}
SECRETS = {"db": {"owner", "app"}, "migrate": {"owner"}, "app": {"app"}}
NO_ROLES = {"volumes": ["/dev/null:/docker-entrypoint-initdb.d/initdb.sql:ro"]}
IDS = sorted({path.name.split(".")[0] for path in (REPOSITORY / "migrations").glob("0*")})


class MakeProject(Protocol):
    """Makes a project, e.g. with a *migrations* folder in place of the repository's.

    *migrate* and *db* change the services of these names. If *on_disk*, the data outlives the
    container of `db`.
    """

    def __call__(
        self,
        *,
        migrations: Path | None = None,
        migrate: Mapping[str, Any] | None = None,
        db: Mapping[str, Any] | None = None,
        on_disk: bool = False,
    ) -> Project: ...


@pytest.fixture
def make_project(image: str, app_image: str, tmp_path: Path) -> Iterator[MakeProject]:
    """Makes one project of compose.yaml; the next call changes it."""
    if not compose_command():
        pytest.skip("there is no Compose: neither `docker compose` nor `docker-compose`")
    override = tmp_path / "override.json"

    def make(
        *,
        migrations: Path | None = None,
        migrate: Mapping[str, Any] | None = None,
        db: Mapping[str, Any] | None = None,
        on_disk: bool = False,
    ) -> Project:
        services: dict[str, dict[str, Any]] = {
            "db": {"pull_policy": "never", **(db or {})},
            # by its id: another test run can give the name to a newer image
            "migrate": {"pull_policy": "never", "image": image_id(image)},
            "app": {"pull_policy": "never", "image": app_image},
        }
        services["migrate"].update(migrate or {})
        if migrations:
            services["migrate"]["volumes"] = [f"{migrations}:/migrations:ro"]
        in_memory = {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs"}}
        data = {} if on_disk else in_memory
        override.write_text(json.dumps({"services": services, "volumes": {"data": data}}))
        return new

    with compose_project(override) as new:
        yield make


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    """The project, with the repository's migrations."""
    return make_project()


def test_run_migrate_applies_everything_once_and_leaves_no_container(project: Project) -> None:
    first = project("run", "--rm", "migrate")
    second = project("run", "--rm", "migrate")

    assert first.code == second.code == 0, first.err + second.err
    assert "nothing to do: 4 migrations, all applied" in second.err
    assert project.applied() == IDS
    assert project("ps", "--all", "--services").out.split() == ["db"]


def test_run_exits_with_the_exit_code_of_initmig(project: Project) -> None:
    project("up", "--detach", "--wait", "db")
    commands = ["status --check", "--no-such-flag", "migrate", "status --check"]
    codes = [project("run", "--rm", "migrate", *command.split()).code for command in commands]
    project("stop", "db")
    unanswered = project("run", "--rm", "--no-deps", "migrate", "wait", "--wait-timeout", "0")

    assert codes == [7, 2, 0, 0]
    assert unanswered.code == 3, unanswered.err


def test_up_starts_the_app_once_the_migrations_are_applied(project: Project) -> None:
    done = project("up", "--detach")

    assert done.code == 0, done.err
    assert project.applied() == IDS
    wait_until(lambda: "users: 0" in project.logs("app"))
    migrate, app = project.inspect("migrate"), project.inspect("app")
    assert migrate["State"]["FinishedAt"] < app["State"]["StartedAt"]
    assert app["RestartCount"] == 0


def test_sidecar_of_the_docs_becomes_healthy_without_curl(make_project: MakeProject) -> None:
    page = (REPOSITORY / "docs/how-to/compose.md").read_text()
    snippet = page.split("## A health check without curl")[1].split("```yaml\n")[1].split("```")[0]
    project = make_project(migrate=yaml.safe_load(snippet))
    done = project("up", "--detach", "--wait", "migrate")

    assert done.code == 0, done.err
    assert project.inspect("migrate")["State"]["Health"]["Status"] == "healthy"
    assert project.applied() == IDS


def test_second_up_changes_nothing(project: Project) -> None:
    project("up", "--detach")
    before = [_life(project, service) for service in ("db", "app")]

    done = project("up", "--detach")

    assert done.code == 0, done.err
    assert [_life(project, service) for service in ("db", "app")] == before
    assert project.applied() == IDS
    assert project.logs("migrate").count("applied 4 migrations") == 1
    assert "nothing to do: 4 migrations, all applied" in project.logs("migrate")


def test_app_starts_only_after_a_failed_migration_is_fixed(
    make_project: MakeProject, folder: Path
) -> None:
    write(folder, {"0001_users.sql": "CREATE TABLE users (id int);\nSELECT emial FROM users;\n"})
    project = make_project(migrations=folder)

    failed = project("up", "--detach")
    started_at = project.inspect("app")["State"]["StartedAt"]
    logged = project.logs("migrate")
    write(folder, {"0001_users.sql": "CREATE TABLE users (id int);\n"})
    fixed = project("up", "--detach")

    assert failed.code == 1, logged
    assert 'service "migrate" didn\'t complete successfully: exit 1' in failed.err, logged
    assert started_at.startswith("0001-01-01"), "Docker's value for a container that never started"
    assert "/migrations/0001_users.sql:2:8: 0001_users failed" in logged
    assert fixed.code == 0, fixed.err
    wait_until(lambda: "users: 0" in project.logs("app"))


def test_next_up_applies_a_new_migration_while_the_app_continues(
    make_project: MakeProject, folder: Path
) -> None:
    write(folder, {"0001_users.sql": "CREATE TABLE users (id int);\n"})
    project = make_project(migrations=folder)
    project("up", "--detach")
    before = _life(project, "app")
    write(folder, {"0002_email.sql": "ALTER TABLE users ADD COLUMN email text;\n"})

    done = project("up", "--detach")

    assert done.code == 0, done.err
    assert project.applied() == ["0001_users", "0002_email"]
    assert _life(project, "app") == before


def test_each_service_is_restricted_and_has_only_the_secrets_of_its_role(
    project: Project,
) -> None:
    project("up", "--detach")

    for service in ("migrate", "app"):
        host = project.inspect(service)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert not host["CapAdd"]
    for service in ("db", "migrate", "app"):
        host = project.inspect(service)["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        inspected = project.inspect(service)
        mounted = {mount["Destination"] for mount in inspected["Mounts"]}
        assert {path for path in mounted if path.startswith("/run/")} == {
            f"/run/secrets/{role}_password" for role in SECRETS[service]
        }
        for password in PASSWORDS.values():
            assert password not in json.dumps(inspected)
    wait_until(lambda: "users: 0" in project.logs("app"))
    assert project("exec", "-T", "app", "ls", "/run/secrets").out.split() == ["app_password"]
    read = project("exec", "-T", "app", "cat", "/run/secrets/app_password")
    assert read.out.strip() == PASSWORDS["app"]
    assert PASSWORDS["owner"] not in read.out


def test_app_can_read_and_write_but_not_change_tables_or_the_history(project: Project) -> None:
    project("up", "--detach")
    users = "users (email, full_name) VALUES ('a@example.com', 'A')"
    allowed = (
        f"INSERT INTO {users}",
        "UPDATE users SET full_name = 'B'",
        "SELECT migration_id FROM initmig._yoyo_migration",
        "DELETE FROM users",
    )
    refused = (
        "CREATE TABLE planted ()",
        "CREATE TABLE initmig.planted ()",
        "CREATE TEMPORARY TABLE planted ()",
        "CREATE SCHEMA planted",
        "ALTER TABLE users ADD COLUMN planted int",
        "DROP TABLE users",
        "DELETE FROM initmig._yoyo_migration",
        "SET ROLE app_owner",
        "SELECT pg_read_file('/run/secrets/owner_password')",
    )

    def run(statement: str) -> tuple[int, str]:
        done = project.psql(statement, role="app")
        return done.code, done.err

    assert {statement: run(statement) for statement in allowed} == dict.fromkeys(allowed, (0, ""))
    for statement in refused:
        code, err = run(statement)
        assert code != 0, statement
        assert "permission denied" in err or "must be owner" in err, (statement, err)
    assert project.applied() == IDS
    _assert_doctor_is_satisfied(project)


def test_no_known_password_is_that_of_the_superuser(project: Project) -> None:
    project("up", "--detach")
    wait_until(lambda: "users: 0" in project.logs("app"))

    refused = [
        project("exec", "-T", "-e", f"PGPASSWORD={password}", "app", "psql", "-U", "postgres")
        for password in PASSWORDS.values()
    ]

    assert ["password authentication failed" in each.err for each in refused] == [True, True]


def test_command_of_the_docs_creates_the_roles_in_an_existing_volume(
    make_project: MakeProject,
) -> None:
    make_project(db=NO_ROLES, on_disk=True)("up", "--detach", "--wait", "db")
    project = make_project(on_disk=True)
    project("up", "--detach", "--wait", "db")
    page = (REPOSITORY / "docs/how-to/compose.md").read_text()
    [command] = re.findall(r"^\$ docker compose exec (db psql .*--file .*)$", page, re.MULTILINE)

    before = project.psql("SELECT FROM pg_roles WHERE rolname LIKE 'app%'").out
    created = project("exec", "-T", *shlex.split(command))
    again = project("exec", "-T", *shlex.split(command))
    done = project("up", "--detach")

    assert before == ""
    assert created.code == 0, created.err
    assert again.code != 0
    assert 'role "app_owner" already exists' in again.err
    assert done.code == 0, done.err
    wait_until(lambda: "users: 0" in project.logs("app"))
    _assert_doctor_is_satisfied(project)


def test_script_of_the_docs_moves_a_volume_of_the_former_example(
    make_project: MakeProject,
) -> None:
    password = {"PGPASSWORD_FILE": "/run/secrets/app_password", "INITMIG_HISTORY_SCHEMA": ""}
    login = {"DATABASE_URL": "postgresql://app@db/app", **password}
    superuser = {"POSTGRES_USER": "app", "POSTGRES_PASSWORD_FILE": "/run/secrets/app_password"}
    former = make_project(
        db={**NO_ROLES, "environment": superuser},
        migrate={"environment": login, "secrets": ["app_password"]},
        on_disk=True,
    )
    applied = former("run", "--rm", "migrate")
    assert applied.code == 0, applied.err
    former.psql("INSERT INTO users (email, full_name) VALUES ('a', 'A')", role="app")
    page = (REPOSITORY / "docs/how-to/upgrade.md").read_text()
    [script] = re.findall(r"^   ```sql\n(.*?)^   ```", page, re.MULTILINE | re.DOTALL)

    project = make_project(on_disk=True)
    project("up", "--detach", "--wait", "db")
    moved = project.psql(dedent(script), role="app")
    done = project("up", "--detach")

    assert moved.code == 0, moved.err
    assert done.code == 0, done.err + project.logs("migrate")
    assert "nothing to do: 4 migrations, all applied" in project.logs("migrate")
    wait_until(lambda: "users: 1" in project.logs("app"))
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'initmig')"
    assert project.psql(owners).out.split() == ["app_owner"]
    _assert_doctor_is_satisfied(project)


def _assert_doctor_is_satisfied(project: Project) -> None:
    done = project("run", "--rm", "migrate", "doctor", "--app-role", "app")
    checks = [line.split()[:2] for line in done.out.splitlines() if not line.startswith(" ")]
    # the network of the example has no TLS
    assert [check for check in checks if check[0] != "ok"] == [["warning", "tls"]], done.out
    assert done.code == 0, done.err


def _life(project: Project, service: str) -> tuple[str, str]:
    """Values that change when the container of *service* is replaced or restarted."""
    inspected = project.inspect(service)
    return inspected["Id"], inspected["State"]["StartedAt"]
