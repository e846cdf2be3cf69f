"""LocalLab: texts, chats and batches, whole and as streams."""

from typing import Any

from tests.corpus.request import FORM, SSE, Request, load, post, user
from tests.corpus.scripted import FAILING, FORKS, MUTE, NO_TEMPLATE, PLAIN
from tests.e2e.scripted_app import FIRST

SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "Hello."}


def generate(name: str, accept: str = "", **fields: Any) -> Request:
    """Go on from a prompt."""
    return post(name, "/generate", {"prompt": "What do bees do?", **fields}, accept=accept)


def chat(name: str, accept: str = "", **fields: Any) -> Request:
    """Go on from a conversation."""
    return post(name, "/chat", {"messages": [user("What do bees do?")], **fields}, accept=accept)


def batch(name: str, **fields: Any) -> Request:
    """Go on from several prompts."""
    return post(name, "/generate/batch", {"prompts": ["One?", "And two?"], **fields})


REQUESTS = [
    load(FIRST),
    generate("prompt"),
    generate("prompt, raw", raw=True),
    generate("prompt with a system prompt", system_prompt="Be brief."),
    generate("prompt, streamed", stream=True),
    generate("prompt, streamed as events", SSE, stream=True),
    generate("prompt, streamed for any Accept", "*/*", stream=True, max_length=5),
    generate("prompt, streamed for events among others", f"text/html, {SSE};q=0.5", stream=True),
    generate("prompt, of a model", model_id=PLAIN),
    generate("prompt, greedy by do_sample", model_id=PLAIN, do_sample=False),
    generate("prompt, nulls", model_id=None, max_length=None, temperature=None, max_tokens=3),
    generate("prompt, whole numbers as floats", max_tokens=3.0, top_k=5.0),
    generate("prompt, with an unknown field", model_id=PLAIN, colour="blue"),
    generate("prompt, cut", max_length=5),
    generate("prompt, cut inside a character", model_id=PLAIN, max_length=12),
    generate("prompt, cut, streamed", max_length=5, stream=True),
    generate("prompt, stopped", stop="caf"),
    generate("prompt, stopped by one of two", stop=["nowhere", "\u2028"], stream=True),
    generate("prompt, stopped at once", SSE, stop="He", stream=True),
    generate("prompt, seed 1", model_id=FORKS, temperature=1, seed=1),
    generate("prompt, seed 2", model_id=FORKS, temperature=1, seed=2),
    generate("prompt, no penalty", model_id=FORKS, seed=2, repetition_penalty=1.0, top_k=0),
    generate("prompt, top_k 1", model_id=FORKS, seed=2, top_k=1, repetition_penalty=1),
    generate("prompt, the context's end", model_id=FIRST, raw=True, prompt="word " * 50),
    generate("prompt, too long", model_id=FIRST, prompt="word " * 60),
    generate("prompt, too long, streamed", model_id=FIRST, prompt="word " * 60, stream=True),
    generate("prompt, empty", model_id=FIRST, prompt=""),
    generate("prompt, a number", prompt=5),
    generate("prompt, null", prompt=None),
    generate("prompt, an unknown model", model_id="nobody/nothing"),
    generate("prompt, an empty model", model_id=""),
    generate("prompt, lengths that contradict", max_length=5, max_new_tokens=6),
    generate(
        "prompt, lengths that agree", model_id=FIRST, max_length=5, max_tokens=5, max_new_tokens=5
    ),
    generate("prompt, length 0", max_length=0),
    generate("prompt, length 16385", max_tokens=16385),
    generate("prompt, temperature 2.1", temperature=2.1),
    generate("prompt, temperature as text", temperature="0.5"),
    generate("prompt, top_p 0", top_p=0),
    generate("prompt, top_k -1", top_k=-1),
    generate("prompt, repetition_penalty 0.5", repetition_penalty=0.5),
    generate("prompt, seed -1", seed=-1),
    generate("prompt, seed 0.5", seed=0.5),
    generate("prompt, an empty stop", stop=[""]),
    generate("prompt, a stop that is a number", stop=3),
    generate("prompt, max_time 0", max_time=0),
    generate("prompt, stream as text", stream="yes"),
    generate("prompt, raw with a system prompt", raw=True, system_prompt="x"),
    generate("prompt, a failure", model_id=MUTE),
    generate("prompt, a failure, streamed", model_id=MUTE, stream=True),
    generate("prompt, a later failure", model_id=FAILING),
    generate("prompt, a later failure, streamed", model_id=FAILING, stream=True),
    generate("prompt, a later failure, events", SSE, model_id=FAILING, stream=True),
    generate("prompt, no template", model_id=NO_TEMPLATE),
    generate("prompt, no template and a system", model_id=NO_TEMPLATE, system_prompt="x"),
    post("neither prompt nor query", "/generate", {"messages": []}),
    post("prompt and query", "/generate", {"prompt": "x", "query": "x"}),
    post("generate, no body", "/generate"),
    post("generate, bad JSON", "/generate", b'{"prompt": '),
    post("generate, not UTF-8", "/generate", b'{"prompt": "\xff"}'),
    post("generate, a list", "/generate", ["prompt"]),
    post("generate, deep JSON", "/generate", b"[" * 5000),
    post("generate, a large number", "/generate", b'{"prompt": 1e999}'),
    post("generate, a form", "/generate", b"prompt=x", content_type=FORM),
    post("generate, no type", "/generate", b'{"prompt": "x"}', content_type=""),
    post(
        "generate, a charset", "/generate", b'{"prompt": "x"}', content_type="APPLICATION/json; a=b"
    ),
    post("generate, too large a body", "/generate", {"prompt": "x" * 6_000}),
    load(FIRST, " again"),
    chat("chat"),
    chat("chat with a system prompt", system_prompt="Be brief."),
    chat("chat of several turns", messages=[SYSTEM, user("Hi"), ANSWER, user("And?")], seed=3),
    chat("chat, streamed", stream=True),
    chat("chat, streamed as events", SSE, stream=True),
    chat("chat, cut, streamed", stream=True, max_tokens=5),
    chat("chat, stopped, streamed", stream=True, stop=["caf", "true"]),
    chat("chat, a later failure, streamed", model_id=FAILING, stream=True),
    chat("chat, a later failure", model_id=FAILING),
    chat("chat, no messages", messages=[]),
    chat("chat, null", messages=None),
    chat("chat, a role", messages=[{"role": "tool", "content": "x"}]),
    chat("chat, no content", messages=[{"role": "user"}]),
    chat("chat, content null", messages=[user(None)]),
    chat("chat, two systems", system_prompt="x", messages=[SYSTEM, user("x")]),
    chat("chat, too long", messages=[user("word " * 60)], model_id=FIRST),
    chat("chat, no template", model_id=NO_TEMPLATE),
    chat("chat, an unknown model", model_id="nobody/nothing"),
    batch("batch", model_id=FIRST),
    batch("batch, raw", model_id=FIRST, raw=True, max_tokens=4),
    batch("batch with seeds", model_id=FORKS, seed=1, system_prompt="Be brief."),
    batch("batch, empty", prompts=[]),
    batch("batch of an empty prompt", prompts=["x", ""]),
    batch("batch that is a text", prompts="x"),
    batch("batch, streamed", stream=True),
    batch("batch, too large", prompts=["x"] * 13),
    batch("batch with one too long", prompts=["x", "word " * 60], model_id=FIRST),
    batch("batch, a failure", model_id=MUTE),
]
