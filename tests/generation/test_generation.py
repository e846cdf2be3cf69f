import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.conversation import ToolCall
from app.contract.generation import Finished, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason, SamplingParams
from app.contract.tokens import PromptLogprobs
from app.contract.usage import PromptProgress, Usage
from app.contract.whole import collect
from app.engine.sequence import EngineRequest, PromptState, ScoredToken, TokenEvent
from app.engine.stream import TokenStream
from app.errors import EngineFailure
from app.generation.generation import EngineGeneration
from app.generation.prepare import Prepared
from app.generation.reading import TextReader
from app.generation.tool_formats import HERMES, MISTRAL
from app.metrics import Metrics
from tests.fakes import BYTES, EOS_ID, byte_ids

PROMPT = byte_ids("Hi")
CALL = HERMES.head + "now" + HERMES.middle + '{"a": 1}' + HERMES.tail


def token(token_id: int, **fields) -> TokenEvent:
    return TokenEvent(token_id, logprobs=ScoredToken(token_id, -float(token_id)), **fields)


STOPS = ("bE", "aaa")


def generation(
    events: list[list[TokenEvent]],
    *,
    tokenizer=BYTES,
    top_logprobs=0,
    prompt_logprobs=None,
    **fields,
) -> EngineGeneration:
    """One that hears the events of each list at once."""
    stream = TokenStream(lambda _: None, Metrics().model("").submitted(len(PROMPT), 0.0))
    request = EngineRequest(
        prompt_ids=PROMPT,
        max_tokens=9,
        sampling=SamplingParams(),
        top_logprobs=top_logprobs,
        prompt_logprobs=prompt_logprobs,
    )
    rules = {"grammar": None, "stop": (), "silent_ids": frozenset(), "format": None}
    rules |= {"tool_names": (), "calls_required": False, "prompt_only": False}
    prepared = Prepared(engine=request, **{**rules, **fields})

    async def play() -> None:
        for together in events:
            for event in together:
                stream.put(event)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    made = EngineGeneration("m", SamplingParams(), stream, TextReader(tokenizer, prepared))
    made.playing = asyncio.create_task(play())
    return made


def one_by_one(text: str, last: TokenEvent | None = None) -> list[list[TokenEvent]]:
    end = last or token(EOS_ID, finish_reason=FinishReason.STOP)
    return [[token(token_id)] for token_id in byte_ids(text)] + [[end]]


def spelled(event: TextDelta) -> bytes:
    return b"".join(one.bytes for one in event.logprobs)


async def events_of(made: EngineGeneration) -> list:
    return [event async for event in made]


async def test_each_token_comes_with_its_text():
    *deltas, finished = await events_of(
        generation(one_by_one("a🦊b"), silent_ids=frozenset([EOS_ID]))
    )
    assert [(event.text, spelled(event)) for event in deltas] == [
        ("a", b"a"),
        ("🦊", "🦊".encode()),
        ("b", b"b"),
    ]
    [fox] = [event for event in deltas if event.text == "🦊"]
    assert [one.text for one in fox.logprobs] == ["\ufffd"] * 4
    assert [one.logprob for one in fox.logprobs] == [-float(i) for i in byte_ids("🦊")]
    assert finished == Finished(FinishReason.STOP, Usage(2, 7))


async def test_no_logprobs_are_given_to_who_did_not_ask():
    made = generation(one_by_one("ab"), top_logprobs=None, silent_ids=frozenset([EOS_ID]))
    assert (await collect(made)).logprobs == ()


async def test_a_token_of_a_grammar_that_ends_the_text_is_text():
    last = token(*byte_ids("}"), finish_reason=FinishReason.STOP)
    whole = await collect(generation(one_by_one("{", last), silent_ids=frozenset([EOS_ID])))
    assert whole.text == "{}"
    assert [one.text for one in whole.logprobs] == ["{", "}"]
    assert whole.finished.reason is FinishReason.STOP


