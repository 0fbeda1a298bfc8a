"""
Holds the examples of both documents: there is one wherever somebody needs to see one, and each is right.

They are what the documentation shows and what the simulated upstream answers. Opens no sockets.
"""

from collections.abc import Callable, Iterator

import pytest

from codegen.contract import EVENT_STREAM, JSON, Contract, Media, Operation, read_contract
from codegen.reader import Document
from handlers.runtime.validation import SchemaSource
from tests.support.documents import ROOT, edited, node_of

FULL_CONTRACT = read_contract(ROOT)


def media_of(operation: Operation) -> Iterator[tuple[str, Media]]:
    """Request and success bodies of an operation, each with its place."""
    if operation.body:
        for media in operation.body.content.values():
            yield f"{operation.id} takes {media.media_type}", media
    for code, content in operation.responses.items():
        if code.startswith("2"):
            for media in content.values():
                yield f"{operation.id} answers {code} {media.media_type}", media


def missing_examples(contract: Contract) -> list[str]:
    """JSON bodies, JSON replies and streams of served operations without an example."""
    return [
        where
        for operation in contract
        if operation.served
        for where, media in media_of(operation)
        if media.media_type in {JSON, EVENT_STREAM} and not media.examples
    ]


def invalid_examples(contract: Contract) -> list[str]:
    """Examples that do not fit the schema beside them."""
    schemas = SchemaSource(contract)
    wrong = []
    for operation in contract:
        for where, media in media_of(operation):
            if media.pointer is None:
                continue
            validator = schemas.at(media.pointer)
            wrong += [f"{where}: {name}" for name, value in media.examples.items() if not validator.is_valid(value)]
    return wrong


def broken_streams(contract: Contract) -> list[str]:
    """Examples of streams that are not whole events, each ended by a blank line."""
    wrong = []
    for operation in contract:
        for where, media in media_of(operation):
            if media.media_type != EVENT_STREAM:
                continue
            for name, value in media.examples.items():
                events = str(value).split("\n\n")
                fields = [line.split(":")[0] for event in events[:-1] for line in event.split("\n")]
                if events[-1] != "" or "data" not in fields or not set(fields) <= {"event", "data", "id", "retry", ""}:
                    wrong.append(f"{where}: {name}")
    return wrong


def undescribed_bodies(contract: Contract) -> list[str]:
    """JSON bodies and JSON replies of served operations without a schema."""
    return [
        where
        for operation in contract
        if operation.served
        for where, media in media_of(operation)
        if media.media_type == JSON and media.pointer is None
    ]


RULES = [missing_examples, invalid_examples, broken_streams, undescribed_bodies]


def json_reply(document: Document, operation_id: str) -> dict[str, object]:
    """The JSON media type of an operation's success, made its own."""
    reference = node_of(document, operation_id)["responses"]["200"]["$ref"].split("/")[-1]
    content: dict[str, dict[str, object]] = document["components"]["responses"][reference]["content"]
    return content[JSON]


BROKEN: dict[str, tuple[Callable[[Contract], list[str]], Callable[[Document], object], str]] = {
    "no example of a reply": (
        missing_examples,
        lambda d: json_reply(d, "listModels").pop("examples"),
        f"listModels answers 200 {JSON}",
    ),
    "a wrong example": (
        invalid_examples,
        lambda d: json_reply(d, "listModels").update(examples={"wrong": {"value": {"data": "none"}}}),
        f"listModels answers 200 {JSON}: wrong",
    ),
    "a stream without an end": (
        broken_streams,
        lambda d: node_of(d, "listModels").update(
            responses={
                "200": {
                    "description": "It.",
                    "content": {EVENT_STREAM: {"examples": {"cut": {"value": "event: a\ndata: {}\n"}}}},
                }
            }
        ),
        f"listModels answers 200 {EVENT_STREAM}: cut",
    ),
    "no schema": (
        undescribed_bodies,
        lambda d: json_reply(d, "listModels").pop("schema"),
        f"listModels answers 200 {JSON}",
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_contract_has_none(rule: Callable[[Contract], list[str]]) -> None:
    """The full contract has nothing of what the function's docstring describes."""
    assert rule(FULL_CONTRACT) == []


@pytest.mark.parametrize("rule, change, culprit", BROKEN.values(), ids=BROKEN.keys())
def test_a_mistake_is_found(
    rule: Callable[[Contract], list[str]], change: Callable[[Document], object], culprit: str
) -> None:
    """The rule names the example or body at fault in an edited copy."""
    assert culprit in rule(edited(FULL_CONTRACT, change))
