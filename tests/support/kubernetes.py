"""Kubernetes, through kubectl: manifests rendered offline, and a cluster that runs them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.databases import Database, ExternalServer, create_database
from tests.support.docker import (
    IMAGE,
    POSTGRES_IMAGE,
    REPOSITORY,
    docker,
    docker_out,
    why_no_docker,
)
from tests.support.migrations import write
from tests.support.processes import Result
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.processes import Processes

MANIFESTS = REPOSITORY / "k8s"
REGISTRY = "docker.io/library"
"""The prefix that a cluster adds to the short names of a Docker engine's images."""
MIGRATIONS_IMAGE = "initmig-kubernetes"
PASSWORD = "secret"
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""The security context of a container that is restricted in any pod."""

Json = dict[str, Any]


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 120) -> Result:
    """Run `kubectl`, and return its result also if it fails."""
    started = time.monotonic()
    done = subprocess.run(
        ["kubectl", *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        check=False,
        text=True,
        timeout=timeout,
    )
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def kubectl_out(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """The output of `kubectl`, stripped. Raises AssertionError with its stderr when it fails."""
    done = kubectl(*arguments, stdin=stdin, timeout=timeout)
    assert done.code == 0, f"kubectl {' '.join(arguments)}\n{done.out}{done.err}"
    return done.out.strip()


def write_kustomization(folder: Path, **fields: Any) -> Path:
    """Write a kustomization of *fields* into *folder*; return *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(json.dumps(fields, indent=2))
    return folder


def render(folder: Path) -> list[Json]:
    """The manifests of the kustomization in *folder*."""
    return list(yaml.safe_load_all(kubectl_out("kustomize", str(folder))))


@cache
def rendered(name: str) -> list[Json]:
    """The manifests of the folder *name* of k8s/."""
    return render(MANIFESTS / name)


def manifests_from(folder: Path, name: str) -> str:
    """The relative path from a kustomization in *folder* to the folder *name* of k8s/."""
    return os.path.relpath(MANIFESTS / name, folder.resolve())


def why_no_cluster() -> str:
    """The reason why no cluster can be used here; "" if one answers and can load images."""
    if shutil.which("kubectl") is None:
        return "there is no kubectl command"
    for variable, meaning in (
        ("KUBECONFIG", "a cluster to test on"),
        ("INITMIG_TEST_CLUSTER", "a script with the commands `load IMAGE...` and `dns`"),
    ):
        if not os.environ.get(variable):
            return f"{variable} does not name {meaning}"
    answer = kubectl("get", "--raw", "/readyz", "--request-timeout=10s")
    if answer.code:
        return f"the cluster of KUBECONFIG does not answer: {answer.err.strip()}"
    if reason := why_no_docker():
        return reason
    if docker("image", "inspect", IMAGE).code:
        return f"there is no image {IMAGE}: docker build --tag {IMAGE} ."
    return ""


def cluster_script(*arguments: str) -> None:
    """Run the script that INITMIG_TEST_CLUSTER names. Raises AssertionError with its output."""
    command = [os.environ["INITMIG_TEST_CLUSTER"], *arguments]
    # To a file and not to a pipe, which background processes of the script would keep open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=300,
        )
        output.seek(0)
        assert done.returncode == 0, f"{' '.join(command)}\n{output.read()}"


def load_image(name: str, files: Mapping[str, str], context: Path) -> None:
    """Load an image into the cluster: initmig's, with *files* as its migrations."""
    write(context / "migrations", files)
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY migrations /migrations\n")
    docker_out("build", "--pull=false", f"--tag={name}", context, timeout=300)
    try:
        cluster_script("load", name)
    finally:
        docker("rmi", name)


