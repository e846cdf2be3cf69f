"""Read a schema: the schemas inside it, where each is, and what its references mean.

Refuses what no grammar enforces and what is no schema, by its place. Knows no grammar.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final
from urllib.parse import unquote, urljoin

import msgspec

from app.errors import InvalidParameter
from app.generation.json_size import MAX_LEVELS, json_size
from app.generation.schema.patterns import PatternError, Translated, translate

MAX_CHARACTERS: Final = 65_536
MAX_NESTING: Final = 32
"""Schemas inside schemas."""
MAX_LEAST: Final = 10_000
"""Limit of minItems, minLength, minProperties and a pattern's match: an answer has to end."""
MAX_OPTIONAL: Final = 300
"""Properties of an object that are not required: at every name the parser follows all of them."""

TYPES: Final = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
Schema = dict[str, Any] | bool
Pointer = tuple[str | int, ...]

HOLDS_ONE: Final = {"items", "additionalProperties"}
HOLDS_MANY: Final = {"anyOf", "oneOf", "allOf", "prefixItems"}
HOLDS_NAMED: Final = {"properties", "patternProperties", "$defs", "definitions"}
PARTS: Final = HOLDS_ONE | HOLDS_MANY | HOLDS_NAMED
"""Keywords that hold schemas."""
_PLAIN: Final = {
    *("$ref", "$schema", "$id", "id", "$anchor", "type", "enum", "const", "required"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "multipleOf",
}
_REMARKS: Final = {
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly"),
    *("writeOnly", "$comment", "discriminator"),
}
"""Say nothing about what is valid. `discriminator` only helps to find the branch of a oneOf."""
_KNOWN: Final = PARTS | _PLAIN | _REMARKS
UNENFORCED: Final = {
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
    *("propertyNames", "dependentRequired", "dependentSchemas", "dependencies"),
    *("unevaluatedItems", "unevaluatedProperties", "additionalItems", "contentSchema"),
    *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
}
"""Keywords that say what is valid and that no grammar here enforces."""
_FOREIGN: Final = {
    *("nullable", "xml", "externalDocs", "propertyOrder", "propertyOrdering", "order", "strict"),
    *("contentEncoding", "contentMediaType", "$vocabulary", "markdownDescription", "optional"),
}
"""What OpenAPI, MCP and editors write into schemas; says nothing about what is valid in JSON."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value >= 0 and value % 1 == 0


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value > 0


SHAPES: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    **dict.fromkeys(("$ref", "$schema", "pattern", "format"), (_is_text, "a string")),
    "type": (lambda value: _is_text(value) or _is_texts(value), "a type or a list of types"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "required": (_is_texts, "a list of strings"),
    **dict.fromkeys(
        ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
        (_is_count, "an integer of at least 0"),
    ),
    **dict.fromkeys(("minimum", "maximum"), (_is_number, "a number")),
    **dict.fromkeys(
        ("exclusiveMinimum", "exclusiveMaximum"),
        (lambda value: _is_number(value) or isinstance(value, bool), "a number or a boolean"),
    ),
    "multipleOf": (_is_positive, "a number above 0"),
}


class Place(msgspec.Struct, frozen=True):
    """A schema inside a document."""

    schema: Schema
    pointer: Pointer
    """Keywords, names and indexes on the way to it."""
    written: Pointer
    """The way to it in the translation, where patterns have other texts."""
    resource: str
    """The URI that its references are relative to."""


def place_of(field: str, pointer: Pointer) -> str:
    """Write the way to a place in a schema after its field."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in pointer)
    where = field + "".join(steps)
    # names from the schema may be as long as the schema itself
    return where if len(where) <= 250 else f"{where[:249]}…"


class Document:
    """A schema and those inside it."""

    def __init__(self, schema: dict[str, Any], field: str, *, annotated: bool = False) -> None:
        """Read and check.

        Args:
            schema: as a client sent it.
            field: the one that is blamed.
            annotated: whether keywords that nobody knows are annotations, as JSON Schema has it;
                else they are taken for typing errors.

        Raises:
            InvalidParameter: it is too large, nested too deeply, or has a keyword that isn't
                known or whose value doesn't fit it.
        """
        self.field = field
        self._annotated = annotated
        self._places: dict[tuple[str, ...], Place] = {}
        self._resources: dict[str, Pointer] = {"": ()}
        self._anchors: dict[tuple[str, str], Pointer] = {}
        # before anything walks through it or shows it
        if json_size(schema, MAX_CHARACTERS) > MAX_CHARACTERS:
            raise InvalidParameter(
                field,
                "a larger one",
                f"a schema of at most {MAX_CHARACTERS} characters and {MAX_LEVELS} levels of JSON",
            )
        draft = schema.get("$schema")
        self._draft_4 = isinstance(draft, str) and "draft-04" in draft
        # before 2019-09, nothing beside $ref counts
        self._old = isinstance(draft, str) and "/draft-0" in draft
        self._read(schema, (), (), "", 1)

    @property
    def places(self) -> Collection[Place]:
        """All schemas in it, the whole one first."""
        return self._places.values()

    def at(self, *pointer: str | int) -> Place:
        """Give the schema at a place."""
        return self._places[tuple(map(str, pointer))]

    def target(self, place: Place) -> Place:
        """Find what a place's `$ref` means.

        Raises:
            InvalidParameter: it means no schema in this document.
        """
        assert isinstance(place.schema, dict)
        reference: str = place.schema["$ref"]
        uri, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        # urljoin knows few schemes; a bare fragment needs none
        uri = urljoin(place.resource, uri) if uri else place.resource
        pointer = self._resources.get(uri)
        if fragment and not fragment.startswith("/"):
            pointer = self._anchors.get((uri, fragment))
        found = None
        if pointer is not None:
            steps = fragment.split("/")[1:]
            names = [step.replace("~1", "/").replace("~0", "~") for step in steps]
            found = self._places.get((*map(str, pointer), *names))
        if found is None:
            limit = "a reference to a schema inside this one"
            raise self.refused(place.pointer, reference, limit, "$ref")
        return found

    def refused(
        self, pointer: Pointer, value: object, limit: str, *more: str | int
    ) -> InvalidParameter:
        """Make the error that blames a place, or something in it."""
        return InvalidParameter(place_of(self.field, pointer + more), value, limit)

    def _read(
        self, schema: object, pointer: Pointer, written: Pointer, resource: str, depth: int
    ) -> None:
        """Check one schema and those inside it, and note where they are."""
        if not isinstance(schema, dict | bool):
            raise self.refused(pointer, schema, "a schema: an object, true or false")
        if depth > MAX_NESTING:
            limit = f"at most {MAX_NESTING} schemas inside each other"
            raise self.refused(pointer, schema, limit)
        if isinstance(schema, dict):
            resource = self._identify(schema, pointer, resource)
        self._places[tuple(map(str, pointer))] = Place(schema, pointer, written, resource)
        if isinstance(schema, bool):
            return
        if unknown := sorted(filter(self._unknown, schema.keys() - _KNOWN)):
            limit = f"no keyword that can't be enforced, as {', '.join(unknown[:5])}"
            raise self.refused(pointer, schema, limit)
        for key in (key for key in schema if key in PARTS):
            for steps, steps_written, part in self._parts(key, schema[key], pointer):
                self._read(part, pointer + steps, written + steps_written, resource, depth + 1)
        self._check_values(schema, pointer)

    def _unknown(self, keyword: str) -> bool:
        """Whether a keyword that isn't followed may mean something for what is valid."""
        if keyword in UNENFORCED:
            return True
        return not (self._annotated or keyword.startswith("x-") or keyword in _FOREIGN)

    def _parts(
        self, key: str, value: object, pointer: Pointer
    ) -> Iterator[tuple[Pointer, Pointer, object]]:
        """Give the schemas that a keyword holds, with the way to them."""
        if key in HOLDS_NAMED:
            if not isinstance(value, dict):
                raise self.refused(pointer, value, "an object of schemas", key)
            for name, part in value.items():
                written = name
                if key == "patternProperties":
                    written = self.translated((*pointer, key), name, name).text
                yield (key, name), (key, written), part
        elif isinstance(value, list):  # `items` too, before draft 2020-12
            for index, part in enumerate(value):
                yield (key, index), (key, index), part
        elif key in HOLDS_ONE:
            yield (key,), (key,), value
        else:
            raise self.refused(pointer, value, "a list of schemas", key)

    def translated(self, pointer: Pointer, pattern: str, *more: str) -> Translated:
        """Translate a pattern.

        Raises:
            InvalidParameter: it can't be.
        """
        try:
            translation = translate(pattern)
        except PatternError as error:
            raise self.refused(pointer, pattern, str(error), *more) from error
        if translation.least > MAX_LEAST:
            limit = f"a pattern whose shortest match has at most {MAX_LEAST} characters"
            raise self.refused(pointer, pattern, limit, *more)
        return translation

    def _identify(self, schema: dict[str, Any], pointer: Pointer, resource: str) -> str:
        """Note the names of a schema; return the URI that references in it are relative to."""
        if self._old and "$ref" in schema:
            return resource
        identifier = schema.get("id" if self._draft_4 else "$id")
        if isinstance(identifier, str):
            uri, _, fragment = identifier.partition("#")
            if uri:
                resource = urljoin(resource, uri)
                self._resources[resource] = pointer
            if fragment:
                self._anchors[resource, fragment] = pointer
        anchor = schema.get("$anchor")
        if isinstance(anchor, str):
            self._anchors[resource, anchor] = pointer
        return resource

    def _check_values(self, schema: dict[str, Any], pointer: Pointer) -> None:
        for key in schema.keys() & SHAPES.keys():
            fits, expected = SHAPES[key]
            if not fits(schema[key]):
                raise self.refused(pointer, schema[key], expected, key)
        for key in ("minItems", "minLength", "minProperties"):
            if schema.get(key, 0) > MAX_LEAST:
                raise self.refused(pointer, schema[key], f"at most {MAX_LEAST}", key)
        if len(schema.get("properties", ())) > MAX_OPTIONAL:
            optional = schema["properties"].keys() - set(schema.get("required", ()))
            if len(optional) > MAX_OPTIONAL:
                limit = f"at most {MAX_OPTIONAL} that are not required"
                raise self.refused(pointer, f"{len(optional)} optional ones", limit, "properties")
        # Keys beyond `properties` may come twice in the grammar, and twice the same key is one.
        named = len(set(schema.get("required", ())))
        if schema.get("minProperties", 0) > named + 1:
            limit = f"at most one more than `required` names ({named})"
            raise self.refused(pointer, schema["minProperties"], limit, "minProperties")
