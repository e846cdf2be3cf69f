"""One request of the corpus, as data."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.e2e.scripted_app import FIRST

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
SSE, NDJSON = "text/event-stream", "application/x-ndjson"
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"

Show = Literal["body", "keys", "series", "paths", "choices", "break"]
"""How a body is recorded: as it is · a JSON object's keys and types · names of metrics · paths,
methods and statuses of an OpenAPI document · a stream's events, sorted by choice · only that the
connection broke off."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is sent; `<<name>>` in path, headers and body stands for a saved value."""

    name: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    save: Mapping[str, str] = field(default_factory=dict)
    """Name → key of the JSON answer; `keys.0.id` goes into lists."""
    show: Show = "body"

    def filled(self, saved: Mapping[str, str]) -> "Request":
        """Replace the placeholders."""

        def fill(text: str) -> str:
            return re.sub(r"<<(\w+)>>", lambda found: saved[found[1]], text)

        return Request(
            name=self.name,
            method=self.method,
            path=fill(self.path),
            headers={name: fill(value) for name, value in self.headers.items()},
            content=fill(self.content.decode()).encode() if b"<<" in self.content else self.content,
            save=self.save,
            show=self.show,
        )


def ask(
    name: str,
    path: str,
    body: Any = None,
    *,
    method: str = "",
    accept: str = "",
    token: str = "",
    content_type: str = JSON,
    save: Mapping[str, str] | None = None,
    show: Show = "body",
    **headers: str,
) -> Request:
    """Make a request.

    Args:
        name: in the records.
        path: with its query.
        body: bytes are sent as they are, anything else as JSON; None: no body.
        method: by default POST with a body, else GET.
        accept: of the header of this name.
        token: what is sent as Bearer.
        content_type: of the body; empty: none is named.
        save: what to keep of the answer.
        show: how it is recorded.
        **headers: further ones, with underscores for hyphens.
    """
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and content_type:
        sent["content-type"] = content_type
    if accept:
        sent["accept"] = accept
    if token:
        sent["authorization"] = f"Bearer {token}"
    content = body if isinstance(body, bytes) else b""
    if body is not None and not isinstance(body, bytes):
        content = json.dumps(body, ensure_ascii=False).encode()
    return Request(
        name=name,
        method=method or ("GET" if body is None else "POST"),
        path=path,
        headers=sent,
        content=content,
        save=save or {},
        show=show,
    )


def post(name: str, path: str, body: Any = None, **options: Any) -> Request:
    """Make a POST, also without a body."""
    return ask(name, path, body, method="POST", **options)


def user(content: Any) -> dict[str, Any]:
    """A user's turn."""
    return {"role": "user", "content": content}


def load(model_id: str = FIRST, why: str = "") -> Request:
    """Make a model the current one."""
    return ask(f"load {model_id}{why}", "/models/load", {"model_id": model_id})
