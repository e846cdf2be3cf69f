"""Texts of many lengths and clients, in runs of a bounded size."""

import random

from app.encoding.jobs import Job, Jobs
from app.runtime.encoder import Row


def job(client: str, *lengths: int) -> Job:
    return Job(client, [Row([1] * length) for length in lengths])


def lengths_of(taken: list[tuple[Job, int]]) -> list[int]:
    return [len(job.rows[index]) for job, index in taken]


def test_every_text_runs_once_and_no_run_is_larger_than_it_may_be():
    draw = random.Random(7)
    jobs = Jobs(256)
    made = [job(f"c{n % 3}", *(draw.randint(1, 300) for _ in range(40))) for n in range(9)]
    for one in made:
        jobs.add(one)
    seen: set[tuple[int, int]] = set()
    while taken := jobs.take():
        lengths = lengths_of(taken)
        assert len(taken) == 1 or len(taken) * max(lengths) <= 256, lengths
        assert min(lengths) * 4 >= max(lengths) * 3 - 4, "padding is a quarter at most"
        for one, index in taken:
            assert (id(one), index) not in seen
            seen.add((id(one), index))
    assert len(seen) == 9 * 40
    assert not jobs


def test_clients_take_turns_whatever_they_have_queued():
    jobs = Jobs(100)
    greedy = [job("greedy", *[100] * 20) for _ in range(3)]
    for one in greedy:
        jobs.add(one)
    first = jobs.take()
    assert [one.client for one, _ in first] == ["greedy"]
    jobs.add(job("modest", 100))
    turns = [jobs.take()[0][0].client for _ in range(3)]
    assert turns.index("modest") <= 1, turns


def test_texts_of_several_clients_that_are_about_as_long_share_a_run():
    jobs = Jobs(100)
    for client, length in (("a", 10), ("b", 9), ("c", 2)):
        jobs.add(job(client, length))
    assert sorted(lengths_of(jobs.take())) == [9, 10]
    assert lengths_of(jobs.take()) == [2]


def test_a_job_that_nobody_waits_for_runs_no_more():
    jobs = Jobs(10)
    gone, stays = job("a", 10, 10, 10), job("b", 10)
    jobs.add(gone)
    jobs.add(stays)
    assert jobs.take()[0][0] is gone
    gone.given_up = True
    assert jobs.take()[0][0] is stays
    assert jobs.take() == []
