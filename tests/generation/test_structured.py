import asyncio
import gc
import json
import random
import resource
import time
import weakref

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.catalog.check_schemas import CPU_S
from app.catalog.grammars import Grammar, GrammarConstraint, Grammars
from app.contract.generation import JsonObject, JsonSchema
from app.errors import EngineFailure, InvalidParameter
from app.generation.structured import MAX_LEAST, MAX_NESTING, response_grammar
from tests.fakes import BYTES, EOS_ID, byte_ids
from tests.generation.test_detokenizer import DEFAULT_MODEL, TOKENIZERS, default_tokenizer

VOCAB = 258
GRAMMARS = Grammars(BYTES, VOCAB, (EOS_ID,))
CLOSING = [*byte_ids('"}]'), EOS_ID]

short_text = st.text(st.sampled_from('ab "\\/é🦊\n'), max_size=4)
names = st.sampled_from(["a", "b", "key", "é", "x y", 'q"'])
constants = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), short_text, st.lists(st.booleans())
)


def objects(inner: st.SearchStrategy) -> st.SearchStrategy:
    @st.composite
    def build(draw: st.DrawFn) -> dict:
        properties = draw(st.dictionaries(names, inner, max_size=4))
        schema = {"type": "object", "properties": properties}
        if properties:
            schema["required"] = draw(st.lists(st.sampled_from(list(properties)), unique=True))
        schema["additionalProperties"] = draw(st.booleans() | inner)
        if draw(st.booleans()):
            schema["maxProperties"] = len(properties) + draw(st.integers(0, 2))
        return schema

    return build()


def arrays(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner, "maxItems": st.integers(2, 4)},
        optional={"minItems": st.integers(0, 2), "prefixItems": st.lists(inner, min_size=1)},
    )


leaves = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "null", "boolean", "integer"])}),
    st.fixed_dictionaries(
        {"type": st.just("string"), "minLength": st.integers(0, 3), "maxLength": st.integers(3, 6)}
    ),
    st.fixed_dictionaries(
        {"type": st.just("string"), "pattern": st.sampled_from(["^[a-c]{2,5}$", "x|y", r"^\d+$"])}
    ),
    st.fixed_dictionaries(
        {"type": st.just("integer"), "minimum": st.integers(-99, 5)},
        optional={"exclusiveMaximum": st.integers(20, 99), "multipleOf": st.integers(1, 9)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("number"), "minimum": st.integers(-5, 5)},
        optional={"maximum": st.floats(6, 99)},
    ),
    st.fixed_dictionaries({"const": constants}),
    st.fixed_dictionaries({"enum": st.lists(constants, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"type": st.just(["string", "null"])}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        objects(inner),
        arrays(inner),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"$defs": st.fixed_dictionaries({"d": inner})}).map(
            lambda schema: {
                **schema,
                "type": "array",
                "items": {"$ref": "#/$defs/d"},
                "maxItems": 2,
            }
        ),
    ),
    max_leaves=6,
)


def compiled(schema: dict) -> GrammarConstraint:
    """Without the process that checks first: it costs 0.1 s."""
    return GRAMMARS._compile(response_grammar(JsonSchema(schema)))


def allowed(constraint: GrammarConstraint, vocab: int = VOCAB) -> np.ndarray:
    mask = np.zeros((vocab + 31) // 32, np.int32)
    constraint.fill_mask(mask)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def wander(constraint: GrammarConstraint, seed: int, longest: int = 2000) -> str | None:
    """A text of random bytes that the constraint takes; None: it came to no end."""
    rng = random.Random(seed)
    said: list[int] = []
    while len(said) < longest:
        ids = allowed(constraint)
        ends = [token_id for token_id in CLOSING if token_id in ids]
        token_id = int(rng.choice(ends if ends and rng.random() < 0.5 else list(ids)))
        if token_id == EOS_ID:
            break
        said.append(token_id)
        constraint.accept(token_id)
        if constraint.ended:
            break
    else:
        return None
    return BYTES.decode(said)


def takes(constraint: GrammarConstraint, text: str) -> bool:
    for token_id in byte_ids(text):
        if token_id not in allowed(constraint):
            return False
        constraint.accept(token_id)
    return constraint.ended or EOS_ID in allowed(constraint)


async def constraint_of(schema: dict) -> GrammarConstraint:
    return await Grammars(BYTES, VOCAB, (EOS_ID,)).constraint(response_grammar(JsonSchema(schema)))


@settings(max_examples=300, deadline=None)
@given(schemas, st.integers(0, 2**32))
def test_every_finished_answer_validates(schema, seed):
    try:
        constraint = compiled(schema)
    except InvalidParameter:
        assume(False)
    text = wander(constraint, seed)
    assume(text is not None)
    jsonschema_rs.Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason="the default model is not exported")
