"""
Reads event streams (SSE): bytes as they come to events.

Source: WHATWG HTML, "Server-sent events", section 9.2.6. `id` and `retry` serve to reconnect, which nobody does here.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass

from handlers.runtime.exceptions import UpstreamProtocolError

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """
    One event.

    Args:
        name: What `event` said; `message` when it said nothing.
        data: The lines of `data`, joined by line feeds.
    """

    name: str
    data: bytes


class EventParser:
    """
    Makes events out of pieces that may begin and end anywhere.

    Args:
        max_event_bytes: How long an event may be, and a line.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []  # pieces of the line that has not ended
        self._line_bytes = 0
        self._after_return = False
        self._first_line = True
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """
        Take the next bytes.

        Returns:
            The events that end in them.

        Raises:
            UpstreamProtocolError: An event is too long (502).
        """
        if not piece:
            return
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]  # the other half of a line's end
        self._after_return = piece.endswith(b"\r")
        *ended, rest = _LINE_END.split(piece)
        for end in ended:
            line = b"".join([*self._line, end])
            self._line = []
            self._line_bytes = 0
            event = self._end_line(line)
            if event is not None:
                yield event
        self._line.append(rest)
        self._line_bytes += len(rest)
        self._check_length()

    def _end_line(self, line: bytes) -> Event | None:
        if self._first_line:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._first_line = False
        if not line:
            return self._end_event()
        field, _, value = line.partition(b":")  # a comment is a field without a name
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value
        elif field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_length()
        return None

    def _end_event(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._data_bytes = b"", [], 0
        return Event(name.decode("utf-8", "replace") or "message", b"\n".join(data)) if data else None

    def _check_length(self) -> None:
        if self._line_bytes + self._data_bytes > self._max_event_bytes:
            raise UpstreamProtocolError("An event of the upstream's stream is too long.")


async def read_events(pieces: AsyncIterable[bytes], *, max_event_bytes: int) -> AsyncGenerator[Event, None]:
    """
    Read a stream to its end; an event without the empty line behind it is none.

    Raises:
        UpstreamProtocolError: An event is too long (502).
    """
    parser = EventParser(max_event_bytes)
    async for piece in pieces:
        for event in parser.feed(piece):
            yield event
