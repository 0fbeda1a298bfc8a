"""Every policy case, put to a running relay with a key of exactly its scopes: the verdict is the one in the file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from codegen.contract import FULL, JSON, Scope, load_contract
from codegen.policy_cases import ALLOWED, PolicyCase, Surface, read_policy_cases
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.errors import ERROR_TABLE
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.contract_requests import calls_upstream
from tests.support.documents import ROOT
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import RawConnection, RawReply
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
PROXY = CONTRACT.operations["forwardRequest"]
CASES = read_policy_cases(ROOT)
PROXY_CASES = [case for case in CASES if case.surface is Surface.PROXY]
ERRORS = {rule.code: error for error, rule in ERROR_TABLE.items()}


@dataclass(frozen=True)
class Keyed:
    """A relay with one key for each set of scopes that a case names."""

    relay: RelayProcess
    keys: Mapping[frozenset[Scope], MadeKey]

    def ask(self, case: PolicyCase) -> RawReply:
        """Make the request of a case, written as it stands there."""
        if case.surface is Surface.PROXY:
            return self.forward(case)
        query = urlencode([(name, _text(v)) for name, values in case.query.items() for v in _listed(values)])
        return self._send(case, case.method, f"{case.path}?{query}" if query else case.path, case.body)

    def forward(self, case: PolicyCase, **more: object) -> RawReply:
        """Put the request of a case into a call of the proxy."""
        fields = {"method": case.method, "path": case.path, "query": case.query or None, "body": case.body, **more}
        wanted = {name: value for name, value in fields.items() if value is not None}
        return self._send(case, PROXY.method, PROXY.path, wanted)

    def _send(self, case: PolicyCase, method: str, target: str, body: object) -> RawReply:
        headers = dict(self.keys[case.scopes].headers) if case.scopes else {}
        content = None if body is None else orjson.dumps(body)
        if content is not None:
            headers["Content-Type"] = JSON
        with RawConnection(self.relay.url) as connection:
            return connection.exchange(method, target, headers.items(), content)


@pytest.fixture(scope="module")
def keyed(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """The relay, started once for all cases."""
    folder = tmp_path_factory.mktemp("policy-cases")
    scopes = {case.scopes for case in CASES if case.scopes}
    keys = {names: make_key("-".join(sorted(names)), *sorted(names)) for names in scopes}
    write_keys(folder / "keys.yaml", keys.values())
    with running_relay(folder, upstream_server.url, {"RELAY_KEY_FILE": str(folder / "keys.yaml")}) as relay:
        yield Keyed(relay, keys)


def prepare(upstream: SimulatedUpstream, case: PolicyCase) -> None:
    """Let the upstream answer with the contract's example, whether or not somebody made the objects before."""
    if not case.allowed:
        return
    for operation_id in calls_upstream(CONTRACT, CONTRACT.operations[case.operation]):
        operation = CONTRACT.operations[operation_id]
        status, content = operation.success
        examples = list(content[JSON].examples.values()) if JSON in content else []
        if examples or "{" in operation.path:  # what is neither JSON nor stored is answered as it is
            body = examples[0] if examples else {}
            upstream.faults.add(Fault(operation_id=operation_id, status=int(status), body=body))


def hold(case: PolicyCase, reply: RawReply, upstream: SimulatedUpstream) -> None:
    """
    Hold a reply and what the upstream saw against the verdict of a case.

    Raises:
        AssertionError: They differ.
    """
    seen = [record.operation_id for record in upstream.recorder.requests]
    if case.allowed:
        assert reply.status < 400, reply.body
        assert seen == list(calls_upstream(CONTRACT, CONTRACT.operations[case.operation]))
    else:
        assert reply.status >= 400, reply.body
        assert_relay_error(reply, ERRORS[case.verdict])
        assert seen == []


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_case_gets_its_verdict(case: PolicyCase, keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """Allowed: one call of exactly this operation, or of what it wraps. Refused: the case's code, and no call."""
    prepare(upstream, case)
    hold(case, keyed.ask(case), upstream)


@pytest.mark.parametrize("case", PROXY_CASES, ids=[case.id for case in PROXY_CASES])
def test_a_dry_run_says_the_same_and_calls_nobody(case: PolicyCase, keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """The verdict of a dry run is that of the real call; the upstream sees neither."""
    reply = keyed.forward(case, dry_run=True)
    assert upstream.recorder.count == 0
    answer: dict[str, Any] = reply.json()
    assert verdict_in(answer) == case.verdict
    if "allowed" in answer:
        assert reply.status == 200
        assert answer["allowed"] is case.allowed
    else:
        assert_relay_error(reply, ERRORS[case.verdict])
    if case.allowed:
        assert answer["operation_id"] == case.operation


def test_a_wrong_verdict_is_noticed(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """A case whose verdict were turned round would fail, in either direction."""
    for case in (next(c for c in PROXY_CASES if c.allowed), next(c for c in PROXY_CASES if not c.allowed)):
        upstream.recorder.clear()
        prepare(upstream, case)
        reply = keyed.ask(case)
        hold(case, reply, upstream)
        other = ERROR_TABLE[exc.UnknownOperation].code if case.allowed else ALLOWED
        with pytest.raises(AssertionError):
            hold(replace(case, verdict=other), reply, upstream)


def verdict_in(answer: Mapping[str, Any]) -> str:
    """What a dry run says, whether as a verdict or, where the call itself is wrong, as an error."""
    return str(answer["error"]["code"]) if answer["error"] else ALLOWED


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
