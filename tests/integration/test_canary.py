"""Neither the relay's key nor the upstream's ever shows in what the relay prints, logs or replies."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
import pytest

from codegen.contract import FULL, Scope, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.settings import LogFormat
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.bad_days import DEFECTIVE_PATH, defect_environment
from tests.support.contract_requests import contract_requests
from tests.support.key_files import make_key, write_keys
from tests.support.raw_http import RawConnection
from tests.support.servers import RELAY_KEY, UPSTREAM_KEY, RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
RESPONSE = {"model": "m", "input": "x"}
ORGANISATION = "org-canary-team"
# Also the part that makes a key a secret, and the form in which the relay keeps it.
SECRETS = [form for key in (RELAY_KEY, UPSTREAM_KEY) for form in (key, key[-32:], sha256(key.encode()).hexdigest())]


@dataclass
class Witness:
    """
    A relay with a defect, and everything that it has said to its clients.

    Args:
        replies: Status, headers and decoded body of each reply.
    """

    relay: RelayProcess
    upstream: SimulatedUpstream
    client: httpx.Client
    replies: list[str] = field(default_factory=list)

    def ask(self, method: str, target: str, **options: Any) -> None:
        """Send a request and note down the reply, however far it comes."""
        try:
            reply = self.client.request(method, target, **options)
        except httpx.TransportError as error:
            self.replies.append(repr(error))
        else:
            self.replies.append(f"{reply.status_code} {reply.headers.raw!r} {reply.text}")


OPERATOR = make_key("operator", Scope.OPERATOR)


@pytest.fixture(scope="module", params=LogFormat)
def relay_with_defect(
    request: pytest.FixtureRequest, upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RelayProcess]:
    """A relay that logs in each format in turn; its very last words are looked at as well."""
    folder = tmp_path_factory.mktemp("canary")
    write_keys(folder / "keys.yaml", [OPERATOR])
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        **defect_environment(folder),
        "OPENAI_ORG_ID": ORGANISATION,
        "RELAY_LOG_FORMAT": request.param,
        "RELAY_IDLE_TIMEOUT_SECONDS": "0.5",
        "RELAY_MAX_JSON_BYTES": "100000",
    }
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield relay
        before = len(relay.printed())
    assert_silent_about_keys(relay.printed()[before:])


@pytest.fixture
def witness(relay_with_defect: RelayProcess, upstream: SimulatedUpstream) -> Iterator[Witness]:
    """The relay, watched from now on."""
    before = len(relay_with_defect.printed())
    headers = relay_with_defect.headers
    with httpx.Client(base_url=relay_with_defect.url, headers=headers, timeout=10) as client:
        witness = Witness(relay_with_defect, upstream, client)
        yield witness
    assert witness.replies
    for reply in witness.replies:
        assert_silent_about_keys(reply)
        assert ORGANISATION not in reply
    printed = relay_with_defect.printed()[before:]
    assert "request" in printed, "the relay logs its requests"
    assert_silent_about_keys(printed)


def assert_silent_about_keys(text: str) -> None:
    """Fail when a form of a key stands in a text, also one that is broken over lines."""
    for form in (text, "".join(text.split())):
        for secret in SECRETS:
            at = form.find(secret)
            assert at < 0, f"...{form[max(0, at - 200) : at]}<a key>"


def test_good_requests(witness: Witness) -> None:
    """Every operation of the contract but the defective one, asked as its examples say."""
    for operation in CONTRACT:
        if operation.path == DEFECTIVE_PATH:
            continue
        for request in contract_requests(CONTRACT, operation):
            witness.ask(request.method, request.path, headers=dict(request.headers), content=request.content)
    witness.ask("POST", "/v1/responses", json={**RESPONSE, "stream": True})
    witness.ask("POST", "/v1/responses:stream", json=RESPONSE)
    witness.ask("HEAD", "/v1/models")
    witness.ask("OPTIONS", "/v1/models")


def test_bad_requests(witness: Witness) -> None:
    """Refusals of every kind, with the relay's own key in every place where a confused client could put it."""
    key = RELAY_KEY
    witness.ask("GET", f"/v1/{key}")
    witness.ask("PUT", f"/v1/models?key={key}")
    witness.ask("GET", f"/v1/organization/users?after={key}")
    witness.ask("GET", f"/v1/files?limit={key}")
    witness.ask("GET", f"/docs/{key}")
    witness.ask("POST", "/v1/responses", json={"model": {key: key}, key: key})
    witness.ask("POST", "/v1/responses", json={**RESPONSE, "metadata": {key: [key]}})
    witness.ask("POST", "/v1/responses", json={**RESPONSE, "input": key * 10_000})
    witness.ask(
        "POST", "/v1/responses", content=f'{{"{key}": 1, "{key}": 2}}', headers={"Content-Type": "application/json"}
    )
    witness.ask("POST", "/v1/responses", content=f'{{"{key}', headers={"Content-Type": "application/json"})
    witness.ask("POST", "/v1/responses", content=key, headers={"Content-Type": f"text/{key}"})
    witness.ask("POST", "/v1/responses", content=key, headers={"Expect": key})
    for headers in (
        {"Authorization": f"Basic {key}"},
        {"Authorization": key},
        {"Authorization": f"Bearer {key}x"},
        {"X-Relay-Key": f"{key}x"},
        {"Cookie": key, "X-Request-Id": key, "User-Agent": key},
    ):
        witness.ask("GET", "/v1/models", headers=headers)
    with RawConnection(witness.relay.url) as connection:
        connection.send(f"GET /v1/models/\x01{key} HTTP/1.1\r\nX-Relay-Key: {key}\r\n\r\n".encode())
        reply = connection.reply()
        witness.replies.append(f"{reply.headers} {reply.body!r}")


