import hashlib
from typing import Any

import httpx
import pytest

from codegen.contract import Scope
from handlers.image_wrappers import IMAGE_MODEL, VARIATION_MODEL
from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_relay import FileRelay, fetch_link, parts_of, read_reply
from tests.support.file_server import redirect, stalled
from tests.support.images import image, images_answer
from tests.support.relay_errors import assert_relay_error
from tests.support.transfers import MIB

pytestmark = pytest.mark.integration

GENERATIONS = "/v1/actions/images/generations"
EDITS = "/v1/actions/images/edits"
VARIATIONS = "/v1/actions/images/variations"
UPSTREAM = {GENERATIONS: "createImage", EDITS: "createImageEdit", VARIATIONS: "createImageVariation"}
PROMPT: dict[str, Any] = {"prompt": "A lighthouse."}
PNG = image("image/png")


def answering(upstream: SimulatedUpstream, body: Any, operation_id: str = "createImage") -> None:
    """Let the upstream answer so."""
    upstream.faults.add(Fault(operation_id, status=200, body=body))


def body_of(path: str, offered: FileRelay) -> dict[str, Any]:
    """A good body for one of the three."""
    reference = {"openaiFileIdRefs": [offered.offer("cat.png", PNG, "image/png")]}
    bodies: dict[str, dict[str, Any]] = {GENERATIONS: PROMPT, EDITS: PROMPT | reference, VARIATIONS: reference}
    return bodies[path]


@pytest.mark.parametrize("path", UPSTREAM)
def test_images_come_as_links(
    path: str, assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """What the upstream sends as Base64 lies behind links, in its order, told by its first bytes, without a key."""
    contents = [image("image/png", 100), image("image/jpeg", 101), image("image/webp", 102)]
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12, "input_tokens_details": {"text_tokens": 5}}
    answering(upstream, images_answer(contents, usage=usage), UPSTREAM[path])
    value = read_reply(assistant.post(path, json=body_of(path, offered)), "ImageLinks")
    names = [(item["name"], item["mime_type"]) for item in value["data"]]
    assert names == [("image-1.png", "image/png"), ("image-2.jpg", "image/jpeg"), ("image-3.webp", "image/webp")]
    assert [fetch_link(item) for item in value["data"]] == contents
    assert (value["created"], value["usage"]["total_tokens"]) == (1_790_000_000, 12)
    assert "Markdown image" in value["how"]
    assert [record.operation_id for record in upstream.recorder.requests] == [UPSTREAM[path]]


