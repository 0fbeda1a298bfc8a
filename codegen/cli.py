"""The command `contract`: parses arguments, calls one function, prints. Works on the checkout in the current folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from codegen.exceptions import ContractError
from codegen.render import GENERATED, stale, write

app = typer.Typer(
    help="Tools for the contract in spec/. They work on the checkout in the current folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keep `contract` a group of commands."""


@app.command("render")
def render_command(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a generated file is stale.")] = False,
) -> None:
    """
    Write spec/generated from the hand-written contract.

    Exit codes: 0 done or up to date, 1 stale (with --check), 2 the contract cannot be read or breaks its rules.
    """
    root = Path.cwd()
    if not check:
        for name in write(root):
            typer.echo(f"wrote {GENERATED / name}")
        return
    diffs = stale(root)
    for diff in diffs.values():
        typer.echo(diff, nl=False)
    if diffs:
        typer.echo(f"stale: {', '.join(sorted(diffs))}. Run `contract render` and commit the result.", err=True)
        raise typer.Exit(1)
    typer.echo("spec/generated is up to date")


def main() -> None:
    """Run the command; errors of the contract end it with exit code 2 and no traceback."""
    try:
        app()
    except ContractError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
