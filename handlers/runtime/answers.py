"""
Makes the short `Answer` for assistants out of upstream's `Response`: its text in pages, and what to do next.

Upstreams differ, so nothing is taken for granted about a `Response`: what has another type is left out.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from handlers.runtime.budget import MAX_REPLY_CHARACTERS, page_text
from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.shortening import escaped_length

PENDING = frozenset({"queued", "in_progress"})
FINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})
POLL_OPERATION = "pollResponse"

MAX_SOURCES = 50
# Together, so that the larger part of a reply is text. A usual source has some 150 characters.
MAX_SOURCES_CHARACTERS = 20_000
MAX_ERROR_CHARACTERS = 1_000
# Room for `text`, `truncated`, `next` and `how` with the longest id.
_RESERVED_CHARACTERS = 1_000
_MAX_MODEL_CHARACTERS = 200
_MAX_TOKENS = 2**53  # beyond it, JSON readers disagree
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=-]{0,199}", re.ASCII)  # it stands in a sentence and in a path
_SOURCE_FIELDS = ("title", "url", "file_id", "filename")
_TOKEN_FIELDS = ("input_tokens", "output_tokens", "total_tokens")


def status_of(response: Mapping[str, Any]) -> str:
    """Its status as `Answer` knows it: without one it is over, with an unknown one it is not."""
    status = response.get("status", "completed")
    return status if isinstance(status, str) and status in FINAL | PENDING else "in_progress"


def is_over(response: Mapping[str, Any]) -> bool:
    """Whether nothing will be added to it any more."""
    return status_of(response) in FINAL


def id_of(response: Mapping[str, Any]) -> str:
    """
    Its id.

    Raises:
        UpstreamProtocolError: It has none that can be asked for later (502).
    """
    response_id = response.get("id")
    if not isinstance(response_id, str) or not _ID.fullmatch(response_id):
        raise UpstreamProtocolError("The upstream's answer has no id; try again later.")
    return response_id


def to_answer(response: Mapping[str, Any], offset: int = 0) -> dict[str, Any]:
    """
    Shorten a response.

    Args:
        response: Upstream's `Response`.
        offset: Where in its text to begin, in characters; beyond its end is at its end.

    Returns:
        `Answer`, within `MAX_REPLY_CHARACTERS`.

    Raises:
        UpstreamProtocolError: It has no id (502).
    """
    answer: dict[str, Any] = {"id": id_of(response), "status": status_of(response)}
    model = response.get("model")
    if isinstance(model, str):
        answer["model"] = model[:_MAX_MODEL_CHARACTERS]
    behind = {"error": _error_of(response), "sources": _sources_of(response), "usage": _usage_of(response)}
    behind = {name: value for name, value in behind.items() if value}
    text = "".join(_texts(response))
    room = MAX_REPLY_CHARACTERS - escaped_length({**answer, **behind}) - _RESERVED_CHARACTERS
    start = min(offset, len(text))
    page, following = page_text(text, start, room)
    pending = answer["status"] in PENDING
    reached = start + len(page)
    answer |= {"text": page, "truncated": following is not None}
    if following is not None or (pending and reached):
        answer["next"] = reached
    if following is not None or pending:
        at = f" and offset {reached}" if reached else ""
        later = "" if following is not None else " in some seconds"
        answer["how"] = f"Call {POLL_OPERATION} with response_id {answer['id']}{at}{later}."
    return answer | behind


def _texts(response: Mapping[str, Any]) -> Iterator[str]:
    """Pieces of text in order; a refusal is what the model has to say, so it is one."""
    for part in _parts(response):
        text = part.get("refusal" if part.get("type") == "refusal" else "text")
        if part.get("type") in {"output_text", "refusal"} and isinstance(text, str):
            yield text


def _parts(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for item in _objects(response.get("output")):
        if item.get("type") == "message":
            yield from _objects(item.get("content"))


def _sources_of(response: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the text cites, each page and each file once, as many as there is room for."""
    sources: dict[str, dict[str, str]] = {}
    left = MAX_SOURCES_CHARACTERS
    for part in _parts(response):
        for annotation in _objects(part.get("annotations")):
            source = {name: annotation[name] for name in _SOURCE_FIELDS if isinstance(annotation.get(name), str)}
            place = source.get("url") or source.get("file_id")
            if not place or place in sources:
                continue
            left -= escaped_length(source) + 1
            if left < 0 or len(sources) == MAX_SOURCES:
                return list(sources.values())
            sources[place] = source
    return list(sources.values())


def _error_of(response: Mapping[str, Any]) -> str:
    status = status_of(response)
    if status == "failed":
        return _text(response.get("error"), "message")[:MAX_ERROR_CHARACTERS] or "The upstream gave no reason."
    if status == "incomplete":
        reason = _text(response.get("incomplete_details"), "reason")[:MAX_ERROR_CHARACTERS]
        return f"The answer ended early: {reason or 'the upstream gave no reason'}."
    return ""


def _usage_of(response: Mapping[str, Any]) -> dict[str, int]:
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return {}
    return {name: usage[name] for name in _TOKEN_FIELDS if _is_count(usage.get(name))}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item
