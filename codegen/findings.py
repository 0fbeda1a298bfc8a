"""
What a check has to say: one finding per place, grouped by rule, as text for people or as annotations for GitHub.

Not for: deciding anything. A check computes findings, this module only shows them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from codegen.contract import METHODS
from codegen.reader import Document


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """
    One place that breaks one rule.

    Args:
        rule: The rule's name, as in GOVERNANCE.md.
        file: Relative to the project's folder.
        line: From 1; 0 when the finding is about the whole file.
        subject: The operation (`METHOD /path`) or the part of the document.
        problem: What is wrong, without a full stop.
        next_step: What to do about it, without a full stop.
    """

    rule: str
    file: str
    line: int
    subject: str
    problem: str
    next_step: str


def to_text(findings: Iterable[Finding]) -> str:
    """
    Show findings to people.

    Returns:
        Rules in alphabetical order, each with its places in the order of the files; empty without findings.
    """
    lines: list[str] = []
    for rule, group in groupby(sorted(findings), key=lambda finding: finding.rule):
        lines.append(rule)
        for finding in group:
            lines.append(f"  {_place(finding)}: {finding.subject}")
            lines.append(f"    {finding.problem}. {finding.next_step}.")
    return "".join(f"{line}\n" for line in lines)


def to_github(findings: Iterable[Finding]) -> str:
    """
    Show findings as GitHub's workflow commands, which annotate the lines of a pull request.

    Returns:
        One `::error …` line per finding.
    """
    return "".join(
        f"::error file={_property(f.file)},line={max(f.line, 1)},title={_property(f.rule)}::"
        f"{_data(f'{f.subject}: {f.problem}. {f.next_step}.')}\n"
        for f in sorted(findings)
    )


def operation_lines(text: str, document: Document) -> dict[tuple[str, str], int]:
    """
    Find the line on which each operation of a hand-written document begins.

    Args:
        text: The YAML text of the document, in this project's form: paths indented by two blanks, methods by four.

    Returns:
        `(path, method in lower case)` to the line of the method's key, from 1.
    """
    lines: dict[tuple[str, str], int] = {}
    path = ""
    keys = {f"    {method}:" for method in METHODS}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if line.startswith("  /") and stripped.endswith(":"):
            path = stripped[:-1]
        elif line in keys and path in document.get("paths", {}):
            lines.setdefault((path, stripped[:-1]), number)
    return lines


def _place(finding: Finding) -> str:
    return f"{finding.file}:{finding.line}" if finding.line else finding.file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
