from pathlib import Path

import pytest

from codegen.exceptions import UnreadableDocument
from codegen.handler_sources import read_handlers

SOURCE = """
import json as encoding
from handlers.runtime.messages import Reply

LIMIT = 5
size: int = 6


async def retrieve_thing(request) -> Reply: ...
async def retrieve_other(request) -> "messages.Reply": ...
async def wait() -> None: ...
async def _private(request) -> Reply: ...
def sync(request) -> Reply: ...
class Inside:
    async def method(self) -> Reply: ...
"""


def write(root: Path, **modules: str) -> Path:
    """Write modules and packages of handlers; `__` in a name stands for a slash."""
    for name, text in modules.items():
        path = root / "handlers" / f"{name.replace('__', '/', 1) if name != 'init' else '__init__'}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_only_public_coroutines_of_the_top_level_count(tmp_path: Path) -> None:
    """Private, synchronous and nested functions are no handlers; those that return a reply are told apart."""
    module = read_handlers(write(tmp_path, things=SOURCE, init=""))["things"]
    assert (module.name, module.file) == ("handlers.things", "handlers/things.py")
    assert module.coroutines == ("retrieve_thing", "retrieve_other", "wait")
    assert module.replying == ("retrieve_thing", "retrieve_other")
    assert {"encoding", "Reply", "LIMIT", "size", "sync", "Inside", "_private"} <= module.names
    assert "method" not in module.names


def test_packages_are_modules_and_what_lies_inside_them_is_not(tmp_path: Path) -> None:
    """As Python imports them: `handlers.things` may be a folder."""
    found = read_handlers(write(tmp_path, plain="", things____init__=SOURCE, things__inner=SOURCE))
    assert list(found) == ["plain", "things"]
    assert found["things"].file == "handlers/things/__init__.py"


@pytest.mark.parametrize("text", ["async def (", "\0"])
def test_what_is_not_python_is_named(text: str, tmp_path: Path) -> None:
    """A module that Python could not read is an error with its path."""
    with pytest.raises(UnreadableDocument, match=r"things\.py: must be readable Python"):
        read_handlers(write(tmp_path, things=text))


def test_a_folder_without_handlers_says_where_to_run(tmp_path: Path) -> None:
    """Outside a checkout nothing could be found, and everything would look uncovered."""
    with pytest.raises(UnreadableDocument, match="Run this in the project's folder"):
        read_handlers(tmp_path)
