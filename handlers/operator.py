"""Operations of the tag Operator: internal, for the scope `operator` only, absent from every published document."""

import os
import time
from collections import Counter

from pydantic import SecretStr

from handlers.runtime.messages import Reply, Request
from handlers.runtime.metrics import memory_bytes
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings

# Name the team's account, and stay behind as in headers.
_ACCOUNT = frozenset({"OPENAI_ORG_ID", "OPENAI_PROJECT_ID"})


async def retrieve_system_info(request: Request) -> Reply:
    """
    Describe the running relay, without any credential.

    Returns:
        `SystemInfo`.

    Source: operation `retrieveSystemInfo`.
    """
    services = request.services
    settings = services.settings
    return Reply.json(
        {
            "version": services.contract.version,
            "operations": Counter(operation.bucket.value for operation in services.contract),
            "upstream": settings.OPENAI_BASE_URL,
            "key_ids": [key.id for key in services.keys.keys],
            "upstream_calls": services.upstream.calls,
            "worker": {
                "pid": os.getpid(),
                "uptime_seconds": round(time.time() - services.metrics.started, 1),
                "memory_bytes": memory_bytes(),
            },
            "workers": settings.RELAY_WORKERS,
            "checks": services.readiness.checks(),
            "load": _load(services),
            "upstream_circuit": services.upstream.circuit.state,
            "store": _kind(settings.RELAY_STORE_URL, "memory"),
            "artifacts": _kind(settings.RELAY_ARTIFACT_URL, "private"),
            "artifact_bytes": services.artifacts.used_bytes,
            "mcp_loaded": services.tools.loaded,
            "settings": {name: _shown(name, getattr(settings, name)) for name in Settings.model_fields},
        }
    )


async def list_routes(request: Request) -> Reply:
    """
    List what the running relay has bound, in the contract's order.

    Returns:
        `RouteList`.

    Source: operation `listRoutes`.
    """
    return Reply.json(
        {
            "object": "list",
            "data": [
                {
                    "method": route.operation.method,
                    "path": route.operation.path,
                    "operation_id": route.operation.id,
                    "function": f"{route.function.__module__}.{route.function.__qualname__}",
                }
                for route in request.services.routes.values()
            ],
        }
    )


async def retrieve_metrics(request: Request) -> Reply:
    """
    Tell what all workers have counted.

    Returns:
        Prometheus' text format.

    Source: operation `retrieveMetrics`.
    """
    body = await request.services.metrics.text()
    from handlers.runtime.metrics_text import CONTENT_TYPE  # imported by now, by the thread that wrote the text

    return Reply(200, [(b"content-type", CONTENT_TYPE.encode())], body)


def _load(services: Services) -> dict[str, object]:
    upstream = services.upstream
    return {
        "requests": len(services.counts.active),
        "event_streams": services.counts.event_streams,
        "sockets": services.counts.sockets,
        "upstream_calls": upstream.slots.held,
        "upstream_waiting": upstream.slots.waiting,
    }


def _kind(url: SecretStr, without: str) -> str:
    """What a URL leads to; never where, or with which password."""
    scheme, _, rest = url.get_secret_value().partition("://")
    kind = scheme.partition("+")[0]
    return without if not scheme or (kind == "sqlite" and not rest.strip("/")) else kind


def _shown(name: str, value: object) -> object:
    if isinstance(value, SecretStr) or name in _ACCOUNT:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return "set" if text else "not set"
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