async def test_a_stop_id_is_no_text_even_where_it_is_a_letter():
    [letter] = byte_ids("x")
    last = token(letter, finish_reason=FinishReason.STOP)
    whole = await collect(generation(one_by_one("ax", last), silent_ids=frozenset([letter])))
    assert whole.text == "ax", "only the last x ended the text"
    assert len(whole.logprobs) == 2


@given(st.text("abE", max_size=8), st.booleans())
def test_tokens_are_those_of_the_text_wherever_it_is_stopped(text, together):
    async def scenario() -> None:
        events = one_by_one(text)
        if together:
            events = [[one for part in events for one in part]]
        made = generation(events, stop=STOPS, silent_ids=frozenset([EOS_ID]))
        text_so_far, tokens_so_far = "", b""
        async for event in made:
            if isinstance(event, TextDelta):
                assert event.text or event.logprobs
                text_so_far += event.text
                tokens_so_far += spelled(event)
                assert tokens_so_far.decode() == text_so_far, "no token before or after its text"
        found = [(text.find(stop) + len(stop), stop) for stop in STOPS if stop in text]
        end, stop = min(found, default=(len(text), ""))
        assert text_so_far == text[:end].removesuffix(stop)
        await made.playing

    asyncio.run(scenario())


async def test_a_token_that_a_stop_string_cuts_keeps_its_logprob_and_later_ones_are_nobodys():
    tokenizer = BYTES.from_str(BYTES.to_str())
    tokenizer.add_tokens(["xEN"])
    long = tokenizer.token_to_id("xEN")
    events = [[token(i)] for i in (*byte_ids("a"), long, *byte_ids("D"))]
    whole = await collect(generation(events, tokenizer=tokenizer, stop=("END",)))
    assert whole.text == "ax"
    assert [one.text for one in whole.logprobs] == ["a", "xEN"]
    assert whole.finished == Finished(FinishReason.STOP, Usage(2, 3), stop_string="END")


async def test_half_a_character_at_the_end_keeps_its_tokens():
    half = byte_ids("🦊")[:2]
    last = token(half[1], finish_reason=FinishReason.LENGTH)
    whole = await collect(generation([[token(half[0])], [last]]))
    assert whole.text == "\ufffd"
    assert b"".join(one.bytes for one in whole.logprobs) == "🦊".encode()[:2]


async def test_a_special_token_in_the_text_comes_with_no_text_of_its_own():
    events = [[token(EOS_ID)], *one_by_one("a")]
    whole = await collect(generation(events, silent_ids=frozenset([EOS_ID])))
    assert (whole.text, [one.text for one in whole.logprobs]) == ("a", ["<|im_end|>", "a"])


async def test_the_prompts_logprobs_come_first_and_once():
    first = token(*byte_ids("a"), prompt_logprobs=(ScoredToken(PROMPT[1], -3.0),))
    made = generation([[first], *one_by_one("b")], prompt_logprobs=0)
    events = await events_of(made)
    assert isinstance(events[0], PromptLogprobs)
    assert [(one.text, one.logprob) for one in events[0].tokens] == [("H", None), ("i", -3.0)]
    assert sum(isinstance(event, PromptLogprobs) for event in events) == 1


async def test_others_have_their_turn_while_a_long_prompts_logprobs_are_spelled_out():
    top = tuple((token_id, -1.0) for token_id in range(20))
    first = token(
        *byte_ids("a"), prompt_logprobs=tuple(ScoredToken(n % 9, -3.0, top) for n in range(3000))
    )
    made = generation([[first], *one_by_one("b")], prompt_logprobs=20)
    await asyncio.gather(made.playing)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    taking = asyncio.create_task(take_turns())
    event = await anext(made)  # its tokens are there: nothing else is waited for
    taking.cancel()
    assert isinstance(event, PromptLogprobs)
    assert len(event.tokens) == 3001
    assert turns >= 10
    await made.aclose()


