from typing import Literal

import pytest
from openai import AsyncOpenAI, NotFoundError

from handlers.simulated_upstream import SimulatedUpstream

pytestmark = pytest.mark.integration

VOICE_MODEL = "gpt-4o-mini-tts"
HEARING_MODEL = "gpt-4o-transcribe"
SOUND = ("speech.mp3", b"ID3" + bytes(range(256)) * 40, "audio/mpeg")


async def test_speech_arrives_as_bytes_whole_or_in_pieces(sdk: AsyncOpenAI) -> None:
    """Both ways to fetch audio bring the same bytes."""
    whole = await sdk.audio.speech.create(
        input="Good morning.", model=VOICE_MODEL, voice="alloy", response_format="mp3", speed=1.5, instructions="Warm."
    )
    assert whole.content
    async with sdk.audio.speech.with_streaming_response.create(
        input="Good morning.", model=VOICE_MODEL, voice="alloy"
    ) as response:
        assert b"".join([piece async for piece in response.iter_bytes(4)]) == whole.content


async def test_speech_arrives_as_events(sdk: AsyncOpenAI) -> None:
    """`stream_format: sse` brings audio in events, passed through as they come."""
    async with sdk.audio.speech.with_streaming_response.create(
        input="Good morning.", model=VOICE_MODEL, voice={"id": "voice_1234"}, stream_format="sse"
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.iter_lines()]
    assert any('"speech.audio.delta"' in line for line in lines)
    assert any('"speech.audio.done"' in line for line in lines)


async def test_speech_is_transcribed(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The sound reaches the upstream unchanged and its text comes back."""
    transcription = await sdk.audio.transcriptions.create(
        file=SOUND,
        model=HEARING_MODEL,
        language="en",
        prompt="Harbour words.",
        temperature=0.2,
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
    )
    assert transcription.text
    (recorded,) = upstream.recorder.requests
    assert SOUND[1] in recorded.body_start


async def test_a_transcription_is_streamed(sdk: AsyncOpenAI) -> None:
    """The pieces of a streamed transcription make up the text that ends it."""
    events = [e async for e in await sdk.audio.transcriptions.create(file=SOUND, model=HEARING_MODEL, stream=True)]
    final = events[-1]
    assert final.type == "transcript.text.done"
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == final.text != ""


async def test_a_verbose_transcription_is_json(sdk: AsyncOpenAI) -> None:
    """The verbose format, asked for with lists in multipart fields, says how long the recording is."""
    verbose = await sdk.audio.transcriptions.create(
        file=SOUND, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert verbose.text
    assert verbose.duration > 0


@pytest.mark.parametrize("form", ["srt", "vtt"])
async def test_subtitles_are_plain_text(sdk: AsyncOpenAI, form: Literal["srt", "vtt"]) -> None:
    """A reply that is not JSON reaches the caller as text."""
    subtitles = await sdk.audio.transcriptions.create(file=SOUND, model="whisper-1", response_format=form)
    assert isinstance(subtitles, str)
    assert "-->" in subtitles


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK marks the method so
async def test_speech_is_translated(sdk: AsyncOpenAI) -> None:
    """A translation is answered as JSON and as subtitles."""
    translation = await sdk.audio.translations.create(file=SOUND, model="whisper-1")
    assert translation.text
    subtitles = await sdk.audio.translations.create(file=SOUND, model="whisper-1", response_format="srt")
    assert "-->" in subtitles


async def test_a_voice_consent_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A consent is found, listed, renamed and deleted under its id."""
    consents = sdk.audio.voice_consents
    created = await consents.create(language="en-US", name="Narrator", recording=SOUND)
    assert (created.name, created.language) == ("Narrator", "en-US")
    assert (await consents.retrieve(created.id)) == created
    older = created.id
    created = await consents.create(language="de-DE", name="Erzählerin", recording=SOUND)
    page = await consents.list(limit=1)
    assert [consent.id for consent in page.data] == [created.id]
    assert (await page.get_next_page()).data[0].id == older

    renamed = await consents.update(created.id, name="Speaker")
    assert (renamed.id, renamed.name) == (created.id, "Speaker")
    deleted = await consents.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await consents.retrieve(created.id)


async def test_a_voice_is_made_from_a_sample_or_a_prompt(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """Both ways to make a voice reach the upstream, the sample byte for byte."""
    voice = await sdk.audio.voices.create(name="Narrator", consent="cons_example1", audio_sample=SOUND)
    assert voice.name == "Narrator"
    assert SOUND[1] in upstream.recorder.requests[0].body_start
    voice = await sdk.audio.voices.create(name="Captain", type="prompt", prompt="A calm captain.")
    assert voice.name == "Captain"
