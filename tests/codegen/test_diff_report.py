import re
from typing import Any

import orjson
import pytest

from codegen.contract_diff import ContractDiff, compare
from codegen.diff_gate import EVIDENCE_READABLE, gate
from codegen.diff_report import Report
from codegen.findings import Finding
from tests.support.contract_sides import between, side
from tests.support.documents import document, operation

HIDDEN: dict[str, Any] = {
    "x-policy-bucket": "EXCLUDED",
    "x-policy-exclusion": "hidden",
    "x-policy-reason": "For people.",
    "x-policy-review": None,
}
HOSTILE = "</details><img src=x>`|[a](//b)\n# @everybody"
BROKEN = Finding(EVIDENCE_READABLE, "spec", 0, "cases and proposals", "a.md is broken", "Correct it")


def report(diff: ContractDiff) -> Report:
    """A diff with its gate."""
    return Report(diff, gate(diff))


def things(count: int, **changes: Any) -> dict[str, Any]:
    """A document with many operations."""
    return document({f"/v1/t{n}": {"get": operation(f"t{n}", changes)} for n in range(count)})


def test_the_verdict_comes_first_then_the_gate_then_who_reaches_more() -> None:
    """A reader sees what matters without scrolling."""
    before = document({"/v1/things": {"get": operation(changes=HIDDEN)}})
    after = document({"/v1/things": {"get": operation()}}, info={"title": "things", "version": "1.3.0"})
    text = report(compare(side(before), side(after))).to_markdown()
    marks = [
        "# Contract diff",
        "`minor: 1.2.3 -> 1.3.0`",
        "**Gate: fails**",
        "## Somebody reaches more",
        "## Decisions",
    ]
    positions = [text.index(mark) for mark in marks]
    assert positions == sorted(positions)
    assert "`GET /v1/things` `retrieveThing`: `Proxy`" in text


def test_nothing_is_said_in_one_line() -> None:
    """No empty sections stand in the report of a change that is none."""
    text = report(between(document(), document())).to_markdown()
    assert "`no change: 1.2.3 -> 1.2.3`" in text
    assert "Nothing has changed." in text
    assert "##" not in text


def test_long_lists_and_texts_are_folded() -> None:
    """A comment stays short; texts are folded even when they are few."""
    many = report(between(document({}), things(40))).to_markdown()
    assert "<details><summary>Show 40</summary>" in many
    few = report(between(things(2), things(2, summary="Another."))).to_markdown()
    assert "## Texts only (2)" in few
    assert "<details><summary>Show 2</summary>" in few
    assert "<details>" not in report(between(document({}), things(3))).to_markdown()


def test_a_report_fits_into_a_comment_and_says_what_it_leaves_out() -> None:
    """GitHub takes 65,536 characters; the JSON form leaves nothing out."""
    long_name = "x" * 180
    tags = [{"name": "Things", "x-policy-mirrored": True}]
    paths = {f"/v1/{long_name}{n}": {"get": operation(f"t{n}", HIDDEN)} for n in range(400)}
    found = report(between(document({}), document(paths, tags=tags)))
    text = found.to_markdown()
    assert len(text) < 65_536
    assert "more are in the JSON form." in text
    assert len(orjson.loads(found.to_json())["changes"]) == 400


def test_a_shared_component_names_whom_it_reaches() -> None:
    """A few operations by name, the others by number."""

    def sample(bound: int) -> dict[str, Any]:
        body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Name"}}}}
        paths = {f"/v1/t{n}": {"post": operation(f"t{n}", {"requestBody": body})} for n in range(9)}
        return document(paths, components={"schemas": {"Name": {"type": "string", "maxLength": bound}}})

    text = report(between(sample(9), sample(5))).to_markdown()
    assert "- `schemas/Name`: major `maxLength 9 -> 5`; reaches `t0`, `t1`, `t2`, `t3`, `t4`, `t5` and 3 more" in text


def test_changes_of_the_actions_document_are_labelled() -> None:
    """Two documents may hold the same operation."""
    diff = compare(side(document()), side(document(), document(things(1)["paths"])))
    assert "`GET /v1/t0` `t0` (Actions document): minor" in report(diff).to_markdown()


def test_texts_of_a_document_cannot_leave_their_place() -> None:
    """Whoever opens a pull request chooses names and values; none of them becomes markup, a mention or a new line."""
    schema = {"type": "object", "properties": {HOSTILE: {"enum": [HOSTILE]}}}
    hostile = {"requestBody": {"content": {HOSTILE: {"schema": schema}}}, "operationId": HOSTILE}
    after = document({f"/v1/{HOSTILE}": {"get": operation(changes={**hostile, "security": []})}})
    diff = compare(side(document()), side(after, label=HOSTILE))
    problem = Finding("rule", "file", 0, HOSTILE, HOSTILE, HOSTILE)
    text = Report(diff, [*gate(diff), problem]).to_markdown()
    outside_code = re.sub(r"`[^`\n]*`", "", text)
    for mark in ("<img", "</details>", "](", "@everybody", "\n# @"):
        assert mark not in outside_code


def test_a_very_long_detail_is_cut_for_people_only() -> None:
    """A list of a thousand values does not fill the page."""

    def sample(**schema: Any) -> dict[str, Any]:
        body = {"content": {"application/json": {"schema": schema}}}
        return document({"/v1/things": {"post": operation(changes={"requestBody": body})}})

    found = report(between(sample(), sample(enum=[f"value{n}" for n in range(1000)])))
    assert "value999" not in found.to_markdown()
    assert "value999" in found.to_json()


@pytest.mark.parametrize("findings, code", [([], 0), ([Finding("a", "", 0, "", "", "")], 1), ([BROKEN], 2)])
def test_the_exit_code_is_the_gates(findings: list[Finding], code: int) -> None:
    """0 passes, 1 fails, 2 cannot be decided; the JSON form carries it."""
    found = Report(between(document(), document()), findings)
    assert found.exit_code == code
    record = orjson.loads(found.to_json())
    assert (record["exit_code"], record["passes"]) == (code, not findings)


def test_the_json_form_holds_every_field() -> None:
    """Programs get levels, versions, findings and changes under stable names."""
    before = document({"/v1/things": {"get": operation(changes=HIDDEN)}})
    record = orjson.loads(report(between(before, document())).to_json())
    assert {key: record[key] for key in ("level", "base_version", "head_version", "needed_version")} == {
        "level": "minor",
        "base_version": "1.2.3",
        "head_version": "1.2.3",
        "needed_version": "1.3.0",
    }
    assert record["changes"] == [
        {
            "kind": "bucket-moved",
            "level": "minor",
            "document": "openapi.full",
            "subject": "GET /v1/things",
            "detail": "EXCLUDED hidden -> PROXY_HARNESS; gains Proxy",
            "operations": ["retrieveThing"],
            "widens": ["Proxy"],
        }
    ]
    assert {"rule", "file", "subject", "problem", "next_step"} == set(record["findings"][0])
