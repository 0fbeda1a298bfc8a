from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen.contract import FULL, Operation, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.matching import Match, OperationIndex

CONTRACT = load_contract(GENERATED, FULL)
INDEX = OperationIndex((operation, operation) for operation in CONTRACT)
TEMPLATED = [operation for operation in CONTRACT if "{" in operation.path]
STATIC = [operation for operation in CONTRACT if "{" not in operation.path]
PIECES = ["/", "/cancel", "/content", "/files", "a", ".", "..", ":", "%", "%zz", "%2e", "%2F", "%5c", "%00", "%61", "+"]

# Every text that a template value may be: no slash, backslash, `?`, `#` or ASCII control character, no dot segment.
VALUES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\?#\x7f" + "".join(map(chr, range(0x20)))),
    min_size=1,
    max_size=20,
).filter(lambda value: value not in {".", ".."})


def every_byte_encoded(value: str) -> str:
    """The percent-encoding of a text in which no byte stands for itself."""
    return "".join(f"%{byte:02X}" for byte in value.encode())


def segments(operation: Operation) -> list[str]:
    """The segments of an operation's path."""
    return operation.path.split("/")


def filled(operation: Operation, value: str) -> str:
    """The path of an operation with one encoded value in every template."""
    return "/".join(value if segment.startswith("{") else segment for segment in segments(operation))


def literal_siblings(operation: Operation) -> set[str]:
    """Segments that other paths of the contract have, literally, where this one has a template."""
    own = segments(operation)
    return {
        others[place]
        for others in map(segments, CONTRACT)
        for place, segment in enumerate(own)
        if segment.startswith("{") and len(others) > place and not others[place].startswith("{")
    }


def require(match: Match[Operation] | None) -> Match[Operation]:
    """The match, which must be there."""
    assert match is not None
    return match


def test_every_operation_is_found_on_its_own_path() -> None:
    """Each path of the contract leads to its operations, all of its methods and no others."""
    for operation in CONTRACT:
        match = require(INDEX.match(filled(operation, "some-id")))
        assert match.methods[operation.method] is operation
        assert set(match.methods) == {other.method for other in CONTRACT if other.path == operation.path}


@given(operation=st.sampled_from(TEMPLATED), value=VALUES, encode=st.sampled_from([every_byte_encoded, quote]))
@example(CONTRACT.operations["retrieveModel"], "ft:gpt-6-luna:team::abc", quote)
@example(CONTRACT.operations["retrieveModel"], "%2F", quote)
@example(CONTRACT.operations["retrieveModel"], "a+b c", quote)
@example(CONTRACT.operations["retrieveModel"], "...", quote)
@settings(max_examples=300, deadline=None)
def test_values_make_the_round_trip(operation: Operation, value: str, encode: object) -> None:
    """A value reaches the handler decoded once, and goes on in an encoding that means the same."""
    assert callable(encode)
    if value in literal_siblings(operation):
        return
    match = require(INDEX.match(filled(operation, encode(value))))
    assert match.methods[operation.method] is operation
    assert set(match.path_params.values()) == {value}
    again = require(INDEX.match(match.path))
    assert again.path == match.path
    assert again.path_params == match.path_params


@given(operation=st.sampled_from(TEMPLATED), value=VALUES)
@settings(max_examples=200, deadline=None)
def test_the_path_that_goes_on_is_plain(operation: Operation, value: str) -> None:
    """The path sent upstream is ASCII, has the segments of the template, and nothing that ends or bends a path."""
    if value in literal_siblings(operation):
        return
    path = require(INDEX.match(filled(operation, every_byte_encoded(value)))).path
    assert path.isascii()
    assert path.isprintable()
    assert path.count("/") == operation.path.count("/")
    assert not set(path) & set("?#\\ ")
    assert not {".", "..", ""} & set(path.split("/")[1:])


@given(head=st.sampled_from(TEMPLATED), pieces=st.lists(st.sampled_from(PIECES), max_size=8))
@settings(max_examples=300, deadline=None)
def test_what_goes_on_is_what_was_matched(head: Operation, pieces: list[str]) -> None:
    """Whatever comes in, the path that is sent upstream is matched by the same path of the contract."""
    match = INDEX.match(f"{filled(head, 'x')}{''.join(pieces)}")
    if match is not None:
        assert require(INDEX.match(match.path)).methods is match.methods


