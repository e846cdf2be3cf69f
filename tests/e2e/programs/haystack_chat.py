"""A conversation by Haystack's OpenAIChatGenerator: `haystack_chat.py URL MODEL`; prints JSON."""

import json
import sys
from typing import Literal

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from pydantic import BaseModel, ConfigDict


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["Tokyo", "Kyoto"]
    is_capital: bool


def get_weather(city: Literal["Tokyo", "Kyoto"]) -> str:
    """Tell the weather of a city."""
    return f"It is sunny in {city}."


url, model = sys.argv[1:]
options = {"temperature": 0, "max_tokens": 64}
weather = create_tool_from_function(get_weather)
generator = OpenAIChatGenerator(
    api_key=Secret.from_token("EMPTY"),
    api_base_url=f"{url}/v1",
    model=model,
    max_retries=0,
    generation_kwargs=options,
)
question = ChatMessage.from_user("What is the capital of Japan?")
[answer] = generator.run([question])["replies"]
[told] = generator.run([ChatMessage.from_system("You know cities."), question])["replies"]
chunks: list[StreamingChunk] = []
turns = [question, answer, ChatMessage.from_user("And of France?")]
[second] = generator.run(turns, streaming_callback=chunks.append)["replies"]
[shaped] = generator.run([question], generation_kwargs={"response_format": City})["replies"]
ask = ChatMessage.from_user("What is the weather in Tokyo?")
forced = {"tool_choice": "required", "parallel_tool_calls": False}
[called] = generator.run([ask], tools=[weather], generation_kwargs=forced)["replies"]
[call] = called.tool_calls
result = ChatMessage.from_tool(weather.invoke(**call.arguments), origin=call)
[after] = generator.run([ask, called, result], tools=[weather])["replies"]
json.dump(
    {
        "first": answer.text,
        "usage": answer.meta["usage"]["total_tokens"],
        "told": told.text,
        "second": second.text,
        "pieces": len(chunks),
        "city": json.loads(shaped.text),
        "call": [call.tool_name, call.arguments],
        "after": after.text or [one.tool_name for one in after.tool_calls],
    },
    sys.stdout,
)
