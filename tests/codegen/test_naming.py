import re

import pytest

from codegen.contract import read_contract
from codegen.naming import importer_name, snake_case
from tests.support.documents import ROOT

FUNCTION = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("listModels", "list_models"),
        ("create-realtime-client-secret", "create_realtime_client_secret"),
        ("GetThreadMethod", "get_thread_method"),
        ("retrieveActionsContractAsYaml", "retrieve_actions_contract_as_yaml"),
    ],
)
def test_a_function_is_named_after_its_operation(name: str, wanted: str) -> None:
    """Words are told apart by case and by what is no letter."""
    assert snake_case(name) == wanted


@pytest.mark.parametrize(
    "name, wanted",
    [("listModels", "listModels"), ("create-realtime-client-secret", "create_realtime_client_secret"), ("a_b", "a_b")],
)
def test_importers_get_a_name_that_functions_may_have(name: str, wanted: str) -> None:
    """A hyphen becomes an underscore; everything else stays upstream's, byte for byte."""
    assert importer_name(name) == wanted


def test_no_two_operations_become_one() -> None:
    """Every operation of the contract would keep a name of its own in the Actions document, and one that imports."""
    names = [importer_name(operation.id) for operation in read_contract(ROOT)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not FUNCTION.fullmatch(name)] == []
