"""Draft tokens change how many come in a run, and never which."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract.sampling import FinishReason, SamplingParams
from app.engine.drafts import MAX_PAUSE, Drafts
from app.engine.engine import Engine
from app.runtime.decoder import FloatArray, StepInput
from tests.engine.driving import FixedPace, request, run, tokens
from tests.engine.scripted import ScriptedDecoder, expected_tokens, fail_when

TEXT = [1, 2, 3, 4, 5, 6, 7, 8, 9]


class LoopingDecoder(ScriptedDecoder):
    """Says the tokens 0 … period - 1 again and again."""

    period = 7

    def run(self, step: StepInput) -> FloatArray:
        logits = super().run(step)
        for i in range(len(logits)):
            last = step.token_ids[i, -logits.shape[1] :]
            logits[i] = -1.0
            logits[i, np.arange(logits.shape[1]), (last + 1) % self.period] = 0.0
        return logits


def test_what_followed_the_same_tokens_before_is_proposed():
    drafts = Drafts(8)
    assert drafts.propose(TEXT) == []
    assert drafts.propose([*TEXT, 1, 2, 3]) == [4, 5, 6, 7]
    assert drafts.propose([*TEXT, 1, 2, 3, 4]) == [5, 6, 7, 8]


def test_the_latest_occurrence_counts():
    assert Drafts(2).propose([1, 2, 3, 7, 7, 1, 2, 3, 8, 8, 1, 2, 3]) == [8, 8]


def test_drafts_grow_while_they_are_accepted_and_shrink_when_not():
    drafts = Drafts(16)
    text = [*range(40), 0, 1, 2]
    lengths = [len(drafts.propose(text))]
    for accepted in (4, 8, 3):
        drafts.note(lengths[-1], accepted, len(text))
        lengths.append(len(drafts.propose(text)))
    assert lengths == [4, 8, 16, 4]


def test_rejected_drafts_are_followed_by_longer_and_longer_pauses():
    drafts, text, tried = Drafts(4), [1, 2, 3, 9], []
    for _ in range(1000):
        if drafts.propose([*text, 1, 2, 3]):
            tried.append(len(text))
            drafts.note(4, 0, len(text) + 3)
        text.append(9)
    pauses = np.diff(tried)
    assert pauses.tolist() == sorted(pauses)
    assert pauses[-1] >= MAX_PAUSE


def test_a_text_that_repeats_itself_takes_fewer_runs():
    runs = {}
    for draft_tokens in (0, 8):
        decoder = LoopingDecoder(1, 128, 101)
        engine = Engine(decoder, FixedPace(busy=8, idle=20), draft_tokens=draft_tokens)
        engine.add(0, request([0, 1, 2, 3, 4, 5, 6, 0, 1, 2], 60))
        assert tokens(run(engine)[0]) == [(3 + i) % 7 for i in range(60)]
        runs[draft_tokens] = len(decoder.steps)
    assert runs[0] == 60
    assert runs[8] < 15


@settings(deadline=None)
@given(
    prompt=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    count=st.integers(1, 40),
    draft_tokens=st.integers(1, 12),
    vocab_size=st.sampled_from([3, 4, 101]),
)
def test_greedy_tokens_are_the_same_with_and_without_drafts(
    prompt, count, draft_tokens, vocab_size
):
    capacity = 64
    engine = Engine(
        ScriptedDecoder(1, capacity, vocab_size),
        FixedPace(busy=8, idle=20),
        draft_tokens=draft_tokens,
    )
    prompt = [token % vocab_size for token in prompt]
    engine.add(0, request(prompt, count))
    events = run(engine)[0]
    room = capacity - len(prompt) + 1
    assert tokens(events) == expected_tokens(prompt, min(count, room), vocab_size)
    assert events[-1].finish_reason is FinishReason.LENGTH


def test_sampled_tokens_are_those_of_the_same_seed_without_drafts():
    sampling = SamplingParams(temperature=2.0, seed=5)
    found = []
    for draft_tokens in (0, 6):
        engine = Engine(
            ScriptedDecoder(1, 128, 4), FixedPace(busy=8, idle=20), draft_tokens=draft_tokens
        )
        engine.add(0, request([0, 1, 2, 0, 1, 2], 100, sampling=sampling))
        found.append(tokens(run(engine)[0]))
    assert found[0] == found[1]
    assert len(set(found[0])) == 4, "all tokens must come, or this proves nothing"


def test_drafts_leave_the_distribution_alone():
    """A draft is always there and right a quarter of the time; 3,000 draws over 4 tokens.

    Chi-square with 3 degrees of freedom above 21 has a chance of 1 in 9,000; the seeds are fixed.
    """
    weights = np.array([0.1, 0.2, 0.3, 0.4])

    class Fixed(ScriptedDecoder):
        def run(self, step: StepInput) -> FloatArray:
            logits = super().run(step)
            logits[:] = np.log(weights)
            return logits

    counts: Counter[int] = Counter()
    decoder = Fixed(1, 128, 4)
    engine = Engine(decoder, FixedPace(busy=8, idle=64), draft_tokens=4)
    for i in range(30):
        engine.add(i, request([0, 1, 2, 3, 0, 1, 2], 100, sampling=SamplingParams(seed=i)))
        counts.update(tokens(run(engine)[i]))
    assert any(step.all_logits for step in decoder.steps), "nothing was drafted"
    expected = 3000 * weights
    observed = np.array([counts[i] for i in range(4)])
    assert ((observed - expected) ** 2 / expected).sum() < 21, observed


def test_a_stop_id_inside_a_draft_ends_the_sequence_there():
    engine = Engine(LoopingDecoder(1, 128, 101), FixedPace(busy=8, idle=20), draft_tokens=6)
    engine.add(0, request([*range(7), 0, 1, 2], 60, stop_ids=frozenset({5})))
    events = run(engine)[0]
    assert tokens(events) == [3, 4, 5]
    assert events[-1].finish_reason is FinishReason.STOP


def test_a_failure_while_verifying_fails_that_sequence_alone():
    failing = fail_when(lambda step: step.all_logits)
    decoder = LoopingDecoder(2, 128, 101, before_run=failing)
    engine = Engine(decoder, FixedPace(busy=8, idle=20), draft_tokens=6)
    engine.add(0, request([*range(7), 0, 1, 2], 20))
    assert run(engine)[0][-1].finish_reason is FinishReason.ERROR
    engine.add(1, request([50], 5))
    assert len(tokens(run(engine)[1])) == 5


def test_tokens_verified_before_a_failure_in_the_same_run_are_handed_over():
    class Poisoned(LoopingDecoder):
        def run(self, step: StepInput) -> FloatArray:
            logits = super().run(step)
            if step.all_logits:
                logits[0, 2] = np.nan
            return logits

    engine = Engine(Poisoned(1, 128, 101), FixedPace(busy=8, idle=20), draft_tokens=4)
    engine.add(0, request([*range(7), 0, 1, 2], 20))
    events = run(engine)[0]
    assert tokens(events) == [3, 4, 5], "one out of the prompt, two out of the draft"
    assert events[-1].finish_reason is FinishReason.ERROR


@pytest.mark.parametrize("logprobs", [None, 2])
def test_each_token_has_its_own_logprobs(logprobs):
    engine = Engine(LoopingDecoder(1, 128, 101), FixedPace(busy=8, idle=20), draft_tokens=6)
    engine.add(0, request([*range(7), 0, 1, 2], 12, top_logprobs=logprobs))
    for event in run(engine)[0]:
        if logprobs is None:
            assert event.logprobs is None
        else:
            assert event.logprobs.token_id == event.token_id == event.logprobs.top[0][0]
