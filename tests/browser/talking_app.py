"""The real application with two models that talk: one says a sentence, one never ends.

Both take their time for each token, so that a stream can be watched and stopped.
"""

import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.manifest import Manifest
from app.runtime.decoder import FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder
from tests.e2e.decoders import application_with
from tests.fakes import BYTES, CHATML, EOS_ID, byte_ids
from tests.tiny_model import write_tiny_model

SENTENCE: Final = "Bees make **honey** and wax."
SHOWN: Final = "Bees make honey and wax."
TALKER, ENDLESS = "tests/talker", "tests/endless"
CONTEXT: Final = 8192
STEP_S: Final = 0.004


def write_models(models_dir: Path) -> None:
    """Two models that know bytes; what they would say by themselves is noise."""
    for seed, model_id in enumerate((TALKER, ENDLESS)):
        write_tiny_model(
            models_dir,
            model_id,
            vocab_size=BYTES.get_vocab_size(),
            seed=seed,
            eos_ids=(EOS_ID,),
            tokenizer=BYTES,
            chat_template=CHATML,
            context=CONTEXT,
        )


class TalkingDecoder(OrtDecoder):
    """Runs the real graph, and puts the sentence's next token on top of the logits."""

    def __init__(self, folder: Path, manifest: Manifest, **options: Any) -> None:
        super().__init__(folder, manifest, **options)
        said = byte_ids(f"{SENTENCE} ")
        ends = manifest.model_id == TALKER
        self._script = [*said[:-1], EOS_ID] if ends else said
        self._said: dict[int, int] = {}
        """Row → tokens of the script that it got."""

    def run(self, step: StepInput) -> FloatArray:
        logits = super().run(step)
        time.sleep(STEP_S)
        if step.token_ids.shape[1] > 1:
            self._said[step.first_slot] = 0
        for index in np.flatnonzero(step.num_new):
            row = step.first_slot + int(index)
            logits[index] = 0
            logits[index, :, self._script[self._said[row] % len(self._script)]] = 1000
            self._said[row] += 1
        return logits

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        super().copy_slot(source, target, num_tokens)
        self._said[target] = self._said[source]


def __getattr__(name: str) -> object:
    if name == "app":
        return application_with(TalkingDecoder)
    raise AttributeError(name)
