from typing import Any

import orjson
import pytest

from handlers.runtime.answers import to_answer
from handlers.runtime.event_streams import Event, EventParser
from handlers.runtime.gathered_responses import GatheredResponse
from tests.support.model_responses import RESPONSE_ID, delta, event, response, stream_of


def gathered_from(texts: list[str]) -> GatheredResponse:
    """What is known after some events."""
    gathered = GatheredResponse()
    for found in EventParser(10**6).feed("".join(texts).encode()):
        gathered.take(found)
    return gathered


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
def test_the_last_event_brings_the_whole_response(status: str) -> None:
    """After it, the response is over and is what that event says."""
    final = response("On Friday.", status=status)
    gathered = gathered_from(stream_of(["On ", "Friday"], final))
    assert gathered.over
    assert gathered.response == final


def test_a_stream_that_broke_leaves_what_has_come() -> None:
    """The response goes by its id, is in progress, and has the text so far."""
    gathered = gathered_from(stream_of(["On ", "Fri"]))
    assert gathered.named
    assert not gathered.over
    answer = to_answer(gathered.response)
    assert (answer["id"], answer["status"], answer["text"]) == (RESPONSE_ID, "in_progress", "On Fri")


def test_texts_stand_in_the_order_of_their_places() -> None:
    """Pieces of several items and parts are put where the final response will have them; a refusal is text."""
    events = [delta("c", 1), delta("a", 0), delta("b", 0, 1, "refusal"), delta("d", 1), delta("B", 0, 1, "refusal")]
    gathered = gathered_from([*stream_of([]), *events])
    assert to_answer(gathered.response)["text"] == "abBcd"


def test_a_last_event_without_output_does_not_lose_the_text() -> None:
    """Some compatible services send the text in pieces only."""
    gathered = gathered_from(stream_of(["On Friday."], response(status="completed")))
    assert to_answer(gathered.response)["text"] == "On Friday."


@pytest.mark.parametrize(
    "fields",
    [{"message": "Too much.", "code": "x", "param": None}, {"error": {"message": "Too much.", "code": "x"}}],
    ids=["flat", "nested"],
)
def test_an_error_ends_the_response(fields: dict[str, Any]) -> None:
    """Both forms of the event make the answer failed, with the reason and the text so far."""
    gathered = gathered_from([*stream_of(["On "]), event("error", **fields)])
    assert gathered.over
    answer = to_answer(gathered.response)
    assert (answer["status"], answer["error"], answer["text"]) == ("failed", "Too much.", "On ")


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        b"",
        b"[]",
        b"{",
        b"null",
        b'"x"',
        b"\xff",
        b'{"a":1,"a":2}',
        b'{"type":[]}',
        b'{"type":"response.output_text.delta"}',
        b'{"type":"response.output_text.delta","delta":7}',
        b'{"type":"response.brand_new"}',
        b'{"response":"x"}',
        b"[" * 500,
    ],
)
def test_events_that_say_nothing_are_passed_over(data: bytes) -> None:
    """Garbage neither ends the response nor adds to it."""
    gathered = gathered_from(stream_of(["On "]))
    before = gathered.response
    gathered.take(Event("message", data))
    assert (gathered.response, gathered.over) == (before, False)


@pytest.mark.parametrize("place", [{}, {"output_index": "x"}, {"output_index": None, "content_index": 1.5}], ids=repr)
def test_pieces_without_a_place_belong_to_the_first(place: dict[str, Any]) -> None:
    """What has no index, or an odd one, is not lost."""
    gathered = gathered_from([*stream_of(["On "]), event("response.output_text.delta", delta="Friday", **place)])
    assert to_answer(gathered.response)["text"] == "On Friday"


def test_the_name_of_an_event_counts_when_its_data_has_none() -> None:
    """Services that leave `type` out of the data are understood."""
    gathered = gathered_from(stream_of([]))
    gathered.take(Event("response.output_text.delta", orjson.dumps({"delta": "On"})))
    assert to_answer(gathered.response)["text"] == "On"


@pytest.mark.parametrize(
    "kind,over", [("created", False), ("in_progress", False), ("completed", True), ("failed", True)]
)
def test_an_event_without_a_status_is_named_after_one(kind: str, over: bool) -> None:
    """A service that leaves the status out does not end its answer with its first event."""
    gathered = gathered_from([event(f"response.{kind}", response={"id": RESPONSE_ID})])
    assert gathered.over == over
    assert to_answer(gathered.response)["status"] == (kind if over else "in_progress")


def test_a_state_on_the_way_does_not_hide_the_text() -> None:
    """What is not over may show items that are no text yet."""
    reasoning = response(output=[{"type": "reasoning", "summary": []}])
    gathered = gathered_from([*stream_of(["On "]), event("response.in_progress", response=reasoning)])
    assert to_answer(gathered.response)["text"] == "On "
