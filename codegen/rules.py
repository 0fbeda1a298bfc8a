"""
Rules of the policy that need the typed model: what holds between operations, between both documents and with upstream.

Not for: what one document shows as plain data (`codegen.document_rules`), the importers' limits, whether examples fit.
Names are those of GOVERNANCE.md, section 5. Findings carry no lines; `codegen.check` adds those.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import date

from codegen.contract import EVENT_STREAM, JSON, METHODS, TOKEN_SCHEME, Bucket, Contract, Operation, Scope
from codegen.document_rules import found_in
from codegen.findings import Finding
from codegen.naming import importer_name
from codegen.pin import LOCK
from codegen.publication import published_document
from codegen.upstream import UpstreamOperation

WRAPPERS = "/v1/actions/"
ASSISTANT_SCOPES = frozenset({Scope.ACTIONS, Scope.PROXY})  # what people may let an assistant do by signing in
Rule = Callable[[Contract, Contract], Iterator[Finding]]


def actions_match(full: Contract, actions: Contract) -> Iterator[Finding]:
    """ACTIONS_DIRECT operations and those of the Actions document are the same, with the same method and path."""
    rule = "actions-match"
    ours = {(importer_name(o.id), o.method, o.path): o for o in full if o.bucket is Bucket.ACTIONS_DIRECT}
    theirs = {(o.id, o.method, o.path): o for o in actions}
    for key, operation in ours.items():
        if key not in theirs:
            problem = f"`{operation.id}` is ACTIONS_DIRECT and not in the Actions document under this place"
            yield _about(full, rule, operation, problem, f"Write it in spec/{actions.name}.yaml or change its bucket")
    for key, operation in theirs.items():
        if key not in ours:
            problem = f"`{operation.id}` is not ACTIONS_DIRECT in spec/{full.name}.yaml under this place"
            yield _about(actions, rule, operation, problem, "Delete it here or change its bucket there")
        elif operation.bucket is not Bucket.ACTIONS_DIRECT:
            yield _about(actions, rule, operation, "its bucket must be ACTIONS_DIRECT", "Correct it")


def actions_scope(full: Contract, actions: Contract) -> Iterator[Finding]:
    """The scope `actions` opens exactly the ACTIONS_DIRECT operations, in both documents; the proxy keeps its own."""
    rule = "actions-scope"
    for operation in _uncarrying(full):
        direct = operation.bucket is Bucket.ACTIONS_DIRECT and Scope.PROXY not in operation.scopes
        if (Scope.ACTIONS in operation.scopes) is not direct:
            problem = "the scope `actions` must stand on ACTIONS_DIRECT operations and on no other"
            yield _about(full, rule, operation, problem, "Correct `security` or the bucket")
    for operation in actions:
        if operation.scopes not in ({Scope.ACTIONS}, {Scope.PROXY}):
            problem = "operations of the Actions document must open to the scope `actions` alone, the proxy to `proxy`"
            yield _about(actions, rule, operation, problem, "Correct `security`")


def proxy_alone(full: Contract, actions: Contract) -> Iterator[Finding]:
    """The scope `proxy` opens one operation of the relay's own and nothing else opens that."""
    for contract in (full, actions):
        for operation in _uncarrying(contract):
            if Scope.PROXY in operation.scopes and (operation.scopes != {Scope.PROXY} or operation.mirrored):
                problem = "what the scope `proxy` opens must be the relay's own and open to nothing else"
                yield _about(contract, "proxy-alone", operation, problem, "Correct `security`")
        opened = [operation for operation in _uncarrying(contract) if Scope.PROXY in operation.scopes]
        for operation in opened[1:]:
            problem = f"the scope `proxy` already opens `{opened[0].id}`"
            yield _about(contract, "proxy-alone", operation, problem, "Give it another scope")


def carrier_as_carried(full: Contract, actions: Contract) -> Iterator[Finding]:
    """What carries operations of a bucket is ours and opens to exactly their scopes; it alone takes access tokens."""
    rule = "carrier-as-carried"
    for operation in full:
        if operation.carries:
            scopes = frozenset[Scope]().union(*(o.scopes for o in full if o.bucket is operation.carries))
            if operation.scopes != scopes or operation.mirrored:
                problem = f"must be the relay's own and open to exactly {', '.join(sorted(scopes))}, as what it carries"
                yield _about(full, rule, operation, problem, "Correct `security` or `tags`")
            strange = operation.token_scopes - ASSISTANT_SCOPES
            if strange:
                problem = f"an access token must not bring the scope {', '.join(sorted(strange))}"
                yield _about(full, rule, operation, problem, f"Delete it from `{TOKEN_SCHEME}`")
        elif operation.token_scopes:
            problem = "only an operation that carries others takes access tokens"
            yield _about(full, rule, operation, problem, f"Delete `{TOKEN_SCHEME}` from its `security`")
    for operation in actions:
        if operation.carries or operation.token_scopes:
            problem = "nothing in the Actions document carries others or takes access tokens"
            yield _about(actions, rule, operation, problem, "Correct `x-policy-carries` and `security`")


