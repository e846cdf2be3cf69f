import json
import math
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.errors import InvalidParameter
from app.generation.schema.numbers import bounds
from tests.generation.test_structured import compiled, numbers, takes, wander

BIG = 1234567890123456789


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"const": 2**53}, "9007199254740992"),
        ({"const": -(2**60)}, "-1152921504606846976"),
        ({"const": 10**18}, "1000000000000000000"),
        ({"const": 10**20}, "100000000000000000000"),
        ({"const": 1e23}, "100000000000000000000000"),
        ({"const": 0.1}, "0.1"),
        ({"const": -1.25e-7}, "-0.000000125"),
        ({"const": 3.141592653589793}, "3.141592653589793"),
    ],
)
def test_a_constant_that_comes_through_is_written_as_it_is(schema, text):
    assert Decimal(text) == Decimal(repr(schema["const"]))
    assert wander(compiled(schema), 0) == text


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"enum": [BIG]}, "enum"),
        ({"const": BIG}, "const"),
        ({"const": 2**64 + 1}, "const"),
        ({"const": 2**63}, "const"),
        ({"const": [1, {"a": BIG}]}, "const"),
        ({"const": 222.20568140857802}, "const"),
        ({"type": "integer", "const": 10**20}, "const"),
        ({"minimum": 2**64, "maximum": 2**65}, "minimum"),
        ({"type": "integer", "exclusiveMinimum": 2**63}, "exclusiveMinimum"),
        ({"type": "number", "maximum": -1e19}, "maximum"),
        ({"minimum": 2**53 + 1, "maximum": 2**53 + 1}, "minimum"),
    ],
)
def test_a_number_that_would_change_is_refused_by_its_place(schema, where):
    with pytest.raises(InvalidParameter) as refused:
        compiled({"type": "array", "items": schema})
    assert refused.value.field == f"response_format.items.{where}"


@pytest.mark.parametrize(
    ("schema", "taken", "not_taken"),
    [
        ({"type": "integer", "minimum": BIG}, ["1234567890123457024"], [str(BIG - 1)]),
        ({"type": "integer", "maximum": BIG}, ["1234567890123456768"], [str(BIG + 1)]),
        ({"type": "integer", "maximum": 2**64 - 1}, ["18446744073709551"], [str(2**64)]),
        ({"type": "integer", "minimum": -(2**63)}, ["-1", "9"], [str(-(2**63) - 1)]),
        ({"type": "integer", "minimum": 10**18}, [str(10**18)], [str(10**18 - 1)]),
        ({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 4}, ["3"], ["2", "4"]),
        ({"type": "integer", "exclusiveMinimum": 2.5}, ["3"], ["2"]),
        ({"exclusiveMinimum": 1, "maximum": 1.5}, ["1.1"], ["1", "1.0"]),
        ({"exclusiveMaximum": 2}, ["1.99999999999999"], ["2", "1.99999999999999999999"]),
        ({"type": "number", "exclusiveMinimum": 0}, ["0.0001"], ["0", "0.0", "-1"]),
        ({"type": "number", "exclusiveMaximum": 0}, ["-0.0001"], ["0", "-0.0", "1"]),
        ({"type": "number", "maximum": 1e300}, ["7.5", "9223372036854774000"], []),
        ({"minimum": 3, "exclusiveMinimum": True}, ["3.1"], ["3"]),
        ({"minimum": 5, "exclusiveMinimum": 2}, ["5"], ["4"]),
    ],
)
def test_a_bound_holds_to_the_last_digit(schema, taken, not_taken):
    for text in taken:
        assert takes(compiled(schema), text), text
    for text in not_taken:
        assert not takes(compiled(schema), text), text


@given(
    st.dictionaries(
        st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
        numbers,
        min_size=1,
    ),
    st.booleans(),
)
def test_bounds_only_ever_move_inwards(schema, integers):
    try:
        written = bounds(schema, integers=integers)
    except ValueError:
        assume(False)
    assume(written != {"minimum": 1, "maximum": 0})
    for keyword, sign in (("minimum", 1), ("maximum", -1)):
        if keyword not in written:
            continue
        moved = Decimal(repr(written[keyword])) * sign
        if abs(moved) == 2**63 - 1024:  # clamped
            continue
        if keyword in schema:
            assert moved >= Decimal(repr(schema[keyword])) * sign
        if f"exclusive{keyword.capitalize()}" in schema:
            assert moved > Decimal(repr(schema[f"exclusive{keyword.capitalize()}"])) * sign


def test_bounds_without_a_number_between_them_leave_the_other_types():
    schema = {"type": ["number", "null"], "minimum": 10**30, "maximum": 3}
    assert wander(compiled(schema), 0) == "null"
    with pytest.raises(InvalidParameter, match="Unsatisfiable"):
        compiled({"type": "integer", "minimum": 2.5, "maximum": 2.6})


def test_multiples_whose_product_overflows_are_refused_only_where_they_meet():
    apart = {"a": {"multipleOf": 65537}, "b": {"multipleOf": 65539}}
    assert compiled({"type": "object", "properties": apart})
    with pytest.raises(InvalidParameter, match="smaller common multiple"):
        compiled({"allOf": [{"type": "integer", "multipleOf": 65537}, {"multipleOf": 65539}]})
    both = {"allOf": [{"type": "integer", "multipleOf": 6}, {"multipleOf": 4}], "minimum": 1}
    assert int(wander(compiled(both), 3)) % 12 == 0


def test_no_float_is_written_as_another_one():
    """All of 300 of every size: some that the library's reader of decimals gets wrong."""
    refused = 0
    for index in range(300):
        value = math.ldexp(0.5 + index * 0.00166089, index % 80 - 40)
        try:
            text = wander(compiled({"const": value}), 0)
        except InvalidParameter:
            refused += 1
        else:
            assert json.loads(text) == value
    assert 5 < refused < 100
