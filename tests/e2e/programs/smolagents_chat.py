"""smolagents: `smolagents_chat.py URL MODEL [FILE]`; prints JSON.

Without a file the model is asked, streamed and has to call a tool; with one an agent reads it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from smolagents import ChatMessage, LogLevel, MessageRole, OpenAIModel, Tool, ToolCallingAgent

TURNS = [
    ChatMessage(role=role, content=[{"type": "text", "text": text}])
    for role, text in (
        (MessageRole.SYSTEM, "You answer questions about cities."),
        (MessageRole.USER, "What is the capital of Japan?"),
    )
]


class Read(Tool):
    """Reads a file."""

    name = "Read"
    description = "Reads a file."
    inputs = {"file_path": {"type": "string", "description": "Its path."}}  # noqa: RUF012 # theirs
    output_type = "string"

    def forward(self, file_path: str) -> str:
        """Give a file's text."""
        return Path(file_path).read_text()


class Weather(Tool):
    """Tells the weather."""

    name = "weather"
    description = "Tells the weather of a city."
    inputs = {  # noqa: RUF012 # theirs
        "city": {"type": "string", "description": "Its name.", "enum": ["Tokyo", "Kyoto"]}
    }
    output_type = "string"

    def forward(self, city: str) -> str:
        """Tell it."""
        return f"sunny in {city}"


def talk(model: OpenAIModel) -> dict[str, Any]:
    """Ask, stream, and have a tool called."""
    answer = model.generate(TURNS)
    deltas = list(model.generate_stream(TURNS))
    called = model.generate(TURNS, tools_to_call_from=[Weather()], parallel_tool_calls=False)
    return {
        "text": answer.content,
        "tokens": answer.token_usage.output_tokens,
        "streamed": "".join(delta.content or "" for delta in deltas),
        "pieces": len(deltas),
        "streamed_tokens": [d.token_usage.output_tokens for d in deltas if d.token_usage],
        "calls": [[call.function.name, call.function.arguments] for call in called.tool_calls],
    }


def work(model: OpenAIModel, file: str) -> dict[str, Any]:
    """Let an agent read a file by its tool and end by itself, as it does with `final_answer`."""
    agent = ToolCallingAgent([Read()], model, verbosity_level=LogLevel.OFF, max_steps=4)
    result = agent.run(f"Read the file {file} please", return_full_result=True)
    return {"output": result.output, "state": result.state}


url, model_id, *files = sys.argv[1:]
model = OpenAIModel(model_id, api_base=f"{url}/v1", api_key="EMPTY", temperature=0, max_tokens=100)
json.dump(work(model, files[0]) if files else talk(model), sys.stdout)
