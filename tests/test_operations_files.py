"""
Holds the dashboard and the alert rules in `docs/operations/` against the relay's metrics and their own formats.

Not for: whether a running relay answers these names (`tests/integration/test_observability.py`). Opens no sockets.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from codegen.reader import read_yaml
from handlers.runtime.circuit import CircuitState
from handlers.runtime.counts import CANCELLED, FAILED
from handlers.runtime.errors import ERROR_TABLE
from handlers.runtime.metric_families import BY_NAME, Kind
from handlers.runtime.readiness import State
from tests.support.documents import ROOT

FOLDER = ROOT / "docs" / "operations"
ALERTS: Any = read_yaml(FOLDER / "alerts.yaml")
DASHBOARD: Any = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
# What Prometheus takes in a file of rules, as far as this one goes.
ALERT_SCHEMA = {
    "type": "object",
    "required": ["groups"],
    "additionalProperties": False,
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "rules": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["alert", "expr", "labels", "annotations"],
                            "additionalProperties": False,
                            "properties": {
                                "alert": {"type": "string", "pattern": "^Relay[A-Za-z]+$"},
                                "expr": {"type": "string"},
                                "for": {"type": "string", "pattern": "^[0-9]+[smhd]$"},
                                "labels": {
                                    "type": "object",
                                    "required": ["severity"],
                                    "additionalProperties": False,
                                    "properties": {"severity": {"enum": ["critical", "warning", "info"]}},
                                },
                                "annotations": {
                                    "type": "object",
                                    "required": ["summary", "description"],
                                    "additionalProperties": {"type": "string", "pattern": "[.]$"},
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
VALUES = {
    "code": {rule.code for rule in ERROR_TABLE.values()},
    "state": {*map(str, State), *map(str, CircuitState)},
    "status": {"1xx", "2xx", "3xx", "4xx", "5xx", FAILED, CANCELLED},
    "bucket": {"ACTIONS_DIRECT", "PROXY_HARNESS", "WRAPPER_REQUIRED", "EXCLUDED", "none"},
    "check": {"contract", "drain", "store", "upstream"},
}
EXPRESSIONS = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]
SELECTOR = re.compile(r"\b(relay_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def wrong_selectors(expression: str) -> Iterator[str]:
    """Metrics, labels and values of an expression that the relay does not have."""
    for name, matchers in SELECTOR.findall(expression):
        histogram = re.fullmatch(r"(\w+)_(?:bucket|count|sum)", name)
        family = BY_NAME.get(histogram[1] if histogram else name)
        if family is None or (histogram is not None) is not (family.kind is Kind.HISTOGRAM):
            yield f"{name}: no metric of the relay"
            continue
        for label, values in MATCHER.findall(matchers):
            if label == "instance":  # the scraper's
                continue
            if label not in family.labels:
                yield f"{name}: has no label {label}"
            for value in values.split("|"):
                if value not in VALUES[label]:
                    yield f"{name}: {label} is never {value}"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_ask_for_what_there_is(expression: str) -> None:
    """Metric, labels and values exist; a counter is read through a function that knows it may start anew."""
    assert list(wrong_selectors(expression)) == []
    for name, _ in SELECTOR.findall(expression):
        if name.endswith("_total"):
            assert re.search(rf"(?:rate|increase)\({name}\b", expression)


@pytest.mark.parametrize(
    "expression",
    [
        "relay_request_total",
        "relay_request_duration_seconds",
        "relay_requests_total_bucket",
        'relay_workers{code="invalid_key"}',
        'relay_refusals_total{code=~"invalid_key|no_such_code"}',
        'relay_upstream_circuit{state="broken"}',
    ],
)
def test_a_wrong_expression_is_found(expression: str) -> None:
    """A renamed metric, a label of another one and a code that went do not stay behind."""
    assert list(wrong_selectors(expression))


def test_the_alert_rules_have_the_form_that_prometheus_takes() -> None:
    """And each says how bad it is, what happened and what to look at."""
    jsonschema_rs.validator_for(ALERT_SCHEMA).validate(ALERTS)
    names = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names))


def test_the_dashboard_can_be_imported() -> None:
    """Panels have ids of their own, do not overlap, fit the grid, and take the data source that is chosen."""
    assert DASHBOARD["uid"]
    assert "id" not in DASHBOARD  # Grafana gives one
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    variables = {item["name"] for item in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]


def test_every_metric_is_on_the_dashboard() -> None:
    """What is counted can be seen."""
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ()))
    assert {name for name in BY_NAME if name not in shown} == set()
