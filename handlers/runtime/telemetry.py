"""Sets logging up: one line per event on standard error, JSON or for a console."""

import asyncio
import json
import logging
import select
import sys
from datetime import UTC, datetime
from typing import BinaryIO, cast

import orjson
import structlog

from handlers.runtime.settings import LogFormat

# Never the values of variables: they hold keys and what clients sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_ENCODER = json.JSONEncoder(
    default=repr, separators=(",", ":")
)  # made once: `json.dumps` would make one for every line


def configure_logging(log_format: LogFormat, level: int = logging.INFO) -> None:
    """
    Send the relay's and the server's log lines to standard error.

    Args:
        log_format: `json` for machines, `console` for people.
        level: Of the relay's own lines; the server's are shown from warnings on.
    """
    as_json = log_format is LogFormat.JSON
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    fast: list[structlog.typing.Processor] = [structlog.processors.add_log_level, _TRACEBACKS, _as_bytes]
    renderer: list[structlog.typing.Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(_as_text)]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=fast if as_json else [*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=(
            structlog.BytesLoggerFactory(cast("BinaryIO", _Lines(sys.stderr.buffer)))
            if as_json
            else structlog.PrintLoggerFactory(sys.stderr)
        ),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[*shared, _drop_private, *renderer]))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _drop_private(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _as_text(event: structlog.typing.EventDict, **_: object) -> str:
    return _ENCODER.encode(event)


def _as_bytes(_logger: object, _name: str, event: structlog.typing.EventDict) -> bytes:
    event["timestamp"] = datetime.now(UTC)
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, half of a surrogate pair
        event["timestamp"] = event["timestamp"].isoformat().replace("+00:00", "Z")
        return _ENCODER.encode(event).encode()


class _Lines:
    """
    A file that is written for all lines of one turn of the event loop together: a system call each is dear under load.

    Without a running loop every line is written at once. A process that is killed loses the lines of one turn.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: list[bytes] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # that will write them

    def write(self, line: bytes) -> None:
        self._lines.append(line)

    def flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._drain()
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._loop = None
        lines, self._lines = self._lines, []
        together = b""
        for line in lines:
            # Beyond this a pipe mixes what several workers write.
            if together and len(together) + len(line) > select.PIPE_BUF:
                self._put(together)
                together = b""
            together += line
        if together:
            self._put(together)

    def _put(self, lines: bytes) -> None:
        self._file.write(lines)
        self._file.flush()
