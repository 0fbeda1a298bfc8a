"""
Holds a checkout's contract against every rule that can be proven from its documents alone.

Not for: the rules themselves (`codegen.document_rules`, `codegen.rules`, `codegen.case_rules`) or how findings look
(`codegen.findings`). Reads `spec/*.yaml`, `spec/upstream.lock.tsv` and the policy cases, writes nothing.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from codegen import case_rules
from codegen.contract import ACTIONS, FULL, Contract, build_contract
from codegen.document_rules import LOAD_RULES, ORDER_RULES, found_in, policy_fields
from codegen.exceptions import InvalidContract, UnreadableDocument
from codegen.findings import Finding, operation_lines
from codegen.pin import LOCK, read_lock
from codegen.policy_cases import CaseFiles, PolicyCase
from codegen.policy_fields import PolicyFields
from codegen.reader import Document, read_yaml
from codegen.rules import RULES, upstream_classified

POLICY_SCHEMA = "spec/policy.schema.yaml"


def check(root: Path) -> list[Finding]:
    """
    Hold both documents against the rules.

    Args:
        root: The project's folder.

    Returns:
        Sorted findings, empty when every rule holds. Rules of `codegen.rules` speak once both documents load; what
        keeps one from loading is itself a finding.
    """
    try:
        schema = read_yaml(root / POLICY_SCHEMA)
        PolicyFields(schema)
        case_files = CaseFiles(root, schema)
    except (UnreadableDocument, ValueError) as error:
        return [_unreadable(root, POLICY_SCHEMA, error)]
    (full_findings, full), (actions_findings, actions) = (_check_file(root, name, schema) for name in (FULL, ACTIONS))
    findings = [*full_findings, *actions_findings]
    if full and actions:
        findings += [finding for rule in RULES for finding in rule(full, actions)]
        findings += _upstream_findings(root, full)
        findings += _case_findings(root, full, case_files)
    return sorted(set(_with_lines(root, findings)))


def check_document(name: str, document: Document, schema: Document) -> tuple[list[Finding], Contract | None]:
    """
    Hold one document against the rules that it keeps by itself.

    Args:
        name: `openapi.full` or `openapi.actions`.
        schema: `spec/policy.schema.yaml`.

    Returns:
        Findings without lines, and the typed model unless they keep it from loading.
    """
    order = [finding for rule in ORDER_RULES for finding in rule(name, document)]
    wrong = [finding for rule in LOAD_RULES for finding in rule(name, document)]
    contract = None
    try:
        contract = build_contract(name, document, policy_schema=schema)
    except InvalidContract as error:
        wrong += policy_fields(name, document, schema)
        wrong += _still_unexplained(name, error, {finding.subject for finding in wrong})
    return order + wrong, None if wrong else contract


def _check_file(root: Path, name: str, schema: Document) -> tuple[list[Finding], Contract | None]:
    file = f"spec/{name}.yaml"
    try:
        return check_document(name, read_yaml(root / file), schema)
    except UnreadableDocument as error:
        return [_unreadable(root, file, error)], None


def _still_unexplained(name: str, error: InvalidContract, explained: set[str]) -> Iterator[Finding]:
    """What the model refuses in places where no rule found anything, or anywhere when none did."""
    for message in error.findings:
        text = message.removeprefix(f"spec/{name}.yaml: ").rstrip(".")
        operation = re.match(r"([A-Z]+ /\S*): ", text)
        subject, text = (operation[1], text[operation.end() :]) if operation else ("the document", text)
        if subject not in explained and (operation or not explained):
            problem, _, next_step = text.rpartition("; ")
            next_step = next_step or "compare with a neighbour that works"
            yield found_in(name, "document-loads", subject, problem or text, next_step[0].upper() + next_step[1:])


def _upstream_findings(root: Path, contract: Contract) -> list[Finding]:
    try:
        return list(upstream_classified(contract, read_lock(root / LOCK).values()))
    except UnreadableDocument as error:
        return [replace(_unreadable(root, LOCK.as_posix(), error), rule="upstream-classified")]


def _case_findings(root: Path, contract: Contract, files: CaseFiles) -> list[Finding]:
    cases: list[PolicyCase] = []
    unreadable: list[Finding] = []
    for path in files:
        try:
            cases += files.read(path)
        except UnreadableDocument as error:
            finding = _unreadable(root, path.relative_to(root).as_posix(), error)
            unreadable.append(replace(finding, rule=case_rules.RULE))
    # What cannot be read may hold the case that seems to be missing.
    missing = [] if unreadable else case_rules.proxy_cases(contract, cases)
    return [*unreadable, *missing, *case_rules.cases_fit(contract, cases)]


def _unreadable(root: Path, file: str, error: Exception) -> Finding:
    text = " ".join(str(error).removeprefix(str(root / file)).split()).rstrip(".")
    numbers: list[tuple[str, str]] = re.findall(r"^:(\d+): |\bline (\d+)", text)
    # YAML's own messages name where the block began before where it went wrong.
    line = int("".join(numbers[-1])) if numbers else 0
    problem = re.sub(r"^(:\d+)?: ", "", text)
    return Finding("document-loads", file, line, "the file", problem, "Correct the file and check again")


def _with_lines(root: Path, findings: Sequence[Finding]) -> Iterator[Finding]:
    lookups: dict[str, Callable[[str], int]] = {}
    for finding in findings:
        if finding.line or finding.subject == "the file":
            yield finding
        else:
            if finding.file not in lookups:
                lookups[finding.file] = _line_lookup(root / finding.file)
            yield replace(finding, line=lookups[finding.file](finding.subject))


def _line_lookup(path: Path) -> Callable[[str], int]:
    """A function from a finding's subject to its line; 0 for what stands nowhere as such."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        key = (
            "\t".join(line.split("\t")[:2]) if "\t" in line else line.strip().removesuffix(":").removeprefix("- name: ")
        )
        first.setdefault(key, number)
    operations = {
        f"{method.upper()} {place}": number
        for (place, method), number in operation_lines(text, _paths_of(lines)).items()
    }

    version = next((number for number, line in enumerate(lines, 1) if line.startswith("  version:")), 0)

    def line_of(subject: str) -> int:
        if subject in operations:
            return operations[subject]
        if subject == "info version":  # `version` is also the name of a parameter
            return version
        kind, _, rest = subject.partition(" ")
        return next((first[key] for key in (f"{kind}\t{rest}", rest or kind, kind) if key in first), 0)

    return line_of


def _paths_of(lines: Sequence[str]) -> Document:
    """The path keys of a text, for `operation_lines`, which only tells lines of known paths."""
    return {"paths": {line.strip().removesuffix(":"): {} for line in lines if line.startswith("  /")}}
