import itertools
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import orjson
import pytest
from connexion import AsyncApp
from structlog.testing import capture_logs

from codegen.contract import ACTIONS, FULL, Contract, Operation, load_contract
from codegen.exceptions import ContractError
from handlers import relay
from handlers.runtime.app import GENERATED, create_services
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings
from tests.handlers.runtime.asgi import UpstreamDouble, ask
from tests.handlers.runtime.conftest import RELAY_KEY

KEY = {"authorization": f"Bearer {RELAY_KEY}"}
CONTRACT = load_contract(GENERATED, FULL)


def plain_path(operation: Operation) -> str:
    """A path of the operation whose values fit their schemas."""
    path = operation.path
    for parameter in operation.parameters_in("path"):
        value = str(parameter.schema.get("enum", ["some-id"])[0])
        path = path.replace(f"{{{parameter.name}}}", value)
    return path


@pytest.mark.parametrize("operation", list(CONTRACT), ids=lambda operation: operation.id)
async def test_without_a_key_only_open_operations_answer(
    app: AsyncApp, fresh_upstream: UpstreamDouble, operation: Operation
) -> None:
    """Each operation that takes a key refuses a request without one before anything else, and asks no upstream."""
    answer = await ask(app, operation.method, plain_path(operation))
    if operation.id == "retrieveArtifact":  # its link is the permission, and nobody has signed this one
        assert (answer.status, answer.code) == (404, "artifact_not_found")
    elif operation.open and operation.tag == "MCP":  # nobody issues access tokens for this relay
        assert (answer.status, answer.code) == (404, "oauth_not_configured")
    elif operation.open:
        assert answer.status == 200
    else:
        assert (answer.status, answer.code) == (401, "missing_key")
        assert answer.header("www-authenticate") is None or "Bearer" in str(answer.header("www-authenticate"))
    assert fresh_upstream.requests == []


@pytest.mark.parametrize("operation", [o for o in CONTRACT if not o.served], ids=lambda operation: operation.id)
async def test_unsupported_operations_are_refused_with_their_reason(
    app: AsyncApp, fresh_upstream: UpstreamDouble, operation: Operation
) -> None:
    """Whatever stands in the request, an unsupported operation says why it is one and asks no upstream."""
    answer = await ask(
        app, operation.method, plain_path(operation), headers={**KEY, "content-type": "text/plain"}, body=b"x"
    )
    assert (answer.status, answer.code) == (403, "operation_unsupported")
    assert operation.reason in orjson.loads(answer.body)["error"]["message"]
    assert fresh_upstream.requests == []


@pytest.mark.parametrize("operation", [o for o in CONTRACT if o.sunset], ids=lambda operation: operation.id)
async def test_operations_that_end_say_when(app: AsyncApp, operation: Operation) -> None:
    """`Deprecation` and `Sunset` stand on every reply of such an operation, refusals included, and name its day."""
    answer = await ask(app, operation.method, plain_path(operation))
    end = datetime.fromisoformat(operation.sunset).replace(tzinfo=UTC)
    assert parsedate_to_datetime(str(answer.header("sunset"))) == end
    assert answer.header("deprecation") == f"@{int(end.timestamp())}"


async def test_operations_that_go_on_say_nothing_about_an_end(app: AsyncApp) -> None:
    """Without an announced end the headers are absent."""
    answer = await ask(app, "GET", "/v1/models", headers=KEY)
    assert (answer.header("sunset"), answer.header("deprecation")) == (None, None)


@pytest.mark.parametrize("path", sorted({o.path for o in CONTRACT}))
async def test_other_methods_are_told_the_right_ones(app: AsyncApp, fresh_upstream: UpstreamDouble, path: str) -> None:
    """405 and `OPTIONS` name in `Allow` exactly the methods of the path, `HEAD` beside `GET`; no key is asked for."""
    here = [operation for operation in CONTRACT if operation.path == path]
    methods = {operation.method for operation in here}
    expected = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    raw = plain_path(here[0])
    for method in ("PROPFIND", "TRACE", *({"PUT", "PATCH"} - methods)):
        answer = await ask(app, method, raw)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert set(str(answer.header("allow")).split(", ")) == expected
    options = await ask(app, "OPTIONS", raw)
    assert (options.status, options.body) == (204, b"")
    assert set(str(options.header("allow")).split(", ")) == expected
    assert fresh_upstream.requests == []


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/unheard_of", "/v1/models/", "/V1/models", "/v1/files/%2e%2e", "*", "/docs/../health"]
)
async def test_unknown_paths_are_unknown_with_a_key_and_without(
    app: AsyncApp, fresh_upstream: UpstreamDouble, path: str
) -> None:
    """What the contract does not have is 404 in the relay's own form, whatever the method."""
    for method, headers in itertools.product(("GET", "POST", "OPTIONS"), ({}, KEY)):
        answer = await ask(app, method, path, headers=headers)
        assert (answer.status, answer.code) == (404, "unknown_operation")
    assert fresh_upstream.requests == []


async def test_head_is_get_without_a_body(app: AsyncApp, fresh_upstream: UpstreamDouble) -> None:
    """`HEAD` has status and headers of `GET` and no body, on own and on forwarded operations."""
    for path in ("/health", "/v1/models"):
        head = await ask(app, "HEAD", path, headers=KEY)
        get = await ask(app, "GET", path, headers=KEY)
        assert head.status == get.status == 200
        assert (head.body, bool(get.body)) == (b"", True)
        assert head.header("content-type") == get.header("content-type")
        assert head.header("content-length") == get.header("content-length")
    assert {request.method for request in fresh_upstream.requests} == {"GET"}


