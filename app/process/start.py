"""Make the application that Granian serves, or say in one sentence why it can't be.

What takes long to import is imported last, so that a start that can't work fails at once.
"""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING, Final

from app.errors import Error
from app.process.listening import PortTaken, refuse_taken_port
from app.settings import InvalidSetting, load_settings

if TYPE_CHECKING:
    from app.process.interfaces import DualInterface

logger = logging.getLogger(__name__)

# More than Granian lets in (1,024 connections), beside the files of models and databases.
_FILES: Final = 65_536


def make_application() -> DualInterface:
    """Read the settings and put everything together; nothing is opened or loaded yet.

    Raises:
        SystemExit: it can't work; why has been logged.
    """
    try:
        settings = load_settings()
        refuse_taken_port()
        _raise_file_limit()
        from app.asgi import create_server  # noqa: PLC0415 # a second or more
        from app.process.interfaces import DualInterface  # noqa: PLC0415 # needs what that imports
        from app.process.worker import Worker  # noqa: PLC0415 # as above

        worker = Worker(create_server(settings), settings)
    except Exception as error:
        report(error)
        raise SystemExit(1) from error
    return DualInterface(worker.application, worker)


def report(error: Exception) -> None:
    """Log in one sentence why the server can't start; a bug of ours with its traceback."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:  # Litestar's
        error = error.exceptions[0]
    if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
        # the one requirement that no plain install can choose: CPU or CUDA
        error = InvalidSetting(
            "ONNX Runtime is not installed, expected one of the extras: "
            "pip install 'llmhost[cpu]', or 'llmhost[gpu]' for CUDA"
        )
    foreseen = isinstance(error, (InvalidSetting, Error, PortTaken, OSError))
    for problem in (str(error) or type(error).__name__).splitlines():
        logger.error("start_failed: %s", problem, exc_info=None if foreseen else error)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
