import re
from collections.abc import Iterator

import jsonschema_rs
import orjson
import pytest

from codegen.contract import Contract, read_contract
from handlers.runtime import exceptions
from handlers.runtime.errors import ERROR_TABLE, error_to_reply
from handlers.runtime.exceptions import (
    InternalError,
    InvalidBody,
    KeyConcurrencyExceeded,
    MethodNotAllowed,
    Overloaded,
    RelayError,
    SocketLimitReached,
    StartupError,
    UpstreamCircuitOpen,
    UpstreamQueueFull,
)
from tests.support.documents import ROOT

# Design, section 4: which statuses belong to which type.
# A client may ask again at once, or nearly so.
AGAIN_SHORTLY = {Overloaded, KeyConcurrencyExceeded, SocketLimitReached, UpstreamQueueFull, UpstreamCircuitOpen}
STATUSES = {
    "relay_auth_error": {401, 403},
    "relay_policy_error": {403, 404, 405},
    "relay_contract_error": {400, 406, 408, 413, 414, 415, 416, 417, 426, 431},
    "relay_limit_error": {429, 503},
    "relay_upstream_error": {502, 503, 504},
    "relay_internal_error": {500},
}


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    """Exceptions of a family that nothing is derived from."""
    derived = kind.__subclasses__()
    if not derived:
        yield kind
    for child in derived:
        yield from leaves(child)


def test_every_refusal_has_one_line_in_the_table() -> None:
    """The table names exactly the exceptions that a request can end with."""
    assert set(ERROR_TABLE) == set(leaves(RelayError))


@pytest.mark.parametrize("kind", list(ERROR_TABLE), ids=lambda kind: kind.__name__)
def test_a_refusal_becomes_its_own_status_and_openais_envelope(kind: type[RelayError], contract: Contract) -> None:
    """Status, type and code come from the table and the body is a valid `RelayErrorEnvelope` of the contract."""
    reply = error_to_reply(kind())
    rule = ERROR_TABLE[kind]
    assert isinstance(reply.body, bytes)
    body = orjson.loads(reply.body)
    assert reply.status == rule.status
    # RFC 9110 asks for the first on every 401 and for the second on every 426.
    required = {401: [(b"www-authenticate", b"Bearer")], 426: [(b"upgrade", b"websocket")]}.get(rule.status, [])
    later = [(b"retry-after", b"1")] if kind in AGAIN_SHORTLY else []
    assert reply.headers == [(b"content-type", b"application/json"), *required, *later]
    assert body == {"error": {"message": rule.message, "type": rule.type, "param": None, "code": rule.code}}
    schema = {**contract.document, "$ref": "#/components/schemas/RelayErrorEnvelope"}
    jsonschema_rs.Draft202012Validator(schema).validate(body)


@pytest.mark.parametrize("kind", list(ERROR_TABLE), ids=lambda kind: kind.__name__)
def test_statuses_belong_to_their_types(kind: type[RelayError]) -> None:
    """A client that knows the type knows which statuses can come with it, and reads a whole sentence."""
    rule = ERROR_TABLE[kind]
    assert rule.status in STATUSES[rule.type]
    assert re.fullmatch(r"[A-Z`].*[.…]", rule.message)


def test_the_contract_lists_the_same_types_and_codes() -> None:
    """The closed lists of the contract and those of the table are the same, both ways."""
    fields = read_contract(ROOT).document["components"]["schemas"]["RelayErrorEnvelope"]["properties"]["error"][
        "properties"
    ]
    assert set(fields["type"]["enum"]) == {rule.type for rule in ERROR_TABLE.values()}
    assert set(fields["code"]["enum"]) == {rule.code for rule in ERROR_TABLE.values()}


def test_codes_are_unique() -> None:
    """A code stands for one thing that went wrong."""
    codes = [rule.code for rule in ERROR_TABLE.values()]
    assert len(set(codes)) == len(codes)


def test_an_exception_brings_its_own_message_field_and_headers() -> None:
    """What the exception knows better than the table goes into the reply."""
    reply = error_to_reply(MethodNotAllowed("Only `GET` is.", param="method", headers=[("Allow", "GET, HEAD")]))
    assert isinstance(reply.body, bytes)
    error = orjson.loads(reply.body)["error"]
    assert (error["message"], error["param"]) == ("Only `GET` is.", "method")
    assert (b"allow", b"GET, HEAD") in reply.headers


def test_a_defect_becomes_a_500_that_tells_nothing() -> None:
    """An exception that nobody expected, or one that must never become a reply, shows none of its text."""
    for error in (ValueError("secret detail"), KeyError("secret detail"), StartupError("secret detail")):
        reply = error_to_reply(error)
        assert isinstance(reply.body, bytes)
        assert reply.status == 500
        assert b"secret detail" not in reply.body
        assert orjson.loads(reply.body)["error"]["code"] == ERROR_TABLE[InternalError].code


def test_a_message_in_any_script_can_be_sent() -> None:
    """Names in the contract may be beyond ASCII, and so may a message."""
    reply = error_to_reply(InvalidBody("`größe` must be an integer.", param="größe"))
    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body)["error"]["param"] == "größe"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing on top of `exceptions.py` shows every exception under its own parent."""
    drawn: dict[str, str] = {}
    trail: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            trail = [*trail[:depth], found[2]]
            drawn[found[2]] = trail[-2] if depth else "Exception"
    defined = {
        name: value.__bases__[0].__name__
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }
    assert drawn == defined
