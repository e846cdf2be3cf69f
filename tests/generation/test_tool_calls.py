import json
import random
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.chat_template import ChatTemplate
from app.catalog.grammars import Grammars
from app.contract.conversation import ChatMessage, Tool, ToolCall
from app.contract.formats import JsonObject, JsonSchema
from app.contract.generation import GenerationRequest, ToolCallDelta, ToolChoice
from app.contract.sampling import SamplingParams
from app.errors import InvalidParameter
from app.generation.conversation import ConversationWriter
from app.generation.tool_calls import ToolCallParser
from app.generation.tool_formats import (
    HERMES,
    LLAMA,
    MISTRAL,
    ToolFormat,
    in_plain_turns,
    native_format,
)
from app.generation.tool_grammar import MAX_CALLS, tool_grammar
from tests.catalog.test_chat_template import TEMPLATES, TOOL_TEMPLATES
from tests.fakes import BYTES, CHATML, EOS_ID, byte_ids
from tests.generation.test_structured import GRAMMARS, allowed

FORMATS = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL}
every_format = pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
several_calls = pytest.mark.parametrize("format_", [HERMES, MISTRAL], ids=lambda f: f.name)

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool(name="weather", description="The weather.", parameters=CITY)
NOW = Tool(name="now")
NAMES = ("weather", "now", "weather_in")
ROME = '{"city": "Ro\\"}me{"}'


def calls(format_: ToolFormat, *pairs: tuple[str, str]) -> str:
    """As the model's template writes them."""
    one_by_one = [
        format_.head + name + format_.middle + arguments + format_.tail for name, arguments in pairs
    ]
    return format_.opening + (format_.separator or "").join(one_by_one) + format_.closing


def parsed(
    format_: ToolFormat, pieces: list[str], *, required: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """The text, and each call's name and arguments; holds every promise about deltas."""
    parser = ToolCallParser(format_, NAMES, required=required)
    found = [piece for text in pieces for piece in parser.feed(text)] + parser.flush()
    text, told, ids, done = "", [], [], 0
    for end, piece in found:
        assert end >= done, "what is done with never becomes less"
        done = end
        if piece is None:
            continue
        if isinstance(piece, str):
            assert piece
            text += piece
        elif piece.id is not None:
            assert piece.index == len(told)
            assert piece.arguments == ""
            told.append([piece.name, ""])
            ids.append(piece.id)
        else:
            assert (piece.index, piece.name) == (len(told) - 1, None)
            told[-1][1] += piece.arguments
    assert done <= sum(map(len, pieces))
    assert len(set(ids)) == len(ids)
    return text, [(name, arguments) for name, arguments in told]


def cut(text: str, edges: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(edge % (len(text) + 1) for edge in edges)})
    return [text[a:b] for a, b in pairwise(edges)]


@every_format
@given(edges=st.lists(st.integers(0, 500), max_size=12))
def test_a_call_is_found_wherever_the_text_is_cut(format_, edges):
    text = calls(format_, ("weather", ROME))
    assert parsed(format_, cut(text, edges)) == ("", [("weather", ROME)])


@several_calls
@given(edges=st.lists(st.integers(0, 500), max_size=12))
def test_text_and_several_calls_are_told_apart_wherever_the_text_is_cut(format_, edges):
    pairs = [("weather", ROME), ("now", "{}"), ("weather_in", '{"a": [{"b": "\\\\"}]}')]
    text = "I look: <too [TOOL {\n\n" + calls(format_, *pairs)
    assert parsed(format_, cut(text, edges)) == ("I look: <too [TOOL {", pairs)


@every_format
def test_letter_by_letter_nothing_of_a_marker_is_given_out_as_text(format_):
    for text in (calls(format_, ("weather", ROME)), calls(format_, ("now", "{}"))):
        assert parsed(format_, list(text))[0] == ""


@every_format
@given(text=st.text(st.sampled_from('<tool_call>\n{"name": [TOOL_CALLS] x'), max_size=40))
def test_what_only_looks_like_a_call_is_text(format_, text):
    assert parsed(format_, list(text)) == (text, [])


