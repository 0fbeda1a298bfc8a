import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from codegen.contract import FULL, Bucket, Exclusion, Operation, load_contract
from handlers.runtime.app import GENERATED
from tests.support.browsing import Visit, visiting
from tests.support.servers import RelayProcess

pytestmark = pytest.mark.browser

CONTRACT = load_contract(GENERATED, FULL)
PUBLISHED = {operation.id: operation for operation in CONTRACT if operation.published}
FILE = (GENERATED / "policy.html").as_uri()
ROW = "section li[id]"
PHONE = {"width": 360, "height": 740}
# The contrast that WCAG 2.2 asks of text of any size (AA), by relative luminance.
MINIMUM_CONTRAST = 4.5
CONTRASTS = """
() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const [a, b] = [luminance(channels(style.color)), luminance(ground(node))].sort((x, y) => y - x);
    found[`${node.tagName} ${node.className} ${style.color}`] = (a + 0.05) / (b + 0.05);
  }
  return found;
}
"""


@pytest.fixture(params=["served", "file"])
def address(request: pytest.FixtureRequest) -> str:
    """The page as the relay serves it and as a file that somebody opens."""
    if request.param == "file":
        return FILE
    relay: RelayProcess = request.getfixturevalue("relay")
    return f"{relay.url}{CONTRACT.operations['retrievePolicy'].path}"


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """The page, open; it asks for nothing but itself and complains about nothing."""
    with visiting(browser, address) as visit:
        yield visit
        assert visit.complaints == []
        urls = {request.url.split("#")[0] for request in visit.requests}
        assert {url for url in urls if not url.startswith("data:")} == {address}


def shown(page: Page) -> set[str]:
    """Ids of the rows that can be seen."""
    ids = page.locator(ROW).evaluate_all("rows => rows.filter(row => row.checkVisibility()).map(row => row.id)")
    assert len(ids) == len(set(ids))
    return set(ids)


def row(page: Page, operation_id: str) -> Locator:
    """The row of an operation."""
    return page.locator(f'li[id="{operation_id}"]')


def box(page: Page, verdict: str) -> Locator:
    """The box that filters by a bucket."""
    return page.locator(f'input[name=bucket][value="{verdict}"]')


def having(word: str) -> set[str]:
    """Ids of the operations that a search for a word finds."""

    def texts(operation: Operation) -> Iterator[str]:
        yield from (operation.method, operation.path, operation.id, operation.summary, operation.reason)
        if operation.review:
            yield f"{operation.review} {CONTRACT.reviews[operation.review].requirement}"

    return {key for key, operation in PUBLISHED.items() if any(word in text.lower() for text in texts(operation))}


def test_the_page_shows_every_published_operation(visit: Visit) -> None:
    """Without a filter each published operation is there and the count says so."""
    assert shown(visit.page) == set(PUBLISHED)
    expect(visit.page.get_by_text(f"{len(PUBLISHED)} operations", exact=True)).to_be_visible()


def test_a_search_narrows_the_list(visit: Visit) -> None:
    """Every word must stand in id, path, summary, reason or review, in any case; the counts follow."""
    search = visit.page.get_by_role("searchbox")
    search.fill("Vector")
    assert shown(visit.page) == having("vector")
    search.fill("vector SEARCH")
    found = having("vector") & having("search")
    assert shown(visit.page) == found
    assert 0 < len(found) < len(having("vector"))
    expect(visit.page.get_by_text(f"{len(found)} of {len(PUBLISHED)} operations")).to_be_visible()
    search.fill("no such thing")
    assert shown(visit.page) == set()
    expect(visit.page.get_by_text("No operation fits.")).to_be_visible()
    visit.page.get_by_role("button", name="Clear").click()
    assert shown(visit.page) == set(PUBLISHED)


