"""The decisions of swarm/deploy, without a swarm."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PROGRAM = PROJECT / "swarm" / "deploy"
PAGE = (PROJECT / "docs" / "how-to" / "swarm.md").read_text()


def load() -> Any:
    """The program as a module; it is a script without a suffix."""
    loader = SourceFileLoader("swarm_deploy", str(PROGRAM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


deploy = load()


def task(id: str = "t1", state: str = "running", **values: Any) -> Any:
    slot = values.setdefault("slot", "1")
    desired = "shutdown" if state in ("failed", "shutdown") else "running"
    return deploy.Task(
        **{
            "id": id,
            "name": f"shop_app.{slot}",
            "created": id,
            "state": state,
            "desired": desired,
            "settings": deploy._settings(template("old" if id.startswith("old") else "new")),
            **values,
        }
    )


def template(image: str) -> dict[str, Any]:
    return {"ContainerSpec": {"Image": image}, "Runtime": "container"}


def app(*tasks: Any, deployment: str = "mine", image: str = "new", **values: Any) -> Any:
    given = {"wanted": 2, **values}
    return deploy.Service("shop_app", deployment, template(image), tasks=tasks, **given)


def job(*tasks: Any, deployment: str = "mine") -> Any:
    return deploy.Service(
        "shop_job", deployment, template("new"), is_job=True, wanted=1, tasks=tasks
    )


DEPLOYED = app()
OLD = (task("old1"), task("old2", slot="2"))
BEFORE = app(*OLD, deployment="before", image="old")
NEW = (task("new1"), task("new2", slot="2"))
SAME = app(*NEW, deployment="before")


@pytest.mark.parametrize(
    ("before", "now", "up"),
    [
        pytest.param(BEFORE, app(*NEW), True, id="all new"),
        pytest.param(BEFORE, app(*NEW, update="completed"), True, id="update completed"),
        pytest.param(None, app(*NEW), True, id="first deploy"),
        pytest.param(SAME, app(*NEW), True, id="nothing to replace"),
        pytest.param(
            BEFORE, app(task("old1", settings=NEW[0].settings), NEW[1]), True, id="kept tasks"
        ),
        pytest.param(BEFORE, app(*OLD), False, id="update not begun"),
        pytest.param(BEFORE, app(*NEW, update="updating"), False, id="update not completed"),
        pytest.param(BEFORE, app(*OLD, *NEW), False, id="old tasks still run"),
        pytest.param(BEFORE, app(NEW[0], OLD[1]), False, id="one of two"),
        pytest.param(BEFORE, app(NEW[0]), False, id="one missing"),
        pytest.param(
            BEFORE, app(NEW[0], task("new2", "starting", slot="2")), False, id="one starting"
        ),
        pytest.param(BEFORE, app(NEW[0], task("new2", "failed", slot="2")), False, id="one failed"),
        pytest.param(BEFORE, app(*NEW, task("new3", slot="2")), True, id="two for one replica"),
        pytest.param(BEFORE, app(NEW[0], task("new3")), False, id="two for the same replica"),
        pytest.param(BEFORE, app(*NEW, wanted=3), False, id="scaled up during the deploy"),
        pytest.param(
            BEFORE, app(*NEW, task("gone", "running", desired="shutdown")), True, id="one stopping"
        ),
        pytest.param(BEFORE, app(*NEW, wanted=None), True, id="global"),
        pytest.param(BEFORE, app(wanted=None), False, id="global without a task"),
        pytest.param(BEFORE, app(wanted=0), True, id="no replicas"),
        pytest.param(
            BEFORE,
            app(*OLD, deployment="before", image="old", update="rollback_started"),
            False,
            id="rollback not completed",
        ),
    ],
)
def test_app_is_up_when_all_replicas_are_new_and_running(before: Any, now: Any, up: bool) -> None:
    progress = deploy.progress_of(DEPLOYED, before, now)
    assert (progress.up is not None) is up


@pytest.mark.parametrize(
    ("before", "now", "id"),
    [
        pytest.param(BEFORE, None, "removed", id="stack rm"),
        pytest.param(BEFORE, app(*NEW, deployment="other"), "overtaken", id="another deploy"),
        pytest.param(BEFORE, app(*NEW, image="other"), "overtaken", id="docker service update"),
        pytest.param(BEFORE, app(*NEW, deployment=""), "overtaken", id="label removed"),
        pytest.param(None, app(*OLD, deployment="before"), "overtaken", id="nothing before"),
        pytest.param(
            BEFORE,
            app(*OLD, deployment="before", image="old", update="rollback_completed"),
            "rolled-back",
            id="rolled back",
        ),
        pytest.param(
            BEFORE,
            app(*OLD, deployment="before", image="old", update="rollback_paused"),
            "rolled-back",
            id="rollback failed",
        ),
        pytest.param(
            app(*OLD, deployment="", image="old"),
            app(*OLD, deployment="", image="old", update="rollback_completed"),
            "rolled-back",
            id="rolled back to one without the label",
        ),
        pytest.param(BEFORE, app(*NEW, update="paused"), "paused", id="paused"),
    ],
)
def test_deploy_fails_once_the_service_can_no_longer_go_live(
    before: Any, now: Any, id: str
) -> None:
    with pytest.raises(deploy.DeployError) as caught:
        deploy.progress_of(DEPLOYED, before, now)
    assert caught.value.id == id
    assert caught.value.exit_code == 1


OTHER_TASK = task("t0", "complete", slot="0", deployment="other")


def own(state: str, **values: Any) -> Any:
    return task("t1", state, slot="0", deployment="mine", **values)


@pytest.mark.parametrize(
    ("tasks", "up"),
    [
        ([], False),
        ([OTHER_TASK], False),
        ([OTHER_TASK, own("running")], False),
        ([OTHER_TASK, own("pending")], False),
        ([OTHER_TASK, own("complete")], True),
    ],
    ids=["no task", "another deploy's", "running", "pending", "complete"],
)
def test_job_is_complete_when_a_task_of_this_deploy_is(tasks: list[Any], up: bool) -> None:
    progress = deploy.progress_of(job(), None, job(*tasks))
    assert (progress.up is not None) is up


@pytest.mark.parametrize("state", ["failed", "rejected", "shutdown", "orphaned", "remove"])
@pytest.mark.parametrize(("code", "expected"), [(4, 4), (143, 143), (0, 1), (-1, 1), (256, 1)])
def test_failed_job_determines_the_exit_code(state: str, code: int, expected: int) -> None:
    with pytest.raises(deploy.DeployError) as caught:
        deploy.progress_of(job(), None, job(OTHER_TASK, own(state, exit_code=code)))
    assert (caught.value.id, caught.value.exit_code) == ("job-failed", expected)


def test_job_replaced_by_another_deploy_is_overtaken_and_not_failed() -> None:
    with pytest.raises(deploy.DeployError) as caught:
        deploy.progress_of(job(), None, job(own("failed", exit_code=143), deployment="other"))
    assert caught.value.id == "overtaken"


def test_service_is_live_after_the_same_tasks_have_been_up_for_the_monitor_time() -> None:
    deployed = app(monitor=10)
    watch = deploy.Watch(deployed, None)
    restarted = app(NEW[0], task("new3", slot="2"))
    seen = [(0, app()), (1, app(*NEW)), (10, app(*NEW)), (10.5, restarted), (20, restarted)]
    assert [watch.is_live({"shop_app": now}, clock) for clock, now in seen] == [False] * 5
    assert watch.is_live({"shop_app": restarted}, 20.5)


def test_reasons_outlive_the_tasks_and_do_not_repeat() -> None:
    watch = deploy.Watch(app(), app(task("t0", "failed", message="before"), deployment="before"))
    first = [task(f"t{n}", "failed", message="exit 1") for n in range(3)]
    for tasks in (first, [task("t7", "rejected", message="no image")], NEW):
        watch.is_live({"shop_app": app(*tasks)}, 0)
    assert deploy.reasons(watch.failed.values()) == [
        "shop_app.1: rejected: no image",
        "shop_app.1: failed: exit 1",
    ]


def test_current_replica_counts_are_kept() -> None:
    services = [
        app(),
        deploy.Service("shop_web-worker", "", {}, wanted=5),
        deploy.Service("shop_off", "", {}, wanted=0),
        deploy.Service("shop_agent", "", {}),
        job(),
    ]
    found = deploy.replicas("shop", services)
    assert found == {"APP_REPLICAS": "2", "WEB_WORKER_REPLICAS": "5"}


@pytest.mark.parametrize("name", ["JOB_TIMEOUT", "APP_TIMEOUT"])
@pytest.mark.parametrize("value", ["5m", "-1", "1.5", " 7", "7\n", "soon", "\u0665"])
def test_invalid_timeout_is_an_error(name: str, value: str) -> None:
    with pytest.raises(deploy.DeployError) as caught:
        deploy.Settings.parse({name: value})
    assert (caught.value.id, caught.value.exit_code) == ("invalid-setting", 2)
    assert name in str(caught.value)


def test_empty_settings_count_as_not_set() -> None:
    empty = dict.fromkeys(("JOB_TIMEOUT", "APP_TIMEOUT", "RESOLVE_IMAGE"), "")
    assert deploy.Settings.parse(empty) == deploy.Settings.parse({})
    assert deploy.Settings.parse({}) == deploy.Settings(3600, 600, "always")


def test_page_lists_exactly_the_errors() -> None:
    calls = [
        node for node in ast.walk(ast.parse(PROGRAM.read_text())) if isinstance(node, ast.Call)
    ]
    ids = {
        str(node.args[0].value)
        for node in calls
        if isinstance(node.func, ast.Name)
        and node.func.id == "DeployError"
        and isinstance(node.args[0], ast.Constant)
    }
    section = PAGE.split("\n## Errors\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert len(ids) > 5
    assert sorted(listed) == sorted(ids)


def test_services_with_the_label_or_changed_by_another_deploy_count_as_deployed() -> None:
    before = {
        name: deploy.Service(name, deployment, {}, version=1)
        for name, deployment in (
            ("shop_app", "old"),
            ("shop_back", "old"),
            ("shop_other", "old"),
            ("shop_noted", "old"),
            ("shop_overtaken", "old"),
            ("shop_unlabelled", ""),
        )
    }
    now = [
        deploy.Service("shop_app", "mine", {}, version=2),
        deploy.Service("shop_back", "old", {}, version=3, update="rollback_completed"),
        deploy.Service("shop_other", "old", {}, version=1),
        # Swarm has recorded the end of an earlier update
        deploy.Service("shop_noted", "old", {}, version=2, update="completed"),
        deploy.Service("shop_overtaken", "other", {}, version=3, update="updating"),
        deploy.Service("shop_unlabelled", "", {}, version=2),
        deploy.Service("shop_new", "mine", {}, version=1),
    ]
    found = deploy.deployed_by("mine", now, before)
    assert [(each.name, each.deployment) for each in found] == [
        ("shop_app", "mine"),
        ("shop_back", "mine"),
        ("shop_overtaken", "mine"),
        ("shop_new", "mine"),
    ]
    with pytest.raises(deploy.DeployError) as error:
        deploy.progress_of(found[1], before["shop_back"], now[1])
    assert error.value.id == "rolled-back"
