import base64
import hashlib
import re
from typing import Any

import httpx
import pytest

from codegen.contract import Scope
from handlers.audio_wrappers import (
    MAX_INLINE_BYTES,
    MAX_RECORDING_BYTES,
    SPEECH_MODEL,
    TRANSCRIPTION_MODEL,
    TRANSLATION_MODEL,
    VOICE,
)
from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.content import GeneratedContent
from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.file_relay import FileRelay, fetch_link, parts_of, read_reply
from tests.support.file_server import whole
from tests.support.relay_errors import assert_relay_error
from tests.support.transfers import GROWTH_LIMIT_MIB, MIB, PeakMemory

pytestmark = pytest.mark.integration

SPEECH = "/v1/actions/audio/speech"
TRANSCRIPTIONS = "/v1/actions/audio/transcriptions"
TRANSLATIONS = "/v1/actions/audio/translations"
UPSTREAM = {SPEECH: "createSpeech", TRANSCRIPTIONS: "createTranscription", TRANSLATIONS: "createTranslation"}
SCHEMA = {SPEECH: "SpeechFile", TRANSCRIPTIONS: "RecordingText", TRANSLATIONS: "RecordingText"}
WRITTEN = {TRANSCRIPTIONS: TRANSCRIPTION_MODEL, TRANSLATIONS: TRANSLATION_MODEL}
HELLO = {"input": "Hello."}
RECORDING = b"ID3 made up"
LARGE_BYTES = 20 * MIB


def generated(size: int) -> bytes:
    """The bytes of a recording that the upstream makes up."""
    return b"".join(GeneratedContent(size).pieces())


def speaking(upstream: SimulatedUpstream, size: int, media_type: str = "audio/mpeg", **more: Any) -> None:
    """Let the upstream answer a recording of so many bytes."""
    upstream.faults.add(Fault("createSpeech", content_bytes=size, headers={"content-type": media_type}, **more))


def body_of(path: str, offered: FileRelay) -> dict[str, Any]:
    """A good body for one of the three."""
    return HELLO if path == SPEECH else {"openaiFileIdRefs": [offered.offer("memo.mp3", RECORDING, "audio/mpeg")]}


def arrived_whole(record: RecordedRequest, content: bytes) -> bool:
    """Whether the last part of a multipart body holds exactly this content."""
    found = re.search(r"boundary=(\S+)", record.header("content-type") or "")
    assert found is not None
    head = record.body_start[: record.body_start.rindex(b"\r\n\r\n") + 4]
    digest = hashlib.sha256(head + content + f"\r\n--{found[1]}--\r\n".encode())
    return record.body_sha256 == digest.hexdigest()


