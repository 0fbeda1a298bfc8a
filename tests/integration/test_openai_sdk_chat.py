import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types import ModerationImageURLInputParam, ModerationTextInputParam
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from pydantic import BaseModel

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault

pytestmark = pytest.mark.integration

MODEL = "gpt-6-luna"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is the wiki?"}]
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def test_a_chat_completion_answers(sdk: AsyncOpenAI) -> None:
    """A completion that is not stored answers and leaves nothing behind."""
    completion = await sdk.chat.completions.create(model=MODEL, messages=QUESTION)
    assert completion.model == MODEL
    assert completion.choices[0].message.content
    assert completion.usage is not None
    with pytest.raises(NotFoundError):
        await sdk.chat.completions.retrieve(completion.id)


async def test_a_conversation_with_tools_and_media_reaches_upstream_unchanged(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream
) -> None:
    """Every byte of a rich request that the SDK writes arrives as it was written."""
    raw = await sdk.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}], "name": "house_rules"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Que voit-on ? ☕"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-example1"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
        tools=[WEATHER, {"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        modalities=["text", "audio"],
        audio={"format": "mp3", "voice": "alloy"},
        prediction={"type": "content", "content": "rain"},
        logit_bias={"1734": -100},
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=100,
        n=1,
        stop=["END"],
        seed=7,
        temperature=1.2,
        presence_penalty=-1.5,
        frequency_penalty=0.5,
        reasoning_effort="low",
        verbosity="low",
        service_tier="flex",
        web_search_options={"search_context_size": "low"},
        extra_body={"a_field_of_next_week": True},
    )
    (recorded,) = upstream.recorder.requests
    assert recorded.body_start == raw.http_request.content
    assert raw.parse().choices


async def test_streamed_chunks_belong_to_one_completion_and_end_it(sdk: AsyncOpenAI) -> None:
    """All chunks carry one id, their pieces make up a text, and the last choice says why it ended."""
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {MODEL}
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices)
    assert choices[-1].finish_reason == "stop"


async def test_the_stream_helper_gathers_the_final_completion(sdk: AsyncOpenAI) -> None:
    """`chat.completions.stream` ends with the completion that its chunks spelled out."""
    async with sdk.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
        text = "".join([event.delta async for event in stream if event.type == "content.delta"])
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == text != ""


async def test_a_structured_answer_is_parsed(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """`chat.completions.parse` sends the schema of a model and gets an instance of it back."""

    class Place(BaseModel):
        city: str

    example = await sdk.chat.completions.create(model=MODEL, messages=QUESTION)
    reply = example.model_dump(mode="json", exclude_unset=True)
    reply["choices"][0]["message"]["content"] = '{"city": "Oslo"}'
    upstream.faults.add(Fault(operation_id="createChatCompletion", status=200, body=reply))
    parsed = await sdk.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Place)
    assert parsed.choices[0].message.parsed == Place(city="Oslo")


async def test_a_stored_completion_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A stored completion is found, listed by its metadata, changed and deleted under its id."""
    created = await sdk.chat.completions.create(
        model=MODEL, messages=[*QUESTION, {"role": "user", "content": "Hello?"}], store=True, metadata={"team": "docs"}
    )
    assert (await sdk.chat.completions.retrieve(created.id)) == created

    updated = await sdk.chat.completions.update(created.id, metadata={"run": created.id})
    assert updated.id == created.id
    assert [c.id async for c in sdk.chat.completions.list(metadata={"run": created.id}, model=MODEL)] == [created.id]
    assert [c.id async for c in sdk.chat.completions.list(metadata={"run": "another"})] == []

    messages = [m.content async for m in sdk.chat.completions.messages.list(created.id, limit=1, order="asc")]
    assert messages == ["Where is the wiki?", "Hello?"]

    deleted = await sdk.chat.completions.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.chat.completions.retrieve(created.id)


async def test_legacy_completions_answer_and_stream(sdk: AsyncOpenAI) -> None:
    """The oldest interface still works, whole and in pieces."""
    whole = await sdk.completions.create(model=MODEL, prompt=["Once upon", "a time"], max_tokens=20, echo=True)
    assert whole.model == MODEL
    assert whole.choices[0].text
    stream = await sdk.completions.create(model=MODEL, prompt="Once upon", stream=True)
    pieces = [chunk async for chunk in stream]
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert len({piece.id for piece in pieces}) == 1


async def test_embeddings_come_as_numbers_whichever_encoding_travels(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream
) -> None:
    """The SDK's default (base64 on the wire) and plain floats mean the same vectors."""
    model, texts = "text-embedding-3-small", ["one", "two"]
    packed = await sdk.embeddings.create(model=model, input=texts, dimensions=16)
    plain = await sdk.embeddings.create(model=model, input=texts, dimensions=16, encoding_format="float")
    assert b'"base64"' in upstream.recorder.requests[0].body_start
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 16
    tokens = await sdk.embeddings.create(model=model, input=[[1, 2, 3], [4]])
    assert len(tokens.data) == 2


async def test_every_input_is_moderated(sdk: AsyncOpenAI) -> None:
    """Texts get one result each; text and image together get one."""
    texts = await sdk.moderations.create(input=["one", "two"], model="omni-moderation-latest")
    assert len(texts.results) == 2
    assert texts.model == "omni-moderation-latest"
    parts: list[ModerationTextInputParam | ModerationImageURLInputParam] = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    mixed = await sdk.moderations.create(input=parts)
    assert len(mixed.results) == 1
    assert mixed.results[0].category_scores.violence >= 0


async def test_models_are_listed_found_and_deleted(sdk: AsyncOpenAI) -> None:
    """Listed models can be retrieved; a fine-tuned model, with colons in its name, can be deleted."""
    listed = [model.id async for model in sdk.models.list()]
    assert listed
    assert (await sdk.models.retrieve(listed[0])).id == listed[0]
    tuned = "ft:gpt-6-luna:team::abc123"
    assert (await sdk.models.retrieve(tuned)).id == tuned
    deleted = await sdk.models.delete(tuned)
    assert (deleted.id, deleted.deleted) == (tuned, True)
