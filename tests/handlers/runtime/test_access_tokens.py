import asyncio
import hashlib
import hmac
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import get_default_algorithms

from codegen.contract import Contract, Scope
from handlers.runtime.access import Caller
from handlers.runtime.access_tokens import (
    ALGORITHMS,
    LEEWAY_SECONDS,
    MAX_TOKEN_CHARACTERS,
    AccessTokens,
    load_access_tokens,
)
from handlers.runtime.exceptions import (
    InsufficientScope,
    InvalidKey,
    InvalidSettings,
    InvalidToken,
    MissingKey,
    RelayError,
    TokenIssuerUnavailable,
)
from handlers.runtime.settings import Settings, read_settings
from tests.support.token_issuer import (
    ISSUER,
    PUBLIC_URL,
    RESOURCE,
    SUBJECT,
    SigningKey,
    TokenIssuer,
    base64url,
    encode,
    make_signing_key,
    parts_of,
    usual_claims,
)

ENVIRONMENT = {
    "RELAY_PUBLIC_URL": PUBLIC_URL,
    "RELAY_OAUTH_ISSUER": ISSUER,
    "RELAY_OAUTH_JWKS_URL": "https://login.test/keys",
}
RSA_KEY, EC_KEY = make_signing_key("RS256", kid="rsa"), make_signing_key("ES256", kid="ec")
FOREIGN_KEY = make_signing_key("RS256")
PAST, FUTURE = 10**9, 10**11  # years 2001 and 5138
WRONG_CLAIMS: dict[str, list[Any]] = {
    "aud": [
        *(None, [], "", "https://other.test/mcp", f"{RESOURCE}/", PUBLIC_URL, RESOURCE.upper(), "client-1"),
        *(["https://other.test"], [RESOURCE, 7], {RESOURCE: 1}),
    ],
    "iss": [None, "", ISSUER.rstrip("/"), f"{ISSUER}x", "https://evil.test/", [ISSUER]],
    "exp": [None, PAST, "soon", [], float("inf"), 0, -1, True],
    "nbf": [FUTURE, "later", {}],
    "iat": [FUTURE, "then", []],
    "sub": [None, "", 7, ["a"], {}, "x" * 256, "a\nb", "a\x00", "\ud800", "\u202eevil"],
    "cnf": [{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}],
}
WRONG_HEADERS: dict[str, list[Any]] = {
    "typ": ["dpop+jwt", "logout+jwt", "id_token+jwt", "secevent+jwt", "JWE", "", 7, ["JWT"]],
    "alg": ["none", "None", "HS256", "HS512", "ES256K", "RSA-OAEP", "", None, 7, ["RS256"]],
    "kid": [None, "", 7, ["rsa"]],
    "crit": [["exp"], ["b64"], [], "exp"],
    "b64": [False],
}


@pytest.fixture
def issuer() -> TokenIssuer:
    """An issuer with an RSA and an EC key, never asked yet."""
    return TokenIssuer([RSA_KEY, EC_KEY])


@pytest.fixture
def tokens(issuer: TokenIssuer, contract: Contract) -> AccessTokens:
    """The relay's judge of its tokens."""
    return AccessTokens(read_settings(ENVIRONMENT), contract, issuer)


async def refusal(tokens: AccessTokens, token: str) -> RelayError:
    """How a token is refused; nothing of it may stand in the message."""
    with pytest.raises((InvalidToken, TokenIssuerUnavailable)) as caught:
        await tokens.verify(token)
    assert caught.value.__cause__ is None
    return caught.value


async def opens(tokens: AccessTokens, token: str) -> bool:
    """Whether a token is good and brings what it usually does."""
    return (await tokens.verify(token)).scopes == scopes("actions", "proxy")


def scopes(*names: str) -> frozenset[Scope]:
    """Scopes by name."""
    return frozenset(map(Scope, names))


