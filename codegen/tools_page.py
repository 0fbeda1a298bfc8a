"""Renders `spec/generated/tools.md`: which MCP tool stands for which operation, for moving a GPT with Actions."""

import html
import re
from collections.abc import Iterable, Sequence

from codegen.tools import Argument, Hints, Place, Tool

FILE_NAME = "tools.md"
COLUMNS = ("Tool", "Operation", "What it is for", "Hints", "Arguments")
HEADER = (
    "<!-- Written by `contract render` from spec/openapi.full.yaml and spec/openapi.actions.yaml. Do not edit. -->\n"
)
INTRODUCTION = (
    "Each action of a GPT is a tool of the same name. Its arguments stand side by side, whether the HTTP request holds "
    "them in its path, its query or its body. Hints are what a client may believe before it asks the user: a "
    "`read-only` tool changes nothing, a `destructive` one may delete or undo, an `idempotent` one may be called again "
    "with the same arguments."
)


def render_tools_page(tools: Sequence[Tool]) -> str:
    """
    Write the tools as Markdown.

    Args:
        tools: What `codegen.tools` computes.

    Returns:
        Markdown: one table, a line per tool, in the order given.
    """
    lines = [HEADER, "# Tools and their operations", "", INTRODUCTION, "", f"{len(tools)} tools.", ""]
    lines += [_line(COLUMNS), "|" + "---|" * len(COLUMNS), *(_row(tool) for tool in tools)]
    return "\n".join(lines) + "\n"


def _row(tool: Tool) -> str:
    cells = (
        f"`{tool.name}`",
        f"`{tool.method} {tool.path}`",
        _prose(tool.summary),
        _hints(tool.hints),
        _arguments(tool.arguments),
    )
    return _line(cells)


def _hints(hints: Hints) -> str:
    given = {"read-only": hints.read_only, "destructive": hints.destructive, "idempotent": hints.idempotent}
    return ", ".join(name for name, holds in given.items() if holds)


def _arguments(arguments: Sequence[Argument]) -> str:
    """Per place the names, the required ones first, such as `query `limit`, optional `order`, `after``."""
    parts = []
    for place in Place:
        required = ", ".join(f"`{a.name}`" for a in arguments if a.place is place and a.required)
        optional = ", ".join(f"`{a.name}`" for a in arguments if a.place is place and not a.required)
        names = ", ".join(filter(None, (required, optional and f"optional {optional}")))
        parts += [f"{place} {names}"] if names else []
    return "; ".join(parts)


def _prose(text: str) -> str:
    """Text of the contract without markup but its code spans, on one line."""
    spans = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(span if span.startswith("`") else html.escape(span, quote=False) for span in spans)


def _line(cells: Iterable[str]) -> str:
    # A bar ends a cell even inside a code span.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
