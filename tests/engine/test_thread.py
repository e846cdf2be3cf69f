"""The hand-over between the event loop and the engine's thread."""

import asyncio
import threading

import pytest

from app.contract.sampling import FinishReason
from app.engine.sequence import TokenEvent
from app.engine.stream import TokenStream
from app.engine.thread import EngineThread
from app.errors import BatchTooLarge, EngineFailure, Overloaded, ShuttingDown
from app.metrics import Metrics
from tests.engine.driving import request
from tests.engine.scripted import ScriptedDecoder, expected_tokens, fail_when
from tests.fakes import PATIENCE_S
from tests.test_metrics import samples


def submit(
    engine: EngineThread, prompt: list[int], max_tokens: int = 5, client: str = ""
) -> TokenStream:
    with engine.reserve(1, client) as places:
        return places.submit(request(prompt, max_tokens, client=client))


async def all_events(stream: TokenStream) -> list[TokenEvent]:
    events: list[TokenEvent] = []
    while not events or events[-1].finish_reason is None:
        events += await stream.next()
    return events


class Clock:
    """Stands still but for what a test adds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Gate:
    """Holds the decoder in its next step until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, _) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE_S)


async def test_requests_get_their_tokens_and_give_their_places_back():
    decoder = ScriptedDecoder(slots=3)
    engine = EngineThread(decoder, max_waiting=10)
    prompts = [[i, i + 1] for i in range(10)]
    streams = [submit(engine, prompt) for prompt in prompts]
    results = await asyncio.gather(*map(all_events, streams))
    for prompt, events in zip(prompts, results, strict=True):
        assert [e.token_id for e in events] == expected_tokens(prompt, 5, decoder.vocab_size)
    assert engine.num_requests == 0
    await engine.stop(1.0)
    assert engine.load.running == engine.load.waiting == 0
    assert decoder.closed


async def test_who_hears_of_the_end_of_a_request_does_not_find_it_running():
    entered, turns = threading.Event(), threading.Semaphore(0)

    def wait_for_a_turn(_) -> None:
        entered.set()
        assert turns.acquire(timeout=PATIENCE_S)

    engine = EngineThread(ScriptedDecoder(before_run=wait_for_a_turn), max_waiting=5)
    first = submit(engine, [1, 2], 2)
    await asyncio.to_thread(entered.wait)
    second = submit(engine, [3, 4, 5], 1)
    # the first one's prompt, then in one step its last token and, held, the second one's prompt
    turns.release(2)
    await all_events(first)
    assert engine.load.kv_tokens == 0, "the step is under way, and the first is over"
    turns.release()
    await all_events(second)
    assert engine.load.running == engine.load.waiting == 0
    await engine.stop(1.0)


async def test_who_hears_of_its_prompt_has_a_slot():
    engine = EngineThread(ScriptedDecoder(), max_waiting=5, clock_s=Clock())
    with engine.reserve() as places:
        stream = places.submit(request([1, 2, 3], 2, progress=True))
    events = await stream.next()
    assert events[0].prompt is not None
    assert stream.times.admitted_s is not None
    while events[-1].finish_reason is None:
        events += await stream.next()
    assert stream.times.generated_tokens == 2, "news of the prompt are no tokens"
    await engine.stop(1.0)


async def test_a_full_queue_is_refused_at_once_with_its_numbers():
    gate = Gate()
    engine = EngineThread(ScriptedDecoder(slots=1, before_run=gate), max_waiting=1)
    streams = [submit(engine, [1]), submit(engine, [2])]
    with pytest.raises(Overloaded, match="2 requests are running or waiting, the limit is 2"):
        engine.reserve()
    gate.opened.set()
    await asyncio.gather(*map(all_events, streams))
    assert len(await all_events(submit(engine, [3]))) == 5
    await engine.stop(1.0)


async def test_a_client_that_holds_the_queue_lets_another_in_before_it_gets_more():
    turns = threading.Semaphore(0)

    def wait_for_a_turn(_) -> None:
        assert turns.acquire(timeout=PATIENCE_S)

    decoder = ScriptedDecoder(slots=1, before_run=wait_for_a_turn)
    engine = EngineThread(decoder, max_waiting=2, clock_s=Clock())
    flood = [submit(engine, [i], 1, client="flood") for i in range(3)]
    with pytest.raises(Overloaded, match="3 requests are running or waiting, the limit is 3"):
        engine.reserve(1, "ada")
    turns.release()
    await all_events(flood[0])
    turns.release()
    await all_events(flood[1])
    # one of the flood's is left, and one place of two is its share while ada may come back
    with pytest.raises(Overloaded, match="1 requests of this client wait beside others', the "):
        engine.reserve(2, "flood")
    ada = submit(engine, [9], 1, client="ada")
    turns.release(2)
    assert len(await all_events(ada)) == 1
    await all_events(flood[2])
    again = engine.reserve(3, "flood")
    with again:
        assert engine.num_requests == 3
    assert engine.num_requests == 0
    await engine.stop(1.0)


