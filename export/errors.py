"""The reasons for which an export is refused. Knows nothing about the command line.

ExportError
├── SourceUnusable      the source can't be found, read or recognised
├── UnsupportedModel    the model does something that the decoder graph can't express
├── QualityRefused      the exported graph differs too much from torch
├── NoRoom              the disk or the memory is too small for what the export takes
└── AtWork              another export of the model is going on
"""


class ExportError(Exception):
    """Root of the tree; its text is one sentence for the terminal."""


class SourceUnusable(ExportError):
    """The source can't be found, read or recognised."""


class UnsupportedModel(ExportError):
    """The decoder graph can't express the model's attention, cache or positions."""

    def __init__(self, model_type: str, reason: str) -> None:
        self.model_type, self.reason = model_type, reason
        super().__init__(f"{model_type} is not supported: {reason}")


class QualityRefused(ExportError):
    """The graph was measured against torch and is not good enough to be served."""


class NoRoom(ExportError):
    """What the export takes doesn't fit on the disk or into memory."""


class AtWork(ExportError):
    """Another export uses the same files meanwhile."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another export of {name} is going on: wait for its end, or stop it")