def forged(header: Mapping[str, Any], sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    """A token with the usual claims and any header and signature."""
    text = f"{encode(header)}.{encode(usual_claims())}"
    return f"{text}.{base64url(sign(text.encode()))}"


def signed(key: SigningKey, text: str) -> str:
    """A signature over any text."""
    return base64url(get_default_algorithms()[key.algorithm].sign(text.encode(), key.private))


def pem(key: SigningKey) -> bytes:
    """The public key as everybody can get it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.private.public_key().public_bytes(serialization.Encoding.PEM, form))


async def test_a_good_token_names_its_caller(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """The scopes are those of the token; the id says who it is to those who know, and nothing to others."""
    digest = hashlib.sha256(f"{ISSUER}\n{SUBJECT}".encode()).hexdigest()
    assert await tokens.verify(issuer.token()) == Caller(f"token:{digest[:16]}", scopes("actions", "proxy"))
    assert await tokens.verify(issuer.token(EC_KEY)) == await tokens.verify(issuer.token())
    assert (await tokens.verify(issuer.token(sub="somebody-else"))).key_id != f"token:{digest[:16]}"
    assert issuer.fetches == 1


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_every_asymmetric_algorithm_is_taken(algorithm: str, named: bool, contract: Contract) -> None:
    """Whether the issuer's document names it or leaves it to the kind of the key."""
    issuer = TokenIssuer([make_signing_key(algorithm, named=named)])
    tokens = AccessTokens(read_settings(ENVIRONMENT), contract, issuer)
    assert (await tokens.verify(issuer.token())).scopes == scopes("actions", "proxy")


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [RESOURCE]},
        {"aud": ["https://other.test", RESOURCE]},
        {"iat": None},
        {"jti": None},
        {"sub": "x" * 255},
        {"sub": "Zoë Müller"},
        {"email": "a@b.test", "scp": "canonical"},
    ],
    ids=str,
)
async def test_a_token_may_say_more_or_less(claims: dict[str, Any], tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Several audiences, no more than is needed, claims that are nobody's business here."""
    assert (await tokens.verify(issuer.token(**claims))).scopes == scopes("actions", "proxy")


@pytest.mark.parametrize("claim, direction", [("exp", -1), ("nbf", 1), ("iat", 1)])
async def test_clocks_may_differ_a_little(
    claim: str, direction: int, tokens: AccessTokens, issuer: TokenIssuer
) -> None:
    """A token that has just ended, or is about to begin, is taken."""
    moment = time.time() + direction * LEEWAY_SECONDS / 3
    for value in (moment, int(moment)):
        claims: dict[str, Any] = {claim: value}
        assert await opens(tokens, issuer.token(**claims))


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, values in WRONG_CLAIMS.items() for value in values], ids=repr
)
async def test_claims_that_do_not_fit_are_refused(
    name: str, value: Any, tokens: AccessTokens, issuer: TokenIssuer
) -> None:
    """Another audience or issuer, a time that is over or to come, no subject, a token bound to its client."""
    claims: dict[str, Any] = {name: value}
    assert type(await refusal(tokens, issuer.token(**claims))) is InvalidToken


