"""Those whom an attack must not disturb: honest streams, and a poller of `/health/live`.

Each has an account and an address of its own on loopback, so that neither a limit for one client
nor one for one address can confuse them with the attackers. Linux alone has these addresses.
"""

import asyncio
import contextlib
import http.client
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import aiohttp
from tokenizers import Tokenizer

from bench.load import LocalLabClient, Stream

PROMPT_TOKENS, MAX_TOKENS = 48, 256
STREAM_EVERY_S: Final = 1.5
"""A stream begins no earlier after the one before: 40 a minute are below every limit."""
ANSWER_S: Final = 60.0
POLL_EVERY_S: Final = 0.02
POLLER_ADDRESS: Final = "127.0.0.99"
PASSWORD: Final = "a password that nobody guesses"  # noqa: S105 # of accounts that live for minutes


@dataclass
class Failures:
    """What went wrong for those who did nothing wrong, and when."""

    noted: list[tuple[float, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Note a failure at this moment."""
        self.noted.append((time.monotonic(), text))

    def between(self, since_s: float, until_s: float) -> list[str]:
        """Those of a time."""
        return [text for at_s, text in self.noted if since_s <= at_s < until_s]


@dataclass
class Honest:
    """A client with an account of its own, which streams one text after another."""

    name: str
    session: aiohttp.ClientSession
    """From an address of its own, with its key."""
    client: LocalLabClient
    failures: Failures
    streams: list[Stream] = field(default_factory=list)
    active: Stream | None = None

    async def stream(self) -> None:
        """Stream until cancelled."""
        while True:
            self.active = stream = Stream()
            self.streams.append(stream)
            try:
                await self.client.stream(self.client.prompt(PROMPT_TOKENS), MAX_TOKENS, stream)
            except (aiohttp.ClientError, RuntimeError, TimeoutError) as error:
                self.failures.note(f"stream of {self.name}: {_told(error)}")
            self.active = None
            await asyncio.sleep(max(0.0, stream.started_s + STREAM_EVERY_S - time.monotonic()))

    def gaps_s(self, since_s: float, until_s: float) -> list[float]:
        """Seconds between tokens, for each gap that touches a time.

        One that has not ended counts as far as it goes. One before a character that is not ASCII
        does not count: its first bytes may have been held back, which is no pause.
        """
        gaps = [
            (start, end)
            for stream in self.streams
            for (start, _), (end, text) in pairwise(stream.pieces)
            if text.isascii()
        ]
        if self.active is not None and self.active.pieces:
            gaps.append((self.active.pieces[-1][0], time.monotonic()))
        return [end - start for start, end in gaps if start < until_s and end > since_s]

    def first_tokens_s(self, since_s: float, until_s: float) -> list[float]:
        """Seconds to the first token of each stream that began in a time, as far as they go."""
        now_s = time.monotonic()
        return [
            (stream.ttft_s if stream.pieces else now_s - stream.started_s)
            for stream in self.streams
            if since_s <= stream.started_s < until_s
        ]

    async def sign_in(self) -> float:
        """Sign in once; return the seconds that it took."""
        started_s = time.monotonic()
        try:
            await _sign_in(self.session, self.name)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.note(f"sign-in of {self.name}: {_told(error)}")
        return time.monotonic() - started_s


@contextlib.asynccontextmanager
async def honest_client(
    url: str, number: int, tokenizer: Tokenizer, failures: Failures
) -> AsyncIterator[Honest]:
    """Register an account with a key, and make a client that uses them."""
    name, address = f"honest{number}", f"127.0.0.{10 + number}"
    key = await new_key(url, name, address)
    async with _session(url, address, key) as session:
        # the session has the URL
        client = LocalLabClient(session, "", tokenizer, seed=number)
        yield Honest(name, session, client, failures)


async def new_key(url: str, name: str, address: str) -> str:
    """Register an account from an address; return an API key of it."""
    async with _session(url, address) as session:
        body = {"username": name, "password": PASSWORD}
        async with session.post("/register", json=body) as response:
            response.raise_for_status()
        headers = {"authorization": f"Bearer {await _sign_in(session, name)}"}
        async with session.post("/me/keys", json={"name": "k"}, headers=headers) as response:
            response.raise_for_status()
            return str((await response.json())["key"])


def _told(error: Exception) -> str:
    """An error in words; aiohttp's own quote the headers, and so the key."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"
    return repr(error)


def _session(url: str, address: str, key: str = "") -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0, local_addr=(address, 0)),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=ANSWER_S),
        headers={"authorization": f"Bearer {key}"} if key else {},
    )


async def _sign_in(session: aiohttp.ClientSession, name: str) -> str:
    async with session.post("/login", data={"username": name, "password": PASSWORD}) as response:
        response.raise_for_status()
        return str((await response.json())["access_token"])


class Poller:
    """Asks whether the server lives, on a thread of its own: now as before, now as a newcomer."""

    def __init__(self, port: int, failures: Failures) -> None:
        self._port, self._failures = port, failures
        self._over = threading.Event()
        self.seen: list[tuple[float, float]] = []
        """When a poll began, and the seconds that it took."""

    @contextlib.contextmanager
    def polling(self) -> Iterator[None]:
        """Poll while the block runs."""
        thread = threading.Thread(target=self._poll, name="poller")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def took_between(self, since_s: float, until_s: float) -> list[float]:
        """Seconds that the polls of a time took."""
        return [took for at, took in self.seen if since_s <= at < until_s]

    def _poll(self) -> None:
        kept = self._connection()
        for number in range(1 << 62):
            if self._over.wait(POLL_EVERY_S):
                break
            newcomer = number % 2 == 1
            connection = self._connection() if newcomer else kept
            started_s = time.monotonic()
            try:
                connection.request("GET", "/health/live")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self._failures.note(f"/health/live answered {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self._failures.note(f"/health/live: {error!r}")
                kept.close()  # connects again at its next request
            self.seen.append((started_s, time.monotonic() - started_s))
            if newcomer:
                connection.close()
        kept.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=ANSWER_S, source_address=(POLLER_ADDRESS, 0)
        )
