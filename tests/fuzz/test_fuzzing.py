"""The checks of the fuzz tests fail when they should."""

import orjson
import pytest
import requests
import schemathesis
from schemathesis import Response
from schemathesis.core.failures import FailureGroup

from codegen.contract import FULL, load_contract
from codegen.publication import published_document
from handlers.runtime.app import GENERATED
from tests.support.fuzzing import CONTRACT, Fuzzer, load_schema, nullable_replies, witness, wrapper_witness

pytestmark = pytest.mark.fuzz

OWN = {"x-request-id": ["rly_1"], "x-relay-request-id": ["rly_1"]}
FORWARDED = {"x-request-id": ["req_1"], "x-relay-request-id": ["rly_1"]}
REPLAYED = {**OWN, "idempotent-replayed": ["true"]}


def _reply(
    status: int, headers: dict[str, list[str]], error_type: str | None = None, code: str = "invalid_body"
) -> Response:
    content = b"" if error_type is None else orjson.dumps({"error": {"type": error_type, "code": code}})
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


class TestWrapperWitness:
    @pytest.mark.parametrize(
        "operation_id,reply,arrived,files,verdict",
        [
            ("generateImages", _reply(200, OWN), ["createImage"], 0, "wrapper"),
            ("generateImages", _reply(400, FORWARDED, "invalid_request_error"), ["createImage"], 0, "wrapper"),
            ("generateImages", _reply(400, OWN, "relay_contract_error"), [], 0, "relay_contract_error"),
            ("generateImages", _reply(200, REPLAYED), [], 0, "replay"),
            ("readFileText", _reply(400, OWN, "relay_contract_error", "not_text"), ["downloadFile"], 0, "wrapper"),
            ("startResponse", _reply(200, OWN), ["createResponse", *["getResponse"] * 9], 0, "wrapper"),
            ("gatherResponseStream", _reply(200, OWN), ["createResponse"], 0, "wrapper"),
            ("pollResponse", _reply(200, OWN), ["getResponse"] * 3, 0, "wrapper"),
            ("uploadFile", _reply(200, OWN), ["createFile"] * 3, 3, "wrapper"),
            ("uploadFile", _reply(200, OWN), [], 3, "wrapper"),
        ],
    )
    def test_it_says_what_it_came_to(
        self, operation_id: str, reply: Response, arrived: list[str | None], files: int, verdict: str
    ) -> None:
        """A wrapper asks once for what it wraps, once per file, or as often as it looks at a state."""
        assert wrapper_witness(reply, arrived, CONTRACT.operations[operation_id], files) == verdict

    @pytest.mark.parametrize(
        "operation_id,reply,arrived,files",
        [
            ("generateImages", _reply(200, OWN), [], 0),
            ("generateImages", _reply(200, OWN), ["createImage"] * 2, 0),
            ("generateImages", _reply(200, OWN), ["createImage", "listModels"], 0),
            ("generateImages", _reply(200, OWN), ["createImage", None], 0),
            ("generateImages", _reply(200, OWN), ["createImage", "getResponse"], 0),
            ("generateImages", _reply(400, OWN, "relay_contract_error"), ["createImage"], 0),
            ("generateImages", _reply(403, OWN, "relay_auth_error"), ["createImage"], 0),
            ("generateImages", _reply(200, REPLAYED), ["createImage"], 0),
            ("editImages", _reply(200, OWN), ["createImageEdit"] * 2, 2),
            ("startResponse", _reply(200, OWN), ["getResponse"], 0),
            ("startResponse", _reply(200, OWN), ["createResponse"] * 2, 0),
            ("pollResponse", _reply(200, OWN), [], 0),
            ("uploadFile", _reply(200, OWN), [], 1),
            ("uploadFile", _reply(200, OWN), ["createFile"] * 3, 2),
        ],
    )
    def test_what_it_must_not_ask_for_is_seen(
        self, operation_id: str, reply: Response, arrived: list[str | None], files: int
    ) -> None:
        """Another operation, one too many, one too few, and anything at all behind a refusal or a replay are errors."""
        with pytest.raises(AssertionError):
            wrapper_witness(reply, arrived, CONTRACT.operations[operation_id], files)

    def test_it_is_asked_about_every_wrapper(self, fuzzer: Fuzzer) -> None:
        """A request to a wrapper is held against it, and no other request is."""
        fuzzer.call(load_schema()["/v1/actions/images/generations"]["POST"].Case(body={"prompt": "A lighthouse."}))
        assert fuzzer.seen["wrapper"] == 1
        fuzzer.call(load_schema()["/v1/models"]["GET"].Case())
        assert (fuzzer.seen["wrapper"], fuzzer.seen["upstream"]) == (1, 1)


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
