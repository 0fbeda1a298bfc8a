"""Begins and ends what watches the relay while it runs: numbers of all workers, the operator's port, checks, traces."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import cast

from handlers.runtime.exceptions import StartupError
from handlers.runtime.observation import Tracing
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings

_TRACING = "handlers.runtime.tracing"


@asynccontextmanager
async def observed(services: Services) -> AsyncIterator[None]:
    """Watch the relay while the block runs."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(services.metrics.running())
        await stack.enter_async_context(services.readiness.running())
        if services.metrics_port is not None and services.metrics_port.bound:
            await stack.enter_async_context(services.metrics_port.running())
        if services.tracing is not None:
            await stack.enter_async_context(services.tracing.running(services.metrics.own))
        yield


def load_tracing(settings: Settings) -> Tracing:
    """
    Load OpenTelemetry, which nothing imports while it is off.

    Raises:
        StartupError: It is not installed.
    """
    try:
        module = import_module(_TRACING)
    except ImportError as error:
        raise StartupError(
            f"RELAY_OTEL: needs the extra `otel`, and {error.name} is not installed. "
            "Install it with `pip install 'chatgpt-team-relay[otel]'`, or leave RELAY_OTEL out."
        ) from None
    return cast("Tracing", module.OpenTelemetry(settings.OPENAI_BASE_URL))
