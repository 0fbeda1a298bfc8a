import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml

from codegen.contract import Scope
from handlers.runtime.access import (
    BOOTSTRAP_KEY_ID,
    KEY_PREFIX,
    add_key,
    hash_key,
    load_key_ring,
    read_key_file,
    remove_key,
)
from handlers.runtime.exceptions import InvalidKeyFile
from handlers.runtime.settings import Settings

BOOTSTRAP = "rk_bootstrap-0123456789abcdef"
DIGEST = hash_key("anything").hex()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key file that does not exist yet."""
    return tmp_path / "keys.yaml"


def ring_of(**values: object) -> list[str]:
    """Ids of the keys that a relay with these settings knows."""
    return [key.id for key in load_key_ring(Settings.model_validate(values)).keys]


def test_a_new_key_authenticates_and_only_its_digest_is_kept(file: Path) -> None:
    """The key that is handed out belongs to the record in the file, which does not hold the key itself."""
    text = add_key(file, "ci", [Scope.CANONICAL, Scope.ACTIONS], None)
    assert text.startswith(KEY_PREFIX)
    assert len(text) >= len(KEY_PREFIX) + 43  # 256 bits as base64
    content = file.read_text(encoding="utf-8")
    assert text not in content
    assert text.removeprefix(KEY_PREFIX) not in content
    (key,) = read_key_file(file)
    assert (key.id, key.digest) == ("ci", hash_key(text))
    assert key.scopes == {Scope.CANONICAL, Scope.ACTIONS}
    assert key.expires is None


def test_every_key_is_another(file: Path) -> None:
    """Keys are random: no two are alike."""
    keys = {add_key(file, f"key{number}", [Scope.PROXY], None) for number in range(20)}
    assert len(keys) == 20
    assert len(read_key_file(file)) == 20


def test_only_the_owner_may_read_the_file(file: Path) -> None:
    """The file has mode 0600 from the start and gets it back at every change; nothing is left beside it."""
    add_key(file, "first", [Scope.CANONICAL], None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    add_key(file, "second", [Scope.CANONICAL], None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    remove_key(file, "first")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_adding_and_removing_leaves_the_other_keys_alone(file: Path) -> None:
    """Digests, scopes and ends of the others survive every change of the file."""
    end = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    add_key(file, "keeps", [Scope.REALTIME, Scope.PROXY], end)
    (before,) = read_key_file(file)
    add_key(file, "goes", [Scope.CANONICAL], None)
    remove_key(file, "goes")
    assert read_key_file(file) == [before]
    assert before.expires == end


def test_ends_without_a_zone_are_utc(file: Path) -> None:
    """`--expires 2030-01-02` means midnight UTC; an end in another zone is the same moment after reading."""
    add_key(file, "naive", [Scope.CANONICAL], datetime(2030, 1, 2))  # noqa: DTZ001 - that is the case
    add_key(file, "zoned", [Scope.CANONICAL], datetime(2030, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    naive, zoned = read_key_file(file)
    assert naive.expires == datetime(2030, 1, 2, tzinfo=UTC)
    assert zoned.expires == datetime(2030, 1, 1, 22, tzinfo=UTC)


@pytest.mark.parametrize("key_id", ["", "-dash", "has space", "a/b", "ü", "x" * 65, "line\nbreak", BOOTSTRAP_KEY_ID])
def test_an_id_that_is_not_allowed_makes_no_key(file: Path, key_id: str) -> None:
    """Ids are short plain names, as they stand in logs, and the bootstrap key's own id is not to be had."""
    with pytest.raises(InvalidKeyFile):
        add_key(file, key_id, [Scope.CANONICAL], None)
    assert not file.exists()


def test_a_key_has_a_scope(file: Path) -> None:
    """A key that opens nothing is not made."""
    with pytest.raises(InvalidKeyFile, match="scopes"):
        add_key(file, "useless", [], None)
    assert not file.exists()


def test_a_taken_id_leaves_the_file_as_it_is(file: Path) -> None:
    """Two keys never share an id, so a log line names one key."""
    add_key(file, "ci", [Scope.CANONICAL], None)
    before = file.read_bytes()
    with pytest.raises(InvalidKeyFile, match="`ci` is taken"):
        add_key(file, "ci", [Scope.PROXY], None)
    assert file.read_bytes() == before


