import random
from typing import Any

import pytest
from hypothesis import given

from codegen.contract import FULL, load_contract
from handlers.runtime.answers import (
    FINAL,
    MAX_ERROR_CHARACTERS,
    MAX_SOURCES,
    MAX_SOURCES_CHARACTERS,
    PENDING,
    POLL_OPERATION,
    is_over,
    status_of,
    to_answer,
)
from handlers.runtime.app import GENERATED
from handlers.runtime.budget import MAX_REPLY_CHARACTERS
from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.shortening import escaped_length
from handlers.runtime.validation import SchemaSource
from tests.support.json_values import json_values
from tests.support.model_responses import RESPONSE_ID, response

CONTRACT = load_contract(GENERATED, FULL)
EXAMPLE = CONTRACT.operations["getResponse"].success[1]["application/json"].examples["response"]
ANSWER = SchemaSource(CONTRACT).at("#/components/schemas/Answer")
ALPHABETS = {"ASCII": "ab c", "quotes": '"\\\n', "umlauts": "äöü", "emoji": "🍵☕", "controls": "\x00\x7f\x1f"}


def pages_of(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """All answers that an assistant gets that follows `next` while text is left."""
    pages = [to_answer(whole)]
    while pages[-1]["truncated"]:
        pages.append(to_answer(whole, pages[-1]["next"]))
    return pages


def cited(*annotations: dict[str, Any]) -> dict[str, Any]:
    """A finished response that cites something."""
    part = {"type": "output_text", "text": "See there.", "annotations": list(annotations)}
    return response(output=[{"type": "message", "content": [part]}], status="completed")


def test_the_example_becomes_an_answer() -> None:
    """The contract's example of a response is told in few fields, source and usage among them."""
    answer = to_answer(EXAMPLE)
    ANSWER.validate(answer)
    assert answer == {
        "id": RESPONSE_ID,
        "status": "completed",
        "model": "gpt-6-luna",
        "text": "On Friday, after the backup.",
        "truncated": False,
        "sources": [{"file_id": "file-example1", "filename": "wiki-plan.md"}],
        "usage": {"input_tokens": 812, "output_tokens": 58, "total_tokens": 870},
    }


def test_the_operation_that_is_named_next_exists() -> None:
    """What `how` tells the assistant to call is the wrapper of `getResponse`."""
    assert CONTRACT.operations["getResponse"].wrapper == POLL_OPERATION


def test_statuses_are_those_of_the_contract() -> None:
    """Every status of `Answer` is either final or not."""
    schema = CONTRACT.document["components"]["schemas"]["Answer"]["properties"]["status"]
    assert set(schema["enum"]) == FINAL | PENDING


@pytest.mark.parametrize(
    "fields,status,over",
    [
        ({}, "completed", True),
        ({"status": "cancelled"}, "cancelled", True),
        ({"status": "queued"}, "queued", False),
        ({"status": "requires_action"}, "in_progress", False),
        ({"status": ["completed"]}, "in_progress", False),
        ({"status": None}, "in_progress", False),
    ],
    ids=repr,
)
def test_an_odd_status_is_understood_the_careful_way(fields: dict[str, Any], status: str, over: bool) -> None:
    """Nobody is told that an answer is whole when the upstream did not say so; services without statuses are done."""
    assert (status_of(fields), is_over(fields)) == (status, over)


def test_texts_and_refusals_are_joined_in_order() -> None:
    """All parts of all messages count, other items do not."""
    content = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    output = [
        {"type": "reasoning", "content": [{"type": "output_text", "text": "no"}]},
        {"type": "message", "content": content},
        {"type": "message", "content": [{"type": "output_text", "text": "c"}]},
    ]
    assert to_answer(response(status="completed", output=output))["text"] == "abc"


@pytest.mark.parametrize(
    "fields,error",
    [
        ({"status": "failed", "error": {"code": "server_error", "message": "The model broke."}}, "The model broke."),
        ({"status": "failed", "error": None}, "The upstream gave no reason."),
        ({"status": "failed", "error": {"message": "x" * 5_000}}, "x" * MAX_ERROR_CHARACTERS),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "The answer ended early: max_output_tokens.",
        ),
        ({"status": "incomplete"}, "The answer ended early: the upstream gave no reason."),
        ({"status": "completed", "error": {"message": "old"}}, None),
    ],
    ids=repr,
)
def test_a_bad_end_is_told_in_one_sentence(fields: dict[str, Any], error: str | None) -> None:
    """`error` says why an answer failed or is incomplete, and is absent otherwise."""
    answer = to_answer(response("So far.", **fields))
    ANSWER.validate(answer)
    assert answer.get("error") == error
    assert answer["text"] == "So far."
    assert "how" not in answer


