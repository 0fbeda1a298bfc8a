import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from codegen.contract import JSON, MULTIPART, Contract, Exclusion, Operation
from handlers.simulated_upstream import Fault, SimulatedUpstream

from .asgi import Exchange
from .conftest import KEY

ODD_VALUES: tuple[Any, ...] = ("odd", "", 7, -0.5, True, None, [], ["odd"], {}, {"odd": [1]})


class TestWhatIsServed:
    def test_only_mirrored_supported_operations(self, upstream: SimulatedUpstream, contract: Contract) -> None:
        """The relay's own operations, unsupported ones and custom verbs are not upstream's."""
        served = {operation.id for operation in upstream.operations}
        assert {"createResponse", "createFile", "listModels"} <= served
        mirrored = {tag["name"] for tag in contract.document["tags"] if tag.get("x-policy-mirrored")}
        for operation in contract:
            refused = operation.exclusion is Exclusion.UNSUPPORTED or ":" in operation.path
            assert (operation.id in served) == (operation.tag in mirrored and not refused)

    @pytest.mark.parametrize("target", ["/v1/nothing", "/", "/v1/responses:stream", "/v1/organization/users"])
    async def test_anything_else_is_not_found(self, client: httpx.AsyncClient, target: str) -> None:
        """A path that is not served is answered with OpenAI's error envelope."""
        reply = await client.get(target)
        assert reply.status_code == 404
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}

    @pytest.mark.parametrize("header", [None, "Bearer ", "Basic abc", "sk-bare"])
    async def test_a_bearer_key_is_required(self, anonymous_client: httpx.AsyncClient, header: str | None) -> None:
        """Without a bearer key every path answers 401."""
        reply = await anonymous_client.get("/v1/models", headers={"authorization": header} if header else {})
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")

    async def test_replies_carry_the_service_headers(self, client: httpx.AsyncClient) -> None:
        """Request id, version, limits and a cookie come with every reply; request ids differ."""
        first, second = await client.get("/v1/models"), await client.get("/v1/models")
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        assert {"openai-version", "openai-processing-ms", "openai-organization", "set-cookie"} <= set(first.headers)
        assert "x-ratelimit-remaining-requests" in first.headers


