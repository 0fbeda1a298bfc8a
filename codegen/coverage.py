"""
Lays side by side what the contract declares, what the code serves, what upstream has and what tests have seen.

Not for: the rules of the contract (`codegen.check`). Reads a checkout and, when asked to, a running relay; writes
nothing.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen.contract import FULL, Contract, Operation, build_contract
from codegen.coverage_report import UNKNOWN, Coverage, Gap, Problem, Row
from codegen.document_rules import document_loads, operation_nodes
from codegen.evidence import COMMAND, EVIDENCE, NOT_SEEN, Evidence, read_evidence
from codegen.exceptions import InvalidContract
from codegen.handler_sources import FORWARDER, HandlerModule, read_handlers
from codegen.naming import snake_case
from codegen.pin import LOCK, read_lock
from codegen.policy_cases import read_policy_cases
from codegen.reader import Document, read_yaml
from codegen.running_relay import Route, RunningRelay, ask_relay
from codegen.surfaces import surfaces
from codegen.upstream import Place, UpstreamOperation

_SPEC = f"spec/{FULL}.yaml"


@dataclass(frozen=True, slots=True)
class _Unclassified:
    """An operation of the document that the model refuses, read as plain data."""

    operation_id: str
    tag: str
    problem: str


@dataclass(frozen=True, slots=True)
class _Sources:
    contract: Contract
    unclassified: Mapping[Place, _Unclassified]
    modules: Mapping[str, HandlerModule]
    lock: Mapping[Place, UpstreamOperation]
    evidence: Mapping[str, Evidence]
    cases: Mapping[str, int]
    relay: RunningRelay | None

    @property
    def places(self) -> Mapping[Place, str]:
        """Every operation of the document: its place and operationId."""
        classified = {(operation.path, operation.method): operation.id for operation in self.contract}
        return {**classified, **{place: found.operation_id for place, found in self.unclassified.items()}}

    @property
    def lock_lines(self) -> Mapping[Place, int]:
        """How many lines of the lock belong to a place; none where only a variant is left."""
        return Counter(line.plain_place for line in self.lock.values() if line.plain_place in self.lock)

    @property
    def routes(self) -> Mapping[Place, Route]:
        """What the running relay has bound."""
        return {(route.path, route.method): route for route in self.relay.routes} if self.relay else {}


def coverage(root: Path, url: str | None = None, key: str = "") -> Coverage:
    """
    Find what is in one of contract, code, upstream lock and evidence, and missing in another.

    Args:
        root: The project's folder.
        url: Address of a running relay whose routes are compared with the checkout too.
        key: For that relay, with the scope `operator`.

    Raises:
        UnreadableDocument: A file is missing or is not what it should be.
        InvalidContract: The document is broken beyond single operations.
        RelayNotAsked: The relay does not answer what it should.
    """
    contract, unclassified = _read(root)
    sources = _Sources(
        contract=contract,
        unclassified=unclassified,
        modules=read_handlers(root),
        lock=read_lock(root / LOCK),
        evidence=read_evidence(root / EVIDENCE),
        cases=Counter(case.operation for case in read_policy_cases(root)),
        relay=ask_relay(url, key, contract) if url is not None else None,
    )
    return Coverage(
        version=contract.version,
        relay=sources.relay,
        rows=(
            *(_declared(operation, sources) for operation in contract),
            *_refused_by_the_model(sources),
            *_beyond_the_contract(sources),
            *_orphans(sources),
            *_undeclared(sources),
        ),
    )


def _read(root: Path) -> tuple[Contract, Mapping[Place, _Unclassified]]:
    """The contract without the operations that keep it from loading, and these."""
    document = read_yaml(root / _SPEC)
    schema = read_yaml(root / "spec" / "policy.schema.yaml")
    if broken := [f"{f.file}: {f.subject}: {f.problem}. {f.next_step}." for f in document_loads(FULL, document)]:
        raise InvalidContract(broken)
    try:
        return build_contract(FULL, document, policy_schema=schema), {}
    except InvalidContract as error:
        unclassified = dict(_refused(document, error))
        if not unclassified:
            raise
    rest = deepcopy(document)
    for path, method in unclassified:
        del rest["paths"][path][method.lower()]
    return build_contract(FULL, rest, policy_schema=schema), unclassified


def _refused(document: Document, error: InvalidContract) -> Iterator[tuple[Place, _Unclassified]]:
    findings = [re.fullmatch(r"\S+: ([A-Z]+ /\S*): (.*)", finding, re.DOTALL) for finding in error.findings]
    wrong = {found[1]: found[2] for found in findings if found}
    for where, node in operation_nodes(document):
        if where in wrong:
            method, path = where.split(" ", 1)
            tags = node.get("tags")
            tag = str(tags[0]) if isinstance(tags, list) and tags else ""
            yield (path, method), _Unclassified(str(node.get("operationId", "")), tag, wrong[where])


def _declared(operation: Operation, sources: _Sources) -> Row:
    function = _function(operation, sources)
    seen = sources.evidence.get(operation.id)
    problems = [
        *_without_function(operation, function),
        *_without_line(operation, seen, sources),
        *_without_evidence(operation, seen),
    ]
    if sources.relay and function:
        problems += _bound_otherwise(operation, function, sources.routes.get((operation.path, operation.method)))
    return Row(
        operation_id=operation.id,
        method=operation.method,
        path=operation.path,
        bucket=f"{operation.bucket} ({operation.exclusion})" if operation.exclusion else str(operation.bucket),
        surfaces=tuple(str(surface) for surface in surfaces(operation)),
        wrapper=operation.wrapper,
        served=operation.served,
        function=function,
        evidence=seen or NOT_SEEN,
        policy_cases=sources.cases.get(operation.id, 0),
        problems=tuple(problems),
    )


def _function(operation: Operation, sources: _Sources) -> str:
    """What the relay binds it to, by the rules of `handlers.runtime.binding`; empty when that stops the start."""
    module = sources.modules.get(snake_case(operation.tag))
    name = snake_case(operation.id)
    if module and name in module.coroutines:
        return f"{module.name}.{name}"
    taken = module is not None and name in module.names
    return FORWARDER if operation.mirrored and not operation.colon_path and not taken else ""


def _without_function(operation: Operation, function: str) -> Iterator[Problem]:
    if not function:
        next_step = f"Write `async def {snake_case(operation.id)}` in handlers/{snake_case(operation.tag)}.py"
        yield Problem(Gap.NO_HANDLER, _name(operation), "nothing serves it", next_step)


def _without_line(operation: Operation, seen: Evidence | None, sources: _Sources) -> Iterator[Problem]:
    lines = sources.lock_lines.get((operation.path, operation.method), 0)
    upstream = operation.mirrored and not operation.colon_path
    if upstream and not lines:
        next_step = "Run `contract pin FILE` with a document that has it, or delete it from the contract"
        yield Problem(Gap.NO_LOCK_LINE, _name(operation), f"is upstream's and has no line in {LOCK}", next_step)
    elif seen and lines != seen.lock_lines:
        problem = f"has {lines} lines in {LOCK} with its variants, and the tests asked for {seen.lock_lines}"
        yield Problem(Gap.OTHER_LOCK_LINES, _name(operation), problem, f"Restore the lock or run `{COMMAND}`")


def _without_evidence(operation: Operation, seen: Evidence | None) -> Iterator[Problem]:
    if operation.served and not (seen and seen.answered):
        problem, test = "is served, and no integration test has had it answered", "an integration test that calls it"
    elif not operation.served and not (seen and seen.refused):
        problem, test = "is unsupported, and no integration test has seen it refused", "a test of the refusal"
    else:
        return
    yield Problem(Gap.NO_EVIDENCE, _name(operation), problem, f"Write {test}, then run `{COMMAND}`")


def _bound_otherwise(operation: Operation, function: str, route: Route | None) -> Iterator[Problem]:
    if route is None:
        problem, next_step = "is declared here, and the relay has not bound it", "Install this checkout and restart it"
        yield Problem(Gap.UNBOUND_OPERATION, _name(operation), problem, next_step)
    elif (route.operation_id, route.function) != (operation.id, function):
        problem = (
            f"the relay has bound {route.operation_id} to {route.function}, this checkout {operation.id} to {function}"
        )
        yield Problem(Gap.OTHER_FUNCTION, _name(operation), problem, "Install this checkout and restart it")


def _refused_by_the_model(sources: _Sources) -> Iterator[Row]:
    for (path, method), found in sources.unclassified.items():
        problem, _, next_step = found.problem.rstrip(".").rpartition("; ")
        next_step = next_step if problem else "See spec/policy.schema.yaml"
        yield _unknown(
            Problem(Gap.UNKNOWN_OPERATION, f"{method} {path}", problem or found.problem, f"{_SPEC}: {next_step}"),
            operation_id=found.operation_id,
            method=method,
            path=path,
            evidence=sources.evidence.get(found.operation_id, NOT_SEEN),
        )


def _beyond_the_contract(sources: _Sources) -> Iterator[Row]:
    places = sources.places
    for line in sources.lock.values():
        if line.plain_place not in places:
            problem = f"stands in {LOCK} and has no place in the contract"
            next_step = f"Classify it in {_SPEC}"
            yield _unknown(
                Problem(Gap.UNKNOWN_UPSTREAM, line.name, problem, next_step),
                operation_id=line.id,
                method=line.method,
                path=line.path,
            )


def _orphans(sources: _Sources) -> Iterator[Row]:
    declared = [(o.tag, o.id) for o in sources.contract]
    declared += [(found.tag, found.operation_id) for found in sources.unclassified.values()]
    claimed = {(snake_case(tag), snake_case(operation_id)) for tag, operation_id in declared}
    tags = {snake_case(tag) for tag in sources.contract.tags}
    for key, module in sources.modules.items():
        # Beside handlers, a module of no tag may hold coroutines of another kind.
        for name in module.coroutines if key in tags else module.replying:
            if (key, name) not in claimed:
                problem = f"`{name}` serves no operation of the contract"
                next_step = f"Delete it, make it private, or declare its operation under the tag of {module.file}"
                function = f"{module.name}.{name}"
                yield _unknown(Problem(Gap.ORPHAN_HANDLER, module.file, problem, next_step), function=function)


def _undeclared(sources: _Sources) -> Iterator[Row]:
    places = sources.places
    for place, route in sources.routes.items():
        if place not in places:
            problem = "the running relay has bound it and the contract does not declare it"
            next_step = "Find out what it is; install this checkout and restart the relay"
            subject = f"{route.method} {route.path}"
            yield _unknown(
                Problem(Gap.UNDECLARED_ROUTE, subject, problem, next_step),
                operation_id=route.operation_id,
                method=route.method,
                path=route.path,
                function=route.function,
            )


def _unknown(problem: Problem, **known: Any) -> Row:
    return Row(bucket=UNKNOWN, problems=(problem,), **known)


def _name(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"
