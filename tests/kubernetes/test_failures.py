"""Faults in the middle of a migration, on a real cluster."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import WAIT_FOR_GATE, Database
from tests.support.example_app import App, init_status, name_of
from tests.support.kubernetes import PASSWORD, kubectl_out
from tests.support.node import cut_off, kill_container, stopped_kubelet, why_no_node
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.kubernetes import DatabasePod, Json
    from tests.support.processes import Processes

needs_node = pytest.mark.skipif(bool(why_no_node()), reason=why_no_node())
ORDERS = {"0002_orders.sql": f"{WAIT_FOR_GATE}CREATE TABLE orders ();\n"}
BOTH = ["0001_users", "0002_orders"]
APPLIED_ORDERS = re.compile(r"applied 1 migration in .*: 0002_orders")


@needs_node
def test_secret_is_rotated_under_a_killed_leader(app: App) -> None:
    with in_the_middle(app) as (leader, other):
        app.database.execute(f"ALTER ROLE {app.database.name}_owner PASSWORD 'rotated'")
        kill(leader, app)
        # Its next container still has the old Secret.
        wait_until(lambda: "password authentication failed" in app.init_log(leader), 60)
        wait_until(lambda: leader_of(app) == other, 60)
        url = app.url("owner").replace(f":{PASSWORD}@", ":rotated@")
        change_object(app, "secret/database-owner", {"stringData": {"url": url}})
    app.wait_for_rollout()
    assert app.applied() == BOTH
    messages = app.messages()
    assert APPLIED_ORDERS.fullmatch(messages[other])
    assert messages[leader].startswith("nothing to do: ")
    assert app.restarts()[other] == 0


@needs_node
def test_config_map_is_switched_under_a_killed_leader(app: App) -> None:
    with in_the_middle(app) as (leader, other):
        [mounted] = [
            volume["configMap"]["name"]
            for volume in pod_called(leader, app)["spec"]["volumes"]
            if volume["name"] == "migrations"
        ]
        new_file = {"0003_items.sql": "CREATE TABLE items ();\n"}
        change_object(app, f"configmap/{mounted}", {"data": new_file})
        status = ("exec", leader, "--container=initmig", "--", "initmig", "status")
        wait_until(lambda: "0003_items" in app.kubectl(*status).out, 60)
        kill(leader, app)
        wait_until(lambda: app.restarts() == {leader: 1, other: 0}, 60)
    app.wait_for_rollout()
    assert app.applied() == [*BOTH, "0003_items"]
    messages = app.messages()
    # Each container lists its files once, when it starts. Either of them can be the next leader.
    assert re.search(r"applied .* 0003_items", messages[leader])
    assert sum("0002_orders" in message for message in messages.values()) == 1
    assert app.restarts() == {leader: 1, other: 0}


@needs_node
def test_another_copy_takes_over_when_packets_are_dropped(app: App) -> None:
    with in_the_middle(app) as (leader, other), cut_off(address_of(leader, app)):
        # 30 s, and more because the machine may be busy
        wait_until(lambda: leader_of(app) == other, 90)
        open_gate(app)
        wait_until(lambda: app.ready_pods() == {other}, 60)
        assert app.applied() == BOTH
        wait_until(lambda: "the connection was lost" in app.init_log(leader), 90)
    app.wait_for_rollout()
    assert app.applied() == BOTH
    messages = app.messages()
    assert APPLIED_ORDERS.fullmatch(messages[other])
    # It committed one before the fault.
    assert re.fullmatch(r"applied 1 migration in .*: 0001_users", messages[leader])
    assert app.restarts() == {leader: 0, other: 0}


@needs_node
@pytest.mark.alone
def test_migration_completes_while_the_kubelet_is_down(app: App) -> None:
    # The forwarded port goes through the kubelet.
    app.database = app.server.reached_directly(app.database)
    with in_the_middle(app) as (leader, other), stopped_kubelet():
        open_gate(app)
        wait_until(lambda: app.migrating_pods() == 0, 60)
        assert app.applied() == BOTH
        # The API server does not know yet that they have ended.
        assert all("running" in init_status(pod)["state"] for pod in app.pods())
    app.wait_for_rollout()
    assert app.applied() == BOTH
    messages = app.messages()
    assert re.fullmatch(r"applied 2 migrations in .*: 0001_users, 0002_orders", messages[leader])
    assert messages[other].startswith("nothing to do: ")
    assert app.restarts() == {leader: 0, other: 0}


def test_database_crashes_and_its_pod_is_replaced_at_a_new_address(
    app_on_own_database: App, start_own_database: Callable[[], DatabasePod]
) -> None:
    app = app_on_own_database
    with in_the_middle(app) as (leader, other):
        old = app.server
        address = old.address
        # It ends without a shutdown, and so does every session.
        old.kubectl_out("exec", "db", "--", "sh", "-c", "kill -QUIT 1")
        phase = ("get", "pod/db", "-o=jsonpath={.status.phase}")
        wait_until(lambda: old.kubectl_out(*phase) != "Running", 60)
        old.kubectl_out("delete", "pod/db", "--force", "--grace-period=0")
        app.server = start_own_database()
        assert app.server.address != address
        app.database = Database(app.server.server.url(app.database.name))
        wait_until(lambda: leader_of(app) != "", 60)
    app.wait_for_rollout()
    assert app.applied() == BOTH
    for pod in (leader, other):
        log = app.init_log(pod)
        assert "the connection was lost" in log
        assert "connected to the database after" in log
    assert sum("0002_orders" in message for message in app.messages().values()) == 1
    assert app.restarts() == {leader: 0, other: 0}


def test_job_completes_after_the_eviction_of_its_pod(app: App, processes: Processes) -> None:
    with app.delaying("orders"):
        app.apply("job", tag="v2", replicas=2)
        app.wait_until_blocked()
        [evicted] = app.job_pods()
        # `kubectl logs -f` fails until the API knows that the container has started.
        wait_until(lambda: "applied 0001_users" in app.kubectl("logs", evicted).out, 60)
        log = app.follow(processes, "logs", "-f", evicted)
        wait_until(lambda: "applied 0001_users" in log.out)
        evict(evicted, app)
        wait_until(lambda: "stopped by SIGTERM" in log.out, 60)
    app.kubectl_out("wait", "--for=condition=Complete", "job/migrate", "--timeout=90s")
    app.wait_for_rollout()
    assert app.applied() == BOTH
    [second] = app.job_pods()
    assert second != evicted
    assert APPLIED_ORDERS.search(app.kubectl_out("logs", second))
    assert app.outcomes() == ["nothing to do: 2 migrations, all applied"] * 2


@contextmanager
def in_the_middle(app: App) -> Iterator[tuple[str, str]]:
    """Inside, one of two copies is in the middle of 0002_orders, until the gate is opened.

    Yields the names of the leader's pod and of the other one.
    """
    app.database.execute("CREATE TABLE gate ()")
    app.apply("configmap", replicas=2, files=ORDERS)
    wait_until(lambda: app.migrating_pods() == 2 and leader_of(app) != "", 60)
    wait_until(lambda: all("running" in init_status(pod)["state"] for pod in app.pods()), 60)
    leader = leader_of(app)
    [other] = set(app.pod_names()) - {leader}
    yield leader, other
    open_gate(app)


def open_gate(app: App) -> None:
    app.database.execute("DROP TABLE IF EXISTS gate")


def leader_of(app: App) -> str:
    """The name of the pod that is in the middle of 0002_orders; "" for no pod."""
    addresses = app.database.query(
        "SELECT host(client_addr) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'initmig%' AND state = 'active' AND query LIKE '%gate%'"
    )
    leaders = [name_of(pod) for pod in app.pods() if (pod["status"].get("podIP"),) in addresses]
    return leaders[0] if leaders else ""


def pod_called(name: str, app: App) -> Json:
    [pod] = [pod for pod in app.pods() if name_of(pod) == name]
    return pod


def address_of(name: str, app: App) -> str:
    return str(pod_called(name, app)["status"]["podIP"])


def kill(name: str, app: App) -> None:
    """SIGKILL the initmig of a pod."""
    kill_container(init_status(pod_called(name, app))["containerID"].rpartition("/")[2])


def change_object(app: App, name: str, change: Json) -> None:
    app.kubectl_out("patch", name, "--type=merge", f"--patch={json.dumps(change)}")


def evict(pod: str, app: App) -> None:
    """Evict a pod, as `kubectl drain` does."""
    metadata = {"name": pod, "namespace": app.namespace}
    # v1 needs Kubernetes 1.22
    body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{app.namespace}/pods/{pod}/eviction"
    kubectl_out("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
