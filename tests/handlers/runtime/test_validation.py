import itertools
from typing import Any

import pytest

from codegen.contract import Contract, Operation, build_contract
from handlers.runtime.exceptions import (
    InvalidParameter,
    MissingBody,
    UnsupportedExpectation,
    UnsupportedMediaType,
)
from handlers.runtime.validation import MAX_QUERY_FIELDS, RequestValidator, SchemaSource
from tests.support.documents import document
from tests.support.documents import operation as node

JSON = [(b"content-type", b"application/json"), (b"content-length", b"2")]


def validator(changes: dict[str, Any], components: dict[str, Any] | None = None) -> RequestValidator:
    """The checks of an operation with these fields."""
    source = document({"/v1/things/{thing_id}": {"post": node(changes=changes)}}, components=components or {})
    contract = build_contract("sample", source)
    return RequestValidator(next(iter(contract)), SchemaSource(contract))


def query_validator(schema: dict[str, Any], *, required: bool = False) -> RequestValidator:
    """The checks of an operation with one query parameter, `value`."""
    parameter = {"name": "value", "in": "query", "required": required, "schema": schema}
    components = {"schemas": {"Choice": {"enum": ["a", "b"]}}}
    return validator({"parameters": [parameter]}, components)


def body_validator(*media_types: str, required: bool = True) -> RequestValidator:
    """The checks of an operation that takes a body of one of these media types."""
    return validator({"requestBody": {"required": required, "content": {name: {} for name in media_types}}})


def accepts(schema: dict[str, Any], query: str) -> bool:
    """Whether a query fits one query parameter, `value`."""
    refused: list[str | None] = []
    try:
        query_validator(schema).check_query(query.encode())
    except InvalidParameter as error:
        refused = [error.param]
    assert all(param is not None and param.split(".")[0] == "value" for param in refused)
    return not refused


@pytest.mark.parametrize(
    "schema, text, fits",
    [
        *(({"type": "integer"}, text, True) for text in ("0", "-1", "007", "999999999999999999")),
        *(
            ({"type": "integer"}, text, False)
            for text in ("", "1.5", "x", "+1", "1e3", "0x10", "%20 1", "%D9%A3", "1_000", "1%0a")
        ),
        *(({"type": "integer", "maximum": 5}, text, text == "5") for text in ("5", "6", "9" * 30)),
        *(({"type": "number"}, text, True) for text in ("0", "-1.5", "0.25")),
        *(({"type": "number"}, text, False) for text in ("", "nan", "inf", "1,5", "one")),
        *(({"type": "boolean"}, text, True) for text in ("true", "false")),
        *(({"type": "boolean"}, text, False) for text in ("", "True", "1", "yes", "tru%65x")),
        *(({"type": "string"}, text, True) for text in ("", "5", "true", "a+b", "%C3%BC", "a%26b")),
        *(({"type": "string", "enum": ["asc", "desc"]}, text, text == "asc") for text in ("asc", "ASC", "up", "")),
        *(({"type": ["integer", "null"]}, text, text == "3") for text in ("3", "x")),
        *(({"type": ["string", "integer"]}, text, True) for text in ("3", "x")),
        *(({"type": "string", "maxLength": 2}, text, text == "%C3%BCa") for text in ("%C3%BCa", "abc")),
        ({"$ref": "#/components/schemas/Choice"}, "a", True),
        ({"$ref": "#/components/schemas/Choice"}, "c", False),
    ],
)
def test_a_query_value_is_read_as_its_type(schema: dict[str, Any], text: str, fits: bool) -> None:
    """Text of the query is held against the parameter's type, exactly, after percent-decoding."""
    assert accepts(schema, f"value={text}") is fits


