import re
import string
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.runtime.artifact_links import ArtifactId, LinkSigner, origin_of
from handlers.runtime.exceptions import ArtifactNotFound
from handlers.runtime.messages import Request
from tests.support.artifacts import SECRET

SIGNER = LinkSigner(SECRET)
ID = ArtifactId(1_800_003_600, bytes(range(16)))
TOKEN = SIGNER.sign(ID)


def test_a_token_names_its_file_again() -> None:
    """What was signed is what is read."""
    assert SIGNER.read(TOKEN) == ID
    assert ArtifactId.from_key(ID.key) == ID


def test_a_token_fits_the_path_and_says_nothing_of_the_file() -> None:
    """Characters and length are those that the contract allows; there is no room for a name or a type."""
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", TOKEN)
    assert len(TOKEN) == 76


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_no_changed_character_verifies(position: int, character: str) -> None:
    """Every character of a token is signed, those of the signature included."""
    changed = f"{TOKEN[:position]}{character}{TOKEN[position + 1 :]}"
    if changed == TOKEN:
        assert SIGNER.read(changed) == ID
        return
    with pytest.raises(ArtifactNotFound):
        SIGNER.read(changed)


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_no_flipped_bit_verifies(position: int) -> None:
    """Each bit of each character counts, also those that base64 leaves spare."""
    for bit in range(8):
        with pytest.raises(ArtifactNotFound):
            SIGNER.read(f"{TOKEN[:position]}{chr(ord(TOKEN[position]) ^ (1 << bit))}{TOKEN[position + 1 :]}")


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_no_other_character_of_the_alphabet_verifies(position: int) -> None:
    """Nor does any character that a token may have, at any place."""
    for character in set(string.ascii_letters + string.digits + "-_.") - {TOKEN[position]}:
        with pytest.raises(ArtifactNotFound):
            SIGNER.read(f"{TOKEN[:position]}{character}{TOKEN[position + 1 :]}")


@given(st.text(max_size=600))
def test_no_text_verifies(text: str) -> None:
    """Nothing that anybody makes up is a link."""
    with pytest.raises(ArtifactNotFound):
        SIGNER.read(text)


@given(st.binary(min_size=32, max_size=64).filter(lambda secret: secret != SECRET))
def test_no_other_secret_verifies(secret: bytes) -> None:
    """A relay with another secret serves none of these links."""
    with pytest.raises(ArtifactNotFound):
        LinkSigner(secret).read(TOKEN)


def test_a_short_secret_is_refused() -> None:
    """Links are worth as much as the secret behind them."""
    with pytest.raises(ValueError, match="at least 32 bytes"):
        LinkSigner(bytes(31))


def test_ids_never_repeat() -> None:
    """Two files of the same second have links of their own."""
    assert len({ArtifactId.new(ID.expires_at).key for _ in range(1000)}) == 1000


def test_keys_sort_by_their_end() -> None:
    """What ends first stands first in a listing."""
    ids = [ArtifactId.new(end) for end in (5, 2**40, 300, 70_000, 1)]
    assert [id_.expires_at for id_ in sorted(ids, key=lambda id_: id_.key)] == [1, 5, 300, 70_000, 2**40]


@pytest.mark.parametrize("key", ["", "..", ID.key.upper(), ID.key[:-1], f"{ID.key}0", f"{ID.key}\n", f"../{ID.key}"])
def test_other_names_are_no_keys(key: str) -> None:
    """Only what the relay writes itself is read as a key."""
    assert ArtifactId.from_key(key) is None


def test_an_id_shows_nothing_secret() -> None:
    """Whoever reads a log cannot tell the name of a file."""
    assert ID.random.hex() not in repr(ID)
    assert repr(ID.random) not in repr(ID)


def request_to(host: bytes | None) -> Request:
    """A request with or without `Host`."""
    headers = [] if host is None else [(b"host", host)]
    return Request("rly_1", cast("object", None), "/", {}, b"", headers, None, cast("object", None))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "relay.example", "[::1]:8080", "localhost"])
def test_the_origin_is_what_the_client_called(host: str) -> None:
    """A relay that has not been told its address takes the client's word for it."""
    assert origin_of(request_to(host.encode())) == f"http://{host}"


@pytest.mark.parametrize(
    "host", [None, b"", b"a b", b"evil/..", b"user@host", b"a\r\nb", b"h\xf6st", b"host:port", b"a?b"]
)
def test_what_is_no_host_is_no_origin(host: bytes | None) -> None:
    """No link starts with something that is not an address."""
    assert origin_of(request_to(host)) == ""
