import asyncio
import json
import logging
import select
import sys
from collections.abc import Iterator

import orjson
import pytest
import structlog

from handlers.runtime.settings import LogFormat
from handlers.runtime.telemetry import _Lines, configure_logging

CANARY = "rk_canary-in-a-variable"


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Logging as it was, after each test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def fail(secret: str) -> None:
    """Fail with a secret in a variable."""
    assert secret
    raise ZeroDivisionError("a defect")


def log_a_defect() -> None:
    """Log a failure as the edge does."""
    try:
        fail(CANARY)
    except ZeroDivisionError as error:
        structlog.get_logger("relay").error("defect", request_id="rly_1", exc_info=error)


def test_json_logs_are_one_object_per_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of the relay and of its libraries are JSON with level and UTC time; standard output stays free."""
    configure_logging(LogFormat.JSON)
    structlog.get_logger("relay").info("request", status=200, note="zwei\nZeilen")
    logging.getLogger("uvicorn.error").warning("from a %s", "library")
    printed = capsys.readouterr()
    assert printed.out == ""
    ours, theirs = (orjson.loads(line) for line in printed.err.splitlines())
    assert {"event": "request", "status": 200, "level": "info", "note": "zwei\nZeilen"}.items() <= ours.items()
    assert {"event": "from a library", "level": "warning"}.items() <= theirs.items()
    for line in (ours, theirs):
        assert line["timestamp"].endswith("Z")
        assert not any(name.startswith("_") for name in line)


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_defect_is_logged_without_the_values_of_variables(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    """A traceback says where it happened; variables may hold keys and bodies, so their values never show."""
    configure_logging(log_format)
    log_a_defect()
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "test_telemetry.py" in shown
    assert CANARY not in shown


def test_console_logs_are_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    """The console form is plain text, without colours when nobody looks at a terminal."""
    configure_logging(LogFormat.CONSOLE)
    structlog.get_logger("relay").info("request", status=200)
    assert not sys.stderr.isatty()
    shown = capsys.readouterr().err
    assert "request" in shown
    assert "status=200" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("log_format", LogFormat)
def test_libraries_only_speak_up_when_something_is_wrong(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    """Debug and info lines of libraries, which may name addresses and headers, are not written."""
    configure_logging(log_format)
    logging.getLogger("aiohttp.client").info("GET https://api.example")
    logging.getLogger("httpx").debug("headers")
    structlog.get_logger("relay").debug("details")
    assert capsys.readouterr().err == ""


class Written:
    """A file that keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.writes.append(data)

    def flush(self) -> None:
        """There is nothing to do."""


def put(lines: _Lines, *texts: bytes) -> None:
    """Write lines as structlog does."""
    for text in texts:
        lines.write(text)
        lines.flush()


def test_lines_of_one_turn_are_written_together() -> None:
    """One write for what belongs together, in order; without a loop each by itself."""
    file = Written()
    lines = _Lines(file)  # type: ignore[arg-type]  # as far as it is used

    async def turns() -> None:
        before = [*file.writes]
        put(lines, b"1\n", b"2\n")
        assert file.writes == before
        await asyncio.sleep(0)
        put(lines, b"3\n")

    for _ in range(2):  # one loop after the other
        asyncio.run(turns())
    put(lines, b"4\n", b"5\n")
    assert file.writes == [b"1\n2\n", b"3\n", b"1\n2\n", b"3\n", b"4\n", b"5\n"]


def test_no_write_is_longer_than_a_pipe_keeps_whole() -> None:
    """Several workers share one pipe, which mixes longer ones; a line that is longer by itself stays one."""
    file = Written()
    lines = _Lines(file)  # type: ignore[arg-type]  # as far as it is used
    texts = [b"a" * 1000 + b"\n"] * 10 + [b"b" * 2 * select.PIPE_BUF + b"\n"] + [b"c\n"] * 3

    async def turn() -> None:
        put(lines, *texts)

    asyncio.run(turn())
    assert b"".join(file.writes) == b"".join(texts)
    assert all(len(write) <= select.PIPE_BUF or write.count(b"\n") == 1 for write in file.writes)
    assert len(file.writes) < len(texts)


def test_what_json_cannot_hold_is_still_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """An integer beyond 64 bits, or half of a surrogate pair, costs no line."""
    configure_logging(LogFormat.JSON)
    structlog.get_logger("relay").info("request", number=2**70, text="\ud800")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["number"], line["text"]) == ("request", 2**70, "\ud800")
    assert line["timestamp"].endswith("Z")
