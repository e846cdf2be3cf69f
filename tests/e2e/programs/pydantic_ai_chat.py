"""A conversation by pydantic-ai: `pydantic_ai_chat.py URL MODEL`; prints JSON."""

import asyncio
import json
import sys
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = "What is the capital of Japan?"


class Place(BaseModel):
    """A place."""

    model_config = ConfigDict(extra="forbid")
    city: Literal["Tokyo", "Kyoto"]


async def talk(url: str, name: str) -> dict[str, Any]:
    """Ask, stream, and ask for an object, by a tool and by a schema."""
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="EMPTY"))
    settings: Any = {"temperature": 0, "max_tokens": 100, "parallel_tool_calls": False}
    agent = Agent(model, model_settings=settings)
    text = (await agent.run(QUESTION)).output
    async with agent.run_stream(QUESTION) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True)]
    by_tool = await Agent(model, output_type=Place, model_settings=settings).run(QUESTION)
    native: Any = NativeOutput(Place)
    by_schema = await Agent(model, output_type=native, model_settings=settings).run(QUESTION)
    return {
        "text": text,
        "pieces": pieces,
        "by_tool": by_tool.output.city,
        "by_schema": by_schema.output.city,
    }


sys.stdout.write(json.dumps(asyncio.run(talk(*sys.argv[1:3]))) + "\n")