def canonical_kept(full: Contract, _: Contract) -> Iterator[Finding]:
    """Every mirrored operation, whatever its bucket, opens to the scope `canonical`: none is lost to the SDK."""
    for operation in full:
        if operation.mirrored and Scope.CANONICAL not in operation.scopes:
            problem = "an operation of upstream must open to the scope `canonical`"
            yield _about(full, "canonical-kept", operation, problem, "Add the scope to its `security` or delete that")


def proxy_json_only(full: Contract, _: Contract) -> Iterator[Finding]:
    """PROXY_HARNESS operations carry no multipart, no custom verb, no content, no binary and no stream without JSON."""
    for operation in full:
        obstacles = {
            "a multipart body": operation.multipart,
            "a body that is not JSON": not operation.multipart and not operation.request_media <= {JSON},
            "a custom verb in the path": operation.colon_path,
            "raw content": operation.content_path,
            "a stream alone": operation.streaming_only,
            "a reply that is not JSON": not operation.response_media <= {JSON, EVENT_STREAM},
        }
        if operation.bucket is Bucket.PROXY_HARNESS and any(obstacles.values()):
            problem = f"the JSON proxy cannot carry {', '.join(name for name, stands in obstacles.items() if stands)}"
            next_step = "Make it WRAPPER_REQUIRED or EXCLUDED with the reason"
            yield _about(full, "proxy-json-only", operation, problem, next_step)


def proxy_reviewed(full: Contract, actions: Contract) -> Iterator[Finding]:
    """Every record of a review is used by some operation, and its day exists."""
    for contract in (full, actions):
        used = {operation.review for operation in contract}
        for review in contract.reviews.values():
            where = f"x-policy-reviews {review.name}"
            if review.name not in used:
                yield found_in(contract.name, "proxy-reviewed", where, "no operation names this review", "Delete it")
            if not _is_day(review.since):
                problem = f"`since` must be a day, and {review.since} is none"
                yield found_in(contract.name, "proxy-reviewed", where, problem, "Correct it")


def wrapper_kept_out(full: Contract, actions: Contract) -> Iterator[Finding]:
    """WRAPPER_REQUIRED operations stand in no Actions document and carry no review that would let the proxy in."""
    for operation in full:
        if operation.bucket is Bucket.WRAPPER_REQUIRED and (
            importer_name(operation.id) in actions.operations or operation.review
        ):
            problem = "WRAPPER_REQUIRED must be neither in the Actions document nor open to the proxy"
            yield _about(full, "wrapper-kept-out", operation, problem, "Leave it to a wrapper or change its bucket")


def wrapper_links(full: Contract, _: Contract) -> Iterator[Finding]:
    """A wrapper takes and gives JSON; it and what it wraps name each other, and both exist."""
    next_step = "Correct `x-policy-wrapper` there and `x-policy-wraps` here so that both name each other"
    for operation in full:
        wrapper = full.operations.get(operation.wrapper)
        if operation.wrapper and (wrapper is None or operation.id not in wrapper.wraps or wrapper.mirrored):
            problem = f"`{operation.wrapper}` must be an operation of the relay that wraps `{operation.id}`"
            yield _about(full, "wrapper-links", operation, problem, "Correct `x-policy-wrapper` or write the wrapper")
        if operation.wraps and not operation.json_only:
            yield _about(
                full, "wrapper-links", operation, "a wrapper must take and give JSON alone", "Correct its media"
            )
        for name in operation.wraps:
            wrapped = full.operations.get(name)
            if wrapped is None or wrapped.wrapper != operation.id:
                problem = f"`{name}` must be an operation that names `{operation.id}` as its wrapper"
                yield _about(full, "wrapper-links", operation, problem, next_step)


def wrappers_in_place(full: Contract, _: Contract) -> Iterator[Finding]:
    """What lies under `/v1/actions/` is a wrapper, and wrappers lie there."""
    for operation in full:
        if operation.path.startswith(WRAPPERS) is not bool(operation.wraps):
            problem = f"an operation under `{WRAPPERS}` must wrap others, and one that wraps others must lie there"
            yield _about(full, "wrappers-in-place", operation, problem, "Correct `x-policy-wraps` or the path")


def internal_unpublished(full: Contract, actions: Contract) -> Iterator[Finding]:
    """Internal operations need the scope `operator`, are not upstream's and stand in no published document."""
    published = {
        node["operationId"]
        for item in published_document(full)["paths"].values()
        for method, node in item.items()
        if method in METHODS
    }
    for operation in full:
        if operation.published:
            continue
        if operation.id in published or importer_name(operation.id) in actions.operations:
            problem = "an internal operation must be in no published document"
            yield _about(full, "internal-unpublished", operation, problem, f"Delete it in spec/{actions.name}.yaml")
        if operation.scopes != {Scope.OPERATOR} or operation.mirrored:
            problem = "an internal operation must be the relay's own and open to the scope `operator` alone"
            yield _about(full, "internal-unpublished", operation, problem, "Correct `security` or `tags`")


