"""
Imports libraries without those of their parts that a serving relay never runs: some 14 MB where all of them are there.

Not for: tests and other commands, which import the same libraries whole.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Optional where they are imported: to their importers they are not installed.
_ABSENT = (
    "flask",  # by Connexion, for applications of that framework
    "httpx._main",  # by httpx: its command line, with rich and pygments
    "rich",  # by structlog, for tracebacks in colour; the relay's are plain
    "structlog._greenlets",  # by structlog, for what is bound to a thread; with greenlet, which only a store needs
)
# Imported as modules, for functions that are not called; who calls one after all gets the real one.
_LATER = (
    "jinja2",  # by Connexion, to fill in a document that it reads from a file
    "requests",  # by Connexion, to fetch what a document refers to on other servers
)
# Imported for a class or function that is only named: any name found there is an empty class.
_STAND_INS = (
    "connexion.middleware.swagger_ui",  # in Connexion's own list of middleware, which is not used
    "starlette.testclient",  # by Connexion's applications, for tests of them; with a second HTTP client
    "uvicorn.supervisors",  # by uvicorn's command line; the relay looks after its workers itself
    "werkzeug.serving",  # by werkzeug, of which Connexion names a class: a server for development
    "werkzeug.test",
)


@contextmanager
def lean_imports() -> Iterator[None]:
    """
    Leave these parts out of what is imported in the block.

    What has been imported before stays whole, and after the block everybody who asks for one of them gets it.
    """
    instead = {
        **dict.fromkeys(_ABSENT),  # `None` is Python's sign for a module that must not be found
        **{name: _Later(name) for name in _LATER},
        **{name: _StandIn(name) for name in _STAND_INS},
    }
    with _left_out(instead):
        yield


@contextmanager
def stand_ins(*names: str) -> Iterator[None]:
    """
    Let empty classes stand for whatever is imported from these modules in the block, as far as they are not there yet.

    Args:
        names: Of modules that nobody else imports meanwhile.
    """
    with _left_out({name: _StandIn(name) for name in names}):
        yield


@contextmanager
def _left_out(instead: Mapping[str, ModuleType | None]) -> Iterator[None]:
    modules: dict[str, Any] = sys.modules
    left_out = {name: module for name, module in instead.items() if name not in modules}
    modules.update(left_out)
    try:
        yield
    finally:
        for name, module in left_out.items():
            if name in modules and modules[name] is module:
                del modules[name]


class _StandIn(ModuleType):
    """A module of which nothing is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import system
            raise AttributeError(name)
        return type(name, (), {})


class _Later(ModuleType):
    """A module that is imported at the first use of one of its names."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
