"""
Computes and reads `spec/upstream.lock.tsv`, the pinned inventory of upstream's operations: facts, no policy.

Not for: comparing (`codegen.drift`). Reads the files it is given, writes nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from codegen.exceptions import UnreadableDocument
from codegen.upstream import Place, UpstreamOperation, read_upstream

LOCK = Path("spec/upstream.lock.tsv")
COLUMNS = ("method", "path", "operationId", "request_media", "response_media", "deprecated")
_NOTHING = "-"
_DEPRECATED = "deprecated"


def pin(document: Path) -> str:
    """
    Compute the lock file from an OpenAPI document of the OpenAI API.

    Args:
        document: JSON or YAML.

    Returns:
        The text of `spec/upstream.lock.tsv`: a head and one line per operation, sorted by path and method.

    Raises:
        UnreadableDocument: It is not such a document, or a value of it does not fit into a cell.
    """
    lines = [COLUMNS, *(_line(operation) for operation in read_upstream(document).operations.values())]
    return "".join("\t".join(cells) + "\n" for cells in lines)


def read_lock(path: Path) -> Mapping[Place, UpstreamOperation]:
    """
    Read the lock file.

    Returns:
        Its operations by place, in its order.

    Raises:
        UnreadableDocument: The file is missing, or a line is not one that `pin` writes.
    """
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise UnreadableDocument(f"{path}: must be the lock file; run `contract pin FILE`.") from None
    if tuple(head.split("\t")) != COLUMNS:
        raise UnreadableDocument(f"{path}:1: must hold the columns {', '.join(COLUMNS)}; run `contract pin FILE`.")
    operations: dict[Place, UpstreamOperation] = {}
    for number, line in enumerate(lines, 2):
        operation = _operation(line.split("\t"), f"{path}:{number}")
        if operation.place in operations:
            raise UnreadableDocument(f"{path}:{number}: {operation.name} stands twice; run `contract pin FILE`.")
        operations[operation.place] = operation
    return MappingProxyType(operations)


def _line(operation: UpstreamOperation) -> tuple[str, ...]:
    media = (*operation.request_media, *operation.response_media)
    texts = (operation.method, operation.path, operation.id, *media)
    if any(not text.isprintable() for text in texts) or any("," in text for text in media):
        raise UnreadableDocument(f"{operation.name!r}: a cell must hold neither tabs nor line ends nor stray commas.")
    return (
        operation.method,
        operation.path,
        operation.id,
        ",".join(operation.request_media) or _NOTHING,
        ",".join(operation.response_media) or _NOTHING,
        _DEPRECATED if operation.deprecated else _NOTHING,
    )


def _operation(cells: list[str], where: str) -> UpstreamOperation:
    if len(cells) != len(COLUMNS) or cells[5] not in {_NOTHING, _DEPRECATED}:
        raise UnreadableDocument(f"{where}: must hold {len(COLUMNS)} cells as `contract pin FILE` writes them.")
    method, path, operation_id, request_media, response_media, deprecated = cells
    return UpstreamOperation(
        method, path, operation_id, _media(request_media), _media(response_media), deprecated == _DEPRECATED
    )


def _media(cell: str) -> tuple[str, ...]:
    return () if cell == _NOTHING else tuple(cell.split(","))
