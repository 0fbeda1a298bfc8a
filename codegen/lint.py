"""
`contract lint`: holds the Actions document against what is known of the importer of ChatGPT.

Not for: proof of a live import, general validity (`openapi-spec-validator`), or what the relay answers: time and size
of real replies are tested on the relay. Each finding names the fact that it rests on. Reads one file, writes none.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from codegen import lint_arguments, lint_schemas
from codegen.actions_document import FILE, ActionsDocument, found, mapping, mappings, text
from codegen.contract import METHODS
from codegen.exceptions import UnreadableDocument
from codegen.findings import Finding
from codegen.reader import read_yaml

VERSION = "3.1.0"
MAX_OPERATIONS = 30
MAX_DOCUMENT_BYTES = 800_000  # the editor stops at 1 MB of pretty-printed text; one project keeps below this
MAX_TEXT_CHARS = 299  # 300 is documented, but exactly 300 was seen rejected
OPERATION_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")  # no set is published; this is that of function names
SERVER_URL = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._-]+)*")
_NO_METHODS = ("parameters", "servers")  # keys of a path item that have checks of their own


def lint(root: Path) -> list[Finding]:
    """
    Find what the importer of ChatGPT would refuse, drop or misread in `spec/openapi.actions.yaml`.

    Args:
        root: The project's folder.

    Returns:
        Findings in order; empty when the document keeps every rule.

    Raises:
        UnreadableDocument: The file is missing or is not YAML with a mapping at its root.
    """
    document = read_yaml(root / FILE)
    try:
        content = (root / FILE).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UnreadableDocument(f"{FILE}: must be UTF-8; save it in that encoding.") from None
    return check(ActionsDocument(document, content))


def check(actions: ActionsDocument) -> list[Finding]:
    """Hold one document against every rule."""
    return sorted({finding for rule in CHECKS for finding in rule(actions)})


def version_is_accepted(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the version is not 3.1.0."""
    version = actions.document.get("openapi")
    if version != VERSION:
        problem = f"`openapi` is `{version}`; the importer accepts 3.1.0 and 3.1.1 alone, this project writes {VERSION}"
        yield found("importer-version", "openapi", problem, f"Write `openapi: {VERSION}`")


