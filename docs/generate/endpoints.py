"""The list of endpoints: the OpenAPI document of the application, in words."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

from docs.generate.application import openapi
from docs.generate.tables import code, table

SHARED: Final = "Shared by LocalLab and LLM Host"
"""The heading of what no dialect's tag is on."""
BOUNDS: Final = (
    ("minimum", "maximum", ""),
    ("exclusiveMinimum", "exclusiveMaximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
    ("minProperties", "maxProperties", " keys"),
)
"""Keys for the least and the most of something, and its unit."""
Schema = Mapping[str, Any]


def markdown() -> str:
    """Write a section per dialect, with a part for each of its endpoints."""
    sections: dict[str, list[str]] = {}
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", [SHARED])[0]
            sections.setdefault(tag, []).append(endpoint(f"{method.upper()} {path}", operation))
    return "\n".join(f"## {tag}\n\n{''.join(parts)}" for tag, parts in sections.items())


def endpoint(title: str, operation: Schema) -> str:
    """Write one endpoint: what it does, takes and answers."""
    text = inspect.cleandoc(operation.get("description", operation.get("summary", "")))
    parts = [f"### {title}", text]
    if operation.get("parameters"):
        parts.append(table(("parameter", "in", "type", "meaning"), _parameters(operation)))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        for body in content["schema"].get("oneOf", [content["schema"]]):
            parts.append(f"Body, `{media}`{_named(body)}:")
            parts.append(table(("field", "type", "default", "meaning"), fields(body)))
    answers = [
        (status, answer["description"], ", ".join(map(code, answer.get("content", {}))))
        for status, answer in sorted(operation["responses"].items())
    ]
    parts.append(table(("status", "when", "type of the answer"), answers))
    return "\n\n".join(part for part in parts if part) + "\n"


def fields(body: Schema) -> Iterator[tuple[str, str, str, str]]:
    """The fields of a body, one row each; those that are required come first."""
    required = body.get("required", ())
    ordered = sorted(body.get("properties", {}).items(), key=lambda item: item[0] not in required)
    for name, schema in ordered:
        default = "required" if name in required else _default(schema)
        yield f"`{name}`", kind(schema), default, schema.get("description", "")


def kind(schema: Schema) -> str:
    """A schema's type and limits in words."""
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(kind(one) for one in choices if not _is_null(one)))
    if "const" in schema or "enum" in schema:
        return ", ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    names = schema.get("type", "anything")
    names = [names] if isinstance(names, str) else [name for name in names if name != "null"]
    items = f" of {kind(schema['items'])}" if schema.get("items") else ""
    return ", ".join([" or ".join(names) + items, *_limits(schema)])


def _limits(schema: Schema) -> Iterator[str]:
    for low, high, unit in BOUNDS:
        least, most = schema.get(low), schema.get(high)
        # far beyond what anybody would send: what a machine word holds
        if most is not None and most >= 2**31 - 1:
            most = None
        if least is not None and least <= -(2**31):
            least = None
        if least is not None and most is not None:
            yield f"{least:,} to {most:,}{unit}"
        elif most is not None:
            yield f"{'below' if high.startswith('exclusive') else 'at most'} {most:,}{unit}"
        elif least == 1 and unit:
            yield "not empty"
        elif least is not None:
            yield f"{'above' if low.startswith('exclusive') else 'at least'} {least:,}{unit}"


def _parameters(operation: Schema) -> Iterator[tuple[str, str, str, str]]:
    for one in operation["parameters"]:
        schema = one.get("schema", {})
        meaning = one.get("description") or schema.get("description") or ""
        yield f"`{one['name']}`", one["in"], kind(schema), meaning


def _default(schema: Schema) -> str:
    default = schema.get("default")
    if default is None or default in ([], {}, ""):
        return ""
    return code(str(default).lower() if isinstance(default, bool) else default)


def _named(body: Schema) -> str:
    (first, *_) = body.get("required") or [""]
    return f" with `{first}`" if first and "title" in body else ""


def _is_null(schema: Schema) -> bool:
    return schema.get("type") == "null"
