"""
Everything that can go wrong, as exceptions. What each becomes on the wire stands in `handlers.runtime.errors`.

    RelayError
    ├── AuthError
    │   ├── MissingKey              no credentials came along
    │   ├── InvalidKey              unknown or expired
    │   ├── AddressNotAllowed       from a network that may not come here
    │   ├── InvalidToken            an access token that opens nothing here
    │   └── InsufficientScope       a good key, for something else
    ├── PolicyError
    │   ├── UnknownOperation        no path of the contract fits
    │   ├── MethodNotAllowed        the path exists, the method does not
    │   ├── OperationUnsupported    in the contract, and refused by it
    │   ├── OperationNotProxied     in the contract, and not for the proxy
    │   ├── StreamingNotAllowed     no event streams for this key, or here
    │   ├── OriginNotAllowed        a page of a foreign site
    │   ├── OAuthNotConfigured      nobody issues access tokens for this relay
    │   └── ArtifactNotFound        no file behind this link
    ├── ContractViolation
    │   ├── MalformedRequest        not HTTP
    │   ├── InvalidParameter        path or query
    │   ├── MissingBody
    │   ├── MalformedJson           not JSON, not UTF-8, or nested too deeply
    │   ├── DuplicateKey            one name twice in one object
    │   ├── InvalidBody             JSON, but against the schema
    │   ├── IdempotencyKeyReused    the key came before, with another body
    │   ├── PayloadTooLarge
    │   ├── UriTooLong
    │   ├── HeadersTooLarge
    │   ├── RequestTimeout          it did not arrive in time
    │   ├── UpgradeRequired         a socket, asked for without its handshake
    │   ├── FileRefused             a file's link or type that is not allowed
    │   ├── FileTooLarge            a referenced file
    │   ├── NotText                 a file that has no text to read
    │   ├── RangeNotSatisfiable
    │   ├── NotAcceptable           the client takes none of the media types
    │   ├── UnsupportedMediaType
    │   └── UnsupportedExpectation
    ├── LimitError
    │   ├── Overloaded              too much runs already
    │   ├── KeyConcurrencyExceeded  too much runs for this key
    │   ├── SocketLimitReached      too many sockets of this key
    │   ├── UpstreamQueueFull       too much waits for the upstream
    │   ├── ArtifactStoreFull       no room for another file
    │   ├── IdempotencyInProgress   the first call with this key is still running
    │   ├── TokenIssuerUnavailable  nobody can say whether an access token is good
    │   └── StoreUnavailable        nobody can say whether a call was done before
    ├── UpstreamError
    │   ├── UpstreamUnreachable     no connection
    │   ├── UpstreamNameUnresolved  no address for its name
    │   ├── UpstreamTlsFailed       no trust in its certificate, or no TLS at all
    │   ├── UpstreamCircuitOpen     it failed too often just now; nobody asks it for a while
    │   ├── UpstreamProtocolError   it answered something that is not HTTP
    │   ├── UpstreamErrorWithheld   its error repeats our credentials, or may do so
    │   ├── FileUnreachable         a referenced file's own host
    │   └── UpstreamTimeout         it kept silent
    └── InternalError               a defect of the relay

    StartupError                    the relay cannot start; never becomes a reply
    ├── InvalidSettings
    ├── InvalidKeyFile
    ├── InvalidStore
    └── UnboundOperations
"""

from collections.abc import Iterable, Sequence


