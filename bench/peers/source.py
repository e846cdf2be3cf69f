"""Prepare what every peer starts from, with this project's exporter.

`python -m bench.peers.source FOLDER` writes the default model's GGUF file, the same weights as a
Hugging Face folder in float32, the text as token ids, and torch's float32 logits over it.
`environments` runs it in a process of its own, because only this part needs the `export` extra.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from bench.peers.recipes import Shared
from export.reference import torch_logits
from export.source import resolve
from export.torch_model import load_model
from export.validate import TEXT, TEXT_TOKENS
from export.weight_file import WeightFile


def prepare(shared: Shared) -> None:
    """Write the files of `shared`, the reference logits last."""
    source = resolve(None, shared.folder)
    with WeightFile(shared.folder / "weights.bin") as weights:
        model = load_model(source, weights)
    model.save_pretrained(shared.hugging_face)
    # Converters read the tokenizer, although only token ids are ever fed to the result.
    PreTrainedTokenizerFast(
        tokenizer_file=str(shared.folder / "tokenizer.json"),
        bos_token="<|im_start|>",  # noqa: S106 - a token of the vocabulary
        eos_token="<|im_end|>",  # noqa: S106
    ).save_pretrained(shared.hugging_face)
    tokenizer = Tokenizer.from_file(str(shared.folder / "tokenizer.json"))
    ids = tokenizer.encode(TEXT.read_text()).ids[:TEXT_TOKENS]
    shared.text_ids.write_text(json.dumps(ids))
    np.save(shared.reference, torch_logits(model, ids).numpy())


if __name__ == "__main__":
    prepare(Shared(Path(sys.argv[1])))