class TestEveryOperation:
    async def test_replies_fit_the_contract(
        self, upstream: SimulatedUpstream, contract: Contract, client: httpx.AsyncClient
    ) -> None:
        """Whatever the request's fields hold, a JSON reply is valid against the contract's response schema."""
        for operation in upstream.operations:
            validator = _reply_validator(contract, operation)
            for body in _bodies(operation):
                path = await _existing_path(upstream, client, operation)
                reply = await client.request(operation.method, path, json=body)
                where = f"{operation.id} {body} {reply.text[:300]}"
                assert reply.is_success or reply.status_code == 400, where
                if reply.is_success and validator is not None and reply.headers.get("content-type") == JSON:
                    assert validator.is_valid(reply.json()), where

    async def test_unknown_objects_are_not_found(self, upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
        """Where objects can be created, an id that nobody got is answered with 404."""
        for path in ("/v1/responses/resp_x", "/v1/files/file-x", "/v1/files/file-x/content", "/v1/batches/batch_x"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/v1/uploads/upload_x/cancel")).status_code == 404
        assert (await client.get("/v1/vector_stores/vs_x/files")).status_code == 404


class TestObjects:
    async def test_a_created_object_lives_until_it_is_deleted(self, client: httpx.AsyncClient) -> None:
        """Create, retrieve, update and delete show one object with the caller's fields."""
        made = (await client.post("/v1/vector_stores", json={"name": "docs", "metadata": {"a": "1"}})).json()
        path = f"/v1/vector_stores/{made['id']}"
        assert (made["name"], made["metadata"]) == ("docs", {"a": "1"})
        assert (await client.get(path)).json() == made
        changed = (await client.post(path, json={"name": "more", "metadata": {"b": "2"}})).json()
        assert changed == {**made, "name": "more", "metadata": {"b": "2"}} == (await client.get(path)).json()
        gone = (await client.delete(path)).json()
        assert (gone["id"], gone["deleted"]) == (made["id"], True)
        assert (await client.get(path)).status_code == 404

    async def test_lists_hold_what_was_created_newest_first(self, client: httpx.AsyncClient) -> None:
        """A list is empty at first; cursors walk over it in both orders."""
        empty = (await client.get("/v1/vector_stores")).json()
        assert (empty["data"], empty["has_more"]) == ([], False)
        made = [(await client.post("/v1/vector_stores", json={"name": str(n)})).json()["id"] for n in range(5)]
        page = (await client.get("/v1/vector_stores", params={"limit": 2})).json()
        assert [item["id"] for item in page["data"]] == [made[4], made[3]]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (made[4], made[3], True)
        page = (await client.get("/v1/vector_stores", params={"after": made[1], "order": "asc"})).json()
        assert [item["id"] for item in page["data"]] == made[2:]
        page = (await client.get("/v1/vector_stores", params={"before": made[2], "limit": 1})).json()
        assert ([item["id"] for item in page["data"]], page["has_more"]) == ([made[3]], True)

    async def test_children_belong_to_their_parent(self, client: httpx.AsyncClient) -> None:
        """Files of one vector store are not those of another, and the store counts them."""
        one, two = [(await client.post("/v1/vector_stores", json={})).json()["id"] for _ in range(2)]
        await client.post(f"/v1/vector_stores/{one}/files", json={"file_id": "file-a"})
        batch = {"file_ids": ["file-b", "file-c"]}
        await client.post(f"/v1/vector_stores/{one}/file_batches", json=batch)
        files = (await client.get(f"/v1/vector_stores/{one}/files")).json()["data"]
        assert [(file["id"], file["vector_store_id"]) for file in files] == [
            ("file-c", one),
            ("file-b", one),
            ("file-a", one),
        ]
        assert (await client.get(f"/v1/vector_stores/{two}/files")).json()["data"] == []
        assert (await client.get(f"/v1/vector_stores/{one}")).json()["file_counts"]["total"] == 3

    async def test_lists_are_filtered(self, client: httpx.AsyncClient) -> None:
        """A query parameter named after a field selects by it."""
        for purpose in ("batch", "user_data"):
            await client.post("/v1/files", data={"purpose": purpose}, files={"file": ("a", b"a")})
        files = (await client.get("/v1/files", params={"purpose": "batch"})).json()["data"]
        assert [file["purpose"] for file in files] == ["batch"]

    async def test_any_model_exists(self, client: httpx.AsyncClient) -> None:
        """Objects that nobody creates through the API are there under any id."""
        assert (await client.get("/v1/models/gpt-9")).json()["id"] == "gpt-9"

    async def test_cancelled_objects_stay_cancelled(self, client: httpx.AsyncClient) -> None:
        """A verb behind an object changes its status for good."""
        made = (await client.post("/v1/responses", json={"model": "m", "input": "x", "background": True})).json()
        assert made["status"] == "queued"
        assert (await client.post(f"/v1/responses/{made['id']}/cancel")).json()["status"] == "cancelled"
        assert (await client.get(f"/v1/responses/{made['id']}")).json()["status"] == "cancelled"

    async def test_background_work_takes_its_time(self, contract: Contract) -> None:
        """With `background_seconds`, created work is in progress until they have passed."""
        slow = SimulatedUpstream(contract, background_seconds=3600)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=slow), base_url="http://u", headers=KEY
        ) as client:
            made = (await client.post("/v1/responses", json={"model": "m", "input": "x", "background": True})).json()
            assert (made["status"], made["output"]) == ("queued", [])
            seen = (await client.get(f"/v1/responses/{made['id']}")).json()
            assert (seen["status"], seen["output"]) == ("in_progress", [])
            assert (await client.post(f"/v1/responses/{made['id']}/cancel")).json()["status"] == "cancelled"
            assert (await client.get(f"/v1/responses/{made['id']}")).json()["status"] == "cancelled"

    async def test_a_stream_may_be_left_and_the_response_asked_for(
        self, upstream: SimulatedUpstream, client: httpx.AsyncClient
    ) -> None:
        """In the background, the response of a stream goes on by its id, in progress until it is finished."""
        question = {"model": "m", "input": "x", "background": True, "stream": True}
        for seconds, status in ((3600.0, "in_progress"), (0.0, "completed")):
            upstream.faults.add(Fault(operation_id="createResponse", times=1, background_seconds=seconds))
            stream = (await client.post("/v1/responses", json=question)).text
            (response_id,) = set(re.findall(r'"id":"(resp_[^"]+)"', stream))
            assert (await client.get(f"/v1/responses/{response_id}")).json()["status"] == status

    async def test_items_of_the_request_are_listed(self, client: httpx.AsyncClient) -> None:
        """A response shows its input, a conversation its items."""
        made = (await client.post("/v1/responses", json={"model": "m", "input": "hello"})).json()
        items = (await client.get(f"/v1/responses/{made['id']}/input_items")).json()["data"]
        assert items[0]["content"] == [{"type": "input_text", "text": "hello"}]
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        items = [{"role": "user", "content": text} for text in ("one", "two")]
        reply = await client.post(f"/v1/conversations/{conversation}/items", json={"items": items})
        assert len(reply.json()["data"]) == 2


