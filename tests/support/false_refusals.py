"""
Counts false refusals: requests that the upstream's own document allows and that the relay refuses. It must find none.

    scripts/false_refusals --document openapi.json [--examples 50]

The requests go over real sockets through a real relay; the simulated upstream behind it counts what arrives.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import httpx
from typer import echo

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream.faults import Fault
from tests.support.schema_values import Unsatisfiable
from tests.support.servers import ServerThread, running_relay, simulated_upstream
from tests.support.valid_requests import (
    SourceOperation,
    ValidRequest,
    ValidRequests,
    read_source,
    source_operations,
    write_sample,
)

# The upstream's answer is not what is looked at, so it is the same for all: quick, and never an error.
ANSWER = Fault(status=200, body={})
RELAY_ERROR_PREFIX = "relay_"
MAX_SAMPLE_LINE = 900  # characters; larger requests stay out of the pinned sample
REASONS_SHOWN = 3


@dataclass(frozen=True)
class Refusal:
    """A request that the relay answered by itself, and how."""

    request: ValidRequest
    status: int
    code: str
    message: str


@dataclass
class Outcome:
    """What came of the requests to one operation; `missing` is how many could not be drawn."""

    label: str
    sent: int = 0
    missing: int = 0
    refusals: list[Refusal] = field(default_factory=list)


def refusal_of(request: ValidRequest, client: httpx.Client) -> Refusal | None:
    """
    Send a request.

    Args:
        client: Holds the relay's address and a key with the scope `canonical`.

    Returns:
        The relay's refusal, `None` when the answer came from the upstream.
    """
    reply = client.request(
        request.method,
        f"{request.path}?{request.query}" if request.query else request.path,
        content=None if request.body is None else request.body.encode(),
        headers={} if request.body is None else {"Content-Type": "application/json"},
    )
    if reply.status_code < 400:
        return None
    error = reply.json().get("error", {})
    if not str(error.get("type")).startswith(RELAY_ERROR_PREFIX):
        return None
    return Refusal(request, reply.status_code, error["code"], error["message"])


def count_refusals(
    operations: Iterable[SourceOperation], drawn: ValidRequests, examples: int, client: httpx.Client
) -> Iterator[Outcome]:
    """Send `examples` requests to each operation."""
    for operation in operations:
        outcome = Outcome(operation.label)
        for _ in range(examples):
            try:
                request = drawn.draw(operation)
            except Unsatisfiable:
                outcome.missing += 1
                continue
            outcome.sent += 1
            refusal = refusal_of(request, client)
            if refusal is not None:
                outcome.refusals.append(refusal)
        yield outcome


def sample(operations: Iterable[SourceOperation], drawn: ValidRequests, examples: int) -> Iterator[ValidRequest]:
    """A few requests for each operation, none of them large."""

    def small(operation: SourceOperation) -> Iterator[ValidRequest]:
        while True:
            request = drawn.draw(operation)
            if len(request.query) + len(request.body or "") <= MAX_SAMPLE_LINE:
                yield request

    for operation in operations:
        yield from islice(small(operation), examples)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        0 when no valid request was refused, 1 otherwise.
    """
    options = _parser().parse_args(arguments)
    document = read_source(options.document)
    operations = list(source_operations(document, load_contract(GENERATED, FULL)))
    drawn = ValidRequests(document, options.seed)
    if options.write_sample is not None:
        write_sample(options.write_sample, sample(operations, drawn, options.examples))
        echo(f"wrote {options.write_sample}")
        return 0
    upstream = simulated_upstream()
    upstream.faults.add(ANSWER)
    outcomes = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerThread(upstream) as server,
        running_relay(Path(folder), server.url) as relay,
        httpx.Client(base_url=relay.url, headers=relay.headers, timeout=30) as client,
    ):
        for outcome in count_refusals(operations, drawn, options.examples, client):
            _print_outcome(outcome)
            outcomes.append(outcome)
        arrived = upstream.recorder.count
    sent = sum(outcome.sent for outcome in outcomes)
    missing = sum(outcome.missing for outcome in outcomes)
    refused = sum(len(outcome.refusals) for outcome in outcomes)
    echo(f"\n{len(outcomes)} operations, {sent} requests, {arrived} of them reached the upstream")
    if missing:
        echo(f"{missing} requests could not be drawn; tests/support/schema_values.py does not understand a schema.")
    echo(f"false refusals {refused}")
    return 1 if refused or missing or arrived != sent else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="false_refusals",
        description="Sends requests that are valid by an OpenAPI document of the OpenAI API through a real relay, "
        "before the simulated upstream, and counts those that the relay refuses.",
    )
    parser.add_argument("--document", type=Path, required=True, help="OpenAPI document of the upstream, JSON or YAML")
    parser.add_argument("--examples", type=int, default=50, help="requests per operation (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the generated values (default 0)")
    parser.add_argument(
        "--write-sample", type=Path, metavar="FILE", help="send nothing; write a sample of small requests"
    )
    return parser


def _print_outcome(outcome: Outcome) -> None:
    echo(f"{outcome.label:<75} {outcome.sent:>5} sent {len(outcome.refusals):>5} refused")
    seen: dict[tuple[str, str], Refusal] = {}
    for refusal in outcome.refusals:
        seen.setdefault((refusal.code, refusal.message), refusal)
    for refusal in list(seen.values())[:REASONS_SHOWN]:
        sent = f"{refusal.request.query} {refusal.request.body or ''}"
        echo(f"    {refusal.status} {refusal.code}: {refusal.message}\n        {sent[:1000]!r}")


if __name__ == "__main__":
    sys.exit(main())
