from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.servers import UPSTREAM_KEY

pytestmark = pytest.mark.integration

MODEL = "gpt-6-luna"


async def test_a_wrong_key_is_an_authentication_error(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A key that the relay does not know opens nothing, is not repeated, and never reaches the upstream."""
    wrong = "rk_wrong-0123456789abcdef"
    with pytest.raises(openai.AuthenticationError) as raised:
        await sdk.with_options(api_key=wrong).models.list()
    assert (raised.value.code, raised.value.type) == ("invalid_key", "relay_auth_error")
    assert wrong not in raised.value.response.text
    assert upstream.recorder.count == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK marks the methods so
async def test_an_unsupported_operation_is_a_permission_error(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """What the contract lists as unsupported is refused by the relay, whatever the method."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: sdk.beta.assistants.create(model=MODEL),
        lambda: sdk.beta.assistants.retrieve("asst_example1"),
        lambda: sdk.beta.threads.delete("thread_example1"),
        lambda: sdk.get("/organization/users", cast_to=object),
        lambda: sdk.post("/organization/projects", cast_to=object, body={"name": "x"}),
    ]
    for call in calls:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await call()
        assert (raised.value.code, raised.value.type) == ("operation_unsupported", "relay_policy_error")
    assert upstream.recorder.count == 0


async def test_an_operation_that_the_contract_does_not_name_is_not_found(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream
) -> None:
    """Unknown paths and methods are refused by the relay, never tried at the upstream."""
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.post("/operations/of/next/week", cast_to=object, body={})
    assert unknown.value.code == "unknown_operation"
    with pytest.raises(openai.APIStatusError) as method:
        await sdk.patch("/models", cast_to=object, body={})
    assert (method.value.status_code, method.value.code) == (405, "method_not_allowed")
    assert method.value.response.headers["allow"] == "GET, HEAD, OPTIONS"
    assert upstream.recorder.count == 0


async def test_a_body_or_parameter_that_breaks_the_contract_is_a_bad_request(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream
) -> None:
    """The relay says which field is wrong, without the upstream having been asked."""
    wrong: Any = {"neither": "list nor text"}
    with pytest.raises(openai.BadRequestError) as body:
        await sdk.chat.completions.create(model=MODEL, messages=wrong)
    assert (body.value.code, body.value.type, body.value.param) == ("invalid_body", "relay_contract_error", "messages")
    with pytest.raises(openai.BadRequestError) as parameter:
        await sdk.get("/files", cast_to=object, options={"params": {"limit": "many"}})
    assert (parameter.value.code, parameter.value.param) == ("invalid_parameter", "limit")
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "status, expected",
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_what_upstream_refuses_is_raised_as_if_there_were_no_relay(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream, status: int, expected: type[openai.APIStatusError]
) -> None:
    """Status, body, request id and retry advice of the upstream's refusal are what the SDK sees."""
    error = {"message": "Slow down, please.", "type": "some_type", "param": "input", "code": "some_code"}
    headers = {"retry-after": "7", "retry-after-ms": "7000", "x-should-retry": "false", "x-request-id": "req_upstream"}
    upstream.faults.add(Fault(operation_id="createResponse", status=status, body={"error": error}, headers=headers))
    with pytest.raises(openai.APIStatusError) as raised:
        await sdk.responses.create(model=MODEL, input="Hello", stream=True)
    assert type(raised.value) is expected
    assert raised.value.status_code == status
    assert raised.value.body == error
    assert (raised.value.code, raised.value.param) == ("some_code", "input")
    assert raised.value.request_id == "req_upstream"
    assert {name: raised.value.response.headers[name] for name in headers} == headers


async def test_a_refusal_of_the_relays_own_key_does_not_show_it(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """When upstream's refusal repeats the relay's credentials, the caller is told another thing."""
    upstream.faults.add(Fault(operation_id="listModels", echo_credentials=True))
    with pytest.raises(openai.InternalServerError) as raised:
        await sdk.models.list()
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_error_withheld")
    assert UPSTREAM_KEY not in raised.value.response.text


async def test_half_a_reply_is_an_error(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """When upstream breaks off in mid-body, no client can take the half for the whole."""
    upstream.faults.add(Fault(operation_id="createResponse", cut_after_bytes=200))
    with pytest.raises(openai.APIConnectionError):
        await sdk.responses.create(model=MODEL, input="Hello")


async def test_half_a_stream_is_an_error(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """When upstream breaks off in mid-stream, the events that came are kept and the end is an exception."""
    upstream.faults.add(Fault(operation_id="createResponse", cut_after_bytes=2_000))
    stream = await sdk.responses.create(model=MODEL, input="Hello", stream=True)
    types = []

    async def read() -> None:
        async for event in stream:
            types.append(event.type)

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert types[0] == "response.created"
    assert "response.completed" not in types
    await stream.close()
