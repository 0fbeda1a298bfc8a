"""
Clients of the official SDK in front of the running relay, and the memory of which operations they have exercised.

Scenarios are written once, as code for `AsyncOpenAI`; `AsyncFace` lets the same code drive the sync client.
"""

from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from typing import Any, cast

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI, Stream
from openai._base_client import BaseSyncPage

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.evidence import RelayLogs, missing_tests
from tests.support.file_relay import FileRelay, running_file_relay
from tests.support.servers import OUTPUTS, RelayProcess, ServerThread

SDK_KINDS = ("sync", "async")
TIMEOUT_SECONDS = 10.0  # a hang must fail
_KIND_BY_HEADER = {"false": "sync", "async:asyncio": "async"}
_COLLECTED = pytest.StashKey[Iterable[pytest.Item]]()
# They look back at what the others have done. The last of them looks at these too.
_CLOSING = ("test_openai_sdk_coverage.py", "test_evidence.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests about all that was exercised behind those that exercise it; note down what was found."""
    items.sort(key=lambda item: _CLOSING.index(item.path.name) if item.path.name in _CLOSING else -1)
    config.stash[_COLLECTED] = list(items)


@pytest.fixture(scope="session", autouse=True)
def relay_logs() -> RelayLogs:
    """What relays log for the tests of this folder; other parts may have used the same relays before."""
    return RelayLogs(OUTPUTS)


@pytest.fixture
def left_out(request: pytest.FixtureRequest) -> list[str]:
    """The integration tests that this process does not run."""
    if hasattr(request.config, "workerinput"):
        return ["those of the other workers of pytest-xdist"]
    return missing_tests(request.config.stash[_COLLECTED], request.session.items)


class AsyncFace:
    """
    The sync client (or a part, a page or a stream of it) with the face of the async one.

    Calls are made at once, by the sync client; only their results are handed out as if they had to be waited for.

    Args:
        target: What is driven.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if type(value).__module__.startswith("openai.resources."):
            return AsyncFace(value)
        if callable(value):
            return lambda *args, **options: AsyncFace(value(*args, **options))
        return value

    def __bool__(self) -> bool:
        raise TypeError("a call's result must be awaited before it is looked at")

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        return AsyncFace(self._target) if isinstance(self._target, (Stream, BaseSyncPage)) else self._target

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._target:
            yield item

    async def __aenter__(self) -> "AsyncFace":
        return AsyncFace(self._target.__enter__())

    async def __aexit__(self, *error: Any) -> None:
        self._target.__exit__(*error)


@pytest.fixture(scope="session")
def exercised() -> dict[str, set[str]]:
    """Kind of SDK client to the operationIds that it has had answered by the upstream, through the relay."""
    return {kind: set() for kind in SDK_KINDS}


@pytest.fixture(params=SDK_KINDS)
async def sdk(
    request: pytest.FixtureRequest,
    relay: RelayProcess,
    upstream: SimulatedUpstream,
    exercised: dict[str, set[str]],
) -> AsyncIterator[AsyncOpenAI]:
    """The unmodified SDK, once sync and once async, pointed at the relay."""
    options: dict[str, Any] = {"base_url": relay.base_url, "api_key": relay.key, "max_retries": 0}
    if request.param == "sync":
        with OpenAI(**options, timeout=TIMEOUT_SECONDS) as client:
            yield cast("AsyncOpenAI", AsyncFace(client))
    else:
        async with AsyncOpenAI(**options, timeout=TIMEOUT_SECONDS) as client:
            yield client
    for record in upstream.recorder.requests:
        # The SDK says itself which client sent a request, so that no scenario can count for the wrong one.
        kind = _KIND_BY_HEADER.get(record.header("x-stainless-async") or "")
        if kind and record.operation_id and record.status is not None and record.status < 300:
            exercised[kind].add(record.operation_id)


@pytest.fixture(scope="module")
def running(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay that may fetch files from a server of the module."""
    with running_file_relay(tmp_path_factory.mktemp("files"), upstream_server.url) as running:
        yield running


@pytest.fixture
def offered(running: FileRelay, upstream: SimulatedUpstream) -> FileRelay:
    """The same, with nothing offered and nothing recorded."""
    del upstream
    running.files.forget()
    return running


@pytest.fixture
def assistant(offered: FileRelay) -> Iterator[httpx.Client]:
    """What an assistant calls with."""
    with offered.client() as client:
        yield client
