import inspect
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from ruamel.yaml import YAML

from codegen.contract import ACTIONS, FULL, Operation, load_contract
from codegen.naming import snake_case
from codegen.publication import published_document
from handlers import operator, proxy, relay
from handlers.runtime.app import GENERATED, create_services
from handlers.runtime.messages import Handler, Reply
from handlers.runtime.settings import Settings
from handlers.runtime.validation import SchemaSource
from tests.handlers.conftest import MakeRequest

CONTRACT = load_contract(GENERATED, FULL)
SCHEMAS = SchemaSource(CONTRACT)
MODULES = {"Relay": relay, "Proxy": proxy, "Operator": operator}
OWN = [operation for operation in CONTRACT if operation.tag in MODULES]
(ASSET,) = CONTRACT.operations["retrieveDocsAsset"].parameters_in("path")
ASSETS: list[str] = list(ASSET.schema["enum"])


def function_of(operation: Operation) -> Handler:
    """The handler of one of the relay's own operations."""
    function: Handler = getattr(MODULES[operation.tag], snake_case(operation.id))
    assert inspect.iscoroutinefunction(function)
    return function


def content_type(reply: Reply) -> str:
    """The media type of a reply, without parameters."""
    return dict(reply.headers)[b"content-type"].decode().split(";")[0]


def requests_of(operation: Operation) -> list[dict[str, Any]]:
    """Requests that the relay answers by itself: all path values there are, and of the bodies those that stay here."""
    if operation.body is not None:
        examples = operation.body.content["application/json"].examples.values()
        return [{"body": example} for example in examples if example.get("dry_run")]
    return [{"path_params": {"asset": name}} for name in ASSETS] if operation.parameters_in("path") else [{}]


@pytest.mark.parametrize("operation", OWN, ids=lambda operation: operation.id)
async def test_replies_are_what_the_contract_declares(request_of: MakeRequest, operation: Operation) -> None:
    """Each of the relay's own operations answers its declared status and media type, and its body fits its schema."""
    code, declared = operation.success
    for fields in requests_of(operation):
        reply = await function_of(operation)(request_of(operation.id, **fields))
        assert str(reply.status) == code
        assert content_type(reply) in declared
        media = declared[content_type(reply)]
        assert isinstance(reply.body, bytes)
        assert media.pointer is not None
        body: Any = orjson.loads(reply.body) if content_type(reply) == "application/json" else reply.body.decode()
        SCHEMAS.at(media.pointer).validate(body)


@pytest.mark.parametrize("operation", OWN, ids=lambda operation: operation.id)
async def test_replies_hold_no_credential(request_of: MakeRequest, operation: Operation) -> None:
    """No operation of the relay shows the upstream's key, a relay key or a digest of one."""
    for fields in requests_of(operation):
        request = request_of(operation.id, **fields)
        reply = await function_of(operation)(request)
        assert isinstance(reply.body, bytes)
        settings = request.services.settings
        for secret in (settings.OPENAI_API_KEY.get_secret_value(), settings.RELAY_KEY.get_secret_value()):
            assert secret.encode() not in reply.body
        assert all(key.digest.hex().encode() not in reply.body for key in request.services.keys.keys)


async def test_a_relay_that_is_not_ready_says_why(request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the same fields, so that whoever looks sees which check it is."""
    operation = CONTRACT.operations["retrieveReadiness"]
    request = request_of(operation.id)
    monkeypatch.setattr(request.services.admission, "draining", True)
    reply = await function_of(operation)(request)
    assert reply.status == 503
    assert isinstance(reply.body, bytes)
    body = orjson.loads(reply.body)
    assert (body["status"], body["checks"]["drain"]) == ("unavailable", "draining")
    media = operation.responses["503"][content_type(reply)]
    assert media.pointer is not None
    SCHEMAS.at(media.pointer).validate(body)


async def test_health_says_which_contract_answers(request_of: MakeRequest) -> None:
    """Both health operations name the contract's version."""
    for operation_id in ("retrieveHealth", "retrieveCanonicalHealth"):
        reply = await function_of(CONTRACT.operations[operation_id])(request_of(operation_id))
        assert isinstance(reply.body, bytes)
        assert orjson.loads(reply.body) == {"status": "ok", "version": CONTRACT.version}


async def test_the_documents_are_the_published_ones(request_of: MakeRequest) -> None:
    """`/openapi.json` is the contract without internal operations, byte for byte what was encoded at the start."""
    request = request_of("retrieveContract")
    reply = await relay.retrieve_contract(request)
    assert reply.body == request.services.published[FULL]
    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body) == published_document(CONTRACT)


@pytest.mark.parametrize("public_url", ["", "https://relay.team.example"], ids=["placeholder", "public URL"])
async def test_the_document_is_the_same_as_yaml(request_of: MakeRequest, public_url: str) -> None:
    """Readers of YAML 1.1 and of 1.2 find what stands in `/openapi.actions.json`, the public address included."""
    services = create_services(Settings.model_validate({"RELAY_KEY": "rk_" + "x" * 43, "RELAY_PUBLIC_URL": public_url}))
    request = request_of("retrieveActionsContractAsYaml", services=services)
    reply = await relay.retrieve_actions_contract_as_yaml(request)
    published = orjson.loads(services.published[ACTIONS])
    assert reply.headers == [(b"content-type", b"application/yaml")]
    assert isinstance(reply.body, bytes)
    assert yaml.load(reply.body, yaml.CSafeLoader) == published
    assert YAML(typ="safe", pure=True).load(reply.body) == published
    if public_url:
        assert published["servers"] == [{"url": public_url}]


