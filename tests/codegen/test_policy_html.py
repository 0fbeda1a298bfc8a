import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from codegen import policy_html
from codegen.contract import Contract, build_contract, read_contract
from codegen.looseness import Looseness
from codegen.policy_html import render_policy_html
from codegen.request_difference import NARROWED, REQUIRED_FIELD, Difference
from codegen.surfaces import surfaces
from codegen.upstream_summary import UpstreamSummary, summarise_upstream
from tests.support.documents import ROOT, document, operation

CONTRACT = read_contract(ROOT)
PAGE = render_policy_html(CONTRACT, summarise_upstream(ROOT, CONTRACT))
PUBLISHED = {o.id: o for o in CONTRACT if o.published}
INTERNAL = [o for o in CONTRACT if not o.published]
UPSTREAM = UpstreamSummary(pinned=7, variants=2, deprecated=1, served=3, refused=1, missing=1, looser=())
HOSTILE = """</script></style><img src=x onerror="alert('1')">&lt;{{script}}{{version}}"""
REASON = f"Because `{HOSTILE}`."


@dataclass
class Row:
    """One operation as the page shows it."""

    attributes: dict[str, str | None]
    words: str = ""
    links: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """Reads rows, elements and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, Row] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._row: Row | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, and the row that it begins or belongs to."""
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "li" and attributes.get("id"):
            self._row = self.rows.setdefault(str(attributes["id"]), Row(attributes))
        if self._row and tag == "a":
            self._row.links.append(str(attributes["href"]))

    def handle_endtag(self, tag: str) -> None:
        """Leave a row."""
        if tag == "li":
            self._row = None

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.words += data
        if self._row:
            self._row.words += data

    def ids(self) -> list[str]:
        """Every id of the page, in order."""
        return [str(attributes["id"]) for _tag, attributes in self.elements if "id" in attributes]


READ = Page(PAGE)


def page_of(changes: dict[str, Any] | None = None, upstream: UpstreamSummary = UPSTREAM, **others: Any) -> str:
    """The page of a contract with one operation, changed, and others given by method."""
    paths = {"/v1/things": {"get": operation(changes=changes), **others}}
    return render_policy_html(build_contract("sample", document(paths)), upstream)


def excluded(exclusion: str, **fields: Any) -> dict[str, Any]:
    """Fields of an excluded operation."""
    return {
        "x-policy-bucket": "EXCLUDED",
        "x-policy-exclusion": exclusion,
        "x-policy-reason": "It is so.",
        "x-policy-review": None,
        **fields,
    }


def test_every_published_operation_has_one_row() -> None:
    """Each published operation stands on the page once, in the order of the tags, and nothing else does."""
    order = sorted(PUBLISHED.values(), key=lambda o: CONTRACT.tags.index(o.tag))
    assert list(READ.rows) == [o.id for o in order]
    assert max(Counter(READ.ids()).values()) == 1


@pytest.mark.parametrize("operation_id", PUBLISHED)
def test_a_row_says_the_whole_decision(operation_id: str) -> None:
    """Method, path, operationId, bucket, surfaces, tag, reason, review, wrapper and end are in the row."""
    declared, row = PUBLISHED[operation_id], READ.rows[operation_id]
    expected = [
        declared.method,
        declared.path,
        declared.id,
        declared.bucket,
        declared.exclusion or "",
        declared.tag,
        declared.summary.replace("`", ""),
        declared.reason.replace("`", ""),
        declared.sunset,
        "deprecated" if declared.deprecated else "",
        ", ".join(surfaces(declared)) or "Nobody",
    ]
    if declared.review:
        review = CONTRACT.reviews[declared.review]
        expected += [review.name, review.requirement, review.risk, review.since]
    assert [text for text in expected if text not in row.words] == []
    assert f"#{declared.id}" in row.links
    assert row.attributes["data-ends"] == declared.sunset


def test_internal_operations_are_counted_and_not_named() -> None:
    """Neither id, path, tag nor reason of an internal operation is on the page; how many there are is."""
    assert INTERNAL
    assert f"{len(INTERNAL)} internal operations are not shown." in READ.words
    for hidden in INTERNAL:
        assert [text for text in (hidden.id, hidden.path) if text in PAGE] == []
        assert f"data-tag=\"{hidden.tag}\"" not in PAGE  # fmt: skip
        assert hidden.reason not in PAGE