@pytest.mark.parametrize("notation", ["value={}", "value[]={}", "value%5B%5D={}", "value[0]={}"])
def test_a_list_comes_as_repeated_names(notation: str) -> None:
    """Lists are accepted in the plain notation and in those of the SDKs, and every item is checked."""
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}
    assert accepts(schema, notation.format("a"))
    assert accepts(schema, "&".join(map(notation.format, "ab")))
    assert not accepts(schema, "&".join(map(notation.format, "ac")))
    assert not accepts(schema, "&".join(map(notation.format, "aba")))


def test_repeated_scalars_are_all_checked() -> None:
    """A second value cannot slip in behind a good first one."""
    assert accepts({"type": "integer"}, "value=1&value=2")
    assert not accepts({"type": "integer"}, "value=1&value=x")
    assert not accepts({"type": "integer"}, "value=x&value=1")


def test_an_object_comes_in_brackets() -> None:
    """`value[key]=text` is one object."""
    schema = {"type": "object", "maxProperties": 1}
    assert accepts(schema, "value[a]=1")
    assert not accepts(schema, "value[a]=1&value[b]=2")


def test_values_come_back_decoded_in_order() -> None:
    """What the checks return is every value by name, in the order of the query."""
    values = query_validator({"type": "string"}).check_query(b"value=b&other=%C3%BC&value=a+c&empty=&flag")
    assert values == {"value": ["b", "a c"], "other": ["ü"], "empty": [""], "flag": [""]}


def test_unknown_query_names_pass() -> None:
    """The upstream moves: a name that the contract does not know is not the relay's to refuse."""
    assert accepts({"type": "integer"}, "brand_new[x]=%00&another")


@pytest.mark.parametrize("query", [b"", b"other=1", b"values=1", b"Value=1"])
def test_a_required_parameter_must_be_there(query: bytes) -> None:
    """Without it the request is refused by the parameter's name; with it, it passes."""
    checks = query_validator({"type": "string"}, required=True)
    with pytest.raises(InvalidParameter, match="`value` is required") as caught:
        checks.check_query(query)
    assert caught.value.param == "value"
    checks.check_query(b"value=1")


@pytest.mark.parametrize(
    "query", [b"value=%ff", b"%c3=1", "value=ü".encode(), b"&".join([b"a=1"] * (MAX_QUERY_FIELDS + 1))]
)
def test_a_query_that_cannot_be_read_is_refused(query: bytes) -> None:
    """Bytes that are not UTF-8, unencoded ones, and more fields than anybody needs are refused in words."""
    with pytest.raises(InvalidParameter, match="percent-encoded UTF-8"):
        query_validator({"type": "string"}).check_query(query)


