import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest

from codegen.contract import FULL, load_contract
from handlers import response_wrappers
from handlers.response_wrappers import (
    GATHER_SECONDS,
    gather_response_stream,
    poll_response,
    start_response,
    stop_response,
)
from handlers.runtime.app import GENERATED
from handlers.runtime.budget import DEADLINE_SECONDS, deadline, way_out
from handlers.runtime.exceptions import (
    UpstreamErrorWithheld,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from handlers.runtime.matching import OperationIndex
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.services import Services
from handlers.runtime.validation import SchemaSource
from handlers.runtime.wrapped_calls import UpstreamRefusal
from tests.support.model_responses import QUESTION, RESPONSE_ID, delta, error, event, response, stream_of
from tests.support.skipped_waits import run_without_waiting

CONTRACT = load_contract(GENERATED, FULL)
ANSWER = SchemaSource(CONTRACT).at("#/components/schemas/Answer")
INDEX = OperationIndex((operation, operation.id) for operation in CONTRACT if operation.mirrored)
SILENCE = object()  # an answer that never comes
MADE_UP_KEY = b"sk-made-up-upstream"


@dataclass
class ScriptedUpstream:
    """
    An upstream that answers as it was told.

    Args:
        script: operationId to its answers, one after the other; the last one stays. Each is JSON, a status with JSON, a
            reply, an exception, or silence.
    """

    script: dict[str, list[Any]]
    calls: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    given_up: int = 0

    def check_echo(self, content: bytes) -> None:
        """As the client of the upstream does, with a key that is made up."""
        if MADE_UP_KEY in content:
            raise UpstreamErrorWithheld

    async def send(
        self, method: str, path: str, *, query: bytes = b"", headers: list[Header], content: bytes | None = None
    ) -> Reply:
        """Answer one call."""
        assert (b"accept-encoding", b"identity") in headers
        assert not query
        match = INDEX.match(path)
        assert match is not None
        operation_id = match.methods[method]
        self.calls.append(operation_id)
        self.paths.append(path)
        self.bodies.append(orjson.loads(content) if content else None)
        self.moments.append(asyncio.get_running_loop().time())
        answers = self.script[operation_id]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is SILENCE:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Reply):
            return answer
        status, value = answer if isinstance(answer, tuple) else (200, answer)
        return Reply.json(value, status=status)


class Pieces:
    """The body of a stream: texts, pauses in seconds between them, and exceptions; knows whether it was closed."""

    def __init__(self, items: Sequence[Any], media_type: bytes = b"text/event-stream; charset=utf-8") -> None:
        self._items = items
        self.closed = 0
        self.reply = Reply(200, [(b"content-type", media_type)], self._sent(), self._close)

    async def _sent(self) -> AsyncIterator[bytes]:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, (int, float)):
                await asyncio.sleep(item)
            else:
                yield item.encode() if isinstance(item, str) else item

    async def _close(self) -> None:
        self.closed += 1


def request_to(operation_id: str, upstream: ScriptedUpstream, body: Any = None, query: bytes = b"") -> Request:
    """A request to a wrapper before a scripted upstream."""

    class Shared:
        contract = CONTRACT

    shared = Shared()
    shared.upstream = upstream  # type: ignore[attr-defined]
    operation = CONTRACT.operations[operation_id]
    return Request(
        id="rly_0123456789",
        operation=operation,
        path=operation.path,
        path_params={"response_id": RESPONSE_ID} if "{" in operation.path else {},
        query=query,
        headers=[],
        caller=None,
        services=cast("Services", shared),
        body=body,
    )


def run(function: Callable[[Request], Awaitable[Reply]], request: Request) -> tuple[dict[str, Any], float]:
    """The answer of a function under the pipeline's deadline, and how many seconds it would have taken."""

    async def within_deadline() -> Reply:
        async with deadline(way_out(request.operation)):
            return await function(request)

    reply, seconds = run_without_waiting(within_deadline())
    assert reply.status == 200
    assert isinstance(reply.body, bytes)
    answer: dict[str, Any] = orjson.loads(reply.body)
    ANSWER.validate(answer)
    return answer, seconds


