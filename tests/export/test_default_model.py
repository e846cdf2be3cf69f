"""On the default model as `make` exports it; skipped where it isn't there."""

from pathlib import Path

import jinja2
import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from app.manifest import describe_file, folder_name, read_manifest
from export.__main__ import best_scheme
from export.session import GraphSession
from export.source import DEFAULT_MODEL_ID
from export.validate import prefill

FOLDER = Path("models") / folder_name(DEFAULT_MODEL_ID)
pytestmark = pytest.mark.skipif(
    not (FOLDER / "manifest.json").is_file(), reason="the default model is not exported"
)


def test_default_model_ships_within_its_quality() -> None:
    manifest = read_manifest(FOLDER)
    assert manifest.quantisation.scheme == best_scheme("float32")
    assert manifest.quality.text_tokens == 2048
    assert manifest.quality.mean_kl <= 0.004
    assert manifest.quantisation.batch_invariant
    assert manifest.tokens.eos_ids == (2,)
    assert manifest.license == "Apache-2.0"


def test_default_models_files_are_those_of_the_manifest() -> None:
    for name, expected in read_manifest(FOLDER).files.items():
        assert describe_file(FOLDER / name) == expected, name


def test_default_models_graph_is_small() -> None:
    graph = onnx.load(FOLDER / "model.onnx", load_external_data=False).graph
    most = {"int8": 340, "w8a8": 1_065}
    assert len(graph.node) <= most[read_manifest(FOLDER).quantisation.scheme]


def test_decode_step_beside_seven_others_is_bitwise_the_step_alone() -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    session = GraphSession(FOLDER, read_manifest(FOLDER).graph, rows=8, capacity=128)
    prompts = [tokenizer.encode("The ferry left at ten past six. " * n).ids for n in range(1, 9)]
    assert len({len(p) for p in prompts}) == 8, "lengths must differ"
    prefill(session, prompts, 32)
    together = session.feed([[20 + i] for i in range(8)])[:, -1].copy()
    for row, prompt in enumerate(prompts):
        session.reset()
        prefill(session, [prompt], 32)
        alone = session.feed([[20 + row]])[0, -1]
        assert (alone == together[row]).all(), np.abs(alone - together[row]).max()


def test_default_model_answers_in_english() -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    template = jinja2.Template((FOLDER / "chat_template.jinja").read_text())
    messages = [{"role": "user", "content": "What is gravity?"}]
    prompt = template.render(messages=messages, add_generation_prompt=True)
    session = GraphSession(FOLDER, read_manifest(FOLDER).graph, rows=1, capacity=128)
    logits = session.feed([tokenizer.encode(prompt).ids])
    answer: list[int] = []
    while len(answer) < 40:
        answer.append(int(logits[0, -1].argmax()))
        if answer[-1] == 2:
            break
        logits = session.feed([[answer[-1]]])
    assert "gravity" in tokenizer.decode(answer).lower()
