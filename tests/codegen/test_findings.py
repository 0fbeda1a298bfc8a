"""Findings are shown to people and to GitHub, each with its place and the next step."""

from pathlib import Path

from codegen.findings import Finding, operation_lines, to_github, to_text
from codegen.reader import read_yaml

ROOT = Path(__file__).parents[2]
LATER = Finding("no-wildcard", "spec/a.yaml", 9, "GET /v1/*", "a wildcard, here: 100%", "Write one path per operation")
EARLIER = Finding("bucket-total", "spec/a.yaml", 3, "GET /v1/a", "no bucket", "Add `x-policy-bucket`")
WHOLE = Finding("bucket-total", "spec/a.yaml", 0, "the document", "no paths", "Write some")


def test_people_read_findings_by_rule_with_place_and_next_step() -> None:
    """Each rule stands once, above its places; a finding about the whole file names no line."""
    assert to_text([LATER, EARLIER, WHOLE]).splitlines() == [
        "bucket-total",
        "  spec/a.yaml: the document",
        "    no paths. Write some.",
        "  spec/a.yaml:3: GET /v1/a",
        "    no bucket. Add `x-policy-bucket`.",
        "no-wildcard",
        "  spec/a.yaml:9: GET /v1/*",
        "    a wildcard, here: 100%. Write one path per operation.",
    ]


def test_nothing_found_says_nothing() -> None:
    """Without findings there is no output in either form."""
    assert to_text([]) == to_github([]) == ""


def test_github_gets_one_escaped_annotation_each() -> None:
    """Colons, commas, line breaks and percent signs cannot break the command out of its form."""
    odd = Finding("a,b:c", "spec/a.yaml", 0, "x\ny", "50%", "Go on")
    assert to_github([LATER, odd]) == (
        "::error file=spec/a.yaml,line=1,title=a%2Cb%3Ac::x%0Ay: 50%25. Go on.\n"
        "::error file=spec/a.yaml,line=9,title=no-wildcard::"
        "GET /v1/*: a wildcard, here: 100%25. Write one path per operation.\n"
    )


def test_every_operation_of_the_contract_has_its_line() -> None:
    """The line of an operation is the line of its method, directly above its operationId."""
    for name in ("openapi.full.yaml", "openapi.actions.yaml"):
        path = ROOT / "spec" / name
        text, document = path.read_text(encoding="utf-8"), read_yaml(path)
        lines = operation_lines(text, document)
        rows = text.splitlines()
        expected = {
            (p, m): item[m]["operationId"] for p, item in document["paths"].items() for m in item if m != "parameters"
        }
        assert {key: rows[line].split(": ")[1] for key, line in lines.items()} == expected
