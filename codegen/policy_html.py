"""
Renders `spec/generated/policy.html`: the policy of every published operation on one page that needs nothing else.

Its template, style and script are the files in `codegen/pages`. Internal operations are counted, never named.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote_plus

from codegen.contract import Bucket, Contract, Exclusion, Operation, Review
from codegen.looseness import Looseness
from codegen.request_difference import NARROWED
from codegen.surfaces import Surface, surfaces
from codegen.upstream_summary import UpstreamSummary

FILE_NAME = "policy.html"
_PARTS = Path(__file__).parent / "pages"
# Verdict to what it means; GOVERNANCE.md, section 4, says it in full. Internal operations are not on the page.
_VERDICTS = {
    (Bucket.ACTIONS_DIRECT, None): "An assistant may call it as it is.",
    (Bucket.PROXY_HARNESS, None): "Reviewed and fit for the JSON proxy.",
    (Bucket.WRAPPER_REQUIRED, None): "For assistants only by a wrapper.",
    (Bucket.EXCLUDED, Exclusion.HIDDEN): "For SDK clients and people only.",
    (Bucket.EXCLUDED, Exclusion.UNSUPPORTED): "Always refused.",
}
# What an operation is said to be closed to; the other surfaces are named only where they are open.
_COMPARED = (Surface.ACTIONS, Surface.PROXY, Surface.CANONICAL)
# What the search looks at, beside method, path, operationId and summary.
_SEARCHED = frozenset({"Reason", "Review", "Wrapper", "Wraps"})
_SERVED_LINKS = {
    "retrieveDocs": "API documentation",
    "retrieveContract": "Full contract",
    "retrieveActionsContract": "Actions contract",
}


def render_policy_html(contract: Contract, upstream: UpstreamSummary) -> str:
    """
    Write the policy of all published operations as one page.

    Returns:
        HTML: search, filters and counts, the pinned upstream, then one list per tag in the document's order. It asks
        for no other file, and its Content-Security-Policy allows its own script and style by their hashes alone.
    """
    published = [operation for operation in contract if operation.published]
    style, script = (_part(name) for name in ("policy.css", "policy.js"))
    fields = {
        "content-security-policy": f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "version": escape(contract.version),
        "total": str(len(published)),
        "unshown": _unshown(len(contract.operations) - len(published)),
        "address": _path(contract, "retrievePolicy"),
        "links": _served_links(contract),
        "verdict-filter": _verdict_filter(published),
        "tag-filter": _options(Counter(operation.tag for operation in published), contract.tags),
        "end-filter": _end_filter(published),
        "upstream": _upstream(upstream, published),
        "ends": _ends(published),
        "operations": "\n".join(_section(tag, published, contract) for tag in _tags(contract, published)),
    }
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda match: fields[match[1]], _part(FILE_NAME))


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# ── Above the list ─────────────────────────────────────
def _unshown(count: int) -> str:
    if not count:
        return ""
    return f"{_counted(count, 'internal operation')} {'is' if count == 1 else 'are'} not shown."


def _served_links(contract: Contract) -> str:
    links = ((_path(contract, operation_id), words) for operation_id, words in _SERVED_LINKS.items())
    return "\n".join(f'<a href="{path}">{words}</a>' for path, words in links if path)


def _path(contract: Contract, operation_id: str) -> str:
    operation = contract.operations.get(operation_id)
    return escape(operation.path) if operation else ""


def _verdict_filter(published: list[Operation]) -> str:
    counts = Counter((operation.bucket, operation.exclusion) for operation in published)
    return "\n".join(
        f'<label class="verdict"><input type="checkbox" name="bucket" value="{_token(*verdict)}">'
        f'{_badge(*verdict)} <span class="count" data-verdict="{_token(*verdict)}" data-total="{counts[verdict]}">'
        f"{counts[verdict]}</span> <small>{meaning}</small></label>"
        for verdict, meaning in _VERDICTS.items()
    )


def _end_filter(published: list[Operation]) -> str:
    counts = Counter(operation.sunset for operation in published if operation.sunset)
    return f'<option value="any">announced ({sum(counts.values())})</option>\n{_options(counts, sorted(counts))}'


def _options(counts: Counter[str], values: Iterable[str]) -> str:
    return "\n".join(
        f'<option value="{escape(value)}">{escape(value)} ({counts[value]})</option>'
        for value in values
        if counts[value]
    )


def _upstream(upstream: UpstreamSummary, published: list[Operation]) -> str:
    known = {operation.id for operation in published}
    looser = [entry for entry in upstream.looser if entry.operation_id in known]
    numbers = {
        "Pinned": f"{upstream.pinned}, {upstream.variants} of them variants of another path",
        "In the contract": str(upstream.listed),
        "Not in the contract": str(upstream.missing or ""),
        "Served": str(upstream.served),
        "Always refused": str(upstream.refused),
        "Deprecated upstream": str(upstream.deprecated),
        "Looser here": f"{_counted(len(looser), 'place')} where the contract takes more than upstream's document",
    }
    lines = [_definitions(numbers)]
    if looser:
        lines += ["<ul>", *(f"<li>{_looseness(entry, known)}</li>" for entry in looser), "</ul>"]
    return "\n".join(lines)


def _looseness(entry: Looseness, known: Collection[str]) -> str:
    difference = entry.difference
    more = f"also takes <code>{escape(difference.value)}</code>" if difference.kind == NARROWED else "may be left out"
    place = f"<code>{escape(difference.place)}</code>"
    return f"{_link(entry.operation_id, known)}: {place} {more}. {_prose(entry.reason)}"


def _ends(published: list[Operation]) -> str:
    counts = Counter(operation.sunset for operation in published if operation.sunset)
    if not counts:
        return "<p>Upstream has announced no end.</p>"
    items = (
        f'<li><a href="#?ends={escape(date)}">{escape(date)}</a>: {_counted(counts[date], "operation")}</li>'
        for date in sorted(counts)
    )
    return "\n".join(["<ul>", *items, "</ul>"])


# ── The list ───────────────────────────────────────────
def _tags(contract: Contract, published: list[Operation]) -> list[str]:
    used = {operation.tag for operation in published}
    return [tag for tag in contract.tags if tag in used]


def _section(tag: str, published: list[Operation], contract: Contract) -> str:
    operations = [operation for operation in published if operation.tag == tag]
    known = {operation.id for operation in published}
    head = f'<h2>{escape(tag)} <span class="count" data-total="{len(operations)}">{len(operations)}</span></h2>'
    rows = (_row(operation, contract.reviews.get(operation.review), known) for operation in operations)
    return "\n".join(["<section>", head, '<ul role="list">', *rows, "</ul>", "</section>"])


def _row(operation: Operation, review: Review | None, known: Collection[str]) -> str:
    reached = surfaces(operation)
    notes = ["deprecated"] if operation.deprecated else []
    notes += [f"ends {operation.sunset}"] if operation.sunset else []
    return "\n".join(
        [
            f'<li id="{escape(operation.id)}" data-verdict="{_token(operation.bucket, operation.exclusion)}"'
            f' data-tag="{escape(operation.tag)}" data-ends="{escape(operation.sunset)}"><details>',
            f'<summary><span class="method">{escape(operation.method)}</span>',
            f'<span class="name"><span class="path">{_breakable(operation.path)}</span>',
            f'<span class="id">{escape(operation.id)}</span> <span class="text">{_prose(operation.summary)}</span>'
            f"</span>",
            f'<span class="ways">{", ".join(reached) or "Nobody"}</span>',
            f'<span class="decision">{_badge(operation.bucket, operation.exclusion)}',
            *(f'<span class="note">{escape(note)}</span>' for note in notes),
            "</span></summary>",
            _definitions(_facts(operation, review, known, reached)),
            f'<p><a class="permalink" href="#{escape(operation.id)}">Link to this operation</a></p>',
            "</details></li>",
        ]
    )


def _facts(
    operation: Operation, review: Review | None, known: Collection[str], reached: Collection[Surface]
) -> dict[str, str]:
    """What the opened row says: term to HTML; what is empty is left out."""
    verdict = operation.bucket, operation.exclusion
    closed = [] if Surface.OPEN in reached else [surface for surface in _COMPARED if surface not in reached]
    if Surface.WRAPPER in reached and Surface.ACTIONS in closed:
        closed.remove(Surface.ACTIONS)
    return {
        "Bucket": f"{_badge(*verdict)} {_VERDICTS[verdict]}",
        "Reason": _prose(operation.reason),
        "Review": f"<code>{escape(review.name)}</code> {_prose(review.requirement)}" if review else "",
        "Risk": _prose(review.risk) if review else "",
        "Since": escape(review.since) if review else "",
        "Wrapper": _link(operation.wrapper, known) if operation.wrapper else "",
        "Wraps": ", ".join(_link(wrapped, known) for wrapped in operation.wraps),
        "Reached by": ", ".join(reached) or "Nobody: every call is refused.",
        "Closed to": ", ".join(closed) if reached else "",
        "Direct call": _scopes(operation) if reached else "",
        "Tag": f'<a href="#?tag={escape(quote_plus(operation.tag))}">{escape(operation.tag)}</a>',
        "Deprecated": "Yes." if operation.deprecated else "",
        "Ends": escape(operation.sunset),
    }


def _scopes(operation: Operation) -> str:
    return f"With the scope {' or '.join(sorted(operation.scopes))}" if operation.scopes else "Without a key"


def _definitions(facts: dict[str, str]) -> str:
    lines = ["<dl>"]
    for term, words in facts.items():
        if words:
            lines.append(f"<dt>{term}</dt><dd{' class=text' if term in _SEARCHED else ''}>{words}</dd>")
    return "\n".join([*lines, "</dl>"])


def _link(operation_id: str, known: Collection[str]) -> str:
    if operation_id not in known:  # internal, so nothing may name it
        return "an operation that is not shown"
    return f'<a href="#{escape(operation_id)}"><code>{escape(operation_id)}</code></a>'


def _prose(text: str) -> str:
    """Plain text in which backticks mark code, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _breakable(path: str) -> str:
    """A path that may go on in the next line after each slash."""
    return escape(path).replace("/", "/<wbr>").replace("/<wbr>", "/", 1)


def _badge(bucket: Bucket, exclusion: Exclusion | None) -> str:
    words = f"{bucket} {exclusion}" if exclusion else str(bucket)
    return f'<span class="badge {_token(bucket, exclusion)}">{words}</span>'


def _token(bucket: Bucket, exclusion: Exclusion | None) -> str:
    return f"{bucket}-{exclusion}" if exclusion else str(bucket)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
