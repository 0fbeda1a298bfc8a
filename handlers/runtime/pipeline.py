"""
Runs one request: match, authenticate, authorise, validate, call the bound function, send its reply.

The middleware that Connexion is given. Nothing here looks at the URL after the match.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT, RoutedAPI, RoutedMiddleware, SpecMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.types import ASGIApp, Receive, Scope, Send

from codegen.contract import JSON, METHODS
from handlers.runtime.access import Caller, authorise, authorise_streaming, bearer_token
from handlers.runtime.addresses import narrow
from handlers.runtime.admission import PROBES, SURPLUS, Admitted
from handlers.runtime.budget import MAX_REPLY_CHARACTERS, deadline, fit_reply, for_assistant, way_out
from handlers.runtime.connection import Connection
from handlers.runtime.cors import Cors
from handlers.runtime.exceptions import (
    AuthError,
    InvalidKey,
    InvalidParameter,
    MethodNotAllowed,
    PayloadTooLarge,
    UnknownOperation,
    UpstreamTimeout,
)
from handlers.runtime.idempotency import has_key, takes_key
from handlers.runtime.local_calls import INSIDE, Inside
from handlers.runtime.matching import Match, OperationIndex
from handlers.runtime.messages import Header, Progress, Reply, Request
from handlers.runtime.routes import Route
from handlers.runtime.services import Services
from handlers.runtime.wrapped_calls import UpstreamRefusal

CONNECTION = "relay.connection"
MATCH = "relay.match"


class ContractRouter(SpecMiddleware):
    """
    Finds the operation of a request through the index and leaves it in the scope for Connexion.

    Takes the place of Connexion's routing middleware, which tries one pattern after the other.
    """

    def __init__(self, app: ASGIApp, index: OperationIndex[Route], sockets: ASGIApp, cors: Cors | None = None) -> None:
        self.app = app
        self._index = index
        self._sockets = sockets
        self._cors = cors
        self._base_path = ""

    def add_api(self, specification: Specification, *, base_path: str | None = None, **_: Any) -> None:
        """Learn under which base path Connexion keeps the operations."""
        self._base_path = base_path if base_path is not None else specification.base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Match and pass on.

        Raises:
            UnknownOperation: No path fits (404).
            MethodNotAllowed: The path has other methods; they stand in `Allow` (405).
        """
        if scope["type"] != "http":
            await (self._sockets if scope["type"] == "websocket" else self.app)(scope, receive, send)
            return
        match = self._index.match(scope["raw_path"].decode("latin-1"))
        if self._cors is not None:
            scope[CONNECTION].extra_headers += self._cors.reply_headers(scope["headers"], match)
        if match is None:
            raise UnknownOperation
        method = scope["method"]
        route = match.methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allow = ("allow", ", ".join(_allowed(match)))
            if method != "OPTIONS":
                raise MethodNotAllowed(headers=[allow])
            connection: Connection = scope[CONNECTION]
            headers = [(b"allow", allow[1].encode())]
            if self._cors is not None:
                headers += self._cors.preflight_headers(scope["headers"], match, _allowed(match))
            await connection.send(Reply(204, headers))
            return
        scope[MATCH] = match
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = {
            "api_base_path": self._base_path,
            "operation_id": route.operation.id,
        }
        await self.app(scope, receive, send)