@every_format
@pytest.mark.parametrize("name", ["nobody", "weathe", "Weather"])
def test_a_call_of_a_tool_that_is_not_there_is_text(format_, name):
    text = calls(format_, (name, "{}"))
    assert parsed(format_, list(text)) == (text, [])


@every_format
def test_a_call_that_is_cut_off_keeps_what_came_of_its_arguments(format_):
    text = calls(format_, ("weather", ROME))
    begins = text.index(ROME)
    for length in range(1, len(text)):
        cut_off = text[:length]
        said, found = parsed(format_, list(cut_off))
        if length <= begins:
            assert (said, found) == (cut_off, []), "before the arguments it is text"
        else:
            assert (said, found) == ("", [("weather", cut_off[begins:][: len(ROME)])])


@several_calls
def test_a_second_call_that_is_cut_off_before_its_arguments_is_left_out(format_):
    text = calls(format_, ("now", "{}"), ("weather", ROME))
    for length in range(text.index("}") + 1, text.index(ROME) + 1):
        assert parsed(format_, list(text[:length])) == ("", [("now", "{}")])


@every_format
def test_a_required_call_that_is_cut_off_in_its_opening_is_no_text(format_):
    text = calls(format_, ("weather", ROME))
    for length in range(1, text.index(ROME) + 1):
        assert parsed(format_, list(text[:length]), required=True) == ("", [])


@every_format
def test_a_call_is_cut_from_its_first_brace_to_its_last(format_):
    text = calls(format_, ("weather", ROME))
    begins, ends = text.index(ROME), text.index(ROME) + len(ROME)
    for length in range(len(text) + 1):
        parser = ToolCallParser(format_, NAMES)
        parser.feed(text[:length])
        parser.flush()
        assert parser.cut is (begins < length < ends), text[:length]


@several_calls
@pytest.mark.parametrize("letter", [" ", "<", "[", "x"])
def test_a_character_is_looked_at_a_bounded_number_of_times(format_, letter):
    parser = ToolCallParser(format_, NAMES)
    looked_at = 0

    class Counting:
        def search(self, text, start):
            nonlocal looked_at
            looked_at += len(text) - start

    parser._search = Counting()
    for _ in range(2000):
        parser.feed(letter)
    assert looked_at < 2000 * 100


def test_a_llama_call_is_the_whole_answer_or_none():
    text = "Sure: " + calls(LLAMA, ("now", "{}"))
    assert parsed(LLAMA, list(text)) == (text, [])


def test_ids_are_what_the_templates_take():
    [(_, begun), *_] = ToolCallParser(HERMES, NAMES).feed(calls(HERMES, ("now", "{}")))
    assert isinstance(begun, ToolCallDelta)
    assert begun.id.startswith("call_")
    [(_, begun), *_] = ToolCallParser(MISTRAL, NAMES).feed(calls(MISTRAL, ("now", "{}")))
    assert len(begun.id) == 9
    assert begun.id.isalnum()


def asks(tools=(WEATHER, NOW), **fields) -> GenerationRequest:
    return GenerationRequest(
        messages=[ChatMessage.of("user", "Hi")], tools=tools, sampling=SamplingParams(), **fields
    )


REQUIRED = ToolChoice("required")


def follows(format_: ToolFormat, request: GenerationRequest, text: str) -> bool:
    """Whether the grammar of the request takes all of the text as an answer."""
    constraint = GRAMMARS._compile(tool_grammar(format_, request, BYTES))
    for token_id in byte_ids(text):
        if constraint.ended or token_id not in allowed(constraint):
            return False
        constraint.accept(token_id)
    return constraint.ended or EOS_ID in allowed(constraint)


@every_format
def test_a_required_call_follows_the_schema_and_there_is_no_other_answer(format_):
    request = asks(tool_choice=REQUIRED)
    assert follows(format_, request, calls(format_, ("weather", '{"city": "Rome"}')))
    assert follows(format_, request, calls(format_, ("now", "{}")))
    for wrong in (
        "Hello",
        calls(format_, ("weather", '{"town": "Rome"}')),
        calls(format_, ("weather", "{}")),
        calls(format_, ("now", '{"a": 1}')),
        calls(format_, ("nobody", "{}")),
        calls(format_, ("now", "{}")) + "Hello",
    ):
        assert not follows(format_, request, wrong), wrong


