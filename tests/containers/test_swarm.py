"""swarm/deploy and swarm/stack.yaml on a real swarm of one node."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.images import (
    EXAMPLE_APP,
    app_folder,
    built_image,
    image_id,
    migrations_folder,
)
from tests.support.swarm import Stack, new_stack, shared_swarm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "nowhere-to-be-seen"
# Slow enough for an app that does not wait to be caught.
USERS = {"0001_users.sql": "SELECT pg_sleep(2);\nCREATE TABLE users (id int);\n"}
EMAIL = {**USERS, "0002_email.sql": "ALTER TABLE users ADD COLUMN email text;\n"}
BROKEN = {**USERS, "0002_email.sql": "ALTER TABLE users ADD COLUMN email no_such_type;\n"}


class Images(NamedTuple):
    """Two releases, and what can be wrong with the second."""

    users: str
    email: str
    broken: str
    """Its second migration fails."""
    app: str
    email_app: str
    """Fails without the second migration."""
    broken_app: str


@pytest.fixture(scope="module")
def images(
    image: str,
    postgres_image: str,  # noqa: ARG001 what the app is built from
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Images]:
    """The images of an app and of its migrations, for as long as this module's tests run."""
    folder = tmp_path_factory.mktemp("images")
    with ExitStack() as stack:
        app = stack.enter_context(built_image(EXAMPLE_APP))
        migrations = [
            migrations_folder(folder / name, base=image, files=files)
            for name, files in (("users", USERS), ("email", EMAIL), ("broken", BROKEN))
        ]
        apps = [
            app_folder(folder / name, base=app, query=query)
            for name, query in (
                ("email-app", "SELECT count(email) FROM users"),
                ("broken-app", "SELECT nothing FROM users"),
            )
        ]
        users, email, broken = (stack.enter_context(built_image(each)) for each in migrations)
        email_app, broken_app = (stack.enter_context(built_image(each)) for each in apps)
        yield Images(users, email, broken, app, email_app, broken_app)


@pytest.fixture(scope="session")
def swarm(docker_engine: None) -> Iterator[None]:  # noqa: ARG001
    """The swarm, for as long as this process may need it."""
    with shared_swarm():
        yield


@pytest.fixture
def stack(swarm: None) -> Iterator[Stack]:  # noqa: ARG001
    """A stack that has not been deployed."""
    with new_stack(PASSWORD) as new:
        yield new


@pytest.fixture
def deployed(stack: Stack, images: Images) -> Stack:
    """A stack of the test's own, with the first release running."""
    return _deploy_first(stack, images)


@pytest.fixture(scope="module")
def unchanged(swarm: None, images: Images) -> Iterator[Stack]:  # noqa: ARG001
    """A stack with the first release running, which other tests use too and none changes."""
    with new_stack(PASSWORD) as new:
        yield _deploy_first(new, images)


def _deploy_first(stack: Stack, images: Images) -> Stack:
    done = stack.deploy(migrations=images.users, app=images.app)
    assert done.code == 0, done.out + done.err
    return stack


def test_first_deploy_starts_the_app_once_the_migrations_are_applied(unchanged: Stack) -> None:
    assert unchanged.applied() == ["0001_users"]
    migrate, gate = unchanged.tasks("migrate")[0], unchanged.tasks("gate")[0]
    apps = unchanged.tasks("app")
    assert [task.state for task in apps] == ["running", "running"], "and none that failed before"
    assert migrate.state == gate.state == "complete"
    assert min(task.created for task in apps) > gate.ended > migrate.ended
    wait_until(lambda: "users: 0" in unchanged.logs("app"))


def test_first_deploy_with_a_failing_migration_starts_no_app(stack: Stack, images: Images) -> None:
    done = stack.deploy(migrations=images.broken, app=images.app)

    assert done.code == 1, done.out + done.err
    assert stack.tasks("app") == []


def test_update_applies_the_new_migration_before_the_new_app_starts(
    deployed: Stack, images: Images
) -> None:
    done = deployed.deploy(migrations=images.email, app=images.email_app)

    assert done.code == 0, done.out + done.err
    assert deployed.applied() == ["0001_users", "0002_email"]
    new = [task for task in deployed.tasks("app") if task.image == image_id(images.email_app)]
    assert [task.state for task in new] == ["running", "running"], "and none that failed before"
    assert min(task.created for task in new) > deployed.tasks("migrate")[-1].ended
    assert deployed.running("app") == new


def test_failing_migration_says_why_and_leaves_the_app_until_it_is_mended(
    deployed: Stack, images: Images
) -> None:
    before = deployed.running("app")

    failed = deployed.deploy(migrations=images.broken, app=images.email_app)
    meanwhile = deployed.running("app")
    mended = deployed.deploy(migrations=images.email, app=images.email_app)

    assert failed.code == 1, failed.out + failed.err
    assert "/migrations/0002_email.sql:1:36: 0002_email failed" in failed.err
    assert "the app stays as it is" in failed.err
    assert meanwhile == before
    assert mended.code == 0, mended.out + mended.err
    running = {task.image for task in deployed.running("app")}
    assert running == {image_id(images.email_app)}


def test_same_deploy_again_changes_nothing(unchanged: Stack, images: Images) -> None:
    before = unchanged.running("app"), unchanged.running("db")

    done = unchanged.deploy(migrations=images.users, app=images.app)

    assert done.code == 0, done.out + done.err
    assert (unchanged.running("app"), unchanged.running("db")) == before
    assert unchanged.logs("migrate").count("applied 0001_users") == 1
    assert "nothing to do: 1 migration, all applied" in unchanged.logs("migrate")


def test_app_that_fails_gets_its_old_image_back_and_the_deploy_fails(
    deployed: Stack, images: Images
) -> None:
    done = deployed.deploy(migrations=images.users, app=images.broken_app)

    assert done.code == 1, done.out + done.err
    assert "was not updated (rollback_completed)" in done.err
    assert {task.image for task in deployed.running("app")} == {image_id(images.app)}


def test_password_is_in_no_service_and_the_root_of_migrations_and_app_is_read_only(
    unchanged: Stack,
) -> None:
    for service in ("db", "migrate", "gate", "app"):
        inspected = unchanged.inspect(service)
        assert PASSWORD not in json.dumps(inspected)
        container = inspected["Spec"]["TaskTemplate"]["ContainerSpec"]
        assert [each["SecretName"] for each in container["Secrets"]] == [unchanged.secret]
        if service != "db":
            assert container["ReadOnly"] is True
            assert container["CapabilityDrop"] == ["ALL"]
