import re
from dataclasses import replace

from codegen.contract import ACTIONS, read_contract
from codegen.tools import Argument, Hints, Place, Tool, build_tools
from codegen.tools_page import COLUMNS, render_tools_page
from tests.support.documents import ROOT

TOOL = Tool(
    name="shapeThing",
    operation_id="shape-thing",
    method="POST",
    path="/v1/things/{id}",
    summary="Shape a thing.",
    description="Shape a thing. Slowly.",
    arguments=(
        Argument("id", Place.PATH, required=True),
        Argument("after", Place.QUERY, required=False),
        Argument("note", Place.BODY, required=False),
        Argument("text", Place.BODY, required=True),
    ),
    input_schema={"type": "object"},
    output_schema=None,
    hints=Hints(read_only=False, destructive=True, idempotent=True),
)


def rows(page: str) -> list[list[str]]:
    """Cells of the table as Markdown splits them, without title and separator."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0] == list(COLUMNS)
    return cells[2:]


def test_a_line_says_what_a_tool_stands_for() -> None:
    """Tool, operation, purpose, hints, and the arguments by their place, required ones first."""
    assert rows(render_tools_page([TOOL])) == [
        [
            "`shapeThing`",
            "`POST /v1/things/{id}`",
            "Shape a thing.",
            "destructive, idempotent",
            "path `id`; query optional `after`; body `text`, optional `note`",
        ]
    ]


def test_a_tool_without_arguments_and_hints_keeps_its_cells() -> None:
    """Empty cells are written, so that the columns stay in place."""
    bare = replace(TOOL, arguments=(), hints=Hints(read_only=False, destructive=False, idempotent=False))
    assert rows(render_tools_page([bare]))[0][3:] == ["", ""]


def test_text_of_the_contract_cannot_break_the_page() -> None:
    """Bars and line ends stay inside their cell and markup is shown as text; code spans are left as they are."""
    (row,) = rows(render_tools_page([replace(TOOL, summary="One | two\n<b>&`a<b|c`.")]))
    assert row[2] == r"One \| two &lt;b&gt;&amp;`a<b\|c`."


def test_the_real_page_holds_every_tool_once_and_is_always_the_same() -> None:
    """One line per operation of the Actions document in its order; a second run writes the same bytes."""
    tools = build_tools(read_contract(ROOT), read_contract(ROOT, ACTIONS))
    page = render_tools_page(tools)
    assert [(row[0], row[1]) for row in rows(page)] == [(f"`{t.name}`", f"`{t.method} {t.path}`") for t in tools]
    assert f"\n{len(tools)} tools.\n" in page
    assert page == render_tools_page(build_tools(read_contract(ROOT), read_contract(ROOT, ACTIONS)))
