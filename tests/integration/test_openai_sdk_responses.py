import asyncio
import time

import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.responses import FunctionToolParam, ResponseCompletedEvent, ResponseStreamEvent
from pydantic import BaseModel

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault

pytestmark = pytest.mark.integration

MODEL = "gpt-6-luna"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "Current weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def text_of(events: list[ResponseStreamEvent]) -> str:
    """The text that a stream brings piece by piece."""
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def test_a_response_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """What was created is found again under its id, with its metadata, until it is deleted."""
    created = await sdk.responses.create(model=MODEL, input="Where is the wiki?", metadata={"team": "docs"})
    assert created.model == MODEL
    assert created.metadata == {"team": "docs"}
    assert created.output_text

    found = await sdk.responses.retrieve(created.id, include=["file_search_call.results"])
    assert found == created

    await sdk.responses.delete(created.id)
    with pytest.raises(NotFoundError):
        await sdk.responses.retrieve(created.id)


async def test_a_request_with_tools_formats_and_many_kinds_of_input_reaches_upstream_unchanged(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream
) -> None:
    """Every byte of a rich request that the SDK writes arrives as it was written."""
    raw = await sdk.responses.with_raw_response.create(
        model=MODEL,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Say where you looked."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Naïve café ☕, what is in these?"},
                    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
                    {"type": "input_file", "file_id": "file-example1"},
                ],
            },
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"type": "item_reference", "id": "msg_example1"},
        ],
        tools=[
            WEATHER,
            {"type": "file_search", "vector_store_ids": ["vs_example1"], "max_num_results": 3},
            {"type": "web_search", "search_context_size": "low"},
            {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-example1"]}},
            {"type": "image_generation", "quality": "low"},
            {"type": "mcp", "server_label": "wiki", "server_url": "https://example.com", "require_approval": "never"},
            {"type": "custom", "name": "sql", "format": {"type": "text"}},
        ],
        tool_choice={"type": "function", "name": "weather"},
        text={
            "format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": False},
            "verbosity": "low",
        },
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        parallel_tool_calls=False,
        max_output_tokens=200,
        temperature=0.3,
        top_p=0.9,
        top_logprobs=2,
        service_tier="auto",
        truncation="auto",
        store=False,
        prompt_cache_key="docs",
        safety_identifier="user-1",
        extra_body={"a_field_of_next_week": {"deep": [1, None, "x"]}},
    )
    (recorded,) = upstream.recorder.requests
    assert recorded.body_start == raw.http_request.content
    assert raw.parse().model == MODEL


