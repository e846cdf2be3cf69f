"""Ask a line of a batch through the server's own application, as if it had come over HTTP.

So there is one implementation of each endpoint: routing, guards, schemas, refusals and answers are
those of the route. Knows nothing of batches.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.types import Message

from app.auth.guards import IN_BATCH
from app.auth.logins import Principal


class Told(NamedTuple):
    """An answer of the application."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(application: Litestar, principal: Principal, path: str, body: bytes) -> Told:
    """Send a request for a user, behind those of all who wait for theirs."""
    waiting: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
    status, headers, answer = 500, dict[str, str](), bytearray()

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()  # nobody goes away
        return waiting.pop()

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            for name, value in message["headers"]:
                headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        elif message["type"] == "http.response.body":
            answer.extend(message["body"])

    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ],
        "client": None,
        "server": None,
        "state": {IN_BATCH: True},
        "user": principal,
    }
    await application(scope, receive, send)
    return Told(status, headers, bytes(answer))