class BoundOperation:
    """
    Runs the requests of one route.

    Args:
        route: From the services.
    """

    def __init__(self, route: Route, services: Services) -> None:
        self._route = route
        self._services = services
        self._max_json_bytes = services.settings.RELAY_MAX_JSON_BYTES
        self._max_upload_bytes = services.settings.RELAY_MAX_UPLOAD_BYTES
        self._time_limit = services.time_limit
        self._way_out = way_out(route.operation)
        self._takes_key = takes_key(route.operation, services.contract.document)
        self._counts = services.counts.of(route.operation.id, route.operation.bucket.value)
        self._admission = None if route.operation.id in PROBES else services.admission
        # Tools tell of their progress by themselves.
        self._keep_alive_seconds = (
            services.settings.RELAY_SSE_KEEPALIVE_SECONDS
            if route.operation.streaming and route.operation.carries is None
            else 0
        )

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """
        Authenticate, authorise, validate, call the function, send its reply.

        Raises:
            RelayError: The first of these that fails.
        """
        connection: Connection = scope[CONNECTION]
        connection.extra_headers += self._route.lifecycle_headers
        connection.log["operation"] = self._counts.operation
        connection.log["bucket"] = self._counts.bucket
        connection.observation.counts = self._counts
        admitted: Admitted | None = None
        if self._admission is not None and INSIDE not in scope:
            admitted = self._admission.enter(surplus=SURPLUS in scope)
            connection.keep_alive_seconds = self._keep_alive_seconds
        try:
            with self._time_limit.block():
                began = asyncio.get_running_loop().time()
                reply = await self._answer(await self._admit(scope, connection, admitted), began)
                try:
                    await connection.send(reply)
                finally:
                    if reply.close is not None:
                        await reply.close()
        except TimeoutError:
            raise UpstreamTimeout from None
        finally:
            if admitted is not None:
                admitted.leave()

    async def _answer(self, request: Request, began: float) -> Reply:
        """The function's reply: within the budget of an assistant, and once where the caller asks for that."""
        budgeted = for_assistant(request)
        work: Callable[[], Awaitable[Reply]] = partial(self._fitting if budgeted else self._work, request)
        how = self._way_out
        if self._takes_key and has_key(request):
            work = partial(self._services.idempotency.run, request, work)
            how = replace(how, late="The work goes on; call again with the same `idempotency_key` to get its reply.")
        if not budgeted:
            return await work()
        async with deadline(how, began):
            return await work()

    async def _fitting(self, request: Request) -> Reply:
        return await fit_reply(await self._work(request), MAX_REPLY_CHARACTERS, self._way_out)

    async def _work(self, request: Request) -> Reply:
        try:
            return await self._route.function(request)
        except UpstreamRefusal as refusal:
            return refusal.reply

    async def _admit(self, scope: Scope, connection: Connection, admitted: Admitted | None) -> Request:
        operation = self._route.operation
        validator = self._route.validator
        match: Match[Route] = scope[MATCH]
        headers: list[Header] = scope["headers"]
        inside: Inside | None = scope.get(INSIDE)
        if inside is not None:
            connection.log["within"] = inside.request_id
        caller = None
        if operation.scopes:
            caller = await self._authorised(scope, inside, connection)
            if admitted is not None:
                admitted.count_for(caller.key_id)
        validator.check_path(match.path_params)
        query = validator.check_query(scope["query_string"])
        request = Request(
            id=connection.request_id,
            operation=operation,
            path=match.path,
            path_params=match.path_params,
            query=scope["query_string"],
            headers=headers,
            caller=caller,
            services=self._services,
            log=connection.log,
            reply_headers=connection.extra_headers,
            progress=inside.progress if inside is not None else Progress(),
        )
        media_type = validator.media_type(headers)
        if media_type == JSON:
            _content_length(headers, self._max_json_bytes)
            request.raw_body = await connection.read_body(self._max_json_bytes)
            request.body = validator.parse_json(request.raw_body)
        elif media_type is not None:
            request.content_length = _content_length(headers, self._max_upload_bytes)
            request.content = connection.stream_body(self._max_upload_bytes)
        else:
            connection.watch()
        if operation.streaming:
            body = request.body if isinstance(request.body, dict) else {}
            wanted = body.get("stream") is True or "true" in query.get("stream", ())
            authorise_streaming(operation, caller, wanted=wanted)
        return request

    async def _authorised(self, scope: Scope, inside: Inside | None, connection: Connection) -> Caller:
        """Who calls, if they may; where access tokens are taken, a refusal says who issues them."""
        operation = self._route.operation
        headers: list[Header] = scope["headers"]
        # A call from inside brings a caller who has been narrowed to what the address of the outer request opens.
        rules = self._services.addresses if inside is None else None
        opened = rules.check_address(scope, operation) if rules is not None else None
        tokens = self._services.tokens if operation.token_scopes else None
        try:
            caller = inside.caller if inside is not None else None
            if caller is None:
                try:
                    caller = self._services.keys.authenticate(headers)
                except InvalidKey:
                    if tokens is None:
                        raise
                    caller = await tokens.verify(bearer_token(headers))
            connection.log["key"] = caller.key_id
            authorise(operation, caller)
        except AuthError as error:
            if tokens is None:
                raise
            raise type(error)(error.message, headers=[("WWW-Authenticate", tokens.challenge(error))]) from None
        return caller if opened is None else narrow(caller, opened, operation)


class BoundAPI(RoutedAPI[BoundOperation]):
    """Connexion's registry of bound operations, one object per operation."""

    def __init__(self, specification: Specification, *, services: Services, **options: Any) -> None:
        super().__init__(specification, **options)
        self._services = services
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> BoundOperation:
        """Build the object that runs an operation."""
        return BoundOperation(self._services.routes[operation.operation_id], self._services)


class BoundOperations(RoutedMiddleware[BoundAPI]):
    """The last step: hands the request to the object of its operation."""

    api_cls = BoundAPI

    def __init__(self, app: ASGIApp, services: Services) -> None:
        super().__init__(app)
        self._services = services

    def add_api(self, specification: Specification, **options: Any) -> BoundAPI:
        """Build all operations of the contract."""
        api: BoundAPI = super().add_api(specification, services=self._services, **options)
        return api


def _allowed(match: Match[Route]) -> list[str]:
    methods = {method.lower() for method in match.methods}
    allowed = [method.upper() for method in METHODS if method in methods]
    if "GET" in allowed:
        allowed.insert(allowed.index("GET") + 1, "HEAD")
    return [*allowed, "OPTIONS"]


def _content_length(headers: list[Header], limit_bytes: int) -> int | None:
    """The announced length; refused before a byte is read when it exceeds the limit."""
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit():
                raise InvalidParameter("`Content-Length` must be a decimal number.", param="Content-Length")
            if int(value) > limit_bytes:
                raise PayloadTooLarge(f"The body must be at most {limit_bytes} bytes.")
            return int(value)
    return None
