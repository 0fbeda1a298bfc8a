"""
The one table from exception to reply: status, `type` and `code` of the relay's own errors.

The same closed list of types and codes stands in the contract as `RelayError`; a test holds the two together.
"""

from dataclasses import dataclass

import orjson

from handlers.runtime import exceptions as exc
from handlers.runtime.messages import Reply


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """
    What an exception becomes.

    Args:
        message: Used when the exception brings none.
        headers: Unless the exception brings its own of the same name.
    """

    status: int
    type: str
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


_CHALLENGE = (("WWW-Authenticate", "Bearer"),)  # RFC 9110 asks for it on every 401

ERROR_TABLE: dict[type[exc.RelayError], ErrorRule] = {
    exc.MissingKey: ErrorRule(
        401,
        "relay_auth_error",
        "missing_key",
        "A relay key is required: send `Authorization: Bearer rk_…` or `X-Relay-Key`.",
        _CHALLENGE,
    ),
    exc.InvalidKey: ErrorRule(
        401,
        "relay_auth_error",
        "invalid_key",
        "The relay key is not valid; ask the relay's operator for another.",
        _CHALLENGE,
    ),
    exc.AddressNotAllowed: ErrorRule(
        403,
        "relay_auth_error",
        "address_not_allowed",
        "Requests from this network are not taken here; ask the relay's operator.",
    ),
    exc.InvalidToken: ErrorRule(
        401,
        "relay_auth_error",
        "invalid_token",
        "The access token is not valid here; sign in again, or send a relay key.",
        _CHALLENGE,
    ),
    exc.InsufficientScope: ErrorRule(
        403, "relay_auth_error", "insufficient_scope", "The key or token has no scope that opens this operation."
    ),
    exc.UnknownOperation: ErrorRule(
        404, "relay_policy_error", "unknown_operation", "The contract has no such path; see /openapi.json."
    ),
    exc.MethodNotAllowed: ErrorRule(
        405, "relay_policy_error", "method_not_allowed", "The method must be one of those in the `Allow` header."
    ),
    exc.OperationUnsupported: ErrorRule(
        403, "relay_policy_error", "operation_unsupported", "This relay does not serve the operation."
    ),
    exc.OperationNotProxied: ErrorRule(
        403, "relay_policy_error", "operation_not_proxied", "The proxy carries PROXY_HARNESS operations only."
    ),
    exc.StreamingNotAllowed: ErrorRule(
        403, "relay_policy_error", "streaming_not_allowed", "`stream` must be false for this key."
    ),
    exc.OriginNotAllowed: ErrorRule(
        403,
        "relay_policy_error",
        "origin_not_allowed",
        "Pages of this site may not ask; the relay's operator lists those that may in RELAY_MCP_ORIGINS.",
    ),
    exc.OAuthNotConfigured: ErrorRule(
        404,
        "relay_policy_error",
        "oauth_not_configured",
        "This relay takes no access tokens; send a relay key as `Authorization: Bearer rk_…`.",
    ),
    exc.ArtifactNotFound: ErrorRule(
        404,
        "relay_policy_error",
        "artifact_not_found",
        "The link must be one that a reply of this relay named; links end after a short time.",
    ),
    exc.MalformedRequest: ErrorRule(
        400, "relay_contract_error", "malformed_request", "The request must be valid HTTP/1.1."
    ),
    exc.InvalidParameter: ErrorRule(400, "relay_contract_error", "invalid_parameter", "A parameter is not valid."),
    exc.MissingBody: ErrorRule(400, "relay_contract_error", "missing_body", "The operation needs a request body."),
    exc.MalformedJson: ErrorRule(
        400,
        "relay_contract_error",
        "malformed_json",
        "The body must be UTF-8 encoded JSON, nested at most 200 levels deep.",
    ),
    exc.DuplicateKey: ErrorRule(
        400, "relay_contract_error", "duplicate_key", "Every name in a JSON object must be unique."
    ),
    exc.InvalidBody: ErrorRule(400, "relay_contract_error", "invalid_body", "The body does not fit the operation."),
    exc.IdempotencyKeyReused: ErrorRule(
        400, "relay_contract_error", "idempotency_key_reused", "`idempotency_key` must be new for every other call."
    ),
    exc.PayloadTooLarge: ErrorRule(413, "relay_contract_error", "body_too_large", "The body exceeds the limit."),
    exc.UriTooLong: ErrorRule(414, "relay_contract_error", "uri_too_long", "The request target must be shorter."),
    exc.HeadersTooLarge: ErrorRule(
        431, "relay_contract_error", "headers_too_large", "The header section must be smaller."
    ),
    exc.RequestTimeout: ErrorRule(
        408, "relay_contract_error", "request_timeout", "The request did not arrive in time; send it again, faster."
    ),
    exc.UpgradeRequired: ErrorRule(
        426,
        "relay_contract_error",
        "upgrade_required",
        "This is a WebSocket: connect with a WebSocket client.",
        (("Upgrade", "websocket"),),
    ),
    exc.FileRefused: ErrorRule(
        400, "relay_contract_error", "file_refused", "The file must be one of this conversation, named by its link."
    ),
    exc.FileTooLarge: ErrorRule(413, "relay_contract_error", "file_too_large", "The file exceeds the limit."),
    exc.NotText: ErrorRule(
        400,
        "relay_contract_error",
        "not_text",
        "The file must be text in UTF-8, such as JSON, JSONL, CSV or Markdown; other files cannot be read here.",
    ),
    exc.RangeNotSatisfiable: ErrorRule(
        416, "relay_contract_error", "range_not_satisfiable", "`Range` must begin within the file."
    ),
    exc.NotAcceptable: ErrorRule(
        406,
        "relay_contract_error",
        "not_acceptable",
        "`Accept` must allow `application/json` and `text/event-stream`.",
    ),
    exc.UnsupportedMediaType: ErrorRule(
        415, "relay_contract_error", "unsupported_media_type", "`Content-Type` is missing or not supported."
    ),
    exc.UnsupportedExpectation: ErrorRule(
        417, "relay_contract_error", "unsupported_expectation", "`Expect` must be `100-continue` or absent."
    ),
    exc.Overloaded: ErrorRule(
        503,
        "relay_limit_error",
        "overloaded",
        "The relay runs as many requests as it may; try again shortly.",
        (("Retry-After", "1"),),
    ),
    exc.KeyConcurrencyExceeded: ErrorRule(
        429,
        "relay_limit_error",
        "key_concurrency_exceeded",
        "This key runs as many requests as it may; wait until one of them ends.",
        (("Retry-After", "1"),),
    ),
    exc.SocketLimitReached: ErrorRule(
        429,
        "relay_limit_error",
        "socket_limit_reached",
        "This key has as many sockets as it may; close one first.",
        (("Retry-After", "1"),),
    ),
    exc.UpstreamQueueFull: ErrorRule(
        503,
        "relay_limit_error",
        "upstream_queue_full",
        "Too many requests wait for the upstream; try again shortly.",
        (("Retry-After", "1"),),
    ),
    exc.ArtifactStoreFull: ErrorRule(
        503,
        "relay_limit_error",
        "artifact_store_full",
        "The relay has no room for another file now; earlier ones end after a short time: try again later.",
    ),
    exc.IdempotencyInProgress: ErrorRule(
        503,
        "relay_limit_error",
        "idempotency_in_progress",
        "The first call with this key is still running; send the same again.",
    ),
    exc.TokenIssuerUnavailable: ErrorRule(
        503,
        "relay_limit_error",
        "token_issuer_unavailable",
        "The issuer of access tokens does not answer; try again later.",
    ),
    exc.StoreUnavailable: ErrorRule(
        503, "relay_limit_error", "store_unavailable", "Nothing was done; try again later."
    ),
    exc.UpstreamUnreachable: ErrorRule(
        502, "relay_upstream_error", "upstream_unreachable", "The upstream could not be reached; try again later."
    ),
    exc.UpstreamNameUnresolved: ErrorRule(
        502, "relay_upstream_error", "upstream_name_unresolved", "The upstream's name has no address; try again later."
    ),
    exc.UpstreamTlsFailed: ErrorRule(
        502,
        "relay_upstream_error",
        "upstream_tls_failed",
        "No TLS connection to the upstream can be trusted; its operator should look.",
    ),
    exc.UpstreamCircuitOpen: ErrorRule(
        503,
        "relay_upstream_error",
        "upstream_circuit_open",
        "The upstream failed too often just now; try again shortly.",
        (("Retry-After", "1"),),
    ),
    exc.UpstreamProtocolError: ErrorRule(
        502, "relay_upstream_error", "upstream_protocol_error", "The upstream broke off its answer; try again later."
    ),
    exc.UpstreamErrorWithheld: ErrorRule(
        502,
        "relay_upstream_error",
        "upstream_error_withheld",
        "The upstream's error could have shown the relay's credentials; its operator should check OPENAI_API_KEY.",
    ),
    exc.FileUnreachable: ErrorRule(
        502, "relay_upstream_error", "file_unreachable", "The file could not be fetched; ask for it again."
    ),
    exc.UpstreamTimeout: ErrorRule(
        504, "relay_upstream_error", "upstream_timeout", "The upstream did not answer in time; try again later."
    ),
    exc.InternalError: ErrorRule(
        500, "relay_internal_error", "internal_error", "The relay failed; give its operator the x-request-id."
    ),
}


def error_to_reply(error: Exception) -> Reply:
    """
    Turn any exception into the relay's reply; what is not a `RelayError` becomes a 500 that tells nothing.

    Args:
        error: A `RelayError`, or a defect.
    """
    known = error if isinstance(error, exc.RelayError) else exc.InternalError()
    rule = ERROR_TABLE[type(known)]
    brought = {name.lower() for name, _ in known.headers}
    usual = tuple(header for header in rule.headers if header[0].lower() not in brought)
    return Reply(
        status=rule.status,
        headers=[(b"content-type", b"application/json"), *_encode((*usual, *known.headers))],
        body=orjson.dumps({"error": describe_error(known)}),
    )


def describe_error(error: exc.RelayError) -> dict[str, str | None]:
    """The `error` object with which a request ends."""
    rule = ERROR_TABLE[type(error)]
    return {
        "message": error.message or rule.message,
        "type": rule.type,
        "param": error.param,
        "code": rule.code,
    }


def _encode(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers]
