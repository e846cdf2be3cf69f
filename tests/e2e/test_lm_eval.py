"""Perplexity over HTTP: the exporter's own figure comes back, by lm-eval's hand and by ours.

The exporter reads the first 2048 tokens of `export/text.txt` in one pass and judges each but the
first by all before it. So does this: the text begins at the second token, and the first is what
lm-eval puts in front of a text (`custom_prefix_token_id`), with room for all in one window.
"""

import json
import math
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer

from app.manifest import folder_name, read_manifest
from tests.e2e.clients import python_environment, run
from tests.e2e.server import DEFAULT_MODEL, ROOT, Server

FOLDER = ROOT / "models" / folder_name(DEFAULT_MODEL)
TEXT = ROOT / "export" / "text.txt"
TASK = Path(__file__).with_name("lm_eval_task.yaml")
TOLERANCE = 0.01


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_perplexity_by_lm_eval(server: Server, tokenizer: Tokenizer, tmp_path: Path):
    python = python_environment("lm-eval", "lm-eval[api]==0.4.13", "transformers>=5", heavy=True)
    quality = read_manifest(FOLDER).quality
    text = TEXT.read_text()
    encoded = tokenizer.encode(text)
    first, *others = encoded.ids[: quality.text_tokens]
    part = text[encoded.offsets[0][1] : encoded.offsets[len(others)][1]]
    assert tokenizer.encode(part).ids == others, "cut, it must have the same tokens"

    (tmp_path / "text.jsonl").write_text(json.dumps({"text": part}))
    task = TASK.read_text().replace("FILE", str(tmp_path / "text.jsonl"))
    (tmp_path / "task.yaml").write_text(task)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    arguments = {
        "base_url": f"{server.url}/v1/completions",
        "model": DEFAULT_MODEL,
        "tokenizer": tmp_path,
        "custom_prefix_token_id": first,
        "max_length": 2 * quality.text_tokens,
    }
    run(
        *(python / "lm_eval", "run", "--model", "local-completions", "--model_args"),
        ",".join(f"{name}={value}" for name, value in arguments.items()),
        *("--include_path", tmp_path, "--tasks", "text_of_the_exporter"),
        *("--output_path", tmp_path / "results"),
        environment={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        timeout_s=300,
    )
    [results] = (tmp_path / "results").rglob("results_*.json")
    [figures] = json.loads(results.read_text())["results"].values()
    # lm-eval's is exp(-sum of logprobs / bytes)
    byte_perplexity = figures["byte_perplexity,none"]
    perplexity = byte_perplexity ** (len(part.encode()) / len(others))
    assert perplexity == pytest.approx(quality.perplexity, rel=TOLERANCE)


def test_perplexity_by_echoed_logprobs(server: Server, tokenizer: Tokenizer):
    """What lm-eval asks, without it: before and after the prefix cache has the text."""
    quality = read_manifest(FOLDER).quality
    text = TEXT.read_text()
    encoded = tokenizer.encode(text)
    ids = encoded.ids[: quality.text_tokens]
    shorter = text[: encoded.offsets[len(ids) // 4 - 1][1]]

    def logprobs(client: httpx.Client, prompt: str | list[int]) -> list[float | None]:
        answer = ask(client, prompt=prompt, echo=True, logprobs=1)
        found: list[float | None] = answer["choices"][0]["logprobs"]["token_logprobs"]
        return found[: answer["usage"]["prompt_tokens"]]

    with server.client() as client:
        first, *found = logprobs(client, ids)
        assert len(found) == len(ids) - 1
        ask(client, prompt=shorter)
        usage = ask(client, prompt=shorter)["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert cached > 0.9 * usage["prompt_tokens"], "it must be kept or this proves less"
        assert logprobs(client, shorter) == [first, *found][: usage["prompt_tokens"]]
    assert first is None
    perplexity = math.exp(-sum(found) / len(found))
    assert perplexity == pytest.approx(quality.perplexity, rel=TOLERANCE)


def ask(client: httpx.Client, **fields: object) -> dict:
    asked = {"model": DEFAULT_MODEL, "max_tokens": 1, **fields}
    answer: dict = client.post("/v1/completions", json=asked).raise_for_status().json()
    return answer
