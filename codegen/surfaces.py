"""
Computes by which surfaces an operation can be reached, as the table in section 4 of GOVERNANCE.md says.

Not for: letting anybody in (`handlers.runtime.access`); this is for tables and pages.
"""

from collections.abc import Sequence
from enum import StrEnum

from codegen.contract import Bucket, Operation, Scope


class Surface(StrEnum):
    """A way to an operation, in the words that people read; the order is that of the table's columns."""

    ACTIONS = "Actions"
    WRAPPER = "Actions by its wrapper"
    PROXY = "Proxy"
    CANONICAL = "SDK clients"
    REALTIME = "Realtime"
    OPERATOR = "Operators"
    OPEN = "Everybody"


# `/v1/proxy` itself is no target of the proxy, but a key of that scope opens it.
_OF_SCOPES = {
    Scope.PROXY: Surface.PROXY,
    Scope.CANONICAL: Surface.CANONICAL,
    Scope.REALTIME: Surface.REALTIME,
    Scope.OPERATOR: Surface.OPERATOR,
}


def surfaces(operation: Operation) -> Sequence[Surface]:
    """
    Tell who can reach an operation, and how.

    Returns:
        The ways in the order of `Surface`; none when it is always refused.
    """
    if not operation.served:
        return ()
    found = {surface for scope, surface in _OF_SCOPES.items() if scope in operation.scopes}
    if operation.carries:
        found.discard(Surface.PROXY)  # it carries calls of the proxy, each decided as an operation of its own
    if operation.open:
        found.add(Surface.OPEN)
    if operation.bucket is Bucket.ACTIONS_DIRECT:
        found.add(Surface.ACTIONS)
    if operation.bucket is Bucket.PROXY_HARNESS:
        found.add(Surface.PROXY)
    if operation.wrapper:
        found.add(Surface.WRAPPER)
    return [surface for surface in Surface if surface in found]
