"""The alert rules, the dashboard and the runbook, checked against metrics that a real set and a real router tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sets.api.metrics import SetMetrics
from tests.conftest import ROOT, StartSet
from tests.ops.cli.routers import routing
from tests.router.wire.certificates import make

MONITORING = ROOT / "ops/monitoring"
RUNBOOK = ROOT / "ops/runbook.md"
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that Prometheus adds, or that a histogram's buckets have."""

NAME = re.compile(r"\b(gc_[a-z0-9_]+)(?:\{([^}]*)\})?")
SELECTED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPED = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
MADE = {"class"}
"""Labels that an expression makes itself, by `label_replace`."""


@dataclass
class Known:
    """Metrics by the name of their samples, each with the labels that it was seen with; None: no sample yet."""

    labels: dict[str, set[str] | None] = field(default_factory=dict)

    def read(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
            for ending in endings.get(family.type, ("",)):
                self.labels.setdefault(family.name + ending, None)
            for sample in family.samples:
                self.labels[sample.name] = (self.labels.get(sample.name) or set()) | set(sample.labels)

    def faults(self, expression: str) -> Iterator[str]:
        """Yield each metric and label of an expression that nothing tells."""
        names = [(match[1], match[2] or "") for match in NAME.finditer(expression)]
        if not names and "up{" not in expression:
            yield f"no metric of ours in {expression!r}"
        labels: set[str] = set(OF_PROMETHEUS | MADE)
        for name, selector in names:
            if name not in self.labels:
                yield f"no part tells {name}"
                continue
            own = self.labels[name]
            if own is None:
                # It has no sample before something happens.
                return
            labels |= own
            for label in SELECTED.findall(re.sub(r'"[^"]*"', '""', selector)):
                if label not in own | OF_PROMETHEUS:
                    yield f"{name} has no label {label}"
        for group in GROUPED.findall(expression):
            for label in filter(None, re.split(r"[,\s]+", group)):
                if label not in labels:
                    yield f"{expression!r} groups by {label}, which no metric in it has"


@pytest.fixture(scope="module")
def known(start_set: StartSet, tmp_path_factory: pytest.TempPathFactory) -> Known:
    found = Known()
    its_set = start_set("monitor")
    with its_set.client() as client:
        found.read(client.get("/metrics").text)
    folder = tmp_path_factory.mktemp("monitored")
    files = make(folder / "tls", "localhost")
    with routing(folder, "--tls-cert", str(files.cert), "--tls-key", str(files.key)) as operator:
        # Without a request the counts of sets have no sample, and no label to check.
        with httpx.Client(verify=False, timeout=30) as client:
            assert client.get(f"https://127.0.0.1:{operator.port}/x").status_code == 200
        found.read(httpx.get(f"{operator.admin_url}/metrics", timeout=30).text)
    # Only sets with executors on other machines tell this one.
    metrics = SetMetrics()
    metrics.watch_certificates(lambda: {"own": 2e9})
    found.read(metrics.text(ready=True, launcher_up=True).decode())
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads((MONITORING / "dashboard.json").read_text()))


def test_every_alert_asks_for_metrics_that_exist(known: Known) -> None:
    faults = [f"{rule['alert']}: {fault}" for rule in rules() for fault in known.faults(rule["expr"])]
    assert len(rules()) > 20
    assert faults == []


def test_every_panel_shows_metrics_that_exist(known: Known) -> None:
    faults = []
    shown = 0
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            shown += 1
            # Grafana puts the chosen instances in.
            expression = target["expr"].replace("$set", ".*").replace("$router", ".*")
            faults += [f"{panel['title']}: {fault}" for fault in known.faults(expression)]
    assert shown > 30
    assert faults == []


@pytest.mark.parametrize("page", ["router/docs/operating.md", "ops/runbook.md"])
def test_the_pages_name_metrics_that_exist(known: Known, page: str) -> None:
    named = {match[1] for match in NAME.finditer((ROOT / page).read_text())}
    assert {name for name in named if not name.startswith(("gc_run", "gc_cpu_"))} <= known.labels.keys()


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("gc_cors > 1", "no part tells gc_cors"),
        ('gc_cores{set="a"} > 1', "gc_cores has no label set"),
        ("sum by (node) (gc_cores)", "groups by node"),
        ("vector(1)", "no metric of ours"),
    ],
)
def test_a_metric_or_label_that_nothing_tells_is_found(known: Known, expression: str, fault: str) -> None:
    (found,) = known.faults(expression)
    assert fault in found


def test_every_alert_has_its_place_in_the_runbook_and_the_other_way_round() -> None:
    text = RUNBOOK.read_text().partition("\n## Alerts\n")[2]
    sections = dict(re.findall(r"^### (\w+)\n(.*)$", text, re.MULTILINE))
    assert list(sections) == [rule["alert"] for rule in rules()]
    for rule in rules():
        name, severity = rule["alert"], rule["labels"]["severity"]
        assert severity in ("page", "ticket")
        assert sections[name].startswith(f"*{severity}.* ")
        assert rule["annotations"]["runbook"] == f"ops/runbook.md#{name.lower()}"
        assert rule["annotations"]["summary"].endswith(".")


def test_the_links_of_the_runbook_lead_somewhere() -> None:
    text = RUNBOOK.read_text()
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if file:
            assert (RUNBOOK.parent / file).exists(), target
        else:
            assert anchor in anchors, target


def test_the_dashboard_can_be_imported() -> None:
    board = dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {each["name"] for each in board["templating"]["list"]}
    assert variables == {"datasource", "set", "router"}
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in own) < 24
        cells |= own
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            ids = [target["refId"] for target in panel["targets"]]
            assert len(set(ids)) == len(ids)


def test_prometheus_itself_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine: it comes with Debian's package prometheus")
    done = subprocess.run(
        [promtool, "check", "rules", str(MONITORING / "alerts.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
