"""Models that are fetched for an operator, by a library of the test's own."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.contract.models import PullStep
from app.dialects.admin.pulls import Pulls
from app.errors import InvalidParameter, ModelBroken, TryAgainLater, Unsupported
from tests.fakes import until


class Library:
    """Goes two steps, the second one when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.closed = False

    async def pull(self, name: str) -> AsyncGenerator[PullStep, None]:
        if name == "bad":
            raise InvalidParameter("model", name, "publisher/name")
        try:
            yield PullStep("", 0, 0)
            await self.go.wait()
            yield PullStep("quantise", 1, 6)
            if name == "a/broken":
                raise ModelBroken("a/broken was not exported: no weights")
        finally:
            self.closed = True


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.mark.parametrize(
    ("name", "state", "failure"),
    [("a/b", "done", None), ("a/broken", "failed", "a/broken was not exported: no weights")],
)
async def test_it_is_kept_how_far_a_model_has_come_and_how_it_ended(library, name, state, failure):
    pulls = Pulls(library)
    assert pulls.last is None
    await pulls.start(name)
    assert (pulls.last.name, pulls.last.state, pulls.last.step.total) == (name, "running", 0)
    library.go.set()
    await until(lambda: pulls.last.state != "running")
    assert (pulls.last.state, pulls.last.failure) == (state, failure)
    assert pulls.last.step == PullStep("quantise", 1, 6)
    assert library.closed


async def test_one_at_a_time_until_it_is_cancelled(library):
    pulls = Pulls(library)
    await pulls.start("a/b")
    with pytest.raises(TryAgainLater):
        await pulls.start("c/d")
    await pulls.cancel()
    assert pulls.last.state == "cancelled"
    assert library.closed, "the exporter goes with it"
    await pulls.cancel()  # harmless
    await pulls.start("c/d")
    await pulls.cancel()


async def test_what_is_no_model_is_refused_at_once(library):
    pulls = Pulls(library)
    with pytest.raises(InvalidParameter):
        await pulls.start("bad")
    assert pulls.last is None
    await pulls.start("a/b")
    await pulls.cancel()


async def test_without_the_exporter_it_is_said_what_to_install(library, monkeypatch):
    assert Pulls(library).cannot is None, "the tests have it"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    pulls = Pulls(library)
    assert "torch and optimum not installed" in pulls.cannot
    with pytest.raises(Unsupported, match=r"llmhost\[export\]"):
        await pulls.start("a/b")
    assert Pulls(None).cannot == "this server fetches no models"
