"""Take fields that nobody knows out of a body, wherever a record inside it forbids them.

Converters and agents put remarks of their own on tools, parts and options. What a record itself
has under its own names is checked later; what lies in mappings is the client's and stays.
"""

from collections.abc import Mapping
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
    record = type_info(kind)
    assert isinstance(record, StructType)
    types = {field.encode_name: field.type for field in record.fields}
    return {
        name: _cleaned(value, types[name], name, passed) if name in types else value
        for name, value in body.items()
    }


def _cleaned(value: Any, kind: Type, where: str, passed: PassedOver) -> Any:
    if isinstance(kind, Metadata):
        return _cleaned(value, kind.type, where, passed)
    options = kind.types if isinstance(kind, UnionType) else (kind,)
    options = tuple(one.type if isinstance(one, Metadata) else one for one in options)
    if isinstance(value, list):
        items = next((one.item_type for one in options if isinstance(one, ListType)), None)
        if items is None:
            return value
        return [
            _cleaned(item, items, f"{where}[{index}]", passed) for index, item in enumerate(value)
        ]
    records = [one for one in options if isinstance(one, StructType)]
    if not isinstance(value, dict) or not records:
        return value
    if any(isinstance(one, DictType) for one in options):
        return value
    tagged = [one for one in records if one.tag_field and value.get(one.tag_field) == one.tag]
    records = tagged or records
    types = {field.encode_name: field.type for one in records for field in one.fields}
    types |= {one.tag_field: AnyType() for one in records if one.tag_field}
    forbidden = all(one.forbid_unknown_fields for one in records)
    cleaned = {}
    for name, inner in value.items():
        if name in types:
            cleaned[name] = _cleaned(inner, types[name], f"{where}.{name}", passed)
        elif forbidden:
            passed.note(f"{where}.{name}", inner, REASON)
        else:
            cleaned[name] = inner
    return cleaned
