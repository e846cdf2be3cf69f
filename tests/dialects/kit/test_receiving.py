"""Bodies that come late, or not whole."""

import asyncio
from collections.abc import Sequence

import pytest

from app.dialects.kit.receiving import Receiving
from app.errors import BodyTimeout, RequestError


class Client:
    """Sends parts of a body, each after a time; then nothing."""

    def __init__(self, *parts: tuple[float, bytes]) -> None:
        self._parts = list(parts)

    async def receive(self) -> dict:
        if not self._parts:
            await asyncio.Event().wait()
        after_s, body = self._parts.pop(0)
        await asyncio.sleep(after_s)
        return {"type": "http.request", "body": body, "more_body": bool(self._parts)}


async def read(client: Client, idle_s: float, total_s: float, *lengths: int) -> bytes:
    headers = [(b"Content-Length", b"%d" % length) for length in lengths]
    receive = Receiving(client.receive, headers, idle_s=idle_s, total_s=total_s)
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    return body


def parts(*bodies: bytes, after_s: float = 0.0) -> Sequence[tuple[float, bytes]]:
    return [(after_s, body) for body in bodies]


async def test_a_body_in_time_is_received_as_it_is() -> None:
    assert await read(Client(*parts(b"a", b"", b"bc")), 30, 30, 3) == b"abc"
    assert await read(Client(*parts(b"")), 30, 30) == b""


@pytest.mark.parametrize(("idle_s", "total_s"), [(0.01, 0), (0, 0.01), (0.01, 30)])
async def test_a_pause_ends_with_what_has_come_and_the_limit(idle_s, total_s) -> None:
    receive = Receiving(Client((0, b"abc"), (30, b"")).receive, [], idle_s=idle_s, total_s=total_s)
    await receive()
    with pytest.raises(BodyTimeout, match=r"stopped after 3 bytes, it may take 0\.01 s"):
        await receive()


async def test_pauses_add_up() -> None:
    client = Client(*parts(*[b"a"] * 1000, after_s=0.01))
    with pytest.raises(BodyTimeout, match=r"it may take 0\.1 s"):
        await read(client, 30, 0.1)


async def test_the_time_between_asking_for_parts_is_not_the_clients() -> None:
    receive = Receiving(Client(*parts(b"a", b"b")).receive, [], idle_s=0.05, total_s=0.05)
    await receive()
    await asyncio.sleep(0.1)
    assert (await receive())["body"] == b"b"


async def test_after_the_body_there_is_no_limit() -> None:
    receive = Receiving(Client(*parts(b"a")).receive, [], idle_s=0.001, total_s=0.001)
    await receive()
    with pytest.raises(TimeoutError):  # of this test, not of the body
        await asyncio.wait_for(receive(), 0.05)


async def test_zero_is_no_limit() -> None:
    assert await read(Client((0.01, b"a"), (0.01, b"b")), 0, 0) == b"ab"


async def test_a_body_shorter_than_announced_is_refused_with_both_lengths() -> None:
    with pytest.raises(RequestError, match=r"ended after 3 bytes, its Content-Length is 7"):
        await read(Client(*parts(b"abc")), 30, 30, 7)


async def test_a_client_that_goes_in_the_middle_has_sent_no_body() -> None:
    messages = [
        {"type": "http.request", "body": b"abc", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict:
        return messages.pop(0)

    receiving = Receiving(receive, [], idle_s=30, total_s=30)
    await receiving()
    with pytest.raises(RequestError, match="broke off after 3 bytes"):
        await receiving()
