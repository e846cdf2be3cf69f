"""OpenAI's responses."""

from typing import Any

from tests.corpus.asked.openai_chat import COLOUR, PLACE
from tests.corpus.asked.openai_tools import CITY
from tests.corpus.request import RESPONSES, Request, post
from tests.corpus.scripted import CALLER, FAILING, HERMES, JSON_TEXT, MUTE, NO_TEMPLATE, PLAIN
from tests.e2e.scripted_app import FIRST

WEATHER = {"type": "function", "name": "weather", "parameters": CITY, "strict": False}
NOW = {"type": "function", "name": "now"}
LOGPROBS = ["message.output_text.logprobs"]
CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "weather",
    "arguments": '{"city": "Rome"}',
}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "Sunny."}
QUESTION = {"role": "user", "content": "The weather?"}


def respond(name: str, *, model: Any = PLAIN, **fields: Any) -> Request:
    """Ask about bees."""
    return post(name, RESPONSES, {"model": model, "input": "What do bees do?", **fields})


def called(name: str, model: str = CALLER, **fields: Any) -> Request:
    """Ask what a tool knows."""
    tools = {"tools": [WEATHER, NOW], "temperature": 0, "max_output_tokens": 200}
    return respond(name, model=model, **{**tools, **fields})


def text(kind: str, **more: Any) -> dict[str, Any]:
    """What the text is to be."""
    return {"format": {"type": kind, **more}}


SCHEMA = text("json_schema", name="it", schema=PLACE)
PARTS = [{"type": "input_text", "text": "Hi"}, {"type": "input_text", "text": "there"}]
REQUESTS = [
    respond("text", model=FIRST),
    respond("text, streamed", stream=True),
    respond("instructions", instructions="Be brief.", metadata={"a": "b"}, user="u"),
    respond("cut", max_output_tokens=5),
    respond("cut, streamed", max_output_tokens=5, stream=True),
    respond("logprobs", include=LOGPROBS, top_logprobs=1),
    respond("logprobs, streamed", include=LOGPROBS, max_output_tokens=3, stream=True),
    respond("top_logprobs without include", top_logprobs=1),
    respond("messages", input=[{"role": "developer", "content": "Be brief."}, QUESTION]),
    respond("parts", input=[{"role": "user", "content": PARTS}]),
    respond(
        "output sent back",
        input=[
            QUESTION,
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}
                ],
            },
            QUESTION,
        ],
    ),
    respond(
        "a refusal sent back",
        input=[
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            QUESTION,
        ],
    ),
    respond(
        "harmless fields",
        store=False,
        truncation="disabled",
        background=False,
        prompt_cache_key="k",
    ),
    respond("greedy", temperature=0, top_p=0),
    respond("JSON object", model=JSON_TEXT, text=text("json_object")),
    respond("schema", model=JSON_TEXT, text=SCHEMA),
    respond("schema, streamed", model=JSON_TEXT, text=SCHEMA, stream=True),
    respond(
        "a schema that the script breaks",
        text=text("json_schema", name="c", schema=COLOUR),
        temperature=0,
        max_output_tokens=30,
    ),
    called("calls after a text"),
    called("calls after a text, streamed", stream=True),
    called("a call", HERMES, parallel_tool_calls=False),
    called("required", HERMES, tool_choice="required"),
    called("named, streamed", HERMES, tool_choice=NOW, stream=True),
    called("none", tool_choice="none"),
    called("cut inside a call, streamed", HERMES, max_output_tokens=45, stream=True),
    called("results", HERMES, input=[QUESTION, CALL, RESULT], tool_choice="none"),
    called("results in plain turns", input=[QUESTION, CALL, CALL, RESULT], tool_choice="none"),
    called("a call without a name", input=[QUESTION, {**CALL, "name": None}]),
    called("a result without an id", input=[QUESTION, {**RESULT, "call_id": None}]),
    called("a result without output", input=[QUESTION, {**RESULT, "output": None}]),
    called("required without tools", tools=[], tool_choice="required"),
    called("a name that no tool has", tool_choice={**NOW, "name": "x"}),
    called("two of one name", tools=[NOW, NOW]),
    called("another kind of tool", tools=[{"type": "web_search"}]),
    respond(
        "an image", input=[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]
    ),
    respond("an item without a role", input=[{"content": "x"}]),
    respond("an item of another type", input=[{"type": "reasoning"}]),
    respond("no input", input=None),
    respond("an empty input", input=[]),
    respond("previous_response_id", previous_response_id="resp_1"),
    respond("background", background=True),
    respond("truncation", truncation="auto"),
    respond("stored prompt", prompt={"id": "x"}),
    respond("max_output_tokens 0", max_output_tokens=0),
    respond("reasoning", reasoning={"effort": "high"}),
    respond("no reasoning", reasoning={"effort": "none"}),
    respond("include that is not there", include=["file_search_call.results"]),
    respond("a format without its schema", text=text("json_schema", name="it")),
    respond("an unknown keyword", text=text("json_schema", name="it", schema={"minLenght": 1})),
    respond("n", n=2),
    respond("seed", seed=2),
    respond("an unknown model", model="nobody/nothing"),
    respond("no template", model=NO_TEMPLATE),
    respond("too long", model=FIRST, input="word " * 60),
    respond("too long, streamed", model=FIRST, input="word " * 60, stream=True),
    respond("a failure", model=MUTE),
    respond("a failure, streamed", model=MUTE, stream=True),
    respond("a later failure", model=FAILING),
    respond("a later failure, streamed", model=FAILING, stream=True),
    post("bad JSON", RESPONSES, b"nonsense"),
]
