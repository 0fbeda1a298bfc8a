"""
Every operation of the contract, under every scope, with no key, a wrong one, an expired one and the right one.

What is expected is computed from the contract alone; nothing here names an operation.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from codegen.contract import FULL, Operation, Scope, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.sockets import is_socket
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.contract_requests import ContractRequest, contract_requests
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import RawConnection, RawReply
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
NEEDING_A_KEY = [operation for operation in CONTRACT if not operation.open]
REQUESTS = {operation.id: next(contract_requests(CONTRACT, operation)) for operation in NEEDING_A_KEY}
# What differs between two replies to the same request.
OF_ONE_REPLY = {"date", "x-request-id", "x-relay-request-id"}


@dataclass(frozen=True)
class Keyed:
    """
    A relay with a key file.

    Args:
        right: One key per scope.
        expired: The same, each with its end in the past.
        revoked: One that was in the file before the relay's start.
    """

    relay: RelayProcess
    right: Mapping[Scope, MadeKey]
    expired: Mapping[Scope, MadeKey]
    revoked: MadeKey


@pytest.fixture(scope="module")
def keyed(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """One key per scope, and one per scope that has expired."""
    folder = tmp_path_factory.mktemp("matrix")
    past = datetime.now(UTC) - timedelta(seconds=1)
    right = {scope: make_key(scope.value, scope) for scope in Scope}
    expired = {scope: make_key(f"expired-{scope.value}", scope, expires=past) for scope in Scope}
    revoked = make_key("revoked", *Scope)
    write_keys(folder / "keys.yaml", [*right.values(), *expired.values(), revoked])
    write_keys(folder / "keys.yaml", [*right.values(), *expired.values()])
    # The links of the contract's examples lead to a host that exists; nothing is to be asked of it.
    environment = {"RELAY_KEY_FILE": str(folder / "keys.yaml"), "RELAY_FILE_HOSTS": "files.test"}
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield Keyed(relay, right, expired, revoked)


def wrong(key: MadeKey) -> MadeKey:
    """A key of the same form that nobody has made: another last letter."""
    return MadeKey(key.id, key.scopes, key.text[:-1] + ("A" if key.text[-1] != "A" else "B"))


def ask(connection: RawConnection, request: ContractRequest, key: MadeKey | None) -> RawReply:
    """Send a valid request with a key or without."""
    headers = {**request.headers, **(key.headers if key is not None else {})}
    return connection.exchange(request.method, request.path, headers.items(), request.content)


def refused(keyed: Keyed, keys: Mapping[Scope, MadeKey | None], error: type[exc.RelayError]) -> Counter[str]:
    """Ask every operation with each of the keys; all of it must be refused. Returns the replies, counted."""
    seen: Counter[str] = Counter()
    with RawConnection(keyed.relay.url) as connection:
        for operation in NEEDING_A_KEY:
            for key in keys.values():
                reply = ask(connection, REQUESTS[operation.id], key)
                assert_relay_error(reply, error)
                seen[repr(lasting(reply))] += 1
    return seen


def lasting(reply: RawReply) -> tuple[int, list[tuple[str, str]], bytes]:
    """What a client can tell two replies apart by."""
    return reply.status, [header for header in reply.headers if header[0] not in OF_ONE_REPLY], reply.body


def test_the_matrix_is_whole() -> None:
    """Every operation is either open or asks for at least one scope, and every scope opens something."""
    assert all(operation.open or operation.scopes for operation in CONTRACT)
    assert {scope for operation in NEEDING_A_KEY for scope in operation.scopes} == set(Scope)


def test_without_a_key_nothing_is_said_about_any_operation(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """Every operation that is not open answers `missing_key`, before anything else, and asks nobody."""
    refused(keyed, {Scope.CANONICAL: None}, exc.MissingKey)
    assert upstream.recorder.count == 0


def test_wrong_and_expired_keys_open_nothing_and_look_alike(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """Under every scope and on every operation: the same reply, but for its ids and its date; nobody is asked."""
    with ThreadPoolExecutor(2) as threads:
        both = threads.map(
            lambda keys: refused(keyed, keys, exc.InvalidKey),
            ({scope: wrong(key) for scope, key in keyed.right.items()}, keyed.expired),
        )
        unknown, expired = both
    assert upstream.recorder.count == 0
    assert unknown == expired
    assert unknown.total() == len(NEEDING_A_KEY) * len(Scope)


def test_what_a_key_was_is_not_told(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """A key that has been revoked, one that has expired and one that never was: the same reply to all of them."""
    others = (keyed.revoked, keyed.expired[Scope.CANONICAL], wrong(keyed.right[Scope.CANONICAL]), make_key("nobody's"))
    with RawConnection(keyed.relay.url) as connection:
        for operation in NEEDING_A_KEY[::20]:
            replies = [lasting(ask(connection, REQUESTS[operation.id], key)) for key in others]
            assert replies == [replies[0]] * len(others)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("scope", Scope)
def test_the_right_key_opens_what_names_its_scope(scope: Scope, keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """For every operation of the contract: insufficient scope and no call, or the outcome that its bucket says."""
    with RawConnection(keyed.relay.url) as connection:
        for operation in NEEDING_A_KEY:
            before = upstream.recorder.count
            reply = ask(connection, REQUESTS[operation.id], keyed.right[scope])
            hold(operation, scope, reply, upstream.recorder.count - before)


def hold(operation: Operation, scope: Scope, reply: RawReply, calls: int) -> None:
    """Hold one reply against the contract."""
    if scope not in operation.scopes:
        assert_relay_error(reply, exc.InsufficientScope)
        assert calls == 0
    elif not operation.served:
        assert_relay_error(reply, exc.OperationUnsupported)
        assert calls == 0
    elif is_socket(operation):
        assert_relay_error(reply, exc.UpgradeRequired)
        assert calls == 0
    elif operation.mirrored or (scope is Scope.PROXY and operation.carries is None):
        assert calls == 1, operation.id
    elif operation.wraps:  # asks as often as it has to; no file is fetched from anywhere in this test
        assert calls or assert_relay_error(reply, exc.FileRefused)
    else:
        assert calls == 0
        assert reply.status < 500, operation.id
