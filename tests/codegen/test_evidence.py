from pathlib import Path

import pytest

from codegen.evidence import COMMAND, EVIDENCE, Evidence, evidence_table, read_evidence
from codegen.exceptions import UnreadableDocument
from tests.support.documents import ROOT

SEEN = {"listThings": Evidence(answered=True, refused=True, lock_lines=2), "createThing": Evidence(refused=True)}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Marks, counts and order survive; the head names the command that measures."""
    path = tmp_path / "evidence.tsv"
    path.write_text(evidence_table(SEEN), encoding="utf-8")
    assert read_evidence(path) == SEEN
    assert path.read_text(encoding="utf-8").splitlines() == [
        f"# Measured by `{COMMAND}`. Do not edit.",
        "operationId\tanswered\trefused\tlock_lines",
        "listThings\t✔\t✔\t2",
        "createThing\t-\t✔\t0",
    ]


def test_the_shipped_table_is_readable() -> None:
    """The table of this checkout is one that the tests write."""
    text = (ROOT / EVIDENCE).read_text(encoding="utf-8")
    assert evidence_table(read_evidence(ROOT / EVIDENCE)) == text


@pytest.mark.parametrize(
    "old, new, line",
    [
        ("# Measured", "# Written", 1),
        ("\trefused", "\tdenied", 1),
        ("listThings\t✔", "listThings\tyes", 3),
        ("\t2", "\tmany", 3),
        ("\t2", "", 3),
        ("createThing", "listThings", 4),
    ],
)
def test_a_line_that_the_tests_do_not_write_is_named(tmp_path: Path, old: str, new: str, line: int) -> None:
    """A table that was edited by hand is refused with its line and the command that writes it."""
    path = tmp_path / "evidence.tsv"
    path.write_text(evidence_table(SEEN).replace(old, new), encoding="utf-8")
    with pytest.raises(UnreadableDocument, match=rf":{line}: .*{COMMAND}"):
        read_evidence(path)


@pytest.mark.parametrize("content", [None, b"", b"\xff\n\n"])
def test_a_missing_or_unreadable_table_says_how_to_get_one(tmp_path: Path, content: bytes | None) -> None:
    """No table, no text: the command that measures stands in the error."""
    path = tmp_path / "evidence.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableDocument, match=COMMAND):
        read_evidence(path)
