import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from codegen.contract import Operation
from codegen.tools import Place, Tool
from handlers.runtime.exceptions import InvalidBody, InvalidParameter, RelayError
from handlers.runtime.local_calls import LocalCall
from handlers.runtime.matching import MAX_PATH_CHARACTERS
from handlers.runtime.services import Services
from handlers.runtime.tool_requests import arguments_to_call
from tests.support.tool_calls import FULL_CONTRACT, TOOLS

BY_NAME = {tool.name: tool for tool in TOOLS}
HALF = "\ud83d"  # of a surrogate pair
CANARY = "canary-4f1d"
LONG = pytest.param(10**5000, id="5,000 digits")


def call(name: str, arguments: dict[str, Any]) -> LocalCall:
    """The request that a tool's arguments become."""
    tool = BY_NAME[name]
    return arguments_to_call(tool, operation_of(tool), arguments)


def operation_of(tool: Tool) -> Operation:
    """The tool's operation."""
    return FULL_CONTRACT.operations[tool.operation_id]


def refusal(name: str, arguments: dict[str, Any]) -> RelayError:
    """What is raised for arguments that do not become a request."""
    with pytest.raises(RelayError) as raised:
        call(name, arguments)
    return raised.value


def some_arguments(tool: Tool) -> dict[str, Any]:
    """A value for every argument; whether it fits is not asked here."""
    return {argument.name: f"{argument.name}-1" for argument in tool.arguments}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_argument_stands_where_the_operation_has_it(tool: Tool) -> None:
    """Path, query and body hold each argument once, under its own name, and nothing else."""
    arguments = some_arguments(tool)
    made = arguments_to_call(tool, operation_of(tool), arguments)
    place = {argument.name: argument.place for argument in tool.arguments}
    assert made.method == tool.method
    assert made.raw_path == tool.path.format_map(arguments)
    assert dict(parse_qsl(made.query.decode())) == {n: v for n, v in arguments.items() if place[n] is Place.QUERY}
    body = {n: v for n, v in arguments.items() if place[n] is Place.BODY}
    assert (json.loads(made.body) if made.body is not None else {}) == body


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_the_request_leads_to_the_tools_own_operation(tool: Tool, services: Services) -> None:
    """The relay finds the operation that the tool was made of."""
    made = arguments_to_call(tool, operation_of(tool), some_arguments(tool))
    match = services.index.match(made.raw_path)
    assert match is not None
    assert match.methods[made.method] is services.routes[tool.operation_id]


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("file-abc", "file-abc"),
        ("a/b", "a%2Fb"),
        ("%2e%2e", "%252e%252e"),
        ("a?b#c", "a%3Fb%23c"),
        ("{file_id}", "%7Bfile_id%7D"),
        ("ä 😀", "%C3%A4%20%F0%9F%98%80"),
        ("a\r\nb", "a%0D%0Ab"),
    ],
)
def test_a_value_in_the_path_is_one_segment(value: str, segment: str) -> None:
    """Whatever a value holds, it stays within its segment and says the same there."""
    assert call("retrieveFile", {"file_id": value}).raw_path == f"/v1/files/{segment}"


@pytest.mark.parametrize("value", ["..", ".", "a/b", "../models", "a\\b", "a\x00b", "x" * MAX_PATH_CHARACTERS])
def test_a_value_that_bends_the_path_reaches_no_operation(value: str, services: Services) -> None:
    """The relay finds nothing where such a value leads."""
    assert services.index.match(call("retrieveFile", {"file_id": value}).raw_path) is None


def test_a_value_that_spells_another_operation_reaches_none(services: Services) -> None:
    """`input_tokens` beside `{response_id}` is a path of its own, and no tool gets there by its value."""
    assert services.index.match("/v1/responses/input_tokens") is not None
    made = call("getResponse", {"response_id": "input_tokens"})
    match = services.index.match(made.raw_path)
    assert match is None or services.routes["getResponse"] not in match.methods.values()


@pytest.mark.parametrize("value", [None, "", 7, True, ["file-1"], {"id": "file-1"}, HALF])
def test_a_path_takes_nothing_but_text(value: object) -> None:
    """What is missing, empty or no text is refused, and the argument is named."""
    error = refusal("retrieveFile", {"file_id": value} if value is not None else {})
    assert isinstance(error, InvalidParameter)
    assert error.param == "file_id"
    assert "`file_id`" in error.message


