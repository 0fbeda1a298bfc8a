"""Generated requests, valid and invalid, to every operation of `/openapi.json`."""

from typing import Any

import httpx
import pytest
from schemathesis import Case

from tests.support.fuzzing import Fuzzer, load_schema

pytestmark = pytest.mark.fuzz

SCHEMA = load_schema()


@SCHEMA.parametrize()
def test_every_reply_is_what_the_contract_promises(case: Case[Any], fuzzer: Fuzzer) -> None:
    """Valid requests are accepted, invalid ones refused, replies are as documented, refusals stay at the relay."""
    fuzzer.check(case)


def test_the_relay_publishes_this_document(client: httpx.Client) -> None:
    """What is fuzzed is what the running relay publishes."""
    assert client.get("/openapi.json").json() == SCHEMA.raw_schema