def test_what_the_contract_shows_works_as_it_is(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """The upstream's own example comes back as a link to the same small image."""
    value = read_reply(assistant.post(GENERATIONS, json=PROMPT), "ImageLinks")
    (item,) = value["data"]
    assert item["mime_type"] == "image/png"
    assert fetch_link(item).startswith(b"\x89PNG")
    assert upstream.recorder.requests[0].header("authorization") != assistant.headers["authorization"]


@pytest.mark.parametrize(("count", "size"), [(1, 4 * MIB), (4, 4 * MIB), (10, MIB)], ids=lambda value: str(value))
def test_large_images_and_many_fit_into_a_reply(
    count: int, size: int, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """However much the upstream sends, the assistant gets a short reply and the user every byte."""
    contents = [image("image/png", size, seed) for seed in range(count)]
    answer = images_answer(contents)
    for item in answer["data"]:
        item["revised_prompt"] = "\N{SNOWMAN}" * 32_000
    answering(upstream, answer)
    value = read_reply(assistant.post(GENERATIONS, json=PROMPT), "ImageLinks")
    assert len(value["data"]) == count
    assert all(len(item["revised_prompt"]) < 4_000 for item in value["data"])
    fetched = [hashlib.sha256(fetch_link(item)).hexdigest() for item in value["data"]]
    assert fetched == [hashlib.sha256(content).hexdigest() for content in contents]


def test_a_link_of_the_upstream_is_passed_on(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Where a service answers https links of its own, they are what the assistant gets, and nothing is made up."""
    url = "https://images.example/a.png?sig=1"
    answering(upstream, {"created": 1, "data": [{"url": url, "revised_prompt": "A tower."}]})
    value = read_reply(assistant.post(GENERATIONS, json=PROMPT), "ImageLinks")
    assert value["data"] == [{"url": url, "name": "image-1", "revised_prompt": "A tower."}]


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": [{"b64_json": "no Base64"}]},
        {"data": [{"url": "http://images.example/a.png"}]},
        {"data": [{"url": "https://images.example/a b"}]},
        ["no object"],
    ],
    ids=["none", "garbled", "plain_http", "no_url", "no_object"],
)
def test_what_is_no_image_is_an_error(body: Any, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """An answer without an image that can be read is the upstream's fault, and is said to be."""
    answering(upstream, body)
    assert_relay_error(assistant.post(GENERATIONS, json=PROMPT), exc.UpstreamProtocolError)


def test_a_refusal_of_the_upstream_comes_as_it_is(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Status and body of an error are the upstream's."""
    error = {"error": {"message": "No.", "type": "image_generation_user_error", "param": None, "code": "moderated"}}
    upstream.faults.add(Fault("createImage", status=400, body=error))
    reply = assistant.post(GENERATIONS, json=PROMPT)
    assert (reply.status_code, reply.json()) == (400, error)


def test_a_model_is_named_where_the_assistant_names_none(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """What is sent is the assistant's fields and a model; only models that would answer links are asked for Base64."""
    sent = []
    for fields in ({"idempotency_key": "a", "n": 2}, {"model": "dall-e-3"}, {"model": "house-1"}):
        read_reply(assistant.post(GENERATIONS, json=PROMPT | fields), "ImageLinks")
        sent.append(httpx.Response(200, content=upstream.recorder.requests[-1].body_start).json())
    assert sent == [
        {"model": IMAGE_MODEL, **PROMPT, "n": 2},
        {"model": "dall-e-3", **PROMPT, "response_format": "b64_json"},
        {"model": "house-1", **PROMPT},
    ]
    read_reply(assistant.post(VARIATIONS, json=body_of(VARIATIONS, offered) | {"n": 2}), "ImageLinks")
    assert parts_of(upstream.recorder.requests[-1]) == [
        ("model", None, "text/plain", VARIATION_MODEL.encode()),
        ("n", None, "text/plain", b"2"),
        ("response_format", None, "text/plain", b"b64_json"),
        ("image", "cat.png", "image/png", PNG),
    ]


def test_images_of_a_conversation_go_upstream_in_their_order(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """All files arrive whole under their names; the last one is the mask where the assistant says so."""
    photo, mask = image("image/jpeg", 2000), image("image/png", 500)
    body = PROMPT | {
        "openaiFileIdRefs": [
            offered.offer("cat.png", PNG, "image/png"),
            offered.offer("dog.jpg", photo, "image/jpeg"),
            offered.offer("mask.png", mask, "image/png"),
        ],
        "last_is_mask": True,
        "size": "1024x1024",
    }
    read_reply(assistant.post(EDITS, json=body), "ImageLinks")
    (record,) = upstream.recorder.requests
    assert parts_of(record) == [
        ("model", None, "text/plain", IMAGE_MODEL.encode()),
        ("prompt", None, "text/plain", PROMPT["prompt"].encode()),
        ("size", None, "text/plain", b"1024x1024"),
        ("image[]", "cat.png", "image/png", PNG),
        ("image[]", "dog.jpg", "image/jpeg", photo),
        ("mask", "mask.png", "image/png", mask),
    ]
    assert record.header("content-length") == str(record.body_size)


def test_ten_images_are_sent_as_they_come(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """As many as a message may have, some of them large, are one upload."""
    contents = [image("image/webp", 2 * MIB, seed) for seed in range(10)]
    references = [offered.offer(f"{n}.webp", content, "image/webp") for n, content in enumerate(contents)]
    read_reply(assistant.post(EDITS, json=PROMPT | {"openaiFileIdRefs": references}), "ImageLinks")
    (record,) = upstream.recorder.requests
    assert record.body_size > sum(map(len, contents))
    assert record.status == 200


def test_a_mask_needs_an_image(assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream) -> None:
    """One file cannot be both."""
    body = body_of(EDITS, offered) | {"last_is_mask": True}
    error = assert_relay_error(assistant.post(EDITS, json=body), exc.InvalidBody)
    assert error["param"] == "last_is_mask"
    assert (upstream.recorder.count, offered.files.connections) == (0, 0)


def test_only_images_are_sent(assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream) -> None:
    """Another type, a type that the host does not confirm, or no png where it must be one, is refused unsent."""
    text = offered.offer("notes.txt", b"notes", "text/plain")
    lying = offered.offer("page.html", b"<p>", "text/html") | {"mime_type": "image/png"}
    photo = offered.offer("dog.jpg", image("image/jpeg"), "image/jpeg")
    good = offered.offer("cat.png", PNG, "image/png")
    for path, body in (
        (EDITS, PROMPT | {"openaiFileIdRefs": [text]}),
        (EDITS, PROMPT | {"openaiFileIdRefs": [good, lying]}),
        (EDITS, PROMPT | {"openaiFileIdRefs": [good, photo], "last_is_mask": True}),
        (VARIATIONS, {"openaiFileIdRefs": [photo]}),
    ):
        assert_relay_error(assistant.post(path, json=body), exc.FileRefused)
    assert upstream.recorder.count == 0


def test_a_file_that_does_not_come_is_said_to_be_missing(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Gone, redirected elsewhere, or larger than the upstream takes: each is told, and nothing is sent."""
    offered.files.answers["/away.png"] = redirect("https://elsewhere.example/cat.png")
    offered.files.answers["/large.png"] = stalled(b"", length=4_000_001)
    for name, error in (
        ("gone.png", exc.FileUnreachable),
        ("away.png", exc.FileRefused),
    ):
        body = PROMPT | {"openaiFileIdRefs": [offered.refer(name, "image/png")]}
        assert_relay_error(assistant.post(EDITS, json=body), error)
    large = offered.offer("large.png", bytes(4_000_001), "image/png")
    assert_relay_error(assistant.post(VARIATIONS, json={"openaiFileIdRefs": [large]}), exc.FileTooLarge)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("path", UPSTREAM)
def test_the_same_key_draws_once(
    path: str, assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """A second call with the same key and fields gets the first reply; with other fields it is refused."""
    body = body_of(path, offered) | {"idempotency_key": f"draw {path}"}
    first, second = (assistant.post(path, json=body) for _ in range(2))
    assert read_reply(first, "ImageLinks") == read_reply(second, "ImageLinks")
    other = assistant.post(path, json=body | {"n": 2})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert upstream.recorder.count == 1


@pytest.mark.parametrize("path", UPSTREAM)
@pytest.mark.parametrize("scope", Scope)
def test_the_scope_of_assistants_alone_opens_them(
    scope: Scope, path: str, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """An SDK client has the operation itself; a key without `actions` gets nowhere."""
    with offered.client(scope) as client:
        reply = client.post(path, json=body_of(path, offered))
    if scope is Scope.ACTIONS:
        read_reply(reply, "ImageLinks")
    else:
        assert_relay_error(reply, exc.InsufficientScope)
    assert upstream.recorder.count == (scope is Scope.ACTIONS)
