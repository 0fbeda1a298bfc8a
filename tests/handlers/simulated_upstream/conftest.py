"""The simulated upstream of the project's own contract, called over ASGI without a socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from codegen.contract import Contract, read_contract
from handlers.simulated_upstream import SimulatedUpstream

ROOT = Path(__file__).parents[3]
KEY = {"authorization": "Bearer sk-made-up"}


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The full contract of this checkout."""
    return read_contract(ROOT)


@pytest.fixture
def upstream(contract: Contract, tmp_path: Path) -> SimulatedUpstream:
    """A simulated upstream that keeps nothing yet."""
    return SimulatedUpstream(contract, spool_folder=tmp_path)


@pytest.fixture
async def client(upstream: SimulatedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `upstream` with a key."""
    transport = httpx.ASGITransport(app=upstream)
    async with httpx.AsyncClient(transport=transport, base_url="http://upstream", headers=KEY) as client:
        yield client


@pytest.fixture
def anonymous_client(upstream: SimulatedUpstream) -> httpx.AsyncClient:
    """A client of `upstream` without a key."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=upstream), base_url="http://upstream")
