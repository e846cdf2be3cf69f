"""What can stop an export, as facts with their numbers. Knows nothing about the command line.

ExportError
├── SourceUnusable      the source can't be found, read or recognised
├── UnsupportedModel    the family does something that the graph can't express
└── QualityRefused      the exported graph is too far from torch
"""


class ExportError(Exception):
    """Root of the tree; its text is one sentence fit for the terminal."""


class SourceUnusable(ExportError):
    """The source can't be found, read or recognised."""


class UnsupportedModel(ExportError):
    """A model whose attention, cache or positions the decoder graph can't express."""

    def __init__(self, model_type: str, reason: str) -> None:
        self.model_type, self.reason = model_type, reason
        super().__init__(f"{model_type} is not supported: {reason}")


class QualityRefused(ExportError):
    """The graph was built and measured, and is not good enough to be served."""
