"""`contract coverage --url` against a running relay, and against servers that are none."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from codegen import running_relay as asking
from codegen.contract import Scope
from codegen.coverage import coverage
from codegen.coverage_report import Gap
from codegen.running_relay import HEALTH_OPERATION, KEY_VARIABLE, ROUTES_OPERATION, Route
from tests.codegen.test_cli import run
from tests.support.covered_checkout import CONTRACT, write_covered_checkout
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

KEY = "rk_canary-operator-0123456789"
HEALTH = CONTRACT.operations[HEALTH_OPERATION].path
ROUTES = CONTRACT.operations[ROUTES_OPERATION].path
Ask = Callable[..., tuple[int, str, str]]
Answer = tuple[int, bytes]


@dataclass(frozen=True)
class OperatedRelay:
    """A relay with a key that has the scope `operator` and one that lacks it."""

    relay: RelayProcess
    operator: MadeKey
    other: MadeKey


@dataclass
class FakeRelay:
    """
    Answers what it is told to, and remembers who asked with which key.

    Args:
        answers: Path to status and body; a path that is missing gets silence.
        headers: Of every answer.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        self.asked.append((scope["path"], dict(scope["headers"]).get(b"authorization", b"").decode()))
        if scope["path"] not in self.answers:
            await _gone(receive)
            return
        status, body = self.answers[scope["path"]]
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": body})


