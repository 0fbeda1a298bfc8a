import copy

import jsonschema_rs
import pytest

from codegen.contract import Contract, Operation, build_contract
from handlers.runtime import routes
from handlers.runtime.app import create_app, create_services
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings
from handlers.runtime.validation import RequestValidator, SchemaSource
from tests.support.contract_requests import plain_path


def test_every_operation_has_one_route_in_the_contracts_order(services: Services) -> None:
    """Whoever lists the routes lists the contract."""
    assert [(key, route.operation.id) for key, route in services.routes.items()] == [
        (operation.id, operation.id) for operation in services.contract
    ]


def test_a_path_leads_to_the_very_route_of_its_operation(services: Services) -> None:
    """Requests and calls through the proxy meet the same function and the same checks."""
    for operation in services.contract:
        match = services.index.match(plain_path(operation))
        assert match is not None
        assert match.methods[operation.method] is services.routes[operation.id]


def test_checks_are_compiled_once_per_operation(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the contract does it, over one source of schemas; binding the app and serving make no more."""
    made: list[tuple[Operation, SchemaSource]] = []

    def validator(operation: Operation, schemas: SchemaSource) -> RequestValidator:
        made.append((operation, schemas))
        return RequestValidator(operation, schemas)

    monkeypatch.setattr(routes, "RequestValidator", validator)
    create_app(create_services(Settings.model_validate({})))
    assert [operation.id for operation, _ in made] == [operation.id for operation in contract]
    assert len({id(schemas) for _, schemas in made}) == 1


def test_only_operations_that_end_carry_lifecycle_headers(services: Services) -> None:
    """Both headers, or none."""
    for route in services.routes.values():
        names = [name for name, _ in route.lifecycle_headers]
        assert names == ([b"deprecation", b"sunset"] if route.operation.sunset else [])


def test_a_reference_that_leads_nowhere_stops_the_start(contract: Contract) -> None:
    """Checks are compiled from what requests refer to, so a schema that is not there is seen before the first one."""
    document = copy.deepcopy(contract.document)
    body = document["components"]["requestBodies"]["ProxyRequest"]
    body["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/Missing"}
    with pytest.raises(jsonschema_rs.ValidationError, match="Missing"):
        routes.build_routes(build_contract(contract.name, document))
