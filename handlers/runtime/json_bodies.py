"""
JSON as it travels: bytes to value, strictly, and value to bytes.

Not for: holding a value against a schema (`handlers.runtime.validation`).
"""

import json
from typing import Any

import jiter

from handlers.runtime.exceptions import DuplicateKey, InvalidBody, MalformedJson


def decode_json(raw: bytes) -> Any:
    """
    Read JSON.

    Raises:
        MalformedJson: It is not JSON, not UTF-8, or nested more than 200 levels deep (400).
        DuplicateKey: One name stands twice in one object (400).
    """
    try:
        return jiter.from_json(raw, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    except ValueError as error:
        # Readers disagree on which of two equal names counts, so what was checked might not be what is obeyed.
        raise DuplicateKey if str(error).startswith("Detected duplicate key") else MalformedJson from None


def encode_json(value: Any) -> bytes:
    """
    Write a value that was read from JSON.

    Raises:
        InvalidBody: A number exceeds a double (400).
    """
    try:
        return json.dumps(value, allow_nan=False).encode()
    except ValueError:  # a number beyond what this machine can hold; JSON itself knows no bound
        raise InvalidBody("Numbers must fit into a double.") from None
