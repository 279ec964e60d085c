"""Prometheus' configuration, its alert rules and Grafana's dashboards: they load, and name what is really exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.deployments.watcher_metrics import COUNTED, WatcherMetrics

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "docker" / "monitoring"
OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}
ADDED = {"job", "instance", "le"}  # labels that Prometheus adds, and that of buckets
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset", "group_left", "group_right"}


def read(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text(encoding="utf-8"))


def dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((MONITORING / "grafana" / "dashboards").glob("*.json")):
        yield path.name, json.loads(path.read_text(encoding="utf-8"))


def expressions() -> dict[str, str]:
    """Where each expression of Prometheus' language stands -> the expression."""
    found = {
        f"rules.yaml {one['alert']}": one["expr"] for group in read("rules.yaml")["groups"] for one in group["rules"]
    }
    for name, board in dashboards():
        for panel in board["panels"]:
            for target in panel["targets"]:
                found[f"{name} {panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Name of every series that scorer and watcher export -> its labels."""
    scorer, watcher = ScorerMetrics(), WatcherMetrics()
    scorer.show_cache(FileCache(tmp_path_factory.mktemp("cache"), 1.0))
    labels = {
        one._name: set(one._labelnames)
        for metrics in (scorer, watcher)
        for one in metrics.registry._collector_to_names
        if isinstance(one, MetricWrapperBase)
    } | {"tournament_events": {"kind"}}

    def series(family: Metric) -> Iterator[str]:
        return (family.name + suffix for suffix in SUFFIXES[family.type])

    families = [family for metrics in (scorer, watcher) for family in metrics.registry.collect()]
    return {name: labels.get(family.name, set()) for family in families for name in series(family)}


def complaints(expression: str, exported: Mapping[str, set[str]]) -> list[str]:
    """Return the names of series and labels in an expression that nothing exports."""
    known = dict(exported) | OF_PROMETHEUS
    wrong = []
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{(.*?)\}", expression):
        for label in re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', "", matchers)):
            if label not in known.get(name, set()) | ADDED:
                wrong.append(f"{name}{{{label}}}")
    bare = re.sub(r'"[^"]*"|\{.*?\}|\[[^\]]*\]', " ", expression)
    of_any = set().union(*known.values()) | ADDED
    for labels in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare):
        wrong += [label for label in re.findall(r"\w+", labels) if label not in of_any]
    bare = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    names = set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)) - KEYWORDS
    return wrong + sorted(names - set(known))


def test_every_name_in_rules_and_dashboards_is_exported(exported: dict[str, set[str]]) -> None:
    found = expressions()
    assert len(found) > 40
    assert {where: wrong for where, one in found.items() if (wrong := complaints(one, exported))} == {}


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("scorer_reqests_total > 0", ["scorer_reqests_total"]),
        ("scorer_requests > 0", ["scorer_requests"]),
        ("sum by (state) (rate(tournament_candidates[5m])) > 0 and watcher_sweep == 1", ["watcher_sweep"]),
        ('watcher_sweeps_total{outcom="ok"}', ["watcher_sweeps_total{outcom}"]),
        ("sum by (membr) (scorer_member_fenced)", ["membr"]),
        ('time() - max(watcher_last_sweep_timestamp_seconds{job="watcher"})', []),
    ],
)
def test_a_misspelt_name_is_noticed(expression: str, wrong: list[str], exported: dict[str, set[str]]) -> None:
    assert complaints(expression, exported) == wrong


def test_kinds_of_events_in_rules_are_those_that_are_counted() -> None:
    asked = " ".join(expressions().values())
    kinds = {kind for words in re.findall(r'events_total\{kind=~?"([^"]+)"', asked) for kind in words.split("|")}
    assert kinds
    assert kinds <= set(COUNTED)


def test_the_manual_has_every_metric_of_the_watcher(exported: dict[str, set[str]]) -> None:
    manual = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:watcher|tournament)_\w+)", manual))
    ours = {name for name in exported if name.startswith(("watcher_", "tournament_"))}
    assert ours <= named
    assert {alert["alert"] for group in read("rules.yaml")["groups"] for alert in group["rules"]} <= set(
        re.findall(r"`(\w+)`", manual)
    )


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for group in read("rules.yaml")["groups"]:
        for one in group["rules"]:
            assert one["labels"]["severity"] in ("page", "ticket"), one["alert"]
            assert one["annotations"]["summary"], one["alert"]
            assert one["annotations"]["description"], one["alert"]


def test_what_is_scraped_are_services_of_the_stack_and_dashboards_ask_the_source_that_is_there() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for job in read("prometheus.yaml")["scrape_configs"]:
        (target,) = job["static_configs"][0]["targets"]
        host, _, port = target.partition(":")
        assert host == job["job_name"]
        assert f":{port}/" in compose[host]["environment"]["HEALTH_URL"]
    (source,) = read("grafana/datasources/prometheus.yaml")["datasources"]
    boards = dict(dashboards())
    assert len({board["uid"] for board in boards.values()}) == len(boards) == 2
    for board in boards.values():
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_files_that_the_services_mount_are_there() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.monitoring.yaml").read_text(encoding="utf-8"))["services"]
    mounted = [words.split(":")[0] for one in services.values() for words in one["volumes"] if words.startswith("./")]
    assert len(mounted) == 4
    assert [path for path in mounted if not (ROOT / "docker" / path).exists()] == []
    for name, service in services.items():
        assert service["profiles"] == ["monitoring"], name
        assert all(port.startswith("${PUBLISH:-127.0.0.1}:") for port in service["ports"]), name


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yaml"),
        ("check", "config", "--syntax-only", "prometheus.yaml"),
        ("test", "rules", "rules_test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_it(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    done = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    rules = [{"record": f"a:{number}", "expr": one} for number, one in enumerate(expressions().values())]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
