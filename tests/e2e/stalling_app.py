"""The real application with a decoder whose step ends only when a file says so.

While `stuck` lies beside the models, no step comes to its end.
"""

import time

import app as server
from app.catalog import loaded
from app.runtime.decoder import FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder

STUCK = "stuck"


class StallingDecoder(OrtDecoder):
    """Runs the real graph, when it may."""

    def __init__(self, folder, manifest, **options) -> None:
        super().__init__(folder, manifest, **options)
        self._stuck = folder.parent / STUCK

    def run(self, step: StepInput) -> FloatArray:
        while self._stuck.exists():
            time.sleep(0.01)
        return super().run(step)


def __getattr__(name: str) -> object:
    if name == "app":
        # not at import: tests import this module's constants into a process with real decoders
        loaded.OrtDecoder = StallingDecoder
        return server.app
    raise AttributeError(name)
