"""
The command `relay`: parses arguments, calls one function, prints. Works on the contract it was installed with.

What only one command needs is imported inside it: `relay serve` starts without the demo, `relay keys` without a server.
"""

import gc
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from codegen.contract import Scope
from codegen.exceptions import ContractError
from handlers.runtime.access import add_key, read_key_file, remove_key
from handlers.runtime.exceptions import StartupError
from handlers.runtime.settings import Settings, read_settings

_SETTINGS_HELP = "\n\n".join(f"{name}: {field.description}" for name, field in Settings.model_fields.items())

app = typer.Typer(
    help="A team's relay in front of the OpenAI API, bound to its contract.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys_app = typer.Typer(help="Keys in a key file (RELAY_KEY_FILE).", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

networks_app = typer.Typer(help="Networks that a setting names by a word.", no_args_is_help=True)
app.add_typer(networks_app, name="networks")

# Python's own (700, 10, 10) collect after every few requests, which took 7 % of their CPU and found hardly anything.
_COLLECTION_THRESHOLDS = (10_000, 20, 50)

KeyFile = Annotated[
    Path, typer.Option("--file", envvar="RELAY_KEY_FILE", help="The key file.", show_default=False, dir_okay=False)
]


@app.command(
    help=f"Run the relay before the service at OPENAI_BASE_URL.\n\nSettings (environment):\n\n{_SETTINGS_HELP}"
)
def serve(
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes that share the address; instead of RELAY_WORKERS.")
    ] = None,
) -> None:
    """Run the relay."""
    gc.disable()  # nearly all that the start makes stays: to look through it for garbage takes a tenth of the time
    from handlers.runtime.lean_imports import lean_imports

    with lean_imports():
        import uvloop

        from handlers.runtime.app import create_app, create_services
        from handlers.runtime.http_protocol import ClientLimits
        from handlers.runtime.memory import trim_memory
        from handlers.runtime.server import Server, allow_many_files
        from handlers.runtime.socket_protocol import SocketLimits
        from handlers.runtime.telemetry import configure_logging
        from handlers.summary import print_summary

    chosen = {} if workers is None else {"RELAY_WORKERS": str(workers)}
    settings = read_settings({**os.environ, **chosen})
    if settings.RELAY_WORKERS > 1:
        from handlers.runtime.supervisor import Supervisor, check_shared

        check_shared(settings)
    configure_logging(settings.RELAY_LOG_FORMAT)
    services = create_services(settings)
    if not len(services.keys):
        raise StartupError(
            "no relay key is configured, so nobody could be told from anybody. Set RELAY_KEY, or make a key file with "
            "`relay keys create --file keys.yaml --id NAME --scope canonical` and set RELAY_KEY_FILE. "
            "To look around on this machine: `relay demo`."
        )
    server = Server(
        create_app(services),
        settings.RELAY_HOST,
        settings.RELAY_PORT,
        shutdown_timeout_seconds=settings.RELAY_SHUTDOWN_TIMEOUT_SECONDS,
        sockets=SocketLimits.of(settings),
        clients=ClientLimits.of(settings, services.counts.refuse_unread),
        on_drain=services.admission.drain,
    )
    print_summary(services, server.bind())
    if services.metrics_port is not None:
        typer.echo(f"metrics      {services.metrics_port.bind()}")
    trim_memory()  # once, before workers are forked: what the start has read and compiled from is gone
    gc.freeze()  # so that no collection walks through it between requests either, for 30 ms each time
    gc.set_threshold(*_COLLECTION_THRESHOLDS)
    gc.enable()
    allow_many_files()
    if settings.RELAY_WORKERS == 1:
        uvloop.run(server.run_until_stopped())
        return
    Supervisor(
        lambda beat: uvloop.run(server.run_until_stopped(beat)),
        settings.RELAY_WORKERS,
        server.close_listeners,
        silence_seconds=settings.RELAY_WORKER_SILENCE_SECONDS,
        shutdown_seconds=settings.RELAY_SHUTDOWN_TIMEOUT_SECONDS,
    ).run()


