"""OpenAI's chat completions, without tools."""

from typing import Any

from tests.corpus.request import CHAT, SSE, Request, load, post, user
from tests.corpus.scripted import FAILING, FORKS, JSON_TEXT, LLAMA, MUTE, NO_TEMPLATE, PLAIN
from tests.e2e.scripted_app import FIRST

BEES = [user("What do bees do?")]
SYSTEM, DEVELOPER = (
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Be brief."},
)
ANSWER = {"role": "assistant", "content": "Hello."}
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
COLOUR = {"type": "object", "properties": {"c": {"enum": ["red", "blue"]}}, "required": ["c"]}


def chat(name: str, *, model: Any = PLAIN, headers: Any = None, **fields: Any) -> Request:
    """Ask about bees."""
    return post(name, CHAT, {"model": model, "messages": BEES, **fields}, **(headers or {}))


def schema(of: Any, **more: Any) -> dict[str, Any]:
    """A response format."""
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": of, **more}}


USAGE = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS = [
    load(FIRST),
    chat("chat", model=FIRST),
    chat("chat, streamed", model=FIRST, stream=True),
    chat("chat, streamed with usage", **USAGE),
    chat("chat, streamed without usage", stream=True, stream_options={"include_usage": False}),
    chat("chat, Accept for events alone", headers={"accept": SSE}),
    chat("chat, the same prompt again"),
    chat("chat, a prompt with a known beginning", messages=[*BEES, ANSWER, user("And then?")]),
    chat("chat, a request id of ours", headers={"x_request_id": "mine-1"}),
    chat("chat, a request id that is too long", headers={"x_request_id": "x" * 129}),
    chat("chat, a bad token on an open server", headers={"token": "nonsense"}),
    chat("chat, harmless fields", user="u", store=True, metadata={"a": "b"}, service_tier="auto"),
    chat("chat, nulls", temperature=None, stop=None, tools=None, response_format=None, n=None),
    chat("chat, max_tokens", max_tokens=5),
    chat("chat, max_completion_tokens", max_completion_tokens=5, stream=True),
    chat("chat, both that agree", max_tokens=5, max_completion_tokens=5),
    chat("chat, both that don't", max_tokens=5, max_completion_tokens=6),
    chat("chat, cut inside a character", max_tokens=12, stream=True),
    chat("chat, stop", stop="hum"),
    chat("chat, stops, streamed", stop=["zz", "é", " h"], stream=True),
    chat("chat, stop_token_ids", stop_token_ids=[256, 65]),
    chat("chat, min_tokens beyond the end", min_tokens=18, max_tokens=20, temperature=0),
    chat("chat, ignore_eos", ignore_eos=True, max_tokens=18),
    chat("chat, min_tokens above max_tokens", min_tokens=6, max_tokens=5),
    chat("chat, min_tokens above the context", min_tokens=5000),
    chat("chat, n", n=3, seed=7, model=FORKS),
    chat("chat, n, streamed", n=2, seed=7, model=FORKS, headers={"show": "choices"}, **USAGE),
    chat("chat, seed 7", seed=7, model=FORKS),
    chat("chat, seed -7", seed=-7, model=FORKS),
    chat("chat, greedy forks", temperature=0, model=FORKS),
    chat("chat, top_p 0", top_p=0, model=FORKS),
    chat("chat, top_k 2", top_k=2, seed=7, model=FORKS),
    chat("chat, min_p", min_p=1, seed=7, model=FORKS),
    chat("chat, presence_penalty", presence_penalty=2, temperature=0, model=FORKS),
    chat("chat, frequency_penalty", frequency_penalty=2, temperature=0, model=FORKS),
    chat("chat, repetition_penalty", repetition_penalty=1.5, temperature=0, model=FORKS),
    chat(
        "chat, logit_bias against", logit_bias={"64": -100, "65": -100}, temperature=0, model=FORKS
    ),
    chat("chat, logit_bias for", logit_bias={"68": 100}, temperature=0, model=FORKS),
    chat("chat, logprobs", logprobs=True),
    chat("chat, top_logprobs", logprobs=True, top_logprobs=3, seed=7, model=FORKS),
    chat("chat, top_logprobs, streamed", logprobs=True, top_logprobs=1, stream=True),
    chat("chat, top_logprobs without logprobs", top_logprobs=1),
    chat("chat, system", messages=[SYSTEM, *BEES]),
    chat("chat, developer", messages=[DEVELOPER, *BEES]),
    chat("chat, developer that is known", messages=[DEVELOPER, *BEES], model=LLAMA),
    chat("chat, parts", messages=[user([{"type": "text", "text": t} for t in ("Hi", "there")])]),
    chat("chat, an assistant's refusal", messages=[{"role": "assistant", "refusal": "No."}, *BEES]),
    chat("chat, an image", messages=[user([{"type": "image_url", "image_url": {"url": "x"}}])]),
    chat("chat, a part without its text", messages=[user([{"type": "text"}])]),
    chat("chat, JSON object", model=JSON_TEXT, response_format={"type": "json_object"}),
    chat("chat, schema", model=JSON_TEXT, response_format=schema(PLACE, strict=True)),
    chat("chat, schema, streamed", model=JSON_TEXT, response_format=schema(PLACE), stream=True),
    chat("chat, another schema", seed=4, response_format=schema(COLOUR), max_tokens=40),
    chat("chat, schema, cut", model=JSON_TEXT, response_format=schema(PLACE), max_tokens=9),
    chat("chat, a format without its schema", response_format={"type": "json_schema"}),
    chat("chat, text with a schema", response_format={**schema(PLACE), "type": "text"}),
    chat("chat, an unknown keyword", response_format=schema({"type": "object", "minLenght": 3})),
    chat("chat, a type that is none", response_format=schema({"type": "strin"})),
    chat("chat, a keyword that can't be enforced", response_format=schema({"uniqueItems": True})),
    chat("chat, a failure", model=MUTE),
    chat("chat, a failure, streamed", model=MUTE, stream=True),
    chat("chat, a later failure", model=FAILING),
    chat("chat, a later failure, streamed", model=FAILING, stream=True),
    chat("chat, n with a failure", model=FAILING, n=2),
    chat("chat, no template", model=NO_TEMPLATE),
    chat("chat, an unknown model", model="nobody/nothing"),
    chat("chat, an empty model", model=""),
    chat("chat, no model", model=None),
    chat("chat, no messages", messages=[]),
    chat("chat, messages missing", messages=None),
    chat("chat, a role", messages=[{"role": "robot", "content": "x"}]),
    chat("chat, no content", messages=[{"role": "user"}]),
    chat("chat, an unknown field", nonsense=1),
    chat("chat, an unknown field inside", stream=True, stream_options={"nonsense": 1}),
    chat("chat, a field that is not served", service_tier="flex"),
    chat("chat, functions", functions=[]),
    chat("chat, reasoning_effort", reasoning_effort="high"),
    chat("chat, audio", modalities=["text", "audio"]),
    chat("chat, stream_options without stream", stream_options={"include_usage": True}),
    chat("chat, temperature 2.1", temperature=2.1),
    chat("chat, stream as text", stream="yes"),
    chat("chat, n 0", n=0),
    chat("chat, n above all places", n=13),
    chat("chat, seed 1.5", seed=1.5),
    chat("chat, logit_bias of words", logit_bias={"a": 1}),
    chat("chat, logit_bias out of the vocabulary", logit_bias={"258": 1}),
    chat("chat, logit_bias 101", logit_bias={"1": 101}),
    chat("chat, stop_token_ids out of the vocabulary", stop_token_ids=[258]),
    chat("chat, 17 stops", stop=["x"] * 17),
    chat("chat, too long", model=FIRST, messages=[user("word " * 60)]),
    chat("chat, too long, streamed", model=FIRST, messages=[user("word " * 60)], stream=True),
    post("chat, no body", CHAT),
    post("chat, bad JSON", CHAT, b"{'model': 1}"),
    post("chat, a list", CHAT, []),
    post("chat, plain text", CHAT, b"{}", content_type="text/plain"),
    post("chat, too large a body", CHAT, {"model": PLAIN, "messages": [user("x" * 6_000)]}),
]
