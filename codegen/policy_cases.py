"""
Reads the policy cases: situations with requests and the verdict that the contract gives each of them.

Not for: whether they are enough or fit the contract (`codegen.case_rules`), nor whether the relay agrees, which a test
asks it. Reads `tests/policy_cases/*.yaml`, writes nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import yaml

from codegen.contract import Scope
from codegen.exceptions import UnreadableDocument
from codegen.reader import Document, read_yaml

CASES = Path("tests/policy_cases")
ALLOWED = "allowed"
_FILE_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\.yaml")


class Surface(StrEnum):
    """How the request of a case is made."""

    DIRECT = "direct"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """
    One request and its verdict.

    Args:
        file: Relative to the project's folder; its name says which situation it is about.
        line: Where the case begins in its file, from 1.
        index: Its place among the cases of its file, from 1.
        situation: The file's, in a sentence.
        scopes: Of the key that is sent along; empty means that none is sent.
        operation: operationId that the case is evidence for.
        method: As sent; the contract need not know it.
        path: As sent, values in place.
        body: JSON; `None` when there is none.
        verdict: `allowed`, or the `code` of the relay's error.
        why: A sentence where the verdict needs one.
    """

    file: str
    line: int
    index: int
    situation: str
    surface: Surface
    scopes: frozenset[Scope]
    operation: str
    method: str
    path: str
    query: Mapping[str, Any]
    body: Any
    verdict: str
    why: str

    @property
    def id(self) -> str:
        """Its name in reports, such as `team_reads_its_batches::3`."""
        return f"{Path(self.file).stem}::{self.index}"

    @property
    def allowed(self) -> bool:
        """Whether the operation is reached."""
        return self.verdict == ALLOWED


class CaseFiles:
    """
    The case files of a checkout.

    Args:
        root: The project's folder.
        schema: `spec/policy.schema.yaml`; its `$defs/cases` says what a file holds.
    """

    def __init__(self, root: Path, schema: Document) -> None:
        self._root = root
        self._validator = jsonschema_rs.validator_for({**schema, "$ref": "#/$defs/cases"})

    def __iter__(self) -> Iterator[Path]:
        """Whatever lies in the folder, sorted by name; nothing when the folder is missing."""
        folder = self._root / CASES
        return iter(sorted(p for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else ())

    def read(self, path: Path) -> list[PolicyCase]:
        """
        Read one file.

        Raises:
            UnreadableDocument: It cannot be read, is not what the schema asks for, or is not named after a situation.
        """
        if not _FILE_NAME.fullmatch(path.name):
            raise UnreadableDocument(f"{path}: its name must be a situation in snake_case, and end in `.yaml`.")
        document = read_yaml(path)
        lines = _Lines(path)
        try:
            orjson.dumps(document)
        except orjson.JSONEncodeError as unfit:  # keys such as `1` and `yes`, huge numbers
            raise UnreadableDocument(f"{path}: holds what JSON cannot hold ({unfit}); put it in quotes.") from None
        for error in self._validator.iter_errors(document):
            raise UnreadableDocument(f"{path}:{lines.of(error.instance_path)}: {_problem(error)}.")
        file = path.relative_to(self._root).as_posix()
        return [
            PolicyCase(
                file=file,
                line=lines.of(["cases", index]),
                index=index + 1,
                situation=document["situation"],
                surface=Surface(document["surface"]),
                scopes=frozenset(Scope(name) for name in document["scopes"]),
                operation=case["operation"],
                method=case["method"],
                path=case["path"],
                query=case.get("query", {}),
                body=case.get("body"),
                verdict=case["verdict"],
                why=case.get("why", ""),
            )
            for index, case in enumerate(document["cases"])
        ]


def read_policy_cases(root: Path) -> list[PolicyCase]:
    """
    Read all policy cases of a checkout.

    Args:
        root: The project's folder.

    Returns:
        The cases by file, in the order in which they are written.

    Raises:
        UnreadableDocument: A file is not what the schema asks for.
    """
    files = CaseFiles(root, read_yaml(root / "spec" / "policy.schema.yaml"))
    return [case for path in files for case in files.read(path)]


class _Lines:
    """The lines on which the parts of a YAML file begin."""

    def __init__(self, path: Path) -> None:
        self._root = yaml.compose(path.read_bytes(), Loader=yaml.CSafeLoader)

    def of(self, place: Sequence[str | int]) -> int:
        """The line of the innermost part of a place that the file has, from 1."""
        node, line = self._root, 1
        for part in place:
            if isinstance(node, yaml.SequenceNode):
                node = node.value[int(part)]
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                key, node = next((k, v) for k, v in node.value if k.value == part)
                line = key.start_mark.line + 1
        return line


def _problem(error: jsonschema_rs.ValidationError) -> str:
    place = ".".join(str(part) for part in error.instance_path)
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.Required(missing):
            return f"`{'.'.join([*filter(None, [place]), missing])}` must be given"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected):
            names = "`, `".join(unexpected)
            return f"`{names}` must not stand in {f'`{place}`' if place else 'a file of cases'}"
        case _:
            return f"`{place}` is wrong: {error.message}" if place else f"the file is wrong: {error.message}"
