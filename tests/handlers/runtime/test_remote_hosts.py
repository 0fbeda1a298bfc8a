from collections.abc import Iterable

import pytest

from handlers.runtime.exceptions import FileRefused, FileUnreachable
from handlers.runtime.remote_hosts import DEFAULT_HOSTS, HostRules
from tests.support.hostile_links import GOOD_HOST, HOSTILE_ANSWERS, HOSTILE_LINKS, PUBLIC

EVERYTHING = ("0.0.0.0/0", "::/0")


class Answers:
    """A resolver that answers the same to everybody and counts who asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Iterable[str]:
        """Answer and remember."""
        self.asked.append((host, port))
        return self.addresses


def rules(
    *answers: str, allowed: Iterable[str] = DEFAULT_HOSTS, private: Iterable[str] = ()
) -> tuple[HostRules, Answers]:
    """Rules and the resolver that they ask."""
    resolver = Answers(*answers)
    return HostRules(allowed, private, resolver), resolver


async def checked(link: str, *answers: str, private: Iterable[str] = ()) -> list[str]:
    """Addresses to which a link may be followed."""
    judge, resolver = rules(*answers, private=private)
    addresses = await judge.addresses(judge.check_link(link))
    assert len(resolver.asked) == 1
    return [str(address) for address in addresses]


@pytest.mark.parametrize("template", HOSTILE_LINKS)
def test_a_link_that_could_lead_elsewhere_is_refused_before_anybody_is_asked(template: str) -> None:
    """The link alone decides, however much of the network is open, and the refusal does not repeat it."""
    link = template.format(port=8443)
    judge, resolver = rules("127.0.0.1", private=EVERYTHING)
    with pytest.raises(FileRefused) as caught:
        judge.check_link(link)
    assert not link or link not in caught.value.message
    assert "8443" not in caught.value.message
    assert resolver.asked == []


@pytest.mark.parametrize("answers", HOSTILE_ANSWERS, ids=", ".join)
async def test_one_bad_address_among_the_answers_refuses_the_file(answers: tuple[str, ...]) -> None:
    """Nothing but public addresses is ever connected to, whatever form the others take."""
    for private in ((), ("10.99.0.0/16", "fd12:3456::/32")):
        with pytest.raises(FileRefused) as caught:
            await checked(f"https://{GOOD_HOST}/file", *answers, private=private)
        assert all(not answer or answer not in caught.value.message for answer in answers)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",  # noqa: S104  # nothing binds to it here
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "ff02::1",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::",
        "2001:0:a9fe:a9fe::",
        "2606:4700::5efe:169.254.169.254",
    ],
)
async def test_no_setting_opens_metadata_and_link_local_addresses(address: str) -> None:
    """Somebody who declares the whole internet private still gets no credentials of the machine."""
    with pytest.raises(FileRefused):
        await checked(f"https://{GOOD_HOST}/file", address, private=EVERYTHING)


@pytest.mark.parametrize(
    "answers",
    [
        PUBLIC,
        ("8.8.8.8",),
        ("2606:4700::1111",),
        ("64:ff9b::808:808",),  # how a network without IPv4 sees 8.8.8.8
        ("8.8.8.8", "8.8.4.4", "1.1.1.1"),
    ],
    ids=", ".join,
)
async def test_public_addresses_are_connected_to(answers: tuple[str, ...]) -> None:
    """All answers stay, in their order, each once."""
    assert await checked(f"https://{GOOD_HOST}/file", *answers, *answers) == list(answers)


@pytest.mark.parametrize(
    "address, network",
    [
        ("127.0.0.1", "127.0.0.1/32"),
        ("10.20.1.2", "10.20.0.0/16"),
        ("100.64.1.2", "100.64.0.0/10"),
        ("::1", "::1/128"),
        ("fd12:3456::1", "fd12:3456::/32"),
    ],
)
async def test_a_private_network_that_is_named_is_open_on_every_port(address: str, network: str) -> None:
    """An operator may keep files inside; its neighbours stay closed."""
    link = f"https://{GOOD_HOST}:9443/file"
    assert await checked(link, address, private=[network]) == [address]
    with pytest.raises(FileRefused):
        await checked(link, address, "192.168.77.1", private=[network])
    with pytest.raises(FileRefused):
        await checked(link, address, private=["172.30.0.0/16"])


async def test_another_port_than_that_of_https_needs_a_private_network() -> None:
    """On a public address only 443 is asked; without private networks the host is not even looked up."""
    link = f"https://{GOOD_HOST}:8443/file"
    judge, resolver = rules(*PUBLIC)
    with pytest.raises(FileRefused):
        judge.check_link(link)
    assert resolver.asked == []
    with pytest.raises(FileRefused):
        await checked(link, *PUBLIC, private=["10.99.0.0/16"])
    with pytest.raises(FileRefused):
        await checked(link, "10.99.0.1", *PUBLIC, private=["10.99.0.0/16"])
    assert await checked(f"https://{GOOD_HOST}:443/file", *PUBLIC) == list(PUBLIC)


@pytest.mark.parametrize(
    "host",
    [
        GOOD_HOST,
        "FILES.OaiUserContent.COM",
        "sdmntprwestus.oaiusercontent.com",
        "a.b.oaiusercontent.com",
        "xn--bcher-kva.oaiusercontent.com",
        "oaisdmntprpolandcentral.blob.core.windows.net",
        "oaisdmntprnorthcentralus.blob.core.windows.net",
        "oaisdmntprwestus3.blob.core.windows.net",
    ],
)
def test_hosts_that_chatgpt_uses_are_allowed(host: str) -> None:
    """The default list covers them in any case of letters."""
    target = rules()[0].check_link(f"https://{host}/file")
    assert (target.host, target.port, target.address) == (host.lower(), 443, None)


def test_an_exact_name_stands_for_itself_alone() -> None:
    """Neither a name that ends with it nor one below it is meant."""
    judge, _ = rules(allowed=[GOOD_HOST])
    assert judge.check_link(f"https://{GOOD_HOST}/").host == GOOD_HOST
    for host in (f"evil{GOOD_HOST}", f"evil.{GOOD_HOST}", "oaiusercontent.com", "filesXoaiusercontent.com"):
        with pytest.raises(FileRefused):
            judge.check_link(f"https://{host}/")


@pytest.mark.parametrize(
    "link, resource",
    [
        (f"https://{GOOD_HOST}", "/"),
        (f"https://{GOOD_HOST}?a=1", "/?a=1"),
        (f"HTTPS://{GOOD_HOST}/a//b/../%2e%2E/c?sig=a%2Bb%3D&x=[1]", "/a//b/../%2e%2E/c?sig=a%2Bb%3D&x=[1]"),
    ],
)
def test_what_a_signature_covers_stays_as_it_is(link: str, resource: str) -> None:
    """Path and query are passed on byte for byte, and the repr does not show them."""
    target = rules()[0].check_link(link)
    assert target.resource == resource
    assert "sig" not in repr(target)


@pytest.mark.parametrize("host, text", [("10.20.0.7", "10.20.0.7"), ("[fd12:3456::7]", "fd12:3456::7")])
async def test_an_address_must_be_listed_and_lie_in_a_private_network(host: str, text: str) -> None:
    """Both are needed, and then nobody is asked for its address."""
    networks = ["10.20.0.0/16", "fd12:3456::/32"]
    for allowed, private in (([host], []), ([], networks), ([host], ["10.21.0.0/16", "fd12:9999::/32"])):
        with pytest.raises(FileRefused):
            rules(allowed=allowed, private=private)[0].check_link(f"https://{host}:9443/")
    judge, resolver = rules(allowed=[host], private=networks)
    target = judge.check_link(f"https://{host}:9443/")
    assert [str(address) for address in await judge.addresses(target)] == [text]
    assert (target.host, resolver.asked) == (text, [])


async def test_a_host_without_an_address_is_unreachable() -> None:
    """No answer and a failed look-up are the same to the caller."""

    async def fail(host: str, port: int) -> Iterable[str]:
        raise OSError(f"{host}:{port} is unknown")

    for resolver in (Answers(), fail):
        judge = HostRules(DEFAULT_HOSTS, (), resolver)
        with pytest.raises(FileUnreachable) as caught:
            await judge.addresses(judge.check_link(f"https://{GOOD_HOST}/"))
        assert GOOD_HOST not in caught.value.message


async def test_the_operating_system_is_asked_by_default() -> None:
    """Without a resolver of its own the relay sees what every program sees."""
    judge = HostRules(["localhost"])
    with pytest.raises(FileRefused):
        await judge.addresses(judge.check_link("https://localhost/"))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.com",
        "*.",
        "**.example.com",
        "files*",
        "files*.com",
        "files*.example.com",  # too short a beginning
        "a.*.example.com",
        "*files.example.com",
        "files-store*.example.com",
        "filestorage*x.example.com",
        "https://files.example.com",
        "files.example.com:443",
        "files.example.com/",
        "files.example.com.",
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
        "*.-a.example.com",
        "*.10.0.0.1",
    ],
)
def test_a_malformed_or_too_wide_host_stops_the_start(entry: str) -> None:
    """What cannot be a host, or would stand for too many, is an error and not a pattern that fits nothing."""
    with pytest.raises(ValueError, match="must be a host name"):
        HostRules([entry])


@pytest.mark.parametrize("entry", ["", "10.0.0.0/99", "10.0.0.1/8", "intranet", "files.example.com"])
def test_a_malformed_network_stops_the_start(entry: str) -> None:
    """A network is written as one."""
    with pytest.raises(ValueError, match="must be a network"):
        HostRules((), [entry])


@pytest.mark.parametrize("entry", ["169.254.0.0/16", "169.254.169.254", "fe80::/64", "fd00:ec2::254", "224.0.0.0/8"])
def test_a_network_that_can_never_be_opened_stops_the_start(entry: str) -> None:
    """Who asks for metadata or link-local addresses is told that they stay closed."""
    with pytest.raises(ValueError, match="must not be"):
        HostRules((), [entry])
