"""
The Actions document for one relay: what an assistant imports, with that relay's address in it.

Not for: `spec/generated`, which keeps the placeholder. A relay that knows `RELAY_PUBLIC_URL` serves the same document.
Reads the contract of a checkout, writes nothing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from codegen.actions_document import ActionsDocument
from codegen.contract import ACTIONS, read_contract
from codegen.exceptions import ContractError, InvalidContract
from codegen.findings import to_text
from codegen.lint import check
from codegen.publication import document_at
from codegen.reader import Document

OPTION = "--public-url"
_WIDTH = 120
_SERVER_RULE = "importer-server"


def importable_document(root: Path, public_url: str, suffix: str = ".json") -> str:
    """
    Write the Actions document for the relay at an address.

    Args:
        root: The project's folder.
        public_url: Where importers reach the relay.
        suffix: Of the file that it is for: `.json`, `.yaml` or `.yml`.

    Returns:
        The document; `contract lint` finds nothing in it.

    Raises:
        ContractError: Importers would refuse the address, or the suffix is another one.
        InvalidContract: They would refuse something else in the document.
    """
    if suffix not in WRITERS:
        raise ContractError(f"the file's name must end in {', '.join(WRITERS)}; the ending says what is written.")
    document = document_at(read_contract(root, ACTIONS), public_url)
    content = WRITERS[suffix](document)
    findings = check(ActionsDocument(document, content))
    wrong = [finding for finding in findings if finding.rule == _SERVER_RULE]
    if wrong:
        raise ContractError("\n".join(f"{OPTION}: {finding.problem}. {finding.next_step}." for finding in wrong))
    if findings:
        raise InvalidContract(to_text(findings).splitlines())
    return content


def _to_json(document: Document) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _to_yaml(document: Document) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


class _Dumper(yaml.CSafeDumper):
    """PyYAML's C dumper without anchors: a part that stands twice is written twice, as importers want it."""

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out."""
        return True


WRITERS: Mapping[str, Callable[[Document], str]] = {".json": _to_json, ".yaml": _to_yaml, ".yml": _to_yaml}
