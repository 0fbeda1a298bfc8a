"""The command `contract`: parses arguments, calls one function, prints. Works on the checkout in the current folder."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from codegen.check import check
from codegen.contract_diff import compare
from codegen.diff_gate import gate
from codegen.diff_report import Report
from codegen.drift import drift
from codegen.exceptions import ContractError
from codegen.findings import Finding, to_github, to_text
from codegen.importable_document import OPTION, importable_document
from codegen.lint import lint
from codegen.pin import LOCK, pin
from codegen.render import GENERATED, stale, write
from codegen.revision import read_side

app = typer.Typer(
    help="Tools for the contract in spec/. They work on the checkout in the current folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class FindingsFormat(StrEnum):
    """How findings are shown."""

    TEXT = "text"
    GITHUB = "github"


class ReportFormat(StrEnum):
    """How a report is shown."""

    MARKDOWN = "markdown"
    JSON = "json"


Format = Annotated[
    FindingsFormat, typer.Option("--format", help="For people, or as annotations of a pull request on GitHub.")
]
UpstreamDocument = Annotated[
    Path, typer.Argument(help="An OpenAPI document of the OpenAI API, JSON or YAML.", show_default=False)
]


@app.command("check")
def check_command(output: Format = FindingsFormat.TEXT) -> None:
    """
    Hold both documents against the rules of GOVERNANCE.md.

    Exit codes: 0 nothing found, 1 findings, 2 a file cannot be read.
    """
    _show(check(Path.cwd()), output, "the contract keeps its rules")


@app.command("lint")
def lint_command(output: Format = FindingsFormat.TEXT) -> None:
    """
    Hold the Actions document against what importers of assistants are known to accept.

    Exit codes: 0 nothing found, 1 findings, 2 a file cannot be read.
    """
    _show(lint(Path.cwd()), output, "the Actions document fits the importers")


@app.command("coverage")
def coverage_command(
    url: Annotated[
        str | None,
        typer.Option("--url", help="Compare the routes of the relay at this address too.", show_default=False),
    ] = None,
    output: Annotated[ReportFormat, typer.Option("--format", help="For people or for programs.")] = (
        ReportFormat.MARKDOWN
    ),
) -> None:
    """
    Show for every operation of the contract, the code and the upstream lock who covers it: bucket, function, tests.

    With --url, the variable RELAY_OPERATOR_KEY must hold a key of that relay with the scope `operator`.

    Exit codes: 0 all is covered, 2 something is not, 3 a file cannot be read or the relay cannot be asked.
    """
    from codegen.coverage import coverage  # an HTTP client, which no other command needs, takes half of their start
    from codegen.running_relay import KEY_VARIABLE

    try:
        found = coverage(Path.cwd(), url, os.environ.get(KEY_VARIABLE, ""))
    except ContractError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(3) from None
    typer.echo(found.to_markdown() if output is ReportFormat.MARKDOWN else found.to_json())
    raise typer.Exit(found.exit_code)


@app.command("render")
def render_command(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a generated file is stale.")] = False,
    public_url: Annotated[
        str | None,
        typer.Option(
            OPTION, help="Print the Actions document for the relay at this https address.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="With --public-url: write it to this .json or .yaml file.", show_default=False),
    ] = None,
) -> None:
    """
    Write spec/generated from the hand-written contract; with --public-url leave it alone and print what to import.

    Exit codes: 0 done or up to date, 1 stale (with --check), 2 the contract cannot be read or breaks its rules, or
    importers would refuse the address.
    """
    root = Path.cwd()
    if output is not None and public_url is None:
        raise ContractError(f"--output: goes with {OPTION}; spec/generated has its place.")
    if public_url is not None:
        if check:
            raise ContractError(f"--check: is about spec/generated, which {OPTION} leaves alone; use one of them.")
        content = importable_document(root, public_url, output.suffix if output else ".json")
        if output is None:
            typer.echo(content, nl=False)
        else:
            try:
                output.write_text(content, encoding="utf-8")
            except OSError as error:
                raise ContractError(f"{output}: cannot be written: {error.strerror}.") from None
            typer.echo(f"wrote {output}")
        return
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


@app.command("pin")
def pin_command(document: UpstreamDocument) -> None:
    """
    Write spec/upstream.lock.tsv, the inventory of the upstream's operations, from an OpenAPI document.

    Look at `contract drift` first: it says what the newer document changes.
    Exit codes: 0 done, 2 the document cannot be read; the lock file is then unchanged.
    """
    text = pin(document)
    path = Path.cwd() / LOCK
    if not path.parent.is_dir():
        raise ContractError(f"{path.parent}: is not there. Run this in the project's folder.")
    path.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {LOCK}: {len(text.splitlines()) - 1} operations")


@app.command("drift")
def drift_command(
    document: UpstreamDocument,
    output: Annotated[ReportFormat, typer.Option("--format", help="For people or for programs.")] = (
        ReportFormat.MARKDOWN
    ),
) -> None:
    """
    Compare a newer OpenAPI document of the upstream with the pinned inventory and the contract. Changes nothing.

    Exit codes: 0 nothing changed, 1 something to look at, 2 something breaks a served operation, 3 a file cannot be
    read.
    """
    try:
        found = drift(Path.cwd(), document)
    except ContractError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(3) from None
    typer.echo(found.to_markdown() if output is ReportFormat.MARKDOWN else found.to_json())
    raise typer.Exit(found.exit_code)


@app.command("diff")
def diff_command(
    base: Annotated[
        str,
        typer.Argument(help="A git revision, a folder, or one of the two documents.", show_default=False),
    ],
    head: Annotated[
        str | None, typer.Argument(help="The same; the working tree unless given.", show_default=False)
    ] = None,
    output: Annotated[ReportFormat, typer.Option("--format", help="For people or for programs.")] = (
        ReportFormat.MARKDOWN
    ),
) -> None:
    """
    Compare two editions of the contract and hold the change against the rules for versions and scope.

    Exit codes: 0 the gate passes, 1 it fails, 2 something cannot be read. A folder comes before a revision of the same
    name; write `refs/heads/NAME` for such a branch.
    """
    checkout = Path.cwd()
    found = compare(read_side(base, checkout), read_side(head, checkout))
    report = Report(found, gate(found))
    typer.echo(report.to_markdown() if output is ReportFormat.MARKDOWN else report.to_json())
    raise typer.Exit(report.exit_code)


def main() -> None:
    """Run the command; errors of the contract end it with exit code 2 and no traceback."""
    try:
        app()
    except ContractError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


def _show(findings: list[Finding], output: FindingsFormat, all_is_well: str) -> None:
    if not findings:
        typer.echo(all_is_well)
        return
    typer.echo(to_github(findings) if output is FindingsFormat.GITHUB else to_text(findings), nl=False)
    typer.echo(f"{len(findings)} findings", err=True)
    raise typer.Exit(1)
