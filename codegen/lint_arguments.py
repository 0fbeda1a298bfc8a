"""
The part of `contract lint` about what goes in and out of an operation: parameters, bodies, media types, files.

Not for: what stands inside a schema (`codegen.lint_schemas`). Reads no files.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from codegen.actions_document import ActionsDocument, found, mapping, text
from codegen.contract import JSON
from codegen.findings import Finding

SCALARS = ("string", "integer", "number", "boolean")
MAX_FIELD_TEXT_CHARS = 700
FILES_IN = "openaiFileIdRefs"
FILES_OUT = "openaiFileResponse"
MAX_FILES = 10
_NUMBER = re.compile(r"\b(10|[1-9]|one|two|three|four|five|six|seven|eight|nine|ten|single)\b", re.IGNORECASE)
# Kinds of files as people call them, a media type, or an extension.
_KIND = re.compile(
    r"\b(pdf|csv|jsonl?|text|txt|markdown|images?|pictures?|photos?|png|jpe?g|webp|gif|audio|mp3|wav|documents?"
    r"|spreadsheets?|xlsx|docx|pptx|zip|any (type|kind))\b|\b[a-z]+/[a-z*]|\W\.[a-z]",
    re.IGNORECASE,
)


def parameters_stand_in_operations(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when parameters stand at a path."""
    for path, item in actions.paths.items():
        if "parameters" in item:
            problem = "`parameters` stands at the path; nothing shows that the importer reads it there"
            yield found("importer-parameters", path, problem, "Write them out in every operation of the path")


