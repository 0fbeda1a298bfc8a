"""
Proves that `contract drift` reports what upstream changes, rightly and nothing else, on copies of upstream's document.

    scripts/seeded_drift --document openapi.json

The document must be the one that `spec/upstream.lock.tsv` was pinned from. Changes (`seeded_plans`) are made to copies
of it, one at a time and then all together; the report must hold exactly what each of them is.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson
from typer import echo

from codegen.contract import read_contract
from codegen.drift import drift
from codegen.drift_report import Change
from codegen.looseness import read_looseness
from codegen.reader import Document, read_json, read_yaml
from tests.support.documents import ROOT
from tests.support.seeded_changes import Expected, Field, NoSuchOperation, Plan, Seed
from tests.support.seeded_plans import PLANS

MIN_SEEDS = 20


def seen(change: Change) -> Expected:
    """A change of a report, reduced to what a seed says about it."""
    suggestion = change.suggestion.verdict if change.suggestion else ""
    return Expected(change.kind, change.level, change.weight, change.operation.id, suggestion)


def differences(root: Path, document: Document, seeds: Iterable[Seed]) -> list[str]:
    """
    Make changes in a copy and compare the report with what they are.

    Args:
        root: The project's folder.

    Returns:
        What is missing in the report and what is too much, each in words; empty when it is right.
    """
    wanted: Counter[Expected] = Counter()
    copy = orjson.loads(orjson.dumps(document))
    for seed in seeds:
        seed.edit(copy)
        wanted.update(seed.expected)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upstream.json"
        path.write_bytes(orjson.dumps(copy))
        report = drift(root, path)
    found = Counter(seen(change) for change in report.changes)
    wrong = [f"not reported: {expected}" for expected in (wanted - found).elements()]
    wrong += [f"reported beside it: {expected}" for expected in (found - wanted).elements()]
    level = max((expected.level for expected in wanted), default=0)
    if report.exit_code != level:
        wrong.append(f"exit code {report.exit_code} instead of {int(level)}")
    return wrong


def planted(root: Path, document: Document, plans: Iterable[Plan]) -> tuple[list[Seed], list[str]]:
    """
    Find an operation of its own for each change.

    Returns:
        The changes, and the names of those for which the document and the contract have no operation.
    """
    contract = read_contract(root)
    looser = ((entry.operation_id, entry.difference) for entry in read_looseness(root, contract))
    field = Field(contract, document, looser)
    seeds: list[Seed] = []
    missing: list[str] = []
    for plan in plans:
        try:
            seeds.append(plan.seed(field))
        except NoSuchOperation:
            missing.append(plan.name)
    return seeds, missing


def main(arguments: Sequence[str] | None = None, root: Path = ROOT, plans: Sequence[Plan] = PLANS) -> int:
    """
    Run the command.

    Returns:
        0 when every report is right, 1 otherwise, 2 when the document is not the one that was pinned.
    """
    path: Path = _parser().parse_args(arguments).document
    document = read_json(path) if path.suffix == ".json" else read_yaml(path, aliases=True)
    if wrong := differences(root, document, ()):
        echo(f"seeded_drift: must be given the pinned document; {len(wrong)} changes, first {wrong[0]}", err=True)
        return 2
    seeds, missing = planted(root, document, plans)
    failed = len(missing)
    for name in missing:
        echo(f"{name:<52} no operation fits")
    for seed in seeds:
        wrong = differences(root, document, [seed])
        failed += bool(wrong)
        echo(f"{seed.name:<52} {', '.join(map(str, seed.expected)) or 'nothing'}")
        for line in wrong:
            echo(f"    {line}")
    together = differences(root, document, seeds)
    for line in together:
        echo(f"all together: {line}")
    echo(f"\nall together: {sum(len(seed.expected) for seed in seeds)} changes, {len(together)} wrong")
    echo(f"{len(seeds)} seeded changes, {failed} wrong")
    return 1 if failed or together or len(seeds) < MIN_SEEDS else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seeded_drift",
        description="Changes copies of an OpenAPI document of the OpenAI API and shows that contract drift reports "
        "each change rightly and nothing else.",
    )
    parser.add_argument(
        "--document", type=Path, required=True, help="the document that was pinned, OpenAPI as JSON or YAML"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
