"""Take fields that nobody knows out of a body, wherever a record inside it forbids them.

Converters and agents put remarks of their own on tools, parts and options. What a record itself
has under its own names is checked later; what lies in mappings is the client's and stays.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.inspect import (
    AnyType,
    DictType,
    ListType,
    Metadata,
    StructType,
    Type,
    UnionType,
    type_info,
)

from app.dialects.kit.passed_over import PassedOver

REASON = "no such field is known here"


def without_unknown(
    body: Mapping[str, Any], kind: type[msgspec.Struct], passed: PassedOver
) -> dict[str, Any]:
    """Copy a body without the unknown fields of the records inside it; its own stay.

    Args:
        body: as sent.
        kind: what it is to become.
        passed: notes each field by its path.

    Raises:
        Unsupported: the server takes no unknown fields.
    """
    plans = _plans((kind,))
    cleaned = {}
    for name, value in body.items():
        plan = plans.get(name)
        cleaned[name] = value if plan is None else _cleaned(value, plan, name, passed)
    return cleaned


@dataclass(frozen=True)
class _Plan:
    """What to look for in a value of one type."""

    items: "_Plan | None" = None
    """In each item of an array; None: nothing."""
    records: tuple[type[msgspec.Struct], ...] = ()
    """What an object may be; none where there is nothing to look for."""


@functools.cache
def _record(kind: type[msgspec.Struct]) -> StructType:
    record = type_info(kind)
    assert isinstance(record, StructType)
    return record


@functools.cache
def _plans(kinds: tuple[type[msgspec.Struct], ...]) -> dict[str, _Plan | None]:
    """What to look for below each of the names that records know."""
    records = [_record(kind) for kind in kinds]
    types = {field.encode_name: field.type for one in records for field in one.fields}
    types |= {one.tag_field: AnyType() for one in records if one.tag_field}
    return {name: _plan(kind) for name, kind in types.items()}


def _plan(kind: Type) -> _Plan | None:
    options = list(_options(kind))
    items = next((_plan(one.item_type) for one in options if isinstance(one, ListType)), None)
    records = tuple(one.cls for one in options if isinstance(one, StructType))
    if any(isinstance(one, DictType) for one in options):
        records = ()
    return _Plan(items, records) if items or records else None


def _options(kind: Type) -> Iterator[Type]:
    """What a value may be."""
    if isinstance(kind, Metadata):
        yield from _options(kind.type)
    elif isinstance(kind, UnionType):
        for one in kind.types:
            yield from _options(one)
    else:
        yield kind


def _cleaned(value: Any, plan: _Plan, where: str, passed: PassedOver) -> Any:
    if isinstance(value, list) and plan.items is not None:
        inner = plan.items
        return [_cleaned(item, inner, f"{where}[{i}]", passed) for i, item in enumerate(value)]
    if not isinstance(value, dict) or not plan.records:
        return value
    kinds = plan.records
    if len(kinds) > 1:
        kinds = tuple(filter(functools.partial(_has_tag, value), kinds)) or kinds
    plans = _plans(kinds)
    forbidden = all(_record(kind).forbid_unknown_fields for kind in kinds)
    cleaned = {}
    for name, inner in value.items():
        if forbidden and name not in plans:
            passed.note(f"{where}.{name}", inner, REASON)
            continue
        cleaned[name] = inner
        if (below := plans.get(name)) is not None and isinstance(inner, list | dict):
            cleaned[name] = _cleaned(inner, below, f"{where}.{name}", passed)
    return cleaned


def _has_tag(value: Mapping[str, Any], kind: type[msgspec.Struct]) -> bool:
    record = _record(kind)
    return record.tag_field is not None and value.get(record.tag_field) == record.tag
