"""The contract as the runtime loads it, and a whole relay that is asked without sockets."""

import pytest
from connexion import AsyncApp

from codegen.contract import FULL, Contract, load_contract
from handlers.runtime.app import GENERATED, create_app, create_services
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings
from tests.handlers.runtime.asgi import UpstreamDouble
from tests.handlers.runtime.transports import Transport

RELAY_KEY = "rk_made-up-0123456789abcdef"


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The full contract, from the generated JSON."""
    return load_contract(GENERATED, FULL)


@pytest.fixture(scope="session")
def upstream_double() -> UpstreamDouble:
    """What the relay of this session takes for the upstream."""
    return UpstreamDouble()


@pytest.fixture(scope="session")
def services(upstream_double: UpstreamDouble) -> Services:
    """Services of a relay whose only key is the bootstrap key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.runtime.upstream.Transport", lambda *_: upstream_double)
        return create_services(
            Settings.model_validate({"OPENAI_BASE_URL": "https://api.example/v1", "RELAY_KEY": RELAY_KEY})
        )


@pytest.fixture(scope="session")
def app(services: Services) -> AsyncApp:
    """The relay, bound to the contract."""
    return create_app(services)


@pytest.fixture
def fresh_upstream(upstream_double: UpstreamDouble) -> UpstreamDouble:
    """The upstream with nothing recorded."""
    upstream_double.requests.clear()
    upstream_double.bodies.clear()
    return upstream_double


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Transport:
    """The transport that the next `Upstream` is given."""
    made = Transport()
    monkeypatch.setattr("handlers.runtime.upstream.Transport", lambda *_: made)
    return made