def start(upstream: ScriptedUpstream, **fields: Any) -> tuple[dict[str, Any], float]:
    """Start a response."""
    return run(start_response, request_to("startResponse", upstream, {**QUESTION, **fields}))


def gather(*items: Any, media_type: bytes = b"text/event-stream") -> tuple[dict[str, Any], float, Pieces]:
    """Gather a stream of these items."""
    pieces = Pieces(items, media_type)
    upstream = ScriptedUpstream({"createResponse": [pieces.reply]})
    try:
        answer, seconds = run(gather_response_stream, request_to("gatherResponseStream", upstream, QUESTION))
    finally:
        assert pieces.closed == 1
    return answer, seconds, pieces


class TestStart:
    def test_the_question_goes_to_the_background(self) -> None:
        """Fields of ours become upstream's or stay behind; the rest goes as it came."""
        upstream = ScriptedUpstream({"createResponse": [response("Done.")]})
        tools = [{"type": "file_search", "vector_store_ids": ["vs_1"]}, {"type": "web_search"}]
        start(upstream, tools=tools, reasoning_effort="low", wait_seconds=3, idempotency_key="k", max_output_tokens=99)
        assert upstream.bodies == [
            {
                **QUESTION,
                "tools": tools,
                "max_output_tokens": 99,
                "reasoning": {"effort": "low"},
                "background": True,
                "store": True,
            }
        ]

    def test_an_answer_that_is_there_comes_at_once(self) -> None:
        """A service that answers without background mode is not asked twice."""
        upstream = ScriptedUpstream({"createResponse": [response("Done.")]})
        answer, seconds = start(upstream)
        assert (answer["status"], answer["text"], seconds) == ("completed", "Done.", 0)
        assert upstream.calls == ["createResponse"]

    def test_it_asks_again_until_the_answer_is_finished(self) -> None:
        """Pauses grow from half a second to two."""
        states = [response()] * 6 + [response("Done.")]
        upstream = ScriptedUpstream({"createResponse": [response(status="queued")], "getResponse": states})
        answer, seconds = start(upstream)
        assert (answer["status"], answer["text"]) == ("completed", "Done.")
        assert upstream.paths[1:] == [f"/v1/responses/{RESPONSE_ID}"] * 7
        pauses = [later - earlier for earlier, later in zip(upstream.moments, upstream.moments[1:], strict=False)]
        assert pauses == pytest.approx([0.5, 0.75, 1.125, 1.6875, 2, 2, 2])
        assert seconds == pytest.approx(sum(pauses))

    @pytest.mark.parametrize("wait_seconds", [None, 0, 1, 7, 30])
    def test_an_answer_that_takes_long_leads_to_polling(self, wait_seconds: int | None) -> None:
        """It ends after the wait that was asked for, 30 seconds by default, and says what to call next."""
        upstream = ScriptedUpstream({"createResponse": [response(status="queued")], "getResponse": [response()]})
        answer, seconds = start(upstream, **({} if wait_seconds is None else {"wait_seconds": wait_seconds}))
        assert seconds == pytest.approx(30 if wait_seconds is None else wait_seconds)
        assert answer["status"] == ("queued" if wait_seconds == 0 else "in_progress")
        assert answer["how"] == f"Call pollResponse with response_id {RESPONSE_ID} in some seconds."

    def test_the_last_look_is_at_the_end_of_the_wait(self) -> None:
        """An answer that is finished just in time is not missed."""
        upstream = ScriptedUpstream({"createResponse": [response()], "getResponse": [response()]})
        start(upstream, wait_seconds=5)
        assert upstream.moments[-1] == pytest.approx(5)

    def test_the_wait_begins_with_the_call(self) -> None:
        """A creation that takes long leaves less time to wait."""
        pieces = Pieces([20, orjson.dumps(response(status="queued")).decode()], b"application/json")
        upstream = ScriptedUpstream({"createResponse": [pieces.reply], "getResponse": [response()]})
        _, seconds = start(upstream)
        assert seconds == pytest.approx(30)

    @pytest.mark.parametrize(
        "trouble",
        [(500, error("Broken.")), (429, error("Too much.")), UpstreamUnreachable(), UpstreamProtocolError()],
        ids=["500", "429", "unreachable", "no HTTP"],
    )
    def test_a_look_that_fails_does_not_lose_the_answer(self, trouble: Any) -> None:
        """The next look may work; if none does, the assistant still gets the id."""
        upstream = ScriptedUpstream({"createResponse": [response()], "getResponse": [trouble, response("Done.")]})
        assert start(upstream)[0]["text"] == "Done."
        upstream = ScriptedUpstream({"createResponse": [response()], "getResponse": [trouble]})
        answer, seconds = start(upstream)
        assert (answer["id"], answer["status"]) == (RESPONSE_ID, "in_progress")
        assert seconds == pytest.approx(30)

    def test_a_look_that_hangs_is_given_up(self) -> None:
        """The call ends well before its deadline with what was known."""
        upstream = ScriptedUpstream({"createResponse": [response(status="queued")], "getResponse": [SILENCE]})
        answer, seconds = start(upstream)
        assert (answer["id"], answer["status"]) == (RESPONSE_ID, "queued")
        assert seconds < DEADLINE_SECONDS - 4
        assert upstream.given_up == 1

    @pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
    def test_a_refused_question_is_refused_as_upstream_said_it(self, status: int) -> None:
        """Status and body go on as they came."""
        upstream = ScriptedUpstream({"createResponse": [(status, error("No."))]})
        with pytest.raises(UpstreamRefusal) as refusal:
            start(upstream)
        assert refusal.value.reply.status == status
        assert isinstance(refusal.value.reply.body, bytes)
        assert orjson.loads(refusal.value.reply.body) == error("No.")

    def test_an_upstream_that_says_nothing_runs_into_the_deadline(self) -> None:
        """Without an id there is nothing to hand over to."""
        upstream = ScriptedUpstream({"createResponse": [SILENCE]})
        with pytest.raises(UpstreamTimeout):
            start(upstream)
        assert upstream.given_up == 1

    @pytest.mark.parametrize("value", [[], "text", {}, {"id": "a b"}, {"status": "queued"}], ids=repr)
    def test_an_upstream_that_answers_something_else_is_at_fault(self, value: Any) -> None:
        """Without an id there is no answer."""
        with pytest.raises(UpstreamProtocolError):
            start(ScriptedUpstream({"createResponse": [value]}))


