"""Alert rules and the page for operators speak of series that exist."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from shared.errors import ErrorInfo
from shared.jobs import JobState
from shared.ledger import Ledger, Presence, WorkerInfo, connect
from shared.settings import LedgerSettings, RedisSettings, Settings
from tests.claims import claim

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def series(redis_settings: RedisSettings) -> dict[str, set[str]]:
    """Every series of a platform that has done something, with the labels it comes with."""
    settings = LedgerSettings(prefix=f"test-{uuid.uuid4().hex}")
    redis = connect(redis_settings)
    ledger, presence = Ledger(redis, settings), Presence(redis, settings)
    cache = {"hits": 1, "evictions": {"bytes": 1}}
    status = {"in_flight": 0, "inference": {"stats": {"cache": cache}}}
    presence.announce(WorkerInfo("gpu@a", "gpu", "a", status))
    with TestClient(create_app(Settings(redis=redis_settings, ledger=settings))) as client:
        submitted = client.post("/models/download", json={"model_name": "org/model"}).json()
        job = claim(ledger, submitted["job_id"], "cpu@a")
        assert job is not None
        ledger.finish(job, JobState.SUCCEEDED)
        missed = client.post("/models/download", json={"model_name": "org/other"}).json()
        job = claim(ledger, missed["job_id"], "cpu@a")
        assert job is not None
        ledger.postpone(job, "hub", ErrorInfo(code="hub_unavailable", detail="away"))
        client.get("/jobs").raise_for_status()
        text = client.get("/metrics").text
    redis.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_rule_is_valid_and_names_what_exists(rule: dict[str, Any], series: Any) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    selectors = list(_selectors(promql_parser.parse(rule["expr"])))
    assert selectors
    for selector in selectors:
        assert selector.name in series
        assert {matcher.name for matcher in selector.matchers.matchers} <= series[selector.name]
    grouped = {
        label.strip()
        for labels in re.findall(r"by \(([^)]*)\)", rule["expr"])
        for label in labels.split(",")
    }
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert shown <= grouped <= {label for selector in selectors for label in series[selector.name]}


def _selectors(node: Any) -> Iterator[Any]:
    """Yield the series that an expression reads."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _selectors(node.lhs)
        yield from _selectors(node.rhs)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _selectors(argument)
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from _selectors(node.vector_selector)
    elif hasattr(node, "expr"):
        yield from _selectors(node.expr)


def test_every_alarm_says_what_to_do() -> None:
    assert re.findall(r"^### (\w+)$", OPERATIONS, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_page_lists_every_series_and_its_labels(series: dict[str, set[str]]) -> None:
    table = re.findall(r"`(lifecycle_\w+)(?:\{([\w,]+)\})?`", OPERATIONS.split("## Logs")[0])
    listed = {name: set(filter(None, labels.split(","))) for name, labels in table}
    exposed: dict[str, set[str]] = {}
    for name, labels in series.items():
        if name.startswith("lifecycle_"):
            family = re.sub(r"(?<=_seconds)_(bucket|sum|count|created)$", "", name)
            exposed.setdefault(family, set()).update(labels - {"le"})
    assert listed == exposed
