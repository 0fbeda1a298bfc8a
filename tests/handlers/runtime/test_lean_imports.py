import subprocess
import sys

import pytest

from handlers.runtime.lean_imports import lean_imports

UNUSED = ("flask", "greenlet", "jinja2", "prometheus_client", "requests", "rich", "starlette.testclient", "urllib3")


def run(program: str) -> str:
    """What a new interpreter prints: in this one everything is imported already."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_bound_relay_has_not_imported_what_it_never_uses() -> None:
    """Binding the whole contract takes none of them in, neither in the block nor later."""
    program = f"""
import sys
import handlers.cli
from handlers.runtime.lean_imports import lean_imports
with lean_imports():
    from handlers.runtime.app import create_app, create_services
    import handlers.summary
from handlers.runtime.settings import Settings
create_app(create_services(Settings.model_validate({{}})))
print([name for name in {UNUSED!r} if name in sys.modules])
"""
    assert run(program) == "[]"


def test_after_the_block_everybody_gets_the_real_modules() -> None:
    """Whoever imports one of them later gets all of it, and what was only promised works when it is used after all."""
    program = """
from handlers.runtime.lean_imports import lean_imports
with lean_imports():
    import connexion
    from connexion import json_schema
import requests, rich.console, starlette.testclient, jinja2, structlog._greenlets
import connexion.middleware.swagger_ui, werkzeug.serving
assert json_schema.requests is not requests and json_schema.requests.get is requests.get
print(starlette.testclient.TestClient.__module__, rich.console.Console.__name__)
"""
    assert run(program) == "starlette.testclient Console"


def test_a_name_that_is_needed_in_the_block_is_the_real_one() -> None:
    """A library that starts to use one of the late modules while it is imported works, and costs what it costs."""
    program = """
from handlers.runtime.lean_imports import lean_imports
with lean_imports():
    from jinja2 import Template
print(Template("{{ word }}").render(word="real"))
"""
    assert run(program) == "real"


def test_what_was_imported_before_stays() -> None:
    """The block takes nothing away, also when it fails."""
    before = dict(sys.modules)
    with pytest.raises(RuntimeError), lean_imports():
        raise RuntimeError
    assert {name: module for name, module in sys.modules.items() if before.get(name) is not module} == {}
    assert before.keys() <= sys.modules.keys()


def test_the_store_works_without_the_mapper_of_classes() -> None:
    """A store that was asked for is loaded without it, keeps what it must, and leaves it to others."""
    program = """
import asyncio, sys
from handlers.runtime.idempotency import open_sql_store
async def main():
    store = await open_sql_store("sqlite+aiosqlite://")
    print(type(store).__name__, "sqlalchemy.orm" in sys.modules)
    await store.close()
asyncio.run(main())
import sqlalchemy.ext.asyncio.session as session
print(session.AsyncSession.__module__)
"""
    assert run(program).splitlines()[0].endswith("False")
    assert run(program).splitlines()[1] == "sqlalchemy.ext.asyncio.session"