async def test_the_commonest_mistakes_are_told(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Whoever sets an issuer up reads which audience it must write, and that a token has expired."""
    assert RESOURCE in (await refusal(tokens, issuer.token(aud="https://other.test"))).message
    assert "expired" in (await refusal(tokens, issuer.token(exp=PAST))).message


@pytest.mark.parametrize("type_", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", None])
async def test_types_of_access_tokens_are_taken(type_: str | None, tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """RFC 9068's, and what issuers write that do not keep to it."""
    assert await opens(tokens, issuer.token(header={"typ": type_}))


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, values in WRONG_HEADERS.items() for value in values], ids=repr
)
async def test_a_header_that_does_not_fit_is_worth_no_look_up(
    name: str, value: Any, tokens: AccessTokens, issuer: TokenIssuer
) -> None:
    """Another type, an algorithm that anybody can use, no key, or what must be understood and is not."""
    assert type(await refusal(tokens, issuer.token(header={name: value}))) is InvalidToken
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "rk_0123456789abcdef",
        "a.b.c",
        encode({"alg": "RS256", "kid": "rsa"}),
        f"{encode({'alg': 'RS256', 'kid': 'rsa'})}.{encode({})}",
        f"{encode({'alg': 'RS256', 'kid': 'rsa'})}.{encode({})}.AAAA.AAAA.AAAA",
        f"{encode([])}.{encode({})}.AAAA",
        f"{encode('RS256')}.{encode({})}.AAAA",
        f"{base64url(b'{')}.{encode({})}.AAAA",
        f"{base64url(b'[' * 4000)}.{encode({})}.AAAA",
        f"{base64url(bytes(range(256)))}.{encode({})}.AAAA",
        f"{encode({'alg': 'RS256', 'kid': 'rsa'})}.{encode({})}.ÄÄÄÄ",
        f"{encode({'alg': 'RS256', 'kid': 'rsa'})} .{encode({})}.AAAA",
    ],
)
async def test_what_is_no_token_is_worth_no_look_up(text: str, tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Too few parts or too many, parts that are not Base64, JSON or objects."""
    assert type(await refusal(tokens, text)) is InvalidToken
    assert issuer.fetches == 0


async def test_a_token_has_an_end(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """A long one is taken up to the limit and refused beyond it, before it is read."""
    room = MAX_TOKEN_CHARACTERS - len(issuer.token(note="")) - 10
    assert await opens(tokens, issuer.token(note="x" * (room * 3 // 4)))
    assert issuer.fetches == 1
    for size in (MAX_TOKEN_CHARACTERS, 10 * MAX_TOKEN_CHARACTERS):
        assert type(await refusal(tokens, issuer.token(note="x" * size))) is InvalidToken


async def test_a_claim_that_is_no_json_is_refused(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Although the issuer has signed it."""
    for claims in (b"", b"7", b"[]", b"{", b"\xff", b"[" * 4000, b'{"exp":' + b"9" * 5000 + b"}"):
        text = f"{encode({'alg': 'ES256', 'kid': EC_KEY.kid})}.{base64url(claims)}"
        signature = issuer.token(EC_KEY).rpartition(".")[2]
        assert type(await refusal(tokens, f"{text}.{signature}")) is InvalidToken
        assert type(await refusal(tokens, f"{text}.{signed(EC_KEY, text)}")) is InvalidToken


async def test_nobody_else_can_sign(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Another key under the issuer's id, the right signature over other claims, or none at all."""
    header, claims, signature = issuer.token().split(".")
    other = encode({**usual_claims(), "sub": "somebody-else"})
    foreign = SigningKey("RS256", RSA_KEY.kid, private=FOREIGN_KEY.private)
    for token in (
        issuer.token(foreign),
        f"{header}.{other}.{signature}",
        f"{header}.{claims}.",
        f"{header}.{claims}.AAAA",
        f"{header}.{claims}.{signature[:-4]}",
        f"{header}.{claims}.{issuer.token(sub='x').rpartition('.')[2]}",
    ):
        assert type(await refusal(tokens, token)) is InvalidToken


async def test_a_public_key_is_no_secret(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """The old trick: HS256 with the public key, in every form in which it can be had, as the secret."""
    await tokens.verify(issuer.token())
    for secret in (pem(RSA_KEY), pem(RSA_KEY).strip(), encode(RSA_KEY.public()).encode()):
        for type_ in ("at+jwt", "JWT"):
            header = {"alg": "HS256", "kid": RSA_KEY.kid, "typ": type_}
            token = forged(header, lambda text, secret=secret: hmac.digest(secret, text, "sha256"))  # type: ignore[misc]
            assert type(await refusal(tokens, token)) is InvalidToken
    for algorithm in ("none", "NONE", "nOnE"):
        assert type(await refusal(tokens, forged({"alg": algorithm, "kid": RSA_KEY.kid}))) is InvalidToken


@pytest.mark.parametrize(
    "published, used",
    [
        ("RS256", "PS256"),
        ("RS256", "RS512"),
        ("RS256", "ES256"),
        ("RS256", "EdDSA"),
        ("ES256", "RS256"),
        ("ES256", "ES384"),
        ("ES384", "ES256"),
        ("EdDSA", "ES256"),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
async def test_a_key_serves_its_own_algorithm_only(published: str, used: str, named: bool, contract: Contract) -> None:
    """A key that names its algorithm serves no other; one that names none still has its kind and curve."""
    key = make_signing_key(published, named=named)
    issuer = TokenIssuer([key])
    tokens = AccessTokens(read_settings(ENVIRONMENT), contract, issuer)
    usable = used[:2] in {"RS", "PS"} and published == "RS256"
    signer = SigningKey(used, key.kid, private=key.private if usable else make_signing_key(used).private)
    token = issuer.token(signer)
    if usable and not named:
        assert await opens(tokens, token)
    else:
        assert type(await refusal(tokens, token)) is InvalidToken


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": base64url(b"0" * 32)},
        {"kty": "oct", "k": base64url(b"0" * 32), "alg": "RS256"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": 7},
        {},
        {"alg": 7},
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_used_opens_nothing(
    jwk: dict[str, Any], tokens: AccessTokens, issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the issuer publishes under the id that a token names."""
    monkeypatch.setattr(issuer, "document", lambda: {"keys": [{**jwk, "kid": RSA_KEY.kid}]})
    assert type(await refusal(tokens, issuer.token())) is InvalidToken


async def test_a_short_key_is_refused(contract: Contract) -> None:
    """RSA below 2048 bits can be broken (RFC 7518, section 3.3)."""
    weak = SigningKey("RS256", "weak", private=rsa.generate_private_key(65537, 1024))  # noqa: S505 - that is the point
    issuer = TokenIssuer([weak])
    assert (
        type(await refusal(AccessTokens(read_settings(ENVIRONMENT), contract, issuer), issuer.token())) is InvalidToken
    )


async def test_a_token_cannot_bring_its_own_key(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Keys in the header and addresses of keys there are passed over."""
    public = FOREIGN_KEY.public()
    for header in (
        {"jwk": public},
        {"jku": "https://evil.test/keys"},
        {"x5u": "https://evil.test/x"},
        {"x5c": ["AA=="]},
    ):
        for kid in (FOREIGN_KEY.kid, RSA_KEY.kid):
            token = issuer.token(SigningKey("RS256", kid, private=FOREIGN_KEY.private), header=header)
            assert type(await refusal(tokens, token)) is InvalidToken
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "claims, expected",
    [
        ({"scope": "actions"}, "actions"),
        ({"scope": "openid  proxy profile"}, "proxy"),
        ({"scope": "actions proxy"}, "actions proxy"),
        ({"scope": ["actions", "other"]}, "actions"),
        ({"scope": None, "scp": "actions"}, "actions"),
        ({"scope": None, "scp": ["proxy", "x"]}, "proxy"),
        ({"scope": "", "scp": "actions"}, ""),
        ({"scope": None}, ""),
        ({"scope": ""}, ""),
        ({"scope": "Actions ACTIONS actions.read action xactions actions,proxy"}, ""),
        ({"scope": "canonical realtime operator"}, ""),
        ({"scope": ["canonical", ["actions"], {"actions": 1}, 7, None]}, ""),
        ({"scope": {"actions": True}}, ""),
        ({"scope": 7, "scp": "actions"}, ""),
        ({"scope": None, "scp": True}, ""),
        ({"scope": None, "roles": ["actions"], "permissions": ["proxy"]}, ""),
    ],
    ids=str,
)
async def test_only_the_scopes_for_tools_count(
    claims: dict[str, Any], expected: str, tokens: AccessTokens, issuer: TokenIssuer
) -> None:
    """A token never opens more than `actions` and `proxy`; one without either is good and opens nothing."""
    assert (await tokens.verify(issuer.token(**claims))).scopes == scopes(*expected.split())


async def test_an_issuer_that_is_down_is_nobodys_fault(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """The client is told to come back, and the issuer is not asked again for every token."""
    issuer.down = True
    for _ in range(10):
        assert type(await refusal(tokens, issuer.token())) is TokenIssuerUnavailable
    assert issuer.fetches == 1


async def test_an_unknown_key_is_not_looked_up_for_every_token(tokens: AccessTokens, issuer: TokenIssuer) -> None:
    """Made-up tokens make the relay ask once; good ones are judged meanwhile."""
    for _ in range(20):
        assert type(await refusal(tokens, issuer.token(make_signing_key("ES256")))) is InvalidToken
    assert await opens(tokens, issuer.token())
    assert issuer.fetches == 1


async def test_a_hundred_tokens_at_once_are_one_look_up(
    tokens: AccessTokens, issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good and bad ones wait for the same keys, and the event loop does not."""
    may_answer = threading.Event()
    document = issuer.document()
    monkeypatch.setattr(issuer, "document", lambda: may_answer.wait(10) and document)
    good = [asyncio.create_task(tokens.verify(issuer.token(EC_KEY, sub=f"s{n}"))) for n in range(50)]
    bad = [asyncio.create_task(tokens.verify(issuer.token(make_signing_key("ES256")))) for _ in range(50)]
    async with asyncio.timeout(10):
        while not issuer.fetches:
            await asyncio.sleep(0.001)
        may_answer.set()
        assert len({caller.key_id for caller in await asyncio.gather(*good)}) == 50
        assert {type(error) for error in await asyncio.gather(*bad, return_exceptions=True)} == {InvalidToken}
    assert issuer.fetches == 1


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
async def test_nothing_of_a_token_is_told(
    down: bool, tokens: AccessTokens, issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its text nor its claims stand in what a refusal says or what is logged on the way."""
    logged = structlog.testing.CapturingLogger()
    monkeypatch.setattr("handlers.runtime.issuer_keys._log", logged)
    issuer.down = down
    canary = {"sub": "canary-subject", "jti": "canary-jti", "client_id": "canary-client", "aud": "https://canary.test"}
    foreign = SigningKey("RS256", RSA_KEY.kid, private=FOREIGN_KEY.private)
    unknown = SigningKey("RS256", "canary-key", private=FOREIGN_KEY.private)
    wrong: list[dict[str, Any]] = [{}, {"aud": RESOURCE, "exp": 7}, {"iss": "https://canary.test"}, {"nbf": 2**40}]
    for claims in wrong:
        for key in (RSA_KEY, foreign, unknown):
            token = issuer.token(key, **{**canary, **claims})
            error = await refusal(tokens, token)
            text = f"{error!r} {error.message} {error.param} {error.headers} {logged.calls}"
            assert "canary" not in text
            assert not [part for part in parts_of(token) if part in text]
    assert [call.kwargs for call in logged.calls] == ([{"error": "ConnectionRefusedError"}] if down else [])


def test_the_metadata_is_about_the_operation_for_tools(tokens: AccessTokens, contract: Contract) -> None:
    """Resource, scopes and the address of the metadata are what the contract says, at the relay's own address."""
    assert tokens.metadata == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["actions", "proxy"],
        "resource_name": "chatgpt-team-relay",
    }
    assert contract.operations["sendMcpMessage"].token_scopes == scopes("actions", "proxy")


def test_a_refusal_says_where_tokens_come_from(tokens: AccessTokens) -> None:
    """With the error's name once there was a credential, and the scopes to ask for."""
    usual = f'Bearer resource_metadata="{PUBLIC_URL}/.well-known/oauth-protected-resource/mcp", scope="actions proxy"'
    assert tokens.challenge(MissingKey()) == usual
    assert tokens.challenge(InvalidToken()) == f'{usual}, error="invalid_token"'
    assert tokens.challenge(InvalidKey()) == f'{usual}, error="invalid_token"'
    assert tokens.challenge(InsufficientScope()) == f'{usual}, error="insufficient_scope"'


def test_without_an_issuer_no_token_is_taken(contract: Contract) -> None:
    """That is the default; nothing is prepared then."""
    assert load_access_tokens(Settings(), contract) is None
    assert isinstance(load_access_tokens(read_settings(ENVIRONMENT), contract), AccessTokens)


def test_without_an_issuer_nothing_is_paid() -> None:
    """A relay without one does not even import the libraries: 170 ms and 12 MB."""
    code = (
        "import sys, handlers.runtime.app as app; from handlers.runtime.settings import Settings; "
        "app.create_services(Settings()); "
        "print({'jwt', 'cryptography'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "text"])
def test_certificates_that_cannot_be_read_stop_the_start(
    content: str | None, contract: Contract, tmp_path: Path
) -> None:
    """By the name of the setting, instead of failing at the first token."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidSettings, match=r"^RELAY_OAUTH_CA_FILE: "):
        load_access_tokens(read_settings({**ENVIRONMENT, "RELAY_OAUTH_CA_FILE": str(path)}), contract)


async def test_an_issuer_that_names_something_else_than_the_address(issuer: TokenIssuer, contract: Contract) -> None:
    """With an audience of its own set, tokens must name that, and no longer the address."""
    tokens = AccessTokens(read_settings({**ENVIRONMENT, "RELAY_OAUTH_AUDIENCE": "client-1"}), contract, issuer)
    assert await opens(tokens, issuer.token(aud="client-1"))
    assert "client-1" in (await refusal(tokens, issuer.token())).message
    assert tokens.metadata["resource"] == RESOURCE
