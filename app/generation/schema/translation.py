"""Write a schema as the grammar library takes it, rewritten where the library reads it differently.

Whatever satisfies the translation satisfies the schema.
"""

from typing import Any, Final
from urllib.parse import quote

from app.errors import InvalidParameter
from app.generation.schema.document import MAX_LEAST, PARTS, TYPES, Document, Place, Schema
from app.generation.schema.formats import (
    BESIDE_A_PATTERN,
    FORMATS,
    KNOWN_TO_THE_LIBRARY,
    LONGEST_BESIDE_A_PATTERN,
    UNENFORCED_FORMATS,
)
from app.generation.schema.numbers import NumberError, bounds, check_multiples, constant
from app.generation.schema.satisfiability import may_be_written, unsatisfiable

_COUNTS: Final = {
    *("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"),
}
_AS_THEY_ARE: Final = {"$schema", "type", "required"}
_MERGING: Final = {"allOf", "anyOf", "oneOf", "$ref", "patternProperties"}
"""Make the library join schemas into one."""


def translated(document: Document) -> dict[str, Any]:
    """Write a whole document.

    Raises:
        InvalidParameter: something in it can't be enforced.
    """
    translation = _Translation(document)
    written = translation.schema(document.at())
    if not isinstance(written, dict):
        raise translation.refusal()
    return written


class _Translation:
    """The translation of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._unsatisfiable = unsatisfiable(document)
        schemas = [place.schema for place in document.places if isinstance(place.schema, dict)]
        self._merging = any(schema.keys() & _MERGING for schema in schemas)
        self._integers = any(_only_integers(schema) for schema in schemas)
        multiples = {schema["multipleOf"] for schema in schemas if "multipleOf" in schema}
        if len(multiples) > 1 and self._merging:
            try:
                check_multiples(multiples)
            except NumberError as error:
                raise document.refused((), sorted(multiples), str(error), "multipleOf") from error

    def refusal(self) -> InvalidParameter:
        """Say why no text satisfies the whole schema."""
        for place in self._document.places:
            if place.pointer not in self._unsatisfiable or isinstance(place.schema, bool):
                continue
            if "$ref" in place.schema:
                limit = "a reference that comes to an end: no text satisfies it"
                return self._document.refused(place.pointer, place.schema["$ref"], limit, "$ref")
            for key in place.schema.keys() & {"const", "enum"}:
                limit = r"a value that JSON writes without \u escapes"
                return self._document.refused(place.pointer, place.schema[key], limit, key)
        limit = "a schema that a finite text satisfies"
        return self._document.refused((), self._document.at().schema, limit)

    def schema(self, place: Place) -> Schema:
        """Write one schema and those inside it."""
        if place.pointer in self._unsatisfiable or isinstance(place.schema, bool):
            return place.schema is True
        written: dict[str, Any] = {}
        # in the schema's order, which is that of an object's properties
        for key, value in place.schema.items():
            if key in PARTS:
                written[key] = self._parts(place, key, value)
            elif key == "$ref":
                steps = map(str, self._document.target(place).written)
                names = (step.replace("~", "~0").replace("/", "~1") for step in steps)
                written[key] = "#" + "".join(f"/{quote(name, safe='')}" for name in names)
            elif key == "enum":
                kept = filter(may_be_written, value)
                written[key] = [self._constant(place, key, item) for item in kept]
            elif key == "const":
                written[key] = self._constant(place, key, value)
            elif key in _COUNTS:
                # where its length is bounded, each character of a string costs the lexer a state
                written[key] = min(int(value), MAX_LEAST) if key == "maxLength" else int(value)
            elif key in _AS_THEY_ARE:
                written[key] = value
        self._add_numbers(place, place.schema, written)
        self._add_strings(place, place.schema, written)
        return written

    def _parts(self, place: Place, key: str, value: object) -> object:
        at = self._document.at
        if isinstance(value, list):
            return [self.schema(at(*place.pointer, key, index)) for index in range(len(value))]
        if key in ("items", "additionalProperties"):
            return self.schema(at(*place.pointer, key))
        assert isinstance(value, dict), "the document has been checked"
        parts = [at(*place.pointer, key, name) for name in value]
        written = {str(part.written[-1]): self.schema(part) for part in parts}
        if len(written) < len(parts):
            limit = "patterns that match different names"
            raise self._document.refused(place.pointer, list(value), limit, key)
        return written

    def _constant(self, place: Place, key: str, value: object) -> object:
        if isinstance(value, list):
            return [self._constant(place, key, item) for item in value]
        if isinstance(value, dict):
            return {name: self._constant(place, key, item) for name, item in value.items()}
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        integers = _only_integers(place.schema) or (self._integers and self._merging)
        try:
            return constant(value, integers=integers)
        except NumberError as error:
            raise self._document.refused(place.pointer, value, str(error), key) from error

    def _add_numbers(self, place: Place, schema: dict[str, Any], written: dict[str, Any]) -> None:
        types = _types(schema)
        if not types & {"number", "integer"}:
            return
        try:
            written |= bounds(schema, integers=_only_integers(schema))
        except NumberError as error:
            value = schema[error.keyword]
            raise self._document.refused(place.pointer, value, str(error), error.keyword) from error
        if "multipleOf" in schema:
            written["multipleOf"] = schema["multipleOf"]

    def _add_strings(self, place: Place, schema: dict[str, Any], written: dict[str, Any]) -> None:
        if "string" not in _types(schema):
            return
        format_ = schema.get("format")
        if "pattern" in schema:
            pattern = self._document.translated(place.pointer, schema["pattern"], "pattern")
            written["pattern"] = pattern.text
            if written.get("minLength", 0) <= pattern.least:
                written.pop("minLength", None)  # holds anyway, and costs the library much
        if format_ in FORMATS and "pattern" in written:  # a schema holds one
            typed = {"type": schema["type"]} if "type" in schema else {}
            more = {**typed, "pattern": BESIDE_A_PATTERN[format_]}
            written.setdefault("allOf", []).append(more)
            longest = LONGEST_BESIDE_A_PATTERN.get(format_, MAX_LEAST)
            if written.get("maxLength", 0) >= longest:
                del written["maxLength"]
        elif format_ in FORMATS:
            written["pattern"] = FORMATS[format_]
        elif format_ in KNOWN_TO_THE_LIBRARY or format_ in UNENFORCED_FORMATS:
            written["format"] = format_


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """Give the types that a schema lets through."""
    types = schema.get("type", TYPES)
    return frozenset((types,)) if isinstance(types, str) else frozenset(types)


def _only_integers(schema: Schema) -> bool:
    types = _types(schema) if isinstance(schema, dict) else TYPES
    return "integer" in types and "number" not in types
