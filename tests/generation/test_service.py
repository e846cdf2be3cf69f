import asyncio
import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.chat_template import ChatTemplate
from app.catalog.token_bounds import longest_token
from app.contract.conversation import ChatMessage, ToolCall
from app.contract.generation import Finished, TextDelta
from app.contract.sampling import FinishReason, SamplingDefaults, SamplingParams
from app.contract.usage import Usage
from app.contract.whole import collect
from app.errors import (
    BatchTooLarge,
    ContextOverflow,
    EngineFailure,
    Error,
    InvalidParameter,
    NoModelLoaded,
    Overloaded,
    RequestError,
    ShuttingDown,
    UnknownModel,
)
from app.generation import prompting
from tests.fakes import BYTES, EOS_ID, MODEL_ID, FakeModel, FakeService, Step, byte_ids, until
from tests.generation.asking import asks, says


async def test_each_piece_is_a_delta_and_finished_is_the_last_event():
    service = FakeService("Hel", "lo ", "you")
    generation = await service.start(asks())
    events = [event async for event in generation]
    assert events == [
        TextDelta("Hel"),
        TextDelta("lo "),
        TextDelta("you"),
        Finished(FinishReason.STOP, Usage(prompt_tokens=2, completion_tokens=len("Hello you") + 1)),
    ]
    assert generation.model_id == MODEL_ID
    assert service.engine.in_use == 0


async def test_whole_is_what_a_stream_gives():
    generation = await FakeService("Hel", "lo", FinishReason.LENGTH).start(asks())
    whole = await collect(generation)
    assert (whole.text, whole.finished.reason) == ("Hello", FinishReason.LENGTH)
    assert whole.finished.usage.completion_tokens == len("Hello")


async def test_half_a_character_at_the_end_is_not_lost():
    service = FakeService(byte_ids("a🦊")[:-1], FinishReason.LENGTH)
    assert (await collect(await service.start(asks()))).text == "a\ufffd"


async def test_the_engine_gets_what_was_asked_for():
    service = FakeService("x")
    sampling = SamplingParams(temperature=0.5, seed=7)
    generation = await service.start(asks("abc", max_tokens=9, sampling=sampling, max_time_s=1.5))
    await collect(generation)
    [request] = service.engine.submitted
    assert list(request.prompt_ids) == byte_ids("abc")
    assert (request.max_tokens, request.sampling, request.max_time_s) == (9, sampling, 1.5)
    assert request.stop_ids == {EOS_ID}


async def test_what_a_request_leaves_open_is_the_models_own():
    service = FakeService("x")
    recommended = SamplingDefaults(temperature=0.6, top_p=0.9, top_k=20)
    model = await service.catalog.get(None)
    model.manifest = msgspec.structs.replace(model.manifest, sampling=recommended)
    asked = SamplingParams(temperature=0.2, top_p=0.5, seed=7)
    generation = await service.start(
        asks(sampling=asked, left_open=frozenset({"temperature", "top_k", "min_p"}))
    )
    await collect(generation)
    [request] = service.engine.submitted
    wanted = SamplingParams(temperature=0.6, top_p=0.5, top_k=20, seed=7)
    assert request.sampling == generation.sampling == wanted


async def test_messages_go_through_the_template_and_a_prompt_does_not():
    service = FakeService("x")
    for request in (asks(prompt=None, messages=says("Hi")), asks("Hi")):
        await collect(await service.start(request))
    assert service.prompts() == [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "Hi",
    ]
    first = service.engine.submitted[0].prompt_ids
    assert EOS_ID in first, "the template's special tokens are tokens, not letters"


