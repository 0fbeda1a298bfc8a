"""
Bad edits of single operations, in either document, and the rule of `contract check` that owns each.

Not for: other parts and other files (`document_mutations`) and the importers' rules (`actions_mutations`).
"""

from codegen.contract import ACTIONS, EVENT_STREAM, JSON, Bucket
from tests.support.contract_edits import (
    ASKED,
    CARRIER,
    DASHED,
    DIRECT,
    HIDDEN,
    INTERNAL,
    OPENED_BY_PROXY,
    PROXY,
    UNSUPPORTED,
    WRAPPED,
    WRAPPER,
    answering,
    decide,
    first,
    give,
    listed_in_actions,
    lose,
    on,
    opened_to,
    removed,
    renamed_path,
    second,
    swapped,
    taking_tokens,
    to_proxy,
)
from tests.support.mutations import Command, Edit, Mutation, mutations_of

ENDING = first(lambda o: o.deprecated and o.served)
LASTING = first(lambda o: o.mirrored and o.served and not o.deprecated)
OWN_POST = first(lambda o: not o.mirrored and o.method == "POST")
OWN_BELOW_V1 = first(lambda o: not o.mirrored and o.path.startswith("/v1/") and o.method == "GET")
MIRRORED_HIDDEN = first(lambda o: o.mirrored and o.served and o.bucket is Bucket.EXCLUDED)
SENT = first(lambda o: o.mirrored and o.served and o.request_media == {JSON})
ITEM = first(lambda o: o.path.count("{") == 1)

REASON = "It is not for everybody."
UNKNOWN_DAY = "2027-02-30"
BODY = {"requestBody": {"content": {JSON: {"schema": {"type": "object"}}}}}
QUERY = {"parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer"}}]}
LOST = {"$ref": "#/components/schemas/LostSchema"}