def test_filters_by_bucket_and_tag_narrow_together(visit: Visit) -> None:
    """Boxes widen each other, tag and search narrow; each bucket counts what it would show."""
    box(visit.page, "PROXY_HARNESS").check()
    proxy = {key for key, o in PUBLISHED.items() if o.bucket is Bucket.PROXY_HARNESS}
    assert shown(visit.page) == proxy
    box(visit.page, "EXCLUDED-hidden").check()
    both = proxy | {key for key, o in PUBLISHED.items() if o.exclusion is Exclusion.HIDDEN}
    assert shown(visit.page) == both
    visit.page.get_by_label("Tag").select_option("Vector stores")
    tagged = {key for key, o in PUBLISHED.items() if o.tag == "Vector stores"}
    assert shown(visit.page) == both & tagged
    direct = {key for key, o in PUBLISHED.items() if o.bucket is Bucket.ACTIONS_DIRECT}
    label = visit.page.locator("label.verdict").filter(has_text="ACTIONS_DIRECT")
    expect(label.locator(".count")).to_have_text(f"{len(direct & tagged)} of {len(direct)}")
    heading = visit.page.locator("h2:visible")
    expect(heading).to_have_count(1)
    expect(heading).to_contain_text(f"Vector stores {len(both & tagged)} of {len(tagged)}")


def test_what_ends_can_be_listed(visit: Visit) -> None:
    """Operations with any announced end, or with that of one day."""
    dated = {key: o.sunset for key, o in PUBLISHED.items() if o.sunset}
    visit.page.get_by_label("End").select_option("any")
    assert shown(visit.page) == set(dated)
    day = max(dated.values())
    visit.page.get_by_text("What ends, and when").click()
    visit.page.get_by_role("link", name=day).click()
    expect(visit.page.locator(f"{ROW}:visible")).to_have_count(list(dated.values()).count(day))
    assert visit.page.get_by_label("End").input_value() == day


def test_a_link_opens_its_operation(browser: Browser, address: str) -> None:
    """An address that ends in an operationId shows that row, opened, in view and focused."""
    with visiting(browser, f"{address}#createFile") as visit:
        linked = row(visit.page, "createFile")
        expect(linked.get_by_text(PUBLISHED["createFile"].reason)).to_be_visible()
        expect(linked).to_be_in_viewport()
        expect(linked.locator("summary")).to_be_focused()
        assert visit.page.locator("section details[open]").count() == 1
        assert visit.complaints == []


def test_a_link_to_nothing_shows_everything(browser: Browser) -> None:
    """Unknown ids, unknown filters and addresses cut in the middle do no harm."""
    with visiting(browser, f"{FILE}#%E0%A4%A") as visit:
        assert shown(visit.page) == set(PUBLISHED)
        for end in ("#noSuchThing", "#%E0%A4%A", "#?bucket=NONE&tag=None&ends=never&what=ever", "#?"):
            visit.page.goto(f"{FILE}#?q=files")
            expect(visit.page.get_by_role("searchbox")).to_have_value("files")
            visit.page.goto(f"{FILE}{end}")
            expect(visit.page.get_by_role("searchbox")).to_have_value("")
            assert shown(visit.page) == set(PUBLISHED)
        assert visit.complaints == []


def test_the_address_holds_the_filters(visit: Visit) -> None:
    """Filters survive a reload, and back and forward walk through them; typing a word is one step."""
    page = visit.page
    page.get_by_role("searchbox").press_sequentially("files")
    box(page, "EXCLUDED-hidden").check()
    hidden = {key for key, o in PUBLISHED.items() if o.exclusion is Exclusion.HIDDEN}
    assert page.url.endswith("#?q=files&bucket=EXCLUDED-hidden")
    page.reload()
    assert shown(page) == having("files") & hidden
    assert page.get_by_role("searchbox").input_value() == "files"
    page.go_back()
    expect(box(page, "EXCLUDED-hidden")).not_to_be_checked()
    assert shown(page) == having("files")
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("")
    assert shown(page) == set(PUBLISHED)
    page.go_forward()
    expect(page.get_by_role("searchbox")).to_have_value("files")
    page.goto(f"{page.url.split('#')[0]}#?q=files&bucket=EXCLUDED")
    expect(box(page, "EXCLUDED-unsupported")).to_be_checked()
    assert shown(page) == having("files") & {key for key, o in PUBLISHED.items() if o.bucket is Bucket.EXCLUDED}