async def test_both_given_the_template_decides():
    request = asks("Hi", messages=says("Hi"))
    for chat, prompt in (
        (True, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (False, "Hi"),
    ):
        service = FakeService("x", chat=chat)
        await collect(await service.start(request))
        assert service.prompts() == [prompt]


async def test_messages_without_a_template_are_refused():
    service = FakeService("x", chat=False)
    with pytest.raises(RequestError, match="has no chat template"):
        await service.start(asks(prompt=None, messages=says("Hi")))
    assert service.engine.in_use == 0


@pytest.mark.parametrize(
    ("error", "request_", "model_id"),
    [
        (UnknownModel, asks(), "no/such"),
        (ContextOverflow, asks("x" * 21), None),
        (ContextOverflow, asks("x" * 5000), None),
        (InvalidParameter, asks(""), None),
    ],
)
async def test_a_refusal_comes_from_start_and_takes_no_place(error, request_, model_id):
    service = FakeService("x", capacity=20)
    with pytest.raises(error):
        await service.start(request_, model_id)
    assert service.engine.in_use == 0
    assert not service.engine.submitted


async def test_an_overflow_carries_both_numbers():
    with pytest.raises(ContextOverflow, match="prompt has 21 tokens, the context is 20 for"):
        await FakeService("x", capacity=20).start(asks("x" * 21))


async def test_prompt_and_answer_share_the_context():
    with pytest.raises(ContextOverflow, match="prompt has 20 tokens, the context is 20 for"):
        await FakeService("x", capacity=20).start(asks("x" * 20))
    service = FakeService("x", capacity=20)
    whole = await collect(await service.start(asks("x" * 19)))
    assert whole.text == "x"
    assert service.engine.submitted[0].max_tokens == 1
    only_the_prompt = asks("x" * 20, max_tokens=0, prompt_logprobs=0)
    await (await FakeService("x", capacity=20).start(only_the_prompt)).aclose()


async def test_a_text_that_is_too_long_whatever_it_says_is_refused_untokenized(monkeypatch):
    service = FakeService("x", capacity=20)
    monkeypatch.setattr(service.catalog.model, "longest_token", longest_token(BYTES))
    monkeypatch.setattr(service.catalog.model, "tokenizer", None)
    longest = len("<|im_start|>")
    with pytest.raises(ContextOverflow, match="prompt has at least 21 tokens") as refused:
        await service.start(asks("x" * (20 * longest + 1)))
    assert (refused.value.prompt_tokens, refused.value.at_least) == (21, True)


@pytest.mark.parametrize(
    "turn",
    [
        ChatMessage.of("user", "x" * 3000),
        ChatMessage.of("assistant", "", (ToolCall("1", "f", '{"a": "' + "x" * 3000),)),
    ],
    ids=["text", "arguments"],
)
async def test_a_conversation_that_cannot_fit_is_not_even_written_out(monkeypatch, turn):
    service = FakeService(capacity=100)
    monkeypatch.setattr(service.catalog.model, "longest_token", longest_token(BYTES))
    monkeypatch.setattr(prompting, "ConversationWriter", lambda *_: pytest.fail("was begun"))
    with pytest.raises(ContextOverflow, match="at least"):
        await service.start(asks(prompt=None, messages=[turn]))
    with pytest.raises(ContextOverflow, match="at least"):
        await service.tokenize(asks(None, messages=[turn]))


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, True),
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}, True),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "ab"}, "content": "c"}}, False),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}}, False),
        ({"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}, False),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, False),
        ({"pre_tokenizer": None}, False),
    ],
)
def test_a_texts_least_tokens_are_known_only_where_no_character_is_dropped(change, known):
    description = {**json.loads(BYTES.to_str()), **change}
    tokenizer = BYTES.from_str(json.dumps(description))
    assert (longest_token(tokenizer) == len("<|im_start|>")) is known


async def test_no_model_is_said_so():
    service = FakeService("x")
    service.catalog.model = None
    with pytest.raises(NoModelLoaded):
        await service.start(asks())


async def test_a_full_engine_is_said_before_any_work_on_the_text():
    refuses = ChatTemplate("{{ raise_exception('rendered') }}")
    service = FakeService(asyncio.Event(), max_requests=1, chat_template=refuses)
    request = asks(prompt=None, messages=says("Hi"))
    with pytest.raises(InvalidParameter, match="rendered"):
        await service.start(request)
    running = await service.start(asks())
    with pytest.raises(Overloaded):
        await service.start(request)
    await running.aclose()


async def test_a_batch_takes_all_places_or_none():
    service = FakeService(asyncio.Event(), max_requests=3)
    running = await service.start(asks())
    with pytest.raises(Overloaded):
        await service.start_batch([asks()] * 3)
    assert service.engine.in_use == 1
    for generation in (running, *await service.start_batch([asks()] * 2)):
        await generation.aclose()
    assert service.engine.in_use == 0


async def test_a_batch_that_could_never_fit_is_the_clients_to_mend():
    with pytest.raises(BatchTooLarge, match="the batch has 9 prompts, at most 8"):
        await FakeService("x", max_requests=8).start_batch([asks()] * 9)


async def test_one_bad_prompt_of_a_batch_starts_nothing():
    service = FakeService("x", capacity=20)
    with pytest.raises(ContextOverflow):
        await service.start_batch([asks("ok"), asks("x" * 21)])
    assert service.engine.in_use == 0
    assert not service.engine.submitted


