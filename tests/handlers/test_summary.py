from contextlib import redirect_stdout
from io import StringIO

import pytest

from codegen.contract import Bucket
from handlers.runtime.app import create_services
from handlers.runtime.settings import Settings
from handlers.summary import print_summary

URL = "http://127.0.0.1:8080"
KEY = "rk_made-up-0123456789abcdef"
UPSTREAM_KEY = "sk-made-up-upstream"


def printed(**values: object) -> str:
    """What a relay with these settings prints at its start."""
    services = create_services(Settings.model_validate({"RELAY_KEY": KEY, "OPENAI_API_KEY": UPSTREAM_KEY, **values}))
    with redirect_stdout(StringIO()) as text:
        print_summary(services, URL)
    return text.getvalue()


def test_the_summary_says_where_everything_is() -> None:
    """Address, upstream, documents, the size of each bucket and the keys' ids stand in it, each on its own line."""
    shown = printed(OPENAI_BASE_URL="https://gateway.example/[v1]/v1")
    lines = {line[:13].strip(): line[13:] for line in shown.splitlines()}
    assert lines["relay"].startswith(URL)
    assert lines["upstream"] == "https://gateway.example/[v1]/v1"
    assert f"base_url {URL}/v1" in lines["SDK clients"]
    assert all(f"{bucket} " in lines["buckets"] for bucket in Bucket)
    assert lines["assistants"] == f"{URL}/mcp for MCP clients, 30 tools"
    assert f"{URL}/openapi.json {URL}/openapi.actions.json {URL}/docs" in lines["documents"]
    assert lines["keys"].startswith("bootstrap (")
    assert "warning" not in shown


def test_the_summary_shows_no_key() -> None:
    """Keys are named by id only."""
    assert KEY not in printed()
    assert UPSTREAM_KEY not in printed()


@pytest.mark.parametrize(
    "values, word",
    [
        ({"OPENAI_BASE_URL": "http://gateway.example/v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"RELAY_HOST": "0.0.0.0"}, "RELAY_PUBLIC_URL"),  # noqa: S104 - that is what the warning is about
        ({"RELAY_HOST": "::", "RELAY_PUBLIC_URL": "http://relay.example"}, "RELAY_PUBLIC_URL"),
    ],
)
def test_a_setting_that_may_hurt_is_pointed_out(values: dict[str, object], word: str) -> None:
    """Unencrypted upstreams, missing credentials and open listeners are named in a warning."""
    warnings = [line for line in printed(**values).splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert word in warnings[0]


@pytest.mark.parametrize(
    "values",
    [
        {"OPENAI_BASE_URL": "http://127.0.0.1:9000/v1"},
        {"OPENAI_BASE_URL": "http://[::1]:9000/v1"},
        {"RELAY_HOST": "localhost"},
        {"RELAY_HOST": "0.0.0.0", "RELAY_PUBLIC_URL": "https://relay.example"},  # noqa: S104
    ],
)
def test_usual_set_ups_bring_no_warning(values: dict[str, object]) -> None:
    """Loopback upstreams and a listener behind TLS are fine."""
    assert "warning" not in printed(**values)
