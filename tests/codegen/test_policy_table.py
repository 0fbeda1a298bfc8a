import csv
import io

from codegen.contract import Contract, build_contract, read_contract
from codegen.policy_table import COLUMNS, render_policy_table
from tests.support.documents import ROOT, document, operation


def rows(contract: Contract) -> list[dict[str, str]]:
    """The table as a spreadsheet would read it."""
    table = io.StringIO(render_policy_table(contract))
    return list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))


def test_the_table_holds_every_operation_once_in_the_order_of_the_document() -> None:
    """One line per operation, no cell too many: the table can be joined and read as a diff."""
    contract = read_contract(ROOT)
    table = rows(contract)
    assert [row["operationId"] for row in table] == list(contract.operations)
    assert all(None not in row and None not in row.values() for row in table)
    assert tuple(table[0]) == COLUMNS


def test_a_line_says_what_the_operation_says() -> None:
    """Each column is the operation's own value, empty where it has none."""
    node = operation(
        changes={
            "deprecated": True,
            "x-sunset": "2026-11-30",
            "security": [{"relayBearer": ["canonical"]}, {"relayKey": ["canonical"]}, {"relayBearer": ["actions"]}],
        }
    )
    (row,) = rows(build_contract("sample", document({"/v1/things": {"get": node}})))
    assert row == {
        "method": "GET",
        "path": "/v1/things",
        "operationId": "retrieveThing",
        "tag": "Things",
        "bucket": "PROXY_HARNESS",
        "exclusion": "",
        "wrapper": "",
        "review": "json_read",
        "scopes": "actions canonical",
        "sunset": "2026-11-30",
        "reason": "",
    }
