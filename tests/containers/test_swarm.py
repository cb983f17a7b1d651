"""swarm/deploy and the files of swarm/, on a real swarm of one node."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.docker import REPOSITORY, docker, docker_out
from tests.support.docker_images import (
    app_folder,
    built_image,
    image_id,
    migrations_folder,
)
from tests.support.migrations import write
from tests.support.swarm import DEPLOY, Stack, new_stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.processes import Processes, Running

PASSWORDS = {"owner": "nowhere-to-be-seen", "app": "not-to-be-seen-either"}
SECRETS = {"db": {"owner", "app"}, "migrate": {"owner"}, "gate": {"app"}, "app": {"app"}}
# Slow enough that an app that does not wait fails.
USERS = {"0001_users.sql": "SELECT pg_sleep(2);\nCREATE TABLE users (id int);\n"}
EMAIL = {**USERS, "0002_email.sql": "ALTER TABLE users ADD COLUMN email text;\n"}
BROKEN = {**EMAIL, "0003_name.sql": "ALTER TABLE users ADD COLUMN name no_such_type;\n"}
SLOW = {**EMAIL, "0003_name.sql": "SELECT pg_sleep(600);\n"}
SLOW_AND_BROKEN = {**USERS, "0002_email.sql": "SELECT pg_sleep(6);\nSELECT no_such_column;\n"}

SWARM = REPOSITORY / "swarm"
DB, EXEC = SWARM / "db.yaml", SWARM / "exec.yaml"
EXECUTED_APP = """#!/usr/bin/python3.13
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
signal.sigwait({signal.SIGTERM})
"""

# Without a database, for tests without migrations. Each test makes it fail in a different way.
PLAIN = """
services:
  app:
    image: ${APP_IMAGE}
    command: [bash, -c, "${RUN}"]
    environment: { SETTING: "${SETTING:-}" }
    deploy:
      labels: { deployment: "${DEPLOYMENT:-}" }
      replicas: ${APP_REPLICAS:-2}
      placement: { constraints: ["${PLACE:-node.role == manager}"] }
      restart_policy: { delay: 1s }
      update_config:
        order: start-first
        parallelism: 0
        failure_action: ${ON_FAILURE:-rollback}
        monitor: ${APP_MONITOR:-1s}
      rollback_config: { order: start-first, parallelism: 0, monitor: 1s }
  agent: # one on each node
    image: ${OTHER_IMAGE}
    command: [bash, -c, "trap exit INT TERM; while sleep 0.1; do :; done"]
    deploy:
      labels: { deployment: "${DEPLOYMENT:-}" }
      mode: global
      update_config: { monitor: 1s }
"""
JOB = """
services:
  job:
    image: ${OTHER_IMAGE}
    command: [bash, -c, "${RUN_JOB}"]
    labels: { deployment: "${DEPLOYMENT:-}" }
    deploy: { mode: replicated-job, restart_policy: { condition: none } }
