"""Responses as upstream's Responses API has them, and the events that bring one."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

RESPONSE_ID = "resp_example1"
QUESTION = {"model": "gpt-6-luna", "input": "Where is the wiki?"}


def response(text: str | None = None, **fields: Any) -> dict[str, Any]:
    """A finished response with a text, or one in progress without."""
    output = [] if text is None else [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    status = "in_progress" if text is None else "completed"
    return {"id": RESPONSE_ID, "model": "gpt-6-luna", "status": status, "output": output, **fields}


def error(message: str, **fields: Any) -> dict[str, Any]:
    """An error as upstream answers it."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}}


def event(kind: str, **fields: Any) -> str:
    """An event of a stream, as text."""
    return f"event: {kind}\ndata: {orjson.dumps({'type': kind, **fields}).decode()}\n\n"


def delta(text: str, output_index: int = 0, content_index: int = 0, kind: str = "output_text") -> str:
    """An event that brings some text."""
    return event(f"response.{kind}.delta", output_index=output_index, content_index=content_index, delta=text)


def stream_of(texts: Sequence[str], final: Mapping[str, Any] | None = None) -> list[str]:
    """The events of a response whose text comes in pieces; without `final` the end is missing."""
    events = [event("response.created", response=response()), *map(delta, texts)]
    return events if final is None else [*events, event(f"response.{final['status']}", response=final)]
