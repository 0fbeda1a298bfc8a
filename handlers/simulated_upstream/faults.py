"""
Faults that tests inject into the simulated upstream: what an upstream does on a bad day.

A fault says which operation it hits, how often, and what goes wrong; `handlers.simulated_upstream.connection` and
`handlers.simulated_upstream.app` carry it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Fault:
    """
    One thing that goes wrong.

    Args:
        operation_id: Which operation it hits; `None` hits every request, known path or not.
        times: How many requests it hits; `None` means for ever.
        status: Answer this status instead of doing anything.
        body: JSON body to answer; without it an error envelope is sent when `status` is given.
        headers: Extra response headers; they replace those of the same name.
        delay_seconds: Wait this long before the headers.
        cut_after_bytes: Send this much of the body, then drop the connection without an end.
        silent: Never answer, not even headers, until the client leaves.
        silent_after_bytes: Send the headers and this much of the body, then nothing until the client leaves.
        gzip: Compress a JSON reply when the request allows it.
        echo_credentials: The error message repeats the `Authorization` header; status 401 unless `status` says another.
        repeat_body_to_bytes: Blow a JSON object up to exactly this size.
        slow_read_bytes_per_second: Take the request's body in no faster than this.
    """

    operation_id: str | None = None
    times: int | None = None
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    cut_after_bytes: int | None = None
    silent: bool = False
    silent_after_bytes: int | None = None
    gzip: bool = False
    echo_credentials: bool = False
    repeat_body_to_bytes: int | None = None
    slow_read_bytes_per_second: float | None = None


NO_FAULT = Fault()


def fault_from_json(value: Any) -> Fault:
    """
    Build a fault from a JSON object with the fields of `Fault`.

    Raises:
        ValueError: It is not an object, or has a field that `Fault` has not.
    """
    if not isinstance(value, dict):
        raise ValueError("a fault must be a JSON object.")
    allowed = {item.name for item in fields(Fault)}
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise ValueError(f"`{unknown[0]}` is no field of a fault; allowed are {', '.join(sorted(allowed))}.")
    return Fault(**value)


class FaultPlan:
    """The faults that wait for their requests, in the order in which they were added."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault) -> None:
        """Let a fault wait for the next request that it fits."""
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Forget every fault."""
        self._waiting.clear()

    def take(self, operation_id: str | None) -> Fault:
        """
        Use up one turn of the first fault that fits.

        Args:
            operation_id: Of the request; `None` when no operation fits it.

        Returns:
            `NO_FAULT` when none fits.
        """
        for position, (fault, left) in enumerate(self._waiting):
            if fault.operation_id not in {None, operation_id}:
                continue
            if left is not None:
                if left <= 1:
                    del self._waiting[position]
                else:
                    self._waiting[position] = (fault, left - 1)
            return fault
        return NO_FAULT
