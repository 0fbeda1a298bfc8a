"""
Compares what upstream asks of a request with what our contract allows today, value by value.

Not for: weighing (`codegen.drift`). Where our contract leaves a field open, no list of upstream's is narrower than
anything that was promised, so nothing is found there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.request_shape import Fields, RequestShape

REQUIRED_BODY = "new-required-body"
REQUIRED_FIELD = "new-required-field"
REQUIRED_PARAMETER = "new-required-parameter"
NARROWED = "narrowed-enum"
WIDENED = "widened-enum"
NOT_REQUIRED = "no-longer-required"
LOOSER = frozenset({REQUIRED_BODY, REQUIRED_FIELD, REQUIRED_PARAMETER, NARROWED})  # ours allows more than upstream
ANY_VALUE = "any other value"


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """
    One thing that one side allows and the other refuses.

    Args:
        kind: One of this module's constants.
        place: `body`, `body purpose`, `query order`.
        value: The value of an enum; empty for what is about being required.
    """

    kind: str
    place: str
    value: str = ""


def differences(ours: RequestShape, upstream: RequestShape) -> frozenset[Difference]:
    """
    Compare the request of one operation; media types that only one side has are left to the lock file.

    Returns:
        Each difference once, however many media types have it.
    """
    return frozenset(_all(ours, upstream))


def _all(ours: RequestShape, upstream: RequestShape) -> Iterator[Difference]:
    if ours.bodies and upstream.bodies:
        if upstream.body_required and not ours.body_required:
            yield Difference(REQUIRED_BODY, "body")
        if ours.body_required and not upstream.body_required:
            yield Difference(NOT_REQUIRED, "body")
    for media in ours.bodies.keys() & upstream.bodies.keys():
        yield from _of_fields(ours.bodies[media], upstream.bodies[media], REQUIRED_FIELD, "body ")
    yield from _of_fields(ours.parameters, upstream.parameters, REQUIRED_PARAMETER, "")


def _of_fields(ours: Fields, upstream: Fields, required: str, prefix: str) -> Iterator[Difference]:
    for name in upstream.required - ours.required:
        yield Difference(required, prefix + name)
    for name in ours.required - upstream.required:
        yield Difference(NOT_REQUIRED, prefix + name)
    for name in ours.values.keys() & upstream.values.keys():
        mine, theirs = ours.values[name], upstream.values[name]
        if mine is None:
            continue
        for value in mine - (mine if theirs is None else theirs):
            yield Difference(NARROWED, prefix + name, value)
        for value in {ANY_VALUE} if theirs is None else theirs - mine:
            yield Difference(WIDENED, prefix + name, value)