async def test_reserving_several_places_is_all_or_nothing_and_unused_ones_come_back():
    engine = EngineThread(ScriptedDecoder(slots=1), max_waiting=2)
    with pytest.raises(BatchTooLarge, match="4 prompts, at most 3"):
        engine.reserve(4)
    with engine.reserve(3) as places:
        with pytest.raises(Overloaded):
            engine.reserve()
        stream = places.submit(request([1]))
    assert engine.num_requests <= 1
    await all_events(stream)
    await engine.stop(1.0)


async def test_abort_frees_the_slot_of_a_running_and_of_a_waiting_request():
    gate = Gate()
    decoder = ScriptedDecoder(slots=1, capacity=10_000, before_run=gate)
    engine = EngineThread(decoder, max_waiting=5)
    running, waiting = submit(engine, [1], 9000), submit(engine, [2], 9000)
    await asyncio.to_thread(gate.entered.wait)
    for stream in (running, waiting, running):
        stream.abort()
    assert engine.num_requests == 0, "a place is free at once, the slot at the next step"
    gate.opened.set()
    assert len(await all_events(submit(engine, [3]))) == 5
    await engine.stop(1.0)
    assert engine.load.running == engine.load.waiting == 0


async def test_stop_lets_running_requests_finish_and_refuses_new_ones():
    gate = Gate()
    decoder = ScriptedDecoder(before_run=gate)
    engine = EngineThread(decoder, max_waiting=5)
    stream = submit(engine, [1])
    stopping = asyncio.create_task(engine.stop(PATIENCE_S))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        engine.reserve()
    gate.opened.set()
    events = await all_events(stream)
    assert [e.token_id for e in events] == expected_tokens([1], 5, decoder.vocab_size)
    await stopping


async def test_stop_ends_what_outlasts_the_drain_with_an_error():
    engine = EngineThread(ScriptedDecoder(capacity=10**6), max_waiting=5)
    stream = submit(engine, [1], 10**6)
    await engine.stop(0.05)
    last = (await all_events(stream))[-1]
    assert last.finish_reason is FinishReason.ERROR
    assert "shutting down" in str(last.error)


async def test_what_is_prepared_while_the_engine_ends_is_told_to_come_again():
    """Not that something failed: a batch would write that down as the line's answer."""
    engine = EngineThread(ScriptedDecoder(), max_waiting=5)
    with engine.reserve() as places:
        await engine.stop(0.0)
        with pytest.raises(ShuttingDown):
            places.submit(request([1]))
    with pytest.raises(ShuttingDown):
        engine.reserve()


async def test_a_broken_engine_answers_who_waits_and_takes_nothing_new():
    def bug(_) -> None:
        raise ZeroDivisionError("not a decoder failure")

    engine = EngineThread(ScriptedDecoder(slots=1, before_run=bug), max_waiting=5)
    streams = [submit(engine, [1]), submit(engine, [2])]
    for stream in streams:
        last = (await all_events(stream))[-1]
        assert isinstance(last.error, EngineFailure)
    assert isinstance(engine.failure, ZeroDivisionError)
    with pytest.raises(EngineFailure):
        engine.reserve()
    await engine.stop(0.1)


async def test_a_decoder_failure_leaves_the_thread_going():
    decoder = ScriptedDecoder(before_run=fail_when(lambda s: s.token_ids.shape[1] == 3))
    engine = EngineThread(decoder, max_waiting=5)
    bad, good = submit(engine, [1, 2, 3]), submit(engine, [4])
    assert (await all_events(bad))[-1].finish_reason is FinishReason.ERROR
    assert len(await all_events(good)) == 5
    assert engine.failure is None
    await engine.stop(1.0)


async def test_a_request_outside_the_vocabulary_fails_alone_be_it_the_first():
    metrics = Metrics()
    engine = EngineThread(ScriptedDecoder(vocab_size=101), 5, metrics.model("a/b"))
    with engine.reserve() as places:
        bad = places.submit(request([1], stop_ids=frozenset({151_645})))
    [event] = await all_events(bad)
    assert event.finish_reason is FinishReason.ERROR
    assert "stop_ids has token 151645, the model's vocabulary is 0 to 100" in str(event.error)
    assert len(await all_events(submit(engine, [4]))) == 5
    assert engine.failure is None
    assert engine.num_requests == 0
    await engine.stop(1.0)
    assert samples(metrics)["request_success_total", "finished_reason=error"] == 1


