"""What an attacker knows of a server, and the connections that it makes there.

Whatever an attacker does ends at a time and after a number of attempts.
"""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from bench.raw_http import LONGEST_HEAD, BadAnswer, NoAnswer, read_answer, request

CONNECT_S: Final = 10.0
AFTER_REFUSAL_S: Final = 0.05
"""A refused connection costs an attacker nothing: this keeps its own machine from spinning."""
AFTER_LIMIT_S: Final = 0.2
"""Who is told to come back later gains nothing by asking at once; floods do it all the same."""
HELD: Final = "held"
"""The attacker ended it: until then the server had neither answered nor closed."""
CUT: Final = "cut"
"""The server closed the connection without an answer, or broke the answer off."""
HUNG_UP: Final = "hung up"


@dataclass
class Target:
    """A server under attack, and what came of it."""

    port: int
    model: str
    """The one that is loaded."""
    other_model: str
    """One that is only on disk."""
    victims: tuple[str, ...]
    """Names of other users."""
    keys: tuple[str, ...]
    """API keys of the attackers."""
    addresses: tuple[str, ...]
    """Where the attackers connect from, in turn."""
    until_s: float = 0.0
    """When everything ends, on the monotonic clock."""
    attempts_left: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """What came of the attempts: a status, or one of the words above."""

    def attempts(self) -> Iterator[int]:
        """Count attempts until the time or their number is up."""
        while self.left_s > 0 and self.attempts_left > 0:
            self.attempts_left -= 1
            yield self.attempts_left

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        return max(0.0, self.until_s - time.monotonic())

    def identity(self, number: int) -> list[tuple[str, str]]:
        """Headers of one of the attackers: the nameless one, or one with a key."""
        choice = number % (len(self.keys) + 1)
        return [("authorization", f"Bearer {self.keys[choice - 1]}")] if choice else []

    @contextlib.asynccontextmanager
    async def connection(
        self, number: int, *, receive_buffer: int | None = None
    ) -> AsyncIterator["Connection"]:
        """Open a connection from one of the addresses; what fails on it is counted and ends it."""
        made = socket.socket()
        made.setblocking(False)
        try:
            if receive_buffer is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            made.bind((self.addresses[number % len(self.addresses)], 0))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(made, ("127.0.0.1", self.port))
        except (OSError, TimeoutError) as error:
            made.close()
            self.seen[type(error).__name__] += 1
            await asyncio.sleep(AFTER_REFUSAL_S)
            yield Connection(self, None, None, made)
            return
        reader, writer = await asyncio.open_connection(sock=made, limit=LONGEST_HEAD)
        try:
            yield Connection(self, reader, writer, made)
        finally:
            writer.transport.abort()  # no attacker says goodbye


class Connection:
    """One connection of an attacker. After a failure everything on it does nothing."""

    def __init__(
        self,
        target: Target,
        reader: asyncio.StreamReader | None,
        writer: asyncio.StreamWriter | None,
        raw: socket.socket,
    ) -> None:
        self._target = target
        self._reader, self._writer = reader, writer
        self.raw = raw

    @property
    def open(self) -> bool:
        """Whether nothing has failed on it yet."""
        return self._reader is not None

    async def send(self, content: bytes) -> None:
        """Write bytes and wait until the system has taken them, or the time is up."""
        if self._writer is None:
            return
        try:
            async with asyncio.timeout(self._target.left_s):
                self._writer.write(content)
                await self._writer.drain()
        except TimeoutError:
            self._end(HELD)
        except ConnectionError:
            self._writer = None  # an answer may have come before

    async def ask(self, method: str, path: str, body: bytes = b"", **options: Any) -> None:
        """Send a request, count the status of its answer, and wait a moment after a 429."""
        await self.send(request(method, path, body, **options))
        if await self.answer() == 429:
            await asyncio.sleep(min(AFTER_LIMIT_S, self._target.left_s))

    async def answer(self) -> int | None:
        """Read an answer to its end and count it; return its status, None where none came."""
        if self._reader is None:
            return None
        try:
            async with asyncio.timeout(self._target.left_s):
                answer = await read_answer(self._reader)
        except TimeoutError:
            self._end(HELD)
        except (NoAnswer, BadAnswer):
            await self._cut()
        else:
            self._target.seen[str(answer.status) if answer.whole else CUT] += 1
            if not answer.keeps_open:
                self._reader = self._writer = None
            return answer.status
        return None

    async def trickle(self, piece: bytes, every_s: float) -> None:
        """Send a piece again and again until there is an answer, an end, or no time left."""
        if self._reader is None:
            return
        answering = asyncio.create_task(self.answer())
        while not answering.done():
            await self.send(piece)
            await asyncio.wait([answering], timeout=every_s)
        await answering

    async def wait(self) -> None:
        """Send and read nothing more until the time is up."""
        if self._reader is not None:
            await asyncio.sleep(self._target.left_s)
            self._end(HELD)

    def hang_up(self) -> None:
        """Count that the attacker goes."""
        if self._reader is not None:
            self._end(HUNG_UP)

    async def _cut(self) -> None:
        self._end(CUT)
        await asyncio.sleep(AFTER_REFUSAL_S)

    def _end(self, how: str) -> None:
        if self._reader is not None:
            self._target.seen[how] += 1
        self._reader = self._writer = None
