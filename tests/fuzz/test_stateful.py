"""Chains of generated requests: what one reply hands out, the next request uses."""

from collections import Counter
from typing import Any

import hypothesis
import pytest
from schemathesis import Case, Response
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.generation.stateful.state_machine import (
    DEFAULT_STATE_MACHINE_SETTINGS,
    RecordingStateMachine,
    StepInput,
    StepOutput,
)

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.fuzzing import MAX_EXAMPLES, SEED, Fuzzer, load_schema

pytestmark = pytest.mark.fuzz

TAGS = ("Files", "Vector stores", "Conversations")  # what can be made, used and deleted in a few steps
CHAINS = 4 * MAX_EXAMPLES
STEPS = 25


def test_objects_live_from_their_creation_to_their_deletion(fuzzer: Fuzzer, upstream_app: SimulatedUpstream) -> None:
    """Files, vector stores and conversations can be used from their creation to their deletion, and no longer."""
    machine = load_schema().include(tag=list(TAGS)).as_state_machine()
    assert issubclass(machine, RecordingStateMachine), "without a recorder nobody would know what was deleted"
    followed: Counter[str] = Counter()

    class Chains(machine):  # type: ignore[valid-type, misc] # the class is computed from the document
        def setup(self) -> None:
            upstream_app.forget_objects()  # chains are replayed, and lists must then hold what they held before

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return fuzzer.transport

        def call(self, case: Case[Any], **_: Any) -> Response:
            return fuzzer.call(case)

        def validate_response(self, response: Response, case: Case[Any], *_: Any, **__: Any) -> None:
            fuzzer.validate(case, response, recorder=self.recorder)

        def step(self, input: StepInput) -> StepOutput:  # noqa: A002 - schemathesis' name
            output: StepOutput = super().step(input)
            if input.transition is not None and output.response.status_code < 300:
                followed[output.case.method] += 1
                followed.update(output.case.operation.tags or ())
            return output

    settings = hypothesis.settings(
        DEFAULT_STATE_MACHINE_SETTINGS,
        max_examples=CHAINS,
        stateful_step_count=STEPS,
        derandomize=SEED == 0,
        database=None,
    )
    run_state_machine_as_test(Chains, settings=settings)
    for wanted in (*TAGS, "GET", "POST", "DELETE"):
        assert followed[wanted] > 0, f"no link led to {wanted}; the chains prove nothing about it"