def test_a_link_or_a_looser_place_never_names_an_internal_operation() -> None:
    """Also where another operation or the file of looser places mentions it, an internal operation stays unnamed."""
    secret = operation("retrieveSecret", excluded("internal", security=[{"relayBearer": ["operator"]}]))
    looser = (Looseness("retrieveSecret", Difference(REQUIRED_FIELD, "body"), "Because."),)
    upstream = UpstreamSummary(1, 0, 0, 1, 0, 0, looser)
    page = page_of({"x-policy-wraps": ["retrieveSecret"]}, upstream, post=secret)
    assert "retrieveSecret" not in page
    assert "an operation that is not shown" in page
    assert "1 internal operation is not shown." in page


def test_a_page_without_internal_operations_speaks_of_none() -> None:
    """The sentence about what is not shown stands only where something is not."""
    assert "not shown." not in page_of()


def test_wrapper_and_wrapped_operation_link_to_each_other() -> None:
    """`x-policy-wrapper` and `x-policy-wraps` become links to the other row."""
    wrapped = {"x-policy-bucket": "WRAPPER_REQUIRED", "x-policy-review": None, "x-policy-reason": "Multipart."}
    rows = Page(
        page_of(
            {**wrapped, "x-policy-wrapper": "wrapThing"},
            post=operation("wrapThing", {"x-policy-wraps": ["retrieveThing"]}),
        )
    ).rows
    assert "#wrapThing" in rows["retrieveThing"].links
    assert "#retrieveThing" in rows["wrapThing"].links
    assert "Actions by its wrapper, SDK clients" in rows["retrieveThing"].words


@pytest.mark.parametrize(
    "changes, reached, closed",
    [
        (None, "Proxy, SDK clients", "Actions"),
        (excluded("hidden"), "SDK clients", "Actions, Proxy"),
        (excluded("hidden", security=[]), "Everybody", None),
        (excluded("unsupported"), "Nobody: every call is refused.", None),
    ],
    ids=["proxy", "hidden", "open", "unsupported"],
)
def test_a_row_says_where_the_operation_is_open_and_where_it_is_not(
    changes: dict[str, Any] | None, reached: str, closed: str | None
) -> None:
    """What is reached by nobody or by everybody is not said to be closed to some."""
    page = page_of(changes)
    assert f"<dt>Reached by</dt><dd>{reached}</dd>" in page
    assert re.findall(r"<dt>Closed to</dt><dd>([^<]*)</dd>", page) == ([closed] if closed else [])


def test_a_row_says_what_a_key_needs_for_a_direct_call() -> None:
    """The scopes of the operation, any of which opens it; none on an open one, silence on a refused one."""
    both = [{"relayBearer": ["canonical"]}, {"relayBearer": ["actions"]}]
    assert "<dt>Direct call</dt><dd>With the scope actions or canonical</dd>" in page_of({"security": both})
    assert "<dt>Direct call</dt><dd>Without a key</dd>" in page_of(excluded("hidden", security=[]))
    assert "Direct call" not in page_of(excluded("unsupported"))


def test_the_filters_count_what_the_rows_say() -> None:
    """Counts per bucket, tag and end are those of the rows, and those of the buckets sum to the total on top."""
    verdicts = Counter(row.attributes["data-verdict"] for row in READ.rows.values())
    shown = {
        str(attributes["data-verdict"]): int(str(attributes["data-total"]))
        for _tag, attributes in READ.elements
        if "data-total" in attributes and "data-verdict" in attributes
    }
    assert {key: count for key, count in shown.items() if count} == verdicts
    assert f"{len(PUBLISHED)} published operations." in READ.words
    for values in (Counter(o.tag for o in PUBLISHED.values()), Counter(o.sunset for o in PUBLISHED.values())):
        for value, count in values.items():
            assert not value or f'<option value="{value}">{value} ({count})</option>' in PAGE


def test_what_ends_is_listed_by_day() -> None:
    """Each announced day stands once in order, with a link that filters by it; without any the page says so."""
    days = re.findall(r'<a href="#\?ends=([^"]+)">', PAGE)
    assert days == sorted({o.sunset for o in PUBLISHED.values() if o.sunset})
    assert "Upstream has announced no end." in page_of()


def test_the_pinned_upstream_is_summed_up() -> None:
    """Pinned lines, variants, served, refused, deprecated and missing operations, and how to look for newer ones."""
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]*)</dd>", page_of()))
    assert facts["Pinned"] == "7, 2 of them variants of another path"
    assert facts["In the contract"] == "4"
    assert (facts["Served"], facts["Always refused"]) == ("3", "1")
    assert (facts["Deprecated upstream"], facts["Not in the contract"]) == ("1", "1")
    assert facts["Looser here"].startswith("0 places")
    assert "contract drift FILE" in READ.words
    assert "Not in the contract" not in PAGE


