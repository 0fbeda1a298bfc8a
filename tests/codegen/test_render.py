from pathlib import Path

import orjson
import pytest

from codegen.contract import ACTIONS, FULL, load_contract
from codegen.exceptions import ContractError, InvalidContract
from codegen.pin import LOCK
from codegen.reader import read_yaml
from codegen.render import GENERATED, MAX_DIFF_LINES, render, stale, write
from tests.support.documents import ROOT, document, operation

FILES = {"openapi.full.json", "openapi.actions.json", "policy.tsv", "policy.md", "policy.html", "tools.md"}


def rewrite(checkout: Path, count: int = 1) -> None:
    """Give the full document of a checkout more operations, and end the one that it has."""
    ended = operation(changes={"deprecated": True, "x-sunset": "2026-12-11"})
    paths = {"/v1/things": {"get": ended}} | {
        f"/v1/other_{number}": {"get": operation(f"retrieveOther{number}")} for number in range(count)
    }
    (checkout / "spec" / "openapi.full.yaml").write_bytes(orjson.dumps(document(paths)))


def folder_of(checkout: Path) -> dict[str, bytes]:
    """Name and content of everything generated."""
    return {path.name: path.read_bytes() for path in (checkout / GENERATED).glob("*")}


def test_the_checkout_is_up_to_date() -> None:
    """What is committed in spec/generated is what the contract says now."""
    assert stale(ROOT) == {}


def test_writing_makes_every_file_and_nothing_else(checkout: Path) -> None:
    """The first run writes all files, says which, and leaves nothing stale."""
    assert set(write(checkout)) == FILES
    assert set(folder_of(checkout)) == FILES
    assert stale(checkout) == {}


def test_writing_twice_changes_nothing(checkout: Path) -> None:
    """A second run reports no change and leaves every byte as it is: the output holds no date and no chance."""
    write(checkout)
    before = folder_of(checkout)
    assert write(checkout) == []
    assert folder_of(checkout) == before


def test_generated_documents_load_as_the_runtime_loads_them(checkout: Path) -> None:
    """The generated JSON of both documents is the hand-written document, keys in its order."""
    write(checkout)
    for name in (FULL, ACTIONS):
        written = read_yaml(checkout / "spec" / f"{name}.yaml")
        loaded = load_contract(checkout / GENERATED, name).document
        assert loaded == written
        assert list(loaded) == list(written)


def test_a_changed_contract_makes_its_files_stale_with_a_diff(checkout: Path) -> None:
    """After a change every file that depends on it is reported with the lines that differ, and only those files."""
    write(checkout)
    rewrite(checkout)
    diffs = stale(checkout)
    assert set(diffs) == FILES - {"openapi.actions.json", "tools.md"}
    assert "-GET\t/v1/things\t" in diffs["policy.tsv"]
    assert "+GET\t/v1/other_0\t" in diffs["policy.tsv"]
    assert set(write(checkout)) == set(diffs)
    assert stale(checkout) == {}


def test_changed_actions_make_the_page_of_tools_stale(checkout: Path) -> None:
    """What assistants read of an operation stands in their document and on that page, and nowhere else."""
    write(checkout)
    changed = document({"/v1/things": {"get": operation(changes={"summary": "Look up a thing."})}})
    (checkout / "spec" / "openapi.actions.yaml").write_bytes(orjson.dumps(changed))
    diffs = stale(checkout)
    assert set(diffs) == {"openapi.actions.json", "tools.md"}
    assert "Look up a thing." in diffs["tools.md"]


def test_what_cannot_become_a_tool_writes_nothing(checkout: Path) -> None:
    """An operation that the Actions document alone has stops the command with a word about it."""
    lonely = document({"/v1/things": {"get": operation("retrieveOther")}})
    (checkout / "spec" / "openapi.actions.yaml").write_bytes(orjson.dumps(lonely))
    with pytest.raises(InvalidContract, match=r"GET /v1/things: the full document has no such operation"):
        write(checkout)
    assert not (checkout / GENERATED).exists()


def test_missing_and_edited_files_are_stale(checkout: Path) -> None:
    """A deleted file and one edited by hand are both reported, then mended."""
    write(checkout)
    (checkout / GENERATED / "policy.md").unlink()
    with (checkout / GENERATED / "policy.tsv").open("a", encoding="utf-8") as table:
        table.write("by hand\n")
    assert set(stale(checkout)) == {"policy.md", "policy.tsv"}
    assert set(write(checkout)) == {"policy.md", "policy.tsv"}
    assert stale(checkout) == {}


def test_a_stray_file_is_reported_and_deleted(checkout: Path) -> None:
    """What no generator writes does not stay in the folder."""
    write(checkout)
    (checkout / GENERATED / "old.json").write_text("{}", encoding="utf-8")
    assert stale(checkout) == {"old.json": "old.json: is not generated any more\n"}
    assert write(checkout) == ["old.json"]
    assert set(folder_of(checkout)) == FILES


def test_a_new_pin_makes_the_page_stale(checkout: Path) -> None:
    """The page counts the lines of the lock file, so a change there is a change of the page and of nothing else."""
    write(checkout)
    with (checkout / LOCK).open("a", encoding="utf-8") as lock:
        lock.write("GET\t/v1/things?beta=true\tretrieveBetaThing\t-\tapplication/json\t-\n")
    assert set(stale(checkout)) == {"policy.html"}


def test_without_a_lock_file_nothing_is_written(checkout: Path) -> None:
    """The page cannot say what is pinned when nothing is; the message names the command that pins."""
    (checkout / LOCK).unlink()
    with pytest.raises(ContractError, match="run `contract pin FILE`"):
        write(checkout)
    assert not (checkout / GENERATED).exists()


def test_a_long_diff_is_cut_with_a_word_about_the_rest(checkout: Path) -> None:
    """A diff stays readable in a terminal and says how much it leaves out."""
    write(checkout)
    rewrite(checkout, count=3 * MAX_DIFF_LINES)
    lines = stale(checkout)["policy.tsv"].splitlines()
    assert len(lines) == MAX_DIFF_LINES + 1
    assert lines[-1].startswith("… ")


def test_a_broken_contract_writes_nothing(checkout: Path) -> None:
    """When one document breaks a rule the generated files stay as they were, all of them."""
    write(checkout)
    before = folder_of(checkout)
    rewrite(checkout)
    broken = document({"/v1/things": {"get": operation(changes={"x-policy-bucket": None, "x-policy-review": None})}})
    (checkout / "spec" / "openapi.actions.yaml").write_bytes(orjson.dumps(broken))
    with pytest.raises(ContractError, match=r"spec/openapi\.actions\.yaml: GET /v1/things: unclassified"):
        write(checkout)
    assert folder_of(checkout) == before


def test_generated_text_ends_with_one_newline_and_says_not_to_edit_it() -> None:
    """Every file ends as text files do; those that take comments name their generator and source."""
    files = render(ROOT)
    assert set(files) == FILES
    assert all(content.endswith("\n") and not content.endswith("\n\n") for content in files.values())
    assert "Written by `contract render` from spec/openapi.full.yaml. Do not edit." in files["policy.md"]
    assert (
        "Written by `contract render` from spec/openapi.full.yaml and spec/openapi.actions.yaml. Do not edit."
        in files["tools.md"]
    )
    assert (
        "Written by `contract render` from spec/openapi.full.yaml and codegen/pages. Do not edit."
        in (files["policy.html"])
    )
