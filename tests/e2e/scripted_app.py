"""The real application with a decoder that says the same text to every prompt.

What it says is here and not in the model, so that a test knows every character that clients
must get. The model on disk is `tests.tiny_model`'s with a token a byte.
"""

from pathlib import Path
from typing import Any

import numpy as np

from app.manifest import Manifest
from app.runtime.decoder import FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder
from tests.e2e.decoders import application_with
from tests.fakes import BYTES, CHATML, EOS_ID, byte_ids
from tests.tiny_model import write_tiny_model

TEXT = (
    'He said: "5 × 5\n= 25"  …\r\n\n\tcafé 😀\u2028[DONE] Error: none true 42 \\n {"a": 1}  \n'
    " end.  \n "
)
AS_STREAMED = TEXT.replace("\r", "\\r").replace("\n", "\\n").rstrip()
"""What readers that strip lines can get of it."""
FIRST, SECOND = "tests/first", "tests/second"


def write_models(models_dir: Path) -> None:
    """Two models that know bytes; what they would say by themselves is noise."""
    for seed, model_id in enumerate((FIRST, SECOND)):
        write_tiny_model(
            models_dir,
            model_id,
            vocab_size=BYTES.get_vocab_size(),
            seed=seed,
            eos_ids=(EOS_ID,),
            tokenizer=BYTES,
            chat_template=CHATML,
        )


class ScriptedDecoder(OrtDecoder):
    """Runs the real graph, and puts the text's next token on top of the logits."""

    def __init__(self, folder: Path, manifest: Manifest, **options: Any) -> None:
        super().__init__(folder, manifest, **options)
        self._script = [*byte_ids(TEXT), EOS_ID]
        self._said: dict[int, int] = {}
        """Row → tokens of the text that it got."""

    def run(self, step: StepInput) -> FloatArray:
        logits = super().run(step)
        if step.token_ids.shape[1] > 1:
            self._said[step.first_slot] = 0
        for index in np.flatnonzero(step.num_new):
            row = step.first_slot + int(index)
            logits[index] = 0
            logits[index, :, self._script[self._said[row]]] = 1000
            self._said[row] += 1
        return logits

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        super().copy_slot(source, target, num_tokens)
        self._said[target] = self._said[source]


def __getattr__(name: str) -> object:
    if name == "app":
        return application_with(ScriptedDecoder)
    raise AttributeError(name)
