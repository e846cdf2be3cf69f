"""Read a JSON body into a record, or say which field is wrong, its value and its limit.

The limits in a message come from the same schema that the OpenAPI document shows. An explicit
null means the default. Unknown fields are ignored, unless the record forbids them. Knows no
dialect.
"""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    RequestBody,
)

from app.dialects.kit.body_size import PER_CONTAINER, num_values
from app.errors import InvalidParameter, RequestError, UnknownParameter

Body = dict[str, Any]
Schema = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)

# msgspec says what is wrong in English alone: its minor version is pinned, and a test has each of
# these patterns. The last one counts: before it a message may quote what the client sent.
_ERROR_PATH: Final = re.compile(r"^(.*) - at `\$(.*?)`$", re.DOTALL)
_MISSING_FIELD: Final = re.compile(r"^Object missing required field `(\w+)`")
_UNKNOWN_FIELD: Final = re.compile(r"^Object contains unknown field `(.*?)`?$", re.DOTALL)
_PATH_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
# A path doesn't name the values of a mapping: the message is about the mapping then.
_IN_MAPPING: Final = re.compile(r"\[\.\.\.\].*$", re.DOTALL)
_LIMITS: Final = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minLength": "length >=",
    "maxLength": "length <=",
    "minItems": "length >=",
    "maxItems": "length <=",
    "pattern": "matching",
}


MAX_VALUES: Final = 200_000
"""Values in a body where no setting says otherwise; see `num_values`."""


def _number(text: str) -> float:
    """Decode a number with a point or an exponent; JSON Schema takes 2.0 for an integer."""
    value = float(text)
    if math.isinf(value):
        raise msgspec.DecodeError("Number out of range")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_DECODER: Final = msgspec.json.Decoder(float_hook=_number)


_OF_PAGES: Final = ("origin", "sec-fetch-site")
"""Headers that a browser sends with whatever a page of another origin posts."""


async def read_object(request: Request[Any, Any, Any], *, typed: bool = True) -> Body:
    """Read the request's JSON object.

    Args:
        request: whose body it is.
        typed: False: programs need not say that it is JSON, as in Ollama's own examples with curl;
            pages must in any case.

    Raises:
        InvalidParameter: another content type, no body, no JSON, no object, too many values.
    """
    # Other types are refused because a page of any origin may send those without asking.
    content_type = request.headers.get("content-type", "")
    typed = typed or any(name in request.headers for name in _OF_PAGES)
    if typed and content_type.split(";")[0].strip().lower() != "application/json":
        raise InvalidParameter("Content-Type", content_type, "application/json")
    raw = await request.body()
    beginning = raw[:100].decode("utf-8", "replace")
    most = request.app.state.get("max_body_values", MAX_VALUES)
    if (values := await num_values(raw, most)) > most:
        limit = f"at most {most} values, an array or object counting as {PER_CONTAINER}"
        raise InvalidParameter("body", f"JSON of at least {values} values", limit)
    try:
        body = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error).replace("Input data was truncated", "the text ends within it")
        raise InvalidParameter("body", beginning, f"a JSON object ({reason})") from error
    except RecursionError as error:
        raise InvalidParameter("body", beginning, "JSON that is nested less deeply") from error
    if not isinstance(body, dict):
        raise InvalidParameter("body", beginning, "a JSON object")
    return body


def to_record(body: Body, kind: type[T], *, strict: bool = True) -> T:
    """Check a body's fields against a record's types and limits.

    Args:
        body: what was sent.
        kind: the record.
        strict: False: a number may be sent as a text, as in a query string.

    Raises:
        InvalidParameter: the first field that is missing or wrong.
        UnknownParameter: the first that isn't there, of a record that forbids them.
    """
    given = {name: value for name, value in body.items() if value is not None}
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _explained(str(error), given, _schema(kind)) from error


