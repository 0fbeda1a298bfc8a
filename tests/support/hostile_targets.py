"""
Targets with which somebody would try to lead `/v1/proxy` astray, made from the contract's own paths.

The same seed makes the same targets. What a target literally names is read here once more, without the relay's index:
a mistake there must not excuse itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

import orjson

from codegen.contract import JSON, METHODS, Contract, Operation
from tests.support.contract_requests import example_of

_IDS = ("batch_1", "ft:gpt-4o:team::a1", "x", "-", "_", "a.b", "0", "A" * 64, "cancel", "health", "content")
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]*", re.ASCII)

_OVERLONG = ("%c0%ae", "%c0%af", "%e0%80%af", "%f0%80%80%af", "%c1%9c", "%u002f", "%uff0f", "%25c0%25af")
_ENCODED = (
    *("%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "%00", "%0a", "%0d%0a", "%09", "%20", "%23", "%3f", "%3b", "%7f"),
    *("%41", "%61", "%2d", "%252e", "%252f"),
)
_DOTS = (
    *(".", "..", "...", "....//", "..;", "..;/", ".%2e", "%2e.", "%2e%2e", "%252e%252e", "..%2f", "..%5c", "..\\"),
    *(".\t.", "\uff0e\uff0e", "\u2025"),
)
_SLASHES = (
    *("//", "///", "\\", "\\\\", "/\\", "\\/", "/./", "/;/", "%2f", "%2F", "%252f"),
    *("\uff0f", "\u2044", "\u2215", "\u29f8", "\uff3c"),
)
_CONTROLS = tuple(map(chr, (*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xAD, 0x200B, 0x200D, 0x202E, 0x2028, 0xFEFF)))
_UNICODE = ("\u0301", "\u00e9", "\ufb01", "\u0131", "\u212a", "\uff45", "\u17b4", "\U0001f388", "\U000e0065", "\uffff")
# Cyrillic and full-width characters that look like these.
_LOOKALIKES = "\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u0445\uff56\uff11\uff0f"
_HOMOGLYPHS = dict(zip("aceiopsxv1/", _LOOKALIKES, strict=True))
_TAILS = (
    *("/", "//", "/.", "/..", "?", "?limit=1", "?_method=DELETE", "#", "#/v1/models", ";", ";a=b", ";/../models"),
    *(":stream", ":cancel", "/content", ".json", "%", "%2", "*", "\n", "\r\n", "\r\nHost: evil.test", "\t", " ", "\0"),
    *(" HTTP/1.1", "\r\n\r\nGET /v1/models HTTP/1.1", "@evil.test", ":80", "|", "~", "^", "`id`", "$(id)", "'--", '"'),
    "&a=b",
)
_AUTHORITIES = (
    *("http://evil.test{}", "https://evil.test{}", "//evil.test{}", "///evil.test{}", "\\\\evil.test{}"),
    *("/\\evil.test{}", "http:{}", "http:/{}", "https:///{}", "HTTP://127.0.0.1{}", "//127.0.0.1:80{}"),
    *("http://[::1]{}", "@evil.test{}", "evil.test{}", "file://{}", "javascript:{}", "data:,{}", "ws://evil.test{}"),
    *("http://user:pw@evil.test{}", " {}", "\t{}", "\n{}", "\ufeff{}", "*{}", "?{}", "#{}", "/{}", "./{}", "../{}"),
    *("/..{}", "/.{}", "/proxy{}", "/v1{}", "/V1{}", "/v1/..{}", "/v2/..{}", "/actions/..{}", "CONNECT {}", "GET {}"),
    *("{{{}}}", '"{}"', "%2f{}", "/%2e{}"),
)
_METHODS = (
    *("get", "Get", "gET", "post", "delete", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "LINK"),
    *("GET ", " GET", "GET\n", "GET\r\nHost: x", "G\u200bET", "\uff27\uff25\uff34", "GET POST", "GET,POST", "", "*"),
    "X" * 999,
)
_OVERRIDES: tuple[Mapping[str, str], ...] = (
    *({name: "DELETE"} for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")),
    *({name: "/v1/models"} for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path", "X-Forwarded-Prefix")),
    *({name: "evil.test"} for name in ("X-Forwarded-Host", "Forwarded", "X-Host", "Destination", "X-Upstream")),
    *({"Accept": "text/event-stream"}, {"Content-Location": "/v1/models"}, {"Upgrade": "websocket"}),
)
# What may stand in a field that holds an object as a text; each is sent to operations that would take the object.
_TEXTS = (
    *("", " ", "null", "true", "0", "[]", "[{}]", '""', '"{}"', "{", "}", "{}{}", "{} {}", "{},", "\ufeff{}", "\0{}"),
    *("{'a': 1}", "{a: 1}", '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": 01}', '{"a": "\n"}', "{\xa0}"),
    *('{"a": 1, "a": 2}', '{"a": 1, "\\u0061": 2}', '{"stream": false, "stream": true}', '{"stre\\u0061m": true}'),
    *('{"a": "\\ud800"}', '{"a": 1} // b', '{"a": 1, /* b */ "c": 2}', "%7B%7D", "e30=", '\\"{}\\"', '{"": {"": []}}'),
    *('{"a": ' * 300 + "1" + "}" * 300, "[" * 100_000, '{"a":' + "[" * 250 + "]" * 250 + "}", "{" * 20_001),
    *(
        '{"method": "DELETE", "path": "/v1/models"}',
        '{"a": {"b": {}}}',
        '{"a": null}',
        '{"a": [[1]]}',
        '{"a": ' + "9" * 5_000 + "}",
    ),
    '{"__proto__": {"stream": true}}',
)
_WRONG: tuple[Any, ...] = (None, 1, -1.5, True, [], {}, ["GET"], {"path": "/v1/models"}, [["/v1/models"]], "", "null")
_STREAMS: tuple[Any, ...] = (True, "true", "True", "false", 1, 0, "1", "on", "", [True], ["true"], [False], 1.5)
_EXTRA_FIELDS = (
    *("url", "headers", "host", "base_url", "Path", "PATH", "METHOD", "path ", "__proto__", "operationId", "stream"),
)


@dataclass(frozen=True)
class HostileTarget:
    """
    One request to the proxy.

    Args:
        kind: What it tries; for counting.
        content: The body, mostly a `ProxyRequest`.
        method: What `content` names; `None` when it is no text.
        headers: Beside the usual ones.
    """

    kind: str
    content: bytes
    method: str | None
    path: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


def named_operation(contract: Contract, method: str | None, path: str | None) -> Operation | None:
    """The operation that method and path literally name: nothing decoded, folded or trimmed, plain segments only."""
    segments = (path or "").split("/")
    if not all(_PLAIN_SEGMENT.fullmatch(segment) for segment in segments[1:]):
        return None
    found = [
        operation
        for operation in contract
        if operation.method == method and _names(operation.path.split("/"), segments)
    ]
    return min(found, key=lambda operation: operation.path.count("{"), default=None)


def _names(template: list[str], segments: list[str]) -> bool:
    return len(template) == len(segments) and all(
        part == segment or part.startswith("{") for part, segment in zip(template, segments, strict=True)
    )


class HostileTargets:
    """
    Draws targets.

    Args:
        contract: Whose operations are attacked, and mimicked.
        proxied: Those that the proxy lets through; what is bent into other shapes starts mostly from these.
    """

    def __init__(self, contract: Contract, proxied: list[Operation], seed: int = 0) -> None:
        self._all = list(contract)
        self._proxied = proxied
        self._random = Random(seed)

    def systematic(self) -> Iterator[HostileTarget]:
        """Every path of the contract: with every method, as it stands there, and as the target of a nested call."""
        for path in dict.fromkeys(operation.path for operation in self._all):
            for method in (*(name.upper() for name in METHODS), "HEAD", "get"):
                yield self._plain("any method", method, self._filled(path))
            yield self._plain("template as it stands", "GET", path)
        for operation in self._all:
            path = self._filled(operation.path)
            yield self._target("own example", operation, path, body=_example(operation))
            inner = {"method": operation.method, "path": path}
            yield self._envelope("nested", {"method": "POST", "path": "/v1/proxy", "body": inner})
            twice = {"method": "POST", "path": "/v1/proxy", "body": inner}
            yield self._envelope("nested twice", {"method": "POST", "path": "/v1/proxy", "body": twice})
        for operation in self._proxied:
            for place in ("query", "body"):
                for value in self._random.sample(_STREAMS, 9):
                    asking = {"method": operation.method, "path": self._filled(operation.path)}
                    yield self._envelope("stream", {**asking, place: {"stream": value}})
                    text = orjson.dumps({"stream": value}).decode()
                    yield self._envelope("stream in a text", {**asking, f"{place}_json": text})
            for place in ("query_json", "body_json"):
                for text in self._random.sample(_TEXTS, 9):
                    yield self._target(
                        "strange text", operation, **{"body": _spare_example(operation, place), place: text}
                    )
                doubled: dict[str, Any] = {place.removesuffix("_json"): {}, place: "{}"}
                yield self._target("object and text", operation, **doubled)
            for method in _METHODS:
                yield self._plain("made-up method", method, self._filled(operation.path))
            for headers in _OVERRIDES:
                yield self._target("override", operation, body=_example(operation), headers=headers)

    def drawn(self, count: int) -> Iterator[HostileTarget]:
        """Paths and envelopes bent in one of many ways, each way equally often."""
        ways: tuple[tuple[str, Callable[[str], str]], ...] = (
            ("encoded", self._encoded),
            ("encoded twice", lambda path: self._encoded(path).replace("%", "%25")),
            ("overlong", lambda path: self._inserted(path, _OVERLONG)),
            ("encoded separator", lambda path: self._inserted(path, _ENCODED)),
            ("dot segments", self._dotted),
            ("slashes", self._slashed),
            ("control characters", lambda path: self._inserted(path, _CONTROLS)),
            ("other scripts", lambda path: self._inserted(path, _UNICODE)),
            ("homoglyph", self._homoglyph),
            ("case", self._other_case),
            ("tail", lambda path: path + self._one(_TAILS)),
            ("authority", lambda path: self._one(_AUTHORITIES).format(path)),
            ("no leading slash", lambda path: path.lstrip("/")),
            ("oversized", self._oversized),
            ("spliced", self._spliced),
            ("segment dropped", self._shortened),
            ("sibling as value", self._sibling),
        )
        envelopes = (self._unknown_field, self._wrong_type, self._broken_json, self._two_names, self._hidden_in_values)
        for number in range(count):
            kind = number % (len(ways) + len(envelopes))
            operation = self._one(self._proxied if self._random.random() < 0.7 else self._all)
            if kind < len(ways):
                name, bend = ways[kind]
                # With a body that fits, so that nothing but the path stands between a target and the upstream.
                body = _example(operation) if self._random.random() < 0.5 else None
                yield self._target(name, operation, bend(self._filled(operation.path)), body=body)
            else:
                yield envelopes[kind - len(ways)](operation)

    def _one(self, options: Any) -> Any:
        return self._random.choice(options)

    def _filled(self, path: str) -> str:
        return re.sub(r"\{[^}]+\}", lambda _: str(self._one(_IDS)), path)

    def _target(
        self,
        kind: str,
        operation: Operation,
        path: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> HostileTarget:
        where = self._filled(operation.path) if path is None else path
        fields = {name: value for name, value in rest.items() if value is not None}
        return self._envelope(kind, {"method": operation.method, "path": where, **fields}, headers)

    def _plain(self, kind: str, method: str, path: str) -> HostileTarget:
        return self._envelope(kind, {"method": method, "path": path})

    def _envelope(self, kind: str, envelope: Any, headers: Mapping[str, str] | None = None) -> HostileTarget:
        method, path = (envelope.get(name) if isinstance(envelope, dict) else None for name in ("method", "path"))
        return HostileTarget(
            kind,
            orjson.dumps(envelope),
            method if isinstance(method, str) else None,
            path if isinstance(path, str) else None,
            headers or {},
        )

    def _place(self, path: str) -> int:
        return self._random.randint(0, len(path))

    def _inserted(self, path: str, options: tuple[str, ...]) -> str:
        place = self._place(path)
        return path[:place] + str(self._one(options)) + path[place:]

    def _encoded(self, path: str) -> str:
        """One character or all of them as `%xx`, in either case of the digits."""
        chosen = range(len(path)) if self._random.random() < 0.1 else [self._random.randrange(len(path))]
        digits = self._one(("%{:02x}", "%{:02X}"))
        return "".join(digits.format(ord(c)) if place in chosen else c for place, c in enumerate(path))

    def _dotted(self, path: str) -> str:
        """Up and down again, to itself or to what another bucket holds."""
        segments = path.split("/")
        place = self._random.randint(1, len(segments))
        other = self._filled(self._one(self._all).path) if self._random.random() < 0.5 else ""
        ups = [str(self._one(_DOTS))] * self._random.randint(1, 4)
        return "/".join([*segments[:place], *ups, *segments[place:]]) + other

    def _slashed(self, path: str) -> str:
        places = [place for place, character in enumerate(path) if character == "/"]
        place = self._one(places)
        return path[:place] + str(self._one(_SLASHES)) + path[place + 1 :]

    def _homoglyph(self, path: str) -> str:
        places = [place for place, character in enumerate(path) if character in _HOMOGLYPHS]
        place = self._one(places)
        return path[:place] + _HOMOGLYPHS[path[place]] + path[place + 1 :]

    def _other_case(self, path: str) -> str:
        return str(self._one((path.upper, path.title, path.swapcase, path.capitalize))())

    def _oversized(self, path: str) -> str:
        length = self._one((1_000, 1_024, 1_025, 8_192, 8_193, 70_000))
        return str(self._one((path + "a" * length, path + "/a" * (length // 2), path[:4] + "a" * length + path[4:])))

    def _spliced(self, path: str) -> str:
        other = self._filled(self._one(self._all).path)
        return str(self._one((path + other, other + path, path + other.removeprefix("/v1"), other)))

    def _shortened(self, path: str) -> str:
        segments = path.split("/")
        del segments[self._random.randrange(len(segments))]
        return "/".join(segments)

    def _sibling(self, path: str) -> str:
        """A literal of another operation where a value or another literal stands."""
        segments = path.split("/")
        literals = [part for part in self._one(self._all).path.split("/")[1:] if not part.startswith("{")]
        segments[self._random.randrange(1, len(segments))] = str(self._one(literals or ["v1"]))
        return "/".join(segments)

    def _unknown_field(self, operation: Operation) -> HostileTarget:
        envelope = {"method": operation.method, "path": self._filled(operation.path)}
        return self._envelope("unknown field", {**envelope, self._one(_EXTRA_FIELDS): self._one(("/v1/models", True))})

    def _wrong_type(self, operation: Operation) -> HostileTarget:
        envelope: Any = {"method": operation.method, "path": self._filled(operation.path)}
        name = self._one(("method", "path", "query", "body", "query_json", "body_json", "dry_run", ""))
        if name == "path":
            envelope[name] = self._one((*_WRONG, [envelope[name]], {"a": envelope[name]}))
        elif name:
            fitting: tuple[Any, ...] = ("", "null") if name.endswith("_json") else ({}, True)
            envelope[name] = self._one([value for value in _WRONG if value not in fitting])
        else:
            envelope = self._one(([envelope], orjson.dumps(envelope).decode(), None, 1, {"request": envelope}))
        return self._envelope("wrong type", envelope)

    def _broken_json(self, operation: Operation) -> HostileTarget:
        whole = self._target("broken JSON", operation).content
        cut = self._random.randrange(1, len(whole))
        content = self._one(
            (whole[:cut], whole[:cut] + b"\xff" + whole[cut:], whole + whole, b"\xef\xbb\xbf" + whole, b"")
        )
        return HostileTarget("broken JSON", content, None, None)

    def _two_names(self, operation: Operation) -> HostileTarget:
        """One allowed target and another one under the same name, or under one that only looks different."""
        allowed, other = self._one(self._proxied), self._one(self._all)
        name = self._one(('"path"', '"p\\u0061th"', '"\\u0070ath"'))
        text = (
            f'{{"method": "{allowed.method}", "path": "{self._filled(allowed.path)}", '
            f'{name}: "{self._filled(other.path)}", "method": "{operation.method}"}}'
        )
        return HostileTarget("two names", text.encode(), None, None)

    def _hidden_in_values(self, operation: Operation) -> HostileTarget:
        """Another target in the query or the body of one that may be allowed."""
        other = self._filled(self._one(self._all).path)
        name, value = self._one(
            (
                *(("_method", "DELETE"), ("path", other), ("url", f"http://evil.test{other}"), ("a", f"#{other}")),
                *(("a&b", other), ("a", f"\r\nHost: evil.test\r\n\r\nGET {other}"), (f"?{other}", "x")),
                *((f"../../..{other}", "x"), ("a", quote(other)), ("", ""), ("a", "\x00"), ("__proto__", "x")),
            )
        )
        place = "query" if operation.body is None or self._random.random() < 0.5 else "body"
        fields: dict[str, Any] = {"body": _example(operation), place: {name: value}}
        if place == "body" and isinstance(_example(operation), dict):
            fields["body"] = {**_example(operation), name: value}
        if self._random.random() < 0.5:
            fields = {f"{key}_json": orjson.dumps(item).decode() for key, item in fields.items() if item is not None}
        return self._target("hidden in values", operation, **fields)


def _spare_example(operation: Operation, place: str) -> Any:
    """A body that fits, unless it would stand beside its own text."""
    return None if place == "body_json" else _example(operation)


def _example(operation: Operation) -> Any:
    if operation.body is None or JSON not in operation.body.content or not operation.body.content[JSON].examples:
        return None
    return example_of(operation)
