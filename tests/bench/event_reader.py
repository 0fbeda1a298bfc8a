"""What a client makes of the bytes of an event stream of `events.py`: which events came, in what order, how late."""

import re
from collections.abc import Callable

import httptools

from tests.bench.events import LAST_EVENT

# Found by itself, not by lines: some gateways write the JSON anew.
_CONTENT = re.compile(rb'"content": ?"(\d+) (\d+)"')
_SHOWN_BYTES = 300


class EventReader:
    """
    Reads replies of one connection, one stream after another.

    Args:
        note: Called with the stamp of each event.
    """

    def __init__(self, note: Callable[[int], None]) -> None:
        self._note = note
        self._parser = httptools.HttpResponseParser(self)
        self.received = 0
        self.disordered = 0
        self.over = False  # the reply has ended
        self.whole = False  # and it was a stream that came to its proper end
        self.closing = False  # the server will close the connection
        self.status = 0
        self._highest = -1
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes.

        Raises:
            httptools.HttpParserError: They are no HTTP.
        """
        self._parser.feed_data(data)

    @property
    def refusal(self) -> str:
        """What came instead of a stream, for a message."""
        shown = " ".join(self._rest[:_SHOWN_BYTES].decode("utf-8", "replace").split())
        return f"status {self.status}, {shown}" if self.status else "nothing came"

    def on_message_begin(self) -> None:
        """The parser has found the beginning of a reply."""
        self.received = self.disordered = 0
        self.over = self.whole = False
        self._highest = -1
        self._rest = b""

    def on_headers_complete(self) -> None:
        """The parser has read the head of a reply."""
        self.status = self._parser.get_status_code()
        self.closing = not self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """The parser has found part of a body, which may begin and end anywhere."""
        text = self._rest + piece
        end = 0
        for found in _CONTENT.finditer(text):
            number, stamp_ns = int(found[1]), int(found[2])
            end = found.end()
            self.received += 1
            if number > self._highest:
                self._highest = number  # a gap is a loss, which the sum shows
            else:
                self.disordered += 1
            self._note(stamp_ns)
        self._rest = text[end:]

    def on_message_complete(self) -> None:
        """The parser has found the end of a reply."""
        self.over = True
        self.whole = self.status == 200 and LAST_EVENT.rstrip() in self._rest