@every_format
def test_a_named_tool_is_the_only_one(format_):
    request = asks(tool_choice=ToolChoice("required", "now"))
    assert follows(format_, request, calls(format_, ("now", "{}")))
    assert not follows(format_, request, calls(format_, ("weather", '{"city": "Rome"}')))


@every_format
def test_a_call_that_is_up_to_the_model_is_held_to_its_form_once_it_begins(format_):
    request = asks()
    for right in (
        "Hello < [ there",
        '[1, {"name": 3}]',
        calls(format_, ("weather", '{"any": ["thing"]}')),
        calls(format_, ("now", "{}")),
    ):
        assert follows(format_, request, right), right
    for wrong in (
        calls(format_, ("nobody", "{}")),
        calls(format_, ("now", "3")),
        calls(format_, ("now", '{"a": }')),
        calls(format_, ("now", "{}"))[:-1],
        calls(format_, ("now", "{}")) + "Hello",
    ):
        assert not follows(format_, request, wrong), wrong


@several_calls
def test_text_may_come_before_a_call(format_):
    assert follows(format_, asks(), "One moment.\n" + calls(format_, ("now", "{}")))


@every_format
def test_a_strict_tool_is_held_to_its_schema_where_calls_are_free(format_):
    strict = Tool(name="weather", parameters=CITY, strict=True)
    wrong = calls(format_, ("weather", '{"town": "Rome"}'))
    assert follows(format_, asks(), wrong), "the other tool is free or this proves nothing"
    assert not follows(format_, asks([strict, NOW]), wrong)
    assert follows(format_, asks([strict]), calls(format_, ("weather", '{"city": "Rome"}')))


@several_calls
@pytest.mark.parametrize("choice", [ToolChoice(), REQUIRED])
def test_parallel_calls_can_be_had_and_refused(format_, choice):
    two = calls(format_, ("now", "{}"), ("weather", '{"city": "Rome"}'))
    assert follows(format_, asks(tool_choice=choice), two)
    alone = asks(tool_choice=choice, parallel_tool_calls=False)
    assert not follows(format_, alone, two)
    assert follows(format_, alone, calls(format_, ("now", "{}")))
    many = [("now", "{}")] * MAX_CALLS
    assert follows(format_, asks(tool_choice=choice), calls(format_, *many))
    assert not follows(format_, asks(tool_choice=choice), calls(format_, *many, many[0]))


@several_calls
def test_a_response_format_beside_tools_leaves_a_call_or_an_answer_in_it(format_):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    for response_format in (JsonSchema(schema), JsonObject()):
        request = asks(response_format=response_format)
        assert follows(format_, request, '{"ok": true}')
        assert follows(format_, request, calls(format_, ("now", "{}")))
        assert not follows(format_, request, "Hello")
    assert not follows(format_, asks(response_format=JsonSchema(schema)), '{"ok": 1}')


def test_a_response_format_beside_tools_that_are_called_in_plain_json_is_refused_naming_both():
    with pytest.raises(InvalidParameter, match=r"response_format .* beside tools"):
        tool_grammar(LLAMA, asks(response_format=JsonObject()), BYTES)


async def test_a_schema_of_a_tool_is_refused_by_its_place():
    unique = Tool(name="a", parameters={"properties": {"x": {"uniqueItems": True}}}, strict=True)
    with pytest.raises(InvalidParameter) as refused:
        tool_grammar(HERMES, asks([NOW, unique]), BYTES)
    assert refused.value.field == "tools[1].function.parameters.properties.x"
    bogus = Tool(name="a", parameters={"properties": {"x": {"type": "bogus"}}}, strict=True)
    with pytest.raises(InvalidParameter, match="'bogus', expected one of array") as refused:
        tool_grammar(HERMES, asks([NOW, bogus]), BYTES)
    assert refused.value.field == "tools[1].function.parameters.properties.x.type"
    array = Tool(name="a", parameters={"type": "array"}, strict=True)
    with pytest.raises(InvalidParameter, match="'object'"):
        tool_grammar(HERMES, asks([array]), BYTES)