"""
UNLABELLED = PLAIN.replace("deployment:", "something-else:")
STAY = "trap exit INT TERM; while sleep 0.1; do :; done"
IMPOSSIBLE = "node.labels.nowhere == true"


class Images(NamedTuple):
    """Two releases of the app and its migrations, and faulty versions of the second one."""

    users: str
    email: str
    broken: str
    """Its third migration fails."""
    slow: str
    """Its third migration takes 10 minutes."""
    app: str
    email_app: str
    """Fails without the second migration."""
    broken_app: str


@pytest.fixture(scope="module")
def images(
    image: str, app_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Images]:
    """The images of an app and of its migrations, for all tests of this module."""
    folder = tmp_path_factory.mktemp("images")
    with ExitStack() as stack:
        migrations = [
            migrations_folder(folder / name, base=image, files=files)
            for name, files in (
                ("users", USERS),
                ("email", EMAIL),
                ("broken", BROKEN),
                ("slow", SLOW),
            )
        ]
        apps = [
            app_folder(folder / name, base=app_image, query=query)
            for name, query in (
                ("email-app", "SELECT count(email) FROM users"),
                ("broken-app", "SELECT nothing FROM users"),
            )
        ]
        built = [stack.enter_context(built_image(each)) for each in (*migrations, *apps)]
        users, email, broken, slow, email_app, broken_app = map(image_id, built)
        yield Images(users, email, broken, slow, image_id(app_image), email_app, broken_app)


@pytest.fixture(scope="module")
def variables(postgres_image: str) -> dict[str, str]:
    """The environment variables of every deploy of these tests."""
    postgres = image_id(postgres_image)
    times = {"APP_MONITOR": "2s", "APP_TIMEOUT": "90", "JOB_TIMEOUT": "90"}
    return {"POSTGRES_IMAGE": postgres, **times}


@pytest.fixture
def stack(swarm: None, variables: dict[str, str]) -> Iterator[Stack]:  # noqa: ARG001
    """A stack that has not been deployed."""
    with new_stack(PASSWORDS, **variables) as new:
        yield new


@pytest.fixture(scope="module")
def shared_shop(swarm: None, images: Images, variables: dict[str, str]) -> Iterator[Stack]:  # noqa: ARG001
    with new_stack(PASSWORDS, **variables) as new:
        _release(new, images)
        yield new


@pytest.fixture
def shop(shared_shop: Stack, images: Images) -> Stack:
    """A stack that runs some release of the app, and which other tests have already used."""
    if shared_shop.replicas("app") != 2:
        _release(shared_shop, images)
    return shared_shop


def _release(stack: Stack, images: Images) -> None:
    done = stack.deploy(MIGRATE_IMAGE=images.users, APP_IMAGE=images.app)
    assert done.code == 0, done.err
    assert done.err.endswith(f"deploy: {stack.name} is live\n")


# ---- database, migrations and app


def test_first_deploy_starts_the_app_once_the_migrations_are_applied(shop: Stack) -> None:
    assert shop.applied() == ["0001_users"]
    migrate, gate = shop.tasks("migrate")[0], shop.tasks("gate")[0]
    apps = shop.tasks("app")
    assert [task.state for task in apps] == ["running", "running"], "and no task failed before"
    assert migrate.state == gate.state == "complete"
    # the container of `migrate` may end after the gate has seen its last record
    [recorded] = shop.query(
        "SELECT to_char(max(applied_at_utc), 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
        " FROM initmig._yoyo_migration"
    )
    assert min(task.created for task in apps) > gate.ended > recorded
    wait_until(lambda: "users: 0" in shop.logs("app"))


def test_repeated_deploy_changes_nothing(shop: Stack, images: Images) -> None:
    before = shop.running("app"), shop.running("db")

    done = shop.deploy(MIGRATE_IMAGE=images.users, APP_IMAGE=images.app)

    assert done.code == 0, done.err
    assert (shop.running("app"), shop.running("db")) == before
    wait_until(lambda: "nothing to do: 1 migration, all applied" in shop.logs("migrate"))
    assert shop.logs("migrate").count("applied 0001_users") == 1


def test_each_service_is_restricted_and_has_only_the_secrets_of_its_role(
    shop: Stack,
) -> None:
    for service, roles in SECRETS.items():
        inspected = shop.inspect(service)
        containers = [docker_out("inspect", each) for each in shop.containers(service)]
        for password in PASSWORDS.values():
            assert password not in json.dumps(inspected)
            assert [each for each in containers if password in each] == []
        container = inspected["Spec"]["TaskTemplate"]["ContainerSpec"]
        assert {each["SecretName"] for each in container["Secrets"]} == {
            shop.secrets[role] for role in roles
        }
        assert container["CapabilityDrop"] == ["ALL"]
        assert container.get("ReadOnly", False) == (service != "db")
        limits = inspected["Spec"]["TaskTemplate"]["Resources"]["Limits"]
        assert {"MemoryBytes", "Pids"} <= limits.keys()


def test_app_cannot_read_the_owners_secret_or_create_a_table(shop: Stack) -> None:
    app, *_ = shop.containers("app")
    assert docker_out("exec", app, "ls", "/run/secrets").split() == ["app_password"]
    create = 'PGPASSWORD=$(cat "$PASSWORD_FILE") psql --command "CREATE TABLE planted ()"'
    created = docker("exec", app, "sh", "-c", create)
    assert created.code == 1
    assert "permission denied for schema public" in created.err


def test_update_applies_the_new_migration_before_the_new_app_starts(
    shop: Stack, images: Images
) -> None:
    assert shop.applied() == ["0001_users"]

    done = shop.deploy(MIGRATE_IMAGE=images.email, APP_IMAGE=images.email_app)

    assert done.code == 0, done.err
    assert shop.applied() == ["0001_users", "0002_email"]
    new = [task for task in shop.tasks("app") if task.image == images.email_app]
    assert [task.state for task in new] == ["running", "running"], "and no task failed before"
    assert min(task.created for task in new) > shop.tasks("migrate")[-1].ended
    assert shop.running("app") == new


def test_failed_migration_is_reported_and_the_app_continues(shop: Stack, images: Images) -> None:
    before = shop.running("app")

    failed = shop.deploy(MIGRATE_IMAGE=images.broken, APP_IMAGE=images.email_app)

    assert failed.code == 1, failed.err
    assert "/migrations/0003_name.sql:1:35: 0003_name failed" in failed.err
    assert "_migrate failed; " in failed.err
    assert "[job-failed]" in failed.err
    assert shop.running("app") == before


def test_image_and_setting_are_rolled_back_together_and_the_deploy_fails(
    shop: Stack, images: Images
) -> None:
    before = shop.container("app")

    change = {"APP_IMAGE": images.broken_app, "APP_LOGIN": "nobody", "APP_MONITOR": "20s"}
    done = shop.deploy(SWARM / "app.yaml", **change)

    assert done.code == 1, done.err
    assert "was rolled back to its previous image and settings" in done.err
    assert "[rolled-back]" in done.err
    assert "non-zero exit (1)" in done.err
    assert shop.container("app") == before
    wait_until(lambda: shop.replicas("app") == 2, 120)
    assert {task.image for task in shop.running("app")} == {before["Image"]}


def test_deploy_that_is_overtaken_fails_and_does_not_touch_the_app(
    shop: Stack, images: Images, processes: Processes
) -> None:
    before, current = {task.id for task in shop.tasks("app")}, shop.container("app")["Image"]
    first = shop.start_deploy(processes, MIGRATE_IMAGE=images.slow, APP_IMAGE=images.broken_app)
    _wait_for_the_slow_migration(shop, first)

    second = shop.deploy(MIGRATE_IMAGE=images.email, APP_IMAGE=current)

    overtaken = first.result()
    assert overtaken.code == 1, overtaken.err
    assert "[overtaken]" in overtaken.err
    assert second.code == 0, second.err
    new = [task for task in shop.tasks("app") if task.id not in before]
    assert {task.image for task in new} <= {current}
    assert "0003_name" not in shop.applied()


def test_killed_deploy_can_be_repeated(shop: Stack, images: Images, processes: Processes) -> None:
    killed = shop.start_deploy(processes, MIGRATE_IMAGE=images.slow, APP_IMAGE=images.email_app)
    _wait_for_the_slow_migration(shop, killed)
    killed.kill()

    again = shop.deploy(MIGRATE_IMAGE=images.email, APP_IMAGE=images.email_app)

    assert again.code == 0, again.err
    assert {task.image for task in shop.running("app")} == {images.email_app}
    assert not _is_asleep(shop)


def _wait_for_the_slow_migration(stack: Stack, deploy: Running) -> None:
    wait_until(lambda: _is_asleep(stack) or not deploy.is_running(), 180)
    assert deploy.is_running(), deploy.err


def _is_asleep(stack: Stack) -> bool:
    """Whether the slow migration is running."""
    return stack.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == ["1"]


def test_password_rotations_of_the_docs_cause_no_failure(
    shop: Stack, images: Images, tmp_path: Path
) -> None:
    db, old = shop.running("db"), {task.id for task in shop.tasks("app")}
    failed = _failed(shop)
    page = (REPOSITORY / "docs" / "how-to" / "swarm.md").read_text()
    scripts = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(scripts) == 2, "one for each role"
    script = "".join(scripts)
    app_secret, owner_secret = f"{shop.name}-app-2", f"{shop.name}-owner-2"
    for word, own in (
        ("shop_db", f"{shop.name}_db"),
        ("swarm/deploy shop", f"{DEPLOY} {shop.name}"),
        ("app_2_password", app_secret),
        ("owner_2_password", owner_secret),
    ):
        assert word in script
        script = script.replace(word, own)
    current = shop.container("app")["Image"]
    environment = shop.environment(MIGRATE_IMAGE=images.email, APP_IMAGE=current)

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert shop.running("db") == db
    assert {task.id for task in shop.running("app")}.isdisjoint(old)
    assert _failed(shop) <= failed
    assert "PGUSER=app_2" in shop.container("app")["Env"]
    assert shop.query("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'app'") == ["t"]
    assert _secrets(shop, "app") == _secrets(shop, "gate") == {app_secret}
    assert _secrets(shop, "migrate") == {owner_secret}
    assert list(tmp_path.iterdir()) == []


def _secrets(stack: Stack, service: str) -> set[str]:
    return {each["SecretName"] for each in stack.container(service)["Secrets"]}


def _failed(stack: Stack) -> set[str]:
    return {task.id for task in stack.tasks("app") if task.state == "failed"}


def test_first_deploy_with_a_failing_migration_starts_no_app(stack: Stack, images: Images) -> None:
    done = stack.deploy(MIGRATE_IMAGE=images.broken, APP_IMAGE=images.app)

    assert done.code == 1, done.err
    assert stack.tasks("app") == []


# ---- initmig exec


def test_exec_keeps_the_old_tasks_until_the_migrations_are_applied(
    stack: Stack, image: str, tmp_path: Path
) -> None:
    with ExitStack() as built:
        good, bad = (
            image_id(built.enter_context(built_image(_executed(tmp_path / name, image, files))))
            for name, files in (("good", USERS), ("bad", SLOW_AND_BROKEN))
        )
        # one replica, because this tests the health check
        few = {"APP_REPLICAS": "1", "APP_MONITOR": "1s"}
        done = stack.deploy(DB, EXEC, APP_IMAGE=good, **few)
        assert done.code == 0, done.err
        before = stack.running("app")
        assert len(before) == 1
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'users'"
        assert stack.query(owner) == ["app_owner"]
        assert "PGUSER=app" in stack.container("app")["Env"]
        assert _secrets(stack, "app") == set(stack.secrets.values())

        # It sleeps longer than Swarm monitors, so a migrating task must not count as started.
        failed = stack.deploy(EXEC, APP_IMAGE=bad, **few)

        assert failed.code == 1, failed.err
        assert "[rolled-back]" in failed.err
        assert stack.running("app") == before
        assert stack.applied() == ["0001_users"]


def _executed(folder: Path, image: str, migrations: dict[str, str]) -> Path:
    migrations_folder(folder, base=image, files=migrations)
    write(folder, {"app": EXECUTED_APP})
    (folder / "app").chmod(0o755)
    with (folder / "Dockerfile").open("a") as file:
        file.write('COPY app /app\nCMD ["exec", "--", "/app"]\n')
    return folder


# ---- services without migrations


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = {"plain.yaml": PLAIN, "job.yaml": JOB, "unlabelled.yaml": UNLABELLED}
    return write(tmp_path_factory.mktemp("files"), contents)


@pytest.fixture
def plain(files: Path) -> Path:
    return files / "plain.yaml"


@pytest.fixture(scope="module")
def shared_plain_stack(swarm: None, postgres_image: str) -> Iterator[Stack]:  # noqa: ARG001
    image = image_id(postgres_image)
    variables = {"APP_IMAGE": image, "OTHER_IMAGE": image, "RUN": STAY, "APP_TIMEOUT": "60"}
    with new_stack(PASSWORDS, **variables) as new:
        yield new


@pytest.fixture
def running(shared_plain_stack: Stack, plain: Path) -> Stack:
    """A running stack of `PLAIN`, which other tests have already used."""
    if shared_plain_stack.replicas("app") != 2:
        done = shared_plain_stack.deploy(plain)
        assert done.code == 0, done.err
    return shared_plain_stack


@pytest.mark.parametrize(
    ("change", "id", "reason"),
    [
        ({"RUN": "exit 3"}, "rolled-back", "failed: task: non-zero exit (3)"),
        ({"RUN": "sleep 0.5; exit 3", "SETTING": "new"}, "rolled-back", "non-zero exit (3)"),
        ({"APP_IMAGE": "no-such-image:1"}, "rolled-back", "rejected: No such image"),
        (
            {"PLACE": IMPOSSIBLE, "SETTING": "new", "APP_TIMEOUT": "3"},
            "timed-out",
            "no suitable node",
        ),
    ],
)
def test_failed_update_is_reported_and_rolled_back(
    running: Stack, plain: Path, change: dict[str, str], id: str, reason: str
) -> None:
    before = running.container("app")

    # Time for a busy machine to report a failed task, which ends the monitoring.
    failed = running.deploy(plain, **{"APP_MONITOR": "20s", **change})

    assert failed.code == 1, failed.err
    assert f"[{id}]\n  {running.name}_app." in failed.err
    assert reason in failed.err
    assert running.container("app") == before
    wait_until(lambda: running.replicas("app") == 2, 120)


def test_paused_update_fails_and_the_next_deploy_recovers(running: Stack, plain: Path) -> None:
    failed = running.deploy(plain, RUN="exit 3", ON_FAILURE="pause", APP_MONITOR="20s")
    recovered = running.deploy(plain)

    assert failed.code == 1, failed.err
    assert f"[paused]\n  {running.name}_app." in failed.err
    assert "non-zero exit (3)" in failed.err
    assert recovered.code == 0, recovered.err
    assert running.replicas("app") == 2


def test_setting_is_active_when_the_deploy_ends(running: Stack, plain: Path) -> None:
    before = {task.id for task in running.running("app")}

    done = running.deploy(plain, SETTING="new")

    assert done.code == 0, done.err
    after = {task.id for task in running.running("app")}
    assert len(after) == 2
    assert after.isdisjoint(before)
    assert "SETTING=new" in running.container("app")["Env"]


def test_deploy_keeps_the_number_of_replicas(running: Stack, plain: Path) -> None:
    docker_out("service", "scale", "--detach", f"{running.name}_app=3")

    done = running.deploy(plain)

    assert (done.code, running.replicas("app")) == (0, 3), done.err
    docker_out("service", "scale", "--detach", f"{running.name}_app=2")


def test_deploy_fails_if_its_service_is_updated_by_hand(
    running: Stack, plain: Path, processes: Processes
) -> None:
    deploy = running.start_deploy(processes, plain, SETTING="slow", APP_MONITOR="3s")
    deploy.wait_for_line("up to date, updating")

    docker_out("service", "update", "--detach", "--env-add=BY=hand", f"{running.name}_app")

    done = deploy.result()
    assert done.code == 1, done.err
    assert "[overtaken]" in done.err


def test_second_deploy_waits_for_the_update_of_the_first(
    running: Stack, plain: Path, processes: Processes
) -> None:
    first = running.start_deploy(processes, plain, SETTING="first", APP_MONITOR="4s")
    first.wait_for_line("up to date, updating")

    second = running.deploy(plain, SETTING="second")

    # The second deploy may start before the first one checks its update again.
    assert first.result().code == 0 or "[overtaken]" in first.err, first.err
    assert second.code == 0, second.err
    assert "waiting for an earlier update to end" in second.err
    assert "SETTING=second" in running.container("app")["Env"]


@pytest.mark.parametrize(
    "change",
    [
        {"RUN": "sleep 1; exit 3", "APP_MONITOR": "20s"},
        {"PLACE": IMPOSSIBLE, "SETTING": "new"},
    ],
    ids=["fails", "never starts"],
)
def test_update_of_a_killed_deploy_can_still_be_rolled_back(
    running: Stack, plain: Path, processes: Processes, change: dict[str, str]
) -> None:
    before = running.container("app")
    killed = running.start_deploy(processes, plain, **change)
    killed.wait_for_line("up to date, updating")
    killed.kill()

    again = running.deploy(plain, **change, APP_TIMEOUT="5")

    assert again.code == 1, again.err
    assert running.container("app") == before
    done = running.deploy(plain)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"RUN_JOB": "echo because; exit 5"}, 5, "because\n"),
        ({"RUN_JOB": "exit 5"}, 5, "_job.0: failed: task: non-zero exit (5)"),
        ({"RUN_JOB": "(kill -9 $BASHPID)"}, 137, "[job-failed]"),
        ({"OTHER_IMAGE": "no-such-image:1", "RUN_JOB": ":"}, 1, "rejected: No such image"),
        ({"RUN_JOB": STAY, "JOB_TIMEOUT": "3"}, 1, "not live after 3 s (running) [timed-out]"),
    ],
)
def test_failed_job_ends_the_deploy_before_the_app_is_updated(
    running: Stack, files: Path, change: dict[str, str], code: int, message: str
) -> None:
    before = running.inspect("app")

    done = running.deploy(files / "job.yaml", files / "plain.yaml", **change)

    assert done.code == code, done.err
    assert message in done.err
    assert running.inspect("app") == before


def test_file_without_the_label_is_an_error(running: Stack, files: Path) -> None:
    done = running.deploy(files / "unlabelled.yaml")
    assert done.code == 2, done.err
    assert "[unlabelled]" in done.err


def test_bad_input_changes_nothing(running: Stack, plain: Path) -> None:
    before = running.inspect("app")
    for variables, files, id in (
        ({"APP_IMAGE": ""}, (), "invalid-file"),
        ({}, (plain, "no-such-file"), "invalid-file"),
        ({"APP_TIMEOUT": "5m"}, (plain,), "invalid-setting"),
        ({"RESOLVE_IMAGE": "maybe"}, (plain,), "invalid-setting"),
    ):
        done = running.deploy(*files, **variables)
        assert (done.code, f"[{id}]" in done.err) == (2, True), done.err
    assert running.inspect("app") == before


def test_no_manager_is_an_error(running: Stack, plain: Path) -> None:
    done = running.deploy(plain, DOCKER_HOST="unix:///nowhere.sock")
    assert done.code == 1, done.err
    assert "[docker-failed]" in done.err


def test_app_that_never_starts_fails_its_first_deploy_and_the_next_recovers(
    swarm: None,  # noqa: ARG001
    plain: Path,
    postgres_image: str,
) -> None:
    image = image_id(postgres_image)
    variables = {"APP_IMAGE": image, "OTHER_IMAGE": image, "APP_TIMEOUT": "60"}
    with new_stack(PASSWORDS, **variables, APP_MONITOR="2s") as stack:
        failed = stack.deploy(plain, RUN="sleep 0.5; exit 3", APP_TIMEOUT="40")
        recovered = stack.deploy(plain, RUN=STAY)

    assert failed.code == 1, failed.err
    assert "[timed-out]" in failed.err
    assert "non-zero exit (3)" in failed.err
    assert recovered.code == 0, recovered.err


@pytest.mark.parametrize("waits_for", ["job", "app"])
def test_removing_the_stack_ends_the_deploy(
    swarm: None,  # noqa: ARG001
    files: Path,
    postgres_image: str,
    processes: Processes,
    waits_for: str,
) -> None:
    image = image_id(postgres_image)
    with new_stack(PASSWORDS, APP_IMAGE=image, OTHER_IMAGE=image, APP_MONITOR="60s") as stack:
        file = files / {"job": "job.yaml", "app": "plain.yaml"}[waits_for]
        deploy = stack.start_deploy(processes, file, RUN=STAY, RUN_JOB=STAY)
        deploy.wait_for_line(f"_{waits_for}: ")

        docker("stack", "rm", stack.name)

        done = deploy.result()
        assert done.code == 1, done.err
        assert "was removed" in done.err
        assert "[removed]" in done.err


def test_signal_ends_the_deploy_and_swarm_continues(
    running: Stack, plain: Path, processes: Processes
) -> None:
    deploy = running.start_deploy(processes, plain, SETTING="signal", APP_MONITOR="5s")
    deploy.wait_for_line("up to date, updating")
    deploy.terminate()
    assert deploy.result().code == 143
    assert "Traceback" not in deploy.err
    assert "Run the same deploy again to complete it" in deploy.err
