"""
One valid call for each operation that assistants have, with arguments that the simulated upstream answers.

The arguments come from the contract's examples; what they name, files and objects of the upstream, is made for each
call.
"""

import secrets
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import httpx
import jsonschema_rs
import openai

from codegen.contract import ACTIONS, FULL, JSON, load_contract
from codegen.tools import IDEMPOTENCY_KEY, Place, Tool, build_tools
from handlers.runtime.app import GENERATED
from tests.support.file_server import FileServer, whole
from tests.support.servers import HOST

CONTENT = b"Hello"  # of every file and upload
FILES = "openaiFileIdRefs"
FULL_CONTRACT = load_contract(GENERATED, FULL)
TOOLS = build_tools(FULL_CONTRACT, load_contract(GENERATED, ACTIONS))
# What the full document's example lacks, or says in a form that assistants do not have.
_OTHER_WORDS: dict[str, dict[str, Any]] = {
    "createResponse": {"input": "When do we move the wiki?"},
    "createEmbedding": {"input": "A relay passes a message on."},
    "listFiles": {"limit": 20},
}
_NEW_OBJECTS: dict[str, Callable[[openai.OpenAI], str]] = {
    "response_id": lambda team: team.responses.create(model="gpt-6-luna", input="Wait.", background=True).id,
    "file_id": lambda team: team.files.create(file=("notes.txt", CONTENT), purpose="user_data").id,
    "upload_id": lambda team: (
        team.uploads.create(bytes=len(CONTENT), filename="notes.txt", mime_type="text/plain", purpose="user_data").id
    ),
    "vector_store_id": lambda team: team.vector_stores.create(name="Notes").id,
    "video_id": lambda team: team.videos.create(prompt="A lighthouse.").id,
}


def tool_call(tool: Tool, team: openai.OpenAI, files: FileServer, *, as_objects: bool = False) -> dict[str, Any]:
    """
    Make the arguments of a valid call, and what they name; no call stands in another's way.

    Args:
        tool: One of `TOOLS`.
        team: An SDK client of the same upstream, to make objects with; its key opens `canonical`.
        files: Where the relay may fetch from. The files of the call lie there, in the folder of the tool's name.
        as_objects: Name files as ChatGPT does at run time, by objects, although the schema says texts: their links.

    Returns:
        Argument to value, valid by the tool's own schema.
    """
    arguments: dict[str, Any] = {
        argument.name: _NEW_OBJECTS[argument.name](team) for argument in tool.arguments if argument.place is Place.PATH
    }
    arguments |= _example(tool) | deepcopy(_OTHER_WORDS.get(tool.name, {}))
    if "part_ids" in arguments:
        arguments["part_ids"] = [team.uploads.parts.create(arguments["upload_id"], data=CONTENT).id]
    if IDEMPOTENCY_KEY in arguments:
        arguments[IDEMPOTENCY_KEY] = secrets.token_hex(8)  # or the second such call would not be done
    references = arguments.get(FILES, [])
    for reference in references:
        path = f"/{tool.name}/{reference['name']}"
        files.answers[path] = whole([CONTENT], length=len(CONTENT), media_type=reference["mime_type"])
        reference["download_link"] = files.link(path, HOST)
    links = [reference["download_link"] for reference in references]
    by_links = {**arguments, FILES: links} if links else arguments
    jsonschema_rs.validator_for(dict(tool.input_schema)).validate(by_links)
    return arguments if as_objects else by_links


def call_over_http(tool: Tool, arguments: Mapping[str, Any], client: httpx.Client) -> httpx.Response:
    """The same call as the request of its operation, without the help of the relay's own code."""
    places = {argument.name: argument.place for argument in tool.arguments}
    path, query, body = (
        {name: value for name, value in arguments.items() if places[name] is place}
        for place in (Place.PATH, Place.QUERY, Place.BODY)
    )
    return client.request(tool.method, tool.path.format_map(path), params=query, json=body or None)


def _example(tool: Tool) -> dict[str, Any]:
    """What assistants have of the full document's example, one with files where there is one."""
    names = {argument.name for argument in tool.arguments if argument.place is Place.BODY}
    body = FULL_CONTRACT.operations[tool.operation_id].body
    if not names or body is None:
        return {}
    examples = list(body.content[JSON].examples.values())
    example = next((one for one in examples if FILES in one), examples[0])
    return deepcopy({name: value for name, value in example.items() if name in names})
