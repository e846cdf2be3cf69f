"""Server processes for all end-to-end tests that don't stop them."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.manifest import MANIFEST_NAME, folder_name
from tests.e2e import agent_app
from tests.e2e.scripted_app import FIRST, write_models
from tests.e2e.server import DEFAULT_MODEL, ROOT, Server, running_server


@pytest.fixture(scope="session", autouse=True)
def default_model() -> None:
    manifest = ROOT / "models" / folder_name(DEFAULT_MODEL) / MANIFEST_NAME
    assert manifest.is_file(), f"{manifest} is missing: `make test` exports it first"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # room for every test's requests at once; what a full queue does has its own server
    with running_server(tmp_path_factory.mktemp("server"), max_waiting=256) as running:
        yield running


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Says `scripted_app.TEXT`; `FIRST` is loaded, and again after a test that unloads it."""
    folder = tmp_path_factory.mktemp("scripted")
    write_models(folder / "models")
    settings: dict[str, Any] = {"models_dir": folder / "models", "model": FIRST}
    with running_server(folder, target="tests.e2e.scripted_app:app", **settings) as running:
        yield running


@pytest.fixture(scope="session")
def agent_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A stand-in for an agent's model; see `agent_app`."""
    folder = tmp_path_factory.mktemp("agent")
    agent_app.write_model(folder / "models")
    settings: dict[str, Any] = {"models_dir": folder / "models", "model": agent_app.LONG}
    settings |= {"context_length": agent_app.CONTEXT, "slots": 2}
    with running_server(folder, target="tests.e2e.agent_app:app", **settings) as running:
        yield running