class TestFiles:
    async def test_content_comes_back_byte_for_byte(self, client: httpx.AsyncClient, tmp_path: Path) -> None:
        """A large file goes to disk on its way in and is handed out in pieces on its way out."""
        blob = bytes(range(256)) * 2000
        reply = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": ('a"b.bin', blob)})
        made = reply.json()
        assert (made["bytes"], made["purpose"]) == (len(blob), "batch")
        content = await client.get(f"/v1/files/{made['id']}/content")
        assert content.content == blob
        assert content.headers["content-length"] == str(len(blob))
        assert content.headers["content-disposition"].startswith("attachment; filename=")
        assert list(tmp_path.rglob("*"))

    async def test_upload_parts_are_joined(self, client: httpx.AsyncClient) -> None:
        """A completed upload is a file whose content is the parts in the order asked for."""
        size = {"bytes": 6, "filename": "x.txt", "mime_type": "text/plain", "purpose": "user_data"}
        upload = (await client.post("/v1/uploads", json=size)).json()
        assert upload["status"] == "pending"
        path = f"/v1/uploads/{upload['id']}"
        parts = [
            (await client.post(f"{path}/parts", files={"data": ("p", data)})).json()["id"] for data in (b"def", b"abc")
        ]
        refused = await client.post(f"{path}/complete", json={"part_ids": parts[:1]})
        assert refused.status_code == 400
        done = (await client.post(f"{path}/complete", json={"part_ids": parts[::-1]})).json()
        assert done["status"] == "completed"
        assert (await client.get(f"/v1/files/{done['file']['id']}/content")).content == b"abcdef"

    async def test_a_file_of_any_size_can_be_asked_for(self, upstream: SimulatedUpstream) -> None:
        """`file-size-N` sends N bytes in pieces of 64 KiB and keeps nothing."""
        exchange = Exchange(upstream, "GET", "/v1/files/file-size-200000/content")
        await exchange.task
        assert [len(piece) for piece in exchange.messages] == [65536, 65536, 65536, 3392]

    @pytest.mark.parametrize("blob", [bytes(range(256)) * 2000, b"0123456789"], ids=["on disk", "in memory"])
    async def test_a_part_of_a_file_can_be_asked_for(
        self, upstream: SimulatedUpstream, client: httpx.AsyncClient, blob: bytes
    ) -> None:
        """The part says where it lies; behind the end there is none; what is no plain range gets the whole."""
        made = (await client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.bin", blob)})).json()
        path = f"/v1/files/{made['id']}/content"

        async def ask(header: str) -> httpx.Response:
            return await client.get(path, headers={"Range": header})

        for start, end in ((0, 1), (3, 7), (len(blob) - 4, len(blob)), (65_530, 65_540), (2, len(blob) + 9)):
            if start >= len(blob):
                continue
            reply = await ask(f"bytes={start}-{end - 1}")
            last = min(end, len(blob)) - 1
            assert (reply.status_code, reply.content) == (206, blob[start:end])
            assert reply.headers["content-range"] == f"bytes {start}-{last}/{len(blob)}"
            assert reply.headers["content-length"] == str(len(reply.content))
        assert (await ask("bytes=5-")).content == blob[5:]
        behind = await ask(f"bytes={len(blob)}-")
        assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(blob)}")
        for header in ("bytes=-5", "bytes=0-1,3-4", "bytes=5-3", "items=0-1"):
            whole = await ask(header)
            assert (whole.status_code, whole.content) == (200, blob)
        upstream.faults.add(Fault(ignore_range=True))
        assert (await ask("bytes=3-7")).content == blob

    async def test_a_batch_has_an_output_file(self, client: httpx.AsyncClient) -> None:
        """Every line of the input file is answered by a line of the output file."""
        lines = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
        file = (await client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", lines)})).json()
        body = {"input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h"}
        batch = (await client.post("/v1/batches", json=body)).json()
        assert batch["status"] == "validating"
        batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
        output = await client.get(f"/v1/files/{batch['output_file_id']}/content")
        rows = [orjson.loads(line) for line in output.content.splitlines()]
        assert [row["custom_id"] for row in rows] == ["a", "b"]
        assert rows[0]["response"]["body"]["object"] == "response"

    @pytest.mark.parametrize(
        "content_type,body",
        [
            ("application/json", b"{"),
            ("application/json", b"[]"),
            ("multipart/form-data", b"--x"),
            ("multipart/form-data; boundary=x", b"--x\r\nnothing"),
        ],
    )
    async def test_malformed_bodies_are_refused(
        self, client: httpx.AsyncClient, content_type: str, body: bytes
    ) -> None:
        """A body that cannot be read is answered with 400."""
        reply = await client.post("/v1/files", content=body, headers={"content-type": content_type})
        assert reply.status_code == 400

    @pytest.mark.parametrize(
        "path,part,missing",
        [
            ("/v1/files", "file", "purpose"),
            ("/v1/files", "purpose", "file"),
            ("/v1/audio/translations", "file", "model"),
        ],
    )
    async def test_a_missing_part_is_named(self, client: httpx.AsyncClient, path: str, part: str, missing: str) -> None:
        """A multipart body without a part that the contract requires, also through `allOf`, is answered with 400."""
        reply = await client.post(path, files={part: ("a.txt", b"a")})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, missing)


