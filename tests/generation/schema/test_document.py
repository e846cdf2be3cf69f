import pytest

from app.errors import InvalidParameter
from app.generation.json_size import MAX_LEVELS, json_size
from app.generation.schema.document import MAX_CHARACTERS, Document
from tests.generation.test_structured import compiled, nested_list, takes

NUMBER = {"type": "integer"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": NUMBER}},
        {"$ref": "#/$defs/a~1b~0c%20d%25", "$defs": {"a/b~c d%": NUMBER}},
        {"$ref": "#/$defs/é", "$defs": {"é": NUMBER}},
        {"$ref": "#/$defs/0/anyOf/1", "$defs": {"0": {"anyOf": [{}, NUMBER]}}},
        {
            "$ref": r"#/$defs/a/patternProperties/%5Cd",
            "$defs": {"a": {"patternProperties": {r"\d": NUMBER}}},
        },
        {"$ref": "#x", "$defs": {"a": {"$anchor": "x", **NUMBER}}},
        {"$ref": "s", "$id": "http://e.com/r", "$defs": {"a": {"$id": "s", **NUMBER}}},
        {"$ref": "http://e.com/s", "$id": "http://e.com/r", "$defs": {"a": {"$id": "s", **NUMBER}}},
        {"$ref": "urn:a:b#/$defs/a", "$id": "urn:a:b", "$defs": {"a": NUMBER}},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"$id": "s", "$ref": "#/$defs/b", "$defs": {"b": NUMBER}}, "b": {}},
        },
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#x",
            "definitions": {"a": {"$id": "#x", **NUMBER}},
        },
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "$ref": "#x",
            "definitions": {"a": {"id": "#x", **NUMBER}},
        },
    ],
)
def test_a_reference_finds_its_schema(schema):
    assert takes(compiled(schema), "7")
    assert not takes(compiled(schema), '"a"')


@pytest.mark.parametrize(
    "reference",
    [
        "#/$defs/b",
        "#/$defs/a/x",
        "#/default",
        "#/$defs/a/enum/0",
        "#b",
        "b",
        "https://json-schema.org/draft/2020-12/schema",
    ],
)
def test_a_reference_to_what_is_no_schema_here_is_refused(reference):
    schema = {"items": {"$ref": reference}, "$defs": {"a": {"enum": [{}]}}, "default": {}}
    with pytest.raises(InvalidParameter, match="inside this one") as refused:
        compiled(schema)
    assert refused.value.field == "response_format.items.$ref"


class Untouched(list):
    """A list that nobody may look into."""

    def __iter__(self):
        raise AssertionError("looked into")


def test_what_is_too_large_is_not_looked_into():
    untouched = Untouched([0] * MAX_CHARACTERS)
    for schema in ({"enum": untouched}, {"enum": ["x" * MAX_CHARACTERS, [untouched]]}):
        with pytest.raises(InvalidParameter, match=f"at most {MAX_CHARACTERS} characters"):
            Document(schema, "field")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("abc", 5),
        (True, 4),
        (None, 4),
        (12.5, 4),
        ([], 2),
        ([1, "a"], 8),
        ({"a": {"b": [1]}}, 18),
    ],
)
def test_the_size_of_a_value_is_about_that_of_its_json(value, size):
    assert json_size(value, 1000) == size


def test_what_is_nested_too_deeply_is_too_large():
    assert json_size(nested_list(MAX_LEVELS - 1), 1000) < 1000
    assert json_size(nested_list(MAX_LEVELS), 1000) > 1000
    assert json_size(nested_list(100_000), 1000) > 1000


def test_a_place_in_a_message_stays_short():
    with pytest.raises(InvalidParameter) as refused:
        Document({"properties": {"x" * 1000: 3}}, "field")
    assert len(refused.value.field) == 250
