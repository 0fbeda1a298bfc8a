"""The lock file computed from a small upstream document, and read back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from codegen.exceptions import UnreadableDocument
from codegen.pin import LOCK, pin, read_lock
from codegen.reader import Document
from codegen.request_shape import Fields
from codegen.upstream import read_upstream
from tests.support.documents import ROOT, node_of
from tests.support.upstream_documents import upstream, write_upstream

HEAD = "method\tpath\toperationId\trequest_media\tresponse_media\tdeprecated\n"
TEXT = HEAD + (
    "GET\t/v1/admin/users\tlist-users\t-\tapplication/json\t-\n"
    "POST\t/v1/admin/users\tcreate-user\tapplication/json\tapplication/json\t-\n"
    "POST\t/v1/pictures\tcreatePicture\tapplication/json,multipart/form-data\tapplication/json\t-\n"
    "GET\t/v1/pictures/{picture_id}/content\tdownloadPicture\t-\timage/png\t-\n"
    "GET\t/v1/things\tlistThings\t-\tapplication/json\t-\n"
    "POST\t/v1/things\tcreateThing\tapplication/json\tapplication/json\t-\n"
    "DELETE\t/v1/things/{thing_id}\tdeleteThing\t-\tapplication/json\t-\n"
    "GET\t/v1/things/{thing_id}\tretrieveThing\t-\tapplication/json\t-\n"
    "POST\t/v1/things?beta=true\tbeta_createThing\tapplication/json\tapplication/json\t-\n"
)
Edit = Callable[[Document], object]


def test_the_lock_is_one_sorted_line_per_operation(tmp_path: Path) -> None:
    """Paths carry /v1 and keep `?beta=true`; lists of media types are sorted; nothing is a dash."""
    assert pin(write_upstream(tmp_path)) == TEXT


def test_yaml_and_json_give_the_same_lock(tmp_path: Path) -> None:
    """Upstream publishes YAML, where status codes may be numbers."""
    path = tmp_path / "upstream.yaml"
    source = upstream()
    for item in source["paths"].values():
        for node in item.values():
            if isinstance(node, dict):
                node["responses"] = {int(code): reply for code, reply in node["responses"].items()}
    path.write_text(yaml.safe_dump(source), encoding="utf-8")
    assert pin(path) == TEXT


def test_deprecation_and_references_are_pinned(tmp_path: Path) -> None:
    """A deprecated operation is marked, and a body or reply behind a reference counts as if it stood there."""

    def change(source: Document) -> None:
        node = node_of(source, "createThing")
        source["components"]["requestBodies"] = {"Thing": node["requestBody"]}
        source["components"]["responses"] = {"Thing": node["responses"]["200"]}
        node.update(
            deprecated=True,
            requestBody={"$ref": "#/components/requestBodies/Thing"},
            responses={"201": {"$ref": "#/components/responses/Thing"}, "400": {"content": {"text/plain": {}}}},
        )

    line = "POST\t/v1/things\tcreateThing\tapplication/json\tapplication/json\tdeprecated\n"
    assert line in pin(write_upstream(tmp_path, change))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Reading the lock gives the operations of the document, in the same order."""
    lock = tmp_path / "lock.tsv"
    lock.write_text(TEXT, encoding="utf-8")
    assert list(read_lock(lock).items()) == list(read_upstream(write_upstream(tmp_path)).operations.items())


def test_the_shipped_lock_is_in_the_form_that_pin_writes() -> None:
    """Every line of it is read, and its order is that of a fresh one."""
    operations = read_lock(ROOT / LOCK)
    assert operations
    assert list(operations) == sorted(operations)


def test_the_inventory_knows_what_a_request_must_hold(tmp_path: Path) -> None:
    """References, combined schemas and lists are followed; a schema inside itself ends."""

    def change(source: Document) -> None:
        source["components"]["schemas"]["Thing"] = {
            "allOf": [{"$ref": "#/components/schemas/Base"}, {"required": ["name"], "properties": {"name": {}}}],
            "oneOf": [
                {"required": ["url", "kind"], "properties": {"kind": {"const": "web"}}},
                {"required": ["file", "kind"], "properties": {"kind": {"enum": ["file", 1]}}},
            ],
        }
        source["components"]["schemas"]["Base"] = {
            "allOf": [{"$ref": "#/components/schemas/Base"}],
            "required": ["purposes"],
            "properties": {
                "purposes": {"anyOf": [{"type": "array", "items": {"$ref": "#/components/schemas/Purpose"}}]},
                "order": {"anyOf": [{"enum": ["asc", None]}, {"type": "null"}]},
                "model": {"anyOf": [{"type": "string"}, {"enum": ["large"]}]},
                "self": {"$ref": "#/components/schemas/Base"},
            },
        }

    shape = read_upstream(write_upstream(tmp_path, change)).requests["/v1/things", "POST"]
    assert shape.body_required
    assert shape.bodies == {
        "application/json": Fields(
            required=frozenset({"name", "purposes", "kind"}),
            values={
                "purposes": frozenset({"batch", "vision", "evals"}),
                "order": frozenset({"asc"}),
                "model": None,
                "self": None,
                "name": None,
                "kind": frozenset({"web", "file", "1"}),
            },
        )
    }


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda d: d.pop("paths"), "KeyError"),
        (lambda d: d.update(paths={}), "must not be empty"),
        (lambda d: d.update(openapi="2.0"), "must be 3.x"),
        (lambda d: node_of(d, "listThings").pop("operationId"), "GET /things.*must have an operationId"),
        (lambda d: node_of(d, "listThings").update(operationId="createThing"), "`createThing` stands at"),
        (lambda d: node_of(d, "createThing").update(requestBody={"$ref": "#/nowhere"}), "leads nowhere"),
        (lambda d: node_of(d, "listThings").update(operationId="a\tb"), "neither tabs"),
    ],
)
def test_what_is_no_document_of_upstream_is_refused(tmp_path: Path, change: Edit, word: str) -> None:
    """A document that cannot be pinned says why and leaves nothing half done."""
    with pytest.raises(UnreadableDocument, match=word):
        pin(write_upstream(tmp_path, change))


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    """The message names the file and does not send people to our own generated ones."""
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    for path in (broken, tmp_path / "missing.json", tmp_path / "missing.yaml"):
        with pytest.raises(UnreadableDocument, match=path.name) as caught:
            pin(path)
        assert "contract render" not in str(caught.value)


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "must be the lock file"),
        ("method\tpath\n", "must hold the columns"),
        (f"{HEAD}GET\t/v1/things\n", "2: must hold 6 cells"),
        (f"{HEAD}GET\t/v1/things\tlistThings\t-\t-\tperhaps\n", "2: must hold 6 cells"),
        (HEAD + "GET\t/v1/things\tlistThings\t-\t-\t-\n" * 2, "3: GET /v1/things stands twice"),
    ],
)
def test_a_damaged_lock_is_refused(tmp_path: Path, text: str, word: str) -> None:
    """A lock that `pin` did not write stops the comparison and says how to make a new one."""
    lock = tmp_path / "lock.tsv"
    lock.write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableDocument, match=word):
        read_lock(lock)
