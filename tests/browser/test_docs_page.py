import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from codegen.contract import ACTIONS, FULL, Contract, load_contract
from handlers.runtime.app import GENERATED
from tests.support.browsing import Visit, visiting
from tests.support.servers import RelayProcess

pytestmark = pytest.mark.browser

SELECTOR = "select#select"
OPERATION = ".opblock"
TAG = ".opblock-tag"
DOCUMENTS = {"Full contract": FULL, "Actions contract": ACTIONS}


@pytest.fixture
def docs(browser: Browser, relay: RelayProcess) -> Iterator[Visit]:
    """`/docs` of the running relay, loaded and shown."""
    with visiting(browser, f"{relay.url}/docs") as visit:
        visit.page.locator(TAG).first.wait_for()
        yield visit


def choose(page: Page, name: str) -> Contract:
    """Switch to a document by the selector, wait until it is shown, and return it."""
    contract = load_contract(GENERATED, DOCUMENTS[name])
    page.locator(SELECTOR).select_option(label=name)
    expect(page.locator(".info .title")).to_contain_text(contract.document["info"]["title"])
    expect(page.locator(TAG)).to_have_count(len(published(contract)))
    return contract


def published(contract: Contract) -> dict[str, set[tuple[str, str]]]:
    """Tags of the published document to methods and paths of their operations."""
    found: dict[str, set[tuple[str, str]]] = {}
    for operation in contract:
        if operation.published:
            found.setdefault(operation.tag, set()).add((operation.method, operation.path))
    return found


def listed(page: Page, tag: str) -> set[tuple[str, str]]:
    """Methods and paths that the page lists under a tag, after opening it."""
    section = page.locator(".opblock-tag-section").filter(has=page.locator(f'{TAG}[data-tag="{tag}"]'))
    section.locator(TAG).click()
    section.locator(OPERATION).first.wait_for()
    rows = section.locator(OPERATION).evaluate_all(
        "rows => rows.map(row => [row.querySelector('.opblock-summary-method').textContent,"
        " row.querySelector('[data-path]').dataset.path])"
    )
    section.locator(TAG).click()
    assert len(rows) == len({tuple(row) for row in rows})
    return {(method, path) for method, path in rows}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_page_lists_every_operation_of_the_chosen_document(docs: Visit, name: str) -> None:
    """Either document can be chosen, and every tag of it lists exactly its published operations."""
    contract = choose(docs.page, name)
    for tag, operations in published(contract).items():
        assert listed(docs.page, tag) == operations, tag
    assert docs.complaints == []


def test_the_selector_offers_both_documents(docs: Visit) -> None:
    """The selector names the two documents, the full one first, and one can go there and back."""
    assert docs.page.locator(f"{SELECTOR} option").all_inner_texts() == list(DOCUMENTS)
    for name in (*DOCUMENTS, *DOCUMENTS):
        choose(docs.page, name)
    assert docs.complaints == []


def test_internal_operations_are_not_shown(docs: Visit) -> None:
    """Neither the operator's tag nor any of its operations stands on the page."""
    contract = choose(docs.page, "Full contract")
    internal = [operation for operation in contract if not operation.published]
    assert internal
    text = docs.page.content()
    for operation in internal:
        assert operation.path not in text
        assert docs.page.locator(f'{TAG}[data-tag="{operation.tag}"]').count() == 0


def test_an_opened_operation_shows_its_policy_and_its_example(docs: Visit) -> None:
    """Opening an operation shows its bucket, its parameters or body, and its example, without an error."""
    contract = choose(docs.page, "Full contract")
    operation = contract.operations["createResponse"]
    docs.page.locator(f'{TAG}[data-tag="{operation.tag}"]').click()
    row = docs.page.locator(f"#operations-{operation.tag}-{operation.id}")
    row.locator(".opblock-summary").click()
    expect(row).to_contain_text("x-policy-bucket")
    expect(row).to_contain_text(str(operation.bucket))
    expect(row.locator(".opblock-section-request-body")).to_contain_text("gpt-6-luna")
    assert docs.complaints == []


def test_the_page_asks_no_other_host(docs: Visit, relay: RelayProcess) -> None:
    """Everything comes from the relay itself: scripts, styles, pictures and documents, whatever is opened."""
    for name in DOCUMENTS:
        contract = choose(docs.page, name)
        listed(docs.page, next(iter(published(contract))))
    urls = [request.url for request in docs.requests if not request.url.startswith("data:")]
    assert {re.sub(r"^(https?://[^/]+).*", r"\1", url) for url in urls} == {relay.url}
    assert {f"{relay.url}/openapi.json", f"{relay.url}/openapi.actions.json"} <= set(urls)


def test_an_operation_can_be_tried_from_the_page(docs: Visit, relay: RelayProcess) -> None:
    """With a key entered on the page, a call goes through the relay and its answer is shown."""
    choose(docs.page, "Full contract")
    docs.page.locator("button.authorize").first.click()
    dialog = docs.page.locator(".dialog-ux")
    dialog.locator("input").first.fill(relay.key)
    dialog.locator("button.authorize").first.click()
    dialog.locator("button.btn-done").first.click()
    docs.page.locator(f'{TAG}[data-tag="Models"]').click()
    row = docs.page.locator("#operations-Models-listModels")
    row.locator(".opblock-summary").click()
    row.locator("button.try-out__btn").click()
    row.locator("button.execute").click()
    answer = row.locator(".live-responses-table .response-col_status").last
    expect(answer).to_contain_text("200")
    expect(row.locator(".live-responses-table")).to_contain_text('"object": "list"')
    assert docs.complaints == []
