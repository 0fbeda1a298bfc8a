"""
What each operation does: create, retrieve, list, update, delete, act on an object, compute, or hand out content.

Which of these an operation is follows from its path, its method and its example; the few that need more stand in
`handlers.simulated_upstream.special_cases`. There is no list of paths.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from codegen.contract import EVENT_STREAM, JSON, Contract, Media, Operation
from handlers.simulated_upstream import special_cases
from handlers.simulated_upstream.content import Content, MemoryContent
from handlers.simulated_upstream.errors import NotFound
from handlers.simulated_upstream.events import EventReplay
from handlers.simulated_upstream.multipart import RequestBody
from handlers.simulated_upstream.objects import Collection, KeptObject, page_of
from handlers.simulated_upstream.places import Place, Places
from handlers.simulated_upstream.shapes import Shape, Shapes, fresh, id_prefix

_CURSOR_PARAMETERS = frozenset({"after", "before", "limit", "order", "order_by", "include", "stream"})


@dataclass(frozen=True)
class Call:
    """
    One request, understood.

    Args:
        path_params: Template names to decoded values.
        query: By name; `name[key]` as an object, a repeated name as a list.
        background_seconds: How long what it creates is seen in progress; `None` means as long as everything else.
        chain: The objects that the path names, one per template parameter.
    """

    operation: Operation
    path_params: Mapping[str, str]
    query: Mapping[str, Any]
    body: RequestBody
    background_seconds: float | None = None
    chain: Sequence[KeptObject] = ()


@dataclass(frozen=True)
class Answer:
    """
    The reply to a call; at most one of `value`, `content` and `events` is set.

    Args:
        value: JSON.
        content: Bytes of `media_type`.
        events: An event stream, event by event.
    """

    status: int
    value: Any = None
    content: Content | None = None
    media_type: str = JSON
    filename: str = ""
    events: Sequence[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class World:
    """
    Everything that the simulated upstream knows and keeps.

    Args:
        operations: Those that are served.
        background_seconds: How long created work (batches, background responses, videos, …) is seen in progress.
    """

    def __init__(self, contract: Contract, operations: Iterable[Operation], *, background_seconds: float = 0.0) -> None:
        self.operations = {operation.id: operation for operation in operations}
        self.background_seconds = background_seconds
        self.shapes = Shapes(contract)
        self.places = Places(self.operations.values(), self.shapes)
        self._replays: dict[str, EventReplay] = {}

    def answer(self, call: Call) -> Answer:
        """
        Do what an operation does.

        Raises:
            NotFound: The object or one of its parents does not exist (404).
            BadRequest: A cursor or the body makes no sense (400).
        """
        operation = call.operation
        place = self.places.of(operation)
        call = replace(call, chain=self.places.walk(place, call.path_params))
        instead = special_cases.INSTEAD.get(operation.id)
        if instead is not None:
            return self._json(call, instead(self, call))
        shape = self.shapes.of(operation)
        if operation.method == "GET" and (operation.content_path and operation.binary):
            return self._content(call)
        if shape is None:
            return self._without_json(call, place)
        if operation.method == "DELETE":
            return self._json(call, self._delete(call, place, shape))
        if operation.method == "GET":
            return self._get(call, place, shape)
        if place.on_item:
            return self._json(call, self._change(call, shape))
        return self._create(call, shape)

    def create(
        self, operation: Operation, chain: Sequence[KeptObject], body: RequestBody, overrides: Mapping[str, Any]
    ) -> KeptObject:
        """
        Make an object as a creating operation does, and keep it where that operation puts it.

        Args:
            operation: Has a JSON reply.
            chain: The objects above it.
            overrides: Fields that hold whatever the request says, where the schema allows them.
        """
        shape = self.shapes.of(operation)
        if shape is None:
            raise NotFound("This operation creates nothing.")
        home = self.operations.get(special_cases.CREATES_LIKE.get(operation.id, operation.id), operation)
        place = self.places.of(home)
        chain = chain if place.operation is operation else ()
        value = shape.with_request(fresh(shape.example_for(body.fields.get("response_format"))), body.fields)
        value = shape.with_fields(value, {**_file_fields(body), **_parent_fields(place, chain), **overrides})
        kept = KeptObject(value, content=body.files[0].content if body.files else None)
        started = special_cases.at_start(operation.id, body.fields)
        if started is not None:
            empty = [name for name, item in started.items() if item is None]
            changed = {name: item for name, item in started.items() if item is not None}
            kept.started = shape.without(shape.with_fields(value, changed), empty)
            kept.finished_at = time.monotonic() + self.background_seconds
        lasting = place.creator is home or operation.id in special_cases.KEPT_ANYWAY
        if lasting and special_cases.stored(operation.id, body.fields):
            key = value.get(place.key_field) or value.get("id")
            self.places.collection(place, chain).add(str(key), kept)
        return kept

    def _create(self, call: Call, shape: Shape) -> Answer:
        operation = call.operation
        kept = self.create(operation, call.chain, call.body, special_cases.overrides(operation.id, call.body))
        if call.background_seconds is not None:
            kept.finished_at = time.monotonic() + call.background_seconds
        after = special_cases.AFTER_CREATION.get(operation.id)
        if after is not None:
            after(self, call, kept)
        if _wants_stream(call):
            replay = self._replay(operation)
            kept.value = shape.with_fields(kept.value, _without_identity(replay.final))  # in progress as long as before
            return Answer(self._status(operation), events=replay.events_of(kept.value), media_type=EVENT_STREAM)
        plain = _plain_text(call)
        if plain is not None:
            return self._example(call, plain)
        return self._json(call, kept.started if kept.started is not None else special_cases.refreshed(kept))

    def _get(self, call: Call, place: Place, shape: Shape) -> Answer:
        if place.on_item:
            value = special_cases.refreshed(call.chain[-1])
            if _wants_stream(call):
                after = call.query.get("starting_after")
                number = int(after) if isinstance(after, str) and after.isdigit() else None
                events = self._replay(call.operation).events_of(value, starting_after=number)
                return Answer(self._status(call.operation), events=events, media_type=EVENT_STREAM)
            return self._json(call, value if shape.valid(value) else {**shape.example, "id": value.get("id")})
        if _is_list(shape.example):
            return self._json(call, self._list(call, place, shape))
        return self._json(call, shape.with_fields(shape.example, _parent_fields(place, call.chain)))

    def _list(self, call: Call, place: Place, shape: Shape) -> dict[str, Any]:
        collection = self.places.existing(place, call.chain)
        if collection is not None or place.creator is not None:
            values = [special_cases.refreshed(kept) for kept in reversed(list(collection or ()))]
        else:
            parents = _parent_fields(place, call.chain)
            values = [{**item, **{k: v for k, v in parents.items() if k in item}} for item in shape.example["data"]]
        values = [value for value in values if _selected(call, value)]
        declared = {parameter.name: parameter for parameter in call.operation.parameters_in("query")}
        query = {name: value for name, value in call.query.items() if name in declared}
        order = declared["order"].schema.get("default", "desc") if "order" in declared else "desc"
        if "limit" not in declared:
            query["limit"] = max(len(values), 1)
        page = page_of(values, query, default_order=order)
        return _envelope(shape, page.data, has_more=page.has_more)

    def _delete(self, call: Call, place: Place, shape: Shape) -> dict[str, Any]:
        kept, key = call.chain[-1], call.path_params[place.params[-1]]
        self._forget(place, call)
        parent = call.chain[-2].current if len(call.chain) > 1 else {}
        if "object" in parent and parent["object"] == shape.example.get("object"):
            return shape.with_fields(shape.example, parent)  # as after deleting an item of a conversation
        own_id = kept.value.get("id", key)
        prefix = id_prefix(str(shape.example.get("id")))
        ids = [own_id, *(other.value.get("id") for other in call.chain[:-1])]
        own_id = next((item for item in ids if prefix and id_prefix(str(item)) == prefix), own_id)
        named = {name: call.path_params[name] for name in place.params if name in shape.example}
        return shape.with_fields(shape.example, {"id": own_id, **named})

    def _forget(self, place: Place, call: Call) -> None:
        collection = self.places.existing(place, call.chain[:-1])
        if collection is not None:
            collection.remove(call.path_params[place.params[-1]])

    def _change(self, call: Call, shape: Shape) -> dict[str, Any]:
        kept = call.chain[-1]
        value = shape.with_request(kept.current, call.body.fields, update=True)
        status = special_cases.STATUS_AFTER.get(call.operation.id)
        if status is not None:
            value = shape.with_fields(value, {"status": status})
        if not shape.valid(value):
            value = shape.with_fields(shape.example, {"id": kept.value.get("id")})
        kept.become(value)
        return special_cases.refreshed(kept)

    def _content(self, call: Call) -> Answer:
        kept = call.chain[-1]
        media_type = _binary_media_type(call)
        filename = str(kept.value.get("filename") or kept.value.get("path") or kept.value.get("id") or "content")
        content = kept.content
        if content is None:
            content = _example_content(call.operation.success[1][media_type])
        return Answer(
            self._status(call.operation), content=content, media_type=media_type, filename=filename.rpartition("/")[2]
        )

    def _without_json(self, call: Call, place: Place) -> Answer:
        if call.operation.method == "DELETE" and place.on_item:
            self._forget(place, call)
        status, media = call.operation.success
        if not media:
            return Answer(int(status or 200))
        if EVENT_STREAM in media and (_wants_stream(call) or len(media) == 1):
            return Answer(int(status), events=self._replay(call.operation).events, media_type=EVENT_STREAM)
        return self._example(call, next(name for name in media if name != EVENT_STREAM))

    def _example(self, call: Call, media_type: str) -> Answer:
        content = _example_content(call.operation.success[1][media_type])
        headers = special_cases.headers(call.operation.id)
        return Answer(self._status(call.operation), content=content, media_type=media_type, headers=headers)

    def _replay(self, operation: Operation) -> EventReplay:
        if operation.id not in self._replays:
            media = operation.success[1][EVENT_STREAM]
            self._replays[operation.id] = EventReplay(str(next(iter(media.examples.values()), "")))
        return self._replays[operation.id]

    def _json(self, call: Call, value: Any) -> Answer:
        return Answer(self._status(call.operation), value=value)

    @staticmethod
    def _status(operation: Operation) -> int:
        return int(operation.success[0] or 200)

    def list_reply(self, call: Call, values: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The list reply of an operation with exactly these objects."""
        shape = self.shapes.of(call.operation)
        if shape is None:
            raise NotFound("This operation has no list.")
        return _envelope(shape, values, has_more=False)

    def collection_under(self, kept: KeptObject, name: str) -> Collection:
        """A collection under an object, made when it is missing."""
        return kept.children.setdefault(name, Collection())


