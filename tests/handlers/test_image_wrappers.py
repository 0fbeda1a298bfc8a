import json
from dataclasses import replace
from typing import Any

import orjson
import pytest

from handlers.image_wrappers import (
    IMAGE_MODEL,
    MAX_PLAIN_BYTES,
    PLAIN_TYPES,
    VARIATION_MODEL,
    edit_images,
    generate_images,
    vary_image,
)
from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.exceptions import FileRefused, FileUnreachable, InvalidBody, RelayError
from handlers.runtime.images import IMAGE_TYPES, MAX_IMAGE_BYTES
from handlers.runtime.messages import Reply, Request
from handlers.runtime.services import Services
from handlers.runtime.wrapped_calls import UpstreamRefusal
from tests.handlers.conftest import MakeRequest
from tests.handlers.wrapper_doubles import FilesOfTest, UpstreamOfTest, answered, refused, services_with
from tests.support.artifacts import PATH, SECRET
from tests.support.images import image, images_answer

CAT = "https://files.oaiusercontent.com/cat.png?sig=secret"
DOG = "https://files.oaiusercontent.com/dog.png?sig=secret"


class Wrapped:
    """Requests to the wrappers before an upstream and hosts of files that a test sets up."""

    def __init__(self, request_of: MakeRequest, own_services: Services) -> None:
        self.upstream = UpstreamOfTest([lambda _: answered(images_answer([image("image/png")]))])
        self.files = FilesOfTest({CAT: [b"cat"], DOG: [b"dog"]})
        self._request_of = request_of
        stored = replace(own_services, artifacts=ArtifactStore("memory:///", SECRET, path=PATH))
        self._services = services_with(stored, self.upstream, self.files)

    def request(self, operation_id: str, **body: Any) -> Request:
        """A request to one of the wrappers."""
        return self._request_of(operation_id, services=self._services, body=body)


@pytest.fixture
def wrapped(request_of: MakeRequest, own_services: Services) -> Wrapped:
    """The wrappers, with images offered and an upstream that answers one."""
    return Wrapped(request_of, own_services)


async def test_the_wrapped_operation_is_the_one_that_the_contract_names(wrapped: Wrapped) -> None:
    """Drawing, editing and varying each end at their own operation of the upstream."""
    await generate_images(wrapped.request("generateImages", prompt="A cat."))
    await edit_images(wrapped.request("editImages", prompt="A dog.", openaiFileIdRefs=[CAT]))
    await vary_image(wrapped.request("varyImage", openaiFileIdRefs=[CAT]))
    assert [f"{call.method} {call.path}" for call in wrapped.upstream.calls] == [
        "POST /v1/images/generations",
        "POST /v1/images/edits",
        "POST /v1/images/variations",
    ]
    assert wrapped.upstream.closed == 3


async def test_only_what_the_upstream_knows_is_sent(wrapped: Wrapped) -> None:
    """The fields of the relay stay behind; a model that is named stays as it is."""
    await generate_images(wrapped.request("generateImages", prompt="A cat.", idempotency_key="a"))
    await generate_images(wrapped.request("generateImages", prompt="A cat.", model="dall-e-2", n=3))
    assert [orjson.loads(call.body) for call in wrapped.upstream.calls] == [
        {"model": IMAGE_MODEL, "prompt": "A cat."},
        {"model": "dall-e-2", "prompt": "A cat.", "n": 3, "response_format": "b64_json"},
    ]


async def test_each_file_is_fetched_by_the_limits_of_its_purpose(wrapped: Wrapped) -> None:
    """Images may be what the upstream takes as such; masks and what is varied are small pngs."""
    await edit_images(wrapped.request("editImages", prompt="A", openaiFileIdRefs=[CAT, DOG], last_is_mask=True))
    await vary_image(wrapped.request("varyImage", openaiFileIdRefs=[CAT]))
    assert wrapped.files.limits == [MAX_IMAGE_BYTES, MAX_PLAIN_BYTES, MAX_PLAIN_BYTES]
    assert wrapped.files.media_types == [IMAGE_TYPES, PLAIN_TYPES, PLAIN_TYPES]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"openaiFileIdRefs": [CAT]}, [b'name="image"; filename="cat.png"']),
        ({"openaiFileIdRefs": [CAT, DOG]}, [b'name="image[]"; filename="cat.png"', b'name="image[]"; filename="dog.p']),
        (
            {"openaiFileIdRefs": [CAT, DOG], "last_is_mask": True},
            [b'name="image"; filename="cat.png"', b'name="mask"; filename="dog.png"'],
        ),
        (
            {"openaiFileIdRefs": [CAT, DOG], "last_is_mask": False},
            [b'name="image[]"; filename="cat.png"', b'name="image[]"; filename="dog.p'],
        ),
    ],
    ids=["one", "two", "one_and_mask", "two_and_no_mask"],
)
async def test_parts_are_named_as_the_sdk_names_them(
    fields: dict[str, Any], names: list[bytes], wrapped: Wrapped
) -> None:
    """One image is `image`, several are `image[]`, the mask is `mask`; each stands there once, in its order."""
    await edit_images(wrapped.request("editImages", prompt="A", **fields))
    body = wrapped.upstream.calls[0].body
    assert sorted(names, key=body.index) == names
    assert body.count(b"filename=") == len(names)
    assert b'name="model"\r\n\r\n%b\r\n' % IMAGE_MODEL.encode() in body


async def test_a_variation_asks_for_base64_of_the_only_model_there_is(wrapped: Wrapped) -> None:
    """Its links would be those of a foreign storage otherwise."""
    await vary_image(wrapped.request("varyImage", openaiFileIdRefs=[CAT], size="256x256"))
    body = wrapped.upstream.calls[0].body
    for name, value in (("model", VARIATION_MODEL), ("size", "256x256"), ("response_format", "b64_json")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body


@pytest.mark.parametrize("error", [FileRefused("No."), FileUnreachable("Gone.")], ids=["refused", "unreachable"])
async def test_one_bad_file_stops_all(error: RelayError, wrapped: Wrapped) -> None:
    """What is wrong with any file is known before anything is sent."""
    wrapped.files.files[DOG] = error
    with pytest.raises(type(error)):
        await edit_images(wrapped.request("editImages", prompt="A", openaiFileIdRefs=[CAT, DOG]))
    assert wrapped.upstream.calls == []


async def test_a_mask_alone_is_refused(wrapped: Wrapped) -> None:
    """There must be an image to which it belongs."""
    with pytest.raises(InvalidBody) as caught:
        await edit_images(wrapped.request("editImages", prompt="A", openaiFileIdRefs=[CAT], last_is_mask=True))
    assert caught.value.param == "last_is_mask"


async def test_a_number_beyond_64_bits_is_answered(wrapped: Wrapped) -> None:
    """An odd time of the upstream does not cost the image."""
    wrapped.upstream.answers = [
        Reply(200, [], json.dumps(images_answer([image("image/png")]) | {"created": 2**70}).encode())
    ]
    reply = await generate_images(wrapped.request("generateImages", prompt="A cat."))
    assert isinstance(reply.body, bytes)
    assert (reply.status, json.loads(reply.body)["created"]) == (200, 2**70)


async def test_a_refusal_of_the_upstream_ends_the_call(wrapped: Wrapped) -> None:
    """The reply that goes to the client is the upstream's."""
    wrapped.upstream.answers = [refused("No.")]
    with pytest.raises(UpstreamRefusal) as caught:
        await generate_images(wrapped.request("generateImages", prompt="A"))
    assert caught.value.reply.status == 400
