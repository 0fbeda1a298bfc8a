from codegen.changes import Change, Kind, merged, paired
from codegen.semver import Level
from tests.support.documents import build, document, operation


def test_an_operation_keeps_its_counterpart_through_a_move_or_a_new_name() -> None:
    """The operationId finds it first, then method and path; only what has neither is new or gone."""
    old = {
        "/v1/a": {"get": operation("listA")},
        "/v1/b": {"get": operation("listB")},
        "/v1/c": {"get": operation("listC")},
    }
    new = {
        "/v1/z": {"get": operation("listA")},
        "/v1/b": {"get": operation("listEveryB")},
        "/v1/d": {"get": operation("listD")},
    }
    pairing = paired(build(document(old)), build(document(new)))
    assert {(pair.old.id, pair.new.id) for pair in pairing.kept} == {("listA", "listA"), ("listB", "listEveryB")}
    assert [o.id for o in pairing.added] == ["listD"]
    assert [o.id for o in pairing.removed] == ["listC"]


def test_what_many_operations_share_is_said_once_with_the_highest_level() -> None:
    """Reached by a request and by an internal operation, a component's change counts by the request."""

    def change(level: Level, operation_id: str) -> Change:
        return Change(Kind.SCHEMA, level, "openapi.full", "schemas/A", "tighter", frozenset({operation_id}))

    (found,) = merged([change(Level.PATCH, "a"), change(Level.MAJOR, "b"), change(Level.MINOR, "c")])
    assert found.level is Level.MAJOR
    assert found.operations == {"a", "b", "c"}


def test_both_documents_keep_their_own_changes() -> None:
    """The same component of the Actions document is another one, and comes behind those of the full document."""
    changes = [
        Change(Kind.SCHEMA, Level.MINOR, document, "schemas/A", "looser")
        for document in ("openapi.actions", "openapi.full")
    ]
    assert [change.document for change in merged(changes)] == ["openapi.full", "openapi.actions"]
