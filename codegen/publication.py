"""
Cuts a contract down to what the public may see.

Not for: deciding what is internal; the contract says so on each operation.
"""

from typing import Any

from codegen.contract import METHODS, Contract
from codegen.reader import Document, references


def published_document(contract: Contract) -> Document:
    """
    Leave out internal operations and everything that only they use.

    Returns:
        A new document that shares the unchanged parts with the contract's.
    """
    document = contract.document
    hidden = {(operation.path, operation.method.lower()) for operation in contract if not operation.published}
    paths: dict[str, Any] = {}
    for path, item in document["paths"].items():
        kept = {key: value for key, value in item.items() if (path, key) not in hidden}
        if any(method in kept for method in METHODS):
            paths[path] = kept
    used = {operation.tag for operation in contract if operation.published}
    components: dict[str, dict[str, Any]] = {
        "securitySchemes": document.get("components", {}).get("securitySchemes", {}),
        "schemas": {},  # importers insist on it
    }
    for kind, name in sorted(_reachable(document, paths)):
        components.setdefault(kind, {})[name] = document["components"][kind][name]
    tags = [tag for tag in document.get("tags", ()) if tag["name"] in used]
    return {**document, "tags": tags, "paths": paths, "components": components}


def document_at(contract: Contract, url: str) -> Document:
    """
    The published document for the relay at an address.

    Args:
        url: It stands in the place of the servers that the document names.
    """
    return {**published_document(contract), "servers": [{"url": url}]}


def _reachable(document: Document, start: Any) -> set[tuple[str, str]]:
    """Kind and name of every component that a part of the document leads to."""
    found: set[tuple[str, str]] = set()
    waiting = [start]
    while waiting:
        for reference in references(waiting.pop()):
            if reference.startswith("#/components/"):
                kind, name = reference.removeprefix("#/components/").split("/")
                if (kind, name) not in found:
                    found.add((kind, name))
                    waiting.append(document["components"][kind][name])
    return found
