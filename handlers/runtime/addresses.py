"""
From where a key may be used: the client's address, and the scopes that are open from there.

A key has, from a given address, only those of its scopes whose setting takes that address. What an operation needs is
decided on the matched operation as ever; nothing here looks at a URL.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import structlog
from starlette.types import Scope as AsgiScope

from codegen.contract import Operation, Scope
from handlers.runtime.access import Caller
from handlers.runtime.exceptions import AddressNotAllowed, InvalidSettings
from handlers.runtime.messages import Header
from handlers.runtime.networks import ChatGptNetworks, Networks, NetworkSet, listed_networks
from handlers.runtime.remote_hosts import Address
from handlers.runtime.settings import Settings

ALL_SCOPES = frozenset(Scope)

# An address as proxies write it: with a port behind it or without, one of IPv6 perhaps in brackets.
_HOP = re.compile(r"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})")
# `Forwarded` (RFC 7239) without commas, semicolons and backslashes between quotes: so no client can, with a quote of
# its own, hide what a proxy wrote behind it.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'{_NAME}=(?:{_NAME}|"[^",;\\]*")'
_ELEMENT = re.compile(rf"{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*")

_log = structlog.get_logger("relay")


class AddressRules:
    """
    Which scopes are open from which address.

    Args:
        surfaces: Those of a scope without an entry are open from everywhere.
        tools: Where the operation that carries calls of others may be asked from, beside that.
        proxies: Whose word about the client's address counts.
    """

    def __init__(
        self,
        surfaces: Mapping[Scope, Networks],
        tools: Networks | None,
        proxies: Networks,
    ) -> None:
        self._surfaces = surfaces
        self._everywhere = ALL_SCOPES - surfaces.keys()
        self._tools = tools
        self._proxies = proxies

    def check_address(self, scope: AsgiScope, operation: Operation) -> frozenset[Scope]:
        """
        Decide before the key is looked at, so that the answer says nothing about keys.

        Args:
            scope: Of a request or a handshake.
            operation: One that asks for a key.

        Returns:
            The scopes that are open from the client's address; give them to `narrow`.

        Raises:
            AddressNotAllowed: None of those that open the operation is (403).
        """
        peer = scope.get("client")
        address = client_address(peer[0] if peer else None, scope["headers"], self._proxies)
        opened = self._open_from(address, operation) if address is not None else frozenset()
        if opened.isdisjoint(operation.scopes):
            _log.info("address_refused", address=str(address), operation=operation.id)
            raise AddressNotAllowed
        return opened

    def _open_from(self, address: Address, operation: Operation) -> frozenset[Scope]:
        if operation.carries is not None and self._tools is not None and address not in self._tools:
            return frozenset()
        return self._everywhere | {scope for scope, networks in self._surfaces.items() if address in networks}


def narrow(caller: Caller, opened: frozenset[Scope], operation: Operation) -> Caller:
    """
    Take from an authorised caller the scopes that are not open from where the request comes.

    Args:
        opened: From `AddressRules.check_address`.

    Raises:
        AddressNotAllowed: No other scope of the key opens the operation (403).
    """
    narrowed = replace(caller, scopes=caller.scopes & opened)
    if narrowed.scopes.isdisjoint(operation.scopes):
        raise AddressNotAllowed
    return narrowed


def client_address(peer: str | None, headers: list[Header], proxies: Networks) -> Address | None:
    """
    The address of whoever sent the request: of the connection, or the last one that a trusted proxy did not vouch for.

    Args:
        peer: The other end of the connection.

    Returns:
        `None` when nobody can tell: no address, a trusted proxy without its header, or one that is malformed.
    """
    address = _parsed(peer or "")
    if address is None or address not in proxies:
        return address
    by_header = {
        name: [value.decode("latin-1") for key, value in headers if key == name]
        for name in (b"x-forwarded-for", b"forwarded")
    }
    chains = [
        _last_hop(chain, proxies)
        for values, read in ((by_header[b"x-forwarded-for"], _listed_hops), (by_header[b"forwarded"], _forwarded_hops))
        if values
        for chain in [read(values)]
    ]
    # A proxy writes one of the two and passes the other on as the client sent it: they count when they agree.
    return chains[0] if chains and len(set(chains)) == 1 else None


def load_address_rules(settings: Settings) -> AddressRules | None:
    """
    Gather the settings; `None` where every key may be used from everywhere.

    Raises:
        InvalidSettings: `chatgpt` stands in one of them, and the file of its networks cannot be used.
    """
    texts = {scope: getattr(settings, f"RELAY_NETWORKS_{scope.name}") for scope in Scope}
    if not any((*texts.values(), settings.RELAY_NETWORKS_MCP)):
        return None
    published = _published(settings)
    return AddressRules(
        {scope: _networks(text, published) for scope, text in texts.items() if text},
        _networks(settings.RELAY_NETWORKS_MCP, published) if settings.RELAY_NETWORKS_MCP else None,
        NetworkSet(listed_networks(settings.RELAY_TRUSTED_PROXIES, published=False)[0]),
    )


class _Union:
    """Listed networks and the published ones."""

    def __init__(self, *parts: Networks) -> None:
        self._parts = parts

    def __contains__(self, address: Address) -> bool:
        return any(address in part for part in self._parts)


def _published(settings: Settings) -> ChatGptNetworks | None:
    names = [
        name
        for name in Settings.model_fields
        if name.startswith("RELAY_NETWORKS_") and listed_networks(getattr(settings, name))[1]
    ]
    if not names:
        return None
    if settings.RELAY_CHATGPT_NETWORKS_FILE is None:
        raise InvalidSettings(
            f"{names[0]}: `chatgpt` needs RELAY_CHATGPT_NETWORKS_FILE; "
            "`relay networks refresh --file chatgpt-networks.json` writes such a file"
        )
    return ChatGptNetworks(settings.RELAY_CHATGPT_NETWORKS_FILE)


def _networks(text: str, published: ChatGptNetworks | None) -> Networks:
    networks, chatgpt = listed_networks(text)
    listed = NetworkSet(networks)
    return _Union(listed, published) if chatgpt and published is not None else listed


def _last_hop(hops: list[str] | None, proxies: Networks) -> Address | None:
    address = None
    for hop in reversed(hops or []):
        address = _hop(hop)
        if address is None or address not in proxies:
            return address
    return address


def _listed_hops(values: list[str]) -> list[str]:
    return [hop.strip(" \t") for value in values for hop in value.split(",")]


def _forwarded_hops(values: list[str]) -> list[str] | None:
    hops = []
    for value in values:
        for element in value.split(","):
            if not _ELEMENT.fullmatch(element.strip(" \t")):
                return None
            pairs = [pair.strip(" \t").partition("=") for pair in element.split(";")]
            found = [text.strip('"') for name, _, text in pairs if name.lower() == "for"]
            if len(found) != 1:
                return None
            hops += found
    return hops


def _hop(text: str) -> Address | None:
    found = _HOP.fullmatch(text)
    return None if found is None else _parsed(found[1] or found[2] or found[3])


def _parsed(text: str) -> Address | None:
    """An address in its plain form: one of IPv4 inside one of IPv6 is the former, and a link's name says nothing."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
