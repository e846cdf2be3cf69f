"""Read a query string into a record, or say which parameter is wrong, its value and its limit.

The record's fields are the parameters: their limits are in the OpenAPI document and in messages.
Escaped or not, letters are UTF-8. Parameters that the record lacks are ignored; of two with one
name the last counts.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar.openapi.spec import Operation, Parameter

from app.dialects.kit.body import to_record
from app.dialects.kit.host import AnyRequest
from app.errors import RequestError

MAX_BYTES: Final = 16_384
MAX_PARAMETERS: Final = 100

T = TypeVar("T", bound=msgspec.Struct)


def read_query(request: AnyRequest, kind: type[T]) -> T:
    """Read a request's query string.

    Raises:
        RequestError: it is too long, or no UTF-8.
        InvalidParameter: the first parameter that is missing or wrong.
    """
    raw: bytes = request.scope["query_string"]
    if len(raw) > MAX_BYTES:
        raise RequestError(f"the query string has {len(raw)} bytes, expected at most {MAX_BYTES}")
    try:
        given = parse_qsl(
            raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError as error:
        raise RequestError(
            f"the query string is not UTF-8, or has more than {MAX_PARAMETERS} parameters"
        ) from error
    return to_record(dict(given), kind, strict=False)


def asks(kind: type[msgspec.Struct], base: type[Operation] = Operation) -> type[Operation]:
    """Return an operation for the OpenAPI document whose query parameters are a record's fields.

    Args:
        kind: the record.
        base: the operation to add them to.
    """
    [schema] = msgspec.json.schema(kind)["$defs"].values()
    parameters = [
        _documented(name, field, required=name in schema.get("required", []))
        for name, field in schema["properties"].items()
    ]
    parent: Any = base

    @dataclass
    class WithQuery(parent):  # type: ignore[misc] # a class that is given
        def __post_init__(self) -> None:
            if base is not Operation:
                super().__post_init__()
            self.parameters: list[Any] = [*(self.parameters or []), *parameters]

    return WithQuery


def _documented(name: str, field: dict[str, Any], *, required: bool) -> Parameter:
    schema: Any = {key: value for key, value in field.items() if key != "description"}
    return Parameter(
        name=name,
        param_in="query",
        schema=schema,
        description=field.get("description"),
        required=required,
    )
