"""The relay: one module per tag of the contract, bound by operationId, on top of `handlers.runtime`."""
