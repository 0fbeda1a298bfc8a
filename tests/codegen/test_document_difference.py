from collections.abc import Mapping
from typing import Any

import pytest

from codegen.changes import Kind
from codegen.semver import Level
from tests.support.contract_sides import between
from tests.support.documents import REVIEWS, document

SCHEME: dict[str, Any] = {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize(
    "before, after, kind, level, subject",
    [
        ({}, {"info": {"title": "others", "version": "1.2.3"}}, Kind.TEXT, Level.PATCH, "document"),
        ({}, {"servers": [{"url": "/"}]}, Kind.DOCUMENT, Level.MAJOR, "document"),
        (
            {"servers": [{"url": "/"}]},
            {"servers": [{"url": "/", "description": "Here."}]},
            Kind.TEXT,
            Level.PATCH,
            "document",
        ),
        (
            {},
            {"tags": [{"name": "Things", "x-policy-mirrored": True, "description": "All."}]},
            Kind.TEXT,
            Level.PATCH,
            "document",
        ),
        ({}, {"x-policy-reviews": {**REVIEWS, "spare": REVIEWS["json_read"]}}, Kind.TEXT, Level.PATCH, "document"),
        ({}, {"jsonSchemaDialect": "https://example.com"}, Kind.DOCUMENT, Level.MAJOR, "document"),
        ({}, {"openapi": "3.2.0"}, Kind.DOCUMENT, Level.MAJOR, "document"),
        ({}, {"components": {"schemas": {"Spare": {}}}}, Kind.UNUSED, Level.PATCH, "document"),
        (
            {"components": {"examples": {"thing": {"value": 1}}}},
            {"components": {"examples": {"thing": {"value": 2}}}},
            Kind.TEXT,
            Level.PATCH,
            "examples/thing",
        ),
    ],
)
def test_what_stands_beside_the_operations_is_weighed(
    before: Mapping[str, Any], after: Mapping[str, Any], kind: Kind, level: Level, subject: str
) -> None:
    """Texts, reviews and spare parts are patches; where the relay is and what nobody knows are major."""
    (change,) = between(document(**before), document(**after)).changes
    assert (change.kind, change.level, change.subject) == (kind, level, subject)


@pytest.mark.parametrize(
    "before, after, kind, level",
    [
        (None, SCHEME, Kind.DOCUMENT, Level.MINOR),
        (SCHEME, None, Kind.DOCUMENT, Level.MAJOR),
        (SCHEME, {**SCHEME, "description": "A key."}, Kind.TEXT, Level.PATCH),
        (SCHEME, {**SCHEME, "scheme": "basic"}, Kind.DOCUMENT, Level.MAJOR),
    ],
)
def test_ways_to_send_a_key_are_promises(before: object, after: object, kind: Kind, level: Level) -> None:
    """A scheme that goes or changes locks clients out."""
    sides = [document(components={"securitySchemes": {"key": scheme} if scheme else {}}) for scheme in (before, after)]
    (change,) = between(*sides).changes
    assert (change.kind, change.level, change.subject) == (kind, level, "securitySchemes/key")


def test_an_example_that_comes_along_is_not_told_apart() -> None:
    """A new example belongs to the operation that shows it; alone it is a spare part."""
    (change,) = between(document(), document(components={"examples": {"thing": {"value": 1}}})).changes
    assert change.kind is Kind.UNUSED


def test_the_version_alone_is_no_change() -> None:
    """A release may raise the version without anything else."""
    assert between(document(), document(info={"title": "things", "version": "9.9.9"})).changes == ()


def test_the_order_of_things_is_a_patch() -> None:
    """Reordering is told although no caller can see it."""
    turned = dict(reversed(document().items()))
    (change,) = between(document(), turned).changes
    assert (change.kind, change.level) == (Kind.UNUSED, Level.PATCH)