async def test_a_request_for_the_prompt_alone_gives_no_token():
    first = token(*byte_ids("a"), prompt_logprobs=(ScoredToken(PROMPT[1], -3.0),))
    made = generation([[first], *one_by_one("b")], prompt_logprobs=0, prompt_only=True)
    [prompt, finished] = await events_of(made)
    assert isinstance(prompt, PromptLogprobs)
    assert finished == Finished(FinishReason.LENGTH, Usage(2, 0))


async def test_progress_of_the_prompt_comes_before_its_logprobs():
    news = [TokenEvent(None, prompt=PromptState(n, 1, n / 4)) for n in (1, 2)]
    first = token(*byte_ids("a"), prompt_logprobs=(ScoredToken(PROMPT[1], -3.0),), cached_tokens=1)
    # each alone, and all that a slow reader finds at once
    for together in ([[news[0]], [news[1]], [first]], [[*news, first]]):
        events = await events_of(generation([*together, *one_by_one("b")], prompt_logprobs=0))
        assert events[:2] == [PromptProgress(2, 1, 1, 0.25), PromptProgress(2, 1, 2, 0.5)]
        assert isinstance(events[2], PromptLogprobs)
        assert [one.logprob for one in events[2].tokens] == [None, -3.0]
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "ab"
        assert events[-1].usage == Usage(2, 3, 1)


async def test_cached_tokens_are_those_of_the_first_event():
    first = TokenEvent(*byte_ids("a"), cached_tokens=2)
    whole = await collect(generation([[first], *one_by_one("b")]))
    assert whole.finished.usage.cached_tokens == 2


def calling(
    text: str, *, format_=HERMES, tokenizer=BYTES, events=None, **fields
) -> EngineGeneration:
    return generation(
        events or one_by_one(text),
        tokenizer=tokenizer,
        silent_ids=frozenset([EOS_ID]),
        format=format_,
        tool_names=("now",),
        **fields,
    )


async def test_a_call_is_told_as_deltas_and_collected_as_one():
    events = await events_of(calling(f"Wait.\n{CALL}"))
    begun = [event for event in events if isinstance(event, ToolCallDelta) and event.id]
    assert [(event.index, event.name) for event in begun] == [(0, "now")]
    pieces = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    assert "".join(pieces) == '{"a": 1}'
    assert len(pieces) > 5, "arguments are streamed"
    whole = await collect(calling(f"Wait.\n{CALL}\n{CALL}"))
    assert whole.text == "Wait."
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [("now", '{"a": 1}')] * 2
    assert all(isinstance(call, ToolCall) and call.id for call in whole.tool_calls)


async def test_logprobs_beside_a_call_are_those_of_the_text():
    whole = await collect(calling(f"Wait.\n{CALL}"))
    assert b"".join(one.bytes for one in whole.logprobs) == b"Wait."
    plain = await collect(calling("Wait, <tool"))
    assert plain.text == "Wait, <tool"
    assert b"".join(one.bytes for one in plain.logprobs) == b"Wait, <tool"


async def test_a_special_token_that_marks_a_call_is_seen():
    tokenizer = BYTES.from_str(BYTES.to_str())
    tokenizer.add_special_tokens(["[TOOL_CALLS]"])
    ids = tokenizer.encode('[TOOL_CALLS] [{"name": "now", "arguments": {}}]').ids
    assert tokenizer.token_to_id("[TOOL_CALLS]") in ids, "or this proves nothing"
    events = [[token(i)] for i in ids] + [[token(EOS_ID, finish_reason=FinishReason.STOP)]]
    whole = await collect(calling("", format_=MISTRAL, tokenizer=tokenizer, events=events))
    assert (whole.text, [call.name for call in whole.tool_calls]) == ("", ["now"])


async def test_held_text_before_a_failure_is_not_an_answer():
    failed = TokenEvent(None, FinishReason.ERROR, EngineFailure("broke"))
    made = calling("", events=[[token(i) for i in byte_ids("a <tool")], [failed]])
    assert (await anext(made)).text == "a"
    with pytest.raises(EngineFailure, match="broke"):
        await anext(made)
