"""
Finds the operation of a request: static paths by dictionary, templates by segment.

The path is compared in the form in which it came over the wire. Only the values of template segments are decoded, each
by itself, so an encoded slash, dot segment or control character can never stand for another path.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote, unquote_to_bytes

from codegen.contract import Operation

# RFC 3986 unreserved, sub-delims, ":" and "@": what may stand unencoded in a segment. Fine-tuned models carry colons.
_PLAIN_IN_SEGMENT = "!$&'()*+,;=:@-._~"
_FORBIDDEN_IN_VALUE = frozenset("/\\?#") | {chr(code) for code in (*range(0x20), 0x7F)}

# Longer than any id; what follows could not be put into one line of an upstream request.
MAX_PATH_CHARACTERS = 8 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """
    A path of the contract that fits a request.

    Args:
        methods: Upper-case method to whatever is registered for it.
        path_params: Template names to decoded values.
        path: The path to send on: literal segments as in the contract, values encoded anew.
    """

    methods: Mapping[str, T]
    path_params: Mapping[str, str]
    path: str


@dataclass(slots=True)
class _Node(Generic[T]):
    children: dict[str, "_Node[T]"] = field(default_factory=dict)
    template: "_Node[T] | None" = None
    literals: tuple[str | None, ...] = ()
    names: tuple[str, ...] = ()
    methods: dict[str, T] = field(default_factory=dict)


class OperationIndex(Generic[T]):
    """
    Maps paths of the contract to registered values.

    A concrete path wins over a templated one, as OpenAPI says.
    """

    def __init__(self, entries: Iterable[tuple[Operation, T]]) -> None:
        self._static: dict[str, Match[T]] = {}
        self._root: _Node[T] = _Node()
        static: dict[str, dict[str, T]] = {}
        for operation, value in entries:
            self._node(operation.path).methods[operation.method] = value
            if "{" not in operation.path:
                static.setdefault(operation.path, {})[operation.method] = value
        self._static = {path: Match(methods, {}, path) for path, methods in static.items()}

    def match(self, raw_path: str) -> Match[T] | None:
        """
        Find the path of the contract for a request.

        Args:
            raw_path: The path as received, still percent-encoded, without the query.

        Returns:
            `None` when no path fits, when it is too long or not ASCII, or when a template value is empty, a dot
            segment, a literal of the contract at this place, or holds a slash, a backslash, `?`, `#`, a control
            character or bytes that are not UTF-8.
        """
        found = self._static.get(raw_path)
        if found is not None:
            return found
        if len(raw_path) > MAX_PATH_CHARACTERS or not raw_path.isascii():
            return None
        node = self._root
        values: list[str] = []
        for segment in raw_path.split("/"):
            child = node.children.get(segment)
            if child is None:
                child = node.template
                value = _decode(segment)
                # A value that spells the literal beside it would be another path to whoever reads it next.
                if child is None or value is None or value in node.children:
                    return None
                values.append(value)
            node = child
        if not node.methods:
            return None
        remaining = iter(values)
        path = "/".join(
            quote(next(remaining), safe=_PLAIN_IN_SEGMENT) if literal is None else literal for literal in node.literals
        )
        return Match(node.methods, dict(zip(node.names, values, strict=True)), path)

    def _node(self, path: str) -> _Node[T]:
        node = self._root
        segments = path.split("/")
        for segment in segments:
            if segment.startswith("{"):
                node.template = node.template or _Node()
                node = node.template
            else:
                node = node.children.setdefault(segment, _Node())
        node.literals = tuple(None if segment.startswith("{") else segment for segment in segments)
        node.names = tuple(segment[1:-1] for segment in segments if segment.startswith("{"))
        return node


def _decode(segment: str) -> str | None:
    try:
        value = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
    if value in {"", ".", ".."} or not _FORBIDDEN_IN_VALUE.isdisjoint(value):
        return None
    return value
