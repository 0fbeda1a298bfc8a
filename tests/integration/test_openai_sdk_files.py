import hashlib
import io
from pathlib import Path

import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError

from handlers.simulated_upstream import SimulatedUpstream

pytestmark = pytest.mark.integration

# Every byte value, more than one network read, and no multiple of any buffer's size.
CONTENT = bytes(range(256)) * 2_000 + b"\r\n--not-a-boundary\r\n"


async def test_a_file_lives_from_upload_to_deletion(sdk: AsyncOpenAI) -> None:
    """An uploaded file is found under its id with its name and size, until it is deleted."""
    created = await sdk.files.create(
        file=("résumé 1.jsonl", CONTENT, "application/jsonl"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3_600},
    )
    assert (created.bytes, created.purpose, created.filename) == (len(CONTENT), "user_data", "résumé 1.jsonl")
    assert (await sdk.files.retrieve(created.id)) == created
    assert (await sdk.files.wait_for_processing(created.id)).status == "processed"

    deleted = await sdk.files.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.files.retrieve(created.id)


async def test_content_comes_back_byte_for_byte(sdk: AsyncOpenAI, tmp_path: Path) -> None:
    """A path, an open file and bytes can be uploaded; the download holds the same bytes, whole or in pieces."""
    path = tmp_path / "content.bin"
    path.write_bytes(CONTENT)
    for source in (path, io.BytesIO(CONTENT), ("content.bin", CONTENT)):
        created = await sdk.files.create(file=source, purpose="user_data")
        whole = await sdk.files.content(created.id)
        assert whole.content == CONTENT
        assert whole.response.headers["content-length"] == str(len(CONTENT))
        assert "attachment" in whole.response.headers["content-disposition"]

    async with sdk.files.with_streaming_response.content(created.id) as response:
        pieces = [piece async for piece in response.iter_bytes(10_000)]
    assert b"".join(pieces) == CONTENT
    assert len(pieces) > 1


async def test_listing_files_walks_over_every_page(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """Auto-pagination finds each file once, in both orders, with one request per page."""
    ids = [(await sdk.files.create(file=(f"{n}.txt", b"x"), purpose="vision")).id for n in range(5)]
    try:
        newest_first = [file.id async for file in sdk.files.list(purpose="vision", limit=2)]
        oldest_first = [file.id async for file in sdk.files.list(purpose="vision", limit=2, order="asc")]
    finally:
        for file_id in ids:
            await sdk.files.delete(file_id)
    assert oldest_first == ids
    assert newest_first == ids[::-1]
    queries = [request.query for request in upstream.recorder.requests if request.operation_id == "listFiles"]
    assert len(queries) == 6
    assert f"after={ids[3]}" in queries[1]


async def test_the_content_of_an_upload_is_its_parts_in_the_order_that_completes_it(sdk: AsyncOpenAI) -> None:
    """Parts sent in any order are joined in the order of `part_ids`."""
    middle = len(CONTENT) // 3
    upload = await sdk.uploads.create(
        bytes=len(CONTENT), filename="big.bin", mime_type="application/octet-stream", purpose="user_data"
    )
    assert (upload.status, upload.filename, upload.bytes) == ("pending", "big.bin", len(CONTENT))
    second = await sdk.uploads.parts.create(upload.id, data=CONTENT[middle:])
    first = await sdk.uploads.parts.create(upload.id, data=CONTENT[:middle])
    assert {first.upload_id, second.upload_id} == {upload.id}

    completed = await sdk.uploads.complete(
        upload.id,
        part_ids=[first.id, second.id],
        md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
    )
    assert (completed.id, completed.status) == (upload.id, "completed")
    assert completed.file is not None
    assert completed.file.filename == "big.bin"
    assert (await sdk.files.content(completed.file.id)).content == CONTENT


async def test_the_chunking_helper_uploads_a_whole_file(
    sdk: AsyncOpenAI, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """`upload_file_chunked` cuts a file into parts and completes the upload."""
    path = tmp_path / "big.bin"
    path.write_bytes(CONTENT)
    completed = await sdk.uploads.upload_file_chunked(
        file=path, mime_type="application/octet-stream", purpose="user_data", part_size=100_000
    )
    assert completed.file is not None
    assert (await sdk.files.content(completed.file.id)).content == CONTENT
    ids = [request.operation_id for request in upstream.recorder.requests]
    assert ids.count("addUploadPart") == -(-len(CONTENT) // 100_000)


async def test_an_upload_can_be_cancelled(sdk: AsyncOpenAI) -> None:
    """A pending upload is cancelled under its id."""
    upload = await sdk.uploads.create(bytes=3, filename="x.txt", mime_type="text/plain", purpose="user_data")
    cancelled = await sdk.uploads.cancel(upload.id)
    assert (cancelled.id, cancelled.status) == (upload.id, "cancelled")


async def test_a_batch_turns_its_input_file_into_an_output_file(sdk: AsyncOpenAI) -> None:
    """A batch runs over an uploaded file; its output file answers every line of the input."""
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-6-luna", "input": name}}
        for name in ("one", "two")
    ]
    content = b"\n".join(map(orjson.dumps, lines))
    source = await sdk.files.create(file=("batch.jsonl", content), purpose="batch")
    batch = await sdk.batches.create(
        completion_window="24h",
        endpoint="/v1/responses",
        input_file_id=source.id,
        metadata={"team": "docs"},
        output_expires_after={"anchor": "created_at", "seconds": 3_600},
    )
    assert (batch.input_file_id, batch.endpoint, batch.status) == (source.id, "/v1/responses", "validating")
    assert batch.metadata == {"team": "docs"}

    finished = await sdk.batches.retrieve(batch.id)
    assert (finished.id, finished.status) == (batch.id, "completed")
    assert finished.output_file_id is not None
    output = (await sdk.files.content(finished.output_file_id)).text
    assert [orjson.loads(line)["custom_id"] for line in output.splitlines()] == ["one", "two"]


async def test_batches_are_listed_and_cancelled(sdk: AsyncOpenAI) -> None:
    """The newest batch leads the list and can be cancelled; the list goes on over several pages."""
    source = await sdk.files.create(file=("batch.jsonl", b"{}\n"), purpose="batch")
    ids = [
        (await sdk.batches.create(completion_window="24h", endpoint="/v1/embeddings", input_file_id=source.id)).id
        for _ in range(3)
    ]
    page = await sdk.batches.list(limit=2)
    assert [batch.id for batch in page.data] == [ids[2], ids[1]]
    assert (await page.get_next_page()).data[0].id == ids[0]
    cancelled = await sdk.batches.cancel(ids[0])
    assert (cancelled.id, cancelled.status) == (ids[0], "cancelling")
