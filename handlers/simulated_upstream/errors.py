"""
What the simulated upstream refuses, in OpenAI's error envelope.

    UpstreamRefusal      the base: a status and an envelope
    ├── MissingKey       401
    ├── NotFound         404
    ├── BadRequest       400
    └── BodyTooLarge     413
"""

from typing import Any


def envelope(message: str, error_type: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Build OpenAI's error body."""
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}


class UpstreamRefusal(Exception):
    """A request that is answered with an error."""

    status = 500
    error_type = "invalid_request_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.body = envelope(message, self.error_type, param=param, code=self.code)


class MissingKey(UpstreamRefusal):
    """There is no bearer key."""

    status = 401
    code = "invalid_api_key"


class NotFound(UpstreamRefusal):
    """No such path, or no such object."""

    status = 404


class BadRequest(UpstreamRefusal):
    """The body or a query parameter cannot be understood."""

    status = 400


class BodyTooLarge(UpstreamRefusal):
    """A body that must be held in memory is too large."""

    status = 413
