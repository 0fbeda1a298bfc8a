import pytest
from openai import AsyncOpenAI, NotFoundError

from handlers.simulated_upstream import SimulatedUpstream

pytestmark = pytest.mark.integration


async def upload(sdk: AsyncOpenAI, name: str) -> str:
    """A new file's id."""
    return (await sdk.files.create(file=(name, name.encode()), purpose="assistants")).id


async def test_a_vector_store_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A store is found, changed and deleted under its id, and counts the files that it was made with."""
    file_id = await upload(sdk, "wiki.md")
    created = await sdk.vector_stores.create(
        name="wiki",
        description="All pages.",
        file_ids=[file_id],
        metadata={"team": "docs"},
        expires_after={"anchor": "last_active_at", "days": 7},
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}},
    )
    assert (created.name, created.metadata) == ("wiki", {"team": "docs"})
    found = await sdk.vector_stores.retrieve(created.id)
    assert (found.id, found.file_counts.total) == (created.id, 1)

    updated = await sdk.vector_stores.update(created.id, name="pages", metadata={"team": "web"})
    assert (updated.id, updated.name, updated.metadata) == (created.id, "pages", {"team": "web"})

    deleted = await sdk.vector_stores.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.vector_stores.retrieve(created.id)


async def test_vector_stores_are_paged_forwards_and_backwards(sdk: AsyncOpenAI) -> None:
    """The list goes on behind `after` and stops before `before`."""
    ids = [(await sdk.vector_stores.create(name=f"store {n}")).id for n in range(4)]
    first = await sdk.vector_stores.list(limit=2, order="desc")
    second = await first.get_next_page()
    assert [store.id for store in (*first.data, *second.data)] == ids[::-1]
    before = await sdk.vector_stores.list(limit=2, before=ids[0], after=ids[3])
    assert [store.id for store in before.data] == [ids[2], ids[1]]


async def test_a_file_lives_in_a_store(sdk: AsyncOpenAI) -> None:
    """A file keeps its id in the store, with attributes of its own, its parsed text, and can be taken out again."""
    store = await sdk.vector_stores.create(name="wiki")
    file_id = await upload(sdk, "wiki.md")
    added = await sdk.vector_stores.files.create(
        store.id, file_id=file_id, attributes={"page": 1, "draft": False, "lang": "en"}
    )
    assert (added.id, added.vector_store_id) == (file_id, store.id)
    assert added.attributes == {"page": 1, "draft": False, "lang": "en"}
    found = await sdk.vector_stores.files.retrieve(file_id, vector_store_id=store.id)
    assert (found.id, found.status) == (file_id, "completed")

    updated = await sdk.vector_stores.files.update(file_id, vector_store_id=store.id, attributes={"page": 2})
    assert (updated.id, updated.attributes) == (file_id, {"page": 2})
    assert [part.text async for part in sdk.vector_stores.files.content(file_id, vector_store_id=store.id)]

    deleted = await sdk.vector_stores.files.delete(file_id, vector_store_id=store.id)
    assert (deleted.id, deleted.deleted) == (file_id, True)
    with pytest.raises(NotFoundError):
        await sdk.vector_stores.files.retrieve(file_id, vector_store_id=store.id)


async def test_files_of_a_store_are_paged_and_filtered(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """Only the files of the named store are listed, page by page, and only those in the wanted state."""
    ids = [await upload(sdk, f"{n}.md") for n in range(5)]
    store = await sdk.vector_stores.create(name="five", file_ids=ids)
    other = await sdk.vector_stores.create(name="another", file_ids=ids[:1])
    files = sdk.vector_stores.files
    assert [file.id async for file in files.list(store.id, limit=2, order="asc")] == ids
    assert [file.id async for file in files.list(store.id, filter="completed", order="asc")] == ids
    assert [file.id async for file in files.list(store.id, filter="failed")] == []
    assert [file.id async for file in files.list(other.id)] == ids[:1]
    recorded = [request.operation_id for request in upstream.recorder.requests]
    assert recorded.count("listVectorStoreFiles") == 3 + 1 + 1 + 1


async def test_a_file_batch_adds_many_files_at_once(sdk: AsyncOpenAI) -> None:
    """A batch is found under its id, counts its files, lists them over several pages, and can be cancelled."""
    ids = [await upload(sdk, f"{n}.md") for n in range(3)]
    store = await sdk.vector_stores.create(name="wiki")
    batches = sdk.vector_stores.file_batches
    created = await batches.create(store.id, file_ids=ids, attributes={"lang": "en"})
    assert (created.vector_store_id, created.file_counts.total) == (store.id, 3)
    found = await batches.retrieve(created.id, vector_store_id=store.id)
    assert (found.id, found.status) == (created.id, "completed")

    listed = batches.list_files(created.id, vector_store_id=store.id, limit=1, order="asc")
    assert [file.id async for file in listed] == ids
    assert [file.id async for file in sdk.vector_stores.files.list(store.id, order="asc")] == ids
    cancelled = await batches.cancel(created.id, vector_store_id=store.id)
    assert (cancelled.id, cancelled.status) == (created.id, "cancelled")


async def test_the_polling_helpers_wait_until_files_are_ready(sdk: AsyncOpenAI) -> None:
    """What the SDK composes of several calls (upload, add, poll) works on the relay."""
    store = await sdk.vector_stores.create(name="wiki")
    one = await sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("one.md", b"one"))
    assert one.status == "completed"
    batch = await sdk.vector_stores.file_batches.upload_and_poll(
        store.id, files=[("two.md", b"two"), ("three.md", b"three")], file_ids=[]
    )
    assert (batch.status, batch.file_counts.total) == ("completed", 2)
    assert (await sdk.vector_stores.retrieve(store.id)).file_counts.completed == 3


async def test_a_store_is_searched(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A search with filters and ranking options reaches upstream and brings scored pieces of text."""
    store = await sdk.vector_stores.create(name="wiki")
    pages = sdk.vector_stores.search(
        store.id,
        query=["When does the wiki move?", "wiki date"],
        filters={"type": "and", "filters": [{"type": "eq", "key": "lang", "value": "en"}]},
        max_num_results=5,
        ranking_options={"ranker": "auto", "score_threshold": 0.2},
        rewrite_query=True,
    )
    found = [result async for result in pages]
    assert found
    assert all(0 <= result.score <= 1 and result.content[0].text for result in found)
    assert upstream.recorder.requests[-1].operation_id == "searchVectorStore"
