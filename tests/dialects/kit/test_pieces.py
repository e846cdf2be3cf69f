import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.dialects.kit.pieces import Pieces
from tests.dialects.kit.connection import Connection


class Body:
    """Pieces without end, and what became of them."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x"
        finally:
            self.steps.append("pieces closed")

    async def close(self) -> None:
        self.steps.append("closed")

    def answer(self) -> Any:
        pieces = Pieces(
            self.pieces(),
            "text/plain",
            first=b"first",
            close=self.close,
            note_gone=lambda: self.steps.append("gone"),
        )
        return pieces.to_asgi_response()


async def test_when_the_client_goes_it_is_noted_and_all_is_closed():
    body, connection, sent = Body(), Connection(), []

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        sent.append(message.get("body"))
        if len(sent) == 4:
            connection.gone.set()

    await body.answer()({"type": "http"}, connection.receive, send)
    assert sent[1:4] == [b"first", b"x", b"x"]
    assert body.steps == ["gone", "closed", "pieces closed"]


async def test_cancelled_inside_send_all_is_closed():
    body, sending = Body(), asyncio.Event()

    async def send(message: Any) -> None:
        if message.get("body") == b"x":
            sending.set()
            await asyncio.Event().wait()

    answering = asyncio.create_task(body.answer()({"type": "http"}, Connection().receive, send))
    await sending.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert body.steps == ["closed", "pieces closed"]
