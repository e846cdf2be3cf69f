"""The sampler against Transformers' own processors and against a plain reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.engine.sampler import distribution, draw, kth_largest, penalise, sample
from app.engine.sequence import EngineRequest, SamplingParams, SeenIds, Sequence
from app.errors import EngineFailure

# coarse values, so that ties are common
rows = hnp.arrays(
    np.float32, st.integers(1, 400), elements=st.integers(-40, 40).map(lambda x: x / 8)
)


def sequence(prompt: list[int], **params) -> Sequence:
    request = EngineRequest(prompt_ids=prompt, max_tokens=9, sampling=SamplingParams(**params))
    return Sequence.start(0, request, now_s=0.0)


@given(row=rows, data=st.data())
def test_kth_largest_is_the_one_that_sorting_finds(row, data):
    k = data.draw(st.integers(1, row.size))
    assert kth_largest(row, k) == np.sort(row)[-k]


@settings(deadline=None, max_examples=200)
@given(
    row=rows,
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.0]),
    top_k=st.integers(0, 100),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.99, 1.0]),
)
def test_distribution_equals_transformers(row, temperature, top_k, top_p):
    torch = pytest.importorskip("torch", reason="the export extra brings Transformers")
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = torch.tensor(row.astype(np.float64))[None]
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1.0:
        scores = TopPLogitsWarper(top_p)(None, scores)
    theirs = torch.softmax(scores, -1)[0].numpy()

    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    ids, weights = distribution(row, params)
    ours = np.zeros(row.size)
    ours[ids] = weights / weights.sum()
    # Which of several equal tokens stand at the nucleus's edge is not defined: compare by value.
    for value in np.unique(row):
        same = row == value
        np.testing.assert_allclose(ours[same].sum(), theirs[same].sum(), atol=1e-6)


@given(row=rows, penalty=st.sampled_from([1.0, 1.15, 2.0]), data=st.data())
def test_penalty_equals_transformers(row, penalty, data):
    torch = pytest.importorskip("torch", reason="the export extra brings Transformers")
    from transformers import RepetitionPenaltyLogitsProcessor

    ids = data.draw(st.lists(st.integers(0, row.size - 1), min_size=1, max_size=30))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([ids]), torch.tensor(row)[None].clone()
    )[0].numpy()
    ours = row.copy()
    penalise(ours, SeenIds(ids).ids, penalty)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@given(st.lists(st.integers(0, 500)), st.lists(st.integers(0, 500)))
def test_seen_ids_are_the_distinct_ones(first, later):
    seen = SeenIds(first)
    for token_id in later:
        seen.add(token_id)
    assert sorted(seen.ids.tolist()) == sorted(set(first) | set(later))


def test_draws_follow_the_weights():
    ids, weights = np.array([3, 8, 11]), np.array([0.2, 0.5, 0.3])
    rng = np.random.default_rng(7)
    drawn = [draw(ids, weights, rng) for _ in range(20_000)]
    shares = [drawn.count(i) / len(drawn) for i in ids]
    # a share's standard deviation is at most 0.0036; 5 of them miss once in 1.7 million seeds
    np.testing.assert_allclose(shares, weights, atol=0.018)


def test_a_token_without_weight_is_never_drawn():
    class Edge:
        def __init__(self, value):
            self.random = lambda: value

    ids, weights = np.array([1, 2, 3, 4]), np.array([0.0, 0.5, 0.0, 0.5])
    assert [draw(ids, weights, Edge(v)) for v in (0.0, 0.5, np.nextafter(1, 0))] == [2, 4, 4]


def test_a_row_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4, 1000)).astype(np.float32)
    kinds = [
        {"temperature": 0.7, "top_k": 80, "top_p": 0.9, "repetition_penalty": 1.15, "seed": 1},
        {"temperature": 1.3, "seed": 2},
        {"temperature": 0.0, "repetition_penalty": 1.5},
        {"temperature": 0.9, "top_p": 0.8, "seed": 4},
    ]
    together = sample(logits.copy(), {i: sequence([i, 50], **k) for i, k in enumerate(kinds)})
    for i, kind in enumerate(kinds):
        alone = sample(logits[i : i + 1].copy(), {0: sequence([i, 50], **kind)})
        assert alone[0] == together[i]


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    logits = np.random.default_rng(0).normal(0, 1, (1, 1000)).astype(np.float32)

    def tokens(seed: int | None) -> list[int]:
        one = sequence([1], temperature=1.0, seed=seed)
        return [sample(logits.copy(), {0: one})[0] for _ in range(20)]

    assert tokens(5) == tokens(5)
    # 20 draws over 1000 tokens: equal by chance less than once in 10^40
    assert tokens(5) != tokens(6)
    assert tokens(None) != tokens(None)


def test_temperature_zero_and_top_k_one_are_greedy():
    logits = np.array([[0.0, 3.0, 1.0]], np.float32)
    for params in ({"temperature": 0.0}, {"top_k": 1}):
        assert sample(logits.copy(), {0: sequence([0], **params)})[0] == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_with_nan_or_infinity_is_a_failure_of_that_row(bad):
    logits = np.zeros((2, 200), np.float32)
    logits[1, 77] = bad
    chosen = sample(logits, {0: sequence([0], seed=1), 1: sequence([0], seed=1)})
    assert isinstance(chosen[0], int)
    assert isinstance(chosen[1], EngineFailure)
    assert str(bad) in str(chosen[1])
