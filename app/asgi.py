"""Put the packages together: the only file that knows them all."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from app.catalog.catalog import Catalog
from app.dialects.fallback import fallback_handlers
from app.dialects.locallab import routes as locallab
from app.dialects.locallab import wire as locallab_wire
from app.dialects.locallab.schemas import GenerateBody
from app.dialects.shared_paths import Choice, generate_route
from app.generation.service import GenerationService
from app.settings import Settings

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def create_app(settings: Settings) -> Litestar:
    """Make the application; nothing is opened or loaded before its lifespan starts."""
    catalog = Catalog(settings)
    service = GenerationService(catalog)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        if settings.model:
            await catalog.load(settings.model)
        idle_watch = asyncio.create_task(catalog.unload_idle())
        _close_on_sigterm(catalog)
        yield
        idle_watch.cancel()
        await catalog.close()

    generate = generate_route(
        {
            "prompt": Choice(
                handler=locallab.generate,
                refuse=locallab_wire.refuse,
                body=GenerateBody,
                responses=locallab.ERRORS,
            )
        },
        locallab_wire.refuse,
    )
    return Litestar(
        [generate, locallab.router()],
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        exception_handlers=fallback_handlers({"": locallab_wire.envelope}),
        lifespan=[lifespan],
        openapi_config=OpenAPIConfig(title="llmhost", version="0.1.0"),
        logging_config=None,
    )


def _close_on_sigterm(catalog: Catalog) -> None:
    """Begin to close at the first signal.

    The server waits for its connections before it ends the lifespan, for ever if need be. Its
    own handler is the event loop's and stays; a handler of Python's beside it hears the signal
    too, and closing the catalog ends what outlasts the drain time.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # in a test: signals are the main thread's
    loop = asyncio.get_running_loop()
    closing: list[asyncio.Task[None]] = []

    def close() -> None:
        logger.info("closing running=%d", sum(m.engine.num_requests for m in catalog.loaded))
        closing.append(loop.create_task(catalog.close()))

    def on_signal(*_: object) -> None:
        # One is enough, and a process manager may send it to the whole group: Granian's own
        # handler blocks its event loop for ever at the third (2.8.7).
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(close)

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)