class Namespaces:
    """Creates namespaces, and deletes all of them at the end."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def create(self) -> str:
        """Create a namespace, and return its name."""
        name = f"initmig-test-{secrets.token_hex(4)}"
        self._names.append(name)
        kubectl_out("create", "namespace", name)
        return name

    def begin_to_delete(self, name: str) -> None:
        """Start to delete a namespace. It takes seconds; this does not wait."""
        kubectl_out("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    def clean_up(self) -> None:
        """Return once all namespaces are deleted."""
        for name in self._names:
            self.begin_to_delete(name)
            # An old kubelet takes up to a minute to report that a container has ended.
            kubectl("delete", "pods", f"-n={name}", "--all", "--force", "--grace-period=0")
        options = ("--ignore-not-found", "--timeout=120s")
        kubectl_out("delete", "namespace", *self._names, *options, timeout=150)


DATABASE_MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: db
      image: %(image)s
      imagePullPolicy: Never
      args: [postgres, -cfsync=off]
      env: [{name: POSTGRES_PASSWORD, value: %(password)s}]
      # Not an exec probe: on a busy machine that is late, and takes the Service away.
      readinessProbe: {tcpSocket: {port: 5432}, periodSeconds: 1}
      volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]
  volumes: [{name: data, %(volume)s}]
"""


@dataclass(frozen=True)
class DatabasePod:
    """PostgreSQL in the cluster: a pod and a Service, both called `db`."""

    namespace: str
    server: ExternalServer
    """The same server, reached from this machine."""

    def kubectl_out(self, *arguments: str) -> str:
        return kubectl_out(f"-n={self.namespace}", *arguments)

    @property
    def address(self) -> str:
        """The pod's own address."""
        return self.kubectl_out("get", "pod/db", "-o=jsonpath={.status.podIP}")

    def reached_directly(self, database: Database) -> Database:
        """*database*, if this machine is the node: without a forwarded port."""
        return Database(f"postgresql://postgres:{PASSWORD}@{self.address}/{database.name}")

    def create_database(self, app: str) -> Database:
        """Create the database *app*, with the roles of roles.sql: *app* and *app*_owner."""
        database = create_database(self.server, name=app)
        names = {"database": app, "owner": f"{app}_owner", "app": app}
        names |= {"owner_password": PASSWORD, "app_password": PASSWORD}
        variables = [f"--set={name}={value}" for name, value in names.items()]
        psql = ("psql", "-XqU", "postgres", "-d", app, "-v", "ON_ERROR_STOP=1", *variables)
        script = (REPOSITORY / "examples" / "database" / "roles.sql").read_text()
        kubectl_out("exec", f"-n={self.namespace}", "-i", "db", "--", *psql, stdin=script)
        return database

    def url(self, role: str, database: str) -> str:
        """The URL for pods of the cluster."""
        return (
            f"postgresql://{role}:{PASSWORD}@db.{self.namespace}.svc.cluster.local:5432/{database}"
        )


def start_database(
    namespace: str, processes: Processes, *, volume: str = "emptyDir: {}"
) -> DatabasePod:
    """Start PostgreSQL in *namespace*; one of *processes* forwards a local port to it.

    Its data is in *volume*, a volume's fields in YAML.
    """
    values = {"image": f"{REGISTRY}/{POSTGRES_IMAGE}", "password": PASSWORD, "volume": volume}
    kubectl_out("apply", f"-n={namespace}", "-f", "-", stdin=DATABASE_MANIFEST % values)
    kubectl_out("wait", f"-n={namespace}", "--for=condition=Ready", "pod/db", "--timeout=60s")
    address = f"127.0.0.1:{_forwarded_port(processes, namespace)}"
    superuser = ExternalServer(f"postgresql://postgres:{PASSWORD}@{address}/postgres")
    return DatabasePod(namespace, superuser)


def _forwarded_port(processes: Processes, name: str) -> int:
    command = ["kubectl", "port-forward", f"-n={name}", "pod/db", ":5432"]
    forward = processes.start(command, env={"KUBECONFIG": os.environ["KUBECONFIG"]})
    wait_until(lambda: "Forwarding from 127.0.0.1:" in forward.out or not forward.is_running())
    assert forward.is_running(), forward.err
    return int(forward.out.split("127.0.0.1:")[1].split()[0])
