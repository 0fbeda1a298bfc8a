import json
from typing import Any

import pytest

from handlers.runtime.messages import Reply


def test_a_value_is_answered_as_compact_json() -> None:
    """Text stays as it is; the type says what it is."""
    reply = Reply.json({"name": "Größe", "count": 2**64 - 1}, status=201)
    assert (reply.status, reply.headers) == (201, [(b"content-type", b"application/json")])
    assert reply.body == '{"name":"Größe","count":18446744073709551615}'.encode()


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 2**70, "half \ud83d"], ids=ascii)
def test_what_an_upstream_may_say_can_be_answered(value: Any) -> None:
    """JSON has integers beyond 64 bits and halves of surrogate pairs; neither is a fault of the relay."""
    reply = Reply.json({"value": value})
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == {"value": value}


def test_what_json_cannot_say_is_refused() -> None:
    """A number that is none does not slip through beside an integer beyond 64 bits."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        Reply.json([2**70, float("nan")])
