"""Operations of the tag Operator: internal, for the scope `operator` only, absent from every published document."""

from collections import Counter

from handlers.runtime.messages import Reply, Request


async def retrieve_system_info(request: Request) -> Reply:
    """
    Describe the running relay, without any credential.

    Returns:
        `SystemInfo`.

    Source: operation `retrieveSystemInfo`.
    """
    services = request.services
    return Reply.json(
        {
            "version": services.contract.version,
            "operations": Counter(operation.bucket.value for operation in services.contract),
            "upstream": services.settings.OPENAI_BASE_URL,
            "key_ids": [key.id for key in services.keys.keys],
            "upstream_calls": services.upstream.calls,
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
