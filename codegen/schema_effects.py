"""
What a difference between two schemas does to callers: a level for requests and another one for responses.

Not for: finding differences (`codegen.schema_difference`). Levels are those of section 9 of GOVERNANCE.md; what that
table does not name is major.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum

from codegen.schema_judge import Verdict
from codegen.semver import Level

_PATCH, _MINOR, _MAJOR = Level.PATCH, Level.MINOR, Level.MAJOR


class Role(StrEnum):
    """On which side of an exchange a schema stands."""

    REQUEST = "request"
    RESPONSE = "response"


class Effect(Enum):
    """
    Kinds of differences; each value is its name, its level in a request and its level in a response.

    A caller of an open object may go on sending a field that is no longer named, so that is looser in a request; the
    same field is missed in a response.
    """

    TEXT = ("text", _PATCH, _PATCH)
    SPELLING = ("spelling", _PATCH, _PATCH)  # proven to take the same values
    DEPRECATED = ("deprecated", _MINOR, _MINOR)
    FIELD_ADDED = ("field added", _MINOR, _MINOR)
    REQUIRED_FIELD_ADDED = ("required field added", _MAJOR, _MINOR)
    FIELD_REMOVED = ("field removed", _MINOR, _MAJOR)
    FIELD_REFUSED = ("field removed, and unknown fields are refused", _MAJOR, _MAJOR)
    NOW_REQUIRED = ("now required", _MAJOR, _MINOR)
    NOT_REQUIRED = ("no longer required", _MINOR, _MAJOR)
    TYPE_NARROWER = ("type narrower", _MAJOR, _MINOR)
    TYPE_WIDER = ("type wider", _MINOR, _MAJOR)
    TYPE_OTHER = ("another type", _MAJOR, _MAJOR)
    VALUES_ADDED = ("values added", _MINOR, _MINOR)
    VALUES_REMOVED = ("values removed", _MAJOR, _MINOR)
    VALUES_REPLACED = ("every value replaced", _MAJOR, _MAJOR)
    CODE_ADDED = ("error code added", _MINOR, _MINOR)
    CODE_REMOVED = ("error code removed", _MAJOR, _MAJOR)
    TIGHTER = ("tighter", _MAJOR, _MINOR)
    LOOSER = ("looser", _MINOR, _MINOR)
    DEFAULT_SMALLER = ("smaller default", _MAJOR, _PATCH)
    DEFAULT_LARGER = ("larger default", _MINOR, _PATCH)
    DEFAULT_ADDED = ("default added", _PATCH, _PATCH)
    DEFAULT_OTHER = ("another default", _MAJOR, _PATCH)
    UNDECIDED = ("cannot be decided", _MAJOR, _MAJOR)

    def level(self, role: Role) -> Level:
        """Its level on one side of the exchange."""
        _, request, response = self.value
        return request if role is Role.REQUEST else response


OF_VALUES = {
    Verdict.SAME: Effect.SPELLING,
    Verdict.WIDER: Effect.LOOSER,
    Verdict.NARROWER: Effect.TIGHTER,
    Verdict.UNDECIDED: Effect.UNDECIDED,
}
OF_TYPES = {
    Verdict.SAME: Effect.SPELLING,
    Verdict.WIDER: Effect.TYPE_WIDER,
    Verdict.NARROWER: Effect.TYPE_NARROWER,
    Verdict.UNDECIDED: Effect.TYPE_OTHER,
}


@dataclass(frozen=True, slots=True, order=True)
class SchemaChange:
    """
    One difference.

    Args:
        place: Of the field inside the schema, such as `data[].metadata.*`; empty for the schema itself.
        detail: What differs; plain text that may hold texts of the document.
    """

    place: str
    detail: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.place}: {self.detail}" if self.place else self.detail
