"""OpenAI's chat completions with tools, by the call formats of four templates."""

from typing import Any

from tests.corpus.request import CHAT, Request, post, user
from tests.corpus.scripted import CALLER, HERMES, LLAMA, MISTRAL, NO_TEMPLATE, PLAIN

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather.", "parameters": CITY}
TOOLS = [
    {"type": "function", "function": WEATHER},
    {"type": "function", "function": {"name": "now"}},
]
CALL: dict[str, Any] = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "Sunny."}
CALLED = [user("The weather?"), {"role": "assistant", "tool_calls": [CALL]}, RESULT]
NOW = {"type": "function", "function": {"name": "now"}}


def tools(name: str, model: str = CALLER, **fields: Any) -> Request:
    """Ask what a tool knows."""
    body = {"model": model, "messages": [user("The weather?")], "tools": TOOLS, "temperature": 0}
    return post(name, CHAT, {**body, "max_tokens": 200, **fields})


def broken(**changed: Any) -> dict[str, Any]:
    """The call with other fields of its function."""
    return {**CALL, "function": {**CALL["function"], **changed}}


REQUESTS = [
    tools("two calls after a text"),
    tools("two calls after a text, streamed", stream=True, stream_options={"include_usage": True}),
    tools("one call alone", parallel_tool_calls=False),
    tools("none", tool_choice="none"),
    tools("no call where none is written", PLAIN),
    tools("no call where none is written, streamed", PLAIN, stream=True),
    tools("required", tool_choice="required"),
    tools("required, by the template's own form", HERMES, tool_choice="required"),
    tools("named", HERMES, tool_choice=NOW, max_tokens=80),
    tools("named, streamed", HERMES, tool_choice=NOW, max_tokens=80, stream=True),
    tools("Hermes", HERMES),
    tools("Mistral", MISTRAL),
    tools("Mistral, streamed", MISTRAL, stream=True),
    tools("Llama", LLAMA),
    tools("Llama, streamed", LLAMA, stream=True),
    tools("Llama, one that is a schema's", LLAMA, tool_choice="required", max_tokens=80),
    tools("cut inside a call", HERMES, max_tokens=45),
    tools("cut inside a call, streamed", HERMES, max_tokens=45, stream=True),
    tools("cut before the arguments", HERMES, max_tokens=20),
    tools("with logprobs", HERMES, max_tokens=40, logprobs=True),
    tools("n with calls", HERMES, n=2),
    tools("strict", HERMES, tools=[{**TOOLS[0], "function": {**WEATHER, "strict": True}}]),
    tools("beside a format", HERMES, response_format={"type": "json_object"}),
    tools(
        "beside a format that can't be told apart", LLAMA, response_format={"type": "json_object"}
    ),
    tools("results in plain turns", messages=CALLED, tool_choice="none"),
    tools("results by the template", HERMES, messages=CALLED, tool_choice="none"),
    tools("results without tools", HERMES, messages=CALLED, tools=[]),
    *(
        tools(
            f"arguments that are {what}",
            HERMES,
            messages=[
                user("x"),
                {"role": "assistant", "tool_calls": [broken(arguments=arguments)]},
                RESULT,
            ],
        )
        for what, arguments in [("no JSON", "city"), ("cut off", '{"city": "Ro'), ("empty", "")]
    ),
    tools("a call of a user", messages=[{**user("x"), "tool_calls": [CALL]}]),
    tools("a result without its call", messages=[{"role": "tool", "content": "x"}]),
    tools("a tool_call_id of a user", messages=[{**user("x"), "tool_call_id": "c"}]),
    tools("required without tools", tools=[], tool_choice="required"),
    tools("a name that no tool has", tool_choice={"type": "function", "function": {"name": "x"}}),
    tools("a choice that is none", tool_choice="any"),
    tools("two of one name", tools=[TOOLS[0], TOOLS[0]]),
    tools("a bad name", tools=[{"type": "function", "function": {"name": "a b"}}]),
    tools("another kind of tool", tools=[{"type": "custom"}]),
    tools(
        "parameters that are no object",
        tool_choice="required",
        tools=[
            {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}},
        ],
    ),
    tools(
        "parameters that can't be enforced",
        tool_choice="required",
        tools=[
            {"type": "function", "function": {"name": "f", "parameters": {"minLenght": 3}}},
        ],
    ),
    tools("no template", NO_TEMPLATE),
]
