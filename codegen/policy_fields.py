"""
Holds the `x-policy-*` fields of a document against `spec/policy.schema.yaml`, their closed vocabulary.

Not for: what the fields mean together (`codegen.contract`).
"""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from codegen.reader import Document


class PolicyFields:
    """
    The checks of one policy schema.

    Args:
        schema: `spec/policy.schema.yaml`; `None` accepts everything, for documents that were checked when rendered.
    """

    def __init__(self, schema: Document | None) -> None:
        self._validators = {
            name: jsonschema_rs.validator_for({**schema, "$ref": f"#/$defs/{name}"})
            for name in ("operation", "reviews", "tag")
            if schema is not None
        }

    def operation(self, where: str, node: Mapping[str, Any]) -> list[str]:
        """One finding per broken rule of an operation."""
        return self._errors("operation", where, node)

    def reviews(self, document: Document) -> list[str]:
        """One finding per broken rule of the review records."""
        return self._errors("reviews", "x-policy-reviews", document.get("x-policy-reviews", {}))

    def tags(self, document: Document) -> list[str]:
        """One finding per broken rule of the tags."""
        return [e for tag in document.get("tags", ()) for e in self._errors("tag", f"tag {tag.get('name')}", tag)]

    def _errors(self, name: str, where: str, node: Mapping[str, Any]) -> list[str]:
        validator = self._validators.get(name)
        errors = validator.iter_errors(node) if validator else ()
        return [f"{where}: {error.message} (see spec/policy.schema.yaml)" for error in errors]
