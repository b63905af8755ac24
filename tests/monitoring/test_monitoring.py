"""Alerts, dashboard and runbook name metrics, errors and sections that are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from pipelines.nearpeer.answer_times import AnswerTimes
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.seeding.seed_metrics import SeedMetrics
from pipelines.seeding.status import PeerStatus, SeedStatus
from schemas import errors

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infra" / "monitoring"
RUNBOOK = ROOT / "docs" / "operations" / "runbook.md"
METRIC = re.compile(r"statecast_[a-z_]+")


def _rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"] if panel["type"] != "row"]


def _expressions() -> list[str]:
    shown = [target["expr"] for panel in _panels() for target in panel["targets"]]
    return [rule["expr"] for rule in _rules()] + shown


_SUFFIXES = {"counter": "_total", "histogram": "_bucket"}
"""Of the names under which expressions use a metric."""


def _exported() -> set[str]:
    """Names of all metrics as Prometheus sees them, of a watcher and of a seeder."""
    peer = PeerStatus((), 0, (), {}, {}, 0, answers_up_to=AnswerTimes().up_to())
    seeder = SeedMetrics(lambda: SeedStatus("chain", 1, (), None, "", 0, peer))
    return {family.name + _SUFFIXES.get(family.type, "") for collector in (seeder, WatchMetrics()) for family in collector.collect()}


@pytest.mark.parametrize("expression", _expressions())
def test_every_expression_is_promql_over_metrics_that_exist(expression: str) -> None:
    """In alerts and dashboard."""
    promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    assert set(METRIC.findall(expression)) <= _exported()


def test_every_metric_is_shown_or_watched() -> None:
    """A metric that no alert or dashboard uses is not worth exporting."""
    used = {name for expression in _expressions() for name in METRIC.findall(expression)}
    assert _exported() - used == set()


@pytest.mark.parametrize(
    ("alert", "base"),
    [
        ("StatecastIntegrityFailure", errors.IntegrityError),
        ("StatecastTrustFailure", errors.ManifestError),
        ("StatecastStoreFailing", errors.StoreError),
        ("StatecastSourceFailing", errors.SourceError),
    ],
)
def test_an_alert_of_a_group_of_errors_names_all_of_its_kinds(alert: str, base: type[errors.StatecastError]) -> None:
    """A new class of error must not fall through."""
    (rule,) = [rule for rule in _rules() if rule["alert"] == alert]
    named = re.search(r'kind=~"([^"]+)"', rule["expr"])
    assert named is not None
    assert set(named[1].split("|")) == {base.kind, *(one.kind for one in _subclasses(base))}


def test_every_kind_of_failure_is_counted_from_the_beginning() -> None:
    """Else the first failure of a kind begins a series with 1, in which Prometheus sees no increase."""
    kinds = {
        sample.labels["kind"]: sample.value
        for family in WatchMetrics().collect()
        for sample in family.samples
        if sample.name == "statecast_failures_total"
    }
    watched = {kind for rule in _rules() for kinds_of in re.findall(r'kind=~"([^"]+)"', rule["expr"]) for kind in kinds_of.split("|")}
    assert watched <= set(kinds) and set(kinds.values()) == {0}


def _subclasses(base: type[errors.StatecastError]) -> set[type[errors.StatecastError]]:
    return {found for one in base.__subclasses__() for found in ({one} | _subclasses(one))}


def test_every_alert_has_a_section_in_the_runbook() -> None:
    """And every section, an alert."""
    sections = {line[3:].strip() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")}
    linked = {rule["annotations"]["runbook"].partition("#")[2] for rule in _rules()}
    assert linked == {section.lower() for section in sections}
    assert {rule["annotations"]["runbook"].partition("#")[0] for rule in _rules()} == {"docs/operations/runbook.md"}


def test_panels_have_titles_and_do_not_overlap() -> None:
    """Each on its own place of the grid."""
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert panel["title"] and panel["description"]
        assert place["x"] + place["w"] <= 24 and not cells & taken
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine (Debian: package prometheus)")
def test_the_rules_pass_their_own_examples() -> None:
    """As Prometheus' own tool judges them."""
    for command in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
