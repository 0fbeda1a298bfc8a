"""What the relays of the integration tests have answered and refused, measured from the lines that they log."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from handlers.runtime.errors import ERROR_TABLE
from tests.support.documents import ROOT

INTEGRATION = ROOT / "tests" / "integration"
# A relay refuses with these by its own judgement; the other types tell that something went wrong.
_REFUSALS = frozenset(
    rule.code
    for rule in ERROR_TABLE.values()
    if rule.type in {"relay_auth_error", "relay_policy_error", "relay_contract_error"}
)
_SETTLED_SECONDS = 0.2  # a line is written just after its reply has been sent


@dataclass(frozen=True, slots=True)
class Seen:
    """OperationIds that were answered and that were refused."""

    answered: frozenset[str]
    refused: frozenset[str]


class RelayLogs:
    """
    The lines that relays log from now on.

    Args:
        outputs: Files with what each relay prints; grows as relays start, and a file may be gone with its relay.
    """

    def __init__(self, outputs: Sequence[Path]) -> None:
        self._outputs = outputs
        self._before = self._sizes()

    def seen(self) -> Seen:
        """What the relays have answered and refused since."""
        before: dict[Path, int] = {}
        while (sizes := self._sizes()) != before:
            before = sizes
            time.sleep(_SETTLED_SECONDS)
        return seen_in(line for path in sizes for line in self._lines(path))

    def _sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self._outputs if path.is_file()}

    def _lines(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(self._before.get(path, 0))
            yield from file


def seen_in(lines: Iterable[bytes]) -> Seen:
    """
    Read lines that relays have logged.

    Args:
        lines: Those that are no JSON, or not about a request to an operation, are passed over.
    """
    answered: set[str] = set()
    refused: set[str] = set()
    for line in lines:
        record = _record(line)
        operation_id, outcome, status = (record.get(key) for key in ("operation", "outcome", "status"))
        if record.get("event") != "request" or not isinstance(operation_id, str):
            continue
        if outcome == "answered" and isinstance(status, int) and status < 400:
            answered.add(operation_id)
        elif outcome in _REFUSALS:
            refused.add(operation_id)
    return Seen(frozenset(answered), frozenset(refused))


def missing_tests(collected: Iterable[pytest.Item], running: Iterable[pytest.Item]) -> list[str]:
    """
    Tell which integration tests a session leaves out.

    Args:
        collected: All tests that were found, before any was deselected.
        running: Those that the session runs.

    Returns:
        Files of which no test was found, and ids of tests that were deselected; empty when the whole part runs.
    """
    found = {item.nodeid: item.path for item in collected if item.path.is_relative_to(INTEGRATION)}
    files = set(INTEGRATION.rglob("test_*.py")) - set(found.values())
    return sorted(
        {path.relative_to(ROOT).as_posix() for path in files} | (found.keys() - {item.nodeid for item in running})
    )


def _record(line: bytes) -> Mapping[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}
