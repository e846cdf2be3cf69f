"""Which other sites' pages may read this server's answers in a browser (CORS); none by default.

Litestar answers a browser's question before any guard: it comes without the token of the request
that it is about.
"""

import re
from typing import Final

from litestar.config.cors import CORSConfig

from app.settings import InvalidSetting

ANY: Final = "*"
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
EXPOSED: Final = [
    *("request-id", "retry-after", "retry-after-ms", "x-llmhost-ignored", "x-request-id"),
    *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
]
"""Headers of answers that pages may read."""


def cors_config(setting: str) -> CORSConfig | None:
    """Read `LLMHOST_CORS_ORIGINS`; None: it allows no site.

    Raises:
        InvalidSetting: an entry is no origin.
    """
    origins = [entry.strip() for entry in setting.split(",") if entry.strip()]
    for origin in origins:
        # a wildcard inside of an origin would be one for Litestar too
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise InvalidSetting(
                f"LLMHOST_CORS_ORIGINS: {origin!r} is no origin; expected https://name or "
                "http://name:port in small letters, without a path, separated by commas, or *"
            )
    if not origins:
        return None
    return CORSConfig(allow_origins=origins, expose_headers=EXPOSED)
