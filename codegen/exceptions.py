"""
What can be wrong with a contract, as exceptions.

    ContractError            the base
    ├── UnreadableDocument   not YAML or JSON, a key twice, a reference that leads nowhere
    ├── InvalidContract      readable, but breaks rules; carries one finding per broken rule
    └── RelayNotAsked        a running relay cannot be asked, or does not answer what it should
"""

from collections.abc import Sequence


class ContractError(Exception):
    """Something is wrong with the contract; the message says where and what to do next."""


class UnreadableDocument(ContractError):
    """A document of the contract cannot be read."""


class InvalidContract(ContractError):
    """
    The contract breaks one or more of its own rules.

    Args:
        findings: One line per broken rule: where, what, next step.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(self.findings))


class RelayNotAsked(ContractError):
    """A running relay cannot be asked about its routes."""
