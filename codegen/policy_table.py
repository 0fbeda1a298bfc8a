"""Renders `spec/generated/policy.tsv`: one line per operation, for reviews, joins and spreadsheets."""

from codegen.contract import Contract

FILE_NAME = "policy.tsv"
COLUMNS = (
    "method",
    "path",
    "operationId",
    "tag",
    "bucket",
    "exclusion",
    "wrapper",
    "review",
    "scopes",
    "sunset",
    "reason",
)


def render_policy_table(contract: Contract) -> str:
    """
    Write the policy of all operations as a table.

    Returns:
        Tab-separated text with a header line, in the order of the document.
    """
    rows = [COLUMNS]
    for operation in contract:
        rows.append(
            (
                operation.method,
                operation.path,
                operation.id,
                operation.tag,
                operation.bucket,
                operation.exclusion or "",
                operation.wrapper,
                operation.review,
                " ".join(sorted(operation.scopes)),
                operation.sunset,
                operation.reason,
            )
        )
    return "".join("\t".join(row) + "\n" for row in rows)
