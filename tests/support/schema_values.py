"""
Generates JSON values from JSON Schemas of one OpenAPI 3.1 document: every branch of every union in turn, edges first.

Not for: proving that a value is valid; whoever uses one validates it (`tests.support.valid_requests`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from codegen.reader import Document, resolve

Schema = Mapping[str, Any]

MAX_DEPTH = 8  # levels of nesting; recursive schemas end there
ROOMY_NODES = 150  # once a value has so many parts, the rest of it is as small as its schema allows
MAX_TEXT = 300_000
MAX_ITEMS = 2_100  # of scalars; larger lists of objects say nothing new
MANY_ITEMS = 5

_TEXTS = (
    "a",
    "",
    "text",
    "name_1-b",
    " ",
    "0",
    "null",
    "grüße, ☃ und 🎈",
    'quote " backslash \\ slash /',
    "line\nline\ttab",
    "\x00\x1f\x7f",
    "\u2028\ufeff\uffff",
    "long " * 400,
    "<script>%00&amp;",
)
_FORMATS = {
    "uri": "https://example.com/a?b=c#d",
    "date-time": "2026-11-22T10:00:00Z",
    "date": "2026-11-22",
    "uuid": "0d3cbd62-5f3c-4c3b-9d2b-4f1f0a3b7a11",
    "email": "somebody@example.com",
}
_INTEGERS = (0, 1, -1, 7, 2**31, -(2**63), 2**64, 10**24, 3.0)  # 3.0 is an integer to JSON Schema
_NUMBERS = (0, 0.5, -1, 1e-7, -0.0, 2**53 + 1, 1.7e308, -1e300, 10**24)
_KEYS = ("key", "", "unknown field", "ключ", "x" * 64, "__proto__", "$ref")
_ANYTHING: Schema = {}
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


class Unsatisfiable(Exception):
    """No value was found on the way that was taken; another attempt takes another way."""


class SchemaValues:
    """
    Draws values for schemas of one document; the same seed draws the same values.

    Args:
        document: Where local references lead. Held as it is and never changed.
        seed: Of the random choices.
    """

    def __init__(self, document: Document, seed: int) -> None:
        self._document = document
        self._random = Random(seed)
        self._decks: dict[object, list[Any]] = {}
        self._heights: dict[tuple[int, int], bool] = {}
        self._joined: dict[tuple[int, int], Schema] = {}
        self._nodes = 0
        self._integral_floats = True

    def draw(self, schema: Schema, *, integral_floats: bool = True) -> Any:
        """
        Draw one value.

        Args:
            integral_floats: Whether an integer may be written `3.0`.

        Raises:
            Unsatisfiable: Not on this way; try again.
        """
        self._nodes = 0
        self._integral_floats = integral_floats
        return self._value(schema, MAX_DEPTH)

    def chance(self, share: float) -> bool:
        """Decide by chance."""
        return self._random.random() < share

    def pick(self, key: object, options: Sequence[Any]) -> Any:
        """Pick one of the options, each once before any comes again; `key` names the place and the options."""
        deck = self._decks.get(key)
        if not deck:
            deck = self._decks[key] = list(options)
            self._random.shuffle(deck)
        return deck.pop()

    def _value(self, schema: Schema, depth: int) -> Any:
        self._nodes += 1
        flat = self._flatten(schema, depth)
        if "const" in flat:
            return flat["const"]
        if "enum" in flat:
            if not flat["enum"]:
                raise Unsatisfiable
            return self.pick(("enum", id(schema), str(flat["enum"])), flat["enum"])
        kind = self._kind(schema, flat, depth)
        makers: Mapping[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, flat, depth),
            "array": lambda: self._array(schema, flat, depth),
            "string": lambda: self._string(schema, flat),
            "integer": lambda: self._number(schema, flat, _INTEGERS if self._integral_floats else _INTEGERS[:-1]),
            "number": lambda: self._number(schema, flat, _NUMBERS),
            "boolean": lambda: self.pick(("boolean", id(schema)), (True, False)),
            "null": lambda: None,
        }
        return makers[kind]()

    def _kind(self, schema: Schema, flat: Schema, depth: int) -> str:
        declared = flat.get("type")
        if declared is not None:
            kinds = [declared] if isinstance(declared, str) else list(declared)
            if not kinds:
                raise Unsatisfiable
            return str(self.pick(("type", id(schema), *kinds), kinds))
        shaped = "object" if "properties" in flat or "required" in flat else "array" if "items" in flat else None
        if shaped and not self.chance(0.05):
            return shaped
        kinds = list(_TYPES if depth > 1 else _TYPES[2:])
        return str(self.pick(("any", id(schema), depth > 1), kinds))

    def _object(self, schema: Schema, flat: Schema, depth: int) -> dict[str, Any]:
        properties: Mapping[str, Schema] = flat.get("properties", {})
        required = list(flat.get("required", ()))
        optional = [name for name in properties if name not in required and self._fits(properties[name], depth - 1)]
        value: dict[str, Any] = {}
        for name in [*required, *self._some(schema, optional)]:
            value[name] = self._value(properties.get(name, _ANYTHING), depth - 1)
        others = flat.get("additionalProperties", True)
        if others is not False and depth > 1 and self._nodes < ROOMY_NODES and not flat.get("propertyNames"):
            alone = not properties and others is not True
            wanted = self.pick(("others", id(schema), alone), (0, 1, 2) if alone else (0, 0, 1))
            for _ in range(wanted):
                name = self.pick(("key", id(schema)), _KEYS)
                if name not in properties:
                    value[name] = self._value(others if isinstance(others, Mapping) else _ANYTHING, min(depth - 1, 2))
        elif isinstance(others, Mapping) and flat.get("propertyNames"):
            value[self.pick(("key", id(schema)), _KEYS)] = self._value(others, depth - 1)
        return value

    def _some(self, schema: Schema, optional: list[str]) -> list[str]:
        """Optional fields: none, all, about half, or one alone, each of them in its turn."""
        if not optional or self._nodes > ROOMY_NODES:
            return []
        way = self.pick(("optional", id(schema)), ("none", "all", "all", "half", "one", "few"))
        if way == "none":
            return []
        if way == "all":
            return optional
        if way == "one":
            return [self.pick(("one", id(schema), *optional), optional)]
        share = 0.5 if way == "half" else 2 / len(optional)
        return [name for name in optional if self.chance(share)]

    def _array(self, schema: Schema, flat: Schema, depth: int) -> list[Any]:
        items: Schema = flat.get("items", _ANYTHING)
        scalar = items.get("type") in {"string", "integer", "number"}
        least = flat.get("minItems", 0)
        most = flat.get("maxItems", MANY_ITEMS)
        if most > (MAX_ITEMS if scalar else MANY_ITEMS) or self._nodes > ROOMY_NODES:
            most = max(least, 2)
        if not self._fits(items, depth - 1):
            most = least
        sizes = sorted({size for size in (least, least + 1, 3, most) if least <= size <= most})
        size = self.pick(("size", id(schema), *sizes), sizes)
        return [self._value(items, depth - 1) for _ in range(size)]

    def _string(self, schema: Schema, flat: Schema) -> str:
        least = flat.get("minLength", 0)
        most = flat.get("maxLength", MAX_TEXT)
        edges = ["x" * least] if least else []
        if "maxLength" in flat and most <= MAX_TEXT:
            edges.append("ü" * most)
        texts = [text for text in (*_TEXTS, *edges) if least <= len(text) <= most]
        if flat.get("format") in _FORMATS:
            texts += [_FORMATS[flat["format"]]] * 8
        if "pattern" in flat:
            texts = [text for text in [*texts, _matching(flat["pattern"])] if re.search(flat["pattern"], text)]
        if not texts:
            raise Unsatisfiable
        return str(self.pick(("text", id(schema), least, most), texts))

    def _number(self, schema: Schema, flat: Schema, edges: Sequence[float]) -> float:
        low = flat.get("minimum", flat.get("exclusiveMinimum"))
        high = flat.get("maximum", flat.get("exclusiveMaximum"))
        near = [*([low, low + 1] if low is not None else []), *([high, high - 1] if high is not None else [])]
        if flat.get("type") != "integer" and low is not None and high is not None:
            near.append((low + high) / 2)
        fitting = [
            number
            for number in (*edges, *near)
            if (low is None or number >= low)
            and (high is None or number <= high)
            and number != flat.get("exclusiveMinimum")
            and number != flat.get("exclusiveMaximum")
        ]
        if not fitting:
            raise Unsatisfiable
        number: float = self.pick(("number", id(schema), *fitting), fitting)
        return number

    def _flatten(self, schema: Schema, depth: int) -> dict[str, Any]:
        """Resolve references, join `allOf`, and choose one branch of each union, down to plain keywords."""
        flat = {key: item for key, item in schema.items() if key not in {"$ref", "allOf", "anyOf", "oneOf"}}
        parts: list[Schema] = list(schema.get("allOf", ()))
        if "$ref" in schema:
            parts.append(resolve(self._document, {"$ref": schema["$ref"]}))
        for union in ("anyOf", "oneOf"):
            if union in schema:
                possible = [branch for branch in schema[union] if self._fits(branch, depth)]
                if not possible:
                    raise Unsatisfiable
                parts.append(self.pick((union, id(schema), len(possible)), possible))
        for part in parts:
            flat = self._join(flat, self._flatten(part, depth))
        return flat

    def _join(self, first: Schema, second: Schema) -> dict[str, Any]:
        """Both schemas at once, as far as their plain keywords go."""
        joined = {**first, **second}
        if "properties" in first and "properties" in second:
            properties = dict(first["properties"])
            for name, schema in second["properties"].items():
                properties[name] = self._both(properties[name], schema) if name in properties else schema
            joined["properties"] = properties
        if "required" in first and "required" in second:
            joined["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
        if "enum" in first and "enum" in second:
            joined["enum"] = [item for item in first["enum"] if item in second["enum"]]
        if "items" in first and "items" in second:
            joined["items"] = self._both(first["items"], second["items"])
        if "type" in first and "type" in second:
            joined["type"] = _common_types(first["type"], second["type"])
        if False in (first.get("additionalProperties"), second.get("additionalProperties")):
            joined["additionalProperties"] = False
        return joined

    def _both(self, first: Schema, second: Schema) -> Schema:
        # Kept for good: everything here is remembered by the identity of schemas.
        return self._joined.setdefault((id(first), id(second)), {"allOf": [first, second]})

    def _fits(self, schema: Schema, depth: int) -> bool:
        """Whether the smallest value of a schema nests no deeper than `depth` levels."""
        if depth < 0:
            return False
        key = (id(schema), depth)
        if key not in self._heights:
            self._heights[key] = False  # a reference that leads back to itself
            self._heights[key] = self._measure(schema, depth)
        return self._heights[key]

    def _measure(self, schema: Schema, depth: int) -> bool:
        if "$ref" in schema and not self._fits(resolve(self._document, {"$ref": schema["$ref"]}), depth):
            return False
        for union in ("anyOf", "oneOf"):
            if union in schema and not any(self._fits(branch, depth) for branch in schema[union]):
                return False
        if not all(self._fits(part, depth) for part in schema.get("allOf", ())):
            return False
        properties = schema.get("properties", {})
        needed = [properties[name] for name in schema.get("required", ()) if name in properties]
        if schema.get("minItems", 0) > 0 and "items" in schema:
            needed.append(schema["items"])
        return all(self._fits(part, depth - 1) for part in needed)


def _common_types(first: str | list[str], second: str | list[str]) -> list[str]:
    firsts = [first] if isinstance(first, str) else first
    seconds = [second] if isinstance(second, str) else second
    if "number" in firsts and "integer" in seconds:
        firsts = [*firsts, "integer"]
    if "number" in seconds and "integer" in firsts:
        seconds = [*seconds, "integer"]
    return [kind for kind in firsts if kind in seconds]


def _matching(pattern: str) -> str:
    """A text for patterns of the form `^literal[class]{length}$`; whoever uses it tries whether it matches."""
    head = re.match(r"\^?([A-Za-z0-9_]*)", pattern)
    length = re.search(r"\{(\d+)\}", pattern)
    return (head[1] if head else "") + "a" * int(length[1] if length else 8)
