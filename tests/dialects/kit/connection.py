"""A client's connection, as ASGI's `receive` shows it."""

import asyncio
from typing import Any


class Connection:
    """A client that goes when told to."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.rest: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"", "more_body": False}
        ]

    async def receive(self) -> Any:
        if self.rest:
            return self.rest.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}
