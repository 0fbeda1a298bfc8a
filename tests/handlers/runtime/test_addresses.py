import itertools
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from codegen.contract import Contract, Operation, Scope
from handlers.runtime.access import Caller
from handlers.runtime.addresses import AddressRules, client_address, load_address_rules, narrow
from handlers.runtime.exceptions import AddressNotAllowed, InvalidSettings
from handlers.runtime.networks import NetworkSet
from handlers.runtime.settings import Settings

PROXIES = NetworkSet(map(ip_network, ("10.0.0.0/8", "fd00::/8")))
PROXY = "10.0.0.1"
HERE, THERE = "192.0.2.1", "198.51.100.1"


def seen(peer: str | None, *lines: tuple[str, str]) -> str | None:
    """The client's address as the relay finds it."""
    address = client_address(peer, [(name.encode(), value.encode("latin-1")) for name, value in lines], PROXIES)
    return None if address is None else str(address)


def forwarded_for(*values: str) -> list[tuple[str, str]]:
    """Lines of the header that most proxies write."""
    return [("x-forwarded-for", value) for value in values]


class TestClientAddress:
    @pytest.mark.parametrize(
        "peer, address",
        [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:DB8::0:1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            (None, None),
            ("", None),
            ("/run/relay.sock", None),
        ],
    )
    def test_without_a_proxy_it_is_the_other_end(self, peer: str | None, address: str | None) -> None:
        """In one form for each address; a socket file has none."""
        assert seen(peer) == address

    def test_nobody_is_believed_who_is_not_listed(self) -> None:
        """Headers of a client that came directly say nothing, well-formed or not."""
        for value in ("192.0.2.1", "10.0.0.2", "nonsense", ""):
            assert seen("203.0.113.7", *forwarded_for(value), ("forwarded", f"for={value}")) == "203.0.113.7"

    @pytest.mark.parametrize(
        "values, address",
        [
            (["203.0.113.7"], "203.0.113.7"),
            (["192.0.2.1, 203.0.113.7"], "203.0.113.7"),
            (["192.0.2.1", "203.0.113.7"], "203.0.113.7"),
            (["192.0.2.1,203.0.113.7 ,\t10.9.9.9"], "203.0.113.7"),
            (["203.0.113.7, 10.9.9.9", "10.1.1.1, fd00::1"], "203.0.113.7"),
            (["nonsense, 203.0.113.7"], "203.0.113.7"),
            (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            (["203.0.113.7:4711"], "203.0.113.7"),
            (["[2001:db8::7]:4711"], "2001:db8::7"),
            (["[2001:db8::7]"], "2001:db8::7"),
            (["2001:db8::7"], "2001:db8::7"),
            (["::ffff:203.0.113.7"], "203.0.113.7"),
            (["::ffff:10.1.1.1"], "10.1.1.1"),
        ],
    )
    def test_behind_proxies_it_is_the_last_that_is_none_of_them(self, values: list[str], address: str) -> None:
        """What stands further left is the client's own tale; lines count as one list."""
        assert seen(PROXY, *forwarded_for(*values)) == address
        assert seen(f"::ffff:{PROXY}", *forwarded_for(*values)) == address

    @pytest.mark.parametrize(
        "value",
        [
            "",
            ",",
            "203.0.113.7,",
            "203.0.113.7, nonsense",
            "203.0.113.7, nonsense, 10.1.1.1",
            "203.0.113",
            "203.0.113.07",
            "203.0.113.256",
            "0xcb007107",
            "3405803783",
            "203.0.113.7:",
            "203.0.113.7:123456",
            "203.0.113.7 10.1.1.1",
            "[203.0.113.7]x",
            "2001:db8::7%eth0",
            "fe80::1%10.0.0.1",
            "unknown",
            '"203.0.113.7"',
            "203.0.113.7;203.0.113.8",
            "²03.0.113.7",
        ],
    )
    def test_a_malformed_hop_is_nobody(self, value: str) -> None:
        """What cannot be read is not guessed: no address, so nothing that needs one is open."""
        assert seen(PROXY, *forwarded_for(value)) is None

    def test_a_proxy_that_says_nothing_vouches_for_nobody(self) -> None:
        """Else everybody behind it would come from its own network."""
        assert seen(PROXY) is None

    @pytest.mark.parametrize(
        "values, address",
        [
            (["for=203.0.113.7"], "203.0.113.7"),
            (["For=192.0.2.1, FOR=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
            (["for=192.0.2.1", 'proto=https ; for="203.0.113.7:4711"'], "203.0.113.7"),
            (['for="[2001:db8::7]:4711", for=10.1.1.1'], "2001:db8::7"),
            (['for="[2001:db8::7]"'], "2001:db8::7"),
            (["for=_hidden, for=203.0.113.7"], "203.0.113.7"),
            # Not to be read, or not to be told apart:
            (["for=unknown"], None),
            (["for=_hidden"], None),
            (["proto=https"], None),
            (["for=203.0.113.7;for=192.0.2.1"], None),
            (["for=203.0.113.7;"], None),
            (["for=2001:db8::7"], None),
            ([""], None),
            # A quote that a client leaves open must not hide what the proxy writes behind it:
            (['for="192.0.2.1, for=203.0.113.7'], None),
            (['for=192.0.2.1;x=", for=203.0.113.7', 'for="10.1.1.1"'], None),
            (['for=192.0.2.1;x="\\", for="203.0.113.7"'], None),
        ],
    )
    def test_forwarded_is_read_in_its_plain_form(self, values: list[str], address: str | None) -> None:
        """RFC 7239, without quoted commas; anything else anywhere in it is nobody."""
        assert seen(PROXY, *(("forwarded", value) for value in values)) == address

    def test_two_headers_must_agree(self) -> None:
        """A proxy writes one of them and passes the other on as the client sent it."""
        lines = forwarded_for("203.0.113.7")
        assert seen(PROXY, *lines, ("forwarded", "for=203.0.113.7")) == "203.0.113.7"
        assert seen(PROXY, *lines, ("forwarded", "for=192.0.2.1")) is None
        assert seen(PROXY, *lines, ("forwarded", "nonsense")) is None


def rules(surfaces: dict[Scope, str], tools: str = "") -> AddressRules:
    """Rules that take single addresses."""
    return AddressRules(
        {scope: NetworkSet([ip_network(text)]) for scope, text in surfaces.items()},
        NetworkSet([ip_network(tools)]) if tools else None,
        PROXIES,
    )


def asked(peer: str | None) -> dict[str, Any]:
    """An ASGI scope."""
    return {"headers": [], "client": None if peer is None else (peer, 1)}


def opens(made: AddressRules, operation: Operation, key: frozenset[Scope], peer: str | None) -> frozenset[Scope] | None:
    """What is left of a key's scopes; `None` when it is refused for its address."""
    try:
        opened = made.check_address(asked(peer), operation)
        return narrow(Caller("k", key), opened, operation).scopes
    except AddressNotAllowed:
        return None


class TestRules:
    def test_a_request_is_taken_where_a_scope_that_key_and_operation_share_is(self, contract: Contract) -> None:
        """For every operation, every pair of scopes and every place: exactly then, and only with such scopes."""
        made = rules({Scope.ACTIONS: HERE, Scope.CANONICAL: THERE, Scope.OPERATOR: THERE})
        open_from = {
            HERE: frozenset(Scope) - {Scope.CANONICAL, Scope.OPERATOR},
            THERE: frozenset(Scope) - {Scope.ACTIONS},
            "203.0.113.9": frozenset({Scope.PROXY, Scope.REALTIME}),
        }
        for operation in (o for o in contract if not o.open):
            for key in map(frozenset, itertools.combinations_with_replacement(Scope, 2)):
                if key.isdisjoint(operation.scopes):
                    continue  # authorised before
                for peer, scopes in open_from.items():
                    expected = None if (key & scopes).isdisjoint(operation.scopes) else key & scopes
                    assert opens(made, operation, key, peer) == expected

    def test_the_first_answer_looks_at_no_key(self, contract: Contract) -> None:
        """From where no scope of the operation is open, nobody learns whether a key is good."""
        operation = contract.operations["listFiles"]
        made = rules(dict.fromkeys(operation.scopes, HERE))
        with capture_logs() as lines, pytest.raises(AddressNotAllowed):
            made.check_address(asked(THERE), operation)
        assert lines == [{"event": "address_refused", "log_level": "info", "address": THERE, "operation": operation.id}]

    def test_nobody_knows_from_where_is_nowhere(self, contract: Contract) -> None:
        """A client without an address gets nothing, not even what is open from everywhere."""
        made = rules({Scope.ACTIONS: HERE})
        for peer in (None, "/run/relay.sock", PROXY):
            assert opens(made, contract.operations["listFiles"], frozenset({Scope.CANONICAL}), peer) is None

    def test_the_list_for_tools_only_takes_away(self, contract: Contract) -> None:
        """`/mcp` is asked from where its list and that of a scope of the key both allow it; others are not judged."""
        (tools,) = (operation for operation in contract if operation.carries is not None)
        made = rules({Scope.ACTIONS: "192.0.2.0/24"}, tools=HERE)
        for scope, peer, expected in (
            (Scope.ACTIONS, HERE, True),
            (Scope.ACTIONS, "192.0.2.2", False),
            (Scope.PROXY, HERE, True),
            (Scope.PROXY, THERE, False),
        ):
            assert (opens(made, tools, frozenset({scope}), peer) is not None) is expected
        assert opens(made, contract.operations["listFiles"], frozenset({Scope.CANONICAL}), THERE)


class TestSettings:
    def test_without_lists_there_are_no_rules(self) -> None:
        """Nothing is looked at, whichever proxies are trusted."""
        assert load_address_rules(Settings.model_validate({"RELAY_TRUSTED_PROXIES": "10.0.0.0/8"})) is None

    @pytest.mark.parametrize("scope", Scope)
    def test_every_scope_has_its_setting(self, scope: Scope, contract: Contract) -> None:
        """A list closes its scope elsewhere, and no other."""
        made = load_address_rules(Settings.model_validate({f"RELAY_NETWORKS_{scope.name}": f"{HERE},2001:db8::/32"}))
        assert made is not None
        for other in Scope:
            operation = next(o for o in contract if other in o.scopes and o.carries is None)
            for peer in (HERE, "2001:db8::1", THERE):
                opened = opens(made, operation, frozenset({other}), peer)
                assert (opened is None) is (other is scope and peer == THERE)

    def test_the_published_networks_come_from_the_file(self, tmp_path: Path, contract: Contract) -> None:
        """`chatgpt` stands for them, beside what else is listed."""
        path = tmp_path / "networks.json"
        path.write_text('{"prefixes": [{"ipv4Prefix": "4.1.2.0/28"}]}', encoding="utf-8")
        made = load_address_rules(
            Settings.model_validate(
                {"RELAY_NETWORKS_ACTIONS": f"chatgpt,{HERE}", "RELAY_CHATGPT_NETWORKS_FILE": str(path)}
            )
        )
        assert made is not None
        operation = next(o for o in contract if Scope.ACTIONS in o.scopes)
        for peer, expected in (("4.1.2.3", True), (HERE, True), (THERE, False)):
            assert (opens(made, operation, frozenset({Scope.ACTIONS}), peer) is not None) is expected

    @pytest.mark.parametrize("name", ["RELAY_NETWORKS_ACTIONS", "RELAY_NETWORKS_MCP"])
    def test_the_word_without_the_file_stops_the_start(self, name: str) -> None:
        """The message says what to set and which command writes it."""
        with pytest.raises(InvalidSettings, match=rf"{name}: .*RELAY_CHATGPT_NETWORKS_FILE; `relay networks refresh"):
            load_address_rules(Settings.model_validate({name: "10.0.0.0/8, chatgpt"}))


def test_addresses_are_compared_as_addresses() -> None:
    """However an address is written, it is one."""
    assert seen("2001:0db8:0000::0001") == str(ip_address("2001:db8::1"))
