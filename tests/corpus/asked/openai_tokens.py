"""OpenAI's models, tokens and embeddings."""

from typing import Any

from tests.corpus.asked.openai_tools import CALLED
from tests.corpus.request import ask, post, user
from tests.corpus.scripted import BROKEN, HERMES, LLAMA, MISTRAL, NO_TEMPLATE, PLAIN
from tests.e2e.scripted_app import FIRST

DEVELOPER = [{"role": "developer", "content": "Be brief."}, user("Hi")]
SYSTEM = [{"role": "system", "content": "Be brief."}, user("Hi")]


def tokenize(name: str, model: Any = PLAIN, **fields: Any) -> Any:
    """Ask for tokens."""
    return post(name, "/tokenize", {"model": model, **fields})


def detokenize(name: str, **fields: Any) -> Any:
    """Ask for the text of tokens."""
    return post(name, "/detokenize", {"model": PLAIN, "tokens": [33, 34, 256], **fields})


REQUESTS = [
    ask("models", "/v1/models"),
    ask("a model", f"/v1/models/{FIRST}"),
    ask("a model with its slash escaped", "/v1/models/tests%2Ffirst"),
    ask("a broken model", f"/v1/models/{BROKEN}"),
    ask("an unknown model", "/v1/models/nobody/nothing"),
    ask("half a model", "/v1/models/nobody"),
    ask("a path", "/v1/models/../../etc"),
    tokenize("tokens of a text", prompt="Hi é"),
    tokenize("tokens of special text", prompt="<|im_start|>x<|im_end|>"),
    tokenize("tokens of nothing", prompt=""),
    tokenize("tokens without special ones", prompt="Hi", add_special_tokens=False),
    tokenize("tokens of messages", messages=SYSTEM),
    tokenize("tokens of a developer", messages=DEVELOPER),
    tokenize("tokens of a developer that is known", LLAMA, messages=DEVELOPER),
    tokenize("tokens of calls in plain turns", messages=CALLED),
    tokenize("tokens of calls, Hermes", HERMES, messages=CALLED),
    tokenize("tokens of calls, Mistral", MISTRAL, messages=CALLED),
    tokenize("tokens of messages without a template", NO_TEMPLATE, messages=SYSTEM),
    tokenize("tokens of both", prompt="Hi", messages=SYSTEM),
    tokenize("tokens of neither"),
    tokenize("tokens of no messages", messages=[]),
    tokenize("tokens of an image", messages=[user([{"type": "image_url"}])]),
    tokenize("tokens of a text that is long", prompt="word " * 1000),
    tokenize("tokens of an unknown model", "nobody/nothing", prompt="Hi"),
    tokenize("tokens of no model", None, prompt="Hi"),
    tokenize("tokens with an unknown field", prompt="Hi", nonsense=1),
    detokenize("text"),
    detokenize("text of half a character", tokens=[127, 102, 128]),
    detokenize("text of nothing", tokens=[]),
    detokenize("text of tokens out of the vocabulary", tokens=[258]),
    detokenize("text of negative tokens", tokens=[-1]),
    detokenize("text of words", tokens=["a"]),
    detokenize("text of no tokens", tokens=None),
    detokenize("text of an unknown model", model="nobody/nothing"),
    post("tokenize, bad JSON", "/tokenize", b"x"),
    post("detokenize, too large a body", "/detokenize", {"model": PLAIN, "tokens": [1] * 2_000}),
    post("embeddings", "/v1/embeddings", {"model": PLAIN, "input": "x"}),
    post("embeddings, no body", "/v1/embeddings"),
]