@pytest.mark.parametrize("size", [1, MAX_INLINE_BYTES], ids=["smallest", "largest"])
def test_a_short_recording_comes_as_a_file(size: int, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """What fits into the reply stands in it, in the form that the assistant takes for a file."""
    speaking(upstream, size)
    value = read_reply(assistant.post(SPEECH, json=HELLO), "SpeechFile")
    (file,) = value["openaiFileResponse"]
    assert (file["name"], file["mime_type"]) == ("speech.mp3", "audio/mpeg")
    assert base64.b64decode(file["content"], validate=True) == generated(size)
    assert "links" not in value


@pytest.mark.parametrize("size", [MAX_INLINE_BYTES + 1, 5 * MIB], ids=["smallest", "large"])
def test_a_long_recording_comes_as_a_link(size: int, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """One byte more, and it lies behind a link; every byte of it."""
    speaking(upstream, size, "audio/wav")
    value = read_reply(assistant.post(SPEECH, json=HELLO | {"response_format": "wav"}), "SpeechFile")
    (link,) = value["links"]
    assert (link["name"], link["mime_type"]) == ("speech.wav", "audio/wav")
    assert fetch_link(link) == generated(size)
    assert "`links`" in value["how"]
    assert "openaiFileResponse" not in value


def test_a_slow_recording_comes_all_the_same(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """An upstream that takes its time is waited for."""
    speaking(upstream, 5 * MIB, delay_seconds=1.5)
    value = read_reply(assistant.post(SPEECH, json=HELLO), "SpeechFile")
    assert value["links"][0]["bytes"] == 5 * MIB


def test_model_and_voice_are_named_where_the_assistant_names_none(
    assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """What is sent is the assistant's fields, with a model and a voice."""
    sent = []
    for fields in ({"idempotency_key": "a", "speed": 1.5}, {"model": "house-1", "voice": "cedar"}):
        read_reply(assistant.post(SPEECH, json=HELLO | fields), "SpeechFile")
        sent.append(httpx.Response(200, content=upstream.recorder.requests[-1].body_start).json())
    assert sent == [
        {"model": SPEECH_MODEL, "voice": VOICE, **HELLO, "speed": 1.5},
        {"model": "house-1", "voice": "cedar", **HELLO},
    ]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("createSpeech", status=200, body={"text": "no recording"}),
        Fault("createSpeech", content_bytes=0),
        Fault("createSpeech", content_bytes=5 * MIB, cut_after_bytes=3 * MIB),
    ],
    ids=["json", "empty", "cut"],
)
def test_half_a_recording_is_none(fault: Fault, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """What is empty, broken off or something else is an error, never a file."""
    upstream.faults.add(fault)
    assert_relay_error(assistant.post(SPEECH, json=HELLO), exc.UpstreamProtocolError)


@pytest.mark.parametrize("path", WRITTEN)
def test_a_recording_becomes_text(
    path: str, assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """The file goes upstream as it came, with model and form of the answer; the text comes back whole."""
    text = "Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}ezi\n" * 100
    upstream.faults.add(Fault(UPSTREAM[path], status=200, body={"text": text, "usage": {"type": "duration"}}))
    body = body_of(path, offered) | {"prompt": "Names."}
    value = read_reply(assistant.post(path, json=body), "RecordingText")
    assert value == {"text": text, "truncated": False}
    (record,) = upstream.recorder.requests
    assert parts_of(record) == [
        ("model", None, "text/plain", WRITTEN[path].encode()),
        ("response_format", None, "text/plain", b"json"),
        ("prompt", None, "text/plain", b"Names."),
        ("file", "memo.mp3", "audio/mpeg", RECORDING),
    ]


@pytest.mark.parametrize("path", WRITTEN)
def test_the_answer_that_the_contract_shows_works(path: str, assistant: httpx.Client, offered: FileRelay) -> None:
    """The upstream's own example is understood."""
    value = read_reply(assistant.post(path, json=body_of(path, offered)), "RecordingText")
    assert value["text"]
    assert value["truncated"] is False


@pytest.mark.parametrize("path", WRITTEN)
@pytest.mark.parametrize(
    "letter", ["word ", "\N{SNOWMAN}", "\N{GRINNING FACE}", '"'], ids=["word", "six", "twelve", "two"]
)
def test_a_long_text_is_cut_and_linked(
    path: str, letter: str, assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Two megabytes: the reply holds the beginning and says so, the link holds all of it."""
    text = letter * (2 * MIB // len(letter.encode()))
    upstream.faults.add(Fault(UPSTREAM[path], status=200, body={"text": text}))
    value = read_reply(assistant.post(path, json=body_of(path, offered)), "RecordingText")
    assert value["truncated"] is True
    assert len(value["text"]) > 7_000
    assert text.startswith(value["text"])
    assert "`links`" in value["how"]
    (link,) = value["links"]
    assert link["mime_type"] == "text/plain; charset=utf-8"
    assert fetch_link(link).decode() == text


def test_a_recording_gets_the_ending_by_which_the_upstream_knows_it(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """The upstream goes by the name, and files of a conversation do not always have a telling one."""
    names = []
    for name, media_type in (("memo", "audio/x-m4a"), ("memo.v2", "video/webm"), ("memo.OGG", "audio/ogg")):
        body = {"openaiFileIdRefs": [offered.offer(name, RECORDING, media_type)], "language": "de"}
        read_reply(assistant.post(TRANSCRIPTIONS, json=body), "RecordingText")
        names.append(parts_of(upstream.recorder.requests[-1])[-1][1])
    assert names == ["memo.m4a", "memo.v2.webm", "memo.OGG"]


def test_only_recordings_of_a_size_that_the_upstream_takes_are_sent(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Another type is refused, and so is one byte too many; neither reaches the upstream."""
    text = offered.offer("notes.txt", b"notes", "text/plain")
    large = offered.offer("large.mp3", bytes(MAX_RECORDING_BYTES + 1), "audio/mpeg")
    for reference, error in (
        (text, exc.FileRefused),
        (large, exc.FileTooLarge),
        (offered.refer("gone.mp3", "audio/mpeg"), exc.FileUnreachable),
    ):
        assert_relay_error(assistant.post(TRANSCRIPTIONS, json={"openaiFileIdRefs": [reference]}), error)
    assert upstream.recorder.count == 0


def test_a_recording_that_grows_on_its_way_is_too_large(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Where its host does not say how long it is, the limit holds in mid-file, and the client learns why."""
    piece = bytes(MIB)
    offered.files.answers["/growing.mp3"] = whole([piece] * 26, media_type="audio/mpeg")
    body = {"openaiFileIdRefs": [offered.refer("growing.mp3", "audio/mpeg")]}
    assert_relay_error(assistant.post(TRANSCRIPTIONS, json=body), exc.FileTooLarge)
    assert all(record.status is None for record in upstream.recorder.requests)


def test_a_refusal_of_the_upstream_comes_as_it_is(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Status and body of an error are the upstream's."""
    for path, operation_id in UPSTREAM.items():
        upstream.faults.add(Fault(operation_id, status=429, body={"error": {"message": "Slowly.", "code": path}}))
        reply = assistant.post(path, json=body_of(path, offered))
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, path)


@pytest.mark.parametrize("body", [{"words": []}, {"text": None}, ["text"]], ids=["none", "null", "no_object"])
def test_an_answer_without_text_is_an_error(
    body: Any, assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Nothing is made up where the upstream says nothing."""
    upstream.faults.add(Fault("createTranscription", status=200, body=body))
    reply = assistant.post(TRANSCRIPTIONS, json=body_of(TRANSCRIPTIONS, offered))
    assert_relay_error(reply, exc.UpstreamProtocolError)


def test_the_largest_recording_goes_up_in_constant_memory(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """It passes through the relay while it comes, and arrives whole."""
    content = generated(MAX_RECORDING_BYTES)
    body = {"openaiFileIdRefs": [offered.offer("long.mp3", content, "audio/mpeg")]}
    read_reply(assistant.post(TRANSCRIPTIONS, json=body_of(TRANSCRIPTIONS, offered)), "RecordingText")
    with PeakMemory(offered.relay.pid) as memory:
        read_reply(assistant.post(TRANSCRIPTIONS, json=body), "RecordingText")
    assert arrived_whole(upstream.recorder.requests[-1], content)
    assert memory.growth_mib < GROWTH_LIMIT_MIB


def test_a_large_recording_comes_down_in_constant_memory(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """It goes into the store while it comes, and out of it piece by piece."""
    for size in (MIB, LARGE_BYTES):
        speaking(upstream, size, times=1)
    fetch_link(read_reply(assistant.post(SPEECH, json=HELLO), "SpeechFile")["links"][0])
    with PeakMemory(offered.relay.pid) as memory:
        value = read_reply(assistant.post(SPEECH, json=HELLO), "SpeechFile")
        content = fetch_link(value["links"][0])
    assert content == generated(LARGE_BYTES)
    assert memory.growth_mib < GROWTH_LIMIT_MIB


@pytest.mark.parametrize("path", UPSTREAM)
def test_the_same_key_asks_once(
    path: str, assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """A second call with the same key and fields gets the first reply; with other fields it is refused."""
    body = body_of(path, offered) | {"idempotency_key": f"ask {path}"}
    first, second = (assistant.post(path, json=body) for _ in range(2))
    assert read_reply(first, SCHEMA[path]) == read_reply(second, SCHEMA[path])
    other = assistant.post(path, json=body | {"model": "another"})
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
        read_reply(reply, SCHEMA[path])
    else:
        assert_relay_error(reply, exc.InsufficientScope)
    assert upstream.recorder.count == (scope is Scope.ACTIONS)
