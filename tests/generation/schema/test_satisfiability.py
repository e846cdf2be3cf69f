import pytest

from app.errors import InvalidParameter
from app.generation.schema import satisfiability
from tests.generation.test_structured import compiled, takes

LIST = {"type": "object", "properties": {"next": {"$ref": "#/$defs/list"}}, "required": ["next"]}
TREE = {"type": "array", "items": {"$ref": "#/$defs/tree"}, "minItems": 1}


APART = [{"properties": {"a": {"$ref": "#"}}}, {"type": "object", "required": ["a"]}]


def with_definitions(**schema):
    return {**schema, "$defs": {"list": LIST, "tree": TREE}}


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "properties.a"),
        (with_definitions(**{"$ref": "#/$defs/list"}), ""),
        (with_definitions(**{"$ref": "#/$defs/tree"}), ""),
        (with_definitions(anyOf=[{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/list"}]), "anyOf[0]"),
        ({"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 2}, "prefixItems[1]"),
        ({"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["a"]}, "addit"),
        (
            {
                "allOf": [
                    {"properties": {"a": {"$ref": "#"}}},
                    {"type": "object", "required": ["a"]},
                ]
            },
            "all",
        ),
    ],
)
def test_a_reference_that_never_comes_to_an_end_is_refused_by_its_place(schema, where):
    with pytest.raises(InvalidParameter, match="comes to an end") as refused:
        compiled(schema)
    assert refused.value.field.startswith(f"response_format.{where}".rstrip("."))
    assert refused.value.field.endswith("$ref")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, '{"a": {"a": {}}}'),
        (
            {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            '{"a": {"a": null}}',
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
                "required": ["a"],
            },
            '{"a": {"a": null}}',
        ),
        ({"type": "array", "items": {"$ref": "#"}}, "[[], [[]]]"),
        ({"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 1}, "[1]"),
        ({"type": "object", "patternProperties": {"^a": {"$ref": "#"}}}, '{"a": {}}'),
    ],
)
def test_a_reference_that_may_come_to_an_end_is_followed(schema, text):
    assert takes(compiled(schema), text)


def test_what_has_no_end_is_not_offered_beside_what_has():
    schema = with_definitions(
        type="object", properties={"x": {"$ref": "#/$defs/list"}, "y": {"type": "null"}}
    )
    assert takes(compiled(schema), '{"y": null}')
    assert not takes(compiled(schema), '{"x": ')
    either = with_definitions(anyOf=[{"$ref": "#/$defs/list"}, {"type": "null"}])
    assert takes(compiled(either), "null")
    assert not takes(compiled(either), "{")


def test_a_value_that_json_cannot_write_here_is_refused_or_left_out():
    for value in ("\x01", "\x7f", ["a", {"b": "\x1f"}]):
        with pytest.raises(InvalidParameter, match="without"):
            compiled({"const": value})
        assert takes(compiled({"enum": [value, "a\n"]}), r'"a\n"')
        referring = {
            "type": "array",
            "items": {"$ref": "#/$defs/v"},
            "$defs": {"v": {"const": value}},
        }
        assert takes(compiled(referring), "[]")
    assert takes(compiled({"const": {"\x01": 1}}), r'{"\u0001": 1}'), "names have escapes"


def test_a_tangle_too_large_to_survey_is_taken_to_end(monkeypatch):
    monkeypatch.setattr(satisfiability, "_MAX_STEPS", 3)
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(50)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**chain, "d50": {"type": "null"}}}
    assert takes(compiled(schema), "null")
