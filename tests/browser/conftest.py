"""Chromium, servers that talk, and a visit that must leave nothing wrong behind."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.talking_app import TALKER, write_models
from tests.e2e.server import Server, running_server

playwright = pytest.importorskip("playwright.sync_api", reason="there is no Playwright")
from tests.browser.driving import ARGUMENTS, CHROMIUM, Visit  # noqa: E402 # needs Playwright


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Ends with these tests: while its driver runs, no event loop can run for others."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}: `make browser` installs it")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=[*ARGUMENTS])
        yield chromium
        chromium.close()


def serve(folder: Any, **settings: Any) -> Any:
    write_models(folder / "models")
    chosen: dict[str, Any] = {
        "models_dir": folder / "models",
        "model": TALKER,
        "max_loaded_models": 2,
        "argon2_memory_kib": 8,
        "argon2_time_cost": 1,
        "registrations_per_address": 0,
        **settings,
    }
    return running_server(folder, target="tests.browser.talking_app:app", **chosen)


@pytest.fixture(scope="package")
def talking(
    browser: Any,  # noqa: ARG001 # without it there is nobody to serve
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """An open server; `TALKER` is loaded and `ENDLESS` is not, at first."""
    with serve(tmp_path_factory.mktemp("talking")) as running:
        yield running


@pytest.fixture(scope="package")
def closed(
    browser: Any,  # noqa: ARG001 # without it there is nobody to serve
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server that answers those who are signed in."""
    with serve(tmp_path_factory.mktemp("closed"), require_auth="true") as running:
        yield running


@pytest.fixture
def new_visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Makes visits, each a browser of its own; none may have asked elsewhere or gone wrong."""
    visits = []

    def make(server: Server, **options: Any) -> Visit:
        context = browser.new_context(
            **{"viewport": {"width": 1100, "height": 750}, "reduced_motion": "reduce", **options}
        )
        visits.append(Visit(context, server.url))
        return visits[-1]

    yield make
    for visit in visits:
        visit.context.close()
    for visit in visits:
        assert not visit.elsewhere, "the page asked another host"
        assert not visit.problems


@pytest.fixture
def visit(new_visit: Callable[..., Visit], talking: Server) -> Visit:
    return new_visit(talking)
