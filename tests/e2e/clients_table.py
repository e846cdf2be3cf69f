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
    """Its file and name, or a file whose tests all are the client's."""
    name: str
    version: str
    """Empty: that of the package `name` here."""
    api: str
    shows: str
    lacks: str = ""
    """What of the client was not run or is not served."""


OTHER: Final = "test_other_dialects.py::test_"
AGENTS: Final = "test_openai_agents.py::test_"
FIELD: Final = "test_openai_ecosystem.py::test_"
FRAMES: Final = "test_frameworks.py::test_"
CLIENTS: Final = (
    Client(
        "test_openai_client.py",
        "openai",
        "",
        "OpenAI",
        "chats, completions and responses, whole and streamed, tools, schemas, logprobs, refusals",
        "images, audio, fine-tuning and stored responses are not served",
    ),
    Client(
        f"{FIELD}openai_for_node",
        "openai (npm)",
        "7.57.0",
        "OpenAI",
        "a conversation, a stream, tools that its runner calls, a response, a refusal",
    ),
    Client(
        f"{AGENTS}codex",
        "@openai/codex",
        "0.171.0",
        "OpenAI",
        "a session of one turn on `/v1/responses`, with its own prompt of 6,400 tokens",
        "its tools that are not functions are left out",
    ),
    Client(
        f"{AGENTS}the_ai_sdk",
        "ai, @ai-sdk/openai-compatible",
        "6.0.326",
        "OpenAI",
        "a conversation with `reasoningEffort`, a stream, a tool that is run, an object",
    ),
    Client(
        f"{FIELD}langchain",
        "langchain-openai",
        "1.7.3",
        "OpenAI",
        "a conversation, a stream with its usage, a tool and its result, a schema, a response",
    ),
    Client(
        f"{FRAMES}langchain_on_anthropic_and_ollama",
        "langchain-anthropic, langchain-ollama",
        "1.7.10, 1.1.0",
        "Anthropic, Ollama",
        "on each a conversation, a system prompt, a stream with its usage, a schema; on "
        "Anthropic's a tool and its result",
        "Ollama's API has no `tool_choice`: whether a tool is called is the model's to choose",
    ),
    Client(
        f"{FRAMES}langchain_embeddings",
        "langchain-openai, langchain-ollama",
        "1.7.4, 1.1.0",
        "OpenAI, Ollama",
        "vectors of texts, of tokens (its default) and of a query; the encoder is a stand-in",
        "its tokens are of OpenAI's vocabulary: with another model set "
        "`check_embedding_ctx_length=False`, and it sends texts",
    ),
    Client(
        f"{FRAMES}llama_index",
        "llama-index-llms-openai-like",
        "0.8.1",
        "OpenAI",
        "a conversation, a system prompt, a stream, a tool and its result, a schema, a completion",
        "its agents were not run",
    ),
    Client(
        f"{FRAMES}llama_index_embeddings",
        "llama-index-embeddings-openai-like",
        "0.4.0",
        "OpenAI",
        "vectors of texts and of a query; the encoder is a stand-in",
    ),
    Client(
        f"{FRAMES}haystack",
        "haystack-ai",
        "3.4.1",
        "OpenAI",
        "a conversation, a system prompt, a stream, a tool and its result, a schema",
        "only `OpenAIChatGenerator` was run",
    ),
    Client(
        f"{FRAMES}instructor",
        "instructor",
        "1.17.0",
        "OpenAI, Anthropic",
        "an object by `TOOLS` and by `JSON_SCHEMA`, whole and in parts, by `RESPONSES_TOOLS` and "
        "by `ANTHROPIC_TOOLS`",
        "`JSON` and `MD_JSON` put the schema in words, which a small model does not follow",
    ),
    Client(
        f"{AGENTS}pydantic_ai",
        "pydantic-ai-slim",
        "2.68.0",
        "OpenAI",
        "a conversation, a stream, an object by a tool and by a schema",
    ),
    Client(
        f"{FRAMES}outlines",
        "outlines",
        "1.3.3",
        "OpenAI",
        "a conversation, a system prompt, streams, a schema by `from_openai`; by `from_vllm` a "
        "schema, a choice, a regular expression and a grammar",
        "`from_openai` itself has schemas alone",
    ),
    Client(
        f"{FRAMES}dspy",
        "dspy",
        "3.4.1",
        "OpenAI",
        "a question, a program whose output follows a schema, its field in a stream",
        "the model is named `lm_studio/…`: of `openai/…` LiteLLM does not know that it takes "
        "schemas, and DSPy asks for any JSON. Optimizers and native tool calls were not run",
    ),
    Client(
        f"{AGENTS}openai_agents",
        "openai-agents",
        "0.24.0",
        "OpenAI",
        "a turn and a tool that is run, on responses and on chat completions",
    ),
    Client(
        f"{FRAMES}smolagents",
        "smolagents",
        "1.26.0",
        "OpenAI",
        "a conversation with a system prompt, a stream with its usage, a tool call",
        "`CodeAgent` was not run: its model has to write programs",
    ),
    Client(
        f"{FRAMES}smolagents_reads_a_file_by_a_tool",
        "smolagents",
        "1.26.0",
        "OpenAI",
        "a `ToolCallingAgent` that reads a file and ends by itself, with the stand-in model",
    ),
    Client(
        f"{FIELD}litellm",
        "litellm",
        "1.106.2",
        "OpenAI",
        "a conversation, also asynchronous, a stream, the errors that it knows apart",
    ),
    Client(
        f"{FRAMES}litellm_as_a_proxy",
        "litellm[proxy]",
        "1.108.7",
        "OpenAI, Anthropic",
        "in front of the server by both APIs: conversations, streams with usage, a tool and its "
        "result, a response, Anthropic's messages, a refusal",
        "it was run without its database",
    ),
    Client(
        f"{FIELD}llm",
        "llm",
        "0.36",
        "OpenAI",
        "a conversation that it keeps, a stream, a schema",
    ),
    Client(
        f"{FRAMES}aider",
        "aider-chat",
        "0.86.2",
        "OpenAI",
        "a question in its mode `ask`, whole and streamed, with its own prompts",
        "it calls no tools; its map of a repository was off",
    ),
    Client(
        f"{FRAMES}aider_edits_a_file",
        "aider-chat",
        "0.86.2",
        "OpenAI",
        "a file that it writes in its format `whole`, with the stand-in model",
    ),
    Client(
        f"{FRAMES}guidellm",
        "guidellm",
        "0.8.1",
        "OpenAI",
        "a run of four streamed chats of known lengths, two at once, with its report",
        "only `/v1/chat/completions` was run",
    ),
    Client(
        f"{OTHER}anthropic_for_python",
        "anthropic",
        "",
        "Anthropic",
        "a conversation, a stream, a tool and its result, stop sequences, an answer begun by the "
        "client, tokens counted, the prefix cache in `usage`, models, a refusal",
        "images, documents, files and batches are not served",
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
        "Anthropic's own tools (web search) are not shown to the model",
    ),
    Client(
        f"{OTHER}ollama_for_python",
        "ollama",
        "",
        "Ollama",
        "a conversation, a stream with its timings, a schema, `raw`, models, a refusal",
        "images, `create`, `push` and blobs are not served",
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

    With names of clients or APIs these alone are run, and the other rows stay as they were.
    """
    asked = set(sys.argv[1:])
    chosen = [one for one in CLIENTS if not asked or asked & {one.name, *one.api.split(", ")}]
    os.environ["ALL_CLIENTS"] = "1"
    outcomes = Outcomes()
    tests = dict.fromkeys(str(HERE / client.test) for client in chosen)
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
        old: the table before; what clients said that were not run now comes from there.
    """
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in old.splitlines()]
    said = {(row[0], row[3]): (row[1], row[4]) for row in rows if len(row) >= 5}
    lines = [
        f"Run on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| client | version | API | what it did | result | what it was not asked, or cannot do |",
        "|---|---|---|---|---|---|",
    ]
    for client in CLIENTS:
        results = [
            result
            for test, result in outcomes.items()
            if test == client.test or test.startswith(f"{client.test}::")
        ]
        number, result = said.get((client.name, client.shows), ("", "not run"))
        if results:
            number = client.version or version(client.name)
            result = next((one for one in results if one != "passed"), "passed")
        cells = (client.name, number, client.api, client.shows, result, client.lacks)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
