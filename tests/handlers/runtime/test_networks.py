import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from handlers.runtime import networks as module
from handlers.runtime.exceptions import InvalidSettings
from handlers.runtime.networks import ChatGptNetworks, NetworkSet, listed_networks, parse_networks


def document(*prefixes: Any, **others: Any) -> bytes:
    """The published form; a text with a colon is a network of IPv6."""
    entries = [{"ipv6Prefix" if ":" in p else "ipv4Prefix": p} if isinstance(p, str) else p for p in prefixes]
    return json.dumps({"creationTime": "2026-09-22T18:18:05", "prefixes": entries, **others}).encode()


class TestNetworkSet:
    @pytest.mark.parametrize(
        "address, inside",
        [
            ("10.20.0.0", True),
            ("10.20.255.255", True),
            ("10.19.255.255", False),
            ("10.21.0.0", False),
            ("192.0.2.7", True),
            ("192.0.2.8", False),
            ("2001:db8::1", True),
            ("2001:db9::", False),
            ("::a14:1", False),  # the number of 10.20.0.1, in the other family
        ],
    )
    def test_an_address_is_found_at_both_ends_and_nowhere_else(self, address: str, inside: bool) -> None:
        """First and last address count, their neighbours do not, and the families are apart."""
        found = NetworkSet(map(ip_network, ("192.0.2.7/32", "10.20.0.0/17", "10.20.128.0/17", "2001:db8::/32")))
        assert (ip_address(address) in found) is inside

    def test_networks_may_overlap(self) -> None:
        """A small network inside a large one does not hide the rest of it."""
        found = NetworkSet(map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/24")))
        assert all(ip_address(text) in found for text in ("10.0.0.1", "10.1.0.1", "10.255.255.255"))

    def test_no_network_holds_nothing(self) -> None:
        """An empty set refuses every address of both families."""
        assert not any(ip_address(text) in NetworkSet([]) for text in ("0.0.0.1", "255.255.255.255", "::", "ffff::"))


class TestListed:
    def test_a_setting_lists_networks_addresses_and_the_word(self) -> None:
        """Spaces and empty entries do no harm; a single address is a network of one."""
        networks, chatgpt = listed_networks(" 10.0.0.0/8 ,chatgpt,,2001:db8::1 ")
        assert (networks, chatgpt) == ([ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128")], True)
        assert listed_networks("") == ([], False)

    @pytest.mark.parametrize(
        "text", ["10.0.0.1/8", "10.0.0/8", "0x0a000000/8", "example.com", "*", "ChatGPT", "fe80::%1"]
    )
    def test_what_is_no_network_is_refused(self, text: str) -> None:
        """Host bits, short forms, names and other spellings of the word."""
        with pytest.raises(ValueError, match="must list networks such as"):
            listed_networks(f"10.0.0.0/8,{text}")

    def test_the_word_stands_only_where_it_means_something(self) -> None:
        """Whoever reads a list of proxies takes no word."""
        with pytest.raises(ValueError, match="must list networks"):
            listed_networks("chatgpt", published=False)


class TestPublished:
    def test_the_published_form_is_read(self) -> None:
        """Networks of both families; what else the document says does not matter."""
        assert parse_networks(document("4.1.2.0/28", "2606:4700::/32", more="x")) == [
            ip_network("4.1.2.0/28"),
            ip_network("2606:4700::/32"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{",
            b"[" * 100_000,
            b"null",
            b"[]",
            b"{}",
            b'{"prefixes": null}',
            document(),
            document(None),
            document(7),
            document({}),
            document({"ipv4Prefix": None}),
            document({"ipv4Prefix": ["4.1.2.0/28"]}),
            document({"ipv4Prefix": 67174912}),
            document({"ipv4Prefix": "4.1.2.0/28", "ipv6Prefix": "2606:4700::/32"}),
            document({"ipv4Prefix": "2606:4700::/32"}),
            document({"ipPrefix": "4.1.2.0/28"}),
            document("4.1.2.1/28"),
            document("4.1.2.0/28 "),
            document("4.1.2.0/28", "example.com"),
            document(*(f"4.{n // 256}.{n % 256}.0/32" for n in range(module.MAX_NETWORKS + 1))),
            document(*(f"4.{n}.0.0/16" for n in range(65))),
            b" " * module.MAX_FILE_BYTES + document("4.1.2.0/28"),
        ],
        ids=range(23),
    )
    def test_what_is_not_such_a_document_is_refused(self, text: bytes) -> None:
        """Neither form, size, number nor sum beyond what is published is taken."""
        with pytest.raises(ValueError, match=r"must (be|hold|have)"):
            parse_networks(text)

    @pytest.mark.parametrize(
        "network",
        [
            "0.0.0.0/0",
            "4.0.0.0/8",
            "::/0",
            "2600::/16",
            "10.1.2.0/24",
            "127.0.0.1/32",
            "169.254.169.254/32",
            "192.168.0.0/16",
            "100.64.0.0/16",
            "224.0.0.0/24",
            "240.0.0.0/24",
            "255.255.255.255/32",
            "::1/128",
            "fd00::/32",
            "fe80::/64",
            "ff02::/64",
            "2001:db8::/32",
            "::ffff:0:0/96",
        ],
    )
    def test_no_document_opens_the_door_to_everybody_or_to_neighbours(self, network: str) -> None:
        """Default routes, wide, private, local and reserved networks are refused, with the good ones beside them."""
        with pytest.raises(ValueError, match=r"public network|may be shorter"):
            parse_networks(document("4.1.2.0/28", network))


class TestFile:
    INSIDE, ANOTHER = ip_address("4.1.2.3"), ip_address("4.9.9.9")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A good file."""
        path = tmp_path / "networks.json"
        path.write_bytes(document("4.1.2.0/28"))
        return path

    @staticmethod
    def replace(path: Path, content: bytes) -> None:
        """Put another file in its place, as the command does."""
        beside = path.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(path)

    def test_a_changed_file_is_read_within_a_minute(self, path: Path) -> None:
        """Not before: a request costs no look at the disk."""
        now = [0.0]
        networks = ChatGptNetworks(path, clock=lambda: now[0])
        assert self.INSIDE in networks
        self.replace(path, document("4.9.9.0/24"))
        now[0] = module.LOOK_SECONDS - 1
        assert (self.INSIDE in networks, self.ANOTHER in networks) == (True, False)
        now[0] = module.LOOK_SECONDS
        assert (self.INSIDE in networks, self.ANOTHER in networks) == (False, True)

    @pytest.mark.parametrize("content", [b"", b'{"prefixes": [', document("0.0.0.0/0")], ids=["empty", "half", "wide"])
    def test_a_broken_file_changes_nothing_and_is_told(self, path: Path, content: bytes) -> None:
        """What was read before counts until a good file is there again; the log says so once."""
        now = [0.0]
        networks = ChatGptNetworks(path, clock=lambda: now[0])
        self.replace(path, content)
        with capture_logs() as lines:
            for now[0] in (60.0, 120.0, 180.0):
                assert (self.INSIDE in networks, self.ANOTHER in networks) == (True, False)
        assert [line["event"] for line in lines] == ["chatgpt_networks_unusable"]
        self.replace(path, document("4.9.9.0/24"))
        now[0] = 240.0
        assert self.ANOTHER in networks

    def test_a_file_that_is_gone_changes_nothing(self, path: Path) -> None:
        """Nobody is let in or shut out because a file is missing for a while."""
        now = [0.0]
        networks = ChatGptNetworks(path, clock=lambda: now[0])
        path.unlink()
        now[0] = 60.0
        with capture_logs() as lines:
            assert self.INSIDE in networks
        assert lines[0]["log_level"] == "warning"

    @pytest.mark.parametrize("content", [None, b"", document("10.0.0.0/8")], ids=["missing", "empty", "private"])
    def test_the_start_needs_a_good_file(self, tmp_path: Path, content: bytes | None) -> None:
        """The message names the setting, the file and the command that writes it."""
        path = tmp_path / "networks.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InvalidSettings, match=rf"RELAY_CHATGPT_NETWORKS_FILE: {path}: .*`relay networks refresh"):
            ChatGptNetworks(path)
