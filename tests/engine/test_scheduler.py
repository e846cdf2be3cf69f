"""Slots are given and plans made from counters: order of arrival, token budget, gaps."""

from hypothesis import given
from hypothesis import strategies as st

from app.contract.sampling import SamplingParams
from app.engine.scheduler import Chunk, Move, Scheduler, StepPlan, TokenBudget
from app.engine.sequence import EngineRequest, Sequence

BUDGET = TokenBudget(busy=8, idle=8)


def sequence(request_id: int, num_prompt: int) -> Sequence:
    request = EngineRequest(
        prompt_ids=[1] * num_prompt, max_tokens=10, sampling=SamplingParams(temperature=0.0)
    )
    return Sequence.start(request_id, request, vocab_size=101, now_s=0.0)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=10),
    slots=st.integers(1, 4),
    idle=st.integers(3, 30),
    busy=st.integers(3, 30),
    first=st.integers(2, 20),
)
def test_no_step_feeds_more_than_its_budget_and_every_prompt_gets_its_turn(
    lengths, slots, idle, busy, first
):
    scheduler = Scheduler(slots, can_copy_slots=True, min_first_chunk=first)
    for i, length in enumerate(lengths):
        scheduler.add(sequence(i, length))
    first_tokens = []
    for _ in range(1000):
        if scheduler.idle:
            break
        scheduler.admit()
        plan = scheduler.plan(TokenBudget(busy=busy, idle=idle))
        prefilling = [each for each in scheduler.running if each.prefilling]
        fed = sum(chunk.num_tokens for chunk in plan.prefill)
        opens = bool(plan.prefill) and not plan.prefill[0].sequence.num_computed
        # but for a first chunk that has to be larger, or larger by one that would be left alone
        assert fed <= max(busy if plan.decode else idle, first + 1 if opens else 0)
        assert plan.decode or fed, "a step that does nothing would never end"
        assert [c.sequence for c in plan.prefill] == prefilling[: len(plan.prefill)], "oldest first"
        for chunk in plan.prefill:
            assert chunk.num_tokens > 1 or chunk.sequence.num_prompt == 1, "a lone token"
            if chunk.sequence.num_prompt >= first:
                assert chunk.sequence.num_computed + chunk.num_tokens >= first
            chunk.sequence.num_computed += chunk.num_tokens
            if not chunk.sequence.prefilling:
                chunk.sequence.append(0)
                first_tokens.append(chunk.sequence.request_id)
        for decoding in plan.decode:
            decoding.num_computed += 1
            decoding.append(0)
            if decoding.num_generated == 4:
                scheduler.remove(decoding)
        scheduler.check()
    assert sorted(first_tokens) == list(range(len(lengths)))


def state(scheduler: Scheduler, sequences: list[Sequence]) -> list[object]:
    """All that a step's plan could change."""
    each = [(s.slot, s.num_computed, s.cached_tokens, len(s.token_ids)) for s in sequences]
    return [each, scheduler.running, scheduler.num_waiting]


def test_planning_changes_nothing_and_says_the_same_twice():
    scheduler = Scheduler(2, can_copy_slots=True)
    sequences = [sequence(i, length) for i, length in enumerate((1, 9, 9))]
    for each in sequences:
        scheduler.add(each)
    before = state(scheduler, sequences)
    assert scheduler.plan(BUDGET) == StepPlan([], [], 0), "nobody has a slot yet"
    assert state(scheduler, sequences) == before
    scheduler.admit()
    sequences[0].num_computed = 1
    sequences[0].append(0)
    before = state(scheduler, sequences)
    plan = scheduler.plan(BUDGET)
    assert plan == scheduler.plan(BUDGET)
    assert plan == StepPlan([sequences[0]], [Chunk(sequences[1], 7)], 1)
    assert state(scheduler, sequences) == before


def test_a_decoding_sequence_moves_below_and_its_move_says_what_to_copy():
    scheduler = Scheduler(3, can_copy_slots=True)
    running = [sequence(i, 1) for i in range(3)]
    for each in running:
        scheduler.add(each)
    scheduler.admit()
    for each in running:
        each.num_computed = 1
        each.append(0)
    scheduler.remove(running[0])
    assert scheduler.admit() == [Move(source=2, target=0, num_tokens=1)]
    assert [each.slot for each in running] == [None, 1, 0]
    scheduler.check()


def test_a_gap_is_filled_by_who_waits_before_anyone_is_moved():
    scheduler = Scheduler(3, can_copy_slots=True)
    running = [sequence(i, 1) for i in range(3)]
    for each in running:
        scheduler.add(each)
    scheduler.admit()
    for each in running:
        each.num_computed = 1
        each.append(0)
    scheduler.remove(running[0])
    newcomer = sequence(3, 5)
    scheduler.add(newcomer)
    assert scheduler.admit() == []
    assert newcomer.slot == 0
