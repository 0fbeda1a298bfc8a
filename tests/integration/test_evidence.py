from collections import Counter

import pytest

from codegen.contract import FULL, load_contract
from codegen.evidence import COMMAND, EVIDENCE, Evidence, evidence_table
from codegen.pin import LOCK, read_lock
from handlers.runtime.app import GENERATED
from tests.support.documents import ROOT
from tests.support.evidence import RelayLogs

pytestmark = pytest.mark.integration


def test_the_table_of_evidence_is_what_the_relays_have_logged(
    request: pytest.FixtureRequest, relay_logs: RelayLogs, left_out: list[str]
) -> None:
    """Over all integration tests, exactly the operations with a mark were answered, and were refused."""
    seen = relay_logs.seen()
    # Each line of the lock is a case of test_upstream_operations.py.
    lines = Counter(line.plain_place for line in read_lock(ROOT / LOCK).values())
    table = evidence_table(
        {
            operation.id: Evidence(
                answered=operation.id in seen.answered,
                refused=operation.id in seen.refused,
                lock_lines=lines[operation.path, operation.method],
            )
            for operation in load_contract(GENERATED, FULL)
        }
    )
    whole = not left_out and not request.session.testsfailed
    why = f"these tests are left out: {', '.join(left_out)}" if left_out else "a test above has failed"
    incomplete = f"only a part was seen, because {why}. Run all, without a failure: `{COMMAND.partition(' --')[0]}`."
    if request.config.getoption("--update-evidence"):
        assert whole, incomplete
        (ROOT / EVIDENCE).write_text(table, encoding="utf-8")
    stale = f"the tests have seen something else: run `{COMMAND}`, read the diff of {EVIDENCE} and commit it."
    kept = (ROOT / EVIDENCE).read_text(encoding="utf-8") if (ROOT / EVIDENCE).is_file() else ""
    assert kept.splitlines() == table.splitlines(), stale if whole else incomplete
