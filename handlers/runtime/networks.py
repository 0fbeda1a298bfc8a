"""
Networks in settings, and the published ones that ChatGPT's requests come from.

Reads the file that `relay networks refresh` writes. Not for: whose address a request has, or what it may do from there
(`handlers.runtime.addresses`).
"""

import json
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Any, Protocol

from handlers.runtime.exceptions import InvalidSettings
from handlers.runtime.remote_hosts import Address, Network, is_public

CHATGPT = "chatgpt"  # in a setting: the published networks
MAX_FILE_BYTES = 2**20  # the list of 2026-09-22 had 278 networks, some 15 KB
MAX_NETWORKS = 5000
# That list had 36,359 addresses. One that holds a hundred times as many is no list of one service's ways out.
MAX_IPV4_ADDRESSES = 2**22
MIN_IPV4_PREFIX = 16
MIN_IPV6_PREFIX = 32
LOOK_SECONDS = 60.0  # between two looks at whether the file has changed

_PREFIXES: dict[str, Callable[[str], Network]] = {"ipv4Prefix": IPv4Network, "ipv6Prefix": IPv6Network}


class Networks(Protocol):
    """Whatever can be asked whether an address lies in it."""

    def __contains__(self, address: Address, /) -> bool: ...


class NetworkSet:
    """
    Networks, asked whether an address lies in one of them: two searches, however many they are.

    Args:
        networks: In any order; they may overlap.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        kinds: dict[int, list[Any]] = {4: [], 6: []}
        for network in networks:
            kinds[network.version].append(network)
        self._starts: dict[int, list[int]] = {}
        self._ends: dict[int, list[int]] = {}
        for version, found in kinds.items():
            merged = sorted(collapse_addresses(found))
            self._starts[version] = [int(network.network_address) for network in merged]
            self._ends[version] = [int(network.broadcast_address) for network in merged]

    def __contains__(self, address: Address) -> bool:
        """Whether one of the networks holds the address."""
        number = int(address)
        place = bisect_right(self._starts[address.version], number) - 1
        return place >= 0 and number <= self._ends[address.version][place]


class ChatGptNetworks:
    """
    The networks of the file, read when this is made and again when the file has changed.

    Args:
        path: As `relay networks refresh` writes it.
        clock: In seconds, never going back.

    Raises:
        InvalidSettings: The file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked = clock()
        try:
            self._mark = _mark(path)
            self._networks = NetworkSet(read_networks(path))
        except (OSError, ValueError) as error:
            raise InvalidSettings(
                f"RELAY_CHATGPT_NETWORKS_FILE: {path}: {_reason(error)}; "
                f"`relay networks refresh --file {path}` writes it"
            ) from None

    def __contains__(self, address: Address) -> bool:
        """Whether ChatGPT's requests may come from the address."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        return address in self._networks

    def _look(self) -> None:
        """Take over a file that has changed; while it cannot be used, what was read before counts."""
        import structlog  # not above: settings are read by commands that log nothing, and before `lean_imports`

        log = structlog.get_logger("relay")
        try:
            mark = _mark(self._path)
            if mark == self._mark:
                return
            self._mark = mark
            self._networks = NetworkSet(read_networks(self._path))
        except (OSError, ValueError) as error:
            log.warning("chatgpt_networks_unusable", reason=_reason(error))
        else:
            log.info("chatgpt_networks_read")


def listed_networks(text: str, *, published: bool = True) -> tuple[list[Network], bool]:
    """
    Read a setting: networks with commas between them, and perhaps the word `chatgpt`.

    Args:
        published: Whether that word may stand there.

    Returns:
        The networks, and whether the word stands there.

    Raises:
        ValueError: An entry is neither.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    also = f", or `{CHATGPT}`" if published else ""
    networks = []
    for entry in entries:
        if published and entry == CHATGPT:
            continue
        try:
            networks.append(ip_network(entry.replace("%", "!")))  # what follows `%` names a link of this machine
        except ValueError:
            raise ValueError(f"must list networks such as 10.20.0.0/16,2001:db8::/32{also}; not `{entry}`") from None
    return networks, published and CHATGPT in entries


def parse_networks(text: bytes) -> list[Network]:
    """
    Read the published document: `{"creationTime": …, "prefixes": [{"ipv4Prefix": …}, …]}`.

    Raises:
        ValueError: It is something else, or names networks that nobody can have been given for this.

    Source: https://developers.openai.com/api/docs/guides/ip-addresses.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ValueError(f"must have at most {MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON") from None
    prefixes = document.get("prefixes") if isinstance(document, dict) else None
    if not isinstance(prefixes, list) or not 1 <= len(prefixes) <= MAX_NETWORKS:
        raise ValueError(f"must hold `prefixes`, a list of 1 to {MAX_NETWORKS} networks")
    networks = [_published_network(entry) for entry in prefixes]
    if sum(network.num_addresses for network in networks if network.version == 4) > MAX_IPV4_ADDRESSES:
        raise ValueError(f"must hold at most {MAX_IPV4_ADDRESSES} addresses of IPv4")
    return networks


def read_networks(path: Path) -> list[Network]:
    """
    Read such a document from a file.

    Raises:
        OSError: It cannot be read.
        ValueError: See `parse_networks`.
    """
    with path.open("rb") as file:
        return parse_networks(file.read(MAX_FILE_BYTES + 1))


def _published_network(entry: Any) -> Network:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError("every prefix must be an object with `ipv4Prefix` or `ipv6Prefix`")
    ((name, text),) = entry.items()
    try:
        network = _PREFIXES[name](text) if isinstance(text, str) else None
    except (KeyError, ValueError):
        network = None
    if network is None:
        raise ValueError(
            "every prefix must be an object with `ipv4Prefix` or `ipv6Prefix`, a network without host bits"
        )
    if network.prefixlen < (MIN_IPV4_PREFIX if network.version == 4 else MIN_IPV6_PREFIX):
        raise ValueError(f"no prefix may be shorter than /{MIN_IPV4_PREFIX}, or /{MIN_IPV6_PREFIX} for IPv6")
    if network.is_multicast or not (is_public(network[0]) and is_public(network[-1])):
        raise ValueError("every prefix must be a public network")
    return network


def _mark(path: Path) -> tuple[int, int, int]:
    """Changes when the file does: it is replaced as a whole."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _reason(error: Exception) -> str:
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
