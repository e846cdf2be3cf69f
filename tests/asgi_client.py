"""Talk to an ASGI application in this event loop, and go away in the middle when asked to."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    body: object = None,
    *,
    raw: bytes | None = None,
    headers: dict[str, str] | None = None,
    gone: asyncio.Event | None = None,
    on_chunk: Callable[[Answer], Any] | None = None,
    client: tuple[str, int] | None = ("127.0.0.1", 50000),
) -> Answer:
    """Send one request.

    Args:
        body: sent as JSON with its content type, unless None.
        raw: sent as it is.
        gone: the client disconnects when this is set.
        client: the other end of the connection.
        on_chunk: called after each chunk of the answer; what it returns is awaited if it can be.
    """
    content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    sent = {"content-length": str(len(content)), **(headers or {})}
    if body is not None:
        sent.setdefault("content-type", "application/json")
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in sent.items()],
        "client": client,
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    answer = Answer()
    over = gone or asyncio.Event()
    messages = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
            return
        answer.chunks.append(message["body"])
        if not message.get("more_body", False):
            answer.complete = True
        elif on_chunk is not None and (awaitable := on_chunk(answer)) is not None:
            await awaitable

    await app(scope, receive, send)
    return answer