async def test_a_streamed_response_is_the_response_that_is_stored(sdk: AsyncOpenAI) -> None:
    """Events come in order, their pieces make up the final text, and the same response is found afterwards."""
    events = [e async for e in await sdk.responses.create(model=MODEL, input="Where is the wiki?", stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    final = events[-1]
    assert isinstance(final, ResponseCompletedEvent)
    assert final.response.id == events[0].response.id
    assert final.response.model == MODEL
    assert text_of(events) == final.response.output_text != ""

    stored = await sdk.responses.retrieve(final.response.id)
    assert stored.output_text == final.response.output_text


async def test_the_stream_helper_gathers_the_final_response(sdk: AsyncOpenAI) -> None:
    """`responses.stream` ends with the response that its events spelled out."""
    async with sdk.responses.stream(model=MODEL, input="Where is the wiki?", tools=[WEATHER]) as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        final = await stream.get_final_response()
    assert final.status == "completed"
    assert final.output_text == text != ""


async def test_the_stream_of_a_stored_response_can_be_taken_up_again(sdk: AsyncOpenAI) -> None:
    """Retrieving with `stream` replays the events, all of them or those after a sequence number."""
    created = await sdk.responses.create(model=MODEL, input="Where is the wiki?", background=True)
    everything = [event async for event in await sdk.responses.retrieve(created.id, stream=True)]
    rest = [event async for event in await sdk.responses.retrieve(created.id, stream=True, starting_after=4)]
    assert rest == everything[5:]
    final = everything[-1]
    assert isinstance(final, ResponseCompletedEvent)
    assert final.response.id == created.id
    assert text_of(everything) == final.response.output_text

    async with sdk.responses.stream(response_id=created.id, starting_after=4) as stream:
        assert [event.sequence_number async for event in stream] == [event.sequence_number for event in rest]


async def test_an_event_arrives_before_the_stream_is_over_and_closing_it_cancels_the_work(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream
) -> None:
    """The relay holds no event back, and upstream learns at once that nobody listens any more."""
    upstream.faults.add(Fault(operation_id="createResponse", silent_after_bytes=2_000))
    stream = await sdk.responses.create(model=MODEL, input="Where is the wiki?", stream=True)
    async for event in stream:
        assert event.type == "response.created"
        break
    (recorded,) = upstream.recorder.requests
    assert recorded.finished_at is None
    await stream.close()
    deadline = time.monotonic() + 5
    while recorded.disconnected_at is None and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert recorded.disconnected_at is not None


async def test_a_background_response_can_be_cancelled(sdk: AsyncOpenAI) -> None:
    """A background response is queued when it is created, and cancelled under the same id."""
    created = await sdk.responses.create(model=MODEL, input="Count to a million.", background=True)
    assert created.status == "queued"
    cancelled = await sdk.responses.cancel(created.id)
    assert (cancelled.id, cancelled.status) == (created.id, "cancelled")


async def test_input_items_are_paged(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The SDK walks over all pages of the input, in the order that it asks for."""
    words = ["one", "two", "three"]
    created = await sdk.responses.create(model=MODEL, input=[{"role": "user", "content": word} for word in words])
    items = [item async for item in sdk.responses.input_items.list(created.id, limit=1, order="asc")]
    texts = [part.text for i in items if i.type == "message" for part in i.content if part.type == "input_text"]
    assert texts == words
    assert [r.operation_id for r in upstream.recorder.requests].count("listInputItems") == 3


async def test_input_is_counted_and_compacted(sdk: AsyncOpenAI) -> None:
    """The two operations that take an input without answering it work."""
    counted = await sdk.responses.input_tokens.count(model=MODEL, input="Where is the wiki?", tools=[WEATHER])
    assert counted.input_tokens > 0
    compacted = await sdk.responses.compact(model=MODEL, input=[{"role": "user", "content": "Where is the wiki?"}])
    assert any(item.type == "compaction" for item in compacted.output)


async def test_a_structured_answer_is_parsed(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """`responses.parse` sends the schema of a model and gets an instance of it back."""

    class Place(BaseModel):
        city: str
        people: int

    example = await sdk.responses.create(model=MODEL, input="x")
    part = {"type": "output_text", "text": '{"city": "Oslo", "people": 700000}', "annotations": []}
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    reply = {**example.model_dump(mode="json", exclude_unset=True), "output": [message]}
    upstream.faults.add(Fault(operation_id="createResponse", status=200, body=reply))

    parsed = await sdk.responses.parse(model=MODEL, input="Where do you live?", text_format=Place)
    assert parsed.output_parsed == Place(city="Oslo", people=700_000)
    sent = orjson.loads(upstream.recorder.requests[-1].body_start)
    assert sent["text"]["format"]["schema"]["properties"].keys() == {"city", "people"}


async def test_the_beta_variants_are_the_same_operations(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """What `beta.responses` sends is served like the rest, and `?beta=true` and its header reach the upstream."""
    beta = sdk.beta.responses
    created = await beta.create(model=MODEL, input="Hello", background=True, betas=["responses_multi_agent=v1"])
    assert (await beta.retrieve(created.id)).id == created.id
    assert [item.id async for item in beta.input_items.list(created.id)]
    assert (await beta.cancel(created.id)).status == "cancelled"
    assert (await beta.input_tokens.count(model=MODEL, input="Hello")).input_tokens > 0
    assert (await beta.compact(model=MODEL, input="Hello")).output
    await beta.delete(created.id)
    assert {request.query for request in upstream.recorder.requests} == {"beta=true"}
    assert upstream.recorder.requests[0].header("openai-beta") == "responses_multi_agent=v1"