def test_removing_an_unknown_key_says_how_to_find_the_known_ones(file: Path) -> None:
    """A mistyped id is an error, not a silent success."""
    add_key(file, "ci", [Scope.CANONICAL], None)
    before = file.read_bytes()
    with pytest.raises(InvalidKeyFile, match="`relay keys list`"):
        remove_key(file, "c1")
    assert file.read_bytes() == before


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    """A key file that cannot be written is reported by name, and no key is handed out."""
    with pytest.raises(InvalidKeyFile, match=r"absent/keys\.yaml"):
        add_key(tmp_path / "absent" / "keys.yaml", "ci", [Scope.CANONICAL], None)


RECORD = {"id": "ci", "sha256": DIGEST, "scopes": ["canonical"]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "keys",
        "[]",
        "keys: [",
        "\x00",
        yaml.safe_dump({"keys": [{**RECORD, "admin": True}]}),
        yaml.safe_dump({"keys": [RECORD], "more": 1}),
        yaml.safe_dump({"keys": [{**RECORD, "scopes": []}]}),
        yaml.safe_dump({"keys": [{**RECORD, "scopes": ["everything"]}]}),
        yaml.safe_dump({"keys": [{**RECORD, "sha256": DIGEST.upper()}]}),
        yaml.safe_dump({"keys": [{**RECORD, "sha256": DIGEST[:-1]}]}),
        yaml.safe_dump({"keys": [{**RECORD, "sha256": DIGEST + "\n"}]}),
        yaml.safe_dump({"keys": [{**RECORD, "expires": "tomorrow"}]}),
        yaml.safe_dump({"keys": [{"id": "ci", "key": "rk_secret-in-the-wrong-place", "scopes": ["canonical"]}]}),
        "keys: !!python/object/apply:os.getcwd []",
    ],
)
def test_a_malformed_file_stops_the_start_and_is_not_repeated(file: Path, content: str) -> None:
    """Anything but well-formed records is refused by file name, and nothing of a record comes back in the message."""
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidKeyFile, match=r"keys\.yaml: ") as caught:
        read_key_file(file)
    assert DIGEST[:16] not in str(caught.value)
    assert "rk_secret-in-the-wrong-place" not in str(caught.value)
    assert "tomorrow" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_utf8_is_refused(file: Path) -> None:
    """A missing file names the command that makes one; a binary one is not YAML."""
    with pytest.raises(InvalidKeyFile, match="`relay keys create`"):
        read_key_file(file)
    file.write_bytes(b"keys: \xff\xfe")
    with pytest.raises(InvalidKeyFile, match=r"keys\.yaml: "):
        read_key_file(file)


def test_the_ring_holds_the_bootstrap_key_and_those_of_the_file(file: Path) -> None:
    """Either source alone or both together make the ring; neither makes an empty one."""
    add_key(file, "ci", [Scope.CANONICAL], None)
    assert ring_of() == []
    assert ring_of(RELAY_KEY=BOOTSTRAP) == [BOOTSTRAP_KEY_ID]
    assert ring_of(RELAY_KEY_FILE=file) == ["ci"]
    assert ring_of(RELAY_KEY=BOOTSTRAP, RELAY_KEY_FILE=file) == [BOOTSTRAP_KEY_ID, "ci"]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([RECORD, {**RECORD, "sha256": hash_key("other").hex()}], id="one id twice"),
        pytest.param([RECORD, {**RECORD, "id": "other"}], id="one key twice"),
        pytest.param([{**RECORD, "id": BOOTSTRAP_KEY_ID}], id="the bootstrap key's id"),
        pytest.param([{**RECORD, "sha256": hash_key(BOOTSTRAP).hex()}], id="the bootstrap key itself"),
    ],
)
def test_every_key_has_its_own_id_and_text(file: Path, records: list[dict[str, object]]) -> None:
    """A repeated id or key stops the start: nobody could say whose request it was."""
    file.write_text(yaml.safe_dump({"keys": records}), encoding="utf-8")
    with pytest.raises(InvalidKeyFile, match="its own"):
        ring_of(RELAY_KEY=BOOTSTRAP, RELAY_KEY_FILE=file)
