"""The example app of k8s/ on a cluster, with a separate database."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.docker import IMAGE, POSTGRES_IMAGE
from tests.support.kubernetes import (
    MIGRATIONS_IMAGE,
    PASSWORD,
    REGISTRY,
    DatabasePod,
    Json,
    kubectl,
    kubectl_out,
    manifests_from,
    write_kustomization,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.processes import Processes, Result, Running


@dataclass
class App:
    """The app that k8s/ deploys, in its own *namespace* and with its own *database*."""

    namespace: str
    database: Database
    server: DatabasePod
    folder: Path
    _overlays: int = field(default=0)

    def kubectl(self, *arguments: str, timeout: float = 120) -> Result:
        return kubectl(f"-n={self.namespace}", *arguments, timeout=timeout)

    def kubectl_out(self, *arguments: str, timeout: float = 120) -> str:
        return kubectl_out(f"-n={self.namespace}", *arguments, timeout=timeout)

    def url(self, role: str) -> str:
        """The URL for pods; *role* is `app` or `owner`."""
        name = self.database.name
        return self.server.url({"app": name, "owner": f"{name}_owner"}[role], name)

    def follow(self, processes: Processes, *arguments: str) -> Running:
        """Start a `kubectl` that runs until the test ends."""
        command = ["kubectl", f"-n={self.namespace}", *arguments]
        return processes.start(command, env={"KUBECONFIG": os.environ["KUBECONFIG"]})

    def url_from_here(self) -> str:
        """The URL of the app's role, for this process."""
        address = self.database.url.rpartition("@")[2]
        return f"postgresql://{self.database.name}:{PASSWORD}@{address}"

    def apply(
        self,
        name: str,
        *,
        tag: str = "v1",
        replicas: int = 3,
        patches: Sequence[Json] = (),
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Apply the folder *name* of k8s/ (or a path), with the migrations of image *tag*.

        *files* are added to its ConfigMap of migrations.
        """
        self._overlays += 1
        folder = self.folder / f"overlay-{self._overlays}"
        fields: Json = {
            "namespace": self.namespace,
            "resources": [manifests_from(folder, name)],
            "replicas": [{"name": "app", "count": replicas}],
            "images": [
                local_image(IMAGE, "initmig"),
                local_image(f"{MIGRATIONS_IMAGE}:{tag}", "app-migrations"),
                local_image(POSTGRES_IMAGE, "postgres"),
            ],
            "patches": [*_LOCAL, *self._secrets(), *patches],
        }
        if files:
            fields["configMapGenerator"] = [
                {"name": "migrations", "behavior": "merge", "files": list(files)}
            ]
        write_kustomization(folder, **fields)
        for file, content in (files or {}).items():
            (folder / file).write_text(content)
        self.kubectl_out("apply", "-k", str(folder))

    def wait_for_rollout(self, timeout: float = 90) -> None:
        """Return once all pods are new and ready. Raises AssertionError after *timeout* seconds."""
        done = self.kubectl("rollout", "status", "deployment/app", f"--timeout={timeout}s")
        assert done.code == 0, done.out + done.err + self.kubectl("describe", "pods").out

    def pods(self) -> list[Json]:
        """The app's pods, except pods that are being deleted."""
        pods = json.loads(
            self.kubectl_out("get", "pods", "-l=app.kubernetes.io/name=app", "-o=json")
        )
        return _remaining(pods["items"])

    def ready_pods(self) -> set[str]:
        """The names of the pods that are ready."""
        return {name_of(pod) for pod in self.pods() if is_ready(pod)}

    def pod_names(self) -> list[str]:
        return [name_of(pod) for pod in self.pods()]

    def job_pods(self, job: str = "migrate") -> list[str]:
        """The names of the Job's pods, except pods that are being deleted."""
        pods = json.loads(self.kubectl_out("get", "pods", f"-l=job-name={job}", "-o=json"))
        return [name_of(pod) for pod in _remaining(pods["items"])]

    def init_log(self, pod: str, container: str = "initmig") -> str:
        """The output of an init container so far; "" before it has started."""
        return self.kubectl("logs", pod, f"--container={container}").out

    def all_say(self, text: str, container: str) -> bool:
        """Whether the log of the init container *container* has *text* in every pod."""
        return all(text in self.init_log(pod, container) for pod in self.pod_names())

    def times_served(self, pod: str) -> int:
        """How many times the app in *pod* has read the table."""
        return self.kubectl_out("logs", pod, "--container=app").count("serving")

    def outcomes(self) -> list[str]:
        """The termination messages of the pods' init containers, sorted.

        Raises AssertionError if one failed or was started twice.
        """
        assert set(self.restarts().values()) == {0}
        return sorted(self.messages().values())

    def messages(self) -> dict[str, str]:
        """The termination message of each pod's init container.

        Raises AssertionError if its last run failed.
        """
        ended = {name_of(pod): init_status(pod)["state"]["terminated"] for pod in self.pods()}
        assert all(state["exitCode"] == 0 for state in ended.values()), ended
        return {name: state.get("message", "") for name, state in ended.items()}

    def restarts(self) -> dict[str, int]:
        """How often each pod's init container was started again."""
        return {name_of(pod): init_status(pod)["restartCount"] for pod in self.pods()}

    def applied(self) -> list[str]:
        """The id of each "apply" in yoyo's log, in order."""
        log = "SELECT migration_id FROM _yoyo_log WHERE operation = 'apply' ORDER BY created_at_utc"
        return [id for (id,) in self.database.query(log)]

    def migrating_pods(self) -> int:
        """The number of pods with a connected initmig."""
        return int(
            self.database.value(
                "SELECT count(DISTINCT client_addr) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'initmig%'"
            )
        )

    def wait_until_blocked(self) -> None:
        """Return once an initmig waits for a lock that another session holds."""
        waiting = (
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'initmig%' AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: bool(self.database.value(waiting)), 60)

    @contextmanager
    def delaying(self, table: str) -> Iterator[None]:
        """Make every other session that creates *table* wait."""
        with self.database.connect(autocommit=False) as connection:
            # Not committed: another CREATE of the same name waits until this one ends.
            connection.execute(f"CREATE TABLE {table} ()".encode())
            yield
            connection.rollback()

    def _secrets(self) -> Iterator[Json]:
        for role in ("app", "owner"):
            yield patch("Secret", f"database-{role}", replace={"/stringData/url": self.url(role)})


def patch(
    kind: str,
    name: str = "",
    *,
    add: Mapping[str, Any] | None = None,
    replace: Mapping[str, Any] | None = None,
    remove: Sequence[str] = (),
) -> Json:
    """A patch for a kustomization, for every object of *kind*, or the one called *name*."""
    operations: list[Json] = [{"op": "remove", "path": path} for path in remove]
    for operation, values in (("add", add or {}), ("replace", replace or {})):
        operations += [{"op": operation, "path": p, "value": v} for p, v in values.items()]
    target = {"kind": kind} | ({"name": name} if name else {})
    return {"target": target, "patch": json.dumps(operations)}


def local_image(image: str, name: str) -> Json:
    """The entry of a kustomization that replaces the image *name* with the local *image*."""
    new_name, tag = image.split(":")
    return {"name": name, "newName": f"{REGISTRY}/{new_name}", "newTag": tag}


_SPEC = "/spec/template/spec"
_NEVER = {f"{_SPEC}/containers/0/imagePullPolicy": "Never"}
_LOCAL = [
    patch(
        "Deployment|StatefulSet|DaemonSet",
        add={**_NEVER, f"{_SPEC}/initContainers/0/imagePullPolicy": "Never"},
    ),
    # An old cluster does not always know this field.
    patch("Job", add=_NEVER, remove=["/spec/podFailurePolicy"]),
]


def _remaining(pods: Sequence[Json]) -> list[Json]:
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def name_of(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def init_status(pod: Json) -> Json:
    """The status of the pod's first init container; "waiting" if its node has not reported it."""
    unheard: list[Json] = [{"state": {"waiting": {}}}]
    status: Json = pod["status"].get("initContainerStatuses", unheard)[0]
    return status
