import asyncio
import gc
import json
import os
import random
import resource
import time
import weakref
from decimal import Decimal

import hypothesis
import jsonschema_rs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.catalog.check_schemas import CPU_S
from app.catalog.grammars import _LIMITS, Grammar, GrammarConstraint, Grammars, _check
from app.contract.formats import Following, JsonObject, JsonSchema, Matching, OneOf
from app.errors import EngineFailure, InvalidParameter
from app.generation.schema.document import MAX_LEAST, MAX_NESTING
from app.generation.structured import response_grammar
from tests.fakes import BYTES, EOS_ID, byte_ids
from tests.generation.test_detokenizer import DEFAULT_MODEL, TOKENIZERS, default_tokenizer

NUM_SCHEMAS = int(os.environ.get("SCHEMAS", "300"))
"""How many random ones; `SCHEMAS_SEED` draws others."""
SEED = int(os.environ.get("SCHEMAS_SEED", "0"))

VOCAB = 258
GRAMMARS = Grammars(BYTES, VOCAB, (EOS_ID,))
CLOSING = [*byte_ids('"}]'), EOS_ID]

short_text = st.text(st.sampled_from('ab "\\/é🦊\n\x01'), max_size=4)
names = st.sampled_from(["a", "b", "key", "é", "x y", 'q"'])
# Where floats, and the library's reader of them, come to their end.
EDGES = [2**53, 2**53 + 1, 10**15 + 1, 2**63 - 1, 2**63, 2**64 + 1, 10**19, 10**400, 1e19, 1e-300]
numbers = st.one_of(
    st.integers(-9, 99),
    st.integers(-(2**70), 2**70),
    st.floats(-99, 99).map(lambda value: round(value, 3)),
    st.floats(-1e20, 1e20),
    st.sampled_from(EDGES),
    st.sampled_from(EDGES).map(lambda value: -value),
)
constants = st.one_of(
    st.none(), st.booleans(), numbers, short_text, st.lists(st.booleans() | numbers, max_size=2)
)
PATTERNS = [
    *("^[a-c]{2,5}$", "x|y", r"^\d+$", ".", r"^.{2}$", r"\s", r"^\S+$", "[^a]", "(?i)^ab$"),
    *(r"^\p{L}+$", "^$", "a|^b|c$", r"^\w{1,3}-?$", r"[\s\S]", r"\u{1F98A}?x", r"^\cJ$", r"\D"),
    *(r"^(?:a|b)*c{0,2}$", r"\W", "^.*$", "^(?<n>a)+$", r"^\/\-$", r"^[^\s\d]{3}$", "]$"),
    *(r"^(\w+\.)+com$", r"^\P{L}$", r"^\x41\u0042$", r"^\+?[1-9]\d{1,14}$", r"^[^@]+@[^@]+$"),
]
FORMATS = [
    *("date", "time", "date-time", "duration", "hostname", "email", "ipv4", "ipv6", "uuid", "uri"),
]


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
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "null", "boolean", "integer", "number"])}
    ),
    st.fixed_dictionaries(
        {"type": st.just("string"), "minLength": st.integers(0, 3), "maxLength": st.integers(3, 6)}
    ),
    st.fixed_dictionaries(
        {"type": st.just("string"), "pattern": st.sampled_from(PATTERNS)},
        optional={"minLength": st.integers(0, 3), "maxLength": st.integers(2, 9)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("string"), "format": st.sampled_from(FORMATS)},
        optional={"pattern": st.sampled_from(PATTERNS), "maxLength": st.integers(5, 40)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("integer"), "minimum": st.integers(-99, 5)},
        optional={"exclusiveMaximum": st.integers(20, 99), "multipleOf": st.integers(1, 9)},
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number", ["number", "null"]])},
        optional={
            "minimum": numbers,
            "maximum": numbers,
            "exclusiveMinimum": numbers,
            "exclusiveMaximum": numbers,
            "multipleOf": st.sampled_from([1, 3, 0.5, 0.01, 2.5, 1e-3]),
        },
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


@hypothesis.seed(SEED)
@settings(max_examples=NUM_SCHEMAS, deadline=None, database=None)
@given(schemas, st.integers(0, 2**32))
def test_every_finished_answer_validates(schema, seed):
    """With decimals as they are written, and as the floats that most readers make of them."""
    try:
        constraint = compiled(schema)
    except InvalidParameter:
        assume(False)
    try:
        text = wander(constraint, seed)
    except InvalidParameter:
        texts = [part.text for part in response_grammar(JsonSchema(schema)).schemas]
        assert _check(texts), "what dies at once is refused before"
        return
    assume(text is not None)
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    validator.validate(json.loads(text, parse_float=Decimal))
    if "e" not in text.lower():  # 1e999 is a number, but no float
        validator.validate(json.loads(text))


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
        ({"properties": {"a": {"contains": {}}}}, ".properties.a", "as contains"),
        ({"items": [{"propertyNames": {}}]}, ".items[0]", "as propertyNames"),
        ({"anyOf": {}}, ".anyOf", "a list of schemas"),
        ({"properties": []}, ".properties", "an object of schemas"),
        ({"items": 3}, ".items", "a schema"),
        ({"type": "object", "minProperties": 2}, ".minProperties", "at most one more"),
        ({"type": "array", "minItems": 10**9}, ".minItems", f"at most {MAX_LEAST}"),
        (nested(MAX_NESTING), ".items" * MAX_NESTING, f"at most {MAX_NESTING} schemas"),
        ({"const": nested_list(5000)}, "", "128 levels"),
        ({"title": nested_list(5000)}, "", "128 levels"),
        ({"anyOf": nested_list(5000)}, "", "128 levels"),
        ({"enum": ["x" * 70_000]}, "", "at most 65536 characters"),
        ({"enum": "x"}, ".enum", "a list"),
        ({"required": [1]}, ".required", "a list of strings"),
        ({"type": 3}, ".type", "a type or a list of types"),
        ({"minimum": "3"}, ".minimum", "a number"),
        ({"minLength": -1}, ".minLength", "an integer of at least 0"),
        ({"multipleOf": 0}, ".multipleOf", "above 0"),
        ({"properties": {str(i): {} for i in range(301)}}, ".properties", "300 that are not"),
        ({"type": "bogus"}, "", "Invalid type: bogus"),
        ({"type": "string", "format": "iri"}, "", "Unknown format: iri"),
        ({"type": "string", "pattern": "(?=a)b"}, ".pattern", "no look-around"),
        ({"type": "string", "pattern": "("}, ".pattern", "a `)` for every `(` (at character 2)"),
        ({"type": "string", "pattern": "a^b"}, "", "an anchor inside a pattern"),
        ({"items": {"patternProperties": {"[": {}}}}, ".items.patternProperties.[", "a `]`"),
        ({"type": "string", "pattern": r"\p{Nope}"}, "", "property not found"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "", "oneOf may overlap"),
        ({"$ref": "#"}, "", "nothing satisfies it"),
        ({"$ref": "#/$defs/x"}, ".$ref", "inside this one"),
        ({"$ref": "http://example.com/x"}, ".$ref", "inside this one"),
        ({"$ref": "#/examples/0", "examples": [{}]}, ".$ref", "inside this one"),
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
    properties = {f"field_{index}": {"type": "string"} for index in range(1340)}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    assert 60_000 < len(json.dumps(schema)) < 65_536
    await constraint_of(schema)


def test_a_string_of_bounded_length_goes_on_to_its_end():
    for schema, length in (({"minLength": MAX_LEAST}, MAX_LEAST), ({"maxLength": 10**6}, 3000)):
        constraint = compiled({"type": "string", **schema})
        for token_id in byte_ids('"' + "aé" * (length // 2)):
            assert token_id in allowed(constraint)
            constraint.accept(token_id)
        assert takes(constraint, '"')


def test_a_string_ends_at_ten_thousand_characters_if_its_length_is_bounded_at_all():
    constraint = compiled({"type": "string", "maxLength": MAX_LEAST + 1})
    for token_id in byte_ids('"' + "a" * MAX_LEAST):
        constraint.accept(token_id)
    assert list(allowed(constraint)) == byte_ids('"')


async def test_what_costs_more_than_its_limits_at_once_is_refused_before():
    multiples = {"type": "integer", "multipleOf": 9973, "minimum": 3, "maximum": 45 * 10**9}
    with pytest.raises(InvalidParameter, match="costs too much"):
        wander(compiled(multiples), 0)
    with pytest.raises(InvalidParameter, match="costs too much"):
        await constraint_of({"type": "object", "properties": {"a": multiples}, "required": ["a"]})
    with pytest.raises(InvalidParameter, match="shortest") as refused:
        await constraint_of({"items": {"type": "string", "pattern": "^a{100000}$"}})
    assert refused.value.field == "response_format.items.pattern"


async def test_a_hostile_schema_holds_up_no_schema_that_is_known():
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    known = response_grammar(JsonSchema({"type": "integer"}))
    await grammars.constraint(known)
    hostile = response_grammar(JsonSchema(ENDLESS["patterns"]))
    task = asyncio.create_task(grammars.constraint(hostile))
    await asyncio.sleep(0)
    await grammars.constraint(known)
    assert not task.done(), "the known one waited for the hostile one"
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


async def test_a_text_that_uses_up_its_grammar_harms_no_other(monkeypatch):
    monkeypatch.setitem(_LIMITS, "max_lexer_states", 10_000)
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    greedy = response_grammar(JsonSchema({"type": "string", "pattern": "^(.*a.{200})$"}))
    first = await grammars.constraint(greedy)
    rng = random.Random(0)

    def go_on() -> None:
        for letter in ['"', *rng.choices("ab", k=3000)]:
            allowed(first)
            first.accept(*byte_ids(letter))

    with pytest.raises(InvalidParameter, match="too many states") as refused:
        go_on()
    assert refused.value.field == "response_format"
    second = await grammars.constraint(greedy)
    assert takes(second, '"a' + 200 * "b" + '"')


async def test_what_is_made_for_a_model_is_not_kept_after_it():
    grammars = Grammars(BYTES, VOCAB, (EOS_ID,))
    constraint = await grammars.constraint(response_grammar(JsonObject()))
    gone = weakref.ref(grammars)
    del grammars
    gc.collect()
    assert gone() is None, "a model that was unloaded must not stay for its grammars"
    assert len(allowed(constraint)), "what still runs goes on"


def test_a_grammar_of_our_own_that_is_wrong_is_said_so():
    with pytest.raises(InvalidParameter, match="schemas that can be enforced"):
        GRAMMARS._compile(Grammar("start: nowhere", field="tools"))


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        (Matching("[0-9]{3}-[a-c/]+"), "123-ab/c", "123-d"),
        (Matching("a|b"), "b", "ab"),
        (OneOf(("yes", 'no "really"\n', "nothing")), 'no "really"\n', "not"),
        (Following('start: "SELECT " COL\nCOL: /[a-z]+/'), "SELECT name", "SELECT N"),
        (Following('root ::= "x" tail\ntail ::= [0-9]+ | "-"'), "x42", "xy"),
    ],
)
async def test_an_answer_follows_what_is_no_schema(wanted, good, bad):
    grammar = response_grammar(wanted)
    for text, fits in ((good, True), (bad, False)):
        constraint = await GRAMMARS.constraint(grammar)
        followed = True
        for token_id in [*byte_ids(text), EOS_ID]:
            if token_id == EOS_ID and constraint.ended:
                break
            if token_id not in allowed(constraint, BYTES.get_vocab_size()):
                followed = False
                break
            constraint.accept(token_id)
        assert followed == fits, text


@pytest.mark.parametrize(
    "wanted",
    [
        Matching("("),
        Matching("(?=a)b"),
        Following("start: missing"),
        Following("nothing of the kind"),
        Following("root ::= missing"),
        Following("x" * 20_000),
    ],
)
async def test_what_is_no_pattern_and_no_grammar_is_refused_by_its_field(wanted):
    with pytest.raises(InvalidParameter) as refused:
        await GRAMMARS.constraint(response_grammar(wanted, "guided_regex"))
    assert refused.value.field == "guided_regex"
