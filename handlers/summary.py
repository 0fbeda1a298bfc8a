"""What `relay serve` and `relay demo` print at the start: surfaces, buckets, documents, keys by id."""

from collections import Counter
from urllib.parse import urlsplit

import typer

from codegen.contract import Bucket, Contract, Exclusion
from handlers.runtime.services import Services

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def print_summary(services: Services, url: str) -> None:
    """
    Print the start-up summary.

    Args:
        url: Where the relay listens.
    """
    contract = services.contract
    counts = Counter(operation.bucket for operation in contract)
    served = sum(operation.served for operation in contract)
    refused = sum(operation.exclusion is Exclusion.UNSUPPORTED for operation in contract)
    rows = (
        ("relay", f"{url} (contract {contract.version})"),
        ("upstream", services.settings.OPENAI_BASE_URL),
        ("SDK clients", f"base_url {url}/v1; {served} operations served, {refused} refused by the contract"),
        ("assistants", f"{url}{_tools_path(contract)} for MCP clients, {len(services.tools.offer.tools)} tools"),
        ("buckets", ", ".join(f"{bucket} {counts[bucket]}" for bucket in Bucket)),
        ("documents", f"{url}/openapi.json {url}/openapi.actions.json {url}/docs"),
        ("keys", ", ".join(f"{key.id} ({' '.join(sorted(key.scopes))})" for key in services.keys.keys)),
    )
    for label, text in rows:
        typer.echo(f"{label:<13}{text}")
    for warning in _warnings(services):
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW)


def _tools_path(contract: Contract) -> str:
    return next(operation.path for operation in contract if operation.carries)


def _warnings(services: Services) -> list[str]:
    settings = services.settings
    warnings = []
    upstream = urlsplit(settings.OPENAI_BASE_URL)
    if upstream.scheme == "http" and upstream.hostname not in LOOPBACK_HOSTS:
        warnings.append("OPENAI_BASE_URL is http: the upstream key travels unencrypted.")
    if not settings.OPENAI_API_KEY.get_secret_value():
        warnings.append("OPENAI_API_KEY is not set: requests go upstream without credentials.")
    if settings.RELAY_HOST not in LOOPBACK_HOSTS and not settings.RELAY_PUBLIC_URL.startswith("https://"):
        warnings.append("listening beyond loopback: put TLS in front and set RELAY_PUBLIC_URL to its https address.")
    return warnings
