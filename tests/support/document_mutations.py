"""
Bad edits of whole documents, of the lock file, of policy cases and of generated files, and the rule that owns each.

Not for: single operations (`operation_mutations`) and the importers' rules (`actions_mutations`).
"""

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from codegen.contract import ACTIONS, FULL, JSON, Bucket, Exclusion
from codegen.policy_cases import CASES, PolicyCase, read_policy_cases
from codegen.reader import Document, read_yaml
from codegen.upstream import VARIANT
from tests.support.contract_edits import DIRECT, PROXY, Pick, first, on, renamed, swapped, to_proxy
from tests.support.mutations import Checkout, Command, Edit, Mutation, mutations_of
from tests.support.yaml_edits import rewritten

FULL_FILE = f"spec/{FULL}.yaml"
ACTIONS_FILE = f"spec/{ACTIONS}.yaml"
SCHEMA_FILE = "spec/policy.schema.yaml"
LOCK_FILE = "spec/upstream.lock.tsv"
GENERATED = Path("spec/generated")
UNKNOWN_DAY = "2027-02-30"
HIDDEN_JSON = first(lambda o: o.mirrored and o.exclusion is Exclusion.HIDDEN and o.json_only and not o.content_path)
SENT = first(lambda o: o.mirrored and o.served and o.request_media == {JSON})
PLAIN = first(lambda o: o.mirrored and not o.deprecated and o.bucket is Bucket.PROXY_HARNESS)


def full(change: Callable[[Document], object]) -> Edit:
    """An edit of the data of the full document."""
    return lambda checkout: checkout.change(FULL, change)


def actions(change: Callable[[Document], object]) -> Edit:
    """An edit of the data of the Actions document."""
    return lambda checkout: checkout.change(ACTIONS, change)


def text(file: str, pattern: str, replacement: str) -> Edit:
    """An edit of the text of a file: the first match of a regular expression."""
    return lambda checkout: checkout.rewrite(file, lambda old: re.sub(pattern, replacement, old, count=1))


def line_of(pick: Pick, replacement: str) -> Edit:
    """An edit of the line that the lock file has for an operation; its cells are the groups of a regular expression."""

    def edit(checkout: Checkout) -> None:
        operation = pick(checkout.full)
        text(
            LOCK_FILE,
            rf"({operation.method}\t)({re.escape(operation.path)}\t)(\S+\t)(\S+\t)(\S+\t)(\S+\n)",
            replacement,
        )(checkout)

    return edit


def review(change: Callable[[dict[str, Any]], object]) -> Edit:
    """An edit of the first review record."""
    return full(lambda d: change(next(iter(d["x-policy-reviews"].values()))))


def neighbours(document: Document) -> tuple[str, str]:
    """The first two paths of one tag that follow each other."""
    tagged = [
        (path, next(n["tags"] for n in item.values() if isinstance(n, dict)))
        for path, item in document["paths"].items()
    ]
    return next((a, b) for (a, tag), (b, other) in pairwise(tagged) if tag == other)


def first_of_two_methods(document: Document) -> dict[str, Any]:
    """The first path item with a `get` and a `post`."""
    return next(item for item in document["paths"].values() if {"get", "post"} <= item.keys())


def without_cases(*, allowed: bool) -> Edit:
    """An edit that takes away every case which shows the first operation for the proxy allowed, or refused, there."""
    return lambda checkout: _cut(checkout, lambda c: c.operation == PROXY(checkout.full).id and c.allowed is allowed)


def case(change: Callable[[dict[str, Any]], object], *, allowed: bool = True) -> Edit:
    """An edit of the first case with this verdict."""

    def edit(checkout: Checkout) -> None:
        chosen = next(case for case in read_policy_cases(checkout.root) if case.allowed is allowed)
        _change(checkout, chosen.file, lambda d: change(d["cases"][chosen.index - 1]))

    return edit


def case_file(change: Callable[[Document], object]) -> Edit:
    """An edit of the first file of cases."""
    return lambda checkout: _change(checkout, read_policy_cases(checkout.root)[0].file, change)


def _cut(checkout: Checkout, unwanted: Callable[[PolicyCase], bool]) -> None:
    for file in sorted({case.file for case in read_policy_cases(checkout.root) if unwanted(case)}):
        gone = {case.index for case in read_policy_cases(checkout.root) if case.file == file and unwanted(case)}
        path = checkout.root / file
        kept = [case for index, case in enumerate(read_yaml(path)["cases"], 1) if index not in gone]
        if kept:
            _change(checkout, file, partial(dict.update, cases=kept))
        else:
            path.unlink()


