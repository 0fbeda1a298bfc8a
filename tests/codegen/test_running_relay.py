"""What `contract coverage --url` refuses before it asks anybody; tests/integration/test_coverage.py asks."""

import pytest

from codegen.exceptions import RelayNotAsked
from codegen.running_relay import KEY_VARIABLE, ask_relay
from tests.support.covered_checkout import CONTRACT
from tests.support.documents import build, document

KEY = "rk_made-up-canary-0123456789"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://127.0.0.1:many",
        "http://user:canary@127.0.0.1",
        "http://127.0.0.1?key=canary",
        "http://127.0.0.1#canary",
        "http://127.0.0.1\n",
    ],
)
def test_an_address_must_be_http_and_a_host(url: str) -> None:
    """Anything else is refused with an example, and is not repeated: it may hold a secret."""
    with pytest.raises(RelayNotAsked, match=r"^--url: must be http or https") as caught:
        ask_relay(url, KEY, CONTRACT)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "rk_canary \n", "rk_canary\r\nHost: x", "rk_canaryé"])
def test_a_key_must_fit_into_a_header(key: str) -> None:
    """A missing or malformed key is refused by the name of its variable, and is not repeated."""
    with pytest.raises(RelayNotAsked, match=f"^{KEY_VARIABLE}: must be set") as caught:
        ask_relay("http://127.0.0.1:9", key, CONTRACT)
    assert "canary" not in str(caught.value)


def test_a_contract_without_the_operation_cannot_ask() -> None:
    """The paths are the contract's, so what it does not name is not asked."""
    with pytest.raises(RelayNotAsked, match="no classified operation `retrieveHealth`"):
        ask_relay("http://127.0.0.1:9", KEY, build(document()))
