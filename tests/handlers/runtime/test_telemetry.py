import logging
import sys
from collections.abc import Iterator

import orjson
import pytest
import structlog

from handlers.runtime.settings import LogFormat
from handlers.runtime.telemetry import configure_logging

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
