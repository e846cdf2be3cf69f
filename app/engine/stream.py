"""Where the events of one request arrive on the event loop."""

import asyncio
from collections.abc import Callable

from app.contract.sampling import FinishReason
from app.engine.sequence import TokenEvent
from app.metrics import RequestMeter, RequestTimes


class TokenStream:
    """The event loop's end of one request."""

    def __init__(self, abort: Callable[[FinishReason], None], meter: RequestMeter) -> None:
        self._abort = abort
        self._meter = meter
        self._events: list[TokenEvent] = []
        self._arrived = asyncio.Event()

    @property
    def times(self) -> RequestTimes:
        """When the request was where."""
        return self._meter.times

    async def next(self) -> list[TokenEvent]:
        """Wait for at least one event and return all there are; the last one says it is."""
        await self._arrived.wait()
        events, self._events = self._events, []
        self._arrived.clear()
        return events

    def abort(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End the request at the next step; its slot is free then. Harmless when repeated.

        Args:
            reason: what the metrics count it as; the text layer alone knows of a stop string.
        """
        self._abort(reason)

    def put(self, event: TokenEvent) -> None:
        """Deliver an event; called by the engine's hand-over alone."""
        self._events.append(event)
        self._arrived.set()
