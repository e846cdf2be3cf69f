"""The real application with a decoder that plays a coding agent's model.

All around the decoder is real: the default model's tokenizer, prompts of tens of thousands of
tokens, the grammar that holds a call to its form, the engine and its prefix cache. To a prompt
that ends with a tool's result it says that, by `final_answer` where smolagents' end so; to one that
wants a file read it calls `Read`; and it repeats what it is asked to.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from app.manifest import Manifest, folder_name
from app.runtime.decoder import BLOCK_TOKENS, FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder
from tests.e2e.decoders import application_with
from tests.e2e.server import DEFAULT_MODEL, ROOT
from tests.fakes import CHATML
from tests.tiny_model import write_tiny_model

LONG = "tests/long"
CONTEXT = 65_536
SAID = "The result was: "
_TOKENIZER = ROOT / "models" / folder_name(DEFAULT_MODEL) / "tokenizer.json"
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)
_OBSERVED = re.compile(r"Observation:\n(.*?)<\|im_end\|>", re.DOTALL)
"""A tool's result as smolagents writes it."""
_FILE = re.compile(r"Read the file (\S+)")
_REPEAT = re.compile(r"Repeat this:\n(.*?)That is all\.", re.DOTALL)


def write_model(models_dir: Path) -> None:
    """A model of random weights with a long context, and the default model's tokenizer."""
    tokenizer = Tokenizer.from_file(str(_TOKENIZER))
    write_tiny_model(
        models_dir,
        LONG,
        vocab_size=tokenizer.get_vocab_size(),
        eos_ids=(tokenizer.token_to_id("<|im_end|>"),),
        tokenizer=tokenizer,
        chat_template=CHATML,
        context=CONTEXT,
    )


def answer_to(prompt: str) -> str:
    """What the model says."""
    last_turn = prompt.rpartition("<|im_end|>\n<|im_start|>user\n")[2]
    if result := _RESULT.search(last_turn):
        return SAID + str(result[1])
    if observed := _OBSERVED.search(last_turn):
        return _call("final_answer", answer=SAID + observed[1])
    if repeated := _REPEAT.search(last_turn):
        return str(repeated[1])
    if wanted := _FILE.findall(prompt):
        return _call("Read", file_path=wanted[-1])
    return "Hello."


def _call(name: str, **arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


class AgentDecoder(OrtDecoder):
    """Runs the real graph, and puts the next token of the answer on top of the logits."""

    def __init__(self, folder: Path, manifest: Manifest, **options: Any) -> None:
        super().__init__(folder, manifest, **options)
        self._words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._eos = manifest.tokens.eos_ids[0]
        self._seen: dict[int, list[int]] = {}
        """Slot → the tokens in its cache."""
        self._kept: dict[int, list[int]] = {}
        """Block of the pool → its tokens."""
        self._prompt: dict[int, int] = {}
        """Slot → how many of its tokens are the prompt."""

    def run(self, step: StepInput) -> FloatArray:
        logits = super().run(step)
        for index in np.flatnonzero(step.num_new):
            slot, new = step.first_slot + int(index), int(step.num_new[index])
            before = self._seen.get(slot, [])[: int(step.num_computed[index])]
            ids = self._seen[slot] = before + step.token_ids[index, :new].tolist()
            if new > 1:  # no chunk of a prompt is a lone token
                self._prompt[slot] = len(ids)
            logits[index] = 0
            logits[index, :, self._next(ids, self._prompt[slot])] = 1000
        return logits

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        super().copy_slot(source, target, num_tokens)
        self._seen[target] = self._seen[source][:num_tokens]

    def save_block(self, slot: int, start: int, block: int) -> None:
        super().save_block(slot, start, block)
        self._kept[block] = self._seen[slot][start : start + BLOCK_TOKENS]

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        super().load_blocks(blocks, slot, start)
        kept = [token for block in blocks for token in self._kept[block]]
        self._seen[slot] = self._seen.get(slot, [])[:start] + kept

    def _next(self, ids: list[int], prompt: int) -> int:
        """The token after those, of which the first ones are the prompt."""
        if not self._words.decode(ids[prompt - 3 : prompt], skip_special_tokens=False).endswith(
            "assistant\n"
        ):
            return self._eos  # the prompt goes on
        text = self._words.decode(ids[:prompt], skip_special_tokens=False)
        answer: list[int] = self._words.encode(answer_to(text), add_special_tokens=False).ids
        said = len(ids) - prompt
        return answer[said] if said < len(answer) else self._eos


def __getattr__(name: str) -> object:
    if name == "app":
        return application_with(AgentDecoder)
    raise AttributeError(name)
