import ctypes

import pytest

from handlers.runtime.memory import trim_memory


def test_memory_is_given_back_where_the_c_library_can() -> None:
    """Once and without an answer."""
    trim_memory()


@pytest.mark.parametrize("problem", [AttributeError("malloc_trim"), OSError(), TypeError()])
def test_other_c_libraries_are_left_alone(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start goes on where there is no such function, or no handle on the program itself."""

    class Missing:
        def __init__(self, _name: None) -> None:
            raise problem

    monkeypatch.setattr(ctypes, "CDLL", Missing)
    trim_memory()
