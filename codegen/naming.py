"""How operations and tags become names in Python: computed, so that the contract holds no module path."""

import re


def snake_case(name: str) -> str:
    """Turn an operationId or a tag into the Python name that serves it."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", name)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return name.lower()


def importer_name(operation_id: str) -> str:
    """An operationId as the Actions document writes it: importers take letters, digits and underscores only."""
    return operation_id.replace("-", "_")