def _envelope(shape: Shape, data: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    value = {**shape.example, "data": list(data), "has_more": has_more}
    if "has_more" not in shape.example:
        del value["has_more"]
    for name, item in (("first_id", data[:1]), ("last_id", data[-1:])):
        if name in value:
            value[name] = item[0].get("id") if item else None
    if shape.valid(value):
        return value
    for empty in ("", ...):  # an empty list has no ids; not every schema says so with null
        candidate = {
            key: empty if item is None and key in {"first_id", "last_id"} else item for key, item in value.items()
        }
        candidate = {key: item for key, item in candidate.items() if item is not ...}
        if shape.valid(candidate):
            return candidate
    return dict(shape.example)


def _selected(call: Call, value: Mapping[str, Any]) -> bool:
    for parameter in call.operation.parameters_in("query"):
        if parameter.name in _CURSOR_PARAMETERS or parameter.name not in call.query:
            continue
        wanted = call.query[parameter.name]
        found = value.get("status" if parameter.name == "filter" else parameter.name)
        if isinstance(wanted, dict):
            if not isinstance(found, dict) or any(str(found.get(k)) != v for k, v in wanted.items()):
                return False
        elif found is not None and str(found) not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _is_list(example: Any) -> bool:
    return isinstance(example, dict) and isinstance(example.get("data"), list) and example.get("object") == "list"


def _wants_stream(call: Call) -> bool:
    if EVENT_STREAM not in call.operation.response_media:
        return False
    asked = call.query.get("stream") if call.operation.method == "GET" else call.body.fields.get("stream")
    return asked is True or str(asked).lower() == "true" or call.body.fields.get("stream_format") == "sse"


def _plain_text(call: Call) -> str | None:
    wanted = call.body.fields.get("response_format")
    if not isinstance(wanted, str) or wanted not in {"text", "srt", "vtt"}:
        return None
    return next((name for name in call.operation.success[1] if name.startswith("text/") and name != EVENT_STREAM), None)


def _binary_media_type(call: Call) -> str:
    binary = [name for name in call.operation.success[1] if name not in {JSON, EVENT_STREAM}]
    if call.query.get("variant") in {"thumbnail", "spritesheet"}:
        return next((name for name in binary if name.startswith("image/")), binary[0])
    return binary[0]


def _example_content(media: Media) -> Content:
    value = next(iter(media.examples.values()), "")
    return MemoryContent(value if isinstance(value, bytes) else str(value).encode())


def _file_fields(body: RequestBody) -> dict[str, Any]:
    if not body.files:
        return {}
    part = body.files[0]
    return {"bytes": part.content.size, "filename": part.filename, "path": f"/mnt/data/{part.filename}"}


def _parent_fields(place: Place, chain: Sequence[KeptObject]) -> dict[str, Any]:
    return {name: kept.value["id"] for name, kept in zip(place.params, chain, strict=False) if "id" in kept.value}


def _without_identity(value: Mapping[str, Any]) -> dict[str, Any]:
    kept_out = {"id", "model", "created_at", "completed_at", "metadata"}
    return {key: item for key, item in value.items() if key not in kept_out}
