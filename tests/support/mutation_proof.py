"""
Proves that the checks of the contract catch what they own: of the single bad edits that it tries, none may survive.

    scripts/mutation_proof [--list] [--only NAME]

Each edit is computed from the contract of this checkout and applied alone to a copy. The command of `contract` that
owns it must report it under the name of the rule that owns it; what only another rule reports counts as survived.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from typer import echo

from codegen.findings import to_text
from tests.support import actions_mutations, document_mutations, operation_mutations
from tests.support.mutations import Mutation, Verdict, copy_checkout, outcome, parsed_once, unmutated

MUTATIONS: tuple[Mutation, ...] = (
    *operation_mutations.MUTATIONS,
    *document_mutations.MUTATIONS,
    *actions_mutations.MUTATIONS,
)


def main(arguments: Sequence[str] | None = None, mutations: Iterable[Mutation] = MUTATIONS) -> int:
    """
    Run the command.

    Args:
        mutations: The edits to choose from.

    Returns:
        0 when each is caught by the rule that owns it, 1 otherwise, 2 when there is nothing to try.
    """
    options = _parser().parse_args(arguments)
    chosen = [mutation for mutation in mutations if options.only in {None, mutation.name}]
    if not chosen:
        echo(f"mutation_proof: {options.only!r} is not one of them; --list shows all.", err=True)
        return 2
    if options.list:
        for mutation in chosen:
            echo(f"{mutation.name:<60} {mutation.owner:<23} contract {mutation.command}")
        return 0
    started = time.perf_counter()
    survived = 0
    with tempfile.TemporaryDirectory() as folder, parsed_once():
        checkout = copy_checkout(Path(folder))
        if findings := unmutated(checkout):
            echo(f"mutation_proof: without any edit there must be no finding.\n{to_text(findings)}", err=True)
            return 2
        gc.freeze()  # what is kept need not be looked through at each collection: a third of the time
        for mutation in chosen:
            result = outcome(mutation, checkout)
            survived += result.verdict is not Verdict.CAUGHT
            echo(str(result))
    echo(f"\n{len({mutation.owner for mutation in chosen})} rules, {time.perf_counter() - started:.1f} s")
    echo(f"{len(chosen)} mutations, {survived} survived")
    return 1 if survived else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mutation_proof",
        description="Applies single bad edits to a copy of the contract, one at a time, and shows that each is caught "
        "by the rule that owns it.",
    )
    parser.add_argument("--only", metavar="NAME", help="try one edit")
    parser.add_argument("--list", action="store_true", help="try none; show name, rule and command of each")
    return parser


if __name__ == "__main__":
    sys.exit(main())