@pytest.mark.parametrize(
    "unenforced",
    [
        {"uniqueItems": True},
        {"pattern": "(?=look)around"},
        {"type": "string", "format": "iri"},
        {"oneOf": [{"type": "string"}, {"minLength": 3}]},
    ],
)
async def test_a_tool_that_is_not_strict_may_have_a_schema_that_nothing_enforces(unenforced):
    loose = Tool(name="a", parameters={"properties": {"x": unenforced}})
    for choice in (ToolChoice(), REQUIRED):
        await GRAMMARS.constraint(tool_grammar(HERMES, asks([loose], tool_choice=choice), BYTES))
    strict = msgspec.structs.replace(loose, strict=True)
    with pytest.raises(InvalidParameter):
        await GRAMMARS.constraint(tool_grammar(HERMES, asks([strict]), BYTES))


ANNOTATED = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "format": "int64", "nullable": True, "x-order": 1},
        "s": {"type": "string", "format": "phone", "propertyOrder": 2, "maxLength": 3},
    },
    "required": ["n", "s"],
    "strict": True,
    "returns": {"type": "string"},
    "additionalProperties": False,
}


@pytest.mark.parametrize("strict", [True, False])
async def test_annotations_of_converters_leave_a_schema_enforced(strict):
    tool = Tool(name="a", parameters=ANNOTATED, strict=strict)
    grammar = tool_grammar(HERMES, asks([tool], tool_choice=REQUIRED), BYTES)
    constraint = await GRAMMARS.constraint(grammar)
    for token_id in byte_ids(calls(HERMES, ("a", '{"n": 7, "s": "abc'))[: -len("}\n</tool_call>")]):
        assert token_id in allowed(constraint, BYTES.get_vocab_size())
        constraint.accept(token_id)
    assert set(allowed(constraint, BYTES.get_vocab_size())) == set(byte_ids('"')), "three at most"


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"properties": []}, ".properties"),
        ({"properties": {"x": {"type": "strnig"}}}, ".properties.x.type"),
        ({"properties": {"x": 1}}, ".properties.x"),
        ({"required": "x"}, ".required"),
        ({"properties": {"x": {"anyOf": {}}}}, ".properties.x.anyOf"),
        ({"$defs": {"x": {"items": [{"enum": 1}]}}}, ".$defs.x.items[0].enum"),
    ],
)
@pytest.mark.parametrize("choice", [ToolChoice(), REQUIRED])
def test_what_is_no_schema_is_refused_whether_or_not_it_is_enforced(wrong, where, choice):
    with pytest.raises(InvalidParameter) as refused:
        tool_grammar(HERMES, asks([Tool(name="a", parameters=wrong)], tool_choice=choice), BYTES)
    assert refused.value.field == f"tools[0].function.parameters{where}"


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("format_", [HERMES, MISTRAL], ids=lambda f: f.name)
def test_a_marker_that_is_one_token_is_taken_as_that_token(format_, special):
    tokenizer = BYTES.from_str(BYTES.to_str())
    add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
    add(list(format_.tokens))
    vocab = tokenizer.get_vocab_size()
    grammars = Grammars(tokenizer, vocab, (EOS_ID,))
    for choice in (ToolChoice(), REQUIRED):
        constraint = grammars._compile(tool_grammar(format_, asks(tool_choice=choice), tokenizer))
        text = calls(format_, ("now", "{}"))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.token_to_id(format_.marker) in ids, "or this proves nothing"
        for token_id in ids:
            assert token_id in allowed(constraint, vocab)
            constraint.accept(token_id)
        assert constraint.ended or EOS_ID in allowed(constraint, vocab)


