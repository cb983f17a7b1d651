"""The Helm chart, rendered and refused offline, and a release on a real cluster."""

from __future__ import annotations

import json
import re
import shutil
from functools import reduce
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from initmig.version import __version__
from tests.kubernetes.conftest import IMAGES
from tests.kubernetes.test_manifests import VERSIONS
from tests.support.docker import POSTGRES_IMAGE, REPOSITORY
from tests.support.helm import CHART, EXAMPLE, copy_of_example, helm, helm_out, template
from tests.support.kubernetes import MANIFESTS, MIGRATIONS_IMAGE, REGISTRY, RESTRICTED
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.example_app import App
    from tests.support.kubernetes import Json
    from tests.support.processes import Result

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="there is no helm")
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
FENCE = re.compile(r"^( *)```(?:yaml|gotmpl)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
IMAGE = {"repository": "app-migrations", "tag": "42"}
PAGE = REPOSITORY / "docs" / "reference" / "chart.md"
GUIDE = REPOSITORY / "docs" / "how-to" / "helm.md"
EVERYTHING = {
    "image": {"repository": "registry.example/{{ .Release.Name }}", "tag": 20260101},
    "imagePullSecrets": [{"name": "registry"}],
    "migrations": {"configMap": "{{ .Release.Name }}-migrations"},
    "database": {
        "secret": {
            "name": "{{ .Release.Name }}-db-app",
            "key": "",
            "passwordKey": "password",
            "parameterKeys": {"PGUSER": "username"},
        },
        "parameters": {"PGHOST": "db.example", "PGPORT": 5432},
    },
    "settings": {"INITMIG_ROLE": "owner", "INITMIG_STATEMENT_TIMEOUT": 1000000},
    "job": {
        "hooks": [],
        "annotations": {"argocd.argoproj.io/sync-wave": "-1"},
        "args": ["migrate", "--to=0002"],
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 0,
    },
    "postJob": {"enabled": True, "annotations": {"helm.sh/hook-delete-policy": "hook-succeeded"}},
    "waitContainer": {"settings": {"INITMIG_ROLE": ""}},
    "podAnnotations": {"linkerd.io/inject": "disabled"},
    "podLabels": {"app.kubernetes.io/name": "migrate"},
    "labels": {"team": "42"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "high",
    "serviceAccount": {"name": "migrator"},
    "extraEnv": [{"name": "PGSSLROOTCERT", "value": "/run/ca/ca.crt"}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/run/ca"}],
    "extraVolumes": [{"name": "ca", "secret": {"secretName": "db-ca"}}],
}
"""Every kind of value, different from its default."""
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers: [{{name: shop, image: shop}}]
  initContainers:
    {{{{- include "initmig.{container}" .Subcharts.{scope} | nindent 4 }}}}
  volumes:
    {{{{- include "initmig.{volumes}" .Subcharts.{scope} | nindent 4 }}}}
"""
"""A template of a chart that depends on the chart initmig."""


def leaves(values: Any, schema: Json, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values that a user sets, by their path. A map of any keys is one value."""
    if "$ref" in schema:
        schema = reduce(lambda place, key: place[key], schema["$ref"][2:].split("/"), SCHEMA)
    if "properties" not in schema or schema.get("type") != "object":
        yield path, values
        return
    assert schema["additionalProperties"] is False
    # For charts that depend on this one
    assert values.keys() == schema["properties"].keys() - (set() if path else {"global", "enabled"})
    for key, value in values.items():
        yield from leaves(value, schema["properties"][key], f"{path}.{key}".lstrip("."))


def test_reference_page_lists_every_value_with_its_default() -> None:
    row = r"^\| `([\w.]+)` \| (`.*?`|\[values\.yaml\]\(.*?\)) \| .+ \|$"
    rows = re.findall(row, PAGE.read_text(), re.MULTILINE)
    listed = dict(rows)
    assert len(listed) == len(rows)
    found = dict(leaves(VALUES, SCHEMA))
    assert listed.keys() == found.keys()
    for path, default in found.items():
        if not listed[path].startswith("[values.yaml]"):
            assert yaml.safe_load(listed[path].strip("`")) == default, path


def test_chart_has_the_version_of_initmig() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


@needs_helm
def test_chart_and_its_example_pass_the_linter(example: Path) -> None:
    for chart in (CHART, example):
        helm_out("lint", "--strict", chart)
    helm_out("lint", "--strict", CHART, values=EVERYTHING)


@needs_helm
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"image": {}}, "image.repository is not set"),
        ({"image": {"repository": "app-migrations"}}, "image.tag is not set"),
        ({"database": {"password": "secret"}}, "'password' not allowed"),
        ({"database": {"secret": {"url": "postgresql://"}}}, "'url' not allowed"),
        ({"database": {"parameters": {"PGPASSWORD": "secret"}}}, "PGPASSWORD"),
        ({"database": {"parameters": {"PATH": "/"}}}, "PATH"),
        ({"waitContainer": {"database": {"password": "secret"}}}, "'password' not allowed"),
        ({"extraEnv": [{"name": "PGPASSWORD", "value": "secret"}]}, "/extraEnv/0/name"),
        ({"extraEnv": [{"name": "DATABASE_URL", "value": "secret"}]}, "/extraEnv/0/name"),
        ({"settings": {"WAIT_TIMEOUT": "5m"}}, "'WAIT_TIMEOUT' not allowed"),
        ({"settings": {"INITMIG_ALLOW_EMPTY": True}}, "/settings/INITMIG_ALLOW_EMPTY"),
        ({"job": {"hooks": ["preinstall"]}}, "/job/hooks/0"),
        ({"job": {"backofflimit": 1}}, "'backofflimit' not allowed"),
        ({"image": {"digest": "4f53"}}, "/image/digest"),
        ({"resource": {}}, "'resource' not allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_value_is_refused_and_named(values: Json, reason: str) -> None:
    done = helm("template", "shop", CHART, values={"image": IMAGE} | values)
    assert done.code == 1
    assert reason in done.err
    assert "secret" not in done.err.replace("/secret", "")


@needs_helm
def test_job_is_a_hook_and_otherwise_that_of_the_manifests() -> None:
    found = template(CHART, values={"image": IMAGE})
    assert found.keys() == {"Job/shop-initmig-migrate"}
    job = found["Job/shop-initmig-migrate"]
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "0",
        "helm.sh/hook-delete-policy": "before-hook-creation",
        "helm.sh/hook-output-log-policy": "hook-failed",
    }
    [expected] = yaml.safe_load_all((MANIFESTS / "migrate" / "job.yaml").read_text())
    for spec in (job["spec"], expected["spec"]):
        del spec["template"]["metadata"]
        spec["template"]["spec"] |= without_names(spec["template"]["spec"])
    assert job["spec"] == expected["spec"]


@needs_helm
def test_templates_are_those_of_the_manifests(parent: Path) -> None:
    image = {"image": IMAGE}
    found = template(parent, values={"initmig": image, "ordersDb": image})
    for container, path in (
        ("initcontainer", "component/init-container.yaml"),
        ("waitcontainer", "wait/wait.yaml"),
        ("sidecar", "sidecar/sidecar.yaml"),
    ):
        [expected] = yaml.safe_load_all((MANIFESTS / path).read_text())
        pod = found[f"Pod/initmig-{container}"]["spec"]
        assert without_names(pod) == without_names(expected["spec"]["template"]["spec"])


@needs_helm
def test_every_value_reaches_the_manifests() -> None:
    job, post = jobs(template(CHART, values=EVERYTHING))
    assert job["metadata"]["annotations"] == {"argocd.argoproj.io/sync-wave": "-1"}
    assert post["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "hook-succeeded"
    assert job["metadata"]["labels"]["team"] == "42"
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert job["spec"]["ttlSecondsAfterFinished"] == 0
    assert post["spec"]["ttlSecondsAfterFinished"] == 86400
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "migrate"
    assert pod["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    same = ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName")
    assert {key: pod["spec"][key] for key in same} == {key: EVERYTHING[key] for key in same}
    assert pod["spec"]["serviceAccountName"] == "migrator"
    [container] = containers(pod["spec"])
    assert container["image"] == "registry.example/shop:20260101"
    assert container["args"] == ["migrate", "--to=0002"]
    user = {"secretKeyRef": {"name": "shop-db-app", "key": "username"}}
    assert env_of(container) == {
        "PGPASSWORD_FILE": "/run/secrets/database/password",
        "PGUSER": user,
        "PGHOST": "db.example",
        "PGPORT": "5432",
        "INITMIG_ROLE": "owner",
        "INITMIG_STATEMENT_TIMEOUT": "1000000",
        "INITMIG_WAIT_TIMEOUT": "5m",
        "PGSSLROOTCERT": "/run/ca/ca.crt",
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {
        "initmig-database": "/run/secrets/database",
        "initmig-migrations": "/migrations",
        "ca": "/run/ca",
    }
    volumes = {volume.pop("name"): volume for volume in pod["spec"]["volumes"]}
    assert volumes["initmig-database"]["secret"]["secretName"] == "shop-db-app"
    assert volumes["initmig-migrations"]["configMap"]["name"] == "shop-migrations"
    assert volumes.keys() == mounts.keys()


@needs_helm
def test_ordinary_job_has_a_new_name_exactly_if_it_is_different() -> None:
    def name(tag: str) -> str:
        values = {"image": IMAGE | {"tag": tag}, "job": {"hooks": []}}
        [key] = template(CHART, values=values)
        return key

    assert re.fullmatch(r"Job/shop-initmig-migrate-[0-9a-f]{8}", name("1"))
    assert name("1") == name("1") != name("2")


@needs_helm
@pytest.mark.parametrize("version", ["1.20.2", *VERSIONS])
def test_jobs_and_templates_are_strictly_valid_and_restricted(parent: Path, version: str) -> None:
    is_old = version == "1.20.2"
    values = {alias: {"image": IMAGE} | EVERYTHING for alias in ("initmig", "ordersDb")}
    values["initmig"]["job"] = {"hooks": ["pre-upgrade"]}
    found = template(parent, f"--kube-version={version}", "--set", f"old={is_old}", values=values)
    pods = {name: one for name, one in found.items() if one["kind"] == "Pod"}
    assert len(pods) == 6 - 2 * is_old
    for manifest in found.values():
        kubernetes_validate.validate(manifest, VERSIONS[0] if is_old else version, strict=True)
        if manifest["kind"] == "Job":
            assert ("podFailurePolicy" in manifest["spec"]) != is_old
            restricted(manifest["spec"]["template"]["spec"])
    for name, pod in pods.items():
        [container] = pod["spec"]["initContainers"]
        # The names differ, so that one pod can use two databases.
        alias = "orders-db" if "orders" in name else "initmig"
        assert container["name"] == alias + ("-wait" if "wait" in name else "")
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert volumes == {mount["name"] for mount in container["volumeMounts"]}
        assert container["securityContext"] == RESTRICTED
        role = env_of(container)["INITMIG_ROLE"]
        assert role == ("" if "wait" in name else "owner")
        if "sidecar" in name:
            assert container["restartPolicy"] == "Always"
            assert env_of(container)["INITMIG_LISTEN"] == ":8080"


@needs_helm
def test_sidecar_is_refused_on_an_old_cluster(parent: Path) -> None:
    values = {"initmig": {"image": IMAGE}, "ordersDb": {"image": IMAGE}}
    done = helm("template", "shop", parent, "--kube-version=1.28.0", values=values)
    assert done.code == 1
    assert "initmig.sidecar needs Kubernetes 1.29, this is v1.28.0" in done.err


@needs_helm
def test_examples_of_the_page_are_those_of_the_example_chart_and_render(
    example: Path, tmp_path: Path
) -> None:
    texts = [dedent(code) for _, code in FENCE.findall(GUIDE.read_text())]
    firsts = [text.partition("\n") for text in texts if text.startswith("# ")]
    files = {first.removeprefix("# ").partition(",")[0]: rest for first, _, rest in firsts}
    for name in ("Chart.yaml", "values.yaml"):
        complete = yaml.safe_load((EXAMPLE / name).read_text())
        assert yaml.safe_load(files[name]).items() <= complete.items()
    lines = {line.strip() for line in files["templates/deployment.yaml"].splitlines()}
    complete = (EXAMPLE / "templates" / "deployment.yaml").read_text()
    assert lines <= {line.strip() for line in complete.splitlines()}

    choices = [yaml.safe_load(text)["initmig"] for text in texts if text.startswith("initmig:")]
    assert len(choices) > 5
    for one in choices:
        found = template(example, values={"initmig": one})
        assert found.keys() > {"Deployment/shop"}
        for manifest in found.values():
            kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)
            restricted(manifest["spec"]["template"]["spec"])

    [from_config_map] = [one for one in choices if "migrations" in one]
    copy = shutil.copytree(example, tmp_path / "copy")
    config_map = files["templates/migrations.yaml"]
    write(copy, {"templates/migrations.yaml": config_map, "migrations/0001_a.sql": "SELECT 1;\n"})
    found = template(copy, values={"initmig": from_config_map})
    assert found["ConfigMap/shop-migrations-1"]["data"] == {"0001_a.sql": "SELECT 1;\n"}
    [job] = jobs(found)
    assert {"name": "shop-migrations-1", "defaultMode": 0o444} in [
        volume.get("configMap") for volume in job["spec"]["template"]["spec"]["volumes"]
    ]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart with a pod for each template, of a dependency and of the same with an alias."""
    folder = tmp_path_factory.mktemp("parent")
    dependency = {"name": "initmig", "version": __version__, "repository": f"file://{CHART}"}
    chart: Json = {"apiVersion": "v2", "name": "shop", "version": "1.0.0"}
    chart["dependencies"] = [dependency, dependency | {"alias": "ordersDb"}]
    files = {"Chart.yaml": json.dumps(chart)}
    for scope in ("initmig", "ordersDb"):
        for container, volumes in (
            ("initContainer", "volumes"),
            ("waitContainer", "waitVolumes"),
            ("sidecar", "volumes"),
        ):
            name = f"{scope}-{container}".lower()
            pod = POD.format(name=name, container=container, volumes=volumes, scope=scope)
            if container == "sidecar":
                pod = "{{- if not .Values.old }}\n" + pod + "{{- end }}\n"
            files[f"templates/{name}.yaml"] = pod
    write(folder, files)
    helm_out("dependency", "build", folder)
    return folder


def jobs(found: dict[str, Json]) -> list[Json]:
    """The Job that migrates, and the other one."""
    return [one for _, one in sorted(found.items()) if one["kind"] == "Job"]


def containers(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


def env_of(container: Json) -> dict[str, Any]:
    """The variables of a container. Raises AssertionError if one is set twice."""
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert len(found) == len(container["env"])
    return found


def without_names(spec: Json) -> Json:
    """The volumes of a pod and the containers with initmig, without names and images."""
    own = "initContainers" if "initContainers" in spec else "containers"
    for container in spec[own]:
        for mount in container["volumeMounts"]:
            del mount["name"]
        for key in ("name", "image", "imagePullPolicy", "securityContext"):
            container.pop(key, None)
        container["env"] = env_of(container)
        container.setdefault("args", ["migrate"])
    for volume in spec["volumes"]:
        del volume["name"]
    return {own: spec[own], "volumes": spec["volumes"]}


def restricted(spec: Json) -> None:
    """Raises AssertionError unless a pod is restricted as those of k8s/ are."""
    assert spec["automountServiceAccountToken"] is False
    for container in containers(spec):
        assert spec["securityContext"] | container["securityContext"] == RESTRICTED
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


# --- on a cluster ---


@needs_helm
def test_release_stays_on_the_old_app_after_a_bad_migration(app: App, example: Path) -> None:
    create_secrets(app)
    assert upgrade(app, example, "v1").code == 0
    app.wait_for_rollout()
    assert app.applied() == ["0001_users"]
    assert app.outcomes() == ["nothing to do: 1 migration, all applied"]
    assert app.kubectl_out("get", "job/app-initmig-post", "-o=jsonpath={.status.succeeded}") == "1"
    old = app.ready_pods()
    generation = ("get", "deployment/app", "-o=jsonpath={.metadata.generation}")
    before = app.kubectl_out(*generation)

    failed = upgrade(app, example, "bad")
    assert failed.code == 1
    place = "/migrations/0003_bad.sql:2:"
    assert "pre-upgrade hooks failed" in failed.err
    # Helm shows the log of the hook
    assert f"{place}18: 0003_bad failed: column" in failed.err
    [pod] = app.job_pods("app-initmig-migrate")
    message = "-o=jsonpath={.status.containerStatuses[0].state.terminated.message}"
    assert place in app.kubectl_out("get", "pod", pod, message)
    assert status(app)["status"] == "failed"
    assert "app-initmig-migrate" in status(app)["description"]
    assert (app.ready_pods(), app.kubectl_out(*generation)) == (old, before)
    [pod] = old
    served = app.times_served(pod)
    wait_until(lambda: app.times_served(pod) > served, 30)

    assert upgrade(app, example, "v2").code == 0
    app.wait_for_rollout()
    assert not app.ready_pods() & old
    newer = app.ready_pods()

    helm_out("rollback", "app", "1", "--timeout=2m", f"-n={app.namespace}")
    app.wait_for_rollout()
    assert status(app)["status"] == "deployed"
    assert not app.ready_pods() & newer
    # Before the rollback, the Job of the first release accepted the database of the later one.
    unknown = "0002_orders is applied, but unknown here"
    assert unknown in app.kubectl_out("logs", "job/app-initmig-migrate")
    assert all(unknown in app.init_log(pod, "initmig-wait") for pod in app.ready_pods())
    assert app.applied() == ["0001_users", "0002_orders"]

    breaking = {"0002_rename.sql": "-- breaking: true\nALTER TABLE users RENAME email TO mail;\n"}
    write(folder := app.folder / "breaking", IMAGES["v1"] | breaking)
    app.kubectl_out("create", "configmap", "breaking", f"--from-file={folder}")
    assert upgrade(app, example, "v1", config_map="breaking").code == 0
    refused = helm("rollback", "app", "1", "--timeout=2m", f"-n={app.namespace}")
    assert refused.code == 1
    assert "[image-too-old]" in refused.err
    [used] = app.kubectl_out("get", "deployment/app", "-o=jsonpath={..configMap.name}").split()
    assert used == "breaking"


def create_secrets(app: App) -> None:
    for role in ("owner", "app"):
        url = f"--from-literal=url={app.url(role)}"
        app.kubectl_out("create", "secret", "generic", f"database-{role}", url)


def upgrade(app: App, chart: Path, tag: str, *, config_map: str = "") -> Result:
    """Install or upgrade the release `app`, with the migrations of image *tag* or a ConfigMap."""
    image = {"repository": f"{REGISTRY}/{MIGRATIONS_IMAGE}", "tag": tag, "pullPolicy": "Never"}
    hooks = ["pre-install", "pre-upgrade", "pre-rollback"]
    values = {
        "image": f"{REGISTRY}/{POSTGRES_IMAGE}",
        "pullPolicy": "Never",
        "replicas": 1,
        "initmig": {
            "image": image,
            "migrations": {"configMap": config_map},
            # This cluster is too old for podFailurePolicy.
            "job": {"hooks": hooks, "backoffLimit": 0},
            "postJob": {"enabled": True, "hooks": ["post-install"]},
        },
    }
    options = ("--install", "--timeout=2m", f"-n={app.namespace}")
    return helm("upgrade", "app", chart, *options, values=values)


def status(app: App) -> Json:
    info: Json = json.loads(helm_out("status", "app", "-o=json", f"-n={app.namespace}"))["info"]
    return info
