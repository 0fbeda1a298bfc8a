"""How evidence is taken from the logs of relays (`tests/support/evidence.py`). Opens no sockets."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from tests.support import evidence
from tests.support.evidence import INTEGRATION, RelayLogs, Seen, missing_tests, seen_in


def line(outcome: str = "answered", status: int | None = 200, **fields: Any) -> bytes:
    """A line of a relay's log."""
    record = {"event": "request", "operation": "listThings", "outcome": outcome, "status": status, **fields}
    return orjson.dumps(record) + b"\n"


def item(path: Path, name: str) -> pytest.Item:
    """What pytest has collected, as far as it is looked at."""
    return cast("pytest.Item", SimpleNamespace(path=path, nodeid=f"{path.name}::{name}"))


@pytest.mark.parametrize(
    "logged, answered, refused",
    [
        (line(), True, False),
        (line(status=399), True, False),
        (line(status=404), False, False),  # the upstream's own refusal
        (line(status=None), False, False),
        (line("client_gone", None), False, False),
        (line("upstream_timeout", 504), False, False),
        (line("internal_error", 500), False, False),
        (line("missing_key", 401), False, True),
        (line("operation_unsupported", 403), False, True),
        (line("invalid_body", 400), False, True),
        (line(event="defect"), False, False),
        (line(operation=None), False, False),
        (b"2026-11-22 [info] request operation=listThings outcome=answered status=200\n", False, False),
        (b'{"event": "request"', False, False),
        (b"[]\n", False, False),
    ],
)
def test_a_line_is_an_answer_a_refusal_or_nothing(logged: bytes, answered: bool, refused: bool) -> None:
    """Answers of the upstream below 400 and refusals by the relay's own judgement count; all else does not."""
    names = frozenset({"listThings"})
    assert seen_in([logged]) == Seen(names if answered else frozenset(), names if refused else frozenset())


def test_only_what_is_logged_from_now_on_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of another part of the tests, before, are left out; relays that start later are not; some are gone."""
    monkeypatch.setattr(evidence, "_SETTLED_SECONDS", 0.001)
    early, late = tmp_path / "early.log", tmp_path / "late.log"
    early.write_bytes(line(operation="before"))
    outputs = [early, tmp_path / "gone.log"]
    logs = RelayLogs(outputs)
    outputs.append(late)
    late.write_bytes(line(operation="late"))
    with early.open("ab") as file:
        file.write(line("missing_key", 401, operation="after"))
    assert logs.seen() == Seen(frozenset({"late"}), frozenset({"after"}))


def test_a_part_of_the_tests_is_told_from_all() -> None:
    """A file without a test and a deselected test are named; tests of other folders are nobody's business."""
    whole = [item(path, "test_it") for path in INTEGRATION.rglob("test_*.py")]
    other = item(INTEGRATION.parent / "test_other.py", "test_it")
    first, *rest = whole
    assert missing_tests([*whole, other], whole) == []
    assert missing_tests(whole, rest) == [first.nodeid]
    assert missing_tests(rest, rest) == [f"tests/{first.path.relative_to(INTEGRATION.parent).as_posix()}"]
