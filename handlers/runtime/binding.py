"""
Binds every operation of the contract to a function, in the form in which Connexion can load it.

Connexion 3.3 refuses OpenAPI 3.1, so it is given a view of the contract in the form of 3.0.3: paths, operationIds,
parameters, security and names of media types, without body schemas. Bodies are validated against the contract itself.

Not for: running a request (`handlers.runtime.pipeline`).
"""

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jsonschema_rs
from connexion.operations import AbstractOperation
from connexion.resolver import Resolution, Resolver
from connexion.spec import OpenAPISpecification

from codegen.contract import Contract
from codegen.naming import snake_case
from handlers.runtime.exceptions import (
    UnboundOperations,
)
from handlers.runtime.forwarder import forward
from handlers.runtime.messages import Handler

_HANDLERS = "handlers"
# Connexion copies the view and keeps what is one object in it one object, so what recurs is made once.
_CONNEXION_PATH_TYPES = {"type": "string"}
_RESPONSES = {"default": {"description": "See the contract."}}
_KEYS: list[dict[str, list[str]]] = [{"relayBearer": []}, {"relayKey": []}]
_OPEN: list[dict[str, list[str]]] = []


def bind_functions(contract: Contract) -> Mapping[str, Handler]:
    """
    Find the function of every operation: one in the module of its tag, else the forwarder for mirrored operations.

    Returns:
        operationId to function.

    Raises:
        UnboundOperations: The relay's own operation has no function, or a function has no operation.
    """
    functions: dict[str, Handler] = {}
    problems: list[str] = []
    modules = {tag: _import_module(f"{_HANDLERS}.{snake_case(tag)}") for tag in contract.tags}
    claimed: set[tuple[str, str]] = set()
    for operation in contract:
        module = modules[operation.tag]
        name = snake_case(operation.id)
        function = getattr(module, name, None) if module else None
        if function is not None:
            claimed.add((operation.tag, name))
        if inspect.iscoroutinefunction(function):
            functions[operation.id] = function
        elif function is None and operation.mirrored and not operation.colon_path:
            functions[operation.id] = forward
        else:
            place = f"{_HANDLERS}/{snake_case(operation.tag)}.py"
            problems.append(f"{operation.method} {operation.path}: write `async def {name}` in {place}.")
    for tag, module in sorted(modules.items()):
        for name in _public_coroutines(module):
            if (tag, name) not in claimed:
                problems.append(f"{_HANDLERS}/{snake_case(tag)}.py: `{name}` serves no operation of the contract.")
    if problems:
        raise UnboundOperations(problems)
    return functions


def binding_view(contract: Contract) -> dict[str, Any]:
    """
    The contract as Connexion can load it.

    Returns:
        An OpenAPI 3.0.3 document with the same paths, operationIds, parameters, security and media types.
    """
    paths: dict[str, dict[str, Any]] = {}
    parameters: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for operation in contract:
        view: dict[str, Any] = {
            "operationId": operation.id,
            "parameters": [
                parameters.setdefault(
                    (p.name, p.location, p.required),
                    {"name": p.name, "in": p.location, "required": p.required, "schema": _CONNEXION_PATH_TYPES},
                )
                for p in operation.parameters
            ],
            "responses": _RESPONSES,
            "security": _KEYS if operation.scopes else _OPEN,
        }
        if operation.body:
            view["requestBody"] = {
                "required": operation.body.required,
                "content": {name: {} for name in operation.body.content},
            }
        paths.setdefault(operation.path, {})[operation.method.lower()] = view
    return {
        "openapi": "3.0.3",
        "info": {"title": contract.name, "version": contract.version},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "relayBearer": {"type": "http", "scheme": "bearer"},
                "relayKey": {"type": "apiKey", "in": "header", "name": "X-Relay-Key"},
            }
        },
    }


class BindingSpecification(OpenAPISpecification):
    """A binding view, checked by `jsonschema-rs`: Connexion's check in pure Python takes 150 ms of the start."""

    @classmethod
    def _validate_spec(cls, spec: dict[str, Any]) -> None:
        jsonschema_rs.Draft4Validator(cls.openapi_schema).validate(spec)


class FunctionResolver(Resolver):
    """Connexion's resolver over functions that have been found before."""

    def __init__(self, functions: Mapping[str, Handler]) -> None:
        super().__init__()
        self._functions = functions

    def resolve(self, operation: AbstractOperation) -> Resolution:
        """Hand out the function of an operation."""
        return Resolution(self._functions[operation.operation_id], operation.operation_id)


def _import_module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _public_coroutines(module: ModuleType | None) -> list[str]:
    return (
        [
            name
            for name, value in vars(module).items()
            if inspect.iscoroutinefunction(value) and not name.startswith("_") and value.__module__ == module.__name__
        ]
        if module
        else []
    )
