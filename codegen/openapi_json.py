"""Renders `spec/generated/openapi.*.json`: the documents as the runtime loads them."""

import orjson

from codegen.contract import Contract


def render_openapi_json(contract: Contract) -> str:
    """
    Write a document of the contract as JSON.

    Returns:
        The document as JSON, indented so that it diffs, keys in the document's order.
    """
    return orjson.dumps(contract.document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
