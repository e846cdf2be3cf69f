import asyncio
import json
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, Request, Response, post
from msgspec import Meta

from app.dialects.kit import body_size
from app.dialects.kit.body import read_object, takes, to_record
from app.errors import InvalidParameter, RequestError, UnknownParameter
from tests.asgi_client import ask


class Inner(msgspec.Struct):
    role: Literal["user", "system"]
    text: Annotated[str, Meta(min_length=1)]


class Sample(msgspec.Struct, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=5)]
    count: Annotated[int, Meta(ge=1, le=10)] = 3
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    flag: bool = False
    note: str | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(max_length=2)] = []
    inner: Annotated[list[Inner], Meta(min_length=1)] | None = None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count is 0, expected integer >= 1 and <= 10"),
        ({"count": 10**400}, "expected integer >= 1 and <= 10"),
        ({"count": True}, "count is True, expected integer"),
        ({"count": 2.5}, "count is 2.5, expected integer"),
        ({"share": 1}, "share is 1, expected number > 0 and < 1"),
        ({"share": 10**400}, "expected number > 0 and < 1"),
        ({"share": "0.5"}, "share is '0.5', expected number"),
        ({"name": ""}, "name is '', expected string, length >= 1 and length <= 5"),
        ({"name": None}, "name is missing, expected string"),
        ({"flag": 1}, "flag is 1, expected boolean"),
        ({"stop": 5}, "stop is 5, expected string, length >= 1 or array of string, length <= 2"),
        ({"stop": ["a", 5]}, "stop[1] is 5, expected string"),
        ({"stop": ["a", "b", "c"]}, "stop is ['a', 'b', 'c'], expected string, length >= 1 or"),
        ({"inner": []}, "inner is [], expected array of object, length >= 1"),
        ({"inner": ["a"]}, "inner[0] is 'a', expected object"),
        (
            {"inner": [{"role": "robot", "text": "a"}]},
            "inner[0].role is 'robot', expected 'system' or 'user'",
        ),
        ({"inner": [{"role": "user", "text": None}]}, "inner[0].text is None, expected string"),
        ({"inner": [{"role": "user"}]}, "inner[0].text is missing, expected string, length >= 1"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_limit(fields, message):
    with pytest.raises(InvalidParameter) as refused:
        to_record({"name": "n", **fields}, Sample)
    assert message in refused.value.message


def test_null_is_the_default_and_unknown_fields_are_ignored():
    nulls = dict.fromkeys(("count", "share", "flag", "note", "stop", "inner", "unknown"))
    assert to_record({"name": "n", **nulls, "other": [1]}, Sample) == Sample(name="n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
messages = st.fixed_dictionaries({}, optional={"role": json_values, "text": json_values})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(Sample.__struct_fields__, json_values),
            "inner": st.lists(messages, max_size=2) | json_values,
        },
    )
)
def test_any_json_is_a_record_or_a_refusal_of_one_of_its_fields(body):
    outcome = record_or_refusal(body)
    if isinstance(outcome, InvalidParameter):
        assert outcome.field.split("[")[0].split(".")[0] in Sample.__struct_fields__
        assert len(outcome.message) < 300
    else:
        assert msgspec.convert(msgspec.to_builtins(outcome), Sample) == outcome


def record_or_refusal(body: dict) -> Sample | InvalidParameter:
    try:
        return to_record(body, Sample)
    except InvalidParameter as refused:
        return refused


@post("/echo", status_code=200, operation_class=takes(Sample))
async def echo(request: Request) -> Response:
    try:
        return Response(await read_object(request))
    except InvalidParameter as refused:
        return Response({"detail": refused.message}, status_code=400)


