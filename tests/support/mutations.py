"""
Single bad edits of a copied checkout, and what the command that owns them has to say about each.

Not for: which edits there are (`operation_mutations`, `document_mutations`, `actions_mutations`) or the command that
tries them all (`mutation_proof`).
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

from codegen import reader
from codegen.check import check
from codegen.contract import ACTIONS, FULL, Contract, read_contract
from codegen.findings import Finding
from codegen.lint import lint
from codegen.reader import Document, read_yaml
from codegen.render import GENERATED, stale
from tests.support.documents import ROOT
from tests.support.yaml_edits import rewritten

FOLDERS = (Path("spec"), Path("tests/policy_cases"))  # all that the commands read


class Command(StrEnum):
    """The command of `contract` that is asked after an edit."""

    CHECK = "check"
    LINT = "lint"
    RENDER_CHECK = "render --check"


@dataclass(frozen=True)
class Checkout:
    """
    A copy of what the commands read, to be edited.

    Args:
        full: The contract as it was copied, to choose operations from; likewise `actions`.
        files: What each file held when it was copied, by its place in the project.
    """

    root: Path
    full: Contract
    actions: Contract
    files: dict[Path, bytes] = field(repr=False)

    def change(self, name: str, change: Callable[[Document], object]) -> None:
        """Change the data of `openapi.full` or `openapi.actions`; the rest of its text stays."""
        path = self.root / "spec" / f"{name}.yaml"
        path.write_text(rewritten(path.read_text(encoding="utf-8"), read_yaml(path), change), encoding="utf-8")

    def rewrite(self, file: Path | str, change: Callable[[str], str]) -> None:
        """Change the text of a file."""
        path = self.root / file
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    def current(self) -> dict[Path, bytes]:
        """What its files hold now."""
        return _contents(self.root)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put everything back afterwards."""
        try:
            yield
        finally:
            now = self.current()
            for file in now.keys() - self.files.keys():
                (self.root / file).unlink()
            for file, content in self.files.items():
                if now.get(file) != content:
                    (self.root / file).write_bytes(content)


Edit = Callable[[Checkout], object]


@dataclass(frozen=True, slots=True)
class Mutation:
    """
    One bad edit.

    Args:
        name: What is wrong afterwards, in a few words.
        owner: The rule that must report it, as findings name it.
        command: The command that must find it.
        edit: The edit itself.
    """

    name: str
    owner: str
    command: Command
    edit: Edit


class Verdict(StrEnum):
    """What came of a mutation; only the first is good."""

    CAUGHT = "caught"
    ELSEWHERE = "caught by another rule alone"
    SURVIVED = "SURVIVED"
    UNCHANGED = "changes nothing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    A mutation and what came of it.

    Args:
        findings: Those of its owner when it was caught, otherwise all.
    """

    mutation: Mutation
    verdict: Verdict
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        found = ", ".join(f"{f.rule} {f.file}{f':{f.line}' if f.line else ''}" for f in self.findings[:1])
        more = f" and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
        verdict = "" if self.verdict is Verdict.CAUGHT else f"  ← {self.verdict}"
        return f"{self.mutation.name:<60} {self.mutation.owner:<23} {found or '-'}{more}{verdict}"


def mutations_of(command: Command, edits: Mapping[str, Mapping[str, Edit]]) -> tuple[Mutation, ...]:
    """
    The mutations of one command.

    Args:
        edits: Rule that owns it to name to edit.
    """
    return tuple(Mutation(name, owner, command, edit) for owner, owned in edits.items() for name, edit in owned.items())


def copy_checkout(folder: Path, source: Path = ROOT) -> Checkout:
    """
    Copy what the commands read.

    Args:
        folder: Where to; empty.
        source: The project's folder.
    """
    for part in FOLDERS:
        shutil.copytree(source / part, folder / part)
    return Checkout(folder, read_contract(folder, FULL), read_contract(folder, ACTIONS), _contents(folder))


@contextmanager
def parsed_once() -> Iterator[None]:
    """Parse a file that did not change only once: that is what takes the time, and no tool changes what it reads."""
    with patch.object(reader, "parse_yaml", lru_cache(maxsize=64)(reader.parse_yaml)):
        yield


def findings_of(command: Command, root: Path) -> list[Finding]:
    """What a command reports about a checkout."""
    match command:
        case Command.CHECK:
            return check(root)
        case Command.LINT:
            return lint(root)
        case Command.RENDER_CHECK:
            step = "Run `contract render`"
            return [
                Finding("generated-fresh", f"{GENERATED}/{name}", 0, name, "is stale", step) for name in stale(root)
            ]


def unmutated(checkout: Checkout) -> list[Finding]:
    """What any command reports about the checkout itself; the proof begins with nothing."""
    return [finding for command in Command for finding in findings_of(command, checkout.root)]


def outcome(mutation: Mutation, checkout: Checkout) -> Outcome:
    """Apply one mutation to the checkout, ask the command that owns it, and put everything back."""
    with checkout.restored():
        before = checkout.current()
        mutation.edit(checkout)
        if checkout.current() == before:
            return Outcome(mutation, Verdict.UNCHANGED)
        found = tuple(findings_of(mutation.command, checkout.root))
    owned = tuple(finding for finding in found if finding.rule == mutation.owner)
    if owned:
        return Outcome(mutation, Verdict.CAUGHT, owned)
    return Outcome(mutation, Verdict.ELSEWHERE if found else Verdict.SURVIVED, found)


def _contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
