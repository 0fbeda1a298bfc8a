"""
Puts a `Response` together from its event stream, as far as that has come.

Not for: reading the stream itself (`handlers.runtime.event_streams`).
"""

from collections.abc import Mapping
from typing import Any

from handlers.runtime.answers import FINAL, is_over
from handlers.runtime.event_streams import Event
from handlers.runtime.exceptions import DuplicateKey, MalformedJson
from handlers.runtime.json_bodies import decode_json

# Name of the event to the kind of part that it adds to.
_ADDED = {"response.output_text.delta": ("output_text", "text"), "response.refusal.delta": ("refusal", "refusal")}


class GatheredResponse:
    """
    What is known of a response.

    Attributes:
        over: Whether nothing more needs to be taken.
        characters: Of text that came piece by piece.
        error: What an event said that went wrong, instead of a response.
    """

    def __init__(self) -> None:
        self.over = False
        self.characters = 0
        self.error: dict[str, Any] | None = None
        self._whole: dict[str, Any] = {}
        self._pieces: dict[tuple[int, int], tuple[str, list[str]]] = {}

    @property
    def named(self) -> bool:
        """Whether its id is known, so that it can be asked for later."""
        return "id" in self._whole

    @property
    def response(self) -> dict[str, Any]:
        """The `Response`; until the upstream has said all its text at once, with the text that was gathered."""
        if not self._pieces or (self.over and self._whole.get("output")):
            return self._whole
        return {**self._whole, "output": self._gathered_output()}

    def take(self, event: Event) -> None:
        """Take an event; what is no JSON object or says nothing that counts is passed over."""
        try:
            value = decode_json(event.data)
        except (MalformedJson, DuplicateKey):
            return
        if not isinstance(value, dict):
            return
        kind = value.get("type", event.name)
        whole = value.get("response")
        if isinstance(whole, dict):
            # An event without a status of its own is named after one.
            named = kind.removeprefix("response.") if isinstance(kind, str) else ""
            self.take_whole({"status": named if named in FINAL else "in_progress", **whole})
        elif kind == "error":
            # Either the fields themselves or, as other errors have them, under `error`.
            self.error = value["error"] if isinstance(value.get("error"), dict) else value
            self.take_whole({"status": "failed", "error": self.error})
        elif isinstance(kind, str) and kind in _ADDED and isinstance(value.get("delta"), str):
            place = (_index(value.get("output_index")), _index(value.get("content_index")))
            self._pieces.setdefault(place, (kind, []))[1].append(value["delta"])
            self.characters += len(value["delta"])

    def take_whole(self, response: Mapping[str, Any]) -> None:
        """Take a `Response` as it is now."""
        self._whole |= response
        self.over = is_over(self._whole)

    def _gathered_output(self) -> list[dict[str, Any]]:
        content = []
        for _, (kind, pieces) in sorted(self._pieces.items(), key=lambda item: item[0]):
            part, field = _ADDED[kind]
            content.append({"type": part, field: "".join(pieces)})
        return [{"type": "message", "content": content}]


def _index(value: Any) -> int:
    return value if isinstance(value, int) else 0
