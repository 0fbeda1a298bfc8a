import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from codegen.contract import Contract, Exclusion, Operation, Scope
from handlers.runtime.access import (
    BOOTSTRAP_SCOPES,
    KEY_BYTES,
    KEY_PREFIX,
    Caller,
    Key,
    KeyRing,
    authorise,
    authorise_streaming,
    hash_key,
)
from handlers.runtime.exceptions import (
    InsufficientScope,
    InvalidKey,
    MissingKey,
    OperationUnsupported,
    StreamingNotAllowed,
)

KEY = KEY_PREFIX + "first-0123456789abcdef"
OTHER = KEY_PREFIX + "second-0123456789abcdef"
RING = KeyRing(
    [
        Key("first", hash_key(KEY), frozenset({Scope.CANONICAL})),
        Key("second", hash_key(OTHER), frozenset({Scope.ACTIONS})),
    ]
)


def authenticated(*headers: tuple[str, str]) -> Caller:
    """Whom the ring sees behind these headers."""
    return RING.authenticate([(name.encode(), value.encode()) for name, value in headers])


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEY}")],
        [("authorization", f"bearer {KEY}")],
        [("authorization", f"  BEARER   {KEY}  ")],
        [("x-relay-key", KEY)],
        [("x-relay-key", f" {KEY} ")],
        [("authorization", f"Bearer {KEY}"), ("x-relay-key", KEY)],
        [("accept", "*/*"), ("x-relay-key", KEY), ("x-relay-key", KEY)],
    ],
)
def test_a_key_comes_as_bearer_or_in_its_own_header(headers: list[tuple[str, str]]) -> None:
    """Either header, or both with the same key, names the caller and what the key opens."""
    assert authenticated(*headers) == Caller("first", frozenset({Scope.CANONICAL}))


@pytest.mark.parametrize(
    "headers", [[], [("accept", "*/*")], [("x-relay-key", "")], [("x-relay-key", "  ")], [("authorization", "Bearer")]]
)
def test_without_a_key_there_is_no_caller(headers: list[tuple[str, str]]) -> None:
    """No header, or one with nothing in it, is a missing key and never an empty identity."""
    with pytest.raises(MissingKey):
        authenticated(*headers)


@pytest.mark.parametrize(
    "value",
    [
        KEY[:-1],
        KEY + "x",
        KEY.upper(),
        KEY_PREFIX,
        "x",
        hash_key(KEY).hex(),
        f"{KEY}\x00",
        f"{KEY} {KEY}",
        "é" * 40,
        "a" * 9000,
    ],
)
def test_what_is_not_exactly_a_key_is_invalid(value: str) -> None:
    """Only the whole key authenticates: no part of it, no other case, not its digest, nothing added."""
    for header in (("x-relay-key", value), ("authorization", f"Bearer {value}")):
        with pytest.raises(InvalidKey) as caught:
            authenticated(header)
        assert value not in caught.value.message


def test_two_different_keys_are_refused() -> None:
    """With two keys nobody could say whose request it is, so not even two good ones are accepted."""
    for first, second in itertools.permutations([KEY, OTHER, "nonsense"], 2):
        with pytest.raises(InvalidKey, match="different keys"):
            authenticated(("authorization", f"Bearer {first}"), ("x-relay-key", second))


def test_another_scheme_alone_is_invalid() -> None:
    """`Authorization` with anything but `Bearer` does not authenticate, and the message says what would."""
    for value in (f"Basic {KEY}", f"Token {KEY}", KEY, f"Bearer{KEY}"):
        with pytest.raises(InvalidKey, match="`Bearer`"):
            authenticated(("authorization", value))


def test_a_client_whose_authorization_is_taken_uses_the_other_header() -> None:
    """`X-Relay-Key` works beside an `Authorization` of another scheme: the contract says that it is there for this."""
    caller = authenticated(("authorization", "Basic dXNlcjpwYXNz"), ("x-relay-key", KEY))
    assert caller.key_id == "first"