def test_a_real_vocabulary_is_held_to_a_schema_too():
    schema = {"type": "object", "properties": {"é": {"enum": ["a🦊"]}}, "required": ["é"]}
    tokenizer = default_tokenizer()
    constraint = Grammars(tokenizer, 49_152, (2,))._compile(response_grammar(JsonSchema(schema)))
    ids = tokenizer.encode('{"é": "a🦊"}', add_special_tokens=False).ids
    assert len(ids) < 12, "tokens of several letters or this proves nothing new"
    for token_id in ids:
        assert not constraint.ended
        assert token_id in allowed(constraint, 49_152)
        constraint.accept(token_id)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_both_kinds_of_byte_vocabularies_are_held_to_a_schema(name):
    tokenizer = TOKENIZERS[name]
    vocab = tokenizer.get_vocab_size()
    grammars = Grammars(tokenizer, vocab, (tokenizer.token_to_id("</s>"),))
    constraint = grammars._compile(response_grammar(JsonSchema({"const": "é日🦊 x"})))
    said = []
    while not constraint.ended:
        said.append(int(allowed(constraint, vocab)[-1]))
        constraint.accept(said[-1])
    assert tokenizer.decode(said) == '"é日🦊 x"'


async def test_a_tokenizer_of_another_kind_is_refused_by_the_fields_name():
    grammars = Grammars(Tokenizer.from_str(_WORD_LEVEL), 3, (2,))
    with pytest.raises(InvalidParameter, match="this model's tokenizer can't be held") as refused:
        await grammars.constraint(response_grammar(JsonObject()))
    assert refused.value.field == "response_format"


_WORD_LEVEL = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2}, "unk_token": "a"},
    }
)


def test_any_object_is_an_object_and_nothing_else():
    def constraint() -> GrammarConstraint:
        return GRAMMARS._compile(response_grammar(JsonObject()))

    assert takes(constraint(), '{"a": [1, null], "b": {}}')
    for text in ("[1]", "1", '"a"', "null", " {}"):
        assert not takes(constraint(), text), text


def test_properties_come_in_the_order_of_the_schema():
    schema = {"type": "object", "properties": {"b": {}, "a": {}}, "required": ["a", "b"]}
    assert takes(compiled(schema), '{"b": 1, "a": 2}')
    assert not takes(compiled(schema), '{"a": 1, "b": 2}')


def test_white_space_comes_to_an_end():
    constraint = compiled({"type": "object"})
    for token_id in byte_ids("{\n" + 16 * " "):
        assert token_id in allowed(constraint)
        constraint.accept(token_id)
    assert not set(byte_ids(" \n\t")) & set(allowed(constraint))


def test_a_key_written_with_escapes_does_not_go_round_its_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert takes(compiled(schema), '{"a": 1}')
    for text in ('{"a": "x"}', '{"\\u0061": "x"}', '{"b": 1, "a": "x"}'):
        assert not takes(compiled(schema), text), text


def test_ended_is_said_when_nothing_can_follow_and_not_before():
    constraint = compiled({"type": "object", "maxProperties": 0})
    constraint.accept(*byte_ids("{"))
    assert not constraint.ended
    constraint.accept(*byte_ids("}"))
    assert constraint.ended
    number = compiled({"type": "integer"})
    number.accept(*byte_ids("7"))
    assert not number.ended, "more digits may follow"
    assert EOS_ID in allowed(number)
    number.accept(EOS_ID)
    assert number.ended


def test_a_refused_token_fails_by_name():
    constraint = compiled({"type": "integer"})
    with pytest.raises(EngineFailure, match="grammar failed"):
        constraint.accept(*byte_ids("x"))