async def test_a_batch_answers_in_the_order_of_its_prompts():
    gate = asyncio.Event()

    def script(request) -> list[Step]:
        if list(request.prompt_ids) == byte_ids("first"):
            return [gate, "1"]
        gate.set()  # the second one ends before the first one begins
        return ["2"]

    service = FakeService(script=script)
    generations = await service.start_batch([asks("first"), asks("second")])
    wholes = await asyncio.gather(*map(collect, generations))
    assert [whole.text for whole in wholes] == ["1", "2"]


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=6), st.text("abc", min_size=1))
def test_a_stop_string_ends_the_text_wherever_pieces_end(pieces, stop):
    async def scenario() -> None:
        service = FakeService(*pieces)
        generation = await service.start(asks(stop=(stop,)))
        whole = await collect(generation)
        said = "".join(pieces)
        expected = said[: said.find(stop)] if stop in said else said
        assert (whole.text, whole.finished.reason) == (expected, FinishReason.STOP)
        tokens = said.find(stop) + len(stop) if stop in said else len(said) + 1
        assert whole.finished.usage.completion_tokens == tokens
        assert service.engine.in_use == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(("include", "text"), [(False, "one "), (True, "one STOP")])
async def test_a_text_ends_before_or_with_its_stop_string(include, text):
    service = FakeService("one ST", "OP two")
    request = asks(stop=("STOP",), include_stop=include)
    assert (await collect(await service.start(request))).text == text


@pytest.mark.parametrize("said", ["It is", "It is ", "Well. It is"])
async def test_an_answer_goes_on_with_the_last_turn(said):
    service = FakeService(" 4.")
    turns = [*says("2 + 2?"), ChatMessage.of("assistant", said)]
    request = asks(prompt=None, messages=turns, continues=True)
    assert (await collect(await service.start(request))).text == " 4."
    assert service.prompts() == [
        f"<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n{said}"
    ]
    nothing = asks(prompt=None, messages=says(" "), continues=True)
    with pytest.raises(InvalidParameter, match=r"content is .*a last turn with text"):
        await service.start(nothing)


async def test_a_stop_string_ends_the_sequence_in_the_engine():
    service = FakeService("one END", asyncio.Event())
    whole = await collect(await service.start(asks(stop=("END",))))
    assert (whole.text, whole.finished.reason) == ("one ", FinishReason.STOP)
    assert len(service.engine.aborted) == 1


async def test_a_started_stop_string_is_text_when_the_sequence_ends():
    generation = await FakeService("wait EN").start(asks(stop=("END",)))
    assert (await collect(generation)).text == "wait EN"


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (EngineFailure("step 7 broke"), "step 7 broke"),
        (ShuttingDown(), "the server is shutting down"),
        (ValueError("/secret/path"), "the decoder failed while this request was in its step"),
    ],
)
async def test_a_failure_is_raised_after_the_text_before_it(raised, message):
    service = FakeService("abc", raised)
    generation = await service.start(asks())
    assert await anext(generation) == TextDelta("abc")
    with pytest.raises(Error, match=message):
        await anext(generation)
    assert service.engine.in_use == 0


async def test_text_that_arrived_together_with_the_failure_is_not_lost():
    service = FakeService("abc", "def", EngineFailure("broke"))
    generation = await service.start(asks())
    await until(lambda: not service.engine.in_use)  # all events are there at once
    assert await anext(generation) == TextDelta("abcdef")
    with pytest.raises(EngineFailure, match="broke"):
        await anext(generation)


async def test_closing_before_the_first_event_frees_the_place():
    service = FakeService("x", asyncio.Event())
    generation = await service.start(asks())
    assert service.engine.in_use == 1
    await generation.aclose()
    await generation.aclose()
    assert service.engine.in_use == 0
    assert [event async for event in generation] == []


@pytest.mark.parametrize("consume", [collect, anext])
async def test_cancelling_the_task_that_waits_frees_the_place(consume):
    service = FakeService(asyncio.Event())
    generation = await service.start(asks())
    task = asyncio.ensure_future(consume(generation))
    await asyncio.sleep(0)  # a task that has not begun waits for nothing
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert service.engine.in_use == 0


async def test_a_long_prompt_is_tokenized_off_the_event_loop(monkeypatch):
    import threading

    service = FakeService("x", capacity=100_000)
    threads = []

    class Spy:
        def __getattr__(self, name):
            threads.append(threading.current_thread())
            return getattr(FakeModel(service.engine).tokenizer, name)

    monkeypatch.setattr(service.catalog.model, "tokenizer", Spy())
    for prompt, on_loop in (("short", True), ("long " * 2000, False)):
        threads.clear()
        generation = await service.start(asks(prompt))
        assert (threads[0] is threading.main_thread()) is on_loop
        await generation.aclose()


async def test_a_prompt_of_tokens_is_taken_as_it_is():
    service = FakeService("x")
    await collect(await service.start(asks(prompt=None, prompt_ids=[EOS_ID, 3])))
    assert service.engine.submitted[0].prompt_ids == [EOS_ID, 3]