class TestPoll:
    def test_a_finished_answer_comes_at_once(self) -> None:
        """From the offset on, by one call."""
        upstream = ScriptedUpstream({"getResponse": [response("0123456789")]})
        answer, seconds = run(poll_response, request_to("pollResponse", upstream, query=b"offset=4&wait_seconds=30"))
        assert (answer["text"], answer["truncated"], seconds) == ("456789", False, 0)
        assert upstream.calls == ["getResponse"]

    @pytest.mark.parametrize("query,seconds", [(b"", 20), (b"wait_seconds=0", 0), (b"wait_seconds=30&offset=0", 30)])
    def test_a_pending_one_is_waited_for(self, query: bytes, seconds: float) -> None:
        """As long as asked, 20 seconds by default."""
        upstream = ScriptedUpstream({"getResponse": [response()]})
        answer, taken = run(poll_response, request_to("pollResponse", upstream, query=query))
        assert answer["status"] == "in_progress"
        assert taken == pytest.approx(seconds)

    def test_it_sees_the_end(self) -> None:
        """An answer that is finished meanwhile is returned as soon as a look shows it."""
        upstream = ScriptedUpstream({"getResponse": [response(), response(), response("Done.")]})
        answer, seconds = run(poll_response, request_to("pollResponse", upstream))
        assert answer["text"] == "Done."
        assert seconds == pytest.approx(1.25)

    def test_later_trouble_does_not_hide_what_was_seen(self) -> None:
        """Only the first look can fail the call."""
        upstream = ScriptedUpstream({"getResponse": [response(), (500, error("Broken."))]})
        answer, _ = run(poll_response, request_to("pollResponse", upstream))
        assert answer["status"] == "in_progress"

    def test_an_unknown_answer_is_refused_as_upstream_said_it(self) -> None:
        """A wrong id is upstream's to judge."""
        upstream = ScriptedUpstream({"getResponse": [(404, error("No such response."))]})
        with pytest.raises(UpstreamRefusal, match="404"):
            run(poll_response, request_to("pollResponse", upstream))


