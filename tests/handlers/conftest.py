"""Requests as handlers get them: matched, authorised and validated."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from handlers.runtime.access import Caller
from handlers.runtime.app import create_services
from handlers.runtime.messages import Request
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings

MakeRequest = Callable[..., Request]


@pytest.fixture(scope="session")
def own_services() -> Services:
    """Services of a relay with a key of its own and an upstream that nobody asks."""
    return create_services(
        Settings.model_validate(
            {
                "OPENAI_API_KEY": "sk-made-up-upstream",
                "OPENAI_BASE_URL": "https://api.example/v1",
                "RELAY_KEY": "rk_made-up-0123456789abcdef",
            }
        )
    )


@pytest.fixture
def request_of(own_services: Services) -> MakeRequest:
    """Makes the request to an operation by its id."""

    def make(
        operation_id: str,
        path_params: Mapping[str, str] | None = None,
        services: Services = own_services,
        **fields: Any,
    ) -> Request:
        operation = services.contract.operations[operation_id]
        return Request(
            id="rly_0123456789",
            operation=operation,
            path=operation.path,
            path_params=path_params or {},
            query=fields.pop("query", b""),
            headers=fields.pop("headers", []),
            caller=Caller("somebody", operation.scopes) if operation.scopes else None,
            services=services,
            **fields,
        )

    return make
