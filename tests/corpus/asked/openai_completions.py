"""OpenAI's completions."""

from typing import Any

from tests.corpus.request import COMPLETIONS, Request, post
from tests.corpus.scripted import FAILING, FORKS, MUTE, NO_TEMPLATE, PLAIN
from tests.e2e.scripted_app import FIRST


def complete(name: str, *, model: Any = PLAIN, show: Any = "body", **fields: Any) -> Request:
    """Go on from a text."""
    return post(name, COMPLETIONS, {"model": model, "prompt": "Bees é", **fields}, show=show)


USAGE = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS = [
    complete("text", model=FIRST, max_tokens=200),
    complete("text, streamed", model=FIRST, max_tokens=200, stream=True),
    complete("text, 16 tokens by default", model=FIRST),
    complete("text, streamed with usage", **USAGE),
    complete("texts", prompt=["One", "And two"]),
    complete("texts, streamed", prompt=["One", "And two"], **USAGE, show="choices"),
    complete("tokens", prompt=[33, 34, 35]),
    complete("lists of tokens", prompt=[[33, 34, 35], [36, 37]]),
    complete("texts with n", prompt=["One", "And two"], n=2, seed=3, model=FORKS),
    complete("n, streamed", n=3, seed=3, model=FORKS, show="choices", **USAGE),
    complete("best_of n", n=2, best_of=2, model=FORKS, temperature=0),
    complete("best_of above n", best_of=2),
    complete("echo", echo=True),
    complete("echo, streamed", echo=True, stream=True),
    complete("echo of tokens", echo=True, prompt=[33, 34, 35]),
    complete("echo alone", echo=True, max_tokens=0),
    complete("echo alone with logprobs", echo=True, max_tokens=0, logprobs=1),
    complete("echo alone, streamed", echo=True, max_tokens=0, stream=True, logprobs=0),
    complete("echo with logprobs", echo=True, logprobs=2, max_tokens=3),
    complete("echo with logprobs, streamed", echo=True, logprobs=1, max_tokens=3, stream=True),
    complete("echo of texts with n", echo=True, prompt=["One", "Two"], n=2, model=FORKS, seed=1),
    complete("logprobs 0", logprobs=0),
    complete("logprobs 5", logprobs=5, seed=3, model=FORKS),
    complete("logprobs, streamed", logprobs=1, stream=True),
    complete("stop", stop="hum"),
    complete("stops, streamed", stop=["zz", " z"], stream=True),
    complete("stop with logprobs", stop="hum", logprobs=0),
    complete("stop_token_ids", stop_token_ids=[71]),
    complete("min_tokens", min_tokens=16, temperature=0),
    complete("ignore_eos", ignore_eos=True),
    complete("logit_bias", logit_bias={"68": 100}, temperature=0, model=FORKS),
    complete("seed", seed=3, model=FORKS),
    complete("another seed", seed=4, model=FORKS),
    complete("top_k -1", seed=4, top_k=-1, model=FORKS),
    complete("penalties", presence_penalty=1, frequency_penalty=-1, temperature=0, model=FORKS),
    complete("repetition_penalty", repetition_penalty=1.2, temperature=0, model=FORKS),
    complete("a model without a template", model=NO_TEMPLATE),
    complete("the context's end", model=FIRST, prompt="word " * 50, max_tokens=100),
    complete("too long", model=FIRST, prompt="word " * 60),
    complete("too long among others", model=FIRST, prompt=["x", "word " * 60]),
    complete("max_tokens 0", max_tokens=0),
    complete("logprobs 6", logprobs=6),
    complete("suffix", suffix="x"),
    complete("an empty suffix", suffix=""),
    complete("an empty prompt", prompt=""),
    complete("no prompts", prompt=[]),
    complete("prompt missing", prompt=None),
    complete("prompts mixed", prompt=["a", 1]),
    complete("prompts nested too deeply", prompt=[[[1]]]),
    complete("a token out of the vocabulary", prompt=[258]),
    complete("a negative token", prompt=[-1]),
    complete("too many choices", prompt=["x"] * 100, n=21),
    complete("more than there are places", prompt=["x"] * 13),
    complete("echo as a number", echo=1),
    complete("messages", messages=[]),
    complete("an unknown model", model="nobody/nothing"),
    complete("a failure", model=MUTE),
    complete("a failure, streamed", model=MUTE, stream=True),
    complete("a failure after an echo, streamed", model=MUTE, echo=True, stream=True),
    complete("a later failure", model=FAILING),
    complete("a later failure, streamed", model=FAILING, stream=True),
]
