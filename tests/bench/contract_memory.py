"""
How much memory the contract takes in a relay, in a process of its own: what it holds before and after binding it.

Prints the two as JSON, with the number of operations. Run by the benchmark as `python -m tests.bench.contract_memory`.
"""

import gc
import json
import os
import sys

gc.disable()  # as the command does while it starts

from handlers.runtime.lean_imports import lean_imports  # noqa: E402

with lean_imports():
    from handlers.runtime.app import create_app, create_services

from handlers.runtime.memory import trim_memory  # noqa: E402
from handlers.runtime.metrics import memory_bytes  # noqa: E402
from handlers.runtime.settings import read_settings  # noqa: E402


def main() -> None:
    """Bind the contract between two looks at the memory."""
    settings = read_settings(os.environ)
    trim_memory()
    before = memory_bytes()
    services = create_services(settings)
    app = create_app(services)
    app.middleware._build_middleware_stack()  # else Connexion would bind with the first request
    trim_memory()
    after = memory_bytes()
    json.dump({"before": before, "after": after, "operations": len(services.routes)}, sys.stdout)


if __name__ == "__main__":
    main()
