from pathlib import Path
from typing import Any

import pytest

from codegen.exceptions import UnreadableDocument
from codegen.reader import read_json, read_yaml, resolve


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a test writes."""
    return tmp_path / "document.yaml"


def test_yaml_becomes_plain_data_in_the_order_of_the_file(file: Path) -> None:
    """A document is read into plain data and keeps its order, which the layout of the contract rests on."""
    file.write_text('zeta: 1\nalpha:\n  "200": [true, null, 1.5, text]\n', encoding="utf-8")
    read = read_yaml(file)
    assert read == {"zeta": 1, "alpha": {"200": [True, None, 1.5, "text"]}}
    assert list(read) == ["zeta", "alpha"]


def test_dates_stay_text(file: Path) -> None:
    """A date or time without quotes is the text that stands there, as JSON would have it."""
    file.write_text("day: 2026-11-30\nmoment: 2026-11-30T10:00:00Z\n", encoding="utf-8")
    assert read_yaml(file) == {"day": "2026-11-30", "moment": "2026-11-30T10:00:00Z"}


@pytest.mark.parametrize(
    "text, line, key",
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a"),
        ("a:\n  b: 1\n  b: 1\n", 3, "b"),
        ("a:\n  - c: 1\n    c: 2\n", 3, "c"),
        ("a: {d: 1, d: 2}\n", 1, "d"),
        ('a: 1\n"a": 2\n', 2, "a"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(file: Path, text: str, line: int, key: str) -> None:
    """A repeated key, at any depth and in any notation, stops the reader, which names file, line and key."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableDocument, match=rf"document\.yaml: line {line}: the key `{key}` stands twice"):
        read_yaml(file)


@pytest.mark.parametrize("text", ["a: 1\nb: &it {c: 1}\nd: *it\n", "a: 1\nb: &it text\nd:\n  - *it\n"])
def test_an_alias_is_refused_unless_the_file_is_of_others(file: Path, text: str) -> None:
    """What stands in a file of ours is what is read; the line is that of the value which is repeated."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableDocument, match=r"document\.yaml: line 2: an alias repeats this value"):
        read_yaml(file)
    assert "d" in read_yaml(file, aliases=True)


def test_the_same_key_in_two_mappings_is_fine(file: Path) -> None:
    """Only one mapping's own keys must differ."""
    file.write_text("a: {x: 1}\nb: {x: 1}\n", encoding="utf-8")
    assert read_yaml(file) == {"a": {"x": 1}, "b": {"x": 1}}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"- a\n- b\n", id="a list"),
        pytest.param(b"just text\n", id="a scalar"),
        pytest.param(b"a: [1\n", id="an open bracket"),
        pytest.param(b"a: b: c\n", id="a colon too many"),
        pytest.param(b"a: 1\n---\nb: 2\n", id="two documents"),
        pytest.param(b"a: \xff\xfe\n", id="not UTF-8"),
        pytest.param(b"a: !!python/object/apply:os.getcwd []\n", id="a Python object"),
        pytest.param(b"? [a, b]\n: 1\n", id="a list as a key"),
    ],
)
def test_what_is_not_one_yaml_mapping_is_refused_with_its_file(file: Path, content: bytes) -> None:
    """Anything but one YAML mapping of plain data ends in one kind of error, which names the file."""
    file.write_bytes(content)
    with pytest.raises(UnreadableDocument, match=r"document\.yaml: "):
        read_yaml(file)


def test_a_missing_yaml_file_is_named_with_the_next_step(tmp_path: Path) -> None:
    """Without the file the error names it and says from where to run the command."""
    with pytest.raises(UnreadableDocument, match=r"absent\.yaml: cannot be read .*project's folder"):
        read_yaml(tmp_path / "absent.yaml")


def test_json_becomes_plain_data(file: Path) -> None:
    """A generated document is read into plain data."""
    file.write_text('{"a": [1, null, "ü"]}', encoding="utf-8")
    assert read_json(file) == {"a": [1, None, "ü"]}


@pytest.mark.parametrize("content", [b"", b"[1]", b'"text"', b"{", b'{"a": NaN}', b'{"a": "\xff"}'])
def test_what_is_not_one_json_object_is_refused_with_its_file(file: Path, content: bytes) -> None:
    """A damaged generated document ends in one kind of error, which names the file."""
    file.write_bytes(content)
    with pytest.raises(UnreadableDocument, match=r"document\.yaml: "):
        read_json(file)


def test_a_missing_generated_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    """Without the generated file the error says which command writes it."""
    with pytest.raises(UnreadableDocument, match=r"absent\.json: cannot be read .*`contract render`"):
        read_json(tmp_path / "absent.json")


DOCUMENT: dict[str, Any] = {
    "a": {"name": "target"},
    "b": {"$ref": "#/a"},
    "c/d": {"e~f": {"name": "escaped"}},
    "list": [{"name": "in a list"}],
    "text": "not a mapping",
    "loop": {"$ref": "#/pool"},
    "pool": {"$ref": "#/loop"},
}


def test_a_node_without_reference_is_its_own_target() -> None:
    """What is not a reference resolves to itself."""
    node = {"name": "plain"}
    assert resolve(DOCUMENT, node) is node


@pytest.mark.parametrize("pointer, name", [("#/a", "target"), ("#/b", "target"), ("#/c~1d/e~0f", "escaped")])
def test_references_are_followed_to_their_end(pointer: str, name: str) -> None:
    """A reference leads to its target, through other references and escaped names."""
    assert resolve(DOCUMENT, {"$ref": pointer})["name"] == name


@pytest.mark.parametrize(
    "pointer",
    ["#/nowhere", "#/a/name", "#/text", "#/list/0", "#/loop", "a", "other.yaml#/a", "https://example.com/#/a", "#", ""],
)
def test_a_reference_must_lead_to_a_mapping_of_the_same_document(pointer: str) -> None:
    """A reference that leads nowhere, elsewhere or back to itself is refused by name and never hangs."""
    with pytest.raises(UnreadableDocument) as caught:
        resolve(DOCUMENT, {"$ref": pointer})
    assert "`$ref: " in str(caught.value)