@pytest.mark.parametrize(
    ("fields", "field", "token_id"),
    [
        ({"prompt_ids": [3, 258]}, "prompt", 258),
        ({"prompt_ids": [-1]}, "prompt", -1),
        ({"stop_token_ids": (999,)}, "stop_token_ids", 999),
        ({"sampling": SamplingParams(logit_bias={258: 1.0})}, "logit_bias", 258),
    ],
)
async def test_a_token_that_is_not_there_is_refused_with_the_vocabularys_size(
    fields, field, token_id
):
    with pytest.raises(InvalidParameter, match="below 258") as refused:
        await FakeService("x").start(asks(**fields))
    assert (refused.value.field, refused.value.value) == (field, token_id)


@pytest.mark.parametrize(("max_tokens", "taken"), [(None, 16), (99, 16), (16, 16), (5, 5)])
async def test_no_more_tokens_are_asked_for_than_the_context_has_room(max_tokens, taken):
    service = FakeService("x", capacity=20)
    await collect(await service.start(asks("abcd", max_tokens=max_tokens)))
    assert service.engine.submitted[0].max_tokens == taken


async def test_no_token_at_all_needs_no_engine():
    service = FakeService("x")
    generation = await service.start(asks("abc", max_tokens=0))
    assert [event async for event in generation] == [
        Finished(FinishReason.LENGTH, Usage(prompt_tokens=3, completion_tokens=0))
    ]
    assert not service.engine.submitted
    assert service.engine.in_use == 0


async def test_no_token_but_the_prompts_logprobs_runs_the_prompt():
    service = FakeService("x")
    generation = await service.start(asks("abc", max_tokens=0, prompt_logprobs=2))
    kinds = [type(event).__name__ for event in [event async for event in generation]]
    assert kinds == ["PromptLogprobs", "Finished"]
    [request] = service.engine.submitted
    assert (request.max_tokens, request.prompt_logprobs) == (1, 2)
    assert service.engine.in_use == 0


async def test_too_many_logprobs_of_prompts_are_refused_however_many_prompts_they_are_of():
    service = FakeService("x", capacity=8192)
    most = [asks("x" * 2000, max_tokens=1, prompt_logprobs=7) for _ in range(4)]
    for generation in await service.start_batch(most):
        await generation.aclose()
    one_more = [*most, asks("x" * 1000, max_tokens=1, prompt_logprobs=7)]
    with pytest.raises(InvalidParameter, match="prompt_logprobs is 7, expected at most 6"):
        await service.start_batch(one_more)
    assert len(service.engine.submitted) == 4
    assert service.engine.in_use == 0


async def test_ends_are_told_to_the_engine():
    service = FakeService("x")
    [letter] = byte_ids("y")
    for fields in (
        {"min_tokens": 3, "stop_token_ids": (letter,)},
        {"ignore_eos": True, "stop_token_ids": (letter,)},
    ):
        await collect(await service.start(asks(**fields)))
    first, second = service.engine.submitted
    assert (first.min_tokens, first.stop_ids) == (3, {letter, EOS_ID})
    assert second.stop_ids == {letter}


async def test_more_least_tokens_than_most_are_refused():
    with pytest.raises(
        InvalidParameter,
        match="min_tokens is 6, expected at most max_tokens and what the context has room for, 5",
    ):
        await FakeService("x").start(asks(min_tokens=6, max_tokens=5))


async def test_logprobs_are_asked_of_the_engine():
    service = FakeService("x")
    await collect(await service.start(asks(top_logprobs=4, prompt_logprobs=0)))
    [request] = service.engine.submitted
    assert (request.top_logprobs, request.prompt_logprobs) == (4, 0)


async def test_a_text_and_its_tokens_go_both_ways():
    service = FakeService("x")
    ids = (await service.tokenize("é<|im_end|>")).ids
    assert ids == [*byte_ids("é"), EOS_ID]
    assert await service.detokenize(ids) == "é<|im_end|>"
    conversation = await service.tokenize(asks(None, messages=says("Hi")), add_special_tokens=False)
    assert await service.detokenize(conversation.ids) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    long = "word " * 4000
    assert await service.detokenize((await service.tokenize(long)).ids) == long


async def test_tokens_that_are_not_there_and_conversations_without_a_template_are_refused():
    with pytest.raises(InvalidParameter, match="tokens is 258"):
        await FakeService("x").detokenize([258])
    with pytest.raises(RequestError, match="has no chat template"):
        await FakeService("x", chat=False).tokenize(asks(None, messages=says("Hi")))
    with pytest.raises(UnknownModel):
        await FakeService("x").tokenize("Hi", "no/such")