def test_null_in_the_path_is_missing() -> None:
    """A path has no word for null."""
    assert refusal("retrieveFile", {"file_id": None}).param == "file_id"


@pytest.mark.parametrize(
    ("value", "query"),
    [
        (20, b"limit=20"),
        (20.0, b"limit=20"),
        (2.5, b"limit=2.5"),
        (True, b"limit=true"),
        ("a b&c=d", b"limit=a+b%26c%3Dd"),
        ("ä😀", b"limit=%C3%A4%F0%9F%98%80"),
        (["a", "b"], b"limit=a&limit=b"),
        ([1, False], b"limit=1&limit=false"),
        ([], b""),
        (None, b""),
        ("", b"limit="),
    ],
)
def test_a_query_says_what_the_value_says(value: object, query: bytes) -> None:
    """Numbers and booleans stand as JSON writes them, a list as repetitions, null not at all."""
    assert call("listFiles", {"limit": value}).query == query


@pytest.mark.parametrize("value", [{"a": 1}, [["a"]], ["a", None], HALF, ["a", HALF], LONG, float("inf")])
def test_a_query_takes_nothing_that_it_cannot_say(value: object) -> None:
    """Objects, lists in lists, null in a list, half characters and endless numbers are refused by name."""
    error = refusal("listFiles", {"limit": value})
    assert isinstance(error, InvalidParameter)
    assert error.param == "limit"


def test_a_body_holds_the_given_fields_alone() -> None:
    """What was not given is absent, and null stays null: the operation says what it means."""
    made = call("createEmbedding", {"model": "m", "input": "x", "dimensions": None})
    assert made.body is not None
    assert json.loads(made.body) == {"model": "m", "input": "x", "dimensions": None}


def test_a_body_that_must_be_there_is_there_without_fields() -> None:
    """The operation then says which field is missing."""
    assert call("createEmbedding", {}).body == b"{}"


def test_a_body_that_may_be_missing_is_missing_without_fields() -> None:
    """An operation whose body may be left out is called without one, one that has none never with one."""
    optional = [t for t in TOOLS if (body := operation_of(t).body) is not None and not body.required]
    bodiless = [t for t in TOOLS if operation_of(t).body is None]
    assert bodiless
    for tool in [*optional, *bodiless]:
        only_path = {a.name: "x" for a in tool.arguments if a.place is Place.PATH}
        assert arguments_to_call(tool, operation_of(tool), only_path).body is None


@pytest.mark.parametrize("value", [2**64, -(2**80), HALF, {"deep": [HALF, 2**70]}, "ä😀", 1e300, 0.1])
def test_a_body_keeps_every_value(value: object) -> None:
    """Integers beyond 64 bits and halves of characters arrive as they were sent."""
    made = call("createEmbedding", {"input": value})
    assert made.body is not None
    assert json.loads(made.body) == {"input": value}


@pytest.mark.parametrize("value", [float("inf"), [float("-inf")], float("nan")])
def test_a_number_that_no_double_holds_is_refused(value: object) -> None:
    """`1e400` never becomes another value on its way."""
    assert isinstance(refusal("createEmbedding", {"input": value}), InvalidBody)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_an_unknown_argument_is_refused(tool: Tool) -> None:
    """The message names the arguments that there are, and nothing that was sent."""
    error = refusal(tool.name, {**some_arguments(tool), CANARY: CANARY})
    assert isinstance(error, InvalidBody)
    assert CANARY not in error.message
    assert all(f"`{argument.name}`" in error.message for argument in tool.arguments)


@pytest.mark.parametrize("value", [{CANARY: CANARY}, [[CANARY]], f"{CANARY}{HALF}"])
@pytest.mark.parametrize(("name", "argument"), [("retrieveFile", "file_id"), ("listFiles", "limit")])
def test_no_refusal_repeats_a_value(name: str, argument: str, value: object) -> None:
    """Not even where it says which argument was wrong."""
    assert CANARY not in refusal(name, {argument: value}).message