def test_an_encoded_name_never_stands_for_another_path() -> None:
    """
    An encoded form of a literal segment does not reach the operation of a template under the name of another path.

    `GET /v1/responses/%63ompact` would else be decided as `getResponse` and arrive upstream as `/v1/responses/compact`.
    """
    wrong = []
    for operation in TEMPLATED:
        for sibling in literal_siblings(operation):
            disguised = filled(operation, every_byte_encoded(sibling[0]) + sibling[1:])
            match = INDEX.match(disguised)
            if match is not None and require(INDEX.match(match.path)).methods is not match.methods:
                wrong.append(f"{disguised} is decided as {operation.path} and sent on as {match.path}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_a_static_path_wins_over_a_template() -> None:
    """A concrete path is matched before a templated one, also when only the template has the method."""
    for operation in STATIC:
        match = require(INDEX.match(operation.path))
        assert match.path_params == {}
        assert match.path == operation.path
        assert all(found.path == operation.path for found in match.methods.values())


def test_a_literal_segment_wins_and_never_becomes_a_value() -> None:
    """Where a literal and a template both fit a segment, only the literal counts, also where it leads nowhere."""
    paths = ["/a/{x}/b", "/a/literal/c", "/a/{x}/{y}", "/a/literal"]
    source = CONTRACT.operations["listModels"]
    made = [_at(source, path) for path in paths]
    index = OperationIndex((operation, operation) for operation in made)
    assert require(index.match("/a/literal")).methods["GET"].path == "/a/literal"
    assert require(index.match("/a/literal/c")).methods["GET"].path == "/a/literal/c"
    assert require(index.match("/a/other/c")).methods["GET"].path == "/a/{x}/{y}"
    assert index.match("/a/literal/b") is None
    assert index.match("/a/%6citeral/b") is None


@pytest.mark.parametrize(
    "segment",
    [
        *("", ".", "..", "%2e", "%2E%2e", ".%2e"),
        *("a%2Fb", "..%2f..%2fadmin", "a%5Cb", "a\\b", "%3Fa", "a%23b", "#"),
        *("%00", "a%0d%0aX-Injected:%201", "%1f", "%7F", "a%09"),
        *("%ff", "%c3", "%c0%af", "%ed%a0%80", "%e2%82"),
    ],
)
def test_a_value_that_could_bend_the_path_fits_nothing(segment: str) -> None:
    """Empty values, dot segments, slashes, control characters and bytes that are not UTF-8 match no operation."""
    for operation in TEMPLATED:
        assert INDEX.match(filled(operation, segment)) is None


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "/",
        "*",
        "v1/models",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/V1/models",
        "/v1/Models",
        "/v1/models/a/b",
        "/v1/models;a=b",
        "/v1/model%73",
        "/v1/./models",
        "/v1/../v1/models",
        "http://host/v1/models",
        "/v1/models?limit=1",
        "/v1/responses%3Astream",
        "/v1/{model}",
        "/v1/models\\",
        "/v1/unheard_of",
        "/" * 5000,
    ],
)
def test_only_the_exact_path_is_matched(raw: str) -> None:
    """Other spellings of a static path, and paths that the contract does not have, match nothing."""
    assert INDEX.match(raw) is None


def test_encoded_spellings_of_literal_segments_match_nothing() -> None:
    """The literal parts of a path are compared as they came, never decoded."""
    assert INDEX.match("/%761/models") is None
    assert INDEX.match("/v1/vector%5Fstores/vs_1/files") is None


def test_colons_in_values_are_not_custom_verbs() -> None:
    """A fine-tuned model's name with colons is a value; only the contract's own colon path is the custom verb."""
    assert require(INDEX.match("/v1/models/ft:gpt:a")).path_params == {"model": "ft:gpt:a"}
    assert "createResponseStream" in {o.id for o in require(INDEX.match("/v1/responses:stream")).methods.values()}
    assert INDEX.match("/v1/responses:other") is None


def test_raw_bytes_beyond_ascii_are_kept_or_refused() -> None:
    """A byte that came unencoded goes on as that byte's encoding or matches nothing; it never turns into others."""
    raw = "/v1/models/" + "é".encode().decode("latin-1")  # how the path of a request reaches the index
    match = INDEX.match(raw)
    assert match is None or match.path == "/v1/models/%C3%A9"


def _at(source: Operation, path: str) -> Operation:
    return Operation(**{**{name: getattr(source, name) for name in Operation.__dataclass_fields__}, "path": path})
