"""A conversation by ChatAnthropic and ChatOllama: `langchain_others_chat.py URL MODEL`; JSON."""

import json
import sys
from typing import Any, Literal

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from pydantic import BaseModel, ConfigDict


class City(BaseModel):
    """What is asked for as structured output."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["Tokyo", "Kyoto"]
    is_capital: bool


@tool
def get_weather(city: Literal["Tokyo", "Kyoto"]) -> str:
    """Tell the weather of a city."""
    return f"It is sunny in {city}."


def talk(chat: BaseChatModel, method: Any, **choice: Any) -> dict[str, Any]:
    """Ask, stream, ask for an object, and have a tool called whose result goes back."""
    system = SystemMessage("You answer questions about cities.")
    question = HumanMessage("What is the capital of Japan?")
    answer = chat.invoke([question])
    told = chat.invoke([system, question])
    chunks = list(chat.stream([question, answer, HumanMessage("And of France?")]))
    city = chat.with_structured_output(City, method=method).invoke([question])
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    found = {
        "first": answer.text,
        "usage": answer.usage_metadata,
        "told": told.text,
        "second": "".join(chunk.text for chunk in chunks),
        "pieces": len(chunks),
        "streamed_usage": whole.usage_metadata,
        "city": city.model_dump(),
    }
    if choice:
        ask = HumanMessage("What is the weather in Tokyo?")
        called = chat.bind_tools([get_weather], **choice).invoke([ask])
        [call] = called.tool_calls
        result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
        after = chat.bind_tools([get_weather]).invoke([ask, called, result])
        found |= {"call": [call["name"], call["args"]], "after": after.text}
    return found


url, model = sys.argv[1:]
anthropic = ChatAnthropic(
    model=model, base_url=url, api_key="sk-none", temperature=0, max_tokens=64, max_retries=0
)
ollama = ChatOllama(model=model, base_url=url, temperature=0, num_predict=64)
json.dump(
    {
        "anthropic": talk(
            anthropic, "json_schema", tool_choice="get_weather", parallel_tool_calls=False
        ),
        "ollama": talk(ollama, "json_schema"),
    },
    sys.stdout,
)
