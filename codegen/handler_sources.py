"""
Reads which coroutines the modules of `handlers/` hold, from their source text: nothing is imported or run.

Not for: binding (`handlers.runtime.binding`, whose rules this follows). Reads `handlers/`, writes nothing.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.exceptions import UnreadableDocument

HANDLERS = "handlers"
FORWARDER = f"{HANDLERS}.runtime.forwarder.forward"  # the one function of all operations that only pass through
_REPLY = "Reply"


@dataclass(frozen=True, slots=True)
class HandlerModule:
    """
    One module or package directly below `handlers/`.

    Args:
        name: As Python imports it, such as `handlers.relay`.
        file: Relative to the project's folder.
        coroutines: Public `async def` of its top level, in order.
        replying: Those of them that return a `Reply`, as handlers do.
        names: Everything that its top level defines or imports.
    """

    name: str
    file: str
    coroutines: tuple[str, ...]
    replying: tuple[str, ...]
    names: frozenset[str]


def read_handlers(root: Path) -> Mapping[str, HandlerModule]:
    """
    Read all modules directly below `handlers/`.

    Args:
        root: The project's folder.

    Returns:
        Modules by their last name, sorted.

    Raises:
        UnreadableDocument: There are none, or one is not Python.
    """
    folder = root / HANDLERS
    plain = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    packages = {path.parent.name: path for path in folder.glob("*/__init__.py")}
    if not plain:
        raise UnreadableDocument(f"{folder}: must hold the handlers. Run this in the project's folder.")
    return {name: _module(root, name, path) for name, path in sorted({**plain, **packages}.items())}


def _module(root: Path, name: str, path: Path) -> HandlerModule:
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableDocument(f"{path}: must be readable Python ({type(error).__name__}).") from None
    public = [node for node in body if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")]
    return HandlerModule(
        name=f"{HANDLERS}.{name}",
        file=path.relative_to(root).as_posix(),
        coroutines=tuple(node.name for node in public),
        replying=tuple(node.name for node in public if node.returns and _last_name(node.returns) == _REPLY),
        names=frozenset(name for node in body for name in _names(node)),
    )


def _last_name(annotation: ast.expr) -> str:
    return ast.unparse(annotation).strip("'\"").rpartition(".")[2]


def _names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        case ast.Assign() | ast.AnnAssign():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
