"""Sides of a contract diff made from small documents, without files and git."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from codegen.changes import Change
from codegen.contract import ACTIONS, FULL, build_contract
from codegen.contract_diff import ContractDiff, compare
from codegen.reader import Document
from codegen.revision import Side
from tests.support.documents import POLICY_SCHEMA, document, operation


def side(full: Document, actions: Document | None = None, **other: Any) -> Side:
    """
    A side that holds documents.

    Args:
        actions: A document without operations unless given.
        other: Fields of the side that are not empty.
    """
    fields: dict[str, Any] = {"label": "a side", "schema": POLICY_SCHEMA, "cases": (), "proposals": (), "problems": ()}
    imported = build_contract(ACTIONS, deepcopy(actions) if actions else document({}))
    return Side(full=build_contract(FULL, deepcopy(full)), actions=imported, **{**fields, **other})


def between(before: Document, after: Document) -> ContractDiff:
    """The diff of two full documents."""
    return compare(side(before), side(after))


def changed(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "/v1/things") -> tuple[Change, ...]:
    """
    What is found when one operation changes.

    Args:
        before: Fields in which the operation differs from the usual one; `None` leaves one out.
        after: The same afterwards.
    """
    sides = [document({path: {"get": operation(changes=fields)}}) for fields in (before, after)]
    return between(*sides).changes
