"""The real application with a decoder that fails in the steps of certain requests.

A prompt with the word `xylophone` fails while it is fed; one with `zeppelin` fails at its third
decode step, together with whoever shares that step.
"""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from app.errors import EngineFailure
from app.manifest import Manifest
from app.runtime.decoder import FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder
from tests.e2e.decoders import application_with

PREFILL_FAULT, DECODE_FAULT = "xylophone", "zeppelin"
DECODE_STEPS = 3


class FaultyDecoder(OrtDecoder):
    """Recognises requests by tokens of their prompts."""

    def __init__(self, folder: Path, manifest: Manifest, **options: Any) -> None:
        super().__init__(folder, manifest, **options)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._marks = {
            word: np.array(tokenizer.encode(f" {word}", add_special_tokens=False).ids)
            for word in (PREFILL_FAULT, DECODE_FAULT)
        }
        self._doomed: dict[int, int] = {}
        """Row → decode steps until it fails."""

    def run(self, step: StepInput) -> FloatArray:
        if step.token_ids.shape[1] > 1:
            self._doomed.pop(step.first_slot, None)
            if self._holds(step, PREFILL_FAULT):
                raise EngineFailure("injected prefill fault")
            if self._holds(step, DECODE_FAULT):
                self._doomed[step.first_slot] = DECODE_STEPS
        else:
            for row in list(self._doomed):
                if row < len(step.num_new) and step.num_new[row]:
                    self._doomed[row] -= 1
                    if not self._doomed[row]:
                        self._doomed.clear()
                        raise EngineFailure("injected decode fault")
        return super().run(step)

    def _holds(self, step: StepInput, word: str) -> bool:
        mark = self._marks[word]
        windows = np.lib.stride_tricks.sliding_window_view(step.token_ids[0], len(mark))
        return bool((windows == mark).all(axis=1).any())


def __getattr__(name: str) -> object:
    if name == "app":
        return application_with(FaultyDecoder)
    raise AttributeError(name)