class TestStop:
    def test_it_answers_the_state(self) -> None:
        """What had been written so far stays readable."""
        upstream = ScriptedUpstream({"cancelResponse": [response("So far", status="cancelled")]})
        answer, _ = run(stop_response, request_to("stopResponse", upstream, {"idempotency_key": "k"}))
        assert (answer["status"], answer["text"]) == ("cancelled", "So far")
        assert "how" not in answer
        assert upstream.bodies == [None]

    @pytest.mark.parametrize("status", [400, 404, 409])
    def test_what_is_over_cannot_be_stopped_and_is_shown(self, status: int) -> None:
        """Upstream refuses; the assistant learns how it ended."""
        refusal = (status, error("Cannot cancel a completed response."))
        upstream = ScriptedUpstream({"cancelResponse": [refusal], "getResponse": [response("Done.")]})
        answer, _ = run(stop_response, request_to("stopResponse", upstream))
        assert (answer["status"], answer["text"]) == ("completed", "Done.")

    @pytest.mark.parametrize("state", [response(), (404, error("No such response.")), (500, error("Broken."))])
    def test_another_refusal_stays_one(self, state: Any) -> None:
        """When it is not over, or nobody can say, the refusal itself is the answer."""
        upstream = ScriptedUpstream(
            {"cancelResponse": [(400, error("Not in the background."))], "getResponse": [state]}
        )
        with pytest.raises(UpstreamRefusal, match="400"):
            run(stop_response, request_to("stopResponse", upstream))

    def test_trouble_of_the_upstream_is_no_state(self) -> None:
        """With 500 nobody knows whether it was stopped."""
        upstream = ScriptedUpstream({"cancelResponse": [(500, error("Broken."))]})
        with pytest.raises(UpstreamRefusal, match="500"):
            run(stop_response, request_to("stopResponse", upstream))
        assert upstream.calls == ["cancelResponse"]