async def test_json_goes_upstream_in_its_original_bytes(app: AsyncApp, fresh_upstream: UpstreamDouble) -> None:
    """The body is checked and then sent as it came: blanks, order, escapes and unknown fields included."""
    raw = b'{ "new" : 1.10, "model":"gpt\\u002d6",\n"input": "\xc3\xbc" }'
    answer = await ask(app, "POST", "/v1/responses", headers={**KEY, "content-type": "application/json"}, body=raw)
    assert (answer.status, answer.body) == (200, b'{"from": "upstream"}')
    assert fresh_upstream.bodies == [raw]
    assert fresh_upstream.requests[0].headers["content-length"] == str(len(raw))


@pytest.mark.parametrize(
    "body, code",
    [
        (b"", "missing_body"),
        (b"{", "malformed_json"),
        (b'{"model": "a", "model": "b"}', "duplicate_key"),
        (b'{"model": 5}', "invalid_body"),
    ],
)
async def test_a_refused_body_never_reaches_the_upstream(
    app: AsyncApp, fresh_upstream: UpstreamDouble, services: Services, body: bytes, code: str
) -> None:
    """A body that does not fit ends in the relay, and its counter of upstream calls shows it."""
    before = services.upstream.calls
    answer = await ask(app, "POST", "/v1/responses", headers={**KEY, "content-type": "application/json"}, body=body)
    assert (answer.status, answer.code) == (400, code)
    assert fresh_upstream.requests == []
    assert services.upstream.calls == before


@pytest.mark.parametrize(
    "path, query",
    [
        ("/v1/models/" + "x" * 70_000, b""),
        ("/v1/models", b"a=" + b"x" * 70_000),
        ("/v1/models", b"a=" + b"%41" * 30_000),
    ],
)
async def test_an_endless_address_is_refused_and_no_defect(
    app: AsyncApp, fresh_upstream: UpstreamDouble, path: str, query: bytes
) -> None:
    """An address longer than any client library takes is the client's mistake, not a failure of the relay."""
    answer = await ask(app, "GET", path, query=query, headers=KEY)
    assert 400 <= answer.status < 500
    assert fresh_upstream.requests == []


@pytest.mark.parametrize("length", ["-1", "1.5", "0x10", "٣", "1 1", "9" * 40])
async def test_a_length_that_is_none_or_too_large_is_refused(app: AsyncApp, length: str) -> None:
    """`Content-Length` is a decimal number within the limit."""
    headers = {**KEY, "content-type": "application/json", "content-length": length}
    answer = await ask(app, "POST", "/v1/responses", headers=headers, body=b"{}")
    assert answer.status in {400, 413}


async def test_every_reply_carries_ids_of_its_own(app: AsyncApp) -> None:
    """Two requests have two ids, and refusals have one as well."""
    answers = [await ask(app, "GET", path) for path in ("/health", "/health", "/v1/models", "/nowhere")]
    ids = {answer.header("x-relay-request-id") for answer in answers}
    assert len(ids) == 4
    assert None not in ids
    assert all(answer.header("x-request-id") == answer.header("x-relay-request-id") for answer in answers)


async def test_a_defect_is_a_500_that_tells_nothing(app: AsyncApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a handler fails in an unforeseen way the client learns only that, and whom to tell."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(relay, "_document", broken)
    with capture_logs() as lines:
        answer = await ask(app, "GET", "/openapi.json")
    assert [line["event"] for line in lines] == ["defect", "request"]
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"secret detail" not in answer.body


async def test_published_documents_hold_no_internal_operation(app: AsyncApp, contract: Contract) -> None:
    """What anybody may fetch names no internal operation, path, tag or component that only internal operations use."""
    internal = [operation for operation in contract if not operation.published]
    assert internal
    for path in ("/openapi.json", "/openapi.actions.json"):
        text = (await ask(app, "GET", path)).body.decode()
        for operation in internal:
            assert operation.id not in text
            assert operation.path not in text
            assert f'"{operation.tag}"' not in text
        document = orjson.loads(text)
        unused = [
            f"{kind}/{name}"
            for kind, components in document.get("components", {}).items()
            for name in components
            if kind != "securitySchemes" and f'"#/components/{kind}/{name}"' not in text
        ]
        assert unused == [], path


def test_the_actions_document_names_the_public_address() -> None:
    """With RELAY_PUBLIC_URL set assistants import the address under which they can reach the relay."""
    public = "https://relay.team.example"
    with_address = create_services(Settings.model_validate({"RELAY_PUBLIC_URL": f"{public}/"})).published
    without = create_services(Settings.model_validate({})).published
    assert orjson.loads(with_address[ACTIONS])["servers"] == [{"url": public}]
    assert orjson.loads(without[ACTIONS])["servers"] == load_contract(GENERATED, ACTIONS).document["servers"]
    assert with_address[FULL] == without[FULL]


def test_a_missing_or_damaged_document_stops_the_start(tmp_path: Path) -> None:
    """Without the generated documents there is no relay, and the message names the command that writes them."""
    with pytest.raises(ContractError, match="contract render"):
        create_services(Settings.model_validate({}), tmp_path)
    (tmp_path / f"{FULL}.json").write_text("{", encoding="utf-8")
    with pytest.raises(ContractError, match="contract render"):
        create_services(Settings.model_validate({}), tmp_path)
