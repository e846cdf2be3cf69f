"""Find the schemas that no text satisfies: they require themselves inside, or can't be written.

What is found has no text for certain; what contradicts itself in another way is not looked for.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from app.generation.schema.characters import writable
from app.generation.schema.document import Document, Place, Pointer

_MAX_STEPS: Final = 5_000
"""Schemas looked at, some 20 ms; the rest of a larger tangle is taken to come to an end."""
_SCALARS: Final = {"string", "number", "integer", "boolean", "null"}
_TYPES: Final = _SCALARS | {"array", "object"}


class _Question(msgspec.Struct, frozen=True):
    """Whether a finite value satisfies all of some schemas at once."""

    schemas: frozenset[Pointer]
    chosen: frozenset[Pointer] = frozenset()
    """Where branches of anyOf and oneOf have been chosen; they are asked about one at a time."""


_Needs = frozenset[_Question]
_Clauses = list[list[_Needs]]
"""Yes, if in each clause there is one set of needs whose questions are all answered with yes."""


def unsatisfiable(document: Document) -> set[Pointer]:
    """Find the schemas of a document that no finite text satisfies.

    Raises:
        InvalidParameter: a reference means nothing in the document.
    """
    targets = {
        place.pointer: document.target(place)
        for place in document.places
        if "$ref" in _keywords(place)
    }
    if not targets:
        return {place.pointer for place in document.places if not _can_be_written(_keywords(place))}
    questions = {place.pointer: _Question(frozenset({place.pointer})) for place in document.places}
    answers = _Survey(document, targets).answers(list(questions.values()))
    return {pointer for pointer, question in questions.items() if question not in answers}


def may_be_written(value: object) -> bool:
    r"""Whether JSON writes all strings in a value without \u escapes; the names may have them."""
    if isinstance(value, dict):
        return all(map(may_be_written, value.values()))
    if isinstance(value, list):
        return all(map(may_be_written, value))
    return not isinstance(value, str) or writable(value)


class _Survey:
    """Asks about the schemas of one document."""

    def __init__(self, document: Document, targets: dict[Pointer, Place]) -> None:
        self._document = document
        self._targets = targets
        self._steps = 0

    def answers(self, questions: list[_Question]) -> set[_Question]:
        """Give the questions that are answered with yes, among them those asked on the way."""
        clauses: dict[_Question, _Clauses] = {}
        waiting = questions[::-1]
        while waiting:
            question = waiting.pop()
            if question not in clauses:
                clauses[question] = [] if self._steps > _MAX_STEPS else self._clauses(question)
                waiting += [q for clause in clauses[question] for needs in clause for q in needs]
        return _derived(clauses)

    def _clauses(self, question: _Question) -> _Clauses:
        places = self._together(question.schemas)
        schemas = [place.schema for place in places if isinstance(place.schema, dict)]
        if not all(map(_can_be_written, schemas)):
            return [[]]
        types = _types(schemas)
        if not types or any("const" in schema or "enum" in schema for schema in schemas):
            return []
        clauses: _Clauses = []
        if not types & _SCALARS:
            kinds = (("array", self._items), ("object", self._properties))
            clauses.append([frozenset(needs(places)) for kind, needs in kinds if kind in types])
        together = frozenset(place.pointer for place in places)
        chosen = question.chosen | together
        for place in places:
            for key in ("anyOf", "oneOf"):
                if place.pointer in question.chosen or key not in _keywords(place):
                    continue
                branches = [(*place.pointer, key, i) for i in range(len(_keywords(place)[key]))]
                clauses.append(
                    [frozenset({_Question(together | {branch}, chosen)}) for branch in branches]
                )
        return clauses

    def _together(self, pointers: frozenset[Pointer]) -> list[Place]:
        """Find all schemas that hold where some do, through allOf and $ref."""
        found: dict[Pointer, Place] = {}
        waiting = list(pointers)
        while waiting:
            pointer = waiting.pop()
            if pointer in found:
                continue
            self._steps += 1
            place = found[pointer] = self._document.at(*pointer)
            if pointer in self._targets:
                waiting.append(self._targets[pointer].pointer)
            count = len(_keywords(place).get("allOf", ()))
            waiting += [(*pointer, "allOf", index) for index in range(count)]
        return list(found.values())

    def _items(self, places: list[Place]) -> Iterator[_Question]:
        """Ask about the items that a list must have."""
        schemas = [_keywords(place) for place in places]
        least = max(int(schema.get("minItems", 0)) for schema in schemas)
        longest = max(len(_first_items(schema)[1]) for schema in schemas)
        for index in range(min(least, longest + 1)):
            pointers = set()
            for place, schema in zip(places, schemas, strict=True):
                key, first = _first_items(schema)
                if index < len(first):
                    pointers.add((*place.pointer, key, index))
                elif "items" in schema and key != "items":
                    pointers.add((*place.pointer, "items"))
            if pointers:
                yield _Question(frozenset(pointers))

    def _properties(self, places: list[Place]) -> Iterator[_Question]:
        """Ask about the properties that an object must have."""
        for name in {name for place in places for name in _keywords(place).get("required", ())}:
            pointers = set()
            for place in places:
                schema = _keywords(place)
                if name in schema.get("properties", {}):
                    pointers.add((*place.pointer, "properties", name))
                elif "additionalProperties" in schema and "patternProperties" not in schema:
                    pointers.add((*place.pointer, "additionalProperties"))
            if pointers:
                self._steps += len(places)
                yield _Question(frozenset(pointers))


def _derived(clauses: dict[_Question, _Clauses]) -> set[_Question]:
    """Answer from the certain to what follows; what only follows from itself is not answered.

    Source: Dowling and Gallier, Linear-time algorithms for testing the satisfiability of
    propositional Horn formulae, 1984.
    """
    open_clauses = {question: set(range(len(clauses[question]))) for question in clauses}
    lacking: list[int] = []
    """For each set of needs, how many have no answer yet."""
    owners: list[tuple[_Question, int]] = []
    """For each set of needs, its question and which clause."""
    needed_in: dict[_Question, list[int]] = {}
    for question, its_clauses in clauses.items():
        for number, clause in enumerate(its_clauses):
            for needs in clause:
                for need in needs:
                    needed_in.setdefault(need, []).append(len(lacking))
                if not needs:
                    open_clauses[question].discard(number)
                lacking.append(len(needs))
                owners.append((question, number))
    answered: set[_Question] = set()
    waiting = [question for question, open_ in open_clauses.items() if not open_]
    while waiting:
        question = waiting.pop()
        if question in answered:
            continue
        answered.add(question)
        for index in needed_in.get(question, ()):
            lacking[index] -= 1
            if not lacking[index]:
                owner, number = owners[index]
                open_clauses[owner].discard(number)
                if not open_clauses[owner]:
                    waiting.append(owner)
    return answered


def _keywords(place: Place) -> dict[str, Any]:
    return place.schema if isinstance(place.schema, dict) else {}


def _can_be_written(schema: dict[str, Any]) -> bool:
    """Whether a value of the schema's const or enum, if it has one, can be written."""
    values = schema.get("enum", [None])
    can_be = not values or any(map(may_be_written, values))
    return can_be and may_be_written(schema.get("const"))


def _first_items(schema: dict[str, Any]) -> tuple[str, list[Any]]:
    """Give the schemas of a list's first items, and the keyword that holds them."""
    if isinstance(schema.get("items"), list):
        return "items", schema["items"]
    return "prefixItems", schema.get("prefixItems", [])


def _types(schemas: list[dict[str, Any]]) -> set[str]:
    """Give the types that a value of all these schemas may have."""
    types = set(_TYPES)
    for schema in schemas:
        named = schema.get("type", list(_TYPES))
        named = {named} if isinstance(named, str) else set(named)
        types &= named | ({"integer"} if "number" in named else set())
    return types
