"""
Asks a running relay which routes it has bound, and under which version of the contract.

Not for: comparing them with the checkout (`codegen.coverage`). Sends two GET requests to the address that it is given
and to no other; the key is sent to that address and shown to nobody.
"""

import re
import time
from dataclasses import astuple, dataclass
from typing import Any

import httpx
import orjson

from codegen.contract import Contract
from codegen.exceptions import RelayNotAsked

KEY_VARIABLE = "RELAY_OPERATOR_KEY"
HEALTH_OPERATION = "retrieveHealth"
ROUTES_OPERATION = "listRoutes"
TIMEOUT_SECONDS = 5.0  # a relay answers both from memory, within milliseconds
MAX_BYTES = 4_000_000  # some 320 routes of 200 bytes, and room to grow
_MAKE_ONE = (
    "Make a key with `relay keys create --scope operator`, restart the relay with it, "
    f"and set {KEY_VARIABLE} to the key"
)


@dataclass(frozen=True, slots=True)
class Route:
    """
    One route that a relay has bound.

    Args:
        function: The Python function that serves it, with its module.
    """

    method: str
    path: str
    operation_id: str
    function: str


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """
    What a relay says about itself.

    Args:
        url: Where it was asked.
        version: Of the contract that it serves.
    """

    url: str
    version: str
    routes: tuple[Route, ...]


def ask_relay(url: str, key: str, contract: Contract) -> RunningRelay:
    """
    Ask a relay for its version and its routes.

    Args:
        url: Its address without `/v1`.
        key: One with the scope `operator`.
        contract: Says on which paths to ask.

    Raises:
        RelayNotAsked: The address or the key cannot be used, or the relay does not answer what it should.
    """
    address = _address(url)
    if not re.fullmatch(r"[!-~]+", key):
        raise RelayNotAsked(f"{KEY_VARIABLE}: must be set to a key of the relay. {_MAKE_ONE}.")
    # No proxy of the environment: the key is for the relay alone.
    with httpx.Client(
        base_url=address, timeout=TIMEOUT_SECONDS, trust_env=False, headers={"Accept-Encoding": "identity"}
    ) as client:
        version = _version(_get(client, _path(contract, HEALTH_OPERATION)))
        routes = _routes(_get(client, _path(contract, ROUTES_OPERATION), {"Authorization": f"Bearer {key}"}))
    texts = [version, *(text for route in routes for text in astuple(route))]
    if any(key in text for text in texts):
        raise _not_a_relay(ROUTES_OPERATION, "without repeating the key")
    return RunningRelay(address, version, routes)


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        # Not repeated: what stands before an `@` may be a secret.
        raise RelayNotAsked("--url: must be http or https and a host, such as http://127.0.0.1:8080, and no more.")
    return url.rstrip("/")


def _path(contract: Contract, operation_id: str) -> str:
    operation = contract.operations.get(operation_id)
    if operation is None:
        raise RelayNotAsked(f"the contract has no classified operation `{operation_id}` to ask a relay by.")
    return operation.path


def _get(client: httpx.Client, path: str, headers: dict[str, str] | None = None) -> Any:
    where = f"{str(client.base_url).rstrip('/')}{path}"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    content = b""
    try:
        with client.stream("GET", path, headers=headers) as reply:
            _require_ok(where, reply.status_code)
            for piece in reply.iter_raw():
                content += piece
                if len(content) > MAX_BYTES:
                    raise RelayNotAsked(f"{where}: answers more than {MAX_BYTES} bytes, which no relay does.")
                if time.monotonic() > deadline:
                    raise RelayNotAsked(f"{where}: does not answer within {TIMEOUT_SECONDS:g} seconds.")
    except httpx.TimeoutException:
        raise RelayNotAsked(f"{where}: does not answer within {TIMEOUT_SECONDS:g} seconds. Is it a relay?") from None
    except httpx.HTTPError as error:  # the name alone: a message could hold what was sent
        raise RelayNotAsked(f"{where}: cannot be asked ({type(error).__name__}). Does the relay run there?") from None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _not_a_relay(where, "JSON") from None


def _require_ok(where: str, status: int) -> None:
    if status == 401:
        raise RelayNotAsked(f"{where}: refuses the key in {KEY_VARIABLE} (401). {_MAKE_ONE}.")
    if status == 403:
        raise RelayNotAsked(f"{where}: the key in {KEY_VARIABLE} lacks the scope `operator` (403). {_MAKE_ONE}.")
    if 300 <= status < 400:
        raise RelayNotAsked(
            f"{where}: answers with a redirect ({status}), which is not followed. Give the final address."
        )
    if status != 200:
        raise RelayNotAsked(f"{where}: answers {status}. It must be a relay of this contract's version.")


def _version(body: Any) -> str:
    version = body.get("version") if isinstance(body, dict) else None
    if not isinstance(version, str):
        raise _not_a_relay(HEALTH_OPERATION, "a version")
    return version


def _routes(body: Any) -> tuple[Route, ...]:
    try:
        routes = tuple(
            Route(item["method"], item["path"], item["operation_id"], item["function"]) for item in body["data"]
        )
    except (KeyError, TypeError):
        raise _not_a_relay(ROUTES_OPERATION, "a `RouteList`") from None
    if not all(isinstance(text, str) for route in routes for text in astuple(route)):
        raise _not_a_relay(ROUTES_OPERATION, "a `RouteList`")
    return routes


def _not_a_relay(where: str, expected: str) -> RelayNotAsked:
    return RelayNotAsked(f"{where}: must answer {expected}. Is it a relay of this contract's version?")
