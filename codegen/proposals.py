"""
Reads the proposals of a checkout: the head of each file under `spec/proposals` says what it is about.

Not for: templates and the folder's own page, whose names are in `_NOT_PROPOSALS`. Reads, writes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jsonschema_rs

from codegen.exceptions import ContractError, UnreadableDocument
from codegen.reader import Document, parse_yaml

PROPOSALS = Path("spec/proposals")
_NOT_PROPOSALS = frozenset({"README.md", "TEMPLATE.md"})
_FENCE = b"---\n"


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    The head of one proposal.

    Args:
        file: Relative to the project's folder.
        operations: operationIds that it names.
        risk: What could be done with them: reads, writes, deletes, spends, mints.
    """

    file: str
    title: str
    operations: frozenset[str]
    risk: tuple[str, ...]


def read_proposals(folder: Path, schema: Document) -> tuple[list[Proposal], list[str]]:
    """
    Read all proposals of a folder.

    Args:
        folder: `spec/proposals`; it need not exist.
        schema: `spec/policy.schema.yaml`; its `$defs/proposal` says what the head holds.

    Returns:
        The proposals by file name, and what is wrong with the files that could not be read.
    """
    files = sorted(p for p in folder.iterdir() if p.name not in _NOT_PROPOSALS) if folder.is_dir() else []
    if not files:
        return [], []
    try:
        validator = jsonschema_rs.validator_for({**schema, "$ref": "#/$defs/proposal"})
    except (ValueError, jsonschema_rs.ReferencingError):
        return [], [f"{PROPOSALS}: spec/policy.schema.yaml must have `$defs/proposal`."]
    proposals: list[Proposal] = []
    problems: list[str] = []
    for path in files:
        try:
            proposals.append(_read(path, validator))
        except ContractError as error:
            problems.append(str(error))
    return proposals, problems


def naming(proposals: Iterable[Proposal]) -> Mapping[str, str]:
    """Which proposal names an operation: operationId to file."""
    return {operation: proposal.file for proposal in proposals for operation in sorted(proposal.operations)}


def _read(path: Path, validator: jsonschema_rs.Validator) -> Proposal:
    file = PROPOSALS / path.name
    if path.suffix != ".md" or not path.is_file():
        raise UnreadableDocument(f"{file}: must be a Markdown file; delete or rename it.")
    text = path.read_bytes().replace(b"\r\n", b"\n")
    start, fence, rest = text.partition(_FENCE)
    head, end, _ = rest.partition(b"\n" + _FENCE)
    if start or not fence or not end:
        raise UnreadableDocument(f"{file}: must begin with YAML between two lines `---`; see TEMPLATE.md.")
    fields = parse_yaml(head, file)
    for error in validator.iter_errors(fields):
        place = ".".join(str(part) for part in error.instance_path) or "the head"
        raise UnreadableDocument(f"{file}: `{place}` is wrong: {error.message} (see spec/policy.schema.yaml).")
    return Proposal(file.as_posix(), fields["title"], frozenset(fields["operations"]), tuple(fields["risk"]))
