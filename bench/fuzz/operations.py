"""The operations of an OpenAPI document, and bodies that fit their schemas.

Knows JSON Schema as far as the document uses it.
"""

import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Schema = Mapping[str, Any]
Document = Mapping[str, Any]

METHODS: Final = ("get", "post", "put", "patch", "delete")
OPTIONAL_SHARE: Final = 0.2
"""Of the fields that may be left out, how many are sent."""
MOST_ITEMS: Final = 3
DEEPEST: Final = 6


@dataclass(frozen=True)
class Parameter:
    """A parameter in the path or the query."""

    name: str
    place: str
    schema: Schema
    required: bool


@dataclass(frozen=True)
class Operation:
    """A method of a path."""

    method: str
    path: str
    """With `{…}` for its parameters."""
    content_type: str
    """Of the body; empty: it takes none."""
    body: Schema
    parameters: tuple[Parameter, ...]
    answers: Mapping[int, frozenset[str]]
    """The keys that the JSON object of each documented status has at least."""

    def __str__(self) -> str:
        """As it is written in the document."""
        return f"{self.method} {self.path}"


def read_operations(document: Document) -> list[Operation]:
    """Every operation of a document, in its order."""
    return [
        _operation(method.upper(), path, item[method], document)
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]


def read_envelopes(operations: list[Operation]) -> frozenset[frozenset[str]]:
    """The keys of each kind of refusal that any operation documents."""
    return frozenset(
        keys
        for operation in operations
        for status, keys in operation.answers.items()
        if status >= 400 and keys
    )


def _operation(method: str, path: str, found: Mapping[str, Any], document: Document) -> Operation:
    content = found.get("requestBody", {}).get("content", {})
    content_type = next(iter(content), "")
    parameters = tuple(
        Parameter(p["name"], p["in"], p.get("schema", {}), p.get("required", False))
        for p in found.get("parameters", [])
    )
    answers = {
        int(status): _keys(answer.get("content", {}), document)
        for status, answer in found["responses"].items()
    }
    body = content.get(content_type, {}).get("schema", {})
    return Operation(method, path, content_type, body, parameters, answers)


def _keys(content: Mapping[str, Any], document: Document) -> frozenset[str]:
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = _resolved(schema["$ref"], document)
    return frozenset(schema.get("required", []))


def _resolved(reference: str, document: Document) -> Schema:
    node: Any = document
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    found: Schema = node
    return found


class Examples:
    """Makes values that fit schemas, at random."""

    def __init__(self, document: Document, model: str) -> None:
        self._document, self._model = document, model

    def body(self, operation: Operation, rng: random.Random) -> Any:
        """A body of an operation."""
        return self.value(operation.body, rng)

    def value(self, schema: Schema, rng: random.Random, name: str = "", depth: int = 0) -> Any:
        """A value that fits a schema, but for patterns and contradictions between fields."""
        if name in ("model", "model_id"):
            return self._model
        while "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
            if "$ref" in schema:
                schema = _resolved(schema["$ref"], self._document)
            else:
                schema = rng.choice(schema.get("anyOf") or schema["oneOf"])
        if schema.get("examples") and rng.random() < 0.5:
            return rng.choice(schema["examples"])
        if "enum" in schema or "const" in schema:
            return rng.choice(schema.get("enum") or [schema["const"]])
        kind = schema.get("type", "object")
        if isinstance(kind, list):
            kind = rng.choice(kind)
        if kind == "array":
            count = max(schema.get("minItems", 0), rng.randrange(MOST_ITEMS + 1))
            items = schema.get("items", {"type": "string"})
            return [self.value(items, rng, depth=depth + 1) for _ in range(count)]
        return self._object(schema, rng, depth) if kind == "object" else _scalar(kind, schema, rng)

    def _object(self, schema: Schema, rng: random.Random, depth: int) -> dict[str, Any]:
        required = schema.get("required", [])
        share = OPTIONAL_SHARE if depth < DEEPEST else 0.0
        return {
            name: self.value(inner, rng, name, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or rng.random() < share
        }


def _scalar(kind: str, schema: Schema, rng: random.Random) -> Any:
    if kind == "string":
        length = max(schema.get("minLength", 1), rng.randrange(12))
        return "".join(rng.choices(string.ascii_letters + string.digits, k=length))
    low, high = _range(schema)
    if kind == "number":
        return rng.choice([low, high, rng.uniform(low, high)])
    if kind == "integer":
        return rng.choice([int(low), int(high), rng.randint(int(low), int(high))])
    return rng.random() < 0.5 if kind == "boolean" else None


def _range(schema: Schema) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1000))
    high = schema.get("maximum", schema.get("exclusiveMaximum", max(1000, low)))
    return low, high
