"""
Runs the fuzz tests with a larger budget: more examples per operation, and one seed after the other while time is left.

    scripts/fuzz [--max-examples 100] [--seconds 3600] [--seed 1]
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from typer import echo


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        0 when every run was green, else pytest's exit code of the first that was not.
    """
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Runs the fuzz tests with generated requests of one seed after the other."
    )
    parser.add_argument("--max-examples", type=int, default=100, help="per operation (default 100)")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no run later than this (default: one run)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next (default 1)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    seed = options.seed
    while True:
        echo(f"fuzz: seed {seed}, {options.max_examples} examples per operation")
        budget = {"FUZZ_SEED": str(seed), "FUZZ_MAX_EXAMPLES": str(options.max_examples)}
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "fuzz", "-q"], env={**os.environ, **budget}, check=False
        )
        if run.returncode:
            echo(f"fuzz: failed; again with --seed {seed} --max-examples {options.max_examples}")
            return run.returncode
        seed += 1
        if time.monotonic() - began >= options.seconds:
            echo(f"fuzz: {seed - options.seed} runs, all green")
            return 0


if __name__ == "__main__":
    sys.exit(main())
