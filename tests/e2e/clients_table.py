"""`python -m tests.e2e.clients_table`: run other people's clients, and write what came of it.

Each row of docs/reference/clients.md below its comment is one test of this folder that talks to a
real server with a client as its publisher ships it. Clients that are large are installed for it.
"""

import os
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.e2e.server import ROOT

PAGE: Final = ROOT / "docs" / "reference" / "clients.md"
PLACE: Final = "<!-- written by python -m tests.e2e.clients_table -->\n"
HERE: Final = Path(__file__).parent


class Client(NamedTuple):
    """What a test shows."""

    test: str
    """Its file and name."""
    name: str
    version: str
    """Empty: that of the package `name` here."""
    api: str
    shows: str


OTHER: Final = "test_other_dialects.py::test_"
AGENTS: Final = "test_openai_agents.py::test_"
CLIENTS: Final = (
    Client(
        f"{AGENTS}codex",
        "@openai/codex",
        "0.171.0",
        "OpenAI",
        "a session of one turn on `/v1/responses`, with its own prompt of 6,400 tokens",
    ),
    Client(
        f"{AGENTS}the_ai_sdk",
        "ai, @ai-sdk/openai-compatible",
        "6.0.326",
        "OpenAI",
        "a conversation with `reasoningEffort`, a stream, a tool that is run, an object",
    ),
    Client(
        f"{AGENTS}pydantic_ai",
        "pydantic-ai-slim",
        "2.68.0",
        "OpenAI",
        "a conversation, a stream, an object by a tool and by a schema",
    ),
    Client(
        f"{AGENTS}openai_agents",
        "openai-agents",
        "0.24.0",
        "OpenAI",
        "a turn and a tool that is run, on responses and on chat completions",
    ),
    Client(
        f"{OTHER}anthropic_for_python",
        "anthropic",
        "",
        "Anthropic",
        "a conversation, a stream, a tool and its result, stop sequences, tokens counted, the "
        "prefix cache in `usage`, models, a refusal",
    ),
    Client(
        f"{OTHER}anthropic_for_node",
        "@anthropic-ai/sdk",
        "1.14.0",
        "Anthropic",
        "a conversation, streams, a tool and its result, tokens counted, models, a refusal",
    ),
    Client(
        f"{OTHER}the_coding_agent",
        "@anthropic-ai/claude-code",
        "2.1.332",
        "Anthropic",
        "a session in print mode: it calls its tool `Read`, and the answer has the file's text. "
        "The model is a stand-in that calls what it is asked to; its prompts have 12,000 tokens",
    ),
    Client(
        f"{OTHER}ollama_for_python",
        "ollama",
        "",
        "Ollama",
        "a conversation, a stream with its timings, a schema, `raw`, models, a refusal",
    ),
    Client(
        f"{OTHER}ollama_calls_a_tool_and_reads_its_result",
        "ollama",
        "",
        "Ollama",
        "a tool and its result, with the stand-in model",
    ),
    Client(
        f"{OTHER}ollama_for_node",
        "ollama (npm)",
        "0.6.4",
        "Ollama",
        "a conversation, a stream with its timings, a schema, models, a refusal",
    ),
)


class Outcomes:
    """A plugin of pytest that notes how tests ended."""

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase of a test: the first that didn't pass counts."""
        test = Path(report.nodeid.partition("::")[0]).name + "::" + report.nodeid.partition("::")[2]
        if self.by_test.get(test, "passed") == "passed":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.by_test[test] = f"{report.outcome} {reason}".strip()


def main() -> int:
    """Run the clients and write the table; returns 0 if all of them passed.

    With names of APIs, their clients alone are run, and the other rows stay as they were.
    """
    apis = set(sys.argv[1:]) or {client.api for client in CLIENTS}
    os.environ["ALL_CLIENTS"] = "1"
    outcomes = Outcomes()
    tests = dict.fromkeys(str(HERE / client.test) for client in CLIENTS if client.api in apis)
    failed = pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[outcomes])
    page = PAGE.read_text()
    before, place, old = page.partition(PLACE)
    assert place, f"{PAGE} has no line {PLACE!r}"
    PAGE.write_text(before + place + "\n" + table(outcomes.by_test, old))
    return int(failed)


def table(outcomes: dict[str, str], old: str) -> str:
    """Write the table.

    Args:
        outcomes: how tests ended, by their names.
        old: the table before; rows of clients that were not run come from there.
    """
    lines = [
        f"Run on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| client | version | API | what it did | result |",
        "|---|---|---|---|---|",
    ]
    for client in CLIENTS:
        number = client.version or version(client.name)
        known = (
            line
            for line in old.splitlines()
            if line.startswith(f"| {client.name} |") and f"| {client.shows} |" in line
        )
        if client.test in outcomes:
            result = outcomes[client.test]
            line = f"| {client.name} | {number} | {client.api} | {client.shows} | {result} |"
        else:
            line = next(known, f"| {client.name} | | {client.api} | {client.shows} | not run |")
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
