"""
Decides whether a contract diff may pass: by its version, the proxy's reviews and cases, and proposals.

Not for: finding changes (`codegen.contract_diff`) or the rules of the scope (`codegen.change_scope`).
"""

from collections.abc import Iterator

from codegen.case_rules import proxy_cases
from codegen.change_scope import outside
from codegen.changes import name_of
from codegen.contract import Bucket, Operation
from codegen.contract_diff import ContractDiff
from codegen.exceptions import InvalidContract
from codegen.findings import Finding
from codegen.proposals import PROPOSALS, naming
from codegen.semver import Level, Version, read_version

VERSION_SAYS_SO = "version-says-so"
ONE_VERSION = "one-version"
PROXY_REVIEWED = "proxy-reviewed"
PROPOSAL_GIVEN = "proposal-given"
EVIDENCE_READABLE = "evidence-readable"
_FULL = "spec/openapi.full.yaml"
_ACTIONS = "spec/openapi.actions.yaml"


def gate(diff: ContractDiff) -> list[Finding]:
    """
    Hold a diff against sections 8 to 10 of GOVERNANCE.md.

    Returns:
        What keeps it from passing, sorted; empty when it passes.
    """
    rules = (_version, _one_version, _reviewed, _shown, _proposed, _readable)
    return sorted({finding for rule in rules for finding in rule(diff)})


def needed_version(diff: ContractDiff) -> Version | None:
    """The lowest version that HEAD may have; `None` when BASE has none that can be read."""
    try:
        return read_version(diff.base.full.version, _FULL).raised(diff.level)
    except InvalidContract:
        return None


def _version(diff: ContractDiff) -> Iterator[Finding]:
    needed = needed_version(diff)
    if needed is None:
        problem = "BASE has no version of three numbers"
        yield Finding(VERSION_SAYS_SO, _FULL, 0, "info.version", problem, "Compare with a revision that has one")
        return
    try:
        version = read_version(diff.head.full.version, _FULL)
    except InvalidContract:
        problem = "must be three numbers such as 1.2.0"
        yield Finding(VERSION_SAYS_SO, _FULL, 0, "info.version", problem, f"Write {needed}")
        return
    if version < needed:
        fallen = diff.level is Level.NONE
        words = "nothing has changed, and it must not fall" if fallen else f"the changes are {diff.level.label}"
        problem = f"is {version} after {diff.base.full.version}, but {words}"
        step = f"Write {needed} in both documents and in pyproject.toml"
        yield Finding(VERSION_SAYS_SO, _FULL, 0, "info.version", problem, step)


def _one_version(diff: ContractDiff) -> Iterator[Finding]:
    full, actions = diff.head.full.version, diff.head.actions.version
    if full != actions:
        problem = f"is {actions} here and {full} in the full document"
        yield Finding(ONE_VERSION, _ACTIONS, 0, "info.version", problem, "Write the same version in both")


def _newly_proxied(diff: ContractDiff) -> list[Operation]:
    proxied = {pair.new.id for pair in diff.full.kept if pair.old.bucket is Bucket.PROXY_HARNESS}
    return [o for o in diff.full.new if o.bucket is Bucket.PROXY_HARNESS and o.id not in proxied]


def _reviewed(diff: ContractDiff) -> Iterator[Finding]:
    for operation in _newly_proxied(diff):
        if operation.review not in diff.head.full.reviews:
            problem = f"`{operation.id}` is new to the proxy and names no review"
            step = "Add x-policy-review with the name of a record in x-policy-reviews"
            yield Finding(PROXY_REVIEWED, _FULL, 0, name_of(operation), problem, step)


def _shown(diff: ContractDiff) -> Iterator[Finding]:
    fresh = {name_of(operation) for operation in _newly_proxied(diff)}
    for finding in proxy_cases(diff.head.full, diff.head.cases):
        if finding.subject in fresh:
            yield finding


def _proposed(diff: ContractDiff) -> Iterator[Finding]:
    proposed = naming(diff.head.proposals)
    for found in outside(diff):
        if found.operation in proposed:
            continue
        step = f"Merge a proposal under {PROPOSALS}/ that names {found.operation}, or take a narrower change"
        if not found.operation:
            step = f"Add it together with the operation that needs it, named by a proposal under {PROPOSALS}/"
        yield Finding(PROPOSAL_GIVEN, _FULL, 0, found.subject, found.problem, step)


def _readable(diff: ContractDiff) -> Iterator[Finding]:
    for problem in diff.head.problems:
        step = "Correct the file; until then nothing counts that it says"
        yield Finding(EVIDENCE_READABLE, "spec", 0, "cases and proposals", problem.rstrip("."), step)
