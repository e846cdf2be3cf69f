"""Send cases and read their answers, each client on a connection that is kept if it can be.

Knows no endpoint; what is wrong with an answer the judge says.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.fuzz.cases import Case
from bench.fuzz.judge import Judge
from bench.raw_http import LONGEST_HEAD, Answer, BadAnswer, NoAnswer, read_answer

ANSWER_S: Final = 60.0
"""Without an answer for so long, a request counts as hanging: none generates more than a little."""
RAW_ANSWER_S: Final = 1.0
"""The same for what is no HTTP: the server may well wait for the rest of it."""


@dataclass
class Tally:
    """What came of the requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    """Seconds, and the number of the request."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """The number of a request, and what is wrong with its answer."""
    under_way: dict[int, float] = field(default_factory=dict)
    """Request → when it was sent, on the monotonic clock."""


class Client:
    """One of those who send."""

    def __init__(
        self,
        port: int,
        judge: Judge,
        secrets: Mapping[str, str],
        tally: Tally,
        told: Callable[[Case, str], None],
    ) -> None:
        self._port, self._judge, self._secrets = port, judge, secrets
        self._tally, self._told = tally, told
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, case: Case) -> Answer | None:
        """Send one request and judge what comes; None: no answer that was one."""
        started_s = self._tally.under_way[case.number] = time.monotonic()
        try:
            answer = await self._answer(case)
        except (NoAnswer, BadAnswer, TimeoutError, ConnectionError) as error:
            self.close()
            self._tally.statuses["no answer" if case.well_formed else "no answer to no HTTP"] += 1
            if case.well_formed or isinstance(error, BadAnswer):
                self._fault(case, _words(error))
            return None
        finally:
            del self._tally.under_way[case.number]
        took_s = time.monotonic() - started_s
        self._tally.slowest = max(self._tally.slowest, (took_s, case.number))
        self._tally.statuses[str(answer.status)] += 1
        for fault in self._faults(case, answer):
            self._fault(case, fault)
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection[1].transport.abort()
        self._connection = None

    async def _answer(self, case: Case) -> Answer:
        content = case.encoded(self._secrets)
        if not case.well_formed:
            self.close()
        for _ in range(2):
            kept = self._connection is not None
            try:
                answer = await self._exchange(content, case)
                break
            except (NoAnswer, ConnectionError):
                # the server may close a connection between two requests, and that is no fault
                self.close()
                if not kept:
                    raise
        if not (case.well_formed and answer.keeps_open):
            self.close()
        return answer

    async def _exchange(self, content: bytes, case: Case) -> Answer:
        async with asyncio.timeout(ANSWER_S if case.well_formed else RAW_ANSWER_S):
            if self._connection is None:
                self._connection = await asyncio.open_connection(
                    "127.0.0.1", self._port, limit=LONGEST_HEAD
                )
            reader, writer = self._connection
            writer.write(content)
            with contextlib.suppress(ConnectionError):  # a refusal may have come before
                await writer.drain()
            return await read_answer(reader, to_head=case.to_head)

    def _faults(self, case: Case, answer: Answer) -> Iterator[str]:
        return self._judge.faults(
            answer,
            case.operation if case.reaches else None,
            well_formed=case.well_formed,
            to_head=case.to_head,
        )

    def _fault(self, case: Case, fault: str) -> None:
        self._tally.faults.append((case.number, fault))
        self._told(case, fault)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {ANSWER_S:.0f} s"
    if isinstance(error, BadAnswer):
        return f"what came is no HTTP: {error}"
    return "the connection ended without an answer"
