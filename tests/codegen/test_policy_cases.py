"""Policy cases are read as they stand, each with its place; what is none is refused with its line. No sockets."""

import re
from pathlib import Path

import orjson
import pytest

from codegen.contract import Scope
from codegen.exceptions import UnreadableDocument
from codegen.policy_cases import CASES, CaseFiles, Surface, read_policy_cases
from tests.support.documents import POLICY_SCHEMA, ROOT

GOOD = """\
situation: A team reads its things.
surface: proxy
scopes: [proxy, canonical]
cases:
  - operation: listThings
    method: GET
    path: /v1/things
    query: {limit: 2, day: 2026-11-22}
    verdict: allowed
  - operation: createThing
    method: POST
    path: /v1/things
    body:
      name: One
    verdict: invalid_body
    why: It needs more than a name.
"""


@pytest.fixture
def folder(checkout: Path) -> Path:
    """The folder of the cases in a small checkout; one file is there."""
    (checkout / CASES).mkdir(parents=True)
    (checkout / CASES / "team_reads_its_things.yaml").write_text(GOOD, encoding="utf-8")
    return checkout / CASES


def test_a_case_is_read_as_it_stands(checkout: Path, folder: Path) -> None:
    """Every field of file and case arrives, what is absent is empty, and the case knows its place."""
    first, second = read_policy_cases(checkout)
    assert (first.file, first.line, first.index) == (f"{CASES}/team_reads_its_things.yaml", 5, 1)
    assert (first.situation, first.surface) == ("A team reads its things.", Surface.PROXY)
    assert first.scopes == {Scope.PROXY, Scope.CANONICAL}
    assert (first.operation, first.method, first.path) == ("listThings", "GET", "/v1/things")
    assert first.query == {"limit": 2, "day": "2026-11-22"}
    assert (first.body, first.why, first.allowed) == (None, "", True)
    assert (second.line, second.id) == (10, "team_reads_its_things::2")
    assert (second.query, second.body, second.allowed) == ({}, {"name": "One"}, False)
    assert second.why == "It needs more than a name."


def test_files_are_read_in_the_order_of_their_names(checkout: Path, folder: Path) -> None:
    """The same checkout gives the same list; hidden files, as editors leave them, are no cases."""
    (folder / "a_team_counts.yaml").write_bytes((folder / "team_reads_its_things.yaml").read_bytes())
    (folder / ".team_reads_its_things.yaml.swp").write_bytes(b"\0")
    ids = [case.id for case in read_policy_cases(checkout)]
    assert ids == ["a_team_counts::1", "a_team_counts::2", "team_reads_its_things::1", "team_reads_its_things::2"]


def test_without_a_folder_there_are_no_cases(checkout: Path) -> None:
    """A checkout without cases is read; what it lacks is for the rule to say."""
    assert read_policy_cases(checkout) == []


WRONG: dict[str, tuple[str, str, int, str]] = {
    "no verdict": ("    verdict: allowed\n", "", 5, "`cases.0.verdict` must be given"),
    "no situation": ("situation: A team reads its things.\n", "", 1, "`situation` must be given"),
    "a field too many": ("    method: POST\n", "    method: POST\n    verb: POST\n", 10, "`verb` must not stand in"),
    "a field too many above": ("surface: proxy\n", "surface: proxy\nowner: team\n", 1, "`owner` must not stand in"),
    "another surface": ("surface: proxy", "surface: socket", 2, "`surface`"),
    "another scope": ("canonical]", "admin]", 3, "`scopes.1`"),
    "a path that is a list": ("path: /v1/things\n    query", "path: [v1, things]\n    query", 7, "`cases.0.path`"),
    "a verdict that is a sentence": ("invalid_body", "Refused.", 15, "`cases.1.verdict`"),
    "no cases": (GOOD.partition("cases:")[2], " []\n", 4, "`cases`"),
}


@pytest.mark.parametrize("old, new, line, problem", WRONG.values(), ids=WRONG.keys())
def test_what_the_schema_refuses_is_named_with_its_line(
    checkout: Path, folder: Path, old: str, new: str, line: int, problem: str
) -> None:
    """The message says in which file and on which line the first thing wrong stands."""
    path = folder / "team_reads_its_things.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UnreadableDocument, match=re.escape(f"{path}:{line}: {problem}")):
        read_policy_cases(checkout)


@pytest.mark.parametrize("name", ["things.yml", "Things.yaml", "team-reads.yaml", "team reads.yaml", "README.md"])
def test_a_file_that_would_be_overlooked_is_refused(checkout: Path, folder: Path, name: str) -> None:
    """Whatever else lies in the folder stops the reader: a case that nobody runs is worse than none."""
    (folder / name).write_text(GOOD, encoding="utf-8")
    with pytest.raises(UnreadableDocument, match="snake_case"):
        read_policy_cases(checkout)


def test_a_file_that_is_no_yaml_is_refused(checkout: Path, folder: Path) -> None:
    """A damaged file and a folder with the name of one end in a message instead of a traceback."""
    (folder / "team_reads_its_things.yaml").write_text("cases: [", encoding="utf-8")
    with pytest.raises(UnreadableDocument, match="is not YAML"):
        read_policy_cases(checkout)
    (folder / "team_reads_its_things.yaml").unlink()
    (folder / "team_reads_its_things.yaml").mkdir()
    with pytest.raises(UnreadableDocument, match="cannot be read"):
        read_policy_cases(checkout)


def test_a_key_that_json_does_not_have_is_refused(checkout: Path, folder: Path) -> None:
    """YAML reads `yes` as a truth value; the message says what to do."""
    (folder / "team_reads_its_things.yaml").write_text(GOOD.replace("name: One", "yes: 1"), encoding="utf-8")
    with pytest.raises(UnreadableDocument, match="put it in quotes"):
        read_policy_cases(checkout)


def test_a_case_may_be_json(checkout: Path, folder: Path) -> None:
    """Lines are found whatever the style of the file."""
    case = {"operation": "listThings", "method": "GET", "path": "/v1/things", "verdict": "allowed"}
    value = {"situation": "A team reads.", "surface": "direct", "scopes": [], "cases": [case, case]}
    path = folder / "a_team_reads.yaml"
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    assert [c.line for c in CaseFiles(checkout, POLICY_SCHEMA).read(path)] == [6, 12]


def test_no_shipped_request_stands_twice() -> None:
    """Each case of the project says something that no other says."""
    cases = read_policy_cases(ROOT)
    asked = [(c.surface, c.scopes, c.method, c.path, str(c.query), str(c.body)) for c in cases]
    assert [case.id for case, request in zip(cases, asked, strict=True) if asked.count(request) > 1] == []
