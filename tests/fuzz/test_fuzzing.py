"""The checks of the fuzz tests fail when they should."""

import pytest
import requests
import schemathesis
from schemathesis import Response
from schemathesis.core.failures import FailureGroup

from codegen.contract import FULL, load_contract
from codegen.publication import published_document
from handlers.runtime.app import GENERATED
from tests.support.fuzzing import Fuzzer, load_schema, nullable_replies, witness

pytestmark = pytest.mark.fuzz

OWN = {"x-request-id": ["rly_1"], "x-relay-request-id": ["rly_1"]}
FORWARDED = {"x-request-id": ["req_1"], "x-relay-request-id": ["rly_1"]}


def _reply(status: int, headers: dict[str, list[str]], error_type: str | None = None) -> Response:
    content = b"" if error_type is None else b'{"error": {"type": "%s"}}' % error_type.encode()
    request = requests.Request("GET", "http://relay.test/").prepare()
    headers = {**headers, "content-type": ["application/json"]}
    return Response(status, headers, content, request, elapsed=0.0, verify=False)


class TestWitness:
    @pytest.mark.parametrize(
        "reply,arrived,verdict",
        [
            (_reply(400, OWN, "relay_contract_error"), 0, "relay_contract_error"),
            (_reply(403, OWN, "relay_policy_error"), 0, "relay_policy_error"),
            (_reply(200, OWN), 0, "relay"),
            (_reply(200, FORWARDED), 1, "upstream"),
            (_reply(404, FORWARDED, "invalid_request_error"), 1, "upstream"),
        ],
    )
    def test_it_says_who_answered(self, reply: Response, arrived: int, verdict: str) -> None:
        """Refusals and the relay's own replies reach nobody, all others reach the upstream once."""
        assert witness(reply, arrived) == verdict

    @pytest.mark.parametrize(
        "reply,arrived",
        [
            (_reply(400, OWN, "relay_contract_error"), 1),
            (_reply(401, FORWARDED, "relay_auth_error"), 1),
            (_reply(200, OWN), 1),
            (_reply(200, FORWARDED), 0),
            (_reply(200, FORWARDED), 2),
        ],
    )
    def test_what_reached_the_upstream_against_the_rules_is_seen(self, reply: Response, arrived: int) -> None:
        """A refused request that got through, and a forwarded one that did not arrive exactly once, are errors."""
        with pytest.raises(AssertionError):
            witness(reply, arrived)


def test_a_reply_that_breaks_the_contract_is_seen(fuzzer: Fuzzer) -> None:
    """A reply without a field that the document requires fails the check."""
    document = published_document(load_contract(GENERATED, FULL))
    health = {**document["components"]["schemas"]["Health"], "required": ["status", "unheard_of"]}
    schemas = {**document["components"]["schemas"], "Health": health}
    schema = schemathesis.openapi.from_dict({**document, "components": {**document["components"], "schemas": schemas}})
    with pytest.raises(FailureGroup):
        fuzzer.check(schema["/health"]["GET"].Case())


def test_a_reply_that_keeps_the_contract_passes(fuzzer: Fuzzer) -> None:
    """The same reply passes by the document itself."""
    fuzzer.check(load_schema()["/health"]["GET"].Case())
    assert fuzzer.seen["relay"] >= 1


def test_only_optional_fields_of_replies_may_be_null() -> None:
    """The wider reading of the Actions document touches neither required fields nor requests."""
    body = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "name": {"type": "string"}}}
    content = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}
    operation = {"requestBody": content, "responses": {"200": content}}
    document = {"paths": {"/things": {"post": operation}}, "components": {"schemas": {"Thing": body}}}
    widened = nullable_replies(document)["paths"]["/things"]["post"]
    properties = widened["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert properties == {"id": {"type": "string"}, "name": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    assert widened["requestBody"] == content