def server_is_one(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when there is not exactly one server."""
    count = len(mappings(actions.document, "servers"))
    if count != 1:
        problem = f"`servers` holds {count} entries; the importer needs one and drops every further one"
        yield found("importer-server", "servers", problem, "Leave one entry with the relay's public address")


def server_is_plain(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a server's address is not a lower-case https host without port and trailing slash."""
    for server in mappings(actions.document, "servers"):
        url = text(server, "url")
        if not SERVER_URL.fullmatch(url):
            problem = (
                f"`{url}` is no plain https address; the importer drops http, ports, capitals, placeholders, "
                "`localhost` and relative addresses, and a trailing slash made `//path` of a path"
            )
            step = (
                "Write `https://`, the host in lower case, and a base path if there is one, without a slash at the end"
            )
            yield found("importer-server", "servers", problem, step)


def server_is_public(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a server's address is one that nobody outside can reach."""
    for server in mappings(actions.document, "servers"):
        url = text(server, "url")
        if SERVER_URL.fullmatch(url) and _private(urlsplit(url).hostname or ""):
            problem = (
                f"`{url}` is not public; ChatGPT calls from OpenAI's servers, with a public certificate on port 443"
            )
            yield found("importer-server", "servers", problem, "Name the relay's public host")


def server_is_the_documents(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a path or an operation names a server of its own."""
    fact = "`servers` stands here; of several servers the importer keeps only one"
    for path, item in actions.paths.items():
        if "servers" in item:
            yield found("importer-server", path, fact, "Move it to the top of the document")
    for call in actions.calls:
        if "servers" in call.node:
            yield found("importer-server", call, fact, "Move it to the top of the document")


def operations_are_few(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when there are more operations than one action may have."""
    count = len(actions.calls)
    if count > MAX_OPERATIONS:
        problem = f"there are {count} operations; the importer takes at most {MAX_OPERATIONS} in one action"
        yield found("importer-operations", "paths", problem, "Give some operations another bucket")


def methods_are_known(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a path item holds something else than methods that assistants call."""
    for path, item in actions.paths.items():
        for key in item:
            if key not in (*METHODS, *_NO_METHODS):
                problem = f"`{key}` is no method that can be called; the importer skips `head`, `options` and `trace`"
                yield found("importer-operations", path, problem, f"Use {', '.join(METHODS)} alone")


def names_are_plain(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an operationId is missing or cannot be the name of a function."""
    for call in actions.calls:
        name = text(call.node, "operationId")
        if not OPERATION_ID.fullmatch(name):
            problem = (
                f"operationId `{name}` cannot name a function; the importer makes one of it, and skips what has none"
            )
            step = "Start with a letter and use at most 64 letters, digits and underscores"
            yield found("importer-operations", call, problem, step)


def names_are_unique(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when two operations have one operationId."""
    seen: set[str] = set()
    for call in actions.calls:
        name = text(call.node, "operationId")
        if name and name in seen:
            problem = f"operationId `{name}` stands twice; the importer makes one function of each name"
            yield found("importer-operations", call, problem, "Choose another name")
        seen.add(name)


def consent_is_explicit(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an operation does not tell whether it is consequential."""
    for call in actions.calls:
        if not isinstance(call.node.get("x-openai-isConsequential"), bool):
            problem = "`x-openai-isConsequential` is not set; without it every method but GET asks the user each time"
            step = "Write `true` for what changes or deletes something, otherwise `false`"
            yield found("importer-operations", call, problem, step)


def document_is_small(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the document is too large, as YAML or as the JSON that the editor makes of it."""
    printed = json.dumps(actions.document, indent=2, ensure_ascii=False, skipkeys=True, default=str)
    for form, content in (("YAML", actions.text), ("JSON with two blanks", printed)):
        size = len(content.encode(errors="replace"))
        if size >= MAX_DOCUMENT_BYTES:
            problem = f"as {form} it has {size} bytes; the editor prints it with two blanks, then stops at 1 MB"
            step = f"Shorten it below {MAX_DOCUMENT_BYTES} bytes, schemas of replies first"
            yield found("importer-size", "document", problem, step)


def purpose_is_told(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the document does not tell what it is for."""
    if not text(mapping(actions.document, "info"), "description"):
        problem = "`info.description` is missing; it tells ChatGPT when the action is relevant"
        yield found("importer-texts", "info", problem, "Say what it is for, and for what not")


def operations_are_described(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an operation lacks a text by which an assistant chooses."""
    for call in actions.calls:
        for key in ("summary", "description"):
            if not text(call.node, key):
                problem = f"`{key}` is missing; the texts are what ChatGPT chooses an operation by"
                yield found("importer-texts", call, problem, f"Write a `{key}` for that reader")


def texts_are_short(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a text of an operation is longer than the importer takes."""
    for call in actions.calls:
        for key in ("summary", "description"):
            length = len(text(call.node, key))
            if length > MAX_TEXT_CHARS:
                problem = f"`{key}` has {length} characters; the importer refuses more than 300, and 300 in one report"
                yield found("importer-texts", call, problem, f"Shorten it to at most {MAX_TEXT_CHARS}")


def security_is_one_scheme(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when there is more than one security scheme."""
    names = sorted(map(str, mapping(mapping(actions.document, "components"), "securitySchemes")))
    if len(names) > 1:
        problem = f"there are {len(names)} security schemes ({', '.join(names)}); the importer supports only 1"
        yield found("importer-security", "components", problem, "Leave the one whose key is typed into the editor")


def replies_never_redirect(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an operation promises a redirect."""
    for call in actions.calls:
        for code in call.replies:
            if code.startswith("3"):
                problem = (
                    f"the reply `{code}` redirects; whether ChatGPT follows is not known, so no path may rely on it"
                )
                yield found("importer-replies", call, problem, "Answer on this path and delete the reply")


def replies_never_stream(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an assistant could ask for a stream."""
    for call in actions.calls:
        names = [text(parameter, "name") for parameter in call.parameters]
        if "stream" in [*names, *actions.request_properties(call)]:
            problem = "`stream` is offered; ChatGPT takes no streams, only one complete reply"
            yield found("importer-replies", call, problem, "Delete the field")


def _private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        # A last label that begins with a digit is an address in another spelling, such as 127.1.
        return host.endswith((".local", ".internal", ".localhost")) or host.rpartition(".")[2][:1].isdigit()


CHECKS: tuple[Callable[[ActionsDocument], Iterable[Finding]], ...] = (
    version_is_accepted,
    server_is_one,
    server_is_plain,
    server_is_public,
    server_is_the_documents,
    operations_are_few,
    methods_are_known,
    names_are_plain,
    names_are_unique,
    consent_is_explicit,
    document_is_small,
    purpose_is_told,
    operations_are_described,
    texts_are_short,
    security_is_one_scheme,
    replies_never_redirect,
    replies_never_stream,
    *lint_arguments.CHECKS,
    *lint_schemas.CHECKS,
)
