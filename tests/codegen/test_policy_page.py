import re

from codegen.contract import build_contract, read_contract
from codegen.policy_page import MULTIPART_TITLE, render_policy_page
from tests.support.documents import ROOT, document, operation

MULTIPART = {"requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object"}}}}}
WRAPPED = {
    **MULTIPART,
    "x-policy-bucket": "WRAPPER_REQUIRED",
    "x-policy-reason": "Multipart.",
    "x-policy-wrapper": "uploadThing",
    "x-policy-review": None,
    "x-sunset": "2026-11-30",
    "deprecated": True,
}
HIDDEN = {
    **MULTIPART,
    "x-policy-bucket": "EXCLUDED",
    "x-policy-reason": "Binary.",
    "x-policy-exclusion": "hidden",
    "x-policy-review": None,
    "tags": ["Others"],
}
UNWRAPPED = {
    **MULTIPART,
    "x-policy-bucket": "WRAPPER_REQUIRED",
    "x-policy-reason": "Nobody asks for it.",
    "x-policy-review": None,
}
PAGE = render_policy_page(
    build_contract(
        "sample",
        document(
            {
                "/v1/things": {"get": operation(), "post": operation("createThing", WRAPPED)},
                "/v1/things/parts": {"post": operation("createPart", UNWRAPPED)},
                "/v1/others": {"get": operation("downloadOther", HIDDEN)},
            },
            tags=[{"name": "Things", "x-policy-mirrored": True}, {"name": "Others"}],
        ),
    )
)


def table(lines: list[str]) -> list[list[str]]:
    """Cells of the table lines, without the separators."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if not set("".join(row)) <= set("-:")]


def test_the_page_counts_each_verdict_and_their_sum() -> None:
    """The table on top says how many operations each bucket and exclusion holds; empty ones are left out."""
    top = table(PAGE.split("\n## ")[0].splitlines())
    assert top == [
        ["Bucket", "Operations"],
        ["PROXY_HARNESS", "1"],
        ["WRAPPER_REQUIRED", "2"],
        ["EXCLUDED (hidden)", "1"],
        ["all", "4"],
    ]


def test_each_tag_has_its_table_with_the_reason_of_every_decision() -> None:
    """Per tag, in the document's order: each operation with verdict, surfaces, reason or review, wrapper and end."""
    things, others = (table(part.splitlines()) for part in PAGE.split("\n## ")[2:])
    assert things == [
        ["Operation", "operationId", "Bucket", "Reached by", "Since", "Why"],
        [
            "`GET /v1/things`",
            "`retrieveThing`",
            "PROXY_HARNESS",
            "Proxy, SDK clients",
            "2026-11-22",
            "review `json_read`",
        ],
        [
            "`POST /v1/things`",
            "`createThing`",
            "WRAPPER_REQUIRED",
            "Actions by its wrapper, SDK clients",
            "",
            "Multipart. Wrapper: `uploadThing`. Ends 2026-11-30.",
        ],
        [
            "`POST /v1/things/parts`",
            "`createPart`",
            "WRAPPER_REQUIRED",
            "SDK clients",
            "",
            "Nobody asks for it.",
        ],
    ]
    assert others[1] == ["`GET /v1/others`", "`downloadOther`", "EXCLUDED (hidden)", "SDK clients", "", "Binary."]


def test_each_multipart_operation_of_the_upstream_has_a_wrapper_or_a_reason() -> None:
    """A table of its own says what assistants get in place of it; the relay's own operations are not in it."""
    title, *lines = PAGE.split("\n## ")[1].splitlines()
    assert title == MULTIPART_TITLE
    assert "2 operations, 1 with a wrapper." in lines[1]
    assert table(lines) == [
        ["Operation", "operationId", "Wrapper", "Why there is none"],
        ["`POST /v1/things`", "`createThing`", "`uploadThing`", ""],
        ["`POST /v1/things/parts`", "`createPart`", "", "Nobody asks for it."],
    ]


def test_where_there_is_no_wrapper_the_reason_says_why_none_is_needed() -> None:
    """That a body is multipart is why a wrapper is needed; it is no reason for having none."""
    contract = read_contract(ROOT)
    found = {operation.id: operation for operation in contract if operation.mirrored and operation.multipart}
    rows = table(render_policy_page(contract).split("\n## ")[1].splitlines())[1:]
    assert [row[1].strip("`") for row in rows] == list(found)
    assert all(bool(row[2]) != bool(row[3]) for row in rows)
    of_wrapped = {operation.reason for operation in found.values() if operation.wrapper}
    assert [row[1] for row in rows if row[3] in of_wrapped] == []


def test_the_real_page_shows_every_operation_once_with_a_reason() -> None:
    """The page of this contract is complete: each operation once, none without a why, unless it goes to assistants."""
    contract = read_contract(ROOT)
    body = table("\n".join(render_policy_page(contract).split("\n## ")[2:]).splitlines())
    rows = [row for row in body if row[0] != "Operation"]
    assert [row[1].strip("`") for row in rows] == list(contract.operations)
    assert all(len(row) == 6 for row in rows)
    assert [row[1] for row in rows if not row[5] and row[2] != "ACTIONS_DIRECT"] == []
    assert {row[1] for row in rows if row[3] == "nobody"} == {f"`{o.id}`" for o in contract if not o.served}
    assert {row[1] for row in rows if row[4]} == {f"`{o.id}`" for o in contract if o.review}


def test_the_counts_of_the_real_page_add_up() -> None:
    """The counts of this contract's page sum to the number of its operations."""
    counts = dict(table(render_policy_page(read_contract(ROOT)).split("\n## ")[0].splitlines())[1:])
    total = int(counts.pop("all"))
    assert sum(map(int, counts.values())) == total
    assert all(re.fullmatch(r"[A-Z_]+( \([a-z]+\))?", verdict) for verdict in counts)