async def _gone(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    async with asyncio.timeout(10):
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which everything is covered, whatever the table of evidence says at the moment."""
    return write_covered_checkout(tmp_path_factory.mktemp("covered"))


@pytest.fixture(scope="module")
def operated(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedRelay]:
    """A relay whose operator may ask it for its routes."""
    folder = tmp_path_factory.mktemp("operated")
    operator, other = make_key("operator", Scope.OPERATOR), make_key("other", Scope.CANONICAL)
    write_keys(folder / "keys.yaml", [operator, other])
    with running_relay(folder, upstream_server.url, {"RELAY_KEY_FILE": str(folder / "keys.yaml")}) as relay:
        yield OperatedRelay(relay, operator, other)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkout: Path) -> Ask:
    """Runs `contract coverage` in the checkout: exit code, output, complaints. The key is in neither."""

    def asked(*arguments: str, key: str = KEY) -> tuple[int, str, str]:
        monkeypatch.setenv(KEY_VARIABLE, key)
        code = run(monkeypatch, checkout, "coverage", *arguments)
        shown = capsys.readouterr()
        assert not key or key not in shown.out + shown.err
        return code, shown.out, shown.err

    return asked


@pytest.fixture(scope="module")
def fake_server() -> Iterator[tuple[FakeRelay, str]]:
    """A server that answers what a test tells it to, and its address."""
    app = FakeRelay()
    with ServerThread(app) as server:
        yield app, server.url


@pytest.fixture
def fake(fake_server: tuple[FakeRelay, str], checkout: Path) -> tuple[FakeRelay, str]:
    """The same, answering as a relay of the checkout does."""
    app, url = fake_server
    app.headers.clear()
    app.asked.clear()
    app.answers = {HEALTH: (200, b'{"status": "ok", "version": "9.8.7"}')}
    answer_routes(app, routes_of(checkout))
    return app, url


def routes_of(checkout: Path) -> list[Route]:
    """The routes that a relay of the checkout binds."""
    return [Route(row.method, row.path, row.operation_id, row.function) for row in coverage(checkout).rows]


def answer_routes(app: FakeRelay, routes: list[Route]) -> None:
    """Let the fake answer a list of routes."""
    names = ("method", "path", "operation_id", "function")
    data = [dict(zip(names, astuple(route), strict=True)) for route in routes]
    app.answers[ROUTES] = (200, orjson.dumps({"object": "list", "data": data}))


def test_a_running_relay_has_bound_what_the_checkout_says(operated: OperatedRelay, ask: Ask) -> None:
    """Every route, with its function: no problem, and the report names the relay and its version."""
    code, shown, complaints = ask("--url", f"{operated.relay.url}/", key=operated.operator.text)
    assert (code, complaints) == (0, ""), shown
    assert f"Relay at `{operated.relay.url}`: contract `{CONTRACT.version}`." in shown


def test_a_key_without_the_scope_is_told_which_one_it_takes(operated: OperatedRelay, ask: Ask) -> None:
    """403 and 401 name the variable and the command that makes a key."""
    for key in (operated.other.text, KEY):
        code, shown, complaints = ask("--url", operated.relay.url, key=key)
        assert (code, shown) == (3, "")
        assert KEY_VARIABLE in complaints
        assert "`relay keys create --scope operator`" in complaints


def test_a_route_that_nobody_declared_is_a_problem(fake: tuple[FakeRelay, str], checkout: Path, ask: Ask) -> None:
    """It gets a row of its own; its texts cannot leave their cells."""
    app, url = fake
    answer_routes(app, [*routes_of(checkout), Route("GET", "/v1/back|door", "back`door", "handlers.x.y\n")])
    code, shown, _ = ask("--url", url)
    assert code == 2
    assert shown.splitlines()[-1].startswith(f"- {Gap.UNDECLARED_ROUTE}: GET /v1/back|door: ")
    assert "| `GET /v1/back?door`" in shown
    assert "contract `9.8.7`" in shown
    assert "1 problem." in shown


def test_a_declared_operation_that_is_not_bound_is_a_problem(
    fake: tuple[FakeRelay, str], checkout: Path, ask: Ask
) -> None:
    """The operation is named once."""
    app, url = fake
    missing, *rest = routes_of(checkout)
    answer_routes(app, rest)
    code, shown, _ = ask("--url", url)
    assert code == 2
    assert shown.splitlines()[-1].startswith(f"- {Gap.UNBOUND_OPERATION}: {missing.method} {missing.path}: ")
    assert "1 problem." in shown


@pytest.mark.parametrize("changes", [{"function": "handlers.x.y"}, {"operation_id": "retrieveOther"}], ids=str)
def test_another_function_than_the_checkouts_is_a_problem(
    changes: dict[str, str], fake: tuple[FakeRelay, str], checkout: Path, ask: Ask
) -> None:
    """Also when the place is bound under another operationId."""
    app, url = fake
    changed, *rest = routes_of(checkout)
    other = Route(**{"method": changed.method, "path": changed.path, "operation_id": changed.operation_id,
                     "function": changed.function} | changes)  # fmt: skip
    answer_routes(app, [other, *rest])
    code, shown, _ = ask("--url", url)
    assert code == 2
    assert shown.splitlines()[-1].startswith(f"- {Gap.OTHER_FUNCTION}: {changed.method} {changed.path}: ")
    assert next(iter(changes.values())) in shown.splitlines()[-1]
    assert "1 problem." in shown


BAD_ROUTES: dict[str, tuple[Answer, str]] = {
    "no JSON": ((200, b"<html>"), "must answer JSON"),
    "no list": ((200, b"[]"), "must answer a `RouteList`"),
    "no data": ((200, b'{"object": "list"}'), "must answer a `RouteList`"),
    "a field missing": ((200, b'{"data": [{"method": "GET"}]}'), "must answer a `RouteList`"),
    "a field that is no text": (
        (200, b'{"data": [{"method": "GET", "path": 1, "operation_id": "a", "function": "b"}]}'),
        "must answer a `RouteList`",
    ),
    "the key": (
        (200, orjson.dumps({"data": [{"method": "GET", "path": "/", "operation_id": "a", "function": KEY}]})),
        "without repeating the key",
    ),
    "refused key": ((401, b"{}"), KEY_VARIABLE),
    "other scope": ((403, b"{}"), "lacks the scope `operator`"),
    "not there": ((404, b"{}"), "answers 404"),
    "redirect": ((302, b""), "answers with a redirect (302), which is not followed"),
    "too much": ((200, b" " * (asking.MAX_BYTES + 1)), f"more than {asking.MAX_BYTES} bytes"),
}


@pytest.mark.parametrize("answer, expected", BAD_ROUTES.values(), ids=BAD_ROUTES.keys())
def test_what_is_no_list_of_routes_ends_with_a_clear_error(
    answer: Answer, expected: str, fake: tuple[FakeRelay, str], ask: Ask
) -> None:
    """Exit code 3, one line, no table; a redirect is not followed, so the key goes nowhere else."""
    app, url = fake
    app.answers[ROUTES] = answer
    app.headers.append((b"location", f"{url}/elsewhere".encode()))
    code, shown, complaints = ask("--url", url)
    assert (code, shown) == (3, "")
    assert len(complaints.splitlines()) == 1
    assert expected in complaints
    assert app.asked == [(HEALTH, ""), (ROUTES, f"Bearer {KEY}")]


@pytest.mark.parametrize("body", [b"[]", b'{"status": "ok"}', b'{"version": 1}'], ids=str)
def test_what_has_no_version_never_sees_the_key(body: bytes, fake: tuple[FakeRelay, str], ask: Ask) -> None:
    """Health is asked first, without the key; what answers it wrongly is no relay."""
    app, url = fake
    app.answers[HEALTH] = (200, body)
    code, _, complaints = ask("--url", url)
    assert code == 3
    assert "must answer a version" in complaints
    assert app.asked == [(HEALTH, "")]


def test_silence_ends_in_time(monkeypatch: pytest.MonkeyPatch, fake: tuple[FakeRelay, str], ask: Ask) -> None:
    """A server that accepts and says nothing is given up."""
    app, url = fake
    monkeypatch.setattr(asking, "TIMEOUT_SECONDS", 0.3)
    del app.answers[ROUTES]
    code, shown, complaints = ask("--url", url)
    assert (code, shown) == (3, "")
    assert "does not answer within 0.3 seconds" in complaints


def test_nobody_there_is_said(ask: Ask) -> None:
    """An address where nothing listens is named."""
    with ServerThread(FakeRelay()) as server:
        url = server.url
    code, _, complaints = ask("--url", url)
    assert code == 3
    assert f"{url}{HEALTH}: cannot be asked" in complaints


def test_without_a_key_nobody_is_asked(fake: tuple[FakeRelay, str], ask: Ask) -> None:
    """The variable is named, and how to make a key; the server hears nothing."""
    app, url = fake
    code, _, complaints = ask("--url", url, key="")
    assert code == 3
    assert complaints.startswith(f"{KEY_VARIABLE}: must be set")
    assert "`relay keys create --scope operator`" in complaints
    assert app.asked == []
