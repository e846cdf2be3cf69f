"""How the tests of this folder run an engine: at a pace that no clock moves, until it is idle."""

from typing import Any

from app.contract.sampling import SamplingParams
from app.engine.engine import Engine, Events
from app.engine.pacing import Pacer
from app.engine.scheduler import TokenBudget
from app.engine.sequence import EngineRequest, TokenEvent

GREEDY = SamplingParams(temperature=0.0)


class FixedPace(Pacer):
    """A pacer that no clock moves."""

    def __init__(self, busy: int, idle: int) -> None:
        super().__init__()
        self._fixed = TokenBudget(busy=busy, idle=idle)

    @property
    def budget(self) -> TokenBudget:
        return self._fixed


def request(prompt: list[int], max_tokens: int = 5, **fields: Any) -> EngineRequest:
    fields = {"sampling": GREEDY, **fields}
    return EngineRequest(prompt_ids=prompt, max_tokens=max_tokens, **fields)


def step(engine: Engine) -> Events:
    """Run one step; its events in order."""
    events: Events = []
    engine.step(events.extend)
    engine.check()
    return events


def run(engine: Engine, steps: int = 1000) -> dict[int, list[TokenEvent]]:
    """Step until idle; events by request."""
    events: dict[int, list[TokenEvent]] = {}
    for _ in range(steps):
        if engine.idle:
            break
        for request_id, event in step(engine):
            events.setdefault(request_id, []).append(event)
    return events


def tokens(events: list[TokenEvent]) -> list[int]:
    return [event.token_id for event in events if event.token_id is not None]