BUCKETS: dict[str, dict[str, Edit]] = {
    "bucket-total": {
        "no bucket on a direct operation": on(DIRECT, lose("x-policy-bucket")),
        "no bucket on an operation for the proxy": on(PROXY, lose("x-policy-bucket")),
        "no bucket on a wrapped operation": on(WRAPPED, lose("x-policy-bucket")),
        "no bucket on a refused operation": on(UNSUPPORTED, lose("x-policy-bucket")),
        "no bucket in the Actions document": on(DIRECT, lose("x-policy-bucket"), ACTIONS),
        "unknown bucket": on(DIRECT, give({"x-policy-bucket": "PUBLIC"})),
        "bucket in lower case": on(PROXY, give({"x-policy-bucket": "proxy_harness"})),
        "list of two buckets": on(PROXY, give({"x-policy-bucket": ["PROXY_HARNESS", "EXCLUDED"]})),
        "no exclusion": on(HIDDEN, lose("x-policy-exclusion")),
        "unknown exclusion": on(HIDDEN, give({"x-policy-exclusion": "secret"})),
        "exclusion on an operation for the proxy": on(PROXY, give({"x-policy-exclusion": "hidden"})),
    },
    "reason-given": {
        "no reason for a wrapper": on(WRAPPED, lose("x-policy-reason")),
        "no reason for a refusal": on(UNSUPPORTED, lose("x-policy-reason")),
        "reason that is no sentence": on(HIDDEN, give({"x-policy-reason": "because"})),
        "reason on an operation for the proxy": on(PROXY, give({"x-policy-reason": REASON})),
    },
    "closed-vocabulary": {
        "unknown policy field": on(PROXY, give({"x-policy-owner": "me"})),
        "mistyped policy field": on(WRAPPED, give({"x-policy-reasons": REASON})),
        "extension of another tool": on(HIDDEN, give({"x-stainless-skip": True})),
        "policy field inside a reply": on(DIRECT, lambda node: node["responses"].update({"x-policy-open": True})),
        "unknown policy field in the Actions document": on(DIRECT, give({"x-policy-public": True}), ACTIONS),
    },
}
SURFACES: dict[str, dict[str, Edit]] = {
    "canonical-kept": {
        "canonical lost by an operation for the proxy": on(PROXY, opened_to("proxy")),
        "canonical lost by a direct operation": on(DIRECT, opened_to("actions")),
        "canonical lost by a refused operation": on(UNSUPPORTED, opened_to("realtime")),
    },
    "actions-match": {
        "operation missing from the Actions document": removed(DIRECT, ACTIONS),
        "operation in the Actions document alone": listed_in_actions(ASKED, "/v1/asks", operationId="ask"),
        "direct operation moved to the proxy in one document": to_proxy(DIRECT),
        "operation for the proxy made direct in one document": on(PROXY, decide(bucket="ACTIONS_DIRECT")),
        "another operationId in the Actions document": on(DIRECT, give({"operationId": "ask"}), ACTIONS),
        "operationId that importers do not take": lambda c: on(
            DASHED, give({"operationId": DASHED(c.full).id}), ACTIONS
        )(c),
        "another path in the Actions document": renamed_path(DIRECT, "{}s".format, ACTIONS),
        "another bucket in the Actions document": on(
            DIRECT, decide(bucket="EXCLUDED", exclusion="hidden", reason=REASON), ACTIONS
        ),
    },
    "actions-scope": {
        "actions scope on an operation for the proxy": on(PROXY, opened_to("canonical", "actions")),
        "actions scope on a hidden operation": on(MIRRORED_HIDDEN, opened_to("canonical", "actions")),
        "actions scope lost by a direct operation": on(DIRECT, opened_to("canonical")),
        "canonical scope in the Actions document": on(DIRECT, opened_to("canonical"), ACTIONS),
        "actions scope lost by a wrapper": on(WRAPPER, opened_to("canonical")),
        "actions scope on the proxy": on(OPENED_BY_PROXY, opened_to("proxy", "actions")),
        "no scope in the Actions document": on(WRAPPER, opened_to(), ACTIONS),
    },
    "proxy-alone": {
        "proxy open to assistants as well": on(OPENED_BY_PROXY, opened_to("proxy", "actions")),
        "proxy open to SDK clients as well": on(OPENED_BY_PROXY, opened_to("proxy", "canonical")),
        "proxy open to assistants in the Actions document": on(OPENED_BY_PROXY, opened_to("proxy", "actions"), ACTIONS),
        "wrapper that the proxy's scope opens": on(WRAPPER, opened_to("proxy")),
        "operation of upstream that the proxy's scope opens": on(DIRECT, opened_to("proxy")),
        "operation of the Actions document that the proxy's scope opens": on(WRAPPER, opened_to("proxy"), ACTIONS),
    },
    "carrier-as-carried": {
        "carrier that fewer keys open": on(CARRIER, opened_to("actions")),
        "carrier that other keys open": on(CARRIER, opened_to("actions", "canonical", "proxy", "realtime")),
        "carrier among upstream's operations": lambda c: on(CARRIER, give({"tags": [ASKED(c.full).tag]}))(c),
        "carrier that is not hidden": on(CARRIER, give({"x-policy-exclusion": "internal"})),
        "carrier of what nobody can name": on(CARRIER, give({"x-policy-carries": "EXCLUDED"})),
        "token that opens everything": on(CARRIER, taking_tokens("canonical")),
        "token beside the carrier": on(WRAPPER, taking_tokens("actions")),
        "token in the Actions document": on(WRAPPER, taking_tokens("actions"), ACTIONS),
        "carrier in the Actions document": on(WRAPPER, give({"x-policy-carries": "ACTIONS_DIRECT"}), ACTIONS),
    },
    "wrapper-kept-out": {
        "wrapped operation in the Actions document": listed_in_actions(WRAPPED),
        "direct operation that needs a wrapper": on(DIRECT, decide(bucket="WRAPPER_REQUIRED", reason=REASON)),
        "direct operation under another name there that needs a wrapper": on(
            DASHED, decide(bucket="WRAPPER_REQUIRED", reason=REASON)
        ),
    },
    "internal-unpublished": {
        "internal operation in the Actions document": listed_in_actions(INTERNAL),
        "direct operation made internal": on(DIRECT, decide(bucket="EXCLUDED", exclusion="internal", reason=REASON)),
        "direct operation under another name there made internal": on(
            DASHED, decide(bucket="EXCLUDED", exclusion="internal", reason=REASON)
        ),
        "internal operation open to SDK clients": on(INTERNAL, opened_to("operator", "canonical")),
        "internal operation open to everybody": on(INTERNAL, opened_to()),
        "operation of upstream made internal": on(
            MIRRORED_HIDDEN, decide(bucket="EXCLUDED", exclusion="internal", reason=REASON)
        ),
    },
    "operator-alone": {
        "internal operation published": on(INTERNAL, give({"x-policy-exclusion": "hidden"})),
        "operator scope on an operation for the proxy": on(PROXY, opened_to("canonical", "operator")),
        "operator scope on a direct operation": on(DIRECT, opened_to("canonical", "actions", "operator")),
        "operator scope in the Actions document": on(DIRECT, opened_to("operator"), ACTIONS),
    },
    "open-reads-only": {
        "open POST": on(OWN_POST, opened_to()),
        "open operation of upstream": on(PROXY, opened_to()),
        "open operation below /v1/": on(OWN_BELOW_V1, opened_to()),
    },
}
PROXY_RULES: dict[str, dict[str, Edit]] = {
    "proxy-json-only": {
        "multipart body in the proxy": to_proxy(first(lambda o: o.multipart)),
        "colon path in the proxy": to_proxy(first(lambda o: o.colon_path)),
        "path ending in /content in the proxy": to_proxy(first(lambda o: o.content_path and o.json_only)),
        "binary reply in the proxy": to_proxy(first(lambda o: o.binary and not o.content_path)),
        "stream alone in the proxy": on(PROXY, answering(EVENT_STREAM)),
        "text body in the proxy": on(PROXY, give({"requestBody": {"content": {"text/plain": {}}}})),
        "text reply in the proxy": on(PROXY, answering(JSON, "text/plain")),
    },
    "proxy-reviewed": {
        "no review": on(PROXY, lose("x-policy-review")),
        "unknown review": on(PROXY, give({"x-policy-review": "looks_good"})),
        "review of nobody's": on(PROXY, give({"x-policy-review": ""})),
        "review on a direct operation": on(DIRECT, give({"x-policy-review": "json_read"})),
        "review on a wrapped operation": on(WRAPPED, give({"x-policy-review": "json_read"})),
    },
}
SHAPES: dict[str, dict[str, Edit]] = {
    "unsupported-bare": {
        "summary on a refused operation": on(UNSUPPORTED, give({"summary": "List it."})),
        "body on a refused operation": on(UNSUPPORTED, give(BODY)),
        "query on a refused operation": on(UNSUPPORTED, give(QUERY)),
    },
    "no-wildcard": {
        "wildcard path": renamed_path(DIRECT, "{}/*".format),
        "template that takes any path": renamed_path(DIRECT, "{}/{{path}}".format),
        "template for a whole surface": renamed_path(DIRECT, lambda _: "/v1/{anything}"),
        "query in a path": renamed_path(DIRECT, "{}?beta=true".format),
        "wildcard path in the Actions document": renamed_path(DIRECT, "{}/*".format, ACTIONS),
        "two templates of one path": second(ITEM, lambda path: path.replace("{", "{other_")),
    },
    "unique-operation-ids": {
        "operationId of another operation": lambda c: on(PROXY, give({"operationId": DIRECT(c.full).id}))(c),
        "no operationId": on(PROXY, lose("operationId")),
        "operationId with a blank": on(PROXY, give({"operationId": "get it"})),
    },
    "upstream-classified": {
        "operation of upstream gone": removed(UNSUPPORTED, "openapi.full"),
        "operation of upstream renamed": on(PROXY, give({"operationId": "inOurWords"})),
        "operation of upstream elsewhere": renamed_path(PROXY, "{}s".format),
        "operation that upstream does not have": second(PROXY, "{}/again".format),
        "operation of upstream under a tag of ours": on(MIRRORED_HIDDEN, give({"tags": ["Relay"]})),
        "request media of its own": on(SENT, give({"requestBody": {"content": {"text/csv": {}}}})),
        "no body where upstream takes one": on(SENT, lose("requestBody")),
        "reply media lost": on(LASTING, answering("text/csv")),
        "upstream's deprecation left out": on(
            first(lambda o: o.deprecated and o.bucket is Bucket.EXCLUDED), lose("deprecated", "x-sunset")
        ),
    },
    "deprecated-with-sunset": {
        "sunset without deprecated": on(ENDING, lose("deprecated")),
        "deprecated without sunset": on(LASTING, give({"deprecated": True})),
        "sunset of what is not deprecated": on(LASTING, give({"deprecated": False, "x-sunset": "2027-01-31"})),
        "sunset on a day that does not exist": on(ENDING, give({"x-sunset": UNKNOWN_DAY})),
        "sunset that is no date": on(ENDING, give({"x-sunset": "soon"})),
        "deprecated as text": on(ENDING, give({"deprecated": "yes"})),
        "deprecated in the Actions document alone, without sunset": on(DIRECT, give({"deprecated": True}), ACTIONS),
    },
    "key-order": {
        "decision below the texts": on(DIRECT, lambda node: node.update(summary=node.pop("summary"))),
        "policy below the replies": on(WRAPPED, lambda node: swapped(node, "x-policy-reason", "responses")),
        "key that operations do not have": on(PROXY, give({"callbacks": {}})),
        "server of its own": on(PROXY, give({"servers": [{"url": "https://elsewhere.example"}]})),
        "consent outside the Actions document": on(DIRECT, give({"x-openai-isConsequential": False})),
        "keys out of order in the Actions document": on(
            DIRECT, lambda node: swapped(node, "summary", "description"), ACTIONS
        ),
    },
    "path-order": {
        "undeclared tag": on(PROXY, give({"tags": ["Else"]})),
        "two tags": on(PROXY, give({"tags": ["Relay", "Files"]})),
        "no tag": on(PROXY, lose("tags")),
    },
    "document-loads": {
        "reference to nothing": on(PROXY, give({"responses": {"200": LOST}})),
        "no replies": on(PROXY, lose("responses")),
        "unknown scope": on(PROXY, opened_to("everything")),
        "two scopes at once": on(PROXY, give({"security": [{"relayBearer": ["canonical", "proxy"]}]})),
        "status code that is a number": on(PROXY, give({"responses": {200: {"description": "It."}}})),
    },
}
LINKS: dict[str, dict[str, Edit]] = {
    "wrapper-links": {
        "wrapper that does not say what it wraps": on(WRAPPER, lose("x-policy-wraps")),
        "wrapped operation that does not name its wrapper": on(WRAPPED, lose("x-policy-wrapper")),
        "wrapper that nobody wrote": on(WRAPPED, give({"x-policy-wrapper": "nobody"})),
        "wrapper of nothing": on(WRAPPER, give({"x-policy-wraps": ["nobody"]})),
        "wrapper of one too many": lambda c: on(
            WRAPPER, give({"x-policy-wraps": [*WRAPPER(c.full).wraps, PROXY(c.full).id]})
        )(c),
        "empty list of wrapped operations": on(WRAPPER, give({"x-policy-wraps": []})),
        "upstream's operation as a wrapper": lambda c: on(WRAPPER, give({"tags": [ASKED(c.full).tag]}))(c),
        "wrapper of another on an operation for the proxy": lambda c: on(
            PROXY, give({"x-policy-wrapper": WRAPPER(c.full).id})
        )(c),
        "wrapper of another on a direct operation": lambda c: on(ASKED, give({"x-policy-wrapper": WRAPPER(c.full).id}))(
            c
        ),
        "wrapper on a hidden operation": lambda c: on(MIRRORED_HIDDEN, give({"x-policy-wrapper": WRAPPER(c.full).id}))(
            c
        ),
        "wrapper that takes files": on(WRAPPER, give({"requestBody": {"content": {"multipart/form-data": {}}}})),
        "wrapper that answers a file": on(WRAPPER, answering("application/octet-stream")),
    },
    "wrappers-in-place": {
        "wrapper elsewhere": renamed_path(WRAPPER, lambda path: path.replace("/actions/", "/wrappers/")),
        "operation of upstream among the wrappers": renamed_path(
            DIRECT, lambda path: path.replace("/v1/", "/v1/actions/")
        ),
        "own operation among the wrappers": renamed_path(OWN_BELOW_V1, lambda _: "/v1/actions/health"),
        "wrapper that wraps nothing": on(WRAPPER, lose("x-policy-wraps")),
        "own operation that wraps another": lambda c: on(OPENED_BY_PROXY, give({"x-policy-wraps": [ASKED(c.full).id]}))(
            c
        ),
    },
}
MUTATIONS: tuple[Mutation, ...] = (
    *(
        mutation
        for edits in (BUCKETS, SURFACES, PROXY_RULES, SHAPES, LINKS)
        for mutation in mutations_of(Command.CHECK, edits)
    ),
)
