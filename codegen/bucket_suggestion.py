"""
Suggests a bucket for an operation that upstream has added, by the rules of GOVERNANCE.md: a proposal, never a decision.

Not for: applying anything. `ACTIONS_DIRECT` is never suggested: what assistants get is chosen by people. Reads the
typed contract, writes nothing.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from codegen.contract import EVENT_STREAM, JSON, MULTIPART, Bucket, Contract, Exclusion, Operation
from codegen.upstream import UpstreamOperation, code

_MINTED = ("secret", "credential", "api_key")  # words in paths of what hands out access


@dataclass(frozen=True, slots=True)
class Suggestion:
    """
    What an operation might become, and why.

    Args:
        review: The review record that operations like it name; only with `PROXY_HARNESS`.
        reason: A whole sentence.
    """

    bucket: Bucket
    exclusion: Exclusion | None
    review: str
    reason: str

    @property
    def verdict(self) -> str:
        """The decision in words, such as `EXCLUDED hidden`."""
        return " ".join(filter(None, (self.bucket, self.exclusion, self.review)))


@dataclass(frozen=True, slots=True)
class _Case:
    operation: UpstreamOperation
    administration: bool
    contract: Contract


def suggest(operation: UpstreamOperation, contract: Contract, *, administration: bool = False) -> Suggestion:
    """
    Suggest a bucket; the first rule that applies decides, the narrower rules come first.

    Args:
        administration: Whether it needs an admin key.
    """
    case = _Case(operation, administration, contract)
    found = (rule(case) for rule in _RULES)
    return next((s for s in found if s), _excluded(Exclusion.HIDDEN, "No rule speaks for more."))


def _variant(case: _Case) -> Suggestion | None:
    plain = next((o for o in case.contract if (o.path, o.method) == case.operation.plain_place), None)
    if not case.operation.variant or plain is None:
        return None
    reason = f"A variant of `{plain.id}`: a line of the lock file, no operation of its own."
    return Suggestion(plain.bucket, plain.exclusion, plain.review, reason)


def _administration(case: _Case) -> Suggestion | None:
    if not case.administration:
        return None
    return _excluded(Exclusion.UNSUPPORTED, "It needs an admin key: administration is refused.")


def _neighbours_excluded(case: _Case) -> Suggestion | None:
    prefix, neighbours = _neighbours(case)
    for exclusion in Exclusion:
        if neighbours and all(neighbour.exclusion is exclusion for neighbour in neighbours):
            return _excluded(exclusion, f"All its neighbours below {code(prefix)} are `{exclusion}`.")
    return None


def _credential(case: _Case) -> Suggestion | None:
    if not any(word in case.operation.path for word in _MINTED):
        return None
    return _excluded(Exclusion.HIDDEN, "Its path speaks of credentials, which never reach assistants or the proxy.")


def _binary(case: _Case) -> Suggestion | None:
    operation = case.operation
    textual = all(m in {JSON, "application/sdp"} or m.startswith("text/") for m in operation.response_media)
    if textual and not operation.plain_place[0].endswith("/content"):
        return None
    return _excluded(Exclusion.HIDDEN, "Raw or binary content does not fit Actions or the JSON proxy.")


def _multipart(case: _Case) -> Suggestion | None:
    if MULTIPART not in case.operation.request_media:
        return None
    return Suggestion(
        Bucket.WRAPPER_REQUIRED, None, "", "It takes multipart bodies, which Actions and the proxy cannot carry."
    )


def _stream_alone(case: _Case) -> Suggestion | None:
    if set(case.operation.response_media) != {EVENT_STREAM} and ":" not in case.operation.path:
        return None
    return Suggestion(
        Bucket.WRAPPER_REQUIRED, None, "", "It answers as a stream alone or has a colon path; the proxy takes neither."
    )


def _json(case: _Case) -> Suggestion | None:
    operation = case.operation
    if not (set(operation.request_media) <= {JSON} and set(operation.response_media) <= {JSON, EVENT_STREAM}):
        return None
    reviews = Counter(o.review for o in case.contract if o.mirrored and o.method == operation.method and o.review)
    review = max(sorted(reviews), key=reviews.__getitem__, default="")
    return Suggestion(
        Bucket.PROXY_HARNESS,
        None,
        review,
        "JSON both ways; fit for the proxy once its review is written, `EXCLUDED` `hidden` until then.",
    )


_RULES: tuple[Callable[[_Case], Suggestion | None], ...] = (
    _variant,
    _administration,
    _neighbours_excluded,
    _credential,
    _binary,
    _multipart,
    _stream_alone,
    _json,
)


def _excluded(exclusion: Exclusion, reason: str) -> Suggestion:
    return Suggestion(Bucket.EXCLUDED, exclusion, "", reason)


def _neighbours(case: _Case) -> tuple[str, list[Operation]]:
    """The operations of upstream that share the longest beginning with its path, the area below `/v1/` at least."""
    path = case.operation.plain_place[0]
    own = _segments(path)
    shared = [
        (_common(own, _segments(operation.path)), operation)
        for operation in case.contract
        if operation.mirrored and (operation.path, operation.method) != case.operation.plain_place
    ]
    longest = max((length for length, _ in shared), default=0)
    if longest < 2:
        return "", []
    return "/" + "/".join(path.split("/")[1 : longest + 1]), [o for length, o in shared if length == longest]


def _segments(path: str) -> list[str]:
    return ["{}" if part.startswith("{") else part for part in path.split("/")[1:]]


def _common(one: list[str], other: list[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