@every_format
@pytest.mark.parametrize("choice", [ToolChoice(), REQUIRED], ids=["auto", "required"])
def test_whatever_the_grammar_lets_through_the_parser_reads(format_, choice):
    """Random answers, 40 a case: the calls found are the calls in the text."""
    found_calls = 0
    for seed in range(40):
        rng = random.Random(seed)
        constraint = GRAMMARS._compile(tool_grammar(format_, asks(tool_choice=choice), BYTES))
        said = calls(format_, ("now", "{}"))[: rng.choice([0, 12, 25])]
        for token_id in byte_ids(said):
            constraint.accept(token_id)
        ids = byte_ids(said)
        while not constraint.ended and len(ids) < 3000:
            options = allowed(constraint)
            closing = [i for i in (*byte_ids('"}'), EOS_ID) if i in options]
            ids.append(int(rng.choice(closing if closing and rng.random() < 0.5 else options)))
            constraint.accept(ids[-1])
        if not constraint.ended:
            continue
        text, found = parsed(format_, list(BYTES.decode(ids)))
        found_calls += len(found)
        for name, arguments in found:
            assert name in ("now", "weather")
            assert isinstance(json.loads(arguments), dict)
        if choice.mode == "required":
            assert found
            assert not text
    assert found_calls, "or this proves nothing"


@pytest.mark.parametrize(
    ("name", "expected"), [("Hermes", HERMES), ("Llama 3.1", LLAMA), ("Mistral tools", MISTRAL)]
)
def test_a_template_says_which_format_its_model_writes(name, expected):
    template = ChatTemplate(TOOL_TEMPLATES[name], bos_token="<s>", eos_token="</s>")
    assert native_format(template) is expected
    history = [
        ChatMessage.of("user", "Hi"),
        ChatMessage.of("assistant", "", (ToolCall("123456789", "weather", '{"city": "Rome"}'),)),
    ]
    text = template.render(history, [WEATHER], add_generation_prompt=False)
    assert calls(expected, ("weather", '{"city": "Rome"}')).rstrip("]") in text, (
        "calls are parsed as the template writes them"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages }}",
        "{{ tools }}[TOOL_CALLS]name[ARGS]",
        "{{ tools }}<tool_call><function=x>",
        "{{ tools }}<|tool▁calls▁begin|>",
    ],
)
def test_a_format_that_is_not_known_is_none(source):
    assert native_format(ChatTemplate(source)) is None


def test_tools_are_described_in_the_systems_turn_where_the_template_has_no_place_for_them():
    template = ChatTemplate(CHATML)
    [text] = ConversationWriter(template).write([ChatMessage.of("user", "Hi")], [WEATHER])
    assert text.startswith("<|im_start|>system\nThese functions can be called")
    assert (
        json.dumps({"name": "weather", "description": "The weather.", "parameters": CITY}) in text
    )
    assert HERMES.head in text
    messages = [ChatMessage.of("system", "Be brief."), ChatMessage.of("user", "Hi")]
    [text] = ConversationWriter(template).write(messages, [WEATHER])
    assert text.startswith("<|im_start|>system\nBe brief.\n\nThese functions can be called")


def test_a_template_without_a_systems_turn_gets_the_tools_in_the_first_users():
    template = ChatTemplate(TEMPLATES["Gemma"], bos_token="<s>")
    messages = [
        ChatMessage.of("user", "Hi"),
        ChatMessage.of("assistant", "", (ToolCall("1", "now", "{}"), ToolCall("2", "now", "{}"))),
        ChatMessage.of("tool", "12:00", tool_call_id="1"),
        ChatMessage.of("tool", "12:01", tool_call_id="2"),
    ]
    [text] = ConversationWriter(template).write(messages, [NOW])
    assert text.startswith("<s><start_of_turn>user\nThese functions")
    assert text.endswith(
        "<start_of_turn>user\n<tool_response>\n12:00\n</tool_response>\n"
        "<tool_response>\n12:01\n</tool_response><end_of_turn>\n<start_of_turn>model\n"
    )


def test_calls_and_results_in_a_history_are_text_without_any_tools_too():
    turns = in_plain_turns(
        [
            ChatMessage.of("assistant", "I look.", (ToolCall("1", "now", '{"a": 1}'),)),
            ChatMessage.of("tool", "noon"),
        ],
        (),
    )
    assert turns == [
        ChatMessage.of("assistant", "I look.\n" + calls(HERMES, ("now", '{"a": 1}'))),
        ChatMessage.of("user", "<tool_response>\nnoon\n</tool_response>"),
    ]