def processor_s() -> float:
    """Seconds of processor time, of ended children too: others use the machine as well."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def nested(levels: int) -> dict:
    schema = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def nested_list(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


ENDLESS = {
    "patterns": {
        "allOf": [{"type": "string", "pattern": f"a.{{{i},{i + 30}}}b"} for i in range(60)]
    },
    "a large multiple": {"type": "integer", "multipleOf": 99_999_989},
}


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        ({"not": {"type": "string"}}, "", "as not"),
        ({"uniqueItems": True}, "", "as uniqueItems"),
        ({"if": {}, "then": {}}, "", "as if, then"),
        ({"type": "object", "minLenght": 3}, "", "as minLenght"),
        ({"x-guidance": {"lenient": True}}, "", "as x-guidance"),
        ({"properties": {"a": {"contains": {}}}}, ".properties.a", "as contains"),
        ({"items": [{"propertyNames": {}}]}, ".items[0]", "as propertyNames"),
        ({"anyOf": {}}, ".anyOf", "a list of schemas"),
        ({"properties": []}, ".properties", "an object of schemas"),
        ({"items": 3}, ".items", "a schema"),
        ({"type": "object", "minProperties": 2}, ".minProperties", "at most one more"),
        ({"type": "array", "minItems": 10**9}, ".minItems", f"at most {MAX_LEAST}"),
        (nested(MAX_NESTING), ".items" * MAX_NESTING, f"at most {MAX_NESTING} schemas"),
        ({"const": nested_list(5000)}, ".const", "levels of nesting"),
        ({"title": nested_list(5000)}, ".title", "levels of nesting"),
        ({"enum": ["x" * 70_000]}, "", "at most 65536 characters, not 70014"),
        ({"type": "bogus"}, "", "Invalid type: bogus"),
        ({"type": "string", "format": "bogus"}, "", "Unknown format: bogus"),
        ({"type": "string", "pattern": "(?=a)b"}, "", "look-around"),
        ({"type": "string", "pattern": "("}, "", "unclosed group"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "", "oneOf"),
        ({"$ref": "#"}, "", "nothing satisfies it"),
        ({"$ref": "#/$defs/x"}, "", "/$defs/x"),
        ({"$ref": "http://example.com/x"}, "", "example.com"),
        ({"minimum": "3"}, "", "minimum"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "", "Unsatisfiable"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "", "Unsatisfiable"),
        *((schema, "", "too much time or memory") for schema in ENDLESS.values()),
    ],
)
async def test_what_cannot_be_enforced_is_refused_by_name_and_soon(schema, field, message):
    before_s = processor_s()
    with pytest.raises(InvalidParameter) as refused:
        await constraint_of(schema)
    assert processor_s() - before_s < CPU_S + 1, "the child's limit, and what we do besides"
    assert refused.value.field == f"response_format{field}"
    assert message in refused.value.limit
    assert "x-guidance" not in str(refused.value).replace("as x-guidance", "").replace(
        "{'x-guidance'", ""
    ), "what is shown is what was sent"


async def test_a_schema_as_large_as_is_taken_compiles():
    properties = {f"field_{index}": {"type": "string"} for index in range(1900)}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    assert 60_000 < len(json.dumps(schema)) < 65_536
    await constraint_of(schema)


async def test_a_hostile_schema_holds_up_no_schema_that_is_known():
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    known = response_grammar(JsonSchema({"type": "integer"}))
    await grammars.constraint(known)
    hostile = response_grammar(JsonSchema(ENDLESS["patterns"]))
    task = asyncio.create_task(grammars.constraint(hostile))
    await asyncio.sleep(0)
    started_s = time.monotonic()
    await grammars.constraint(known)
    assert time.monotonic() - started_s < 0.3
    assert not task.done(), "both must be under way or this proves nothing"
    with pytest.raises(InvalidParameter):
        await task


async def test_a_schema_is_checked_once(monkeypatch):
    import app.catalog.grammars as module

    checked = []
    check = module._check
    monkeypatch.setattr(module, "_check", lambda texts: checked.append(texts) or check(texts))
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    for value in (1, 1, 2, 1):
        await grammars.constraint(response_grammar(JsonSchema({"const": value})))
    assert len(checked) == 2
    monkeypatch.setattr(module, "_VERDICTS", 1)
    for value in (3, 3, 1):
        await grammars.constraint(response_grammar(JsonSchema({"const": value})))
    assert len(checked) == 4, "the least recently used is forgotten"


async def test_a_text_that_uses_up_its_grammar_harms_no_other():
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    greedy = response_grammar(JsonSchema({"type": "string", "pattern": "^(.*a.{200})$"}))
    first = await grammars.constraint(greedy)
    rng = random.Random(0)

    def go_on() -> None:
        for letter in ['"', *rng.choices("ab", k=3000)]:
            allowed(first)
            first.accept(*byte_ids(letter))

    with pytest.raises(EngineFailure, match="too many states"):
        go_on()
    second = await grammars.constraint(greedy)
    assert takes(second, '"a' + 200 * "b" + '"')


async def test_nothing_is_made_before_it_is_needed_nor_kept_after_the_model():
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    assert grammars._made is None
    constraint = await grammars.constraint(response_grammar(JsonObject()))
    gone = weakref.ref(grammars)
    del grammars
    gc.collect()
    assert gone() is None, "a model that was unloaded must not stay for its grammars"
    assert len(allowed(constraint)), "what still runs goes on"


def test_a_grammar_of_our_own_that_is_wrong_is_said_so():
    with pytest.raises(InvalidParameter, match="schemas that can be enforced"):
        GRAMMARS._compile(Grammar("start: nowhere", field="tools"))