async def test_what_is_counted_is_what_happened():
    metrics = Metrics()
    engine = EngineThread(ScriptedDecoder(slots=1), 9, metrics.model("a/b"))
    # the second is over in the step that admits it
    asked = [([1, 2, 3], 5), ([4], 1), ([5, 6], 4)]
    await asyncio.gather(*(all_events(submit(engine, *each)) for each in asked))
    failed = submit(engine, [7], 9000)
    failed.abort()
    stopped = submit(engine, [8], 9000)
    stopped.abort(FinishReason.STOP)
    await engine.stop(1.0)
    found = samples(metrics)
    ends = {"length": 3, "abort": 1, "stop": 1, "error": 0}
    for reason, count in ends.items():
        assert found["request_success_total", f"finished_reason={reason}"] == count, reason
    assert found["prompt_tokens_total", ""] == 3 + 1 + 2
    assert found["generation_tokens_total", ""] == 5 + 1 + 4
    for name, count in {"time_to_first_token": 3, "inter_token_latency": 4 + 0 + 3}.items():
        assert found[f"{name}_seconds_count", ""] == count, name
    for name in ("request_queue_time", "request_prefill_time"):
        assert found[f"{name}_seconds_count", ""] == 3, name
    parts = ("request_queue_time", "request_prefill_time", "request_decode_time")
    whole = found["e2e_request_latency_seconds_sum", ""]
    assert sum(found[f"{part}_seconds_sum", ""] for part in parts) <= whole
    assert found["engine_steps_total", ""] == engine.load.steps > 0
    # every token but the last of each text is fed, of `failed` and `stopped` none or some
    fed = found["iteration_tokens_total_sum", ""]
    assert fed >= (3 + 4) + 1 + (2 + 3)
    assert found["iteration_tokens_total_count", ""] <= engine.load.steps
    assert found["request_params_n_count", ""] == 3 + 1, "of those that ended by themselves"
    assert found["request_params_max_tokens_sum", ""] == 5 + 1 + 4 + 9000
    assert found["models_loaded", ""] == 0


async def test_time_in_the_queue_and_time_in_a_slot_are_told_apart():
    clock, turns = Clock(), threading.Semaphore(0)

    def take_a_second(_) -> None:
        assert turns.acquire(timeout=PATIENCE_S)
        clock.now_s += 1.0

    decoder = ScriptedDecoder(slots=1, before_run=take_a_second)
    metrics = Metrics()
    engine = EngineThread(decoder, 9, metrics.model("a/b"), clock_s=clock)
    streams = [submit(engine, [1], 5), submit(engine, [2], 5)]
    for stream in streams:
        for _ in range(5):  # a run begins when the token of the one before has arrived
            turns.release()
            await stream.next()
    await engine.stop(1.0)
    found = samples(metrics)
    times_s = {
        "request_queue_time": 0 + 5,
        "request_prefill_time": 1 + 1,
        "time_to_first_token": 1 + 6,
        "inter_token_latency": 4 + 4,
        "request_decode_time": 4 + 4,
        "e2e_request_latency": 5 + 10,
    }
    for name, seconds in times_s.items():
        assert found[f"{name}_seconds_sum", ""] == seconds, name


async def test_the_gauges_show_slots_queue_and_cache_of_the_latest_step():
    gate = Gate()
    # steps feed [1, 2, 3], then a token each; the gate holds the third run
    decoder = ScriptedDecoder(
        slots=1, capacity=10, before_run=lambda _: len(decoder.steps) < 3 or gate(_)
    )
    metrics = Metrics()
    engine = EngineThread(decoder, 9, metrics.model("a/b"))
    streams = [submit(engine, [1, 2, 3]), submit(engine, [4])]
    await asyncio.to_thread(gate.entered.wait)
    found = samples(metrics)
    gauges = ("slots", "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    assert [found[gauge, ""] for gauge in gauges] == [1, 1, 1, 0.4]
    gate.opened.set()
    await asyncio.gather(*map(all_events, streams))
    await engine.stop(1.0)


async def test_a_stuck_step_grows_old_even_when_nobody_waits_for_it():
    gate, clock = Gate(), Clock()
    engine = EngineThread(ScriptedDecoder(before_run=gate), max_waiting=5, clock_s=clock)
    assert engine.step_age_s == 0
    stream = submit(engine, [1])
    await asyncio.to_thread(gate.entered.wait)
    stream.abort()
    assert engine.num_requests == 0
    clock.now_s += 7.0
    assert engine.step_age_s == 7.0
    gate.opened.set()
    await engine.stop(1.0)
    assert engine.step_age_s == 0
