from typing import Any

import pytest

from codegen.changes import Kind
from codegen.contract import Bucket, Exclusion, Scope
from codegen.semver import Level
from tests.support.contract_sides import between, changed
from tests.support.documents import document, operation

PROXY: dict[str, Any] = {}
ACTIONS: dict[str, Any] = {
    "x-policy-bucket": "ACTIONS_DIRECT",
    "x-policy-review": None,
    "security": [{"relayBearer": ["canonical"]}, {"relayBearer": ["actions"]}],
}
WRAPPER: dict[str, Any] = {"x-policy-bucket": "WRAPPER_REQUIRED", "x-policy-review": None, "x-policy-reason": "Binary."}
HIDDEN = {**WRAPPER, "x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "hidden"}
UNSUPPORTED = {**HIDDEN, "x-policy-exclusion": "unsupported"}
INTERNAL = {**HIDDEN, "x-policy-exclusion": "internal", "security": [{"relayBearer": ["operator"]}]}


@pytest.mark.parametrize(
    "before, after, level, widens",
    [
        (HIDDEN, WRAPPER, Level.MINOR, ()),
        (WRAPPER, HIDDEN, Level.MINOR, ()),
        (HIDDEN, PROXY, Level.MINOR, ("Proxy",)),
        (HIDDEN, ACTIONS, Level.MINOR, ("Actions",)),
        (UNSUPPORTED, HIDDEN, Level.MINOR, ("SDK clients",)),
        (PROXY, HIDDEN, Level.MAJOR, ()),
        (PROXY, ACTIONS, Level.MAJOR, ("Actions",)),
        (ACTIONS, WRAPPER, Level.MAJOR, ()),
        (HIDDEN, UNSUPPORTED, Level.MAJOR, ()),
        (HIDDEN, INTERNAL, Level.MAJOR, ("Operators",)),
        (INTERNAL, HIDDEN, Level.MAJOR, ("SDK clients",)),
        (INTERNAL, UNSUPPORTED, Level.MAJOR, ()),
    ],
)
def test_a_move_is_weighed_by_the_ticks_that_it_gains_and_loses(
    before: dict[str, Any], after: dict[str, Any], level: Level, widens: tuple[str, ...]
) -> None:
    """A lost tick of section 4 is major, anything else minor; scopes and reasons that come along are no changes."""
    (change,) = changed(before, after)
    assert (change.kind, change.level, change.widens) == (Kind.BUCKET, level, widens)


def test_every_verdict_stands_in_the_moves() -> None:
    """The samples above hold each bucket and exclusion, so that a new one is not forgotten."""
    samples = (PROXY, ACTIONS, WRAPPER, HIDDEN, UNSUPPORTED, INTERNAL)
    assert {s.get("x-policy-bucket", "PROXY_HARNESS") for s in samples} == set(Bucket)
    assert {s["x-policy-exclusion"] for s in samples if "x-policy-exclusion" in s} == set(Exclusion)


def scopes(*names: str) -> dict[str, Any]:
    """Any one of these scopes opens it."""
    return {**HIDDEN, "security": [{"relayBearer": [name]} for name in names]}


@pytest.mark.parametrize(
    "before, after, detail, level, widens",
    [
        (scopes("canonical"), scopes("canonical", "realtime"), "scope gained: realtime", Level.MINOR, ("realtime",)),
        (scopes("canonical", "realtime"), scopes("canonical"), "scope lost: realtime", Level.MAJOR, ()),
        (scopes("canonical"), scopes(), "opened to everybody", Level.MINOR, ("Everybody",)),
        (scopes(), scopes("canonical"), "closed; needs canonical", Level.MAJOR, ()),
        (
            {**HIDDEN, "security": [{"relayBearer": ["canonical"]}, {"relayKey": ["canonical"]}]},
            scopes("canonical"),
            "way to send a key removed: relayKey canonical",
            Level.MAJOR,
            (),
        ),
        (
            scopes("canonical"),
            {**HIDDEN, "security": [{"relayBearer": ["canonical"]}, {"relayKey": ["canonical"]}]},
            "way to send a key added: relayKey canonical",
            Level.MINOR,
            (),
        ),
    ],
)
def test_scopes_open_and_close(
    before: dict[str, Any], after: dict[str, Any], detail: str, level: Level, widens: tuple[str, ...]
) -> None:
    """Whoever loses the way to an operation breaks; whoever gains one is named."""
    (change,) = changed(before, after)
    assert (change.kind, change.detail, change.level, change.widens) == (Kind.SCOPE, detail, level, widens)


def test_a_scope_that_a_move_does_not_explain_is_told_beside_it() -> None:
    """Only the scope of the bucket comes along with a move."""
    before, after = (
        HIDDEN,
        {**ACTIONS, "security": [{"relayBearer": [s]} for s in ("canonical", "actions", "realtime")]},
    )
    assert {(c.kind, c.detail) for c in changed(before, after) if c.kind is Kind.SCOPE} == {
        (Kind.SCOPE, f"scope gained: {Scope.REALTIME}")
    }


@pytest.mark.parametrize(
    "before, after, detail, level",
    [
        ({}, {"deprecated": True}, "stays -> deprecated", Level.MINOR),
        ({"deprecated": True, "x-sunset": "2027-01-01"}, {}, "deprecated, ends 2027-01-01 -> stays", Level.MINOR),
        ({**UNSUPPORTED}, {**UNSUPPORTED, "deprecated": True}, "stays -> deprecated", Level.PATCH),
    ],
)
def test_an_announced_end_is_minor_where_somebody_is_served(
    before: dict[str, Any], after: dict[str, Any], detail: str, level: Level
) -> None:
    """Setting, moving or taking back the end of an operation is told to its callers."""
    (change,) = changed(before, after)
    assert (change.kind, change.detail, change.level) == (Kind.LIFECYCLE, detail, level)


@pytest.mark.parametrize(
    "fields, place, renamed",
    [({}, Level.MAJOR, Level.MAJOR), (UNSUPPORTED, Level.PATCH, Level.PATCH), (INTERNAL, Level.PATCH, Level.PATCH)],
)
def test_a_new_place_or_name_breaks_whoever_is_served(fields: dict[str, Any], place: Level, renamed: Level) -> None:
    """Path and operationId are promises; what is refused, or internal and stays so, has none."""
    base = document({"/v1/things": {"get": operation("listThings", fields)}})
    moved = between(base, document({"/v1/objects": {"get": operation("listThings", fields)}}))
    assert [(c.kind, c.level) for c in moved.changes] == [(Kind.MOVED, place)]
    named = between(base, document({"/v1/things": {"get": operation("listObjects", fields)}}))
    assert [(c.kind, c.level) for c in named.changes] == [(Kind.RENAMED, renamed)]


@pytest.mark.parametrize(
    "fields, added, removed",
    [({}, Level.MINOR, Level.MAJOR), (UNSUPPORTED, Level.PATCH, Level.PATCH), (INTERNAL, Level.MINOR, Level.MAJOR)],
)
def test_operations_come_and_go(fields: dict[str, Any], added: Level, removed: Level) -> None:
    """A served operation is minor when it comes and major when it goes; a refused one is a text."""
    without = document({"/v1/others": {"get": operation("listOthers")}})
    paths = {"/v1/others": {"get": operation("listOthers")}, "/v1/things": {"get": operation("listThings", fields)}}
    (come,) = between(without, document(paths)).changes
    (gone,) = between(document(paths), without).changes
    assert (come.kind, come.level, bool(come.widens)) == (Kind.ADDED, added, fields is not UNSUPPORTED)
    assert (gone.kind, gone.level, gone.widens) == (Kind.REMOVED, removed, ())


def test_links_between_wrappers_and_what_an_importer_asks_are_minor() -> None:
    """They tell callers where to go and what people are asked; the calls themselves stay as they are."""
    links = changed(WRAPPER, {**WRAPPER, "x-policy-wrapper": "uploadThing"})
    assert [(c.kind, c.level) for c in links] == [(Kind.WRAPPER, Level.MINOR)]
    wraps = changed({}, {"x-policy-wraps": ["createThing"]})
    assert [(c.kind, c.level) for c in wraps] == [(Kind.WRAPPER, Level.MINOR)]
    asks = changed({"x-openai-isConsequential": False}, {"x-openai-isConsequential": True})
    assert [(c.kind, c.level, c.detail) for c in asks] == [
        (Kind.IMPORT, Level.MINOR, "x-openai-isConsequential false -> true")
    ]


def test_whose_operation_it_is_cannot_change_quietly() -> None:
    """Unknown fields pass on upstream's operations and not on our own, so the mark of a tag is a promise."""
    ours = document(tags=[{"name": "Things"}])
    levels = {c.kind: c.level for c in between(document(), ours).changes}
    assert levels[Kind.DOCUMENT] is Level.MAJOR