@app.command()
def demo(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 picks a free one.", show_default="8080")
    ] = None,
    keep: Annotated[
        bool | None, typer.Option("--keep/--once", help="Go on serving after the tour. Default: on a terminal, yes.")
    ] = None,
) -> None:
    """Run the relay before a simulated upstream on loopback and show real calls through it. Needs no key."""
    import uvloop
    from rich.console import Console

    from handlers.demo import run_demo

    go_on = sys.stdin.isatty() and sys.stdout.isatty() if keep is None else keep
    uvloop.run(run_demo(Console(highlight=False), port, keep=go_on))


@app.command(name="mcp")
def bridge(
    url: Annotated[
        str,
        typer.Option(
            envvar="RELAY_MCP_URL",
            help="The relay's address, as https://relay.example.com/mcp; /mcp may be left out. "
            "http only for a relay on this machine.",
            show_default=False,
        ),
    ] = "",
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file that only you can read, with the key in its first line.", show_default=False),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates to trust beside the usual ones (PEM).", show_default=False)
    ] = None,
) -> None:
    """
    Let an assistant on this machine use the tools of a running relay: MCP over standard input and output.

    Desktop assistants and editors start this command themselves. Name it in their settings, with RELAY_MCP_URL and
    RELAY_MCP_KEY in its environment.

    The key comes from RELAY_MCP_KEY or from --key-file, never from an argument, which others on the machine can see. It
    needs the scope `actions`.

    Proxies that the environment names are not used. Standard output holds messages of MCP and nothing else; what people
    should know goes to standard error. The command ends with its input, with 0; with 2 when the relay cannot be used.
    """
    import asyncio

    from handlers.mcp_bridge import run_bridge
    from handlers.mcp_link import KEY_VARIABLE, relay_address, relay_key

    asyncio.run(run_bridge(relay_address(url), relay_key(os.environ.get(KEY_VARIABLE, ""), key_file), ca_file))


@keys_app.command("create")
def keys_create(
    file: KeyFile,
    key_id: Annotated[str, typer.Option("--id", help="Name of the key, as in logs.", show_default=False)],
    scope: Annotated[list[Scope], typer.Option(help="What it opens; repeat for more.", show_default=False)],
    expires: Annotated[datetime | None, typer.Option(help="When it ends (UTC).", show_default=False)] = None,
) -> None:
    """Make a key, keep its hash in the file, and print the key: once, it cannot be shown again."""
    typer.echo(add_key(file, key_id, scope, expires))
    typer.echo(f"kept as `{key_id}` in {file}; a running relay takes it up at its next start.", err=True)


@keys_app.command("list")
def keys_list(file: KeyFile) -> None:
    """Show ids, scopes and ends of the keys in the file."""
    keys = read_key_file(file)
    width = max((len(key.id) for key in keys), default=0)
    for key in keys:
        expires = f"expires {key.expires.isoformat()}" if key.expires else "never expires"
        typer.echo(f"{key.id:<{width}}  {' '.join(sorted(key.scopes))}  {expires}")


@keys_app.command("revoke")
def keys_revoke(
    file: KeyFile, key_id: Annotated[str, typer.Option("--id", help="The key to take out.", show_default=False)]
) -> None:
    """Take a key out of the file; a running relay drops it at its next start."""
    remove_key(file, key_id)
    typer.echo(f"`{key_id}` is no longer in {file}.", err=True)


@networks_app.command("refresh")
def networks_refresh(
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            envvar="RELAY_CHATGPT_NETWORKS_FILE",
            help="Where they are kept.",
            show_default=False,
            dir_okay=False,
        ),
    ],
    url: Annotated[
        str | None, typer.Option(help="Where they are published, if not where OpenAI does.", show_default=False)
    ] = None,
) -> None:
    """Fetch the networks that ChatGPT's requests come from; a running relay takes them up within a minute."""
    from handlers.runtime.network_refresh import PUBLISHED_URL, refresh_networks

    typer.echo(f"{refresh_networks(url or PUBLISHED_URL, file)} networks in {file}.", err=True)


def main() -> None:
    """Run the command; what keeps the relay from starting ends it with exit code 2 and no traceback."""
    try:
        app()
    except (StartupError, ContractError) as error:
        for line in str(error).splitlines():
            typer.echo(f"relay: {line}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