def _change(checkout: Checkout, file: str, change: Callable[[Document], object]) -> None:
    document = read_yaml(checkout.root / file)
    checkout.rewrite(file, lambda old: rewritten(old, document, change))


def stray_file(file: Path, like: Path) -> Edit:
    """An edit that copies a file under another name."""
    return lambda c: (c.root / file).write_bytes((c.root / like).read_bytes())


DOCUMENTS: dict[str, dict[str, Edit]] = {
    "document-loads": {
        "open bracket": text(FULL_FILE, "\npaths:\n", "\npaths: [\n"),
        "tab as indentation": text(FULL_FILE, "\n  title", "\n\ttitle"),
        "colon too many": text(ACTIONS_FILE, "title: ", "title: a: "),
        "two buckets on one operation": text(
            FULL_FILE, r"( +)(x-policy-bucket: )(ACTIONS_DIRECT\n)", r"\1\2\3\1\2PROXY_HARNESS\n"
        ),
        "path that stands twice": text(FULL_FILE, r"\n(  /\S+:)\n", r"\n\1 {}\n\1\n"),
        "path that stands twice in the Actions document": text(ACTIONS_FILE, r"\n(  /\S+:)\n", r"\n\1 {}\n\1\n"),
        "anchor and alias": text(FULL_FILE, r"(summary: )(.*\n(?:.*\n)*? +summary: ).*\n", r"\1&it \2*it\n"),
        "merge key": text(FULL_FILE, "\ninfo:\n", "\ninfo:\n  <<: {}\n"),
        "empty document": lambda c: c.rewrite(ACTIONS_FILE, lambda _: ""),
        "document that is a list": lambda c: c.rewrite(ACTIONS_FILE, lambda _: "- one\n"),
        "document that is gone": lambda c: (c.root / ACTIONS_FILE).unlink(),
        "no paths": full(lambda d: d.pop("paths")),
        "tags as a mapping": full(lambda d: d.update(tags={"Relay": {}})),
        "no default security": full(lambda d: d.pop("security")),
        "default that opens everything": full(lambda d: d.update(security=[])),
        "version that is a number": full(lambda d: d["info"].update(version=2)),
        "component that is gone": full(lambda d: d["components"]["schemas"].popitem()),
        "component under another name": actions(
            lambda d: renamed(d["components"]["schemas"], "ErrorEnvelope", "AnErrorEnvelope")
        ),
        "reference into another file": text(FULL_FILE, r'\$ref: "#/', r'$ref: "other.yaml#/'),
        "vocabulary without operations": text(SCHEMA_FILE, "\n  operation:\n", "\n  operations:\n"),
        "vocabulary that is no schema": text(SCHEMA_FILE, r"type: object", "type: things"),
    },
    "closed-vocabulary": {
        "policy field for the whole document": full(lambda d: d.update({"x-policy-default": "EXCLUDED"})),
        "policy field of a path": full(
            lambda d: d["paths"][next(iter(d["paths"]))].update({"x-policy-bucket": "EXCLUDED"})
        ),
        "policy field of a component": full(
            lambda d: next(iter(d["components"]["schemas"].values())).update({"x-policy-reason": "No."})
        ),
        "unknown policy field of a tag": full(lambda d: d["tags"][0].update({"x-policy-owner": "me"})),
        "tag that says it is not mirrored": full(lambda d: d["tags"][0].update({"x-policy-mirrored": False})),
        "reviews under another name": actions(lambda d: d.update({"x-policy-review": {}})),
    },
    "proxy-reviewed": {
        "review that nobody uses": full(
            lambda d: d["x-policy-reviews"].update(spare=next(iter(d["x-policy-reviews"].values())))
        ),
        "review that is gone": full(lambda d: d["x-policy-reviews"].popitem()),
        "review of a day that does not exist": review(lambda record: record.update(since=UNKNOWN_DAY)),
        "review without a risk": review(lambda record: record.pop("risk")),
        "review with a field of its own": review(lambda record: record.update(by="me")),
        "review that is no sentence": review(lambda record: record.update(requirement="ok")),
    },
    "canonical-kept": {
        "default security without canonical": full(lambda d: d.update(security=[{"relayBearer": ["proxy"]}])),
    },
    "actions-scope": {
        "another default security in the Actions document": actions(
            lambda d: d.update(security=[{"relayBearer": ["actions"]}, {"relayBearer": ["canonical"]}])
        ),
    },
    "path-order": {
        "paths in another order": full(lambda d: swapped(d["paths"], *neighbours(d))),
        "methods in another order": full(lambda d: swapped(first_of_two_methods(d), "get", "post")),
        "tags in another order": full(lambda d: d["tags"].reverse()),
        "tag that is gone": full(lambda d: d["tags"].pop()),
        "operation of another tag at a path": full(lambda d: first_of_two_methods(d)["post"].update(tags=["Relay"])),
        "HEAD at a path": full(lambda d: first_of_two_methods(d).update(head=first_of_two_methods(d)["get"])),
        "server of a path": full(lambda d: first_of_two_methods(d).update(servers=[{"url": "https://else.example"}])),
        "paths in another order in the Actions document": actions(lambda d: swapped(d["paths"], *neighbours(d))),
    },
    "unique-operation-ids": {
        "operationId that stands twice in the Actions document": text(
            ACTIONS_FILE, r"(operationId: )(\w+)(\n(?:.*\n)*? +operationId: )\w+", r"\1\2\3\2"
        ),
    },
    "one-version": {
        "version raised in the full document": full(lambda d: d["info"].update(version="9.9.9")),
        "version raised in the Actions document": actions(lambda d: d["info"].update(version="9.9.9")),
    },
    "upstream-classified": {
        "line of the lock gone": line_of(PROXY, ""),
        "line of the lock new": line_of(PROXY, r"\1\2\3\4\5\6GET\t/v1/zebras\tlistZebras\t-\tapplication/json\t-\n"),
        "line of the lock twice": line_of(PROXY, r"\1\2\3\4\5\6\1\2\3\4\5\6"),
        "operationId of the lock changed": line_of(PROXY, r"\1\2another\t\4\5\6"),
        "path of the lock changed": line_of(PROXY, r"\1/v1/zebras\t\3\4\5\6"),
        "method of the lock changed": line_of(PROXY, r"PATCH\t\2\3\4\5\6"),
        "request media of the lock changed": line_of(SENT, r"\1\2\3multipart/form-data\t\5\6"),
        "reply media of the lock changed": line_of(PROXY, r"\1\2\3\4text/csv\t\6"),
        "deprecation in the lock": line_of(PLAIN, r"\1\2\3\4\5deprecated\n"),
        "variant in the lock without its path": text(LOCK_FILE, r"(\nGET\t/\S+)\t", rf"\1{VARIANT}\t"),
        "line of the lock with too few cells": line_of(PROXY, r"\1\2\3"),
        "lock without its head": text(LOCK_FILE, r"\A.*\n", ""),
        "lock that is gone": lambda c: (c.root / LOCK_FILE).unlink(),
    },
    "proxy-cases": {
        "operation new to the proxy": to_proxy(HIDDEN_JSON),
        "no allowed case of an operation for the proxy": without_cases(allowed=True),
        "no refused case of an operation for the proxy": without_cases(allowed=False),
        "case of an operation that does not exist": case(lambda c: c.update(operation="nobody")),
        "case with a verdict that does not exist": case(lambda c: c.update(verdict="never"), allowed=False),
        "case with another method": case(lambda c: c.update(method="PATCH")),
        "case at another path": case(lambda c: c.update(path="/v1/elsewhere")),
        "case of a refused request that is allowed": case(lambda c: c.update(verdict="allowed"), allowed=False),
        "case without a verdict": case(lambda c: c.pop("verdict")),
        "case with a field of its own": case(lambda c: c.update(expected=200)),
        "cases for a key that does not exist": case_file(lambda d: d.update(scopes=["everything"])),
        "cases without a situation": case_file(lambda d: d.pop("situation")),
        "cases that are none": case_file(lambda d: d.update(cases=[])),
        "cases with a file name that says nothing": lambda c: stray_file(
            CASES / "Case 1.yaml", Path(read_policy_cases(c.root)[0].file)
        )(c),
    },
}
RENDERED: dict[str, dict[str, Edit]] = {
    "generated-fresh": {
        "contract that is not rendered": on(DIRECT, lambda node: node.update(summary="Do it.")),
        "Actions document that is not rendered": actions(lambda d: d["info"].update(description="Ask.")),
        "generated file that was edited": text(str(GENERATED / "policy.tsv"), "PROXY_HARNESS", "ACTIONS_DIRECT"),
        "generated file that is gone": lambda c: (c.root / GENERATED / f"{FULL}.json").unlink(),
        "file that nobody generates": stray_file(GENERATED / "policy.old.tsv", GENERATED / "policy.tsv"),
    },
}
MUTATIONS: tuple[Mutation, ...] = (
    *mutations_of(Command.CHECK, DOCUMENTS),
    *mutations_of(Command.RENDER_CHECK, RENDERED),
)
