"""An issuer of access tokens with real keys and signatures, which has bad days; on loopback when it is served."""

import base64
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.servers import ServerThread

ISSUER = "https://login.test/team/"  # the slash at its end counts
PUBLIC_URL = "https://relay.test"
RESOURCE = f"{PUBLIC_URL}/mcp"
SUBJECT = "somebody@people.test"
LIFETIME_SECONDS = 3600
_CURVES: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@dataclass(frozen=True)
class SigningKey:
    """
    A key pair.

    Args:
        algorithm: What it signs with.
        named: Whether its public form says so; many issuers leave that out.
    """

    algorithm: str
    kid: str
    named: bool = True
    private: Any = field(default=None, repr=False)

    def public(self) -> dict[str, Any]:
        """The public key as a JWK."""
        jwk = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.kid, "use": "sig", **({"alg": self.algorithm} if self.named else {})}


def make_signing_key(algorithm: str, *, named: bool = True, kid: str = "") -> SigningKey:
    """Make a key for an algorithm, with an id of its own unless one is given."""
    if algorithm in _CURVES:
        private: Any = ec.generate_private_key(_CURVES[algorithm])
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, 2048)
    return SigningKey(algorithm, kid or f"key-{secrets.token_hex(4)}", named, private)


class TokenIssuer:
    """
    Signs tokens and publishes its keys; counts how often it is asked for them.

    Args:
        keys: The first signs where a test does not say which.
        down: Whether it answers with an error.
        redirect: Where it sends those that ask, when it is not empty.
    """

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self.keys = list(keys) or [make_signing_key("RS256"), make_signing_key("ES256")]
        self.fetches = 0
        self.down = False
        self.redirect = ""

    def fetch_data(self) -> Any:
        """Answer as a source of keys, without sockets."""
        self.fetches += 1
        if self.down:
            raise ConnectionRefusedError
        return self.document()

    def document(self) -> dict[str, Any]:
        """The JWK Set."""
        return {"keys": [key.public() for key in self.keys]}

    def rotate(self) -> None:
        """Sign with other keys from now on; those so far are no longer published."""
        self.keys = [make_signing_key(key.algorithm, named=key.named) for key in self.keys]

    def token(self, key: SigningKey | None = None, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """
        Sign a token that is good for this relay but for what is given.

        Args:
            header: Fields of the header; `None` leaves one out.
            claims: Likewise.
        """
        key = key or self.keys[0]
        fields = {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt", **(header or {})}
        algorithm = get_default_algorithms()[key.algorithm]
        signed = f"{encode(present(fields))}.{encode(present({**usual_claims(), **claims}))}"
        return f"{signed}.{base64url(algorithm.sign(signed.encode(), key.private))}"

    async def answer(self, _request: Request) -> Response:
        """Publish the keys over HTTP."""
        self.fetches += 1
        if self.redirect:
            return RedirectResponse(self.redirect)
        return JSONResponse(self.document(), status_code=503 if self.down else 200)


@contextmanager
def serving(issuer: TokenIssuer) -> Iterator[dict[str, str]]:
    """
    Serve an issuer on loopback until the block ends.

    Returns:
        The settings of a relay that takes its tokens.
    """
    with ServerThread(Starlette(routes=[Route("/keys", issuer.answer)])) as server:
        yield {
            "RELAY_PUBLIC_URL": PUBLIC_URL,
            "RELAY_OAUTH_ISSUER": ISSUER,
            "RELAY_OAUTH_JWKS_URL": f"{server.url}/keys",
        }


def usual_claims() -> dict[str, Any]:
    """What a good token says."""
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": SUBJECT,
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
        "jti": secrets.token_hex(8),
        "client_id": "oauth-client-canary",
        "scope": "actions proxy",
    }


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there at all."""
    return {name: value for name, value in fields.items() if value is not None}


def encode(value: Any) -> str:
    """A part of a token."""
    return base64url(json.dumps(value).encode())


def base64url(content: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def parts_of(token: str) -> list[str]:
    """What must show nowhere: each part of a token that says something, and what is in it."""
    header, claims, signature = token.split(".")
    values = jwt.decode(token, options={"verify_signature": False})
    return [header, claims, signature, *(str(values[name]) for name in ("sub", "jti", "client_id") if name in values)]
