"""k8s/monitoring works with promtool, and with a Prometheus that scrapes `serve`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.docker import REPOSITORY
from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.serve_process import ServeProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes

FOLDER = REPOSITORY / "k8s" / "monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["spec"]
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
SERIES = Path(__file__).with_name("alert_series.yaml")
PAGE = (REPOSITORY / "docs" / "how-to" / "monitoring.md").read_text()
# Names and labels are those of docs/metrics/workload/ in the repository of kube-state-metrics.
KUBE_STATE_METRICS = """\
kube_job_failed{namespace="shop",job_name="migrate",condition="true"} 1
kube_job_status_active{namespace="shop",job_name="migrate-many"} 1
kube_pod_status_phase{namespace="shop",pod="app-2",phase="Pending"} 1
kube_pod_init_container_status_restarts_total{namespace="shop",pod="app-2",container="initmig"} 3
kube_pod_init_container_status_running{namespace="shop",pod="app-2",container="initmig"} 1
kube_pod_init_container_status_waiting{namespace="shop",pod="app-2",container="initmig"} 0
kube_pod_status_phase{namespace="shop",pod="app-3",phase="Pending"} 1
kube_pod_init_container_status_restarts_total{namespace="shop",pod="app-3",container="wait"} 0
kube_pod_init_container_status_running{namespace="shop",pod="app-3",container="wait"} 0
kube_pod_init_container_status_waiting{namespace="shop",pod="app-3",container="wait"} 1
"""
needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="there is no promtool: apt-get install prometheus"
)


@needs_prometheus
def test_rules_are_valid_and_each_alert_fires_only_when_it_should(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    shutil.copy(SERIES, tmp_path)
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", SERIES.name]):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for name in ALERTS:
        assert f'alertname="{name}", alertstate="firing"' in SERIES.read_text(), name


@needs_prometheus
@pytest.mark.any_version
def test_prometheus_shows_every_alert_and_every_panel(
    processes: Processes, initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    old = write(
        tmp_path / "old", {"0001_a.sql": "CREATE TABLE a ()", "0003_c.sql": "CREATE TABLE c ()"}
    )
    assert initmig("migrate", url=database.url, folder=old).code == 0
    # 0003_c is unknown to this image, and 0002_b is pending until the lock is released.
    gate = "SELECT pg_advisory_xact_lock(1); CREATE TABLE b ()"
    new = write(tmp_path / "new", {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": gate})
    with database.connect() as other, kube_state_metrics(tmp_path / "kube") as kube:
        other.execute("SELECT pg_advisory_lock(1)")
        urls = (database.url, f"postgresql://127.0.0.1:{closed_port()}/shop")
        words = ("serve", "--listen=127.0.0.1:0")
        sites = [ServeProcess(initmig.start(*words, url=url, folder=new)) for url in urls]
        prometheus = Prometheus(processes, tmp_path, [kube, *(site.port for site in sites)])
        wait_until(
            lambda: {one["labels"]["alertname"] for one in prometheus.alerts()} == {*ALERTS}, 60
        )
        for alert in prometheus.alerts():
            labels = alert["labels"]
            name = f"shop/{labels.get('job_name') or labels['pod']}"
            texts = alert["annotations"]
            assert name in texts["summary"]
            assert not any("<no value>" in text or "%!" in text for text in texts.values())
        expressions = [
            target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
        ]
        assert len(expressions) > 10
        for expression in expressions:
            # Without its default, it has no value if a name or a label is wrong.
            query = expression.replace("$namespace", "shop").removesuffix(" or vector(0)")
            assert prometheus.ask("query", query=query)["result"], expression


def test_dashboard_has_only_fields_that_grafana_knows() -> None:
    register_default_plugins()
    known = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
    assert {*leaves(DASHBOARD)} - {*leaves(known)} == set()


def test_dashboard_has_a_data_source_to_choose_and_panels_that_do_not_overlap() -> None:
    variables = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "namespace": "query"}
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == {*range(24)}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"


def test_runbook_of_each_alert_is_a_section_of_the_documentation() -> None:
    for name, rule in ALERTS.items():
        place = rule["annotations"]["runbook_url"].removeprefix("https://initmig.example/")
        path, _, anchor = place.partition("#")
        headings = re.findall(r"^#+ (.*)", (REPOSITORY / path).read_text(), re.MULTILINE)
        assert anchor in {anchor_of(heading) for heading in headings}, name


def test_page_lists_each_alert_with_its_severity() -> None:
    rows = re.findall(r"^\| `(Initmig\w+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert dict(rows) == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    assert len(rows) == len(ALERTS)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The path and the value of each text, number and boolean in a JSON document."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(each, f"{path}/{key}")


class Prometheus:
    """A Prometheus that scrapes the *ports* of this machine each second, and has the rules."""

    def __init__(self, processes: Processes, folder: Path, ports: list[int]) -> None:
        (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "shop", "pod": f"app-{n}"}}
            for n, port in enumerate(ports)
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "initmig", "honor_labels": True, "static_configs": targets}
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._port = closed_port()
        self._running = processes.start(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            env={},
        )
        self._running.wait_for_line("Server is ready")

    def alerts(self) -> list[Any]:
        """The alerts that fire, or will when their time is over."""
        found: list[Any] = self.ask("alerts")["alerts"]
        return found

    def ask(self, path: str, **parameters: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]


@contextmanager
def kube_state_metrics(folder: Path) -> Iterator[int]:
    """Answers /metrics with KUBE_STATE_METRICS, on the port that it yields."""
    folder.mkdir()
    (folder / "metrics").write_text(KUBE_STATE_METRICS)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def anchor_of(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