class TestStreams:
    async def test_one_message_per_event_in_order(self, upstream: SimulatedUpstream) -> None:
        """The example's events come one by one, under the id and model of the new response."""
        body = orjson.dumps({"model": "gpt-other", "input": "x", "stream": True})
        headers = ((b"authorization", b"Bearer k"), (b"content-type", b"application/json"))
        exchange = Exchange(upstream, "POST", "/v1/responses", body=(body,), headers=headers)
        await exchange.task
        events = [orjson.loads(message.partition(b"data: ")[2]) for message in exchange.messages]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
        final = events[-1]["response"]
        assert final["model"] == "gpt-other"
        assert final["id"] == events[0]["response"]["id"] != "resp_example1"
        retrieved = Exchange(upstream, "GET", f"/v1/responses/{final['id']}")
        await retrieved.task
        assert orjson.loads(retrieved.messages[0])["output"] == final["output"]

    async def test_a_stream_can_be_resumed(self, client: httpx.AsyncClient) -> None:
        """`starting_after` leaves out the events before."""
        made = (await client.post("/v1/responses", json={"model": "m", "input": "x"})).json()
        reply = await client.get(f"/v1/responses/{made['id']}", params={"stream": "true", "starting_after": "2"})
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert b'"sequence_number":3' in reply.content.replace(b": ", b":").partition(b"\n\n")[0]

    async def test_multipart_fields_ask_for_streams_and_text(self, client: httpx.AsyncClient) -> None:
        """A transcription streams with `stream=true`, and is text with `response_format=srt`."""
        files = {"file": ("a.mp3", b"x")}
        reply = await client.post("/v1/audio/transcriptions", data={"model": "m", "stream": "true"}, files=files)
        assert reply.headers["content-type"].startswith("text/event-stream")
        reply = await client.post(
            "/v1/audio/transcriptions", data={"model": "m", "response_format": "srt"}, files=files
        )
        assert reply.headers["content-type"].startswith("text/plain")


async def test_multipart_is_recorded_whole(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """The recorder knows size, digest and beginning of a body that was never in memory as a whole."""
    request = client.build_request(
        "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"z" * 300_000)}
    )
    sent = await request.aread()
    await client.send(request)
    (record,) = upstream.recorder.requests
    assert record.operation_id == "createFile"
    assert (record.body_size, record.body_sha256) == (len(sent), hashlib.sha256(sent).hexdigest())
    assert record.body_start == sent[:65536]


def _bodies(operation: Operation) -> list[dict[str, Any] | None]:
    """The example body, and the same with every field that replies may have replaced by odd values."""
    if operation.body is None or JSON not in operation.body.content:
        return [None]
    example: dict[str, Any] = next(iter(operation.body.content[JSON].examples.values()), {})
    names = set(example) | {"model", "name", "metadata", "instructions", "tools", "expires_after", "filename", "user"}
    return [example, *({**dict.fromkeys(names, value), "stream": False} for value in ODD_VALUES)]


def _reply_validator(contract: Contract, operation: Operation) -> Any:
    media = operation.success[1].get(JSON)
    if media is None or media.pointer is None:
        return None
    return jsonschema_rs.Draft202012Validator({"components": contract.document["components"], "$ref": media.pointer})


async def _existing_path(upstream: SimulatedUpstream, client: httpx.AsyncClient, operation: Operation) -> str:
    """The operation's path with ids of objects created for the purpose."""
    path = ""
    template = ""
    for segment in operation.path.split("/")[1:]:
        if not segment.startswith("{"):
            path, template = f"{path}/{segment}", f"{template}/{segment}"
            continue
        creator = next((o for o in upstream.operations if (o.method, o.path) == ("POST", template)), None)
        value = "example1"
        if creator is not None and JSON in creator.success[1]:
            reply = (await _create(client, creator, path)).json()
            found = reply["data"][0] if reply.get("object") == "list" else reply
            value = found.get(segment[1:-1], found["id"])
        path, template = f"{path}/{value}", f"{template}/{segment}"
    return path


async def _create(client: httpx.AsyncClient, creator: Operation, path: str) -> httpx.Response:
    content = creator.body.content if creator.body else {}
    if JSON in content:
        body: dict[str, Any] = next(iter(content[JSON].examples.values()), {})
        if creator.id == "createChatCompletion":
            body = {**body, "store": True}
        return await client.post(path, json=body)
    parts: dict[str, Any] = next(iter(content[MULTIPART].examples.values()), {}) if MULTIPART in content else {}
    return await client.post(path, files=dict.fromkeys({"file": None, **parts}, ("a.txt", b"a")))