app = Litestar([echo])
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "body is '', expected a JSON object"),
        (b"{", "body is '{', expected a JSON object"),
        (b'{"a": NaN}', "expected a JSON object (JSON is malformed: invalid character"),
        (b'{"a": 1e999}', "expected a JSON object (Number out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected a JSON object (Integer value out of range"),
        (b'"text"', "body is '\"text\"', expected a JSON object"),
        (b"[1]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b'{"a": "\\ud800"}', "expected a JSON object"),
        (b'{"a":' * 20_000, "expected JSON that is nested less deeply"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(raw, message):
    answer = await ask(app, "POST", "/echo", raw=raw, headers=JSON)
    assert answer.status == 400
    assert message in answer.json["detail"]
    assert len(answer.body) < 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_another_content_type_is_refused(content_type):
    headers = {"content-type": content_type} if content_type else {}
    answer = await ask(app, "POST", "/echo", raw=b"{}", headers=headers)
    assert answer.status == 400
    assert "expected application/json" in answer.json["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_a_content_type_with_a_parameter_is_json(content_type):
    answer = await ask(app, "POST", "/echo", raw=b'{"a":1}', headers={"content-type": content_type})
    assert (answer.status, answer.json) == (200, {"a": 1})


def test_the_openapi_document_shows_the_limits_that_are_checked():
    body = app.openapi_schema.to_schema()["paths"]["/echo"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["name"]
    fields = schema["properties"]
    assert fields["count"] == {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": 10,
        "default": 3,
    }
    assert fields["name"]["type"] == "string", "a required field is not null"
    assert {"type": "null"} in fields["stop"]["anyOf"]
    assert "$ref" not in str(schema), "references would point nowhere in the document"


class StrictInner(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["a", "b"] = "a"


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    inner: StrictInner | None = None
    bias: dict[str, Annotated[int, Meta(le=5)]] = {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"other": 1}, "other"),
        ({"inner": {"other": 1}}, "inner.other"),
        ({"x` - at `$.y": 1}, "y.x"),
        ({"": 1}, ""),
    ],
)
def test_a_record_may_forbid_unknown_fields(body, field):
    with pytest.raises(UnknownParameter) as refused:
        to_record(body, Strict)
    assert refused.value.field == field


def test_a_value_that_looks_like_a_path_is_no_path():
    with pytest.raises(InvalidParameter) as refused:
        to_record({"inner": {"kind": "x` - at `$.y`"}}, Strict)
    assert refused.value.field == "inner.kind"


def test_the_limits_of_a_mappings_values_are_told():
    with pytest.raises(InvalidParameter) as refused:
        to_record({"bias": {"a": 6}}, Strict)
    assert refused.value.message == "bias is {'a': 6}, expected object of integer <= 5"


class Named(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^a+$")]
    deep: dict[str, list[Annotated[int, Meta(le=5)]]] = {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "name is missing, expected string matching ^a+$"),
        ({"name": "b"}, "name is 'b', expected string matching ^a+$"),
        ({"name": "a", "more": 1}, "unrecognized request argument: 'more'"),
        (
            {"name": "a", "deep": {"x": [6]}},
            "deep is {'x': [6]}, expected object of array of integer <= 5",
        ),
    ],
)
def test_every_form_of_msgspecs_messages_is_understood(body, told):
    with pytest.raises((InvalidParameter, UnknownParameter)) as refused:
        to_record(body, Named)
    assert refused.value.message == told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('",[]{}\\a', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('",[]{}\\a'), inner),
    max_leaves=20,
)


def weight(value: object) -> int:
    """A comma between values, and eight for each array and object."""
    if not isinstance(value, list | dict):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 8 + max(0, len(inner) - 1) + sum(map(weight, inner))


@given(json_values, st.integers(1, 60), st.integers(1, 9))
def test_values_are_counted_outside_strings_alone(value, enough, slice_bytes):
    raw = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_size, "_SLICE_BYTES", slice_bytes)
        counted = asyncio.run(body_size.num_values(raw, enough))
    assert (counted > enough) is (weight(value) > enough)


async def test_a_body_of_too_many_values_is_refused_undecoded():
    raw = b'{"a": [' + b"[]," * 30_000 + b"[]]}"
    answer = await ask(app, "POST", "/echo", raw=raw, headers=JSON)
    assert answer.status == 400
    expected = "at most 200000 values, an array or object counting as 8"
    assert expected in answer.json["detail"]
    text = b'{"a": "' + b"[,{" * 100_000 + b'"}'
    assert (await ask(app, "POST", "/echo", raw=text, headers=JSON)).status == 200


class First(msgspec.Struct, tag_field="type", tag="first", forbid_unknown_fields=True):
    a: Annotated[int, Meta(ge=1)]


class Second(msgspec.Struct, tag_field="type", tag="second", forbid_unknown_fields=True):
    b: str


class EitherOrWord(msgspec.Struct):
    choice: First | Second | Literal["auto"] = "auto"


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"a": 1}, "choice.type is missing, expected 'first' or 'second'"),
        ({"type": "third"}, "choice.type is 'third', expected 'first' or 'second'"),
        ({"type": "first", "a": 0}, "choice.a is 0, expected integer >= 1"),
        ({"type": "second"}, "choice.b is missing, expected string"),
    ],
)
def test_a_record_of_a_union_is_told_by_what_distinguishes_it(choice, told):
    with pytest.raises(RequestError) as refused:
        to_record({"choice": choice}, EitherOrWord)
    assert str(refused.value) == told
