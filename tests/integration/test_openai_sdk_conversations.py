import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.conversations import ConversationItem

pytestmark = pytest.mark.integration


def text_of(item: ConversationItem) -> str:
    """The text of a message."""
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "input_text"
    return part.text


async def test_a_conversation_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A conversation is found, changed and deleted under its id."""
    created = await sdk.conversations.create(metadata={"team": "docs"})
    assert created.metadata == {"team": "docs"}
    assert (await sdk.conversations.retrieve(created.id)) == created

    updated = await sdk.conversations.update(created.id, metadata={"team": "web"})
    assert (updated.id, updated.metadata) == (created.id, {"team": "web"})

    deleted = await sdk.conversations.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.conversations.retrieve(created.id)


async def test_items_are_added_paged_and_deleted(sdk: AsyncOpenAI) -> None:
    """Items of the creation and later ones stand in one list, in order, each under an id of its own."""
    conversation = await sdk.conversations.create(items=[{"type": "message", "role": "user", "content": "one"}])
    added = await sdk.conversations.items.create(
        conversation.id,
        items=[
            {"type": "message", "role": "user", "content": "two"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "three"}]},
        ],
        include=["message.output_text.logprobs"],
    )
    assert [text_of(item) for item in added.data] == ["two", "three"]

    listed = [item async for item in sdk.conversations.items.list(conversation.id, limit=1, order="asc")]
    assert [text_of(item) for item in listed] == ["one", "two", "three"]

    newest = await sdk.conversations.items.list(conversation.id, limit=2)
    assert [text_of(item) for item in newest.data] == ["three", "two"]
    assert newest.has_more
    assert newest.data[0].id is not None

    found = await sdk.conversations.items.retrieve(newest.data[0].id, conversation_id=conversation.id)
    assert found == newest.data[0]
    left = await sdk.conversations.items.delete(newest.data[0].id, conversation_id=conversation.id)
    assert left.id == conversation.id
    assert [text_of(item) async for item in sdk.conversations.items.list(conversation.id)] == ["two", "one"]
