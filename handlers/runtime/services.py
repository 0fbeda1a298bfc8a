"""What all requests of one relay share, built once at start."""

from dataclasses import dataclass

from codegen.contract import Contract
from handlers.runtime.access import KeyRing
from handlers.runtime.settings import Settings
from handlers.runtime.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Services:
    """
    Shared parts of one relay.

    Args:
        contract: The full document.
        published: The documents that `/openapi.json` and `/openapi.actions.json` answer, encoded.
    """

    settings: Settings
    contract: Contract
    published: dict[str, bytes]
    keys: KeyRing
    upstream: Upstream