def takes(
    *kinds: type[msgspec.Struct], required: bool = True, streams: tuple[str, ...] = ()
) -> type[Operation]:
    """Return an operation for the OpenAPI document whose JSON body is one of the records.

    Args:
        *kinds: the records; one may have `CONTRADICTIONS`, JSON schemas of bodies whose fields fit
            one by one and not together.
        required: whether there must be a body.
        streams: media types of the answer when it is streamed.
    """
    schemas = [_documented(kind) for kind in kinds]
    schema: Any = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            media = OpenAPIMediaType(schema=schema)
            self.request_body = RequestBody(content={"application/json": media}, required=required)
            success = (self.responses or {}).get("200")
            if isinstance(success, OpenAPIResponse) and success.content is not None:
                # No schema: OpenAPI 3.1 has none for a sequence of events or lines.
                success.content |= {stream: OpenAPIMediaType() for stream in streams}

    return WithBody


class _Missing:
    def __repr__(self) -> str:
        return "missing"


def _explained(message: str, value: Any, schema: Schema) -> RequestError:
    """Find the value and the limit that a message of msgspec is about."""
    at = _ERROR_PATH.match(message)
    message, path = (at[1], _IN_MAPPING.sub("", at[2])) if at else (message, "")
    if unknown := _UNKNOWN_FIELD.match(message):
        return UnknownParameter(f"{path}.{unknown[1]}".lstrip("."))
    for name, index in _PATH_STEP.findall(path):
        value = value[name] if name else value[int(index)]
        schema = _below(schema, name)
    if missing := _MISSING_FIELD.match(message):
        name, value = missing[1], _Missing()
        path, schema = f"{path}.{name}", _below(schema, name)
    return InvalidParameter(path.lstrip(".") or "body", value, _words(schema))


def _below(schema: Schema, name: str) -> Schema:
    """The schema of a property, or of the items where the name is empty.

    Records of a union have a property in common that says which of them it is: what is below is
    any of its values then.
    """
    found = [
        _object(option["properties"][name] if name else option["items"])
        for option in _options(schema)
        if (name in option.get("properties", {}) if name else "items" in option)
    ]
    if not found:
        raise AssertionError(f"msgspec names {name!r}, the schema has {schema}")
    if all("enum" in one for one in found):
        return {"enum": [value for one in found for value in one["enum"]]}
    return found[0]


def _options(schema: Schema) -> Iterator[Schema]:
    """What a value may be, unions inside unions included."""
    if "anyOf" not in schema:
        yield schema
    for option in schema.get("anyOf", ()):
        yield from _options(option)


def _words(schema: Schema) -> str:
    """A schema in words: `integer >= 1 and <= 16384`."""
    if "anyOf" in schema:
        return " or ".join(_words(o) for o in schema["anyOf"] if o.get("type") != "null")
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    limits = " and ".join(f"{sign} {schema[k]}" for k, sign in _LIMITS.items() if k in schema)
    kind = schema.get("type", "value")
    if kind == "array" and "items" in schema:
        kind = f"array of {_words(schema['items'])}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        kind = f"object of {_words(values)}"
    return f"{kind}, {limits}" if limits.startswith("length") else f"{kind} {limits}".strip()


@functools.cache
def _schema(kind: type[msgspec.Struct]) -> Schema:
    """The JSON schema of a record with the records inside it written out."""
    [schema], components = msgspec.json.schema_components([kind], ref_template="{name}")

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if isinstance(node, dict):
            if "$ref" in node:
                return inlined(components[node["$ref"]])
            return {key: inlined(value) for key, value in node.items()}
        return node

    return _object(inlined(schema))


def _documented(kind: type[msgspec.Struct]) -> Schema:
    """A record's JSON schema as clients read it."""
    schema = _with_nulls(_schema(kind))
    contradictions: tuple[Schema, ...] = getattr(kind, "CONTRADICTIONS", ())
    return {**schema, "not": {"anyOf": list(contradictions)}} if contradictions else schema


def _with_nulls(schema: Schema) -> Schema:
    """Allow null in a JSON schema wherever a field has a default."""

    def nullable(field: Schema) -> Schema:
        if "type" in field:
            return {**field, "type": [field["type"], "null"]}
        if "enum" in field:
            return {**field, "enum": [*field["enum"], None]}
        options = [option for option in field["anyOf"] if option.get("type") != "null"]
        return {**field, "anyOf": [*options, {"type": "null"}]}

    required = schema.get("required", [])
    fields = schema["properties"].items()
    properties = {name: f if name in required else nullable(f) for name, f in fields}
    return {**schema, "properties": properties}


def _object(node: Any) -> Schema:
    assert isinstance(node, dict), node
    return node