def test_every_looser_place_is_told_with_its_reason() -> None:
    """A place that may be left out and a value that is taken besides are told apart."""
    looser = (
        Looseness("retrieveThing", Difference(NARROWED, "body purpose", "evals"), "It becomes a file."),
        Looseness("retrieveThing", Difference(REQUIRED_FIELD, "body image"), "It arrives as `image[]`."),
    )
    page = page_of(upstream=UpstreamSummary(1, 0, 0, 1, 0, 0, looser))
    assert "<code>body purpose</code> also takes <code>evals</code>. It becomes a file." in page
    assert "<code>body image</code> may be left out. It arrives as <code>image[]</code>." in page
    assert "2 places where" in page


def test_a_hostile_text_stays_text() -> None:
    """Markup and template fields in any text of the contract are shown as they are and become neither."""
    source = document(
        {"/v1/things": {"get": operation(f"x{HOSTILE}", {"summary": REASON, "tags": [HOSTILE], "x-sunset": HOSTILE})}},
        tags=[{"name": HOSTILE, "x-policy-mirrored": True}],
        info={"title": "things", "version": HOSTILE},
    )
    source["x-policy-reviews"]["json_read"] = {"requirement": HOSTILE, "risk": HOSTILE, "since": HOSTILE}
    looser = (Looseness(f"x{HOSTILE}", Difference(NARROWED, HOSTILE, HOSTILE), HOSTILE),)
    page = render_policy_html(build_contract("sample", source), UpstreamSummary(1, 0, 0, 1, 0, 0, looser))
    read = Page(page)
    assert [tag for tag, _attributes in read.elements if tag == "img"] == []
    assert [tag for tag, _attributes in read.elements].count("script") == 1
    assert not [name for _tag, attributes in read.elements for name in attributes if name.startswith("on")]
    assert list(read.rows) == [f"x{HOSTILE}"]
    assert HOSTILE in read.rows[f"x{HOSTILE}"].words
    assert HOSTILE in read.words.split("Policy of every operation")[1].split("published operations")[0]


def test_the_page_asks_for_nothing() -> None:
    """No address of another host, no import, no file: sources are inline or empty data, links stay in the relay."""
    loading = [
        str(attributes[name])
        for tag, attributes in READ.elements
        for name in ("src", "srcset", "href", "action", "data", "poster")
        if name in attributes and not (tag == "a" and name == "href")
    ]
    assert loading == ["data:,"]
    style, script = inline("style"), inline("script")
    assert not re.search(r"url\(|@import", style)
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|WebSocket|EventSource|import)\b|sendBeacon", script)
    assert not re.search(r"https?://|[\"'(]//", PAGE)
    links = {str(attributes["href"]) for tag, attributes in READ.elements if tag == "a"}
    assert {link for link in links if not link.startswith("#")} == {
        CONTRACT.operations[operation_id].path
        for operation_id in ("retrieveDocs", "retrieveContract", "retrieveActionsContract")
    }


def test_the_links_of_the_page_lead_somewhere() -> None:
    """Every link to a place of the page names a row, a part of the page, or filters."""
    links = {str(attributes["href"]) for tag, attributes in READ.elements if tag == "a"}
    places = {link.removeprefix("#") for link in links if link.startswith("#") and not link.startswith("#?")}
    assert set(PUBLISHED) < places
    assert places <= set(READ.ids())


def test_only_the_page_s_own_script_and_style_may_run() -> None:
    """The policy names the hashes of the two inline parts and nothing else; what a text might smuggle in has none."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', PAGE)
    assert found
    policy = dict(part.strip().split(" ", 1) for part in found[1].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": digest(inline("script")),
        "style-src": digest(inline("style")),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [name for _tag, attributes in READ.elements for name in attributes if name in {"style", "onclick"}]


def test_rendering_twice_gives_the_same_page() -> None:
    """The page holds no date and no chance, only what the contract and the lock file say."""
    again: Contract = read_contract(ROOT)
    assert render_policy_html(again, summarise_upstream(ROOT, again)) == PAGE
    assert (ROOT / "spec" / "generated" / policy_html.FILE_NAME).read_text(encoding="utf-8") == PAGE


def test_the_parts_of_the_page_cannot_end_their_element() -> None:
    """Style and script are put in as they are, so neither may hold the end of its element."""
    parts = Path(policy_html.__file__).parent / "pages"
    for name in ("policy.css", "policy.js"):
        assert "</" not in (parts / name).read_text(encoding="utf-8")


def inline(tag: str) -> str:
    """The text of the page's only element of a kind."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return str(text)


def digest(text: str) -> str:
    """The hash of an inline part, as a Content-Security-Policy writes it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
