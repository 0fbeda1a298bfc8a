"""
Judges whether one JSON Schema takes everything that another takes; the proof is jsonschema-rs's.

Not for: saying where two schemas differ (`codegen.schema_difference`), or for what no validator sees, such as a field
that an open object no longer names. Reads and writes nothing.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import jsonschema_rs
from jsonschema_rs import canonical

from codegen.reader import Document

_REFUSED = (canonical.CanonicalizationError, jsonschema_rs.ReferencingError, jsonschema_rs.ValidationError, ValueError)


class Verdict(Enum):
    """What the new schema takes, compared with the old one."""

    SAME = "same"
    WIDER = "wider"
    NARROWER = "narrower"
    UNDECIDED = "undecided"  # neither covers the other, or it cannot be proven


def judge(old: tuple[Mapping[str, Any], Document], new: tuple[Mapping[str, Any], Document]) -> Verdict:
    """
    Compare what two schemas take.

    Args:
        old: A schema, and the document into which its references lead.
        new: The same of the other side.

    Returns:
        Anything but `UNDECIDED` is proven.
    """
    try:
        before, after = _canonical(*old), _canonical(*new)
        wider = after.covers(before) == canonical.Containment.YES
        narrower = before.covers(after) == canonical.Containment.YES
    except _REFUSED:
        return Verdict.UNDECIDED
    if wider and narrower:
        return Verdict.SAME
    if wider or narrower:
        return Verdict.WIDER if wider else Verdict.NARROWER
    return Verdict.UNDECIDED


def _canonical(schema: Mapping[str, Any], document: Document) -> jsonschema_rs.CanonicalSchema:
    schemas = document.get("components", {}).get("schemas", {})
    # Carried along under the name that `#/components/schemas/…` leads to; as a keyword it says nothing.
    whole = {**schema, "components": {"schemas": schemas}}
    return jsonschema_rs.canonicalize(whole, draft=jsonschema_rs.Draft202012)
