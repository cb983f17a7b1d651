"""compose.yaml unchanged, except for the images: they exist, so nothing is pulled or built."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml

from tests.support.compose import Project, compose_command, compose_project
from tests.support.docker import REPOSITORY
from tests.support.docker_images import EXAMPLE_APP, built_image, image_id
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

IDS = sorted({path.name.split(".")[0] for path in (REPOSITORY / "migrations").glob("0*")})


class MakeProject(Protocol):
    """Makes a project, e.g. with a *migrations* folder in place of the repository's.

    *migrate* changes the service of that name.
    """

    def __call__(
        self, *, migrations: Path | None = None, migrate: Mapping[str, Any] | None = None
    ) -> Project: ...


@pytest.fixture(scope="module")
def app_image(postgres_image: str) -> Iterator[str]:  # noqa: ARG001 - its base image
    """The example app, built."""
    with built_image(EXAMPLE_APP) as name:
        yield name


@pytest.fixture
def make_project(image: str, app_image: str, tmp_path: Path) -> Iterator[MakeProject]:
    """Makes one project of compose.yaml."""
    if not compose_command():
        pytest.skip("there is no Compose: neither `docker compose` nor `docker-compose`")
    override = tmp_path / "override.json"

    def make(
        *, migrations: Path | None = None, migrate: Mapping[str, Any] | None = None
    ) -> Project:
        services: dict[str, dict[str, Any]] = {
            "db": {"pull_policy": "never"},
            # by its id: another test run can give the name to a newer image
            "migrate": {"pull_policy": "never", "image": image_id(image)},
            "app": {"pull_policy": "never", "image": app_image},
        }
        services["migrate"].update(migrate or {})
        if migrations:
            services["migrate"]["volumes"] = [f"{migrations}:/migrations:ro"]
        # in memory, for speed
        data = {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs"}}
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


def test_services_are_restricted_and_have_no_password_in_their_environment(
    project: Project,
) -> None:
    project("up", "--detach")
    password = (REPOSITORY / "examples" / "db-password").read_text().strip()

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
        inspected = json.dumps(project.inspect(service))
        assert "/run/secrets/db_password" in inspected
        assert password not in inspected


def _life(project: Project, service: str) -> tuple[str, str]:
    """Values that change when the container of *service* is replaced or restarted."""
    inspected = project.inspect(service)
    return inspected["Id"], inspected["State"]["StartedAt"]
