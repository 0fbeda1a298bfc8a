"""
Replays the event streams of the contract's examples under the identity of the object that was just created.

Source: WHATWG HTML, "Server-sent events": an event ends with an empty line.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

_IDENTITY = ("id", "model", "created", "created_at")


def split_events(text: str) -> tuple[bytes, ...]:
    """
    Split a recorded stream into its events.

    Returns:
        One item per event, each ending with the empty line.
    """
    chunks = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))
    return tuple(f"{chunk.strip()}\n\n".encode() for chunk in chunks if chunk.strip())


def event_data(event: bytes) -> dict[str, Any]:
    """The JSON object of an event's data; empty when it is something else, such as `[DONE]`."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        value = orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


class EventReplay:
    """
    The example stream of one operation.

    Args:
        text: The example as it stands in the contract.

    Attributes:
        events: Its events, unchanged.
        final: The whole object that the last event with one brings (`response` of `response.completed`), else empty.
    """

    def __init__(self, text: str) -> None:
        self.events = split_events(text)
        data = [event_data(event) for event in self.events]
        wholes = [value["response"] for value in data if isinstance(value.get("response"), dict)]
        self.final: dict[str, Any] = wholes[-1] if wholes else {}
        self._sequence = [value.get("sequence_number") for value in data]
        self._patterns = _patterns(next((found for found in map(_identity, data) if found), {}))

    def events_of(self, value: Mapping[str, Any], *, starting_after: int | None = None) -> tuple[bytes, ...]:
        """
        The events under another identity.

        Args:
            value: The object whose id, model and creation time the events shall carry.
            starting_after: Leave out events up to this sequence number.
        """
        chosen = [
            event
            for event, number in zip(self.events, self._sequence, strict=True)
            if starting_after is None or not isinstance(number, int) or number > starting_after
        ]
        for key, pattern in self._patterns.items():
            if key in value:
                encoded = orjson.dumps(value[key]).replace(b"\\", b"\\\\")
                chosen = [pattern.sub(rb"\g<1>" + encoded, event) for event in chosen]
        return tuple(chosen)


def _identity(data: Mapping[str, Any]) -> dict[str, Any]:
    value = data.get("response", data)
    return {key: value[key] for key in _IDENTITY if key in value} if isinstance(value, dict) and "id" in value else {}


def _patterns(identity: Mapping[str, Any]) -> dict[str, re.Pattern[bytes]]:
    patterns = {}
    for key, value in identity.items():
        # An id is unmistakable and replaced wherever it stands (`response_id`); other values only under their name.
        place = rb"()" if key == "id" else rb"(" + re.escape(orjson.dumps(key)) + rb"\s*:\s*)"
        patterns[key] = re.compile(place + re.escape(orjson.dumps(value)) + rb"(?![0-9.])")
    return patterns