def test_a_pending_answer_says_what_to_call() -> None:
    """Without a text yet there is no offset to begin at; with one, the next call begins behind it."""
    assert to_answer(response(status="queued")) == {
        "id": RESPONSE_ID,
        "status": "queued",
        "model": "gpt-6-luna",
        "text": "",
        "truncated": False,
        "how": f"Call pollResponse with response_id {RESPONSE_ID} in some seconds.",
    }
    answer = to_answer(response("So far", status="in_progress"), 3)
    assert (answer["text"], answer["truncated"], answer["next"]) == ("far", False, 6)
    assert answer["how"] == f"Call pollResponse with response_id {RESPONSE_ID} and offset 6 in some seconds."


@pytest.mark.parametrize("status", ["completed", "in_progress", "failed"])
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_the_pages_of_a_long_text_are_the_text(alphabet: str, status: str) -> None:
    """Joined, all pages are the text, each reply stays within the budget, and `how` leads from one to the next."""
    text = "".join(random.Random(4).choices(ALPHABETS[alphabet], k=200_000))
    many = [{"type": "url_citation", "url": f"https://example.com/{n}", "title": "ü" * 500} for n in range(100)]
    part = {"type": "output_text", "text": text, "annotations": many}
    fields: dict[str, Any] = {"status": status, "error": {"message": "ü" * 5_000}, "usage": {"input_tokens": 2**53 - 1}}
    pages = pages_of(response(output=[{"type": "message", "content": [part]}], **fields))
    assert "".join(page["text"] for page in pages) == text
    assert len(pages) > 1
    for page in pages:
        ANSWER.validate(page)
        assert escaped_length(page) <= MAX_REPLY_CHARACTERS
    for page in pages[:-1]:
        assert escaped_length(page) > MAX_REPLY_CHARACTERS - 2_000
        assert page["how"] == f"Call pollResponse with response_id {RESPONSE_ID} and offset {page['next']}."


@pytest.mark.parametrize("offset", [4, 5, 10**30])
def test_an_offset_at_or_beyond_the_end_shows_nothing_more(offset: int) -> None:
    """It is no error: a text in progress may not have come so far."""
    assert to_answer(response("text"), offset)["text"] == ""
    pending = to_answer(response("text", status="in_progress"), offset)
    assert (pending["text"], pending["truncated"], pending["next"]) == ("", False, 4)


def test_sources_are_listed_once() -> None:
    """Pages by their address, files by their id; what says neither is left out."""
    answer = to_answer(
        cited(
            {"type": "url_citation", "url": "https://example.com/a", "title": "A", "start_index": 1},
            {"type": "url_citation", "url": "https://example.com/a", "title": "A again"},
            {"type": "file_citation", "file_id": "file-1", "filename": "a.md", "index": 3},
            {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "file-1", "filename": "a.md"},
            {"type": "file_path", "file_id": "file-2"},
            {"type": "url_citation", "title": "no address"},
            {"type": "url_citation", "url": 7},
        )
    )
    ANSWER.validate(answer)
    assert answer["sources"] == [
        {"title": "A", "url": "https://example.com/a"},
        {"file_id": "file-1", "filename": "a.md"},
        {"file_id": "file-2"},
    ]


def test_sources_leave_room_for_the_text() -> None:
    """There are at most so many, and they are at most so long."""
    many = to_answer(cited(*({"url": f"https://example.com/{number}"} for number in range(100))))
    assert len(many["sources"]) == MAX_SOURCES
    long = to_answer(cited(*({"url": f"https://example.com/{number}", "title": "ü" * 300} for number in range(100))))
    assert 5 < len(long["sources"]) < MAX_SOURCES
    assert escaped_length(long["sources"]) <= MAX_SOURCES_CHARACTERS


@pytest.mark.parametrize("response_id", [None, 7, "", "a b", "a/b", "ä", "..", "x" * 201, "a\n"], ids=repr)
def test_without_a_usable_id_there_is_no_answer(response_id: object) -> None:
    """An id that cannot be asked for later, or that does not fit into a sentence, is upstream's mistake."""
    with pytest.raises(UpstreamProtocolError, match="no id"):
        to_answer({**response("x"), "id": response_id})


@given(json_values())
def test_nothing_is_taken_for_granted(value: Any) -> None:
    """Whatever an upstream puts into a response, the answer fits its schema and the budget."""
    for whole in (
        dict.fromkeys((*EXAMPLE, "incomplete_details"), value),
        response(output=[{"type": "message", "content": value}], status="completed"),
        response(output=[{"type": "message", "content": [{"type": "output_text", "text": value}]}]),
        cited({"url": value, "file_id": value, "title": value, "filename": value}),
        response("x", status="failed", error={"message": value}, usage={"input_tokens": value}, model=value),
    ):
        answer = to_answer({**whole, "id": RESPONSE_ID})
        ANSWER.validate(answer)
        assert escaped_length(answer) <= MAX_REPLY_CHARACTERS
