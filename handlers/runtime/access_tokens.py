"""
OAuth 2.1 access tokens of one configured issuer: who sent one, and what it opens. The relay is a resource server only.

Not for relay keys (`handlers.runtime.access`), and nobody is signed in here. Nothing of a token or its claims stands in
a message or a log line. PyJWT is imported only where an issuer is configured.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import httpx

from codegen.contract import Contract, Scope
from handlers.runtime.access import Caller
from handlers.runtime.exceptions import (
    AuthError,
    InsufficientScope,
    InvalidSettings,
    InvalidToken,
    MissingKey,
)
from handlers.runtime.issuer_keys import FETCH_TIMEOUT_SECONDS, IssuerKeys, KeySource
from handlers.runtime.settings import Settings

RESOURCE = "sendMcpMessage"
METADATA = "retrieveMcpProtectedResource"
RESOURCE_NAME = "chatgpt-team-relay"
KEY_ID_PREFIX = "token:"  # no relay key has a colon in its id
MAX_TOKEN_CHARACTERS = 8192
MAX_SUBJECT_CHARACTERS = 255
LEEWAY_SECONDS = 30.0  # between the issuer's clock and ours
# Signatures that the issuer alone can make: with `none` and HS* anybody could who has the public key.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}  # RFC 7518, RFC 8037
)
# RFC 9068 asks for `at+jwt`, which many issuers do not write, Entra ID, Keycloak and Cognito among them. What keeps an
# ID token out is then its audience: that is the client that signed somebody in, never the relay.
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})


class AccessTokens:
    """
    Judges the access tokens of one issuer.

    Args:
        settings: With an issuer and the relay's own address.
        contract: Says where the tools are, and which scopes a token may bring.
        source: Of the issuer's keys.
    """

    def __init__(self, settings: Settings, contract: Contract, source: KeySource) -> None:
        resource, metadata = contract.operations[RESOURCE], contract.operations[METADATA]
        self._issuer = settings.RELAY_OAUTH_ISSUER
        self._resource = f"{settings.RELAY_PUBLIC_URL}{resource.path}"
        self._audience = settings.RELAY_OAUTH_AUDIENCE or self._resource
        self._scopes = {scope.value: scope for scope in sorted(resource.token_scopes)}
        self._keys = IssuerKeys(source)
        self._challenge = (
            f'Bearer resource_metadata="{settings.RELAY_PUBLIC_URL}{metadata.path}", scope="{" ".join(self._scopes)}"'
        )
        self.metadata = {
            "resource": self._resource,
            "authorization_servers": [self._issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": list(self._scopes),
            "resource_name": RESOURCE_NAME,
        }

    async def verify(self, token: str) -> Caller:
        """
        Judge a token: signature, type, issuer, audience, times and subject.

        Returns:
            The caller, without scopes when the token brings none that counts. Its id tells people apart in log lines
            and says nothing about them: a subject may well be an address.

        Raises:
            InvalidToken: It is not one of the issuer for this relay, or its time is over (401).
            TokenIssuerUnavailable: The key that it names can be fetched neither now nor from memory (503).

        Source: RFC 9068, section 4; RFC 8725; MCP 2025-11-25, authorization.
        """
        import jwt

        kid, algorithm = _read_header(token)
        key = await self._keys.find(kid)
        if key.get("alg") not in (None, algorithm):
            raise InvalidToken
        try:
            claims = jwt.decode(
                token,
                jwt.PyJWK(dict(key), algorithm),  # refuses a key of another kind or curve
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iss", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("The access token has expired; get another.") from None
        except jwt.InvalidAudienceError:
            raise InvalidToken(f"The access token must be issued for {self._audience}.") from None
        except jwt.PyJWTError:
            raise InvalidToken from None
        if "cnf" in claims:  # RFC 7800: whoever sends it must prove to hold a key
            raise InvalidToken("The access token must be a bearer token, not bound to a key of the client.")
        return Caller(self._caller_id(claims["sub"]), self._scopes_of(claims))

    def challenge(self, error: AuthError) -> str:
        """
        The value of `WWW-Authenticate` that tells a client where tokens come from and what they must hold.

        Source: RFC 6750, section 3.1; RFC 9728, section 5.1; MCP 2025-11-25, scope challenge handling.
        """
        if isinstance(error, MissingKey):
            return self._challenge  # nothing was wrong yet
        code = "insufficient_scope" if isinstance(error, InsufficientScope) else "invalid_token"
        return f'{self._challenge}, error="{code}"'

    def _caller_id(self, subject: str) -> str:
        if not (0 < len(subject) <= MAX_SUBJECT_CHARACTERS and subject.isprintable()):
            raise InvalidToken
        return KEY_ID_PREFIX + hashlib.sha256(f"{self._issuer}\n{subject}".encode()).hexdigest()[:16]

    def _scopes_of(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        """The scopes that count; others are meant for somebody else, whatever they are called here."""
        granted = claims.get("scope", claims.get("scp"))  # RFC 9068; `scp` is what Entra ID and Okta write
        names = granted.split(" ") if isinstance(granted, str) else granted if isinstance(granted, list) else ()
        return frozenset(scope for name, scope in self._scopes.items() if name in names)


def load_access_tokens(settings: Settings, contract: Contract) -> AccessTokens | None:
    """
    Get ready for the tokens of the configured issuer; nothing is fetched yet.

    Returns:
        `None` when no issuer is configured.

    Raises:
        InvalidSettings: The certificates cannot be read.
    """
    if not settings.RELAY_OAUTH_ISSUER:
        return None
    import jwt

    tls = httpx.create_ssl_context()
    if settings.RELAY_OAUTH_CA_FILE is not None:
        try:
            tls.load_verify_locations(settings.RELAY_OAUTH_CA_FILE)
        except OSError as error:  # `ssl.SSLError` is one
            raise InvalidSettings(f"RELAY_OAUTH_CA_FILE: must be a file of certificates in PEM ({error})") from None
    source = jwt.PyJWKClient(  # follows no redirects
        settings.RELAY_OAUTH_JWKS_URL,
        cache_jwk_set=False,  # `IssuerKeys` keeps them, and asks less often when the issuer fails
        headers={"User-Agent": RESOURCE_NAME, "Accept": "application/json"},
        timeout=FETCH_TIMEOUT_SECONDS,
        ssl_context=tls,
    )
    return AccessTokens(settings, contract, source)


def _read_header(token: str) -> tuple[str, str]:
    """
    Refuse what no key could make good, so that it is worth no look-up.

    Returns:
        Id of the key and algorithm, as the token claims.
    """
    import jwt

    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        raise InvalidToken
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise InvalidToken from None
    kid, algorithm, type_ = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
    if not (isinstance(kid, str) and kid and isinstance(algorithm, str) and isinstance(type_, str)):
        raise InvalidToken
    # `crit` names extensions that must be understood (RFC 7515, section 4.1.11); the relay knows none.
    if algorithm not in ALGORITHMS or type_.lower() not in TOKEN_TYPES or "crit" in header:
        raise InvalidToken
    return kid, algorithm
