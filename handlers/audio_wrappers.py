"""
Speech for assistants: a text in and a recording out, a recording in and its text out.

Bound by operationId to the operations tagged `Audio wrappers`.
"""

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import PurePath

from handlers.runtime.budget import MAX_REPLY_CHARACTERS, page_text
from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.file_links import keep_file
from handlers.runtime.file_names import UNSPECIFIC
from handlers.runtime.messages import Reply, Request
from handlers.runtime.multipart import FilePart, MultipartBody
from handlers.runtime.remote_files import RemoteFile, read_references
from handlers.runtime.remote_hosts import FILE_FIELD
from handlers.runtime.wrapped_calls import body_pieces, call, call_json

# The only family of speech models in upstream's document that follows `instructions`; no end of it is announced.
SPEECH_MODEL = "gpt-4o-mini-tts"
VOICE = "alloy"  # every speech model has it
# Whisper and the gpt-4o models for recordings end on 2027-02-26; this one is not among them.
TRANSCRIPTION_MODEL = "gpt-transcribe"
TRANSLATION_MODEL = "whisper-1"  # upstream translates with no other

# Upstream's limit for a recording (25 MB, which it counts as 26,214,400 bytes).
MAX_RECORDING_BYTES = 25 * 2**20
# flac, m4a, mp3, mp4, ogg, wav and webm under all of their names; which of them it takes is the upstream's to say.
RECORDING_TYPES = ("audio/", "video/mp4", "video/webm", "video/ogg", "application/ogg")
# Upstream tells a recording by the ending of its name; a file of a conversation may have none.
_ENDINGS = {
    "audio/flac": "flac",
    "audio/m4a": "m4a",
    "audio/mp3": "mp3",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/webm": "webm",
    "audio/x-flac": "flac",
    "audio/x-m4a": "m4a",
    "audio/x-wav": "wav",
    "application/ogg": "ogg",
    "video/mp4": "mp4",
    "video/ogg": "ogg",
    "video/webm": "webm",
}
_KNOWN_ENDINGS = frozenset({*_ENDINGS.values(), "mpeg", "mpga", "oga"})

_SPEECH_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",  # Opus comes in an Ogg file
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
}
_DEFAULT_FORMAT = "mp3"
# Around the recording or the text: names, types, the link with its token, and sentences.
_AROUND_CHARACTERS = 2_000
MAX_INLINE_BYTES = (MAX_REPLY_CHARACTERS - _AROUND_CHARACTERS) // 4 * 3  # three bytes are four characters of Base64
MAX_TEXT_CHARACTERS = MAX_REPLY_CHARACTERS - _AROUND_CHARACTERS


async def speak_text(request: Request) -> Reply:
    """
    Speak a text.

    Args:
        request: Its body is a `SpeakTextRequest`.

    Returns:
        `SpeechFile`: the recording itself while it fits, else a link to it. The latter never lies in memory as a whole.

    Raises:
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered something else than a recording (502).
        ArtifactStoreFull: There is no room for the recording (503).

    Source: operation `speakText`, wrapping upstream `createSpeech`.
    """
    wanted = {name: value for name, value in request.body.items() if name != "idempotency_key"}
    sent = {"model": SPEECH_MODEL, "voice": VOICE, **wanted}
    reply = await call(request, request.operation.wraps[0], body=sent)
    try:
        ending = wanted.get("response_format", _DEFAULT_FORMAT)
        media_type = _speech_type(reply, _SPEECH_TYPES[ending])
        name = f"speech.{ending}"
        async with aclosing(body_pieces(reply)) as pieces:
            start = await _read_start(pieces)
            if not start:
                raise UpstreamProtocolError("The upstream answered an empty recording; try again later.")
            if len(start) <= MAX_INLINE_BYTES:
                content = base64.b64encode(start).decode()
                return Reply.json({"openaiFileResponse": [{"name": name, "mime_type": media_type, "content": content}]})
            link = await keep_file(request, name, media_type, _joined(start, pieces))
    finally:
        if reply.close is not None:
            await reply.close()
    return Reply.json({"links": [link], "how": "Give the `url` in `links` to the user now; the link ends soon."})


