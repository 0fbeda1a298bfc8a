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
