"""Generated requests, valid and invalid, to every operation of `/openapi.actions.json`."""

from typing import Any

import httpx
import pytest
from schemathesis import Case

from codegen.contract import ACTIONS
from tests.support.fuzzing import NARROWER, Fuzzer, load_schema, nullable_replies

pytestmark = pytest.mark.fuzz

SCHEMA = load_schema(ACTIONS)


@SCHEMA.parametrize()
def test_every_reply_is_what_the_contract_promises(case: Case[Any], fuzzer: Fuzzer) -> None:
    """What an assistant may send is accepted, and what it gets back is as documented."""
    fuzzer.check(case, excluded=NARROWER)


def test_the_relay_publishes_this_document(client: httpx.Client) -> None:
    """What is fuzzed is what the running relay publishes, apart from replies that may hold null."""
    assert nullable_replies(client.get("/openapi.actions.json").json()) == SCHEMA.raw_schema
