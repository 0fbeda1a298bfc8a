import shutil
from pathlib import Path

import pytest
import yaml

from codegen.actions_document import FILE
from codegen.contract import ACTIONS, read_contract
from codegen.exceptions import ContractError, InvalidContract
from codegen.importable_document import WRITERS, importable_document
from codegen.lint import lint
from codegen.publication import published_document
from tests.support.documents import ROOT

URL = "https://relay.example.org"
# What `contract lint` says no to in `servers`, as an address of a relay.
REFUSED = (
    "",
    "relay.example.org",
    "//relay.example.org",
    "http://relay.example.org",
    "https://Relay.example.org",
    "https://relay.example.org/",
    "https://relay.example.org/v2/",
    "https://relay.example.org:443",
    "https://relay.example.org:8443",
    "https://user@relay.example.org",
    "https://relay.example.org?key=1",
    "https://relay.example.org#top",
    "https://relay.example.org ",
    "https://{host}",
    "https://localhost",
    "https://relay",
    "https://127.0.0.1",
    "https://10.0.0.7",
    "https://169.254.169.254",
    "https://relay.internal",
    "https://relay.local",
)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("url", [URL, f"{URL}/team-a"])
def test_the_document_differs_from_the_committed_one_in_its_server_alone(url: str, suffix: str) -> None:
    """Whatever the form, it is the published Actions document with the given address as its only server."""
    written = yaml.safe_load(importable_document(ROOT, url, suffix))
    assert written == {**published_document(read_contract(ROOT, ACTIONS)), "servers": [{"url": url}]}


@pytest.mark.parametrize("suffix", WRITERS)
def test_lint_finds_nothing_in_what_was_written(tmp_path: Path, suffix: str) -> None:
    """Put in the place of the committed document, `contract lint` passes it; nothing is abbreviated by an alias."""
    content = importable_document(ROOT, URL, suffix)
    (tmp_path / "spec").mkdir()
    (tmp_path / FILE).write_text(content, encoding="utf-8")
    assert lint(tmp_path) == []
    assert "&id0" not in content


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_importers_refuse_is_refused(url: str) -> None:
    """The message names the option, the address and what to write instead."""
    with pytest.raises(ContractError) as caught:
        importable_document(ROOT, url)
    said = str(caught.value)
    assert said.startswith(f"--public-url: `{url}` ")
    assert said.endswith((". Name the relay's public host.", "without a slash at the end."))
    assert "\n" not in said


def test_another_form_is_refused() -> None:
    """A file's ending says what is written into it; one that says nothing known is refused."""
    with pytest.raises(ContractError, match=r"must end in \.json, \.yaml, \.yml"):
        importable_document(ROOT, URL, ".txt")


def test_a_document_that_importers_refuse_is_not_handed_out(tmp_path: Path) -> None:
    """What else `contract lint` finds stands in the error, and there is no document."""
    shutil.copytree(ROOT / "spec", tmp_path / "spec")
    path = tmp_path / FILE
    path.write_text(path.read_text(encoding="utf-8").replace("      x-openai-isConsequential: false\n", "", 1))
    with pytest.raises(InvalidContract, match="`x-openai-isConsequential` is not set"):
        importable_document(tmp_path, URL)
