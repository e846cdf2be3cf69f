"""How a command ends: its exit status, and what it says when it could not do its work."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses; scripts may rely on them."""

    DONE = 0
    FAILED = 1
    """It could not be done; the reason is the last line on standard error."""
    USAGE = 2
    """The command line or a setting is wrong."""
    UNREACHABLE = 3
    """No server answers where one is needed."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CommandFailed(Exception):
    """What was asked can't be done; the message says why and what to do."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status