def test_path_values_are_held_against_their_schema() -> None:
    """A value of the path that does not fit is refused by its name."""
    checks = validator(
        {"parameters": [{"name": "thing_id", "in": "path", "required": True, "schema": {"enum": ["a"]}}]}
    )
    checks.check_path({"thing_id": "a"})
    with pytest.raises(InvalidParameter) as caught:
        checks.check_path({"thing_id": "canary"})
    assert caught.value.param == "thing_id"
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    "content_type, expected",
    [
        (b"application/json", "application/json"),
        (b"Application/JSON; charset=utf-8", "application/json"),
        (b" application/json ;charset=utf-8", "application/json"),
        (b'application/json; charset="UTF8"', "application/json"),
        (b"application/json; charset=us-ascii", "application/json"),
        (b"multipart/form-data; boundary=abc", "multipart/form-data"),
        (b'multipart/form-data; charset=x; boundary="a b"', "multipart/form-data"),
    ],
)
def test_the_media_type_is_the_operations_own(content_type: bytes, expected: str) -> None:
    """Case, blanks and parameters of `Content-Type` do not matter; the rest must be one of the operation's types."""
    checks = body_validator("application/json", "multipart/form-data")
    assert checks.media_type([(b"content-type", content_type), (b"content-length", b"9")]) == expected
    assert checks.media_type([(b"transfer-encoding", b"chunked"), (b"content-type", content_type)]) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"2")],
        [(b"content-length", b"2"), (b"content-type", b"")],
        [(b"content-length", b"2"), (b"content-type", b"text/plain")],
        [(b"content-length", b"2"), (b"content-type", b"application/jsonp")],
        [(b"content-length", b"2"), (b"content-type", b"application/json, text/plain")],
        [(b"content-length", b"2"), (b"content-type", b"\xff\xfe")],
        [(b"content-length", b"2"), (b"content-type", b"multipart/form-data")],
        [*JSON, (b"content-encoding", b"gzip")],
        [*JSON, (b"content-encoding", b"br, gzip")],
        [*JSON, JSON[0]],
        [(b"content-length", b"2"), (b"content-type", b"application/json; charset=utf-16")],
        [(b"content-length", b"2"), (b"content-type", b'application/json; a=b; Charset="latin-1"')],
    ],
)
def test_other_media_types_and_encodings_are_refused_with_what_is_allowed(headers: list[tuple[bytes, bytes]]) -> None:
    """A body that the relay could not check is refused; the message says what would be taken."""
    with pytest.raises(UnsupportedMediaType, match="must"):
        body_validator("application/json", "multipart/form-data").media_type(headers)


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")], [(b"content-length", b"0"), *JSON[:1]], JSON[:1]])
def test_a_missing_body_is_refused_only_where_one_is_needed(headers: list[tuple[bytes, bytes]]) -> None:
    """Without a body an operation that needs one refuses, and one that does not goes on without."""
    with pytest.raises(MissingBody):
        body_validator("application/json").media_type(headers)
    assert body_validator("application/json", required=False).media_type(headers) is None


def test_a_body_that_nobody_asked_for_is_not_read() -> None:
    """On an operation without a body, whatever comes along is neither read nor looked at."""
    assert validator({}).media_type(JSON) is None
    assert validator({}).media_type([(b"content-length", b"5"), (b"content-type", b"text/plain")]) is None


@pytest.mark.parametrize(
    "value, fits", [(b"100-continue", True), (b"100-Continue", True), (b"200-ok", False), (b"", False)]
)
def test_only_100_continue_can_be_expected(value: bytes, fits: bool) -> None:
    """`Expect` is answered as HTTP wants it, or refused, with a body and without."""
    for checks, headers in itertools.product((body_validator("application/json"), validator({})), (JSON,)):
        if fits:
            checks.media_type([*headers, (b"expect", value)])
        else:
            with pytest.raises(UnsupportedExpectation):
                checks.media_type([*headers, (b"expect", value)])


def takes_query(operation: Operation) -> bool:
    """Whether the operation names query parameters."""
    return bool(operation.parameters_in("query"))


def test_every_operation_of_the_contract_can_be_checked(contract: Contract) -> None:
    """Validators compile for all operations, and no parameter leaves the reader to guess its type."""
    schemas = SchemaSource(contract)
    for operation in contract:
        RequestValidator(operation, schemas)
        untyped = [p.name for p in operation.parameters if not {"type", "enum"} & set(p.schema)]
        assert untyped == [], operation.id


def test_a_page_of_every_list_can_be_asked_for(contract: Contract) -> None:
    """Every operation that names `limit`, `order` or `after` takes the values that the SDKs send."""
    schemas = SchemaSource(contract)
    listed = [operation for operation in contract if takes_query(operation)]
    assert listed
    for operation in listed:
        names = {parameter.name for parameter in operation.parameters_in("query")}
        wanted = {"limit": b"limit=10", "order": b"order=asc", "after": b"after=some-id"}
        query = b"&".join(text for name, text in wanted.items() if name in names)
        required = b"&".join(b"%s=1" % p.name.encode() for p in operation.parameters_in("query") if p.required)
        if operation.served:
            RequestValidator(operation, schemas).check_query(b"&".join(filter(None, (query, required))))
