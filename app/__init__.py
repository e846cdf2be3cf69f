"""The server. `app.app` is the application object that `granian app:app` serves.

It is made when first asked for, so that importing `app.engine` builds no server.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.process.interfaces import DualInterface

    app: DualInterface


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.process.logs import configure_logging  # noqa: PLC0415 # made on demand, see above
    from app.process.signals import exit_while_starting  # noqa: PLC0415 # as above

    configure_logging()
    exit_while_starting()  # before what follows, which takes a second to import
    from app.process.start import make_application  # noqa: PLC0415 # as above

    globals()["app"] = application = make_application()
    return application
