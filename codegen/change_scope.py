"""
Finds changes outside the scope that section 10 of GOVERNANCE.md allows without a proposal: one small rule per sentence.

Not for: proposals themselves (`codegen.proposals`) or versions. Narrowing, removal, looser schemas and texts are always
inside, so no rule looks at them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codegen.changes import name_of
from codegen.contract import JSON, Bucket, Operation, Scope
from codegen.contract_diff import ContractDiff
from codegen.decision_difference import gained_scopes, moved, reach, verdict

_PROXY = "/v1/proxy"  # section 10 allows this one path of a surface that was not open in 1.0
_WRAPPERS = "/v1/actions/"
_VIDEO = "Videos"  # section 7: no wrapper is written for the operations of this tag
_EXPOSED = frozenset({Bucket.ACTIONS_DIRECT, Bucket.PROXY_HARNESS})
_POLICY_SCHEMA = "spec/policy.schema.yaml"
_VOCABULARY = {
    "bucket": ("$defs", "operation", "properties", "x-policy-bucket", "enum"),
    "exclusion": ("$defs", "operation", "properties", "x-policy-exclusion", "enum"),
    "scope": ("$defs", "cases", "properties", "scopes", "items", "enum"),
}


@dataclass(frozen=True, slots=True, order=True)
class Outside:
    """
    A change that needs a proposal.

    Args:
        operation: operationId that the proposal has to name; empty when no operation uses what is new.
        subject: `METHOD /path`, or the file.
        problem: What is outside, with the words of section 10; without a full stop.
    """

    operation: str
    subject: str
    problem: str


def outside(diff: ContractDiff) -> list[Outside]:
    """Everything that needs a proposal, sorted."""
    return sorted({found for rule in _RULES for found in rule(diff)})


def _opens_an_internal_operation(diff: ContractDiff) -> Iterator[Outside]:
    for pair in diff.full.kept:
        if not pair.old.published and pair.new.published and pair.new.served:
            yield _needs(pair.new, "is no longer internal", "opening an internal operation")


def _widens_what_stood(diff: ContractDiff) -> Iterator[Outside]:
    """The scope lets new operations be classified; a wider bucket for one that stood is a decision of its own."""
    for pair in diff.full.kept:
        gained = reach(pair.new) - reach(pair.old)
        if moved(pair) and gained and pair.old.published:
            words = f"moves from {verdict(pair.old)} to {verdict(pair.new)} and gains {', '.join(sorted(gained))}"
            yield _needs(pair.new, words, "classify new upstream operations", allowed=True)


def _opens_a_closed_operation(diff: ContractDiff) -> Iterator[Outside]:
    for pair in diff.full.kept:
        if pair.new.open and not pair.old.open and pair.new.served:
            yield _needs(pair.new, "needs no key any more", "a new surface, scope, bucket or exclusion")


def _adds_a_scope(diff: ContractDiff) -> Iterator[Outside]:
    for pair in diff.full.kept:
        gained = gained_scopes(pair)
        if gained and not pair.old.open and pair.new.served:
            words = f"is opened to the scope {', '.join(sorted(gained))}"
            yield _needs(pair.new, words, "a new surface, scope, bucket or exclusion")


def _uses_a_new_scope(diff: ContractDiff) -> Iterator[Outside]:
    known = frozenset[Scope]().union(*(operation.scopes for operation in diff.base.full))
    for operation in diff.full.added:
        expected = {Scope.REALTIME}  # has a rule of its own
        if operation.path == _PROXY:
            expected.add(Scope.PROXY)
        if not operation.published:
            expected.add(Scope.OPERATOR)
        fresh = operation.scopes - known - expected
        if fresh:
            words = f"uses the scope {', '.join(sorted(fresh))}, which opened nothing before"
            yield _needs(operation, words, "a new surface, scope, bucket or exclusion")


def _extends_the_vocabulary(diff: ContractDiff) -> Iterator[Outside]:
    for what, place in _VOCABULARY.items():
        before, after = (_values(side.schema, place) for side in (diff.base, diff.head))
        if not before:  # an edition that did not list them cannot say what is new
            continue
        for value in sorted(after - before):
            users = [o for o in diff.head.full if value in {o.bucket, o.exclusion, *o.scopes}]
            words = f"adds the {what} {value}"
            for operation in users:
                yield _needs(operation, words, "a new surface, scope, bucket or exclusion")
            if not users:
                problem = f"{words}: not allowed without a proposal is “a new surface, scope, bucket or exclusion”"
                yield Outside("", _POLICY_SCHEMA, problem)


def _adds_a_surface(diff: ContractDiff) -> Iterator[Outside]:
    """An operation of our own is a wrapper, the proxy, an open page or document, or internal; all else is a surface."""
    for operation in _own(diff):
        expected = (
            operation.path.startswith(_WRAPPERS)
            or operation.path == _PROXY
            or (operation.open and operation.method == "GET")
            or (not operation.published and operation.scopes == {Scope.OPERATOR})
        )
        if operation.served and not expected:
            yield _needs(operation, "is an operation of our own beside the known surfaces", "a new surface")


def _wraps_what_needs_no_wrapper(diff: ContractDiff) -> Iterator[Outside]:
    for operation in _own(diff):
        wrapped = [diff.head.full.operations[name] for name in operation.wraps if name in diff.head.full.operations]
        if any(target.tag == _VIDEO or target.bucket is not Bucket.WRAPPER_REQUIRED for target in wrapped):
            quote = "wrappers under `/v1/actions/*` for operations that are `WRAPPER_REQUIRED`, video apart"
            yield _needs(operation, "wraps an operation that gets no wrapper", quote, allowed=True)


def _reaches_sockets(diff: ContractDiff) -> Iterator[Outside]:
    for operation in diff.full.added:
        if Scope.REALTIME in operation.scopes and operation.served:
            yield _needs(
                operation, "has the scope realtime", "sockets; credentials that let a client go around the relay"
            )


def _exposes_more_than_json(diff: ContractDiff) -> Iterator[Outside]:
    for pairing in (diff.full, diff.actions):
        before = {pair.new.id: _media(pair.old) for pair in pairing.kept}
        for operation in pairing.new:
            fresh = _media(operation) - before.get(operation.id, frozenset()) - {JSON}
            if operation.bucket in _EXPOSED and fresh:
                words = f"brings {', '.join(sorted(fresh))} to {operation.bucket}"
                yield _needs(operation, words, "binary bodies, multipart or event streams to Actions or the proxy")


def _serves_administration(diff: ContractDiff) -> Iterator[Outside]:
    """A tag of upstream that was refused as a whole stays refused, whatever upstream adds to it."""
    tags = {operation.tag for operation in diff.base.full if operation.mirrored}
    refused = tags - {operation.tag for operation in diff.base.full if operation.served}
    for operation in diff.full.added:
        if operation.served and operation.tag in refused:
            words = f"is served under the tag {operation.tag}, of which nothing was served"
            yield _needs(operation, words, "administration of the organisation or of projects")


def _classifies_generously(diff: ContractDiff) -> Iterator[Outside]:
    quote = "`unsupported` or `hidden` at first, another bucket with its review"
    for operation in diff.full.added:
        if not operation.mirrored or operation.colon_path or not operation.served:
            continue
        if operation.bucket is Bucket.ACTIONS_DIRECT:
            yield _needs(operation, "is new and ACTIONS_DIRECT at once; no review stands for that", quote, allowed=True)
        if not operation.published or not operation.scopes & {Scope.CANONICAL}:
            yield _needs(operation, "is upstream's and not for keys with the scope canonical", quote, allowed=True)


_RULES: tuple[Callable[[ContractDiff], Iterator[Outside]], ...] = (
    _opens_an_internal_operation,
    _widens_what_stood,
    _opens_a_closed_operation,
    _adds_a_scope,
    _uses_a_new_scope,
    _extends_the_vocabulary,
    _adds_a_surface,
    _wraps_what_needs_no_wrapper,
    _reaches_sockets,
    _exposes_more_than_json,
    _serves_administration,
    _classifies_generously,
)


def _own(diff: ContractDiff) -> Iterator[Operation]:
    # Section 13: a path with a colon under a tag of upstream's is ours.
    return (operation for operation in diff.full.added if not operation.mirrored or operation.colon_path)


def _media(operation: Operation) -> frozenset[str]:
    return operation.request_media | operation.response_media


def _values(schema: Mapping[str, Any], place: tuple[str, ...]) -> frozenset[str]:
    node: Any = schema
    for part in place:
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    return frozenset(node) if isinstance(node, list) else frozenset()


def _needs(operation: Operation, words: str, quote: str, *, allowed: bool = False) -> Outside:
    rule = "allowed without a proposal is only" if allowed else "not allowed without a proposal is"
    return Outside(operation.id, name_of(operation), f"{words}: {rule} “{quote}”")
