"""initmig as in k8s/, on a real cluster."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import psycopg
import pytest
import yaml

from tests.support.example_app import init_status, is_ready, local_image, name_of, patch
from tests.support.kubernetes import (
    MANIFESTS,
    MIGRATIONS_IMAGE,
    kubectl_out,
    manifests_from,
    write_kustomization,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.example_app import App
    from tests.support.kubernetes import Json
    from tests.support.processes import Processes

NOTHING_TO_DO = "nothing to do: 1 migration, all applied"


def test_one_of_three_replicas_applies_the_migration_and_all_become_ready(app: App) -> None:
    with app.delaying("users"):
        app.apply("base", replicas=3)
        wait_until(lambda: app.migrating_pods() == 3, 60)
        app.wait_until_blocked()
    app.wait_for_rollout()
    applied, *others = app.outcomes()
    assert re.fullmatch(r"applied 1 migration in .*: 0001_users", applied)
    assert len(others) == 2
    assert all(other.startswith("nothing to do: ") for other in others)
    assert app.applied() == ["0001_users"]


def test_old_pods_serve_while_a_rolling_update_migrates(app: App, processes: Processes) -> None:
    app.apply("base", tag="v1")
    app.wait_for_rollout()
    old = app.ready_pods()
    count = "-o=jsonpath={.status.availableReplicas}{'\\n'}"
    available = app.follow(processes, "get", "deployment/app", "--watch", count)
    with app.delaying("orders"):
        app.apply("base", tag="v2")
        app.wait_until_blocked()
        assert app.ready_pods() == old
        served = {pod: app.times_served(pod) for pod in old}
        wait_until(lambda: all(app.times_served(pod) > served[pod] for pod in old))
    app.wait_for_rollout()
    assert app.applied() == ["0001_users", "0002_orders"]
    assert not app.ready_pods() & old
    assert min(int(line or 0) for line in available.out.splitlines()) == 3


def test_bad_migration_stops_the_rollout_and_undo_recovers(app: App) -> None:
    app.apply("base", tag="v1")
    app.wait_for_rollout()
    old = app.ready_pods()
    deadline = patch("Deployment", add={"/spec/progressDeadlineSeconds": 5})

    app.apply("base", tag="bad", patches=[deadline])
    stopped = app.kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert "exceeded its progress deadline" in stopped.err
    assert app.ready_pods() == old

    [new] = set(app.pod_names()) - old
    wait_until(lambda: "0003_bad failed" in app.kubectl_out("describe", "pod", new), 60)
    described = app.kubectl_out("describe", "pod", new)
    assert re.search(r"Exit Code: +1\n", described)
    assert "/migrations/0003_bad.sql:2:" in described
    assert '0003_bad failed: column "nme"' in described

    app.kubectl_out("rollout", "undo", "deployment/app")
    app.wait_for_rollout()
    assert app.ready_pods() == old
    # The migration applied before the bad one stays, and the older image works with it.
    app.kubectl_out("delete", "pod", min(old), "--wait=false")
    wait_until(lambda: len(app.ready_pods() - old) == 1, 60)
    [later] = app.ready_pods() - old
    assert "0002_orders is applied, but unknown here" in app.init_log(later)
    assert app.applied() == ["0001_users", "0002_orders"]


def test_bad_migration_stops_the_updates_of_a_stateful_set_and_a_daemon_set(app: App) -> None:
    """Both have the component. The cluster has one node, so the DaemonSet has one pod."""
    both = ("statefulset/app", "daemonset/agent")
    workloads = stateful_set_and_daemon_set(app.folder / "workloads")
    app.apply(str(workloads), replicas=2)
    wait_for_rollouts(app, both)
    applied, *others = app.outcomes()
    assert applied.startswith("applied 1 migration in ")
    assert len(others) == 2
    assert all(other.startswith("nothing to do: ") for other in others)
    old = ids_of_ready_pods(app)

    app.apply(str(workloads), tag="bad", replicas=2)
    wait_until(lambda: len(pods_of_a_bad_release(app)) == 2, 120)
    assert ids_of_ready_pods(app) == {"app-0": old["app-0"]}

    for name in both:
        app.kubectl_out("rollout", "undo", name)
    # A StatefulSet does not replace the pod of the bad release (docs/how-to/kubernetes.md).
    app.kubectl_out("delete", "pod", "app-1", "--wait=false")
    wait_until(lambda: not pods_of_a_bad_release(app), 120)
    wait_for_rollouts(app, both)
    assert ids_of_ready_pods(app)["app-0"] == old["app-0"]
    assert app.applied() == ["0001_users", "0002_orders"]


def test_ten_more_pods_are_ten_no_ops_that_write_nothing(app: App) -> None:
    app.apply("base", replicas=1)
    app.wait_for_rollout()
    [first] = app.ready_pods()
    app.database.execute(
        f"ALTER DATABASE {app.database.name} SET default_transaction_read_only = on"
    )
    app.kubectl_out("scale", "deployment/app", "--replicas=11")
    app.wait_for_rollout()
    assert len(app.ready_pods() - {first}) == 10
    assert app.outcomes()[1:] == [NOTHING_TO_DO] * 10


def test_next_pod_completes_the_migrations_of_a_pod_that_was_deleted(
    app: App, processes: Processes
) -> None:
    with app.delaying("orders"):
        app.apply("base", tag="v2", replicas=1)
        app.wait_until_blocked()
        [pod] = app.pod_names()
        # `kubectl logs -f` fails until the API knows that the container has started.
        wait_until(lambda: app.all_say("applied 0001_users", "initmig"))
        log = app.follow(processes, "logs", "-f", pod, "--container=initmig")
        wait_until(lambda: "applied 0001_users" in log.out)
        app.kubectl_out("delete", "pod", pod, "--wait=false")
        wait_until(lambda: "SIGTERM" in log.out)
    app.wait_for_rollout()
    [outcome] = app.outcomes()
    assert re.fullmatch(r"applied 1 migration in .*: 0002_orders", outcome)
    assert app.applied() == ["0001_users", "0002_orders"]
    assert {"users", "orders"} <= app.database.tables()


def test_new_file_in_the_config_map_is_applied_by_a_rollout(app: App) -> None:
    app.apply("configmap", replicas=1)
    app.wait_for_rollout()
    assert app.applied() == ["0001_users"]
    app.apply("configmap", replicas=1, files={"0002_orders.sql": "CREATE TABLE orders ();"})
    app.wait_for_rollout()
    assert app.applied() == ["0001_users", "0002_orders"]
    [outcome] = app.outcomes()
    assert re.fullmatch(r"applied 1 migration in .*: 0002_orders", outcome)


def test_pods_with_a_read_only_role_wait_for_the_job(app: App) -> None:
    with app.delaying("users"):
        app.apply("job", replicas=3)
        app.wait_until_blocked()
        wait_until(lambda: len(app.pods()) == 3)
        wait_until(lambda: app.all_say("1 pending: 0001_users", "wait"), 60)
        wait_until(lambda: all("running" in init_status(pod)["state"] for pod in app.pods()))
    app.kubectl_out("wait", "--for=condition=Complete", "job/migrate", "--timeout=60s")
    app.wait_for_rollout()
    assert app.outcomes() == [NOTHING_TO_DO] * 3
    assert app.applied() == ["0001_users"]
    with psycopg.connect(app.url_from_here(), autocommit=True) as connection:
        assert connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()
        for statement in ("DELETE FROM _yoyo_migration", "CREATE TABLE mine ()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_sidecar_container_migrates_and_answers_its_probes(app: App) -> None:
    """As an ordinary container, because a native sidecar needs a newer cluster."""
    init = "/spec/template/spec/initContainers/0"
    as_ordinary = [
        {"op": "remove", "path": f"{init}/restartPolicy"},
        {"op": "move", "from": init, "path": "/spec/template/spec/containers/-"},
    ]
    operations = {"target": {"kind": "Deployment"}, "patch": json.dumps(as_ordinary)}
    app.apply("sidecar", replicas=1, patches=[operations])
    app.wait_for_rollout()
    assert app.applied() == ["0001_users"]
    [pod] = app.ready_pods()
    path = f"/api/v1/namespaces/{app.namespace}/pods/{pod}:8080/proxy"
    assert "initmig_" in kubectl_out("get", "--raw", f"{path}/metrics")
    assert kubectl_out("get", "--raw", f"{path}/readyz")


def test_pod_of_an_index_migrates_the_database_of_that_key(app: App) -> None:
    """Only the pod of the Indexed Job: the Job itself needs a newer cluster."""
    folder = app.folder / "many"
    urls = {"/stringData/0": "postgresql://nobody", "/stringData/1": app.url("owner")}
    write_kustomization(
        folder,
        namespace=app.namespace,
        resources=[manifests_from(folder, "many")],
        images=[local_image(f"{MIGRATIONS_IMAGE}:v1", "app-migrations")],
        patches=[patch("Secret", replace=urls)],
    )
    rendered = yaml.safe_load_all(kubectl_out("kustomize", str(folder)))
    by_kind = {manifest["kind"]: manifest for manifest in rendered}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "index-1",
            "namespace": app.namespace,
            "annotations": {"batch.kubernetes.io/job-completion-index": "1"},
        },
        "spec": by_kind["Job"]["spec"]["template"]["spec"],
    }
    for manifest in (by_kind["Secret"], pod):
        kubectl_out("apply", "-f", "-", stdin=yaml.safe_dump(manifest))
    wait_until(
        lambda: app.kubectl_out("get", "pod/index-1", "-o=jsonpath={.status.phase}") == "Succeeded",
        60,
    )
    assert app.applied() == ["0001_users"]


def stateful_set_and_daemon_set(folder: Path) -> Path:
    """A kustomization in *folder*, with the component and the pods of the example app in both."""
    app = yaml.safe_load((MANIFESTS / "app" / "app.yaml").read_text())
    pods = {"selector": app["spec"]["selector"], "template": app["spec"]["template"]}
    objects = [
        {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": {"initmig": "on"}},
            "spec": {**pods, **fields},
        }
        for kind, name, fields in (
            ("StatefulSet", "app", {"serviceName": "app"}),
            ("DaemonSet", "agent", {}),
        )
    ]
    write_kustomization(
        folder,
        resources=["objects.yaml", manifests_from(folder, "secrets")],
        components=[manifests_from(folder, "component")],
        images=[{"name": "initmig", "newName": "app-migrations", "newTag": "1"}],
    )
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    return folder


def wait_for_rollouts(app: App, names: Sequence[str]) -> None:
    for name in names:
        done = app.kubectl("rollout", "status", name, "--timeout=90s")
        assert done.code == 0, done.out + done.err + app.kubectl("describe", "pods").out


def ids_of_ready_pods(app: App) -> dict[str, str]:
    """The uid of each pod that is ready: a StatefulSet uses the names of its pods again."""
    return {name_of(pod): pod["metadata"]["uid"] for pod in app.pods() if is_ready(pod)}


def pods_of_a_bad_release(app: App) -> list[str]:
    """The names of the pods whose init container has failed, and that are not being deleted.

    Pods that are being deleted are removed. Both controllers wait for their end, which an old
    kubelet takes up to a minute to report.
    """
    pods = json.loads(app.kubectl_out("get", "pods", "-o=json"))["items"]
    ending = [name_of(pod) for pod in pods if "deletionTimestamp" in pod["metadata"]]
    if ending:
        app.kubectl("delete", "pod", *ending, "--force", "--grace-period=0", "--wait=false")
    return [name_of(pod) for pod in app.pods() if "0003_bad failed" in last_message(pod)]


def last_message(pod: Json) -> str:
    """How the init container ended the last time; "" if it has not."""
    status = init_status(pod)
    ended = status.get("lastState", {}).get("terminated") or status["state"].get("terminated", {})
    return str(ended.get("message", ""))
