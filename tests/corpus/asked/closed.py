"""A server that is closed: who may do what, no model at first, and a limit of requests."""

from tests.corpus.request import CHAT, COMPLETIONS, RESPONSES, ask, load, post, user
from tests.corpus.scripted import PLAIN

TURN = {"messages": [user("Hi")]}
NEPTUN = f"/api/ai/huggingface/{PLAIN}/chat?chat_id=-1"
GENERATING = [
    ("LocalLab", "/generate", {"prompt": "Hi"}),
    ("LocalLab's chat", "/chat", TURN),
    ("LocalLab's batch", "/generate/batch", {"prompts": ["Hi"]}),
    ("LLM Host", "/generate", {"query": "Hi"}),
    ("Neptun", NEPTUN, TURN),
    ("OpenAI's chat", CHAT, {"model": PLAIN, **TURN}),
    ("OpenAI's completions", COMPLETIONS, {"model": PLAIN, "prompt": "Hi"}),
    ("OpenAI's responses", RESPONSES, {"model": PLAIN, "input": "Hi"}),
    ("OpenAI's tokens", "/tokenize", {"model": PLAIN, "prompt": "Hi"}),
    ("OpenAI's embeddings", "/v1/embeddings", {"model": PLAIN, "input": "Hi"}),
]
READING = ["/models/current", "/models/available", "/system/info", "/metrics", "/v1/models"]
LOGIN = {"username": "bob", "password": "wrong horse"}

REQUESTS = [
    ask("health", "/health"),
    ask("live", "/health/live"),
    ask("ready", "/health/ready"),
    *(post(f"{name} without a token", path, body) for name, path, body in GENERATING),
    *(post(f"{name}, bad", path, body, token="bad") for name, path, body in GENERATING),
    *(ask(f"{path} without a token", path) for path in READING),
    post("load without a token", "/models/load", {"model_id": PLAIN}),
    post("unload without a token", "/models/unload"),
    post("load as a user", "/models/load", {"model_id": PLAIN}, token="<<bob>>"),
    post("unload as a user", "/models/unload", token="<<bob>>"),
    ask("metrics as a user", "/metrics", token="<<bob>>"),
    ask("current model as a user", "/models/current", token="<<bob>>"),
    ask("models as a user", "/v1/models", token="<<bob>>"),
    post("register", "/register", {"username": "dan", "password": "correct horse"}),
    post("make a key", "/me/keys", {"name": "k"}, token="<<bob>>", save={"bobs_key": "key"}),
    post("LocalLab, no model", "/generate", {"prompt": "Hi"}, token="<<bob>>"),
    post("LLM Host, no model", "/generate", {"query": "Hi"}, token="<<bob>>"),
    post("OpenAI's chat with a key", CHAT, {"model": PLAIN, **TURN}, token="<<bobs_key>>"),
    post("LocalLab with a key", "/generate", {"prompt": "Hi"}, token="<<bobs_key>>"),
    post("Neptun with a key", NEPTUN, TURN, token="<<bobs_key>>"),
    ask("ready with a model", "/health/ready"),
    load(PLAIN),
    *(post(f"{n} for carol", p, body, token="<<carol>>") for n, p, body in GENERATING[:8]),
    *(post(f"{n}, once too often", p, body, token="<<carol>>") for n, p, body in GENERATING),
    *(post(f"a wrong password, {i}", "/login", LOGIN) for i in range(4)),
    post("a right password, too late", "/login", {**LOGIN, "password": "correct horse"}),
    post(
        "a password is changed in spite of them",
        "/me/password",
        {"current_password": "correct horse", "new_password": "battery staple"},
        token="<<bob>>",
    ),
]