async def test_the_document_is_written_as_yaml_once(request_of: MakeRequest) -> None:
    """A second request gets the same bytes, not a second computation."""
    request = request_of("retrieveActionsContractAsYaml")
    first, second = [await relay.retrieve_actions_contract_as_yaml(request) for _ in range(2)]
    assert first.body is second.body


async def test_the_page_asks_for_assets_that_are_there(request_of: MakeRequest) -> None:
    """Every script and style of the page is one of the operation's assets, and every asset is used by the page."""
    reply = await relay.retrieve_docs(request_of("retrieveDocs"))
    assert isinstance(reply.body, bytes)
    wanted = re.findall(r'(?:src|<link .*href)="([^"]+)"', reply.body.decode())
    assert {link for link in wanted if not link.startswith("data:")} == {f"/docs/{name}" for name in ASSETS}


async def test_the_page_takes_nothing_from_elsewhere(request_of: MakeRequest) -> None:
    """No address of another host stands in the page or its own files, and its policy forbids any."""
    reply = await relay.retrieve_docs(request_of("retrieveDocs"))
    headers = dict(reply.headers)
    policy = dict(part.strip().split(" ", 1) for part in headers[b"content-security-policy"].decode().split(";"))
    assert policy["default-src"] == "'none'"
    sources = {source for name, value in policy.items() for source in value.split()}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert "'unsafe-inline'" not in policy["script-src"]
    assert policy["frame-ancestors"] == "'none'"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"x-content-type-options"] == b"nosniff"
    own = [reply] + [
        await relay.retrieve_docs_asset(request_of("retrieveDocsAsset", {"asset": name}))
        for name in ASSETS
        if not name.startswith("swagger-ui")
    ]
    for page in own:
        assert isinstance(page.body, bytes)
        assert not re.search(rb"https?://|[\"'(]//", page.body)


async def test_the_page_shows_both_documents(request_of: MakeRequest) -> None:
    """The page's script names the paths of both documents."""
    reply = await relay.retrieve_docs_asset(request_of("retrieveDocsAsset", {"asset": "docs.js"}))
    assert isinstance(reply.body, bytes)
    for operation_id in ("retrieveContract", "retrieveActionsContract"):
        assert f'"{CONTRACT.operations[operation_id].path}"'.encode() in reply.body


async def test_the_page_of_documents_leads_to_the_policy(request_of: MakeRequest) -> None:
    """Its link is the path of the operation that shows the policy."""
    reply = await relay.retrieve_docs(request_of("retrieveDocs"))
    assert isinstance(reply.body, bytes)
    assert f'<a href="{CONTRACT.operations["retrievePolicy"].path}">'.encode() in reply.body


async def test_the_policy_page_may_run_only_what_it_names(request_of: MakeRequest) -> None:
    """The header repeats the page's own policy, hashes and all, and forbids frames, guessed types and referrers."""
    reply = await relay.retrieve_policy(request_of("retrievePolicy"))
    headers = dict(reply.headers)
    policy = headers[b"content-security-policy"].decode()
    own, _, frames = policy.rpartition("; ")
    assert isinstance(reply.body, bytes)
    assert f'http-equiv="Content-Security-Policy" content="{own}"' in reply.body.decode()
    assert frames == "frame-ancestors 'none'"
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='; style-src 'sha256-[A-Za-z0-9+/]{43}=';", policy)
    assert "unsafe" not in policy
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "public_url, by_tls_alone",
    [("", False), ("http://relay.internal:8080", False), ("https://relay.example.com", True)],
)
async def test_a_page_tells_browsers_what_it_never_needs(
    request_of: MakeRequest, public_url: str, by_tls_alone: bool
) -> None:
    """No shared windows, no devices; and to come by TLS alone where the relay is known under https."""
    services = create_services(Settings.model_validate({"RELAY_PUBLIC_URL": public_url}))
    for page, operation_id in ((relay.retrieve_docs, "retrieveDocs"), (relay.retrieve_policy, "retrievePolicy")):
        headers = (await page(request_of(operation_id, services=services))).headers
        assert len({name for name, _ in headers}) == len(headers)
        told = dict(headers)
        assert told[b"cross-origin-opener-policy"] == b"same-origin"
        assert told[b"cross-origin-resource-policy"] == b"same-origin"
        assert b"camera=()" in told[b"permissions-policy"]
        assert (b"strict-transport-security" in told) is by_tls_alone


async def test_a_policy_page_that_names_nothing_is_not_shown(
    request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A page that was not written by the renderer is an error, not a page without protection."""
    (tmp_path / "policy.html").write_text("<script>1</script>", encoding="utf-8")
    monkeypatch.setattr(relay, "GENERATED", tmp_path)
    relay.read_policy_page.cache_clear()
    with pytest.raises(ValueError, match="run `contract render`"):
        await relay.retrieve_policy(request_of("retrievePolicy"))


@pytest.mark.parametrize("name", ASSETS)
async def test_assets_may_be_kept_and_are_never_guessed(request_of: MakeRequest, name: str) -> None:
    """Scripts and styles carry their type, forbid guessing it, and may be cached for a while."""
    reply = await relay.retrieve_docs_asset(request_of("retrieveDocsAsset", {"asset": name}))
    headers = dict(reply.headers)
    assert (
        headers[b"content-type"] == (b"text/css" if name.endswith(".css") else b"text/javascript") + b"; charset=utf-8"
    )
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"cache-control"].startswith(b"max-age=")
    assert reply.body