def test_an_expired_key_is_like_an_unknown_one() -> None:
    """A key opens nothing from its end on, and everything of its own before."""
    now = datetime.now(UTC)
    moments = {"past": now - timedelta(seconds=1), "future": now + timedelta(minutes=5)}
    ring = KeyRing(Key(name, hash_key(name), frozenset({Scope.PROXY}), end) for name, end in moments.items())
    assert ring.authenticate([(b"x-relay-key", b"future")]).key_id == "future"
    with pytest.raises(InvalidKey):
        ring.authenticate([(b"x-relay-key", b"past")])


def test_keys_whose_digests_begin_alike_are_told_apart() -> None:
    """The first bytes of a digest only choose candidates; the whole digest decides."""
    digest = hash_key(KEY)
    lookalike = Key("lookalike", digest[:-1] + bytes([digest[-1] ^ 1]), frozenset(Scope))
    ring = KeyRing([lookalike, *RING.keys])
    assert ring.authenticate([(b"x-relay-key", KEY.encode())]).key_id == "first"
    with pytest.raises(InvalidKey):
        KeyRing([lookalike]).authenticate([(b"x-relay-key", KEY.encode())])


def test_an_empty_ring_knows_nobody() -> None:
    """Without keys every key is unknown."""
    with pytest.raises(InvalidKey):
        KeyRing([]).authenticate([(b"x-relay-key", KEY.encode())])


def test_a_key_never_shows_in_what_python_prints_of_it() -> None:
    """The ring and its keys hold digests only."""
    assert KEY not in repr(RING.keys)
    assert KEY not in repr(vars(RING))


def test_keys_are_long_enough() -> None:
    """Keys hold at least 256 random bits, and the bootstrap key opens everything but operator operations."""
    assert KEY_BYTES * 8 >= 256
    assert frozenset(Scope) - {Scope.OPERATOR} == BOOTSTRAP_SCOPES


def scope_sets() -> Iterable[frozenset[Scope]]:
    """Every combination of scopes, the empty one included."""
    return (frozenset(some) for count in range(len(Scope) + 1) for some in itertools.combinations(Scope, count))


def refusal(operation: Operation, scopes: frozenset[Scope]) -> type[Exception] | None:
    """How the operation refuses a key with these scopes."""
    try:
        authorise(operation, Caller("somebody", scopes))
    except (InsufficientScope, OperationUnsupported) as error:
        return type(error)
    return None


def test_any_one_scope_of_the_operation_opens_it(contract: Contract) -> None:
    """For every operation that takes a key and every set of scopes: a common scope opens it, nothing else does."""
    for operation, scopes in itertools.product((o for o in contract if not o.open), scope_sets()):
        fitting = not operation.scopes.isdisjoint(scopes)
        expected = InsufficientScope if not fitting else None if operation.served else OperationUnsupported
        assert refusal(operation, scopes) is expected, (operation.id, scopes)


def test_an_unsupported_operation_is_refused_with_its_reason(contract: Contract) -> None:
    """Even a key with every scope is refused, in the words of the contract."""
    unsupported = [operation for operation in contract if operation.exclusion is Exclusion.UNSUPPORTED]
    assert unsupported
    for operation in unsupported:
        with pytest.raises(OperationUnsupported) as caught:
            authorise(operation, Caller("somebody", frozenset(Scope)))
        assert operation.reason in caught.value.message


def test_internal_operations_open_to_operators_only(contract: Contract) -> None:
    """No scope but `operator` opens an internal operation; the bootstrap key does not either."""
    internal = [operation for operation in contract if operation.exclusion is Exclusion.INTERNAL]
    assert internal
    for operation in internal:
        assert refusal(operation, frozenset({Scope.OPERATOR})) is None
        assert refusal(operation, BOOTSTRAP_SCOPES) is InsufficientScope


def test_streams_need_the_canonical_scope(contract: Contract) -> None:
    """A key gets a stream with `canonical` and is refused one without, whatever else it opens; no wish, no refusal."""
    operation = contract.operations["createResponse"]
    for scopes in scope_sets():
        caller = Caller("somebody", scopes)
        authorise_streaming(operation, caller, wanted=False)
        if Scope.CANONICAL in scopes:
            authorise_streaming(operation, caller, wanted=True)
        else:
            with pytest.raises(StreamingNotAllowed) as caught:
                authorise_streaming(operation, caller, wanted=True)
            assert caught.value.param == "stream"
            assert "`stream` must be false" in caught.value.message