async def transcribe_recording(request: Request) -> Reply:
    """
    Write down what is said in a recording.

    Args:
        request: Its body is a `TranscribeRequest`.

    Returns:
        `RecordingText`.

    Raises:
        FileRefused, FileTooLarge, FileUnreachable: The file could not be fetched (400, 413, 502).
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered no text (502).
        ArtifactStoreFull: There is no room for a text that is too long for the reply (503).

    Source: operation `transcribeRecording`, wrapping upstream `createTranscription`.
    """
    return await _written(request, TRANSCRIPTION_MODEL, "transcription.txt")


async def translate_recording(request: Request) -> Reply:
    """
    Write down in English what is said in a recording.

    Args:
        request: Its body is a `TranslateRequest`.

    Returns:
        `RecordingText`.

    Raises:
        FileRefused, FileTooLarge, FileUnreachable: The file could not be fetched (400, 413, 502).
        UpstreamRefusal: The upstream refused, as it came.
        UpstreamProtocolError: It answered no text (502).
        ArtifactStoreFull: There is no room for a text that is too long for the reply (503).

    Source: operation `translateRecording`, wrapping upstream `createTranslation`.
    """
    return await _written(request, TRANSLATION_MODEL, "translation.txt")


async def _written(request: Request, model: str, name: str) -> Reply:
    (reference,) = read_references(request.body[FILE_FIELD])
    fields = {"model": model, "response_format": "json"}
    fields |= {key: request.body[key] for key in ("model", "language", "prompt") if key in request.body}
    opening = request.services.remote_files.open(
        reference, limit_bytes=MAX_RECORDING_BYTES, media_types=RECORDING_TYPES
    )
    async with opening as file:
        part = FilePart("file", _recording_name(file), file.media_type, file.length, file.pieces)
        answer = await call_json(request, request.operation.wraps[0], body=MultipartBody(fields.items(), [part]))
    text = answer.get("text")
    if not isinstance(text, str):
        raise UpstreamProtocolError("The upstream answered no text; try again later.")
    page, rest = page_text(text, 0, MAX_TEXT_CHARACTERS)
    if rest is None:
        return Reply.json({"text": text, "truncated": False})
    link = await keep_file(request, name, "text/plain; charset=utf-8", text.encode())
    how = "Tell the user that only the beginning stands here and give them the `url` in `links`, which has all of it."
    return Reply.json({"text": page, "truncated": True, "links": [link], "how": how})


def _recording_name(file: RemoteFile) -> str:
    ending = PurePath(file.name).suffix.removeprefix(".").lower()
    if ending in _KNOWN_ENDINGS or file.media_type not in _ENDINGS:
        return file.name
    return f"{file.name}.{_ENDINGS[file.media_type]}"


def _speech_type(reply: Reply, asked: str) -> str:
    """The media type of a recording: what the upstream calls it, or what was asked for where that says nothing."""
    told = next((value.decode("latin-1") for name, value in reply.headers if name == b"content-type"), "")
    essence = told.partition(";")[0].strip().lower()
    if essence in {"", UNSPECIFIC}:
        return asked
    if not essence.startswith("audio/"):
        raise UpstreamProtocolError("The upstream answered something else than a recording; try again later.")
    return essence


async def _read_start(pieces: AsyncIterator[bytes]) -> bytes:
    """All pieces while they fit into a reply; otherwise those from the start that show that they do not."""
    start = bytearray()
    async for piece in pieces:
        start += piece
        if len(start) > MAX_INLINE_BYTES:
            break
    return bytes(start)


async def _joined(start: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for piece in rest:
        yield piece
