"""A conversation by LangChain's ChatOpenAI: `langchain_chat.py URL MODEL`; prints JSON."""

import json
import sys
from typing import Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """What is asked for as structured output."""

    name: str
    is_capital: bool


@tool
def get_weather(city: Literal["Tokyo", "Kyoto"]) -> str:
    """Tell the weather of a city."""
    return f"It is sunny in {city}."


url, model = sys.argv[1:]
options = {"model": model, "base_url": f"{url}/v1", "api_key": "EMPTY", "max_retries": 0}
chat = ChatOpenAI(**options, temperature=0, max_tokens=64, stream_usage=True)

question = HumanMessage("What is the capital of Japan?")
answer = chat.invoke([question])
turns = [question, answer, HumanMessage("And of France?")]
chunks = list(chat.stream(turns))
city = chat.with_structured_output(City, method="json_schema").invoke([question])

calling = chat.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
ask = HumanMessage("What is the weather in Tokyo?")
called = calling.invoke([ask])
[call] = called.tool_calls
result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
after = chat.bind_tools([get_weather]).invoke([ask, called, result])

json.dump(
    {
        "first": answer.content,
        "second": "".join(chunk.content for chunk in chunks),
        "pieces": len(chunks),
        "streamed_usage": next(c.usage_metadata for c in chunks if c.usage_metadata),
        "city": city.model_dump(),
        "call": [call["name"], call["args"]],
        "after": bool(after.content or after.tool_calls),
        "responses": ChatOpenAI(**options, temperature=0, use_responses_api=True)
        .invoke([question])
        .text,
    },
    sys.stdout,
)