def test_client_that_leaves(witness: Witness) -> None:
    """Clients that hang up in mid-upload and in mid-stream."""
    with RawConnection(witness.relay.url) as connection:
        headers = {**witness.relay.headers, "Content-Type": "multipart/form-data; boundary=b", "Content-Length": "9999"}
        connection.send_head("POST", "/v1/files", headers.items())
        connection.send(b"--b\r\n")
    witness.upstream.faults.add(Fault(silent_after_bytes=10))
    with witness.client.stream("POST", "/v1/responses:stream", json=RESPONSE) as reply:
        witness.replies.append(f"{reply.status_code} {reply.headers.raw!r}")
    witness.ask("GET", "/livez")


def test_failing_upstream(witness: Witness) -> None:
    """Refusals, silence, cuts and nonsense of the upstream."""
    for fault in (
        Fault(status=500),
        Fault(status=429, headers={"retry-after": "1"}),
        Fault(silent=True),
        Fault(silent_after_bytes=10),
        Fault(cut_after_bytes=0),
        Fault(cut_after_bytes=10),
        Fault(status=401, body="not an object"),
        Fault(headers={"content-length": "5"}),
        Fault(headers={"content-type": "text/html", "content-encoding": "br"}),
    ):
        ask_with_fault(witness, fault)


@pytest.mark.parametrize("status", [401, 403, 400, 404, 429, 500])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_upstream_that_repeats_the_key(status: int, compressed: bool, witness: Witness) -> None:
    """In its error, whatever the status, plain or compressed."""
    ask_with_fault(witness, Fault(status=status, echo_credentials=True, gzip=compressed))


def test_upstream_that_repeats_the_key_in_headers(witness: Witness) -> None:
    """In headers that are meant for nobody, and in those that usually cross."""
    for name in ("authorization", "set-cookie", "x-echo", "www-authenticate", "openai-organization"):
        ask_with_fault(witness, Fault(headers={name: f"Bearer {UPSTREAM_KEY} {ORGANISATION}"}))


def test_what_operators_are_told(witness: Witness) -> None:
    """Numbers and the description of the relay, after keys came in every place."""
    test_bad_requests(witness)
    for path in ("/metrics", "/actions/system/info", "/actions/system/routes"):
        witness.ask("GET", path, headers=OPERATOR.headers)
        assert witness.replies[-1].startswith("200 ")
        assert OPERATOR.text not in witness.replies[-1]
        assert sha256(OPERATOR.text.encode()).hexdigest() not in witness.replies[-1]


def test_upstream_that_repeats_the_key_as_its_request_id(witness: Witness) -> None:
    """What the line calls the upstream's id is one."""
    witness.upstream.faults.add(Fault(headers={"x-request-id": UPSTREAM_KEY}))
    before = len(witness.relay.printed())
    with httpx.Client(base_url=witness.relay.url, headers=witness.relay.headers) as client:
        client.get("/v1/models")
    assert_silent_about_keys(witness.relay.printed()[before:])
    witness.ask("GET", "/livez")


def test_defect_of_the_relay(witness: Witness) -> None:
    """A traceback says where the defect is, not whose request it was."""
    witness.ask("GET", DEFECTIVE_PATH)
    assert witness.replies[-1].startswith("500 ")
    assert "a defect made for a test" in witness.relay.printed()


def ask_with_fault(witness: Witness, fault: Fault) -> None:
    """Ask for JSON, for a stream and without a body while the upstream has a bad day."""
    witness.upstream.faults.add(fault)
    witness.ask("POST", "/v1/responses", json=RESPONSE)
    witness.ask("POST", "/v1/responses:stream", json=RESPONSE)
    witness.ask("GET", "/v1/models")
    witness.upstream.faults.clear()


@pytest.mark.parametrize("name", ["RELAY_KEY", "OPENAI_BASE_URL", "RELAY_SECRET"])
def test_a_key_in_a_wrong_setting_is_not_printed(name: str) -> None:
    """A malformed or misplaced key stops the start; the message names the setting, not its value."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "OPENAI_"))}
    finished = subprocess.run(
        [sys.executable, "-m", "handlers.cli", "serve"],
        env={**environment, "RELAY_PORT": "0", "RELAY_KEY": RELAY_KEY, name: f" {RELAY_KEY} {UPSTREAM_KEY}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert finished.returncode == 2
    assert name in finished.stderr
    assert_silent_about_keys(finished.stdout + finished.stderr)


@pytest.mark.parametrize(
    "hide", [str, repr, lambda text: f"{text[:40]}\n  {text[40:]}"], ids=["str", "repr", "wrapped"]
)
def test_the_canary_sings(hide: Callable[[str], str]) -> None:
    """The check itself fails on a key, quoted or broken over two lines."""
    for secret in (RELAY_KEY, UPSTREAM_KEY):
        with pytest.raises(AssertionError, match="<a key>"):
            assert_silent_about_keys(hide(f"Authorization: Bearer {secret}"))