def operator_alone(full: Contract, actions: Contract) -> Iterator[Finding]:
    """The scope `operator` opens internal operations and nothing else."""
    for contract in (full, actions):
        for operation in contract:
            if Scope.OPERATOR in operation.scopes and operation.published:
                problem = "the scope `operator` must open internal operations only"
                yield _about(contract, "operator-alone", operation, problem, "Correct `security` or the exclusion")


def open_reads_only(full: Contract, _: Contract) -> Iterator[Finding]:
    """An operation that needs no key is the relay's own, only reads, and lies outside the canonical surface."""
    for operation in full:
        if operation.open and (operation.mirrored or operation.method != "GET" or operation.path.startswith("/v1/")):
            problem = "an operation without a key must be the relay's own, a GET, and outside `/v1/`"
            yield _about(full, "open-reads-only", operation, problem, "Delete `security: []` or name a scope")


def deprecated_with_sunset(full: Contract, actions: Contract) -> Iterator[Finding]:
    """A deprecated operation says when it ends, and the day exists."""
    for contract in (full, actions):
        for operation in contract:
            if operation.deprecated != bool(operation.sunset and _is_day(operation.sunset)):
                problem = "`deprecated: true` and an `x-sunset` with a day that exists must stand together"
                yield _about(contract, "deprecated-with-sunset", operation, problem, "Write both or neither")


def unsupported_bare(full: Contract, _: Contract) -> Iterator[Finding]:
    """Unsupported operations stay short: no summary, no body, no parameters of their own."""
    for operation in full:
        if not operation.served and (operation.body or operation.parameters_in("query") or operation.summary):
            problem = "an unsupported operation must have no summary, no body and no query parameters"
            yield _about(full, "unsupported-bare", operation, problem, "Delete them")


def one_version(full: Contract, actions: Contract) -> Iterator[Finding]:
    """Both documents carry one version."""
    if full.version != actions.version:
        problem = f"{actions.version} must be {full.version}, the version of spec/{full.name}.yaml"
        yield found_in(actions.name, "one-version", "info version", problem, "Raise both in one commit")


RULES: tuple[Rule, ...] = (
    actions_match,
    actions_scope,
    carrier_as_carried,
    canonical_kept,
    proxy_json_only,
    proxy_reviewed,
    wrapper_kept_out,
    wrapper_links,
    wrappers_in_place,
    proxy_alone,
    internal_unpublished,
    operator_alone,
    open_reads_only,
    deprecated_with_sunset,
    unsupported_bare,
    one_version,
)


def upstream_classified(full: Contract, upstream: Iterable[UpstreamOperation]) -> Iterator[Finding]:
    """Contract and inventory name the same operations; a variant with `?beta=true` is its plain operation."""
    by_place = {(operation.path, operation.method): operation for operation in full}
    pinned = {operation.place: operation for operation in upstream}
    for line in pinned.values():
        operation = by_place.get(line.plain_place)
        if line.plain_place not in pinned:
            yield _unlisted(line, "has no plain line beside it", "Restore the line without the query")
        if operation is None:
            yield _unlisted(line, "is not in the contract", f"Classify it in spec/{full.name}.yaml")
        else:
            for problem, next_step in _differences(operation, line):
                yield _about(full, "upstream-classified", operation, problem, next_step)
    for operation in full:
        if operation.mirrored and not operation.colon_path and (operation.path, operation.method) not in pinned:
            problem = "is mirrored and not upstream's"
            next_step = "Give it a tag of the relay's own, delete it, or pin an upstream that has it"
            yield _about(full, "upstream-classified", operation, problem, next_step)


def _differences(operation: Operation, line: UpstreamOperation) -> Iterator[tuple[str, str]]:
    plain_id = line.id.removeprefix("beta_") if line.variant else line.id
    if operation.id != plain_id:
        yield f"is {operation.id} in the contract and {plain_id} upstream", "Write upstream's operationId"
    if not operation.mirrored:
        yield "is not under a mirrored tag", "Give it a tag with `x-policy-mirrored`"
    if operation.served and operation.request_media != frozenset(line.request_media):
        problem = f"takes {sorted(operation.request_media)}, upstream takes {sorted(line.request_media)}"
        yield problem, "Write the media types of upstream"
    # Ours may list more, where upstream's document leaves some out, and it calls the content of a file JSON.
    unlisted = set(line.response_media) - operation.response_media
    if operation.served and unlisted and not operation.content_path:
        yield f"does not list the reply {sorted(unlisted)} of upstream", "Write the media types of upstream"
    if line.deprecated and not operation.deprecated:
        yield "is deprecated upstream", "Add `deprecated: true` and `x-sunset`"


def _uncarrying(contract: Contract) -> Iterator[Operation]:
    return (operation for operation in contract if not operation.carries)


def _about(contract: Contract, rule: str, operation: Operation, problem: str, next_step: str) -> Finding:
    return found_in(contract.name, rule, f"{operation.method} {operation.path}", problem, next_step)


def _unlisted(line: UpstreamOperation, problem: str, next_step: str) -> Finding:
    return Finding("upstream-classified", LOCK.as_posix(), 0, line.name, problem, next_step)


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
