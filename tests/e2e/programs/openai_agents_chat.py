"""A conversation by openai-agents on both APIs: `openai_agents_chat.py URL MODEL`; prints JSON."""

import asyncio
import json
import sys
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning

set_tracing_disabled(True)


@function_tool
def weather(city: Literal["Tokyo", "Kyoto"]) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


async def talk(url: str, name: str) -> dict[str, Any]:
    """Ask, and have a tool called whose result comes back."""
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="EMPTY", max_retries=0)
    found: dict[str, Any] = {}
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        model = kind(model=name, openai_client=client)
        asking = ModelSettings(temperature=0, max_tokens=200, reasoning=Reasoning(effort="low"))
        agent = Agent(name="asks", model=model, model_settings=asking)
        text = (await Runner.run(agent, "What is the capital of Japan?")).final_output
        calling = ModelSettings(
            temperature=0, max_tokens=200, tool_choice="required", parallel_tool_calls=False
        )
        agent = Agent(
            name="calls",
            model=model,
            tools=[weather],
            model_settings=calling,
            tool_use_behavior="stop_on_first_tool",
        )
        result = (await Runner.run(agent, "What is the weather in Tokyo?")).final_output
        found[kind.__name__] = [text, result]
    return found


sys.stdout.write(json.dumps(asyncio.run(talk(*sys.argv[1:3]))) + "\n")
