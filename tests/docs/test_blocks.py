"""Every code block of the manual and of the notes beside the code works.

They are run page by page against one server. Those that can't be run here say why, and are parsed:
their tests are named after the reason.
"""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest
import yaml

from app.settings import PREFIX, load_settings
from tests.docs.blocks import PAGES, Block, blocks_of
from tests.docs.running import fits, output_of, run_page
from tests.e2e.server import DEFAULT_MODEL, ROOT, Server, running_server

BLOCKS: Final = {page.relative_to(ROOT).as_posix(): blocks_of(page) for page in PAGES}
ALL: Final = [block for blocks in BLOCKS.values() for block in blocks]
RUN: Final = ("sh", "python")
SETTING: Final = re.compile(rf"\b({PREFIX}[A-Z0-9_]+)=(\"[^\"]*\"|'[^']*'|[^\s'\"`)]*)")


def to_run(page: str) -> list[Block]:
    return [b for b in BLOCKS[page] if b.language in RUN and not b.not_run and not b.is_output]


def check_shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_variables(text: str) -> None:
    """A file of variables, as systemd and container engines read it: all are settings."""
    variables = dict(line.split("=", 1) for line in text.splitlines())
    assert variables
    load_settings(variables)


PARSERS: Final[dict[str, Callable[[str], object]]] = {
    "sh": check_shell,
    "python": lambda text: compile(text, "block", "exec"),
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "ini": check_variables,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # short answers: some pages can't ask for any
    settings: dict[str, object] = {"default_max_tokens": 40, "context_length": 1024, "slots": 4}
    with running_server(tmp_path_factory.mktemp("manual"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def ran(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Path]]:
    """Run all pages side by side, each in a folder of its own: the server batches what they ask."""
    folders = {page: tmp_path_factory.mktemp("page") for page in BLOCKS if to_run(page)}

    def run(page: str) -> Path:
        run_page(to_run(page), folders[page], server.url, server.log.parent)
        return folders[page]

    with ThreadPoolExecutor(max_workers=4) as pool:
        return {page: pool.submit(run, page) for page in folders}


@pytest.mark.parametrize("page", [page for page in BLOCKS if to_run(page)])
def test_blocks_of_a_page_run_in_their_order(
    page: str, ran: dict[str, Future[Path]], server: Server
) -> None:
    folder, blocks = ran[page].result(), to_run(page)
    for shown in (block for block in BLOCKS[page] if block.is_output):
        number = max(n for n, block in enumerate(blocks) if block.line < shown.line)
        said = output_of(folder, number).replace(server.url, "http://127.0.0.1:8000")
        assert fits(said, shown.text), f"{shown.place} shows\n{shown.text}\nand it was\n{said}"


@pytest.mark.parametrize(
    "block",
    [b for b in ALL if b.not_run],
    ids=lambda block: f"{block.place} because {block.not_run}",
)
def test_what_is_not_run_is_at_least_written_right(block: Block) -> None:
    PARSERS[block.language](block.text)


@pytest.mark.parametrize(
    "block",
    [b for b in ALL if b.language not in RUN and not b.not_run and not b.is_output],
    ids=lambda block: block.place,
)
def test_files_are_written_right(block: Block) -> None:
    PARSERS[block.language](block.text)


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.place)
def test_settings_in_it_exist_and_have_a_value_that_is_allowed(block: Block) -> None:
    load_settings({name: "".join(shlex.split(v)) for name, v in SETTING.findall(block.text)})


def test_addresses_in_settings_of_other_programs_are_served(server: Server) -> None:
    """What isn't run says where the API is, and the model's name: both have to be right."""
    shown = "".join(block.text for block in ALL if block.not_run or block.language not in RUN)
    addresses = set(re.findall(r"http://127\.0\.0\.1:8000(?:/\w+)?", shown))
    assert "http://127.0.0.1:8000/v1" in addresses
    for address in addresses - {"http://127.0.0.1:8000/health"}:
        answer = httpx.get(address.replace("http://127.0.0.1:8000", server.url) + "/models")
        assert DEFAULT_MODEL in [model["id"] for model in answer.json()["data"]], address


def test_blocks_are_found_and_reasons_are_given() -> None:
    run = [block for page in BLOCKS for block in to_run(page)]
    assert len(run) > 20
    assert all(len(block.not_run.split()) > 1 for block in ALL if block.not_run)
