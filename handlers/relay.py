"""
Operations of the tag Relay: health, the published documents and the pages for people.

None of them asks the upstream.
"""

import re
from functools import cache
from http import HTTPStatus
from importlib import resources
from importlib.metadata import distribution
from pathlib import Path

import orjson
import yaml

from codegen.contract import ACTIONS, FULL
from handlers.runtime.app import GENERATED
from handlers.runtime.messages import Reply, Request
from handlers.runtime.page_headers import DOCS_POLICY, NO_SNIFFING, page_headers

_PAGES = resources.files("handlers") / "pages"
# Found, not imported: only its static files are used, and its code brings a template engine along, 1 MB and 17 ms.
_SWAGGER_UI = Path(str(distribution("swagger-ui-py").locate_file("swagger_ui/static")))
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}


async def retrieve_health(request: Request) -> Reply:
    """
    Tell that the relay answers.

    Returns:
        `Health`.

    Source: operation `retrieveHealth`.
    """
    return Reply.json({"status": "ok", "version": request.services.contract.version})


async def retrieve_canonical_health(request: Request) -> Reply:
    """
    Tell the holder of a key that relay and key work.

    Returns:
        `Health`.

    Source: operation `retrieveCanonicalHealth`.
    """
    return await retrieve_health(request)


async def retrieve_liveness(_request: Request) -> Reply:
    """
    Tell that the process runs.

    Returns:
        `Probe`.

    Source: operation `retrieveLiveness`.
    """
    return Reply.json({"status": "ok"})


async def retrieve_readiness(request: Request) -> Reply:
    """
    Tell whether the relay can take requests, and what it knows about what it depends on.

    Returns:
        `Probe`, with the status 503 where requests should go elsewhere.

    Source: operation `retrieveReadiness`.
    """
    readiness = request.services.readiness
    readiness.look()
    ready = readiness.ready()
    probe = {"status": "ok" if ready else "unavailable", "checks": readiness.checks()}
    return Reply.json(probe, status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


async def retrieve_contract(request: Request) -> Reply:
    """
    Answer the full document without internal operations.

    Returns:
        An OpenAPI 3.1.0 document.

    Source: operation `retrieveContract`.
    """
    return _document(request, FULL)


async def retrieve_actions_contract(request: Request) -> Reply:
    """
    Answer the document that assistants import; with RELAY_PUBLIC_URL set it names that host.

    Returns:
        An OpenAPI 3.1.0 document.

    Source: operation `retrieveActionsContract`.
    """
    return _document(request, ACTIONS)


async def retrieve_actions_contract_as_yaml(request: Request) -> Reply:
    """
    Answer the document that assistants import in the form that some importers ask for.

    Returns:
        The document of `retrieveActionsContract` as YAML.

    Source: operation `retrieveActionsContractAsYaml`; RFC 9512.
    """
    return Reply(200, [(b"content-type", b"application/yaml")], write_yaml(request.services.published[ACTIONS]))


async def retrieve_docs(request: Request) -> Reply:
    """
    Answer the page that shows both documents.

    Returns:
        HTML.

    Source: operation `retrieveDocs`.
    """
    reply = Reply.text((_PAGES / "docs.html").read_text(encoding="utf-8"), media_type="text/html")
    reply.headers += page_headers(DOCS_POLICY, request.services.settings.RELAY_PUBLIC_URL)
    return reply


async def retrieve_docs_asset(request: Request) -> Reply:
    """
    Answer a script or a style of the page.

    Args:
        request: Its `asset` is one of the names that the contract lists, so it cannot lead out of the folders.

    Returns:
        The file.

    Source: operation `retrieveDocsAsset`.
    """
    name = request.path_params["asset"]
    folder = _SWAGGER_UI if name.startswith("swagger-ui") else _PAGES
    reply = Reply.text((folder / name).read_text(encoding="utf-8"), media_type=_MEDIA_TYPES[Path(name).suffix])
    reply.headers += [(b"cache-control", b"max-age=3600"), NO_SNIFFING]
    return reply


async def retrieve_policy(request: Request) -> Reply:
    """
    Answer the page with the decision about every published operation.

    Returns:
        HTML.

    Source: operation `retrievePolicy`.
    """
    page, policy = read_policy_page()
    reply = Reply.text(page, media_type="text/html")
    reply.headers += page_headers(policy, request.services.settings.RELAY_PUBLIC_URL)
    return reply


@cache
def read_policy_page() -> tuple[str, str]:
    """The page with its Content-Security-Policy, read once."""
    page = (GENERATED / "policy.html").read_text(encoding="utf-8")
    # The page names the hashes of its own script and style, as written by hand; who may frame it only a header can say.
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    if not policy:
        raise ValueError("policy.html must name its Content-Security-Policy; run `contract render`")
    return page, f"{policy[1]}; frame-ancestors 'none'"


@cache
def write_yaml(document: bytes) -> bytes:
    """A JSON document as YAML in the same order, written once."""
    value = orjson.loads(document)
    text: bytes = yaml.dump(
        value, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120, encoding="utf-8"
    )
    return text


def _document(request: Request, name: str) -> Reply:
    return Reply(200, [(b"content-type", b"application/json")], request.services.published[name])
