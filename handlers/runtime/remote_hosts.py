"""
Which hosts and addresses the relay fetches files from: the rules against server-side request forgery.

A link is taken apart here, once, and only in plain forms; what reads differently to different parsers is refused.
Opens no connection: `handlers.runtime.remote_files` does, to exactly the addresses that came out of here.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from handlers.runtime.exceptions import FileRefused, FileUnreachable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Iterable[str]]]

HTTPS_PORT = 443
MAX_LINK_CHARACTERS = 8192  # signed links of Azure and S3 have some 600 to 2,000
FILE_FIELD = "openaiFileIdRefs"  # where links stand in a request

# RFC 3986: nothing beyond these characters stands in an address. No fragment: what follows `#` is never sent.
_LINK = re.compile(
    r"https://([A-Za-z0-9.:\[\]-]+)((?:[/?][A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)?)", re.IGNORECASE | re.ASCII
)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::([1-9][0-9]{0,4}))?")
# The last label starts with a letter: `127.1`, `0x7f000001` and `2130706433` are addresses to most resolvers.
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_NAME_CHARACTERS = 253
_STAR = re.compile(r"(?P<start>[a-z0-9]{8,20})?\*\.(?P<end>[a-z0-9-]+(?:\.[a-z0-9-]+)+)")
_MAX_ACCOUNT_CHARACTERS = 24  # Azure storage accounts: 3 to 24 small letters and digits


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# No setting opens these: credentials of the machine lie there, or nothing that answers to anybody alone.
_NEVER = _networks(
    "0.0.0.0/8",
    "169.254.0.0/16",  # link-local, metadata of AWS, Azure, Google and others
    "100.100.100.200/32",  # metadata of Alibaba Cloud
    "168.63.129.16/32",  # Azure's wire server, a public address
    "192.0.0.192/32",  # metadata of Oracle Cloud
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "64:ff9b:1::/48",  # NAT64 of one's own: which address is inside depends on its set-up (RFC 8215)
    "fd00:ec2::/32",  # metadata of AWS
    "fd20:ce::/32",  # metadata of Google Cloud
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
# `is_global` of Python 3.11 still takes these for public.
_NOT_PUBLIC = _networks("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that is given out so far, RFC 4291
_NAT64 = IPv6Network("64:ff9b::/96")  # how a network without IPv4 reaches it, RFC 6052
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_V4_IN_THE_END = _networks("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214

# Where links of ChatGPT have been seen to lead. OpenAI documents the field, not the hosts; that the storage accounts
# have one prefix and a region is from reports such as https://github.com/totec448-spec/chat-on-steroids/issues/187.
# Anybody can register another account with that prefix. It then serves a file that its owner chose, as any link could;
# it leads nowhere else, since addresses and redirects are checked all the same.
DEFAULT_HOSTS = (
    "files.oaiusercontent.com",
    "*.oaiusercontent.com",
    "oaisdmntpr*.blob.core.windows.net",
)


@dataclass(frozen=True, slots=True)
class Target:
    """
    A link taken apart.

    Args:
        host: In lower case; a name, or an address in its shortest form without brackets.
        address: When the host is one.
        resource: Path and query as they stood, since signatures cover them.
    """

    host: str
    port: int
    address: Address | None
    resource: str = field(repr=False)


class HostRules:
    """
    What may be fetched.

    Args:
        allowed_hosts: Exact names; `*.example.com` for every name below; `storageprefix*.example.com` for one label
            that goes on with small letters and digits, at most 24 in all, as names of Azure storage accounts do.
            An address is allowed only as itself, and only inside `private_networks`.
        private_networks: Networks that are not public and may be fetched from all the same, on any port.
        resolver: Host name and port to addresses; the operating system's by default.

    Raises:
        ValueError: An entry is malformed or wider than it may be.
    """

    def __init__(
        self, allowed_hosts: Iterable[str], private_networks: Iterable[str] = (), resolver: Resolver | None = None
    ) -> None:
        self._hosts = tuple(_host_pattern(entry) for entry in allowed_hosts)
        self._private = tuple(_private_network(entry) for entry in private_networks)
        self._resolver = resolver or look_up

    def check_link(self, link: str) -> Target:
        """
        Take a link apart and hold it against everything that needs no look-up.

        Raises:
            FileRefused: It is not plain https, or leads to a host that is not allowed (400).
        """
        if not link.lower().startswith("https://"):
            raise refusal("The link of a file must begin with https://.")
        found = _LINK.fullmatch(link) if len(link) <= MAX_LINK_CHARACTERS else None
        authority = _AUTHORITY.fullmatch(found[1]) if found is not None else None
        if found is None or authority is None:
            raise refusal("The link of a file must be a plain https address without credentials and fragment.")
        port = int(authority[3] or HTTPS_PORT)
        address = _literal(authority[1] or authority[2])
        host = (authority[2] or "").lower() if address is None else str(address)
        named = len(host) <= _MAX_NAME_CHARACTERS and _NAME.fullmatch(host) is not None
        if not (named or address is not None) or not any(pattern.fullmatch(host) for pattern in self._hosts):
            raise refusal("The link of a file must lead to a host that this relay fetches from.")
        if address is not None and not (self._in_private_network(address) and self._admits(address)):
            raise refusal("The link of a file must name its host.")
        if port > 65535 or (port != HTTPS_PORT and not self._private):
            raise refusal(f"The link of a file must lead to port {HTTPS_PORT}.")
        resource = found[2] if found[2].startswith("/") else f"/{found[2]}"
        return Target(host, port, address, resource)

    async def addresses(self, target: Target) -> list[Address]:
        """
        Look the host up, once, and check every answer.

        Returns:
            The only addresses to which a connection may be made.

        Raises:
            FileRefused: One of the answers is no public address (400).
            FileUnreachable: The host has no address (502).
        """
        if target.address is not None:
            return [target.address]
        try:
            answers = list(dict.fromkeys(await self._resolver(target.host, target.port)))
        except OSError:
            answers = []
        if not answers:
            raise FileUnreachable("The host of the file has no address; ask for the file again.")
        addresses = [_parsed(answer) for answer in answers]
        checked = [address for address in addresses if address is not None and self._admits(address)]
        if len(checked) < len(answers):
            raise refusal("The link of a file must lead to a public address.")
        if target.port != HTTPS_PORT and not all(self._in_private_network(address) for address in checked):
            raise refusal(f"The link of a file must lead to port {HTTPS_PORT}.")
        return checked

    def _in_private_network(self, address: Address) -> bool:
        return any(address in network for network in self._private)

    def _admits(self, address: Address) -> bool:
        inside = _embedded(address)
        if any(one in network for one in (address, *inside) for network in _NEVER):
            return False
        return self._in_private_network(address) or is_public(address)


def refusal(message: str) -> FileRefused:
    """A refusal of what `openaiFileIdRefs` holds."""
    return FileRefused(message, param=FILE_FIELD)


async def look_up(host: str, port: int) -> list[str]:
    """Ask the operating system for the addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, wherever it is written inside another one."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        return all(is_public(one) for one in _embedded(address))
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if any(not is_public(one) for one in _embedded(address)):
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _embedded(address: Address) -> list[IPv4Address]:
    """IPv4 addresses to which a packet for this IPv6 address might be sent on."""
    if isinstance(address, IPv4Address):
        return []
    number = int(address)
    found = []
    if any(address in network for network in _V4_IN_THE_END) and number > 0xFFFF:  # below lie `::` and `::1`
        found.append(number & 0xFFFFFFFF)
    if address in _6TO4:
        found.append(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        found += [number >> 64 & 0xFFFFFFFF, ~number & 0xFFFFFFFF]
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(number & 0xFFFFFFFF)
    return [IPv4Address(one) for one in found]


def _literal(host: str) -> Address | None:
    """An address in its usual form: four decimal numbers, or IPv6."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _parsed(answer: str) -> Address | None:
    """An answer of the resolver; `None` when it is no address, or one of a single link."""
    return None if "%" in answer else _literal(answer)


def _host_pattern(entry: str) -> re.Pattern[str]:
    text = entry.lower()
    address = _literal(text.strip("[]"))
    if address is not None:
        return re.compile(re.escape(str(address)))
    if _NAME.fullmatch(text) and len(text) <= _MAX_NAME_CHARACTERS:
        return re.compile(re.escape(text))
    star = _STAR.fullmatch(text)
    if star is None or not _NAME.fullmatch(star["end"]):
        raise ValueError(
            f"`{entry}` must be a host name in ASCII: files.example.com, *.example.com or filestorage*.example.com"
        )
    if star["start"] is None:
        return re.compile(rf"(?:[a-z0-9-]+\.)+{re.escape(star['end'])}")
    rest = _MAX_ACCOUNT_CHARACTERS - len(star["start"])
    return re.compile(rf"{star['start']}[a-z0-9]{{1,{rest}}}\.{re.escape(star['end'])}")


def _private_network(entry: str) -> Network:
    try:
        network = ip_network(entry)
    except ValueError:
        raise ValueError(f"`{entry}` must be a network, such as 10.20.0.0/16 or fd12:3456::/32") from None
    if any(network[0] in never and network[-1] in never for never in _NEVER):
        raise ValueError(f"`{entry}` must not be link-local, multicast, reserved or a place for metadata")
    return network