def parameters_are_inline(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a parameter or its schema is a reference."""
    for call in actions.calls:
        for parameter in call.parameters:
            target = parameter.get("$ref", mapping(parameter, "schema").get("$ref"))
            if target is not None:
                problem = f"`{target}` is a reference; the importer skips parameters that are references"
                yield found("importer-parameters", call, problem, "Write the parameter and its schema out here")


def parameters_are_named(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a parameter has no name."""
    for call in actions.calls:
        for number, parameter in enumerate(call.parameters, 1):
            if "$ref" not in parameter and not text(parameter, "name"):
                problem = f"parameter {number} has no name; the importer then skips the whole operation"
                yield found("importer-parameters", call, problem, "Give it a `name`")


def parameters_are_in_the_url(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a parameter is a header or a cookie."""
    for call in actions.calls:
        for parameter in call.parameters:
            if "$ref" not in parameter and parameter.get("in") not in ("path", "query"):
                problem = (
                    f"`{parameter.get('name')}` is in `{parameter.get('in')}`; the importer ignores headers, "
                    "and nothing shows that it sends cookies"
                )
                yield found("importer-parameters", call, problem, "Move it to `path` or `query`, or delete it")


def parameters_are_scalar(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the type of a parameter is missing, combined, a list or an object."""
    for call in actions.calls:
        for parameter in call.parameters:
            schema = mapping(parameter, "schema")
            if "$ref" not in parameter and "$ref" not in schema and schema.get("type") not in SCALARS:
                problem = f"`{parameter.get('name')}` has no scalar type; lists do not reach the query as repeated keys"
                step = f"Write `schema.type` as one of {', '.join(SCALARS)}, or move the field to a JSON body"
                yield found("importer-parameters", call, problem, step)


def parameters_are_described(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the description of a parameter is missing or too long."""
    for call in actions.calls:
        for parameter in call.parameters:
            length = len(text(parameter, "description"))
            if "$ref" not in parameter and not 0 < length <= MAX_FIELD_TEXT_CHARS:
                problem = (
                    f"the description of `{parameter.get('name')}` has {length} characters; ChatGPT fills the "
                    f"parameter by it, and the importer takes at most {MAX_FIELD_TEXT_CHARS}"
                )
                step = f"Write between 1 and {MAX_FIELD_TEXT_CHARS} characters"
                yield found("importer-parameters", call, problem, step)


def arguments_are_named_once(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a name is used twice among the parameters and the body's properties."""
    for call in actions.calls:
        taken = set(actions.request_properties(call))
        for name in [text(parameter, "name") for parameter in call.parameters]:
            if name and name in taken:
                problem = (
                    f"`{name}` stands twice; parameters and properties of the body share one namespace of arguments"
                )
                yield found("importer-parameters", call, problem, "Rename or delete one of them")
            taken.add(name)


def bodies_are_inline(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a request body or a reply is a reference."""
    for call in actions.calls:
        for name, body in call.bodies.items():
            if "$ref" in body:
                problem = f"{name} is a reference; the importer is known to resolve `components/schemas` alone"
                yield found("importer-bodies", call, problem, "Write it out here; its schema may stay a reference")


def bodies_are_objects(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the root of a request body is not an object with properties."""
    for call in actions.calls:
        content = mapping(call.request or {}, "content")
        if JSON in content and not actions.request_properties(call):
            problem = "the root of the request body has no properties; the importer skips what is no object schema"
            step = "Make it `type: object` with `properties`; put a list or a choice into one of them"
            yield found("importer-bodies", call, problem, step)


def bodies_are_json(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a request body or a reply is not JSON alone."""
    for call in actions.calls:
        for name, body in call.bodies.items():
            kinds = list(mapping(body, "content"))
            if "$ref" not in body and kinds != [JSON]:
                given = " or ".join(map(str, kinds)) or "without content"
                problem = (
                    f"{name} is {given}; JSON is the only documented form: file parts are not sent, replies are text, "
                    "and there are no streams"
                )
                yield found("importer-media-types", call, problem, f"Offer `{JSON}` alone, or choose another bucket")


def files_come_by_post(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when files are expected elsewhere than at the top of the JSON body of a POST."""
    for call in actions.calls:
        fields = [field for field in actions.fields(call.request or {}) if field.name == FILES_IN]
        named = any(parameter.get("name") == FILES_IN for parameter in call.parameters)
        if named or any(field.depth > 0 or call.method != "post" for field in fields):
            problem = (
                f"`{FILES_IN}` is misplaced; files are only handed to a top-level property of the JSON body of a POST"
            )
            yield found("importer-files", call, problem, "Move it there, or delete it")


def files_are_texts_in_the_document(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when files are not declared as the list of strings that the importer looks for."""
    for call in actions.calls:
        for field in actions.fields(call.request or {}):
            items = actions.resolved(mapping(field.schema, "items"))
            if field.name == FILES_IN and (field.schema.get("type"), items.get("type")) != ("array", "string"):
                problem = f"`{FILES_IN}` is no list of strings; it is declared so, although objects arrive"
                yield found("importer-files", call, problem, "Write `type: array` with `items: {type: string}`")


def files_are_described(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the description does not tell how many files of what kind are expected."""
    for call in actions.calls:
        for field in actions.fields(call.request or {}):
            description = text(field.schema, "description")
            if field.name == FILES_IN and not (_NUMBER.search(description) and _KIND.search(description)):
                problem = (
                    f"the description of `{FILES_IN}` lacks the type or the number of files; the model reads only that"
                )
                yield found("importer-files", call, problem, "Say both, such as `One to three PDF files.`")


def files_are_few(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when more files are allowed than one call carries."""
    for call in actions.calls:
        for field in [field for body in call.bodies.values() for field in actions.fields(body)]:
            limit = field.schema.get("maxItems", 0)
            if field.name in (FILES_IN, FILES_OUT) and isinstance(limit, int) and limit > MAX_FILES:
                problem = f"`{field.name}` allows {limit} files; one call carries at most {MAX_FILES} in each direction"
                yield found("importer-files", call, problem, f"Write `maxItems: {MAX_FILES}` or less")


def returned_files_are_a_list(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when files in a reply are not a list."""
    for call in actions.calls:
        for field in [field for reply in call.replies.values() for field in actions.fields(reply)]:
            if field.name == FILES_OUT and field.schema.get("type") != "array":
                problem = f"`{FILES_OUT}` is no list; ChatGPT takes files from a list alone, also a single one"
                yield found("importer-files", call, problem, "Write `type: array`")


CHECKS: tuple[Callable[[ActionsDocument], Iterable[Finding]], ...] = (
    parameters_stand_in_operations,
    parameters_are_inline,
    parameters_are_named,
    parameters_are_in_the_url,
    parameters_are_scalar,
    parameters_are_described,
    arguments_are_named_once,
    bodies_are_inline,
    bodies_are_objects,
    bodies_are_json,
    files_come_by_post,
    files_are_texts_in_the_document,
    files_are_described,
    files_are_few,
    returned_files_are_a_list,
)
