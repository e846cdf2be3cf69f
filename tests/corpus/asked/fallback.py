"""What is at no address, and methods that an address doesn't have."""

from tests.corpus.request import ask

# beside each dialect's paths: a name that only begins like one
NOWHERE = [
    *("/nowhere", "/generate/", "/generate/nowhere", "/models", "/models/nowhere"),
    *("/me/nowhere", "/health/nowhere", "/api", "/api/", "/api/nowhere", "/api/chats/a/b"),
    *("/apiary", "/v1", "/v1/", "/v1/nowhere", "/v1beta", "/v1/chat", "/v1/chat/completions/"),
    *("/tokenizer", "/tokenize/x", "/detokenized", "/detokenize/x", "/v1/responses/resp_1"),
    *("/metricss", "/system", "/docs", "/schema/nowhere"),
]
POSTED = [
    *("/generate", "/chat", "/generate/batch", "/models/load", "/models/unload"),
    *("/register", "/login", "/refresh", "/logout", "/me/password", "/me/delete"),
    *("/api/ai/huggingface/tests/first/chat", "/v1/chat/completions", "/v1/completions"),
    *("/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize"),
]
READ = [
    *("/health", "/health/live", "/health/ready", "/models/current", "/models/available"),
    *("/system/info", "/metrics", "/me", "/v1/models", "/v1/models/tests/first", "/api/chats"),
]
BOTH = ["/me/keys", "/me/keys/1", "/api/chats/1"]

REQUESTS = [
    *(ask(f"GET {path}", path) for path in (*NOWHERE, *POSTED)),
    *(ask(f"POST {path}", path, method="POST") for path in ("/nowhere", "/v1/nowhere", *READ)),
    *(ask(f"PUT {path}", path, method="PUT") for path in BOTH),
    *(ask(f"OPTIONS {path}", path, method="OPTIONS") for path in (*POSTED, *READ, *BOTH)),
    ask("OPTIONS nowhere", "/v1/nowhere", method="OPTIONS"),
    ask("HEAD of health", "/health", method="HEAD"),
    ask("HEAD of OpenAI's models", "/v1/models", method="HEAD"),
    ask("a method that nobody knows", "/v1/models", method="BREW"),
]
