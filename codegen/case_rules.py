"""
The rule `proxy-cases`: the proxy is shown to carry and to refuse each of its operations, and every case makes sense.

Not for: reading the cases (`codegen.policy_cases`) or asking the relay for its verdicts. Findings about operations have
no lines; `codegen.check` adds those.
"""

from collections.abc import Iterable, Iterator

from codegen.contract import Bucket, Contract, Operation, Scope
from codegen.document_rules import found_in
from codegen.findings import Finding
from codegen.policy_cases import ALLOWED, CASES, PolicyCase, Surface
from codegen.reader import Document

RULE = "proxy-cases"


def proxy_cases(full: Contract, cases: Iterable[PolicyCase]) -> Iterator[Finding]:
    """Every PROXY_HARNESS operation has an allowed and a refused case of a key that opens the proxy."""
    tried = {(c.operation, c.allowed) for c in cases if c.surface is Surface.PROXY and Scope.PROXY in c.scopes}
    for operation in full:
        missing = [
            name for name, allowed in ((ALLOWED, True), ("refused", False)) if (operation.id, allowed) not in tried
        ]
        if operation.bucket is Bucket.PROXY_HARNESS and missing:
            problem = f"`{operation.id}` has no {' and no '.join(missing)} case through the proxy"
            where = f"{operation.method} {operation.path}"
            yield found_in(full.name, RULE, where, problem, f"Write one in {CASES}/*.yaml")


def cases_fit(full: Contract, cases: Iterable[PolicyCase]) -> Iterator[Finding]:
    """A case names an operation and a verdict of the contract; an allowed one fits its operation and can reach it."""
    codes = error_codes(full.document)
    for case in cases:
        operation = full.operations.get(case.operation)
        if operation is None:
            yield _about(case, f"`{case.operation}` is no operation of spec/{full.name}.yaml", "Name one that is")
        elif case.allowed:
            yield from _wrongly_allowed(case, operation)
        elif case.verdict not in codes:
            problem = f"the verdict must be `{ALLOWED}` or an error code of the relay, not `{case.verdict}`"
            yield _about(case, problem, "Take one of the codes in `RelayErrorEnvelope`")


def error_codes(document: Document) -> frozenset[str]:
    """The closed list of codes of the relay's errors; empty when the document declares none."""
    node = document.get("components", {}).get("schemas", {}).get("RelayErrorEnvelope", {})
    for name in ("error", "code"):
        node = node.get("properties", {}).get(name, {})
    return frozenset(node.get("enum", ()))


def _wrongly_allowed(case: PolicyCase, operation: Operation) -> Iterator[Finding]:
    if case.method != operation.method or not _fits(case.path, operation.path):
        problem = f"{case.method} {case.path} is no request of `{operation.id}`"
        yield _about(case, problem, f"Write {operation.method} and a path that fits {operation.path}")
    if not _within_reach(case, operation):
        problem = f"`{operation.id}` ({operation.bucket}) cannot be reached this way with this key"
        yield _about(case, problem, "Correct the verdict, the surface or the scopes")


def _fits(path: str, template: str) -> bool:
    values, segments = path.split("/"), template.split("/")
    return len(values) == len(segments) and all(
        value == segment or (segment.startswith("{") and value) for value, segment in zip(values, segments, strict=True)
    )


def _within_reach(case: PolicyCase, operation: Operation) -> bool:
    if case.surface is Surface.PROXY:
        return operation.bucket is Bucket.PROXY_HARNESS and Scope.PROXY in case.scopes
    return operation.served and (operation.open or not operation.scopes.isdisjoint(case.scopes))


def _about(case: PolicyCase, problem: str, next_step: str) -> Finding:
    return Finding(RULE, case.file, case.line, f"case {case.id}", problem, next_step)