class RelayError(Exception):
    """
    A request that ends with one of the relay's own errors.

    Args:
        message: For the caller; says what is allowed and never repeats what the request held.
        param: The parameter or body field at fault, as the contract names it.
        headers: Extra reply headers, such as `Allow`.
    """

    def __init__(self, message: str = "", *, param: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = tuple(headers)


class AuthError(RelayError):
    """The caller may not do this."""


class MissingKey(AuthError):
    """No credentials came along."""


class InvalidKey(AuthError):
    """The key is unknown or has expired."""


class AddressNotAllowed(AuthError):
    """The client's address is in no network that may use this surface."""


class InvalidToken(AuthError):
    """The access token is not one of the issuer for this relay, or it has ended."""


class InsufficientScope(AuthError):
    """The key is good, but not for this operation."""


class PolicyError(RelayError):
    """The contract does not offer this."""


class UnknownOperation(PolicyError):
    """No path of the contract fits."""


class MethodNotAllowed(PolicyError):
    """The path exists, the method does not."""


class OperationUnsupported(PolicyError):
    """The contract lists the operation as refused."""


class OperationNotProxied(PolicyError):
    """The operation's bucket keeps it from the proxy."""


class StreamingNotAllowed(PolicyError):
    """The key or the surface gets no event streams."""


class OriginNotAllowed(PolicyError):
    """The request comes from a page of a site that is not allowed to ask."""


class OAuthNotConfigured(PolicyError):
    """No issuer of access tokens is configured."""


class ArtifactNotFound(PolicyError):
    """No file behind this link: whatever the reason, callers are told the same."""


class ContractViolation(RelayError):
    """The request does not fit the operation."""


class MalformedRequest(ContractViolation):
    """The bytes are not a request in HTTP/1.1."""


class InvalidParameter(ContractViolation):
    """A path or query parameter does not fit."""


class MissingBody(ContractViolation):
    """The operation needs a body."""


class MalformedJson(ContractViolation):
    """The body is not JSON, not UTF-8, or nested too deeply."""


class DuplicateKey(ContractViolation):
    """One name stands twice in one object."""


class InvalidBody(ContractViolation):
    """The body is JSON, but not what the operation takes."""


class IdempotencyKeyReused(ContractViolation):
    """The key came before, with another body."""


class PayloadTooLarge(ContractViolation):
    """The body exceeds the limit."""


class UriTooLong(ContractViolation):
    """The request target exceeds the limit."""


class HeadersTooLarge(ContractViolation):
    """The header section exceeds the limit."""


class RequestTimeout(ContractViolation):
    """The request did not arrive in time."""


class UpgradeRequired(ContractViolation):
    """The operation is a socket, and the request is no handshake for one."""


class FileRefused(ContractViolation):
    """The relay does not fetch this file."""


class FileTooLarge(ContractViolation):
    """The file exceeds the limit."""


class NotText(ContractViolation):
    """The file holds something else than text in UTF-8."""


class RangeNotSatisfiable(ContractViolation):
    """The range begins behind the end."""


class NotAcceptable(ContractViolation):
    """The client takes none of the media types of the reply."""


class UnsupportedMediaType(ContractViolation):
    """The body's media type is missing or not one of the operation's."""


class UnsupportedExpectation(ContractViolation):
    """`Expect` asks for something else than `100-continue`."""


class LimitError(RelayError):
    """The relay has no room for this now."""


class Overloaded(LimitError):
    """The relay runs as many requests as it may."""


class KeyConcurrencyExceeded(LimitError):
    """The key runs as many requests as it may."""


class SocketLimitReached(LimitError):
    """The key has as many sockets as it may."""


class UpstreamQueueFull(LimitError):
    """As many requests wait for a connection to the upstream as may."""


class ArtifactStoreFull(LimitError):
    """There is no room for another file."""


class IdempotencyInProgress(LimitError):
    """The first call with the key is still running."""


class TokenIssuerUnavailable(LimitError):
    """The issuer's keys could not be fetched, so nobody can say whether an access token is good."""


class StoreUnavailable(LimitError):
    """The store cannot say whether the call was done before."""


class UpstreamError(RelayError):
    """The upstream did not answer as it should."""


class UpstreamUnreachable(UpstreamError):
    """No connection to the upstream."""


class UpstreamNameUnresolved(UpstreamError):
    """The upstream's name has no address."""


class UpstreamTlsFailed(UpstreamError):
    """The upstream's certificate is not trusted, or it speaks no TLS."""


class UpstreamCircuitOpen(UpstreamError):
    """The upstream failed too often just now."""


class UpstreamProtocolError(UpstreamError):
    """The upstream answered something that is not HTTP, or broke off before its headers."""


class UpstreamErrorWithheld(UpstreamError):
    """The upstream's error repeats the relay's credentials, or cannot be read to tell."""


class FileUnreachable(UpstreamError):
    """The file could not be fetched, or not to its end."""


class UpstreamTimeout(UpstreamError):
    """The upstream kept silent."""


class InternalError(RelayError):
    """A defect of the relay."""


class StartupError(Exception):
    """The relay cannot start; the message says why and what to do."""


class InvalidSettings(StartupError):
    """A setting is unknown, missing or malformed."""


class InvalidKeyFile(StartupError):
    """The key file cannot be used."""


class InvalidStore(StartupError):
    """The store cannot be used."""


class UnboundOperations(StartupError):
    """
    Operations of the contract that no function serves.

    Args:
        problems: One line per operation.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["these operations cannot be bound:", *(f"  {problem}" for problem in problems)]))
