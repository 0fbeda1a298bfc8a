"""Renders `spec/generated/policy.md`: the policy table for people, with counts and multipart operations on top."""

from collections import Counter
from collections.abc import Iterable

from codegen.contract import Bucket, Contract, Exclusion, Operation
from codegen.surfaces import surfaces

FILE_NAME = "policy.md"
COLUMNS = ("Operation", "operationId", "Bucket", "Reached by", "Since", "Why")
MULTIPART_TITLE = "Multipart bodies"
MULTIPART_COLUMNS = ("Operation", "operationId", "Wrapper", "Why there is none")
HEADER = "<!-- Written by `contract render` from spec/openapi.full.yaml. Do not edit. -->\n"


def render_policy_page(contract: Contract) -> str:
    """
    Write the policy of all operations as Markdown.

    Returns:
        Markdown: how many operations each bucket holds, which of upstream's multipart operations have a wrapper, then
        one table per tag in the document's order.
    """
    lines = [HEADER, "# Policy of every operation", "", "| Bucket | Operations |", "|---|---:|"]
    counts = Counter(_verdict(operation) for operation in contract)
    lines += [f"| {verdict} | {counts[verdict]} |" for verdict in _verdicts() if counts[verdict]]
    lines.append(f"| all | {len(contract.operations)} |")
    lines += ["", *_multipart_section(contract)]
    for tag in contract.tags:
        lines += ["", f"## {tag}", "", _line(COLUMNS), "|" + "---|" * len(COLUMNS)]
        lines += [_row(operation, contract) for operation in contract if operation.tag == tag]
    return "\n".join(lines) + "\n"


def _multipart_section(contract: Contract) -> list[str]:
    """What assistants, who send JSON only, get in place of each operation of upstream that takes files in its body."""
    operations = [operation for operation in contract if operation.mirrored and operation.multipart]
    wrapped = sum(bool(operation.wrapper) for operation in operations)
    return [
        f"## {MULTIPART_TITLE}",
        "",
        "Assistants send JSON only. Each operation of the upstream that takes a multipart body has a wrapper, or a "
        f"reason why assistants get none: {len(operations)} operations, {wrapped} with a wrapper.",
        "",
        _line(MULTIPART_COLUMNS),
        "|" + "---|" * len(MULTIPART_COLUMNS),
        *(_multipart_row(operation) for operation in operations),
    ]


def _multipart_row(operation: Operation) -> str:
    wrapper = f"`{operation.wrapper}`" if operation.wrapper else ""
    why = "" if operation.wrapper else operation.reason
    return _line((f"`{operation.method} {operation.path}`", f"`{operation.id}`", wrapper, why))


def _row(operation: Operation, contract: Contract) -> str:
    why = [operation.reason or f"review `{operation.review}`" if operation.reason or operation.review else ""]
    if operation.wrapper:
        why.append(f"Wrapper: `{operation.wrapper}`.")
    if operation.sunset:
        why.append(f"Ends {operation.sunset}.")
    review = contract.reviews.get(operation.review)
    cells = (
        f"`{operation.method} {operation.path}`",
        f"`{operation.id}`",
        _verdict(operation),
        ", ".join(surfaces(operation)) or "nobody",
        review.since if review else "",
        " ".join(part for part in why if part),
    )
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(operation: Operation) -> str:
    return f"{operation.bucket} ({operation.exclusion})" if operation.exclusion else str(operation.bucket)


def _verdicts() -> list[str]:
    plain = [str(bucket) for bucket in Bucket if bucket is not Bucket.EXCLUDED]
    return [*plain, *(f"{Bucket.EXCLUDED} ({exclusion})" for exclusion in Exclusion)]
