"""What the real default model is asked twice, by every dialect: its answers are greedy.

LLM Host and Neptun take no parameters. There the conversation has repeated one answer so often
that nothing else is left in the nucleus.
"""

from typing import Any

from tests.corpus.request import CHAT, COMPLETIONS, NDJSON, RESPONSES, SSE, Request, post, user
from tests.e2e.server import DEFAULT_MODEL

QUESTION, ANSWER = "What is the capital of Japan?", "The capital of Japan is Tokyo."
TURN = [user(QUESTION), {"role": "assistant", "content": ANSWER}]
REPEATED = {"messages": [*TURN * 8, user(QUESTION)]}
# the same conversation: special tokens inside a text count as such
_MARKUP = f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>\n<|im_start|>user\n"
QUERY = {"query": _MARKUP * 8 + QUESTION}
NEPTUN = f"/api/ai/huggingface/{DEFAULT_MODEL}/chat?chat_id=-1"

PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOLS = [
    {"type": "function", "function": WEATHER},
    {"type": "function", "function": {"name": "now", "strict": True}},
]
STORY = [user("Tell a story of a fox and a crow.")]


def generate(name: str, accept: str = "", **fields: Any) -> Request:
    """LocalLab."""
    body = {"prompt": "Explain why the sky is blue.", "temperature": 0, "max_length": 40, **fields}
    return post(f"LocalLab: {name}", "/generate", body, accept=accept)


def chat(name: str, **fields: Any) -> Request:
    """OpenAI's chat."""
    body = {"model": DEFAULT_MODEL, "messages": STORY, "temperature": 0, "max_tokens": 40}
    show = "choices" if fields.get("stream") else "body"
    return post(f"chat: {name}", CHAT, {**body, **fields}, show=show)


def complete(name: str, **fields: Any) -> Request:
    """OpenAI's completions."""
    body = {"model": DEFAULT_MODEL, "prompt": "Once upon a time", "temperature": 0}
    show = "choices" if fields.get("stream") else "body"
    return post(
        f"completions: {name}", COMPLETIONS, {**body, "max_tokens": 40, **fields}, show=show
    )


def respond(name: str, **fields: Any) -> Request:
    """OpenAI's responses."""
    body = {"model": DEFAULT_MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 40}
    return post(f"responses: {name}", RESPONSES, {**body, **fields})


def schema(stream: bool = False) -> dict[str, Any]:
    """A structured answer."""
    named = {"name": "place", "schema": PLACE}
    return {"stream": stream, "response_format": {"type": "json_schema", "json_schema": named}}


REQUESTS = [
    generate("prompt"),
    generate("prompt, streamed", stream=True),
    generate("prompt, streamed as events", SSE, stream=True),
    generate("raw", raw=True, prompt="The old ferry left the island"),
    generate("system prompt", system_prompt="Answer in verse."),
    generate("stop", stop=[".", "\n"]),
    generate("penalty off", repetition_penalty=1.0),
    generate("seed", temperature=1.0, seed=11, top_k=40),
    generate("long prompt", prompt="The ferry and the island. " * 200, raw=True),
    post("LocalLab: chat", "/chat", {"messages": STORY, "do_sample": False, "max_tokens": 40}),
    post(
        "LocalLab: chat, streamed",
        "/chat",
        {"messages": STORY, "do_sample": False, "max_tokens": 40, "stream": True},
    ),
    post(
        "LocalLab: batch",
        "/generate/batch",
        {"prompts": ["Name a bird.", "Name a tree.", QUESTION], "temperature": 0, "max_tokens": 40},
    ),
    post("LLM Host: query", "/generate", QUERY, token="<<token>>"),
    post("LLM Host: events", "/generate?stream=true", QUERY, token="<<token>>"),
    post("LLM Host: lines", "/generate?stream=true", QUERY, token="<<token>>", accept=NDJSON),
    post("Neptun: text", NEPTUN, REPEATED, token="<<token>>"),
    post("Neptun: events", NEPTUN, REPEATED, token="<<token>>", accept=SSE),
    post("Neptun: data", f"{NEPTUN}&stream_protocol=data", REPEATED, token="<<token>>"),
    chat("text"),
    chat("text, streamed", stream=True, stream_options={"include_usage": True}),
    chat("system", messages=[{"role": "system", "content": "Be brief."}, *STORY]),
    chat("developer", messages=[{"role": "developer", "content": "Be brief."}, *STORY]),
    chat("n with seeds", n=3, temperature=1, seed=5),
    chat("n with seeds, streamed", n=3, temperature=1, seed=5, stream=True),
    chat("logprobs", logprobs=True, top_logprobs=5, max_tokens=20),
    chat("logprobs, streamed", logprobs=True, top_logprobs=2, max_tokens=20, stream=True),
    chat("penalties", presence_penalty=1, frequency_penalty=1, repetition_penalty=1.1),
    chat("bias", logit_bias={"1": -100, "260": -20}),
    chat("min_tokens", min_tokens=50, messages=[user(QUESTION)]),
    chat("sampling", temperature=1.2, top_p=0.8, top_k=50, min_p=0.05, seed=8),
    chat("schema", **schema()),
    chat("schema, streamed", **schema(stream=True)),
    chat("JSON object", response_format={"type": "json_object"}),
    chat("tools", tools=TOOLS),
    chat("tools required", tools=TOOLS, tool_choice="required"),
    chat("tools required, streamed", tools=TOOLS, tool_choice="required", stream=True),
    chat("tool named", tools=TOOLS, tool_choice={"type": "function", "function": {"name": "now"}}),
    complete("text"),
    complete("text, streamed", stream=True),
    complete("texts", prompt=["Once upon a time", "In the year"], n=1),
    complete("echo with logprobs", echo=True, logprobs=3),
    complete("echo with logprobs, streamed", echo=True, logprobs=3, stream=True),
    complete("prompt alone", echo=True, logprobs=1, max_tokens=0, prompt="A fox and a crow. " * 30),
    complete("stop", stop=["was", "."]),
    complete("ignore_eos", ignore_eos=True, prompt="The end.", max_tokens=80),
    complete("seeds", n=2, temperature=0.9, seed=2),
    respond("text"),
    respond("text, streamed", stream=True),
    respond("instructions", instructions="Answer in one word."),
    respond("cut", max_output_tokens=3),
    respond("logprobs", include=["message.output_text.logprobs"], top_logprobs=2),
    respond("tools", tools=[{"type": "function", **WEATHER, "strict": False}], stream=True),
    respond("schema", text={"format": {"type": "json_schema", "name": "place", "schema": PLACE}}),
]
