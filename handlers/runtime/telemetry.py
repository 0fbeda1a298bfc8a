"""Sets logging up: one line per event on standard error, JSON or for a console."""

import json
import logging
import sys

import structlog

from handlers.runtime.settings import LogFormat

# Never the values of variables: they hold keys and what clients sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_ENCODER = json.JSONEncoder(default=repr)  # made once: `json.dumps` would make one for every line


def configure_logging(log_format: LogFormat, level: int = logging.INFO) -> None:
    """
    Send the relay's and the server's log lines to standard error.

    Args:
        log_format: `json` for machines, `console` for people.
        level: Of the relay's own lines; the server's are shown from warnings on.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(_as_json)]
        if log_format is LogFormat.JSON
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[*shared, _drop_private, *renderer]))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _drop_private(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _as_json(event: structlog.typing.EventDict, **_: object) -> str:
    return _ENCODER.encode(event)
