"""What an error of the relay must look like, whatever the way to it."""

import httpx
import orjson

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.errors import ERROR_TABLE
from handlers.runtime.exceptions import RelayError
from handlers.runtime.validation import SchemaSource
from tests.support.raw_http import RawReply

# Sent in every place that a client can fill; no error may repeat it.
MARK = "zq7mark"
MARKED_HEADERS = {
    "User-Agent": MARK,
    "Cookie": f"{MARK}={MARK}",
    "X-Request-Id": MARK,
    "X-Client-Request-Id": MARK,
    "Idempotency-Key": MARK,
    f"X-{MARK}": MARK,
}
_ENVELOPE = SchemaSource(load_contract(GENERATED, FULL)).at("#/components/schemas/RelayErrorEnvelope")


def assert_relay_error(reply: httpx.Response | RawReply, error: type[RelayError]) -> dict[str, str | None]:
    """
    Hold a reply against the row of the error table and the contract's envelope; it must not repeat the request.

    Returns:
        The fields of the error.
    """
    if isinstance(reply, RawReply):
        status, headers, body = reply.status, dict(reply.headers), reply.body
        assert reply.complete, "the error must arrive whole"
    else:
        status, headers, body = reply.status_code, dict(reply.headers), reply.content
    rule = ERROR_TABLE[error]
    value = orjson.loads(body)
    _ENVELOPE.validate(value)
    fields: dict[str, str | None] = value["error"]
    assert (status, fields["type"], fields["code"]) == (rule.status, rule.type, rule.code), f"{status}: {fields}"
    assert fields["message"], "the message must say something"
    assert headers["content-type"] == "application/json", headers
    assert headers["x-request-id"] == headers["x-relay-request-id"], headers
    assert MARK not in body.decode().lower(), f"repeats the request: {body!r}"
    assert MARK not in str(headers).lower(), f"repeats the request: {headers}"
    return fields
