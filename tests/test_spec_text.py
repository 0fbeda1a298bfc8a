"""
Holds the form of the text of spec/openapi.full.yaml (style guide, Spec), and shows that each rule can fail.

Not for: the order of what the text says (`test_spec_layout`). Opens no sockets.
"""

import re
from collections.abc import Callable, Iterator

import pytest
import yaml

from codegen.contract import Bucket, read_contract
from tests.support.documents import ROOT

TEXT = (ROOT / "spec" / "openapi.full.yaml").read_text(encoding="utf-8")
DOCUMENT = read_contract(ROOT).document
MAX_LINES = 11_500
MAX_COLUMNS = 120

TextRule = Callable[[str], list[str]]


def lines_fit(text: str) -> list[str]:
    """No line is longer than the page, except inside the examples at the end."""
    before_examples = text.split("\n  examples:\n")[0].splitlines()
    return [f"line {n}" for n, line in enumerate(before_examples, 1) if len(line) > MAX_COLUMNS]


def text_is_plain(text: str) -> list[str]:
    """No tabs, no blanks at the end of a line, one newline at the end of the file."""
    wrong = [f"line {n}" for n, line in enumerate(text.split("\n"), 1) if "\t" in line or line != line.rstrip()]
    return wrong + ([] if text.endswith("\n") and not text.endswith("\n\n") else ["the end"])


def file_is_short_enough(text: str) -> list[str]:
    """The whole contract stays a file that can be reviewed."""
    count = len(text.splitlines())
    return [] if count <= MAX_LINES else [f"{count} lines"]


def grep_reads_as_the_policy_table(text: str) -> list[str]:
    """The line under each operationId is its bucket, so `grep -A1 operationId:` is the policy table."""
    lines = text.splitlines()
    buckets = "|".join(Bucket)
    return [
        line.strip()
        for line, below in zip(lines, [*lines[1:], ""], strict=True)
        if re.match(r"\s*operationId:", line) and not re.fullmatch(rf"      x-policy-bucket: ({buckets})", below)
    ]


def banners_stand_over_their_tags(text: str) -> list[str]:
    """Each tag's paths begin under a banner with its name, in the order of the table of contents."""
    paths = text.split("\npaths:\n")[1].split("\ncomponents:\n")[0]
    banners = re.findall(r"^  # ── (.+?) ─+$", paths, re.MULTILINE)
    wrong = [] if banners == [tag["name"] for tag in DOCUMENT["tags"]] else banners
    current = ""
    for line in paths.splitlines():
        found = re.match(r"  # ── (.+?) ─+$|      tags: \[(.+)\]$", line)
        if found and found[1]:
            current = found[1]
        elif found and found[2] != current:
            wrong.append(f"{found[2]} under {current}")
    return wrong


def composed(text: str) -> Iterator[tuple[yaml.Node, str]]:
    """Every node of the text with its line."""
    waiting = [yaml.compose(text, Loader=yaml.CSafeLoader)]
    while waiting:
        node = waiting.pop()
        assert node is not None
        yield node, f"line {node.start_mark.line + 1}"
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def flow_is_rare(text: str) -> list[str]:
    """One-line flow serves only a lone key with its value and a list of scalars or references."""
    examples = text.split("\n  examples:\n")[0].count("\n") + 1
    wrong = []
    for node, where in composed(text):
        if node.start_mark.line >= examples:
            continue
        if isinstance(node, yaml.MappingNode) and node.flow_style and len(node.value) > 1:
            wrong.append(where)
        if isinstance(node, yaml.SequenceNode) and node.flow_style:
            wrong += [
                where
                for part in node.value
                if not isinstance(part, yaml.ScalarNode)
                and not (isinstance(part, yaml.MappingNode) and [k.value for k, _ in part.value] == ["$ref"])
            ]
    return wrong


def nothing_is_retyped(text: str) -> list[str]:
    """Keys are text (`"200"` in quotes), and quotes are double."""
    wrong = []
    for node, where in composed(text):
        if isinstance(node, yaml.MappingNode):
            wrong += [where for key, _ in node.value if key.tag != "tag:yaml.org,2002:str"]
        elif isinstance(node, yaml.ScalarNode) and node.style == "'":
            wrong.append(where)
    return wrong


def no_anchors(text: str) -> list[str]:
    """What is written twice is a component, not an anchor or a merge."""
    events = yaml.parse(text, Loader=yaml.CSafeLoader)
    anchored = (event for event in events if getattr(event, "anchor", None) or getattr(event, "value", None) == "<<")
    return [str(event) for event in anchored]


def edit(old: str, new: str) -> Callable[[str], str]:
    """A change of the text in one place, which must be there."""

    def change(text: str) -> str:
        assert old in text, f"{old!r} is not in the document"
        return text.replace(old, new, 1)

    return change


LIST_MODELS = "      operationId: listModels\n"
BROKEN_TEXTS: dict[str, tuple[TextRule, Callable[[str], str]]] = {
    "lines: too long": (lines_fit, edit("\npaths:\n", f"\n# {'x' * MAX_COLUMNS}\npaths:\n")),
    "plain: a tab": (text_is_plain, edit("\npaths:\n", "\n#\tpaths\npaths:\n")),
    "plain: a blank at the end": (text_is_plain, edit("\npaths:\n", "\npaths: \n")),
    "plain: two newlines at the end": (text_is_plain, lambda text: text + "\n"),
    "length": (file_is_short_enough, lambda text: text + "#\n" * MAX_LINES),
    "grep: something between id and bucket": (
        grep_reads_as_the_policy_table,
        edit(LIST_MODELS, LIST_MODELS + "      summary: List.\n"),
    ),
    "grep: a comment between id and bucket": (
        grep_reads_as_the_policy_table,
        edit(LIST_MODELS, LIST_MODELS + "      # why\n"),
    ),
    "banner: missing": (banners_stand_over_their_tags, edit("  # ── Models ─", "  # Models ─")),
    "banner: of another tag": (banners_stand_over_their_tags, edit("  # ── Models ─", "  # ── Model ─")),
    "flow: two keys": (flow_is_rare, edit("\npaths:\n", "\nx: {a: 1, b: 2}\npaths:\n")),
    "flow: a list of mappings": (flow_is_rare, edit("\npaths:\n", "\nx: [{a: 1}]\npaths:\n")),
    "retyped: a status without quotes": (nothing_is_retyped, edit('        "200":', "        200:")),
    "retyped: single quotes": (nothing_is_retyped, edit("\npaths:\n", "\nx: 'a'\npaths:\n")),
    "anchors: an anchor": (no_anchors, edit(LIST_MODELS, "      operationId: &id listModels\n")),
    "anchors: a merge": (no_anchors, edit("\npaths:\n", "\nx: {<<: {a: 1}}\npaths:\n")),
}
TEXT_RULES = {rule: None for rule, _ in BROKEN_TEXTS.values()}


@pytest.mark.parametrize("rule", TEXT_RULES, ids=lambda rule: rule.__name__)
def test_the_text_keeps(rule: TextRule) -> None:
    """The file follows the rule that the function's docstring states."""
    assert rule(TEXT) == []


@pytest.mark.parametrize("rule, change", BROKEN_TEXTS.values(), ids=BROKEN_TEXTS.keys())
def test_a_text_out_of_form_is_found(rule: TextRule, change: Callable[[str], str]) -> None:
    """The rule finds what breaks it in an edited copy."""
    assert rule(change(TEXT)) != []
