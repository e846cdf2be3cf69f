"""Tell the operator when an open server can be reached from other machines.

The application isn't told where its server listens, and the server listens only after the
application has started: so this looks at the process's own sockets until there is one.
"""

import asyncio
import logging
from typing import Final

from app.system import is_loopback, listening_addresses

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.2
LOOKS: Final = 50


async def warn_if_exposed() -> None:
    """Wait until the server listens, ten seconds at most, and warn if it is not on loopback."""
    for _ in range(LOOKS):
        addresses = await asyncio.to_thread(listening_addresses)
        if addresses:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    for address in addresses:
        if not is_loopback(address):
            logger.warning(
                "open_to_others address=%s: whoever reaches it may generate, load and unload "
                "without a token; LLMHOST_REQUIRE_AUTH=true asks for one",
                address,
            )
