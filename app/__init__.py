"""The server. `app.app` is the application object that `granian app:app` serves.

It is made when first asked for, so that importing `app.engine` builds no server.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.rsgi import DualInterface

    app: DualInterface


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import logging  # noqa: PLC0415 # needed here alone

    from app.asgi import create_app  # noqa: PLC0415 # made on demand, see above
    from app.rsgi import DualInterface  # noqa: PLC0415 # as above
    from app.settings import load_settings  # noqa: PLC0415 # as above

    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(name)s %(message)s")
    globals()["app"] = application = DualInterface(create_app(load_settings()))
    return application
