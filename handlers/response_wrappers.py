"""
Operations of the tag Response wrappers: answers of models for assistants that can neither wait nor read a stream.

They stand on upstream's background mode: the model works on, whoever waits or leaves. What an `Answer` says is made in
`handlers.runtime.answers`.
"""

import asyncio
from contextlib import aclosing
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from codegen.contract import EVENT_STREAM
from handlers.responses import UPSTREAM_OPERATION as CREATE_OPERATION
from handlers.runtime.answers import id_of, is_over, status_of, to_answer
from handlers.runtime.event_streams import read_events
from handlers.runtime.exceptions import (
    UpstreamError,
    UpstreamErrorWithheld,
    UpstreamTimeout,
)
from handlers.runtime.gathered_responses import GatheredResponse
from handlers.runtime.headers import has_events
from handlers.runtime.messages import Reply, Request
from handlers.runtime.wrapped_calls import MAX_ANSWER_BYTES, UpstreamRefusal, call, call_json, read_json

GET_OPERATION = "getResponse"

# The call itself may take 38 seconds (`handlers.runtime.budget`).
DEFAULT_START_WAIT_SECONDS = 30
DEFAULT_POLL_WAIT_SECONDS = 20
GATHER_SECONDS = 30.0
# A look at the state usually takes 0.1 seconds; one that hangs must not take the known state with it.
GRACE_SECONDS = 3.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.0
# The last event holds the whole response once more.
MAX_EVENT_BYTES = 16 * 2**20

_TOO_LATE = f"The upstream did not begin to answer within {GATHER_SECONDS:g} seconds. The call may have worked."
_NEITHER = "The upstream answered neither events nor a JSON object; try again later."
_NOT_UPSTREAMS = frozenset({"reasoning_effort", "wait_seconds", "idempotency_key"})


async def start_response(request: Request) -> Reply:
    """
    Ask a model and wait a while for its answer.

    Args:
        request: Its body is a validated `StartResponseRequest`.

    Returns:
        `Answer`, finished or not.

    Raises:
        UpstreamRefusal: The upstream refused the question.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `startResponse`, wrapping upstream `createResponse`.
    """
    end = _now() + request.body.get("wait_seconds", DEFAULT_START_WAIT_SECONDS)
    created = await call_json(request, CREATE_OPERATION, body=_question(request.body))
    return Reply.json(to_answer(await _wait(request, created, end)))


async def gather_response_stream(request: Request) -> Reply:
    """
    Ask a model and gather its answer while it is written, as far as it comes in time.

    Args:
        request: Its body is a validated `GatherResponseRequest`.

    Returns:
        `Answer`. When time runs out or the stream breaks, it holds what has come, and the model works on.

    Raises:
        UpstreamRefusal: The upstream refused the question.
        UpstreamError: It did not answer as it should, and nobody knows under which id to ask again (502, 504).

    Source: operation `gatherResponseStream`, wrapping `createResponseStream`.
    """
    gathered = GatheredResponse()
    try:
        async with asyncio.timeout(GATHER_SECONDS):
            await _gather(request, gathered)
    except (TimeoutError, UpstreamError) as error:
        if isinstance(error, UpstreamErrorWithheld):
            raise
        if not gathered.named:
            raise UpstreamTimeout(_TOO_LATE) if isinstance(error, TimeoutError) else error from None
    if gathered.error is not None and not gathered.named:
        # It came before the response had an id; passed on as other errors of the upstream.
        fields = {name: gathered.error.get(name) for name in ("message", "type", "param", "code")}
        raise UpstreamRefusal(Reply.json({"error": fields}, status=HTTPStatus.BAD_GATEWAY))
    return Reply.json(to_answer(gathered.response))


async def poll_response(request: Request) -> Reply:
    """
    Look whether an answer is finished, and wait a while for that.

    Args:
        request: Its query has a validated `wait_seconds` and `offset`.

    Returns:
        `Answer`, its text from `offset` on.

    Raises:
        UpstreamRefusal: The upstream does not know the answer, or does not want to be asked.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `pollResponse`, wrapping upstream `getResponse`.
    """
    query = parse_qs(request.query.decode("ascii"))
    end = _now() + int(query.get("wait_seconds", [DEFAULT_POLL_WAIT_SECONDS])[-1])
    response = await call_json(request, GET_OPERATION, path_params=request.path_params)
    response = await _wait(request, response, end)
    return Reply.json(to_answer(response, int(query.get("offset", [0])[-1])))


async def stop_response(request: Request) -> Reply:
    """
    Stop an answer; one that is over stays as it is.

    Args:
        request: Its body is a validated `StopRequest`, or absent.

    Returns:
        `Answer` as it is now.

    Raises:
        UpstreamRefusal: The upstream does not know the answer or cannot stop it.
        UpstreamError: It did not answer as it should (502, 504).

    Source: operation `stopResponse`, wrapping upstream `cancelResponse`.
    """
    try:
        response = await call_json(request, request.operation.wraps[0], path_params=request.path_params)
    except UpstreamRefusal as refusal:
        if refusal.reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        # Upstream refuses to stop what is over. The caller wanted it to be over, and now wants to know how it ended.
        state = await _state(request, request.path_params["response_id"])
        if state is None or not is_over(state):
            raise
        response = state
    return Reply.json(to_answer(response))


def _question(body: dict[str, Any]) -> dict[str, Any]:
    """The body of `createResponse`."""
    question = {name: value for name, value in body.items() if name not in _NOT_UPSTREAMS}
    if "reasoning_effort" in body:
        question["reasoning"] = {"effort": body["reasoning_effort"]}
    return {**question, "background": True, "store": True}


async def _wait(request: Request, response: dict[str, Any], end: float) -> dict[str, Any]:
    """
    Ask for a response again and again until it is over or time is.

    Args:
        response: What is known of it. A look that fails does not lose it.
        end: By the loop's clock.
    """
    response_id = id_of(response)
    pause = FIRST_PAUSE_SECONDS
    while not is_over(response) and _now() < end:
        request.progress.text = f"the answer is {status_of(response)}"
        await asyncio.sleep(min(pause, end - _now()))
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        try:
            async with asyncio.timeout_at(end + GRACE_SECONDS):
                response = await _state(request, response_id) or response
        except TimeoutError:
            break
    return response


async def _state(request: Request, response_id: str) -> dict[str, Any] | None:
    """The response as it is now; `None` when it cannot be had."""
    try:
        return await call_json(request, GET_OPERATION, path_params={"response_id": response_id})
    except UpstreamErrorWithheld:
        raise
    except (UpstreamRefusal, UpstreamError):
        return None


async def _gather(request: Request, gathered: GatheredResponse) -> None:
    """Create a response and read its stream into `gathered`, until one of them is over."""
    reply = await call(
        request,
        CREATE_OPERATION,
        body={**_question(request.body), "stream": True},
        headers=((b"accept", EVENT_STREAM.encode()),),
    )
    if isinstance(reply.body, bytes) or not has_events(reply.headers):
        gathered.take_whole(await read_json(request, reply, _NEITHER))  # some compatible services stream nothing
        return
    try:
        size = 0
        async with aclosing(read_events(reply.body, max_event_bytes=MAX_EVENT_BYTES)) as events:
            async for event in events:
                request.services.upstream.check_echo(event.data)
                gathered.take(event)
                request.progress.text = f"{gathered.characters:,} characters so far"
                size += len(event.data)
                if gathered.over or size > MAX_ANSWER_BYTES:
                    return
    finally:
        if reply.close is not None:
            await reply.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