def test_the_page_works_by_keyboard_alone(visit: Visit) -> None:
    """`/` goes to the search, Enter to the first operation found, Enter opens it, Tab goes on to its links."""
    page = visit.page
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("/v1/batches/")
    first = page.locator(f"{ROW}:visible").first
    page.keyboard.press("Enter")
    expect(first.locator("summary")).to_be_focused()
    outline = first.locator("summary").evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(first.locator("dl")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(first.locator(".permalink")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press(" ")
    expect(first.locator("dl")).to_be_hidden()


def test_the_first_stop_of_the_keyboard_leads_past_the_filters(browser: Browser) -> None:
    """The skip link shows itself when focused, goes to the list, and keeps the filters."""
    with visiting(browser, f"{FILE}#?tag=Files") as visit:
        page = visit.page
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        expect(page.locator(".skip")).to_be_in_viewport()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator(f"{ROW}:visible").first.locator("summary")).to_be_focused()
        assert shown(page) == {key for key, o in PUBLISHED.items() if o.tag == "Files"}


def test_the_link_of_an_operation_can_be_copied(browser: Browser, address: str) -> None:
    """A click on the link copies the address, says so, and leaves the filters as they are."""
    with visiting(browser, f"{address}#?q=createfile", permissions=["clipboard-read", "clipboard-write"]) as visit:
        row(visit.page, "createFile").locator("summary").click()
        row(visit.page, "createFile").locator(".permalink").click()
        expect(visit.page.get_by_text(f"Copied {address}#createFile")).to_have_count(1)
        assert visit.page.evaluate("navigator.clipboard.readText()") == f"{address}#createFile"
        assert shown(visit.page) < set(PUBLISHED)
        assert visit.complaints == []


def test_a_phone_shows_the_page_without_scrolling_sideways(browser: Browser) -> None:
    """At 360 pixels nothing reaches over the edge, whether rows and panels are closed or open."""
    with visiting(browser, FILE, viewport=PHONE, has_touch=True) as visit:
        for _ in range(2):
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
            visit.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        wide = visit.page.evaluate(
            "[...document.querySelectorAll('body *')].filter(n => n.checkVisibility() && !n.matches('.skip, .unseen')"
            " && n.getBoundingClientRect().right > innerWidth + 1).map(n => n.outerHTML.slice(0, 80))"
        )
        assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(browser: Browser, scheme: str) -> None:
    """All visible text, rows and panels open, has the contrast of WCAG AA; the two schemes differ."""
    with visiting(browser, FILE, color_scheme=scheme) as visit:
        visit.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        contrasts = visit.page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        assert {text: value for text, value in contrasts.items() if value < MINIMUM_CONTRAST} == {}
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", ground)[0]) > 127) == (scheme == "light")


def test_buckets_differ_without_colour(browser: Browser) -> None:
    """Every bucket has a word and a sign of its own."""
    with visiting(browser, FILE) as visit:
        signs = visit.page.locator(".verdict .badge").evaluate_all(
            "all => all.map(node => [node.textContent, getComputedStyle(node, '::before').content])"
        )
        assert len({word for word, _sign in signs}) == len({sign for _word, sign in signs}) == len(signs) == 5


def test_the_page_can_be_read_without_its_script(browser: Browser) -> None:
    """Every row is there and opens; only search and filters are off, and the page says why."""
    with visiting(browser, FILE, java_script_enabled=False) as visit:
        page = visit.page
        expect(page.locator(f"{ROW}:visible")).to_have_count(len(PUBLISHED))
        expect(page.get_by_text("Search and filters need JavaScript.")).to_be_visible()
        expect(page.get_by_role("searchbox")).to_be_disabled()
        row(page, "createFile").locator("summary").click()
        expect(row(page, "createFile").get_by_text(PUBLISHED["createFile"].reason)).to_be_visible()


def test_links_to_the_relay_stand_only_where_it_serves_the_page(visit: Visit, address: str) -> None:
    """Served, the page leads to the documentation; as a file it has no relay to lead to."""
    link = visit.page.get_by_role("link", name="API documentation")
    assert link.count() == (1 if address.startswith("http") else 0)
