"""A conversation by LlamaIndex's OpenAILike: `llama_index_chat.py URL MODEL`; prints JSON."""

import json
import sys
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
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
llm = OpenAILike(
    model=model,
    api_base=f"{url}/v1",
    api_key="EMPTY",
    temperature=0,
    max_tokens=64,
    max_retries=0,
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
)
question = ChatMessage(role="user", content="What is the capital of Japan?")
answer = llm.chat([question])
told = llm.chat([ChatMessage(role="system", content="You know cities."), question])
turns = [question, answer.message, ChatMessage(role="user", content="And of France?")]
parts = list(llm.stream_chat(turns))

weather = FunctionTool.from_defaults(get_weather)
ask = ChatMessage(role="user", content="What is the weather in Tokyo?")
called = llm.chat_with_tools(
    [weather], chat_history=[ask], tool_required=True, allow_parallel_tool_calls=False
)
[call] = llm.get_tool_calls_from_response(called)
said = weather.call(**call.tool_kwargs).content
result = ChatMessage(role="tool", content=said, additional_kwargs={"tool_call_id": call.tool_id})
after = llm.chat([ask, called.message, result])

completing = OpenAILike(
    model=model, api_base=f"{url}/v1", api_key="EMPTY", temperature=0, max_tokens=8, max_retries=0
)
json.dump(
    {
        "first": answer.message.content,
        "usage": answer.raw.usage.total_tokens,
        "told": told.message.content,
        "second": parts[-1].message.content,
        "pieces": len(parts),
        "city": llm.as_structured_llm(City).chat([question]).raw.model_dump(),
        "call": [call.tool_name, call.tool_kwargs],
        "after": after.message.content,
        "completed": completing.complete("The capital of Japan is").text,
    },
    sys.stdout,
)
