"""The real application with a decoder whose step ends only when a file says so.

While `stuck` lies beside the models, no step comes to its end.
"""

import time
from pathlib import Path
from typing import Any

from app.manifest import Manifest
from app.runtime.decoder import FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder
from tests.e2e.decoders import application_with

STUCK = "stuck"


class StallingDecoder(OrtDecoder):
    """Runs the real graph, when it may."""

    def __init__(self, folder: Path, manifest: Manifest, **options: Any) -> None:
        super().__init__(folder, manifest, **options)
        self._stuck = folder.parent / STUCK

    def run(self, step: StepInput) -> FloatArray:
        while self._stuck.exists():
            time.sleep(0.01)
        return super().run(step)


def __getattr__(name: str) -> object:
    if name == "app":
        return application_with(StallingDecoder)
    raise AttributeError(name)