class TestGather:
    def test_a_stream_becomes_an_answer(self) -> None:
        """The last event has it all; the question asks for a stream in the background."""
        pieces = Pieces(stream_of(["On ", "Friday."], response("On Friday.", usage={"total_tokens": 3})))
        upstream = ScriptedUpstream({"createResponse": [pieces.reply]})
        body = {**QUESTION, "reasoning_effort": "high", "idempotency_key": "k"}
        answer, _ = run(gather_response_stream, request_to("gatherResponseStream", upstream, body))
        assert (answer["status"], answer["text"], answer["usage"]) == ("completed", "On Friday.", {"total_tokens": 3})
        assert upstream.bodies == [
            {**QUESTION, "reasoning": {"effort": "high"}, "background": True, "store": True, "stream": True}
        ]
        assert pieces.closed == 1

    def test_nothing_is_read_behind_the_last_event(self) -> None:
        """A stream that stays open does not keep the assistant waiting."""
        _, seconds, _ = gather(*stream_of(["x"], response("x")), 3_600)
        assert seconds == 0

    @pytest.mark.parametrize(
        "tail",
        [[3_600], [1, ": still here\n\n"] * 1_000, [item for _ in range(1_000) for item in (1, delta("x"))]],
        ids=["stalls", "keeps alive", "trickles"],
    )
    def test_when_time_is_up_it_hands_over(self, tail: list[Any]) -> None:
        """The answer so far comes well before the deadline, with the place at which to go on."""
        answer, seconds, _ = gather(*stream_of(["On ", "Fri"]), *tail)
        assert seconds == pytest.approx(GATHER_SECONDS)
        assert answer["status"] == "in_progress"
        assert answer["text"].rstrip("x") == "On Fri"
        assert answer["next"] == len(answer["text"])
        assert answer["how"] == (
            f"Call pollResponse with response_id {RESPONSE_ID} and offset {answer['next']} in some seconds."
        )

    @pytest.mark.parametrize(
        "end",
        [[UpstreamProtocolError()], [UpstreamTimeout()], [], ["data: [DONE]\n\n"], ["event: x\ndata: {"]],
        ids=["breaks", "silent too long", "ends", "is done", "in mid-event"],
    )
    def test_a_stream_that_breaks_hands_over(self, end: list[Any]) -> None:
        """The model works on, so the answer is in progress."""
        answer, seconds, _ = gather(*stream_of(["On ", "Fri"]), *end)
        assert (answer["status"], answer["text"], seconds) == ("in_progress", "On Fri", 0)

    def test_too_long_an_event_hands_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory stays bounded, and what has come counts."""
        monkeypatch.setattr(response_wrappers, "MAX_EVENT_BYTES", 1_000)
        answer, _, _ = gather(*stream_of(["On "]), "data: " + "x" * 2_000)
        assert (answer["status"], answer["text"]) == ("in_progress", "On ")

    def test_too_long_a_stream_hands_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Deltas without end do not fill the memory either."""
        monkeypatch.setattr(response_wrappers, "MAX_ANSWER_BYTES", 10_000)
        answer, _, _ = gather(*stream_of([]), *[delta("x" * 100)] * 1_000)
        assert answer["status"] == "in_progress"
        assert 4_000 < len(answer["text"]) < 10_000

    @pytest.mark.parametrize("garbage", ["\x00\ufffd\n\n", "<html></html>\n\n", "data: {]\n\n", ":\n\n", "data: 1\n\n"])
    def test_garbage_in_between_is_passed_over(self, garbage: str) -> None:
        """It takes nothing away from the events around it."""
        events = [item for found in stream_of(["On ", "Friday."]) for item in (garbage, found)]
        answer, _, _ = gather(*events)
        assert answer["text"] == "On Friday."

    @pytest.mark.parametrize("items", [[], ["garbage\n\n"], [delta("x")], [event("response.created", response={})]])
    def test_a_stream_that_names_no_answer_is_upstreams_mistake(self, items: list[Any]) -> None:
        """There is nothing that could be asked for later."""
        with pytest.raises(UpstreamProtocolError):
            gather(*items)

    @pytest.mark.parametrize("trouble", [UpstreamProtocolError, UpstreamTimeout])
    def test_trouble_before_the_first_event_is_told(self, trouble: type[Exception]) -> None:
        """As for any other call."""
        with pytest.raises(trouble):
            gather(trouble())

    def test_silence_before_the_first_event_is_told(self) -> None:
        """In time, and that the call may have worked."""
        with pytest.raises(UpstreamTimeout, match="may have worked"):
            gather(3_600)

    @pytest.mark.parametrize("status", ["failed", "incomplete", "cancelled"])
    def test_a_bad_end_is_told(self, status: str) -> None:
        """The last event decides."""
        final = response("So far", status=status, error={"message": "Broken."}, incomplete_details={"reason": "limit"})
        answer, _, _ = gather(*stream_of(["So "], final))
        told = {"failed": "Broken.", "incomplete": "The answer ended early: limit."}.get(status)
        assert (answer["status"], answer["text"], answer.get("error")) == (status, "So far", told)

    def test_an_error_in_the_stream_fails_the_answer(self) -> None:
        """With upstream's reason."""
        answer, _, _ = gather(*stream_of(["On "]), event("error", message="Too much.", code="x"))
        assert (answer["status"], answer["error"], answer["text"]) == ("failed", "Too much.", "On ")

    @pytest.mark.parametrize("found", [{"message": "No.", "type": "x", "param": None, "code": "y"}, {"message": "No."}])
    def test_an_error_instead_of_a_stream_is_passed_on(self, found: dict[str, Any]) -> None:
        """It looks like other errors of the upstream."""
        with pytest.raises(UpstreamRefusal, match="502") as refusal:
            gather(event("error", error=found))
        assert isinstance(refusal.value.reply.body, bytes)
        assert orjson.loads(refusal.value.reply.body) == {"error": {"type": None, "param": None, "code": None, **found}}

    @pytest.mark.parametrize("named", [[], stream_of(["On "])], ids=["before an id", "after it"])
    def test_an_error_in_the_stream_that_repeats_the_relays_key_is_withheld(self, named: list[str]) -> None:
        """Whether or not the answer has begun, nothing of it is passed on."""
        with pytest.raises(UpstreamErrorWithheld):
            gather(*named, event("error", message=f"Incorrect key: {MADE_UP_KEY.decode()}."))

    def test_a_failed_state_that_repeats_the_relays_key_is_withheld(self) -> None:
        """Waiting does not take it for a look that failed."""
        failed = response(status="failed", error={"message": f"Incorrect key: {MADE_UP_KEY.decode()}."})
        with pytest.raises(UpstreamErrorWithheld):
            start(ScriptedUpstream({"createResponse": [response()], "getResponse": [failed]}))

    def test_a_service_that_does_not_stream_is_understood(self) -> None:
        """Its JSON is the answer, finished or not."""
        answer, _, _ = gather(orjson.dumps(response("Done.")), media_type=b"application/json")
        assert (answer["status"], answer["text"]) == ("completed", "Done.")
        answer, _, _ = gather(orjson.dumps(response()), media_type=b"application/json")
        assert answer["status"] == "in_progress"

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b'{"id":"a","id":"b"}'])
    def test_neither_events_nor_json_is_upstreams_mistake(self, body: bytes) -> None:
        """A page of some proxy is no answer."""
        with pytest.raises(UpstreamProtocolError, match="neither events nor"):
            gather(body, media_type=b"text/html")

    @pytest.mark.parametrize("status", [400, 429, 500])
    def test_a_refused_question_is_refused_as_upstream_said_it(self, status: int) -> None:
        """Status and body go on as they came."""
        upstream = ScriptedUpstream({"createResponse": [(status, error("No."))]})
        with pytest.raises(UpstreamRefusal, match=str(status)):
            run(gather_response_stream, request_to("gatherResponseStream", upstream, QUESTION))


@pytest.mark.parametrize("items", [[3_600], [*stream_of(["On "]), 3_600]], ids=["before events", "in mid-stream"])
async def test_a_caller_that_leaves_takes_the_stream_along(items: list[Any]) -> None:
    """Cancelled work closes the upstream's answer."""
    pieces = Pieces(items)
    upstream = ScriptedUpstream({"createResponse": [pieces.reply]})
    work = asyncio.ensure_future(gather_response_stream(request_to("gatherResponseStream", upstream, QUESTION)))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert pieces.closed == 1


async def test_a_caller_that_leaves_takes_the_waiting_along() -> None:
    """Cancelled work gives up the look that it was having."""
    upstream = ScriptedUpstream({"getResponse": [SILENCE]})
    work = asyncio.ensure_future(poll_response(request_to("pollResponse", upstream)))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert upstream.given_up == 1
