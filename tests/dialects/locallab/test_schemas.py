import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingParams
from app.dialects.kit.body import to_record
from app.dialects.locallab.schemas import BatchBody, ChatBody, GenerateBody
from app.errors import InvalidParameter

DOCUMENTED = SamplingParams(repetition_penalty=1.15, temperature=0.7, top_k=80, top_p=0.9)
RANGES = {
    "max_length": (1, 16384, int),
    "max_tokens": (1, 16384, int),
    "max_new_tokens": (1, 16384, int),
    "temperature": (0, 2, float),
    "top_p": (0, 1, float),  # 0 itself is outside
    "top_k": (0, 1000, int),
    "repetition_penalty": (1, 2, float),
    "seed": (0, 2**63 - 1, int),
}


def generate(**fields: object) -> GenerationRequest:
    body = to_record({"prompt": "Hi", **fields}, GenerateBody)
    return body.prompt_request(body.prompt, raw=body.raw)


def test_defaults_are_the_documented_ones():
    request = generate()
    assert (request.max_tokens, request.sampling) == (8192, DOCUMENTED)
    assert (request.stop, request.max_time_s) == ((), None)


def test_an_explicit_null_is_the_default():
    fields = GenerateBody.__struct_fields__
    assert generate(**dict.fromkeys(set(fields) - {"prompt"})) == generate()


@given(st.sampled_from(sorted(RANGES)), st.data())
def test_a_number_is_taken_exactly_within_its_range(name, data):
    low, high, kind = RANGES[name]
    near = st.sampled_from([low - 1, low, low + 1, high - 1, high, high + 1])
    value = data.draw(near | (st.integers() if kind is int else st.floats(-1, 3)))
    fits = low <= value <= high and not (name == "top_p" and value == 0)
    if fits:
        generate(**{name: value})
    else:
        with pytest.raises(InvalidParameter) as refused:
            generate(**{name: value})
        assert (refused.value.field, refused.value.value) == (name, value)
        assert str(high) in refused.value.limit


def test_numbers_reach_the_sampler():
    request = generate(temperature=1, top_p=0.5, top_k=3, repetition_penalty=1.5, seed=7)
    assert request.sampling == SamplingParams(
        temperature=1.0, top_p=0.5, top_k=3, repetition_penalty=1.5, seed=7
    )


def test_do_sample_false_is_greedy_and_keeps_the_penalty():
    sampling = generate(do_sample=False, temperature=1.5).sampling
    assert sampling.greedy
    assert sampling.repetition_penalty == 1.15
    assert generate(temperature=0).sampling.greedy


@pytest.mark.parametrize("name", ["max_length", "max_tokens", "max_new_tokens"])
def test_each_name_of_the_length_is_taken(name):
    assert generate(**{name: 5}).max_tokens == 5


def test_names_of_the_length_may_agree_but_not_contradict():
    assert generate(max_length=5, max_new_tokens=5).max_tokens == 5
    with pytest.raises(InvalidParameter, match="max_new_tokens is 6, expected 5 as in max_length"):
        generate(max_length=5, max_new_tokens=6)


@pytest.mark.parametrize(
    ("stop", "strings"), [("END", ("END",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())]
)
def test_stop_is_a_string_or_several(stop, strings):
    assert generate(stop=stop).stop == strings


@pytest.mark.parametrize("stop", ["", [""], ["x"] * 17, 5, ["x", 5], ["x" * 1025]])
def test_a_wrong_stop_is_refused(stop):
    with pytest.raises(InvalidParameter, match=r"^stop"):
        generate(stop=stop)


@pytest.mark.parametrize("max_time", [0, -1, "5"])
def test_a_wrong_max_time_is_refused(max_time):
    with pytest.raises(InvalidParameter, match="expected number > 0"):
        generate(max_time=max_time)


def test_a_prompt_is_a_turn_of_the_user_or_raw_text_by_the_model():
    request = generate()
    assert (request.messages, request.prompt) == ([ChatMessage.of("user", "Hi")], "Hi")


def test_raw_goes_past_the_template():
    request = generate(raw=True)
    assert (list(request.messages), request.prompt) == ([], "Hi")


def test_a_system_prompt_needs_a_template():
    request = generate(system_prompt="Be brief.")
    messages = [ChatMessage.of("system", "Be brief."), ChatMessage.of("user", "Hi")]
    assert (request.messages, request.prompt) == (messages, None)
    with pytest.raises(InvalidParameter, match="expected none with raw: true"):
        generate(system_prompt="Be brief.", raw=True)


@pytest.mark.parametrize("prompt", ["", None, 5, ["Hi"]])
def test_a_wrong_prompt_is_refused(prompt):
    with pytest.raises(InvalidParameter, match=r"^prompt is .*expected string, length >= 1"):
        generate(prompt=prompt)


def chat(messages: object, **fields: object) -> GenerationRequest:
    return to_record({"messages": messages, **fields}, ChatBody).chat_request()


def test_messages_are_taken_as_they_are():
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", ""), ("user", "And?")]
    request = chat([{"role": role, "content": content, "name": "x"} for role, content in turns])
    assert request.messages == [ChatMessage.of(*turn) for turn in turns]
    assert request.prompt is None


def test_a_system_prompt_comes_before_the_messages_unless_they_have_one():
    user = {"role": "user", "content": "Hi"}
    first, _ = chat([user], system_prompt="Be brief.").messages
    assert first == ChatMessage.of("system", "Be brief.")
    with pytest.raises(InvalidParameter, match="expected none beside a message with role system"):
        chat([{"role": "system", "content": "x"}, user], system_prompt="Be brief.")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is [], expected array of object, length >= 1"),
        (None, "messages is missing"),
        ("Hi", "messages is 'Hi', expected array"),
        ([{"role": "robot", "content": "x"}], "messages[0].role is 'robot', expected 'assistant'"),
        ([{"role": "user"}], "messages[0].content is missing, expected string"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content is [{'type'"),
    ],
)
def test_wrong_messages_are_refused(messages, message):
    with pytest.raises(InvalidParameter) as refused:
        chat(messages)
    assert message in refused.value.message


def test_each_prompt_of_a_batch_is_a_request():
    body = to_record({"prompts": ["a", "b"], "raw": True, "max_tokens": 3}, BatchBody)
    assert [(request.prompt, request.max_tokens) for request in body.requests()] == [
        ("a", 3),
        ("b", 3),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompts": []}, "prompts is [], expected array of string, length >= 1"),
        ({"prompts": ["a"] * 2049}, "prompts is '2049', expected at most 2048"),
        ({"prompts": ["a", ""]}, "prompts[1] is ''"),
        ({"prompts": ["a"], "stream": True}, "stream is True, expected false"),
    ],
)
def test_a_wrong_batch_is_refused(fields, message):
    with pytest.raises(InvalidParameter) as refused:
        to_record(fields, BatchBody).requests()
    assert message in refused.value.message
