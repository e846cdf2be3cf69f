"""Adapters served beside their model: each row of a batch gets its own, and nothing of others'."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from app.engine.engine import Engine
from app.engine.sequence import EngineRequest, TokenEvent
from app.manifest import Manifest, read_manifest
from app.runtime.ort_decoder import OrtDecoder
from export.__main__ import main
from tests.engine.driving import FixedPace, request, run, tokens
from tests.export.conftest import ALPHA, RANKS, AdaptedModel
from tests.export.refusals import refusal
from tests.export.tiny import CONFIGS, save_tiny
from tests.export.tiny_adapters import add_to_weights, factors, write_adapter

PROMPT = [(7 * i * i + 3 * i) % 300 + 2 for i in range(90)]
ROWS = (0, 1, 2, 1)
"""The adapters of the rows of one batch: none, the first, the second, the first again."""
NUM_TOKENS = 12


@pytest.fixture(scope="module")
def manifest(adapted: AdaptedModel) -> Manifest:
    return read_manifest(adapted.folder)


@pytest.fixture(scope="module")
def decoder(adapted: AdaptedModel, manifest: Manifest) -> Iterator[OrtDecoder]:
    decoder = OrtDecoder(adapted.folder, manifest, slots=4, capacity=192, pool_blocks=32)
    yield decoder
    decoder.close()


def asked(adapter: int, prompt: list[int] = PROMPT, **fields: Any) -> EngineRequest:
    return request(prompt, NUM_TOKENS, adapter=adapter, top_logprobs=2, **fields)


def alone(decoder: OrtDecoder, adapter: int, prompt: list[int] = PROMPT) -> list[TokenEvent]:
    """What an engine says that has nothing else to do, and nothing kept."""
    engine = Engine(decoder, FixedPace(busy=16, idle=64))
    engine.add(0, asked(adapter, prompt))
    return run(engine)[0]


def same(events: list[TokenEvent]) -> list[TokenEvent]:
    """Events without what a prefix cache changes."""
    return [msgspec.structs.replace(event, cached_tokens=0) for event in events]


def test_rows_of_one_batch_are_bitwise_what_each_gives_alone(decoder: OrtDecoder) -> None:
    prompts = [PROMPT[i : i + 60] for i in range(len(ROWS))]
    wanted = [alone(decoder, *row) for row in zip(ROWS, prompts, strict=True)]
    others = [tokens(alone(decoder, adapter, prompts[0])) for adapter in range(3)]
    assert len(set(map(tuple, others))) == 3, "adapters that change no text prove nothing"
    engine = Engine(decoder, FixedPace(busy=16, idle=64))
    for number, (adapter, prompt) in enumerate(zip(ROWS, prompts, strict=True)):
        engine.add(number, asked(adapter, prompt))
    found = run(engine)
    for number, events in enumerate(wanted):
        assert found[number] == events, (number, ROWS[number])


def test_rows_of_one_batch_are_what_torch_gives_with_merged_weights(
    adapted: AdaptedModel, decoder: OrtDecoder
) -> None:
    engine = Engine(decoder, FixedPace(busy=16, idle=64))
    for number, adapter in enumerate(ROWS):
        engine.add(number, asked(adapter))
    found = run(engine)
    for number, adapter in enumerate(ROWS):
        model = adapted.fresh_model()
        if adapter:
            rank = RANKS[adapter - 1]
            add_to_weights(model, adapted.tensors[adapter - 1], ALPHA / rank)
        text = PROMPT + tokens(found[number])
        with torch.no_grad():
            logprobs = model(torch.tensor([text])).logits[0].log_softmax(-1)
        for place, event in enumerate(found[number], start=len(PROMPT) - 1):
            assert event.logprobs is not None
            assert int(logprobs[place].argmax()) == event.logprobs.token_id, (adapter, place)
            difference = abs(float(logprobs[place].max()) - event.logprobs.logprob)
            assert difference < 1e-5, (adapter, place, difference)


def test_what_is_kept_of_a_prompt_serves_its_own_adapter_alone(decoder: OrtDecoder) -> None:
    # before: engines that share a decoder write into the same pool
    wanted = [same(alone(decoder, adapter)) for adapter in range(3)]
    engine = Engine(decoder, FixedPace(busy=16, idle=64))
    cached = {}
    for number, adapter in enumerate((1, 0, 2, 1, 0, 2)):
        engine.add(number, asked(adapter))
        events = run(engine)[number]
        assert same(events) == wanted[adapter], (number, adapter)
        cached[number] = events[0].cached_tokens
    assert [cached[n] for n in range(3)] == [0, 0, 0], "each has computed the prompt by itself"
    assert [cached[n] for n in range(3, 6)] == [80, 80, 80]


def test_drafts_are_verified_with_the_adapter(decoder: OrtDecoder) -> None:
    plain = Engine(decoder, FixedPace(busy=16, idle=64))
    drafting = Engine(decoder, FixedPace(busy=16, idle=64), draft_tokens=4)
    for engine in (plain, drafting):
        engine.add(0, request(PROMPT[:40], 150, adapter=1))  # it will repeat itself
    wanted, found = tokens(run(plain)[0]), tokens(run(drafting)[0])
    assert drafting.fed_tokens > plain.fed_tokens, "nothing was drafted"
    assert found == wanted


def test_manifest_lists_the_adapters(manifest: Manifest) -> None:
    assert manifest.graph.num_adapters == 2
    assert [(one.name, one.rank, one.targets, one.base) for one in manifest.adapters] == [
        ("pirate", RANKS[0], ("down_proj", "o_proj", "q_proj", "v_proj"), "../base"),
        ("poet", RANKS[1], ("k_proj", "up_proj"), "../base"),
    ]
    assert all(abs(one.quality.mean_kl) < 1e-6 for one in manifest.adapters)


FAMILIES = {
    # queries are scaled; the residual stream can't be rotated
    "gpt2": (("attn.c_attn", "mlp.c_proj"), {"fan_in_fan_out": True}),
    "phi3": (("qkv_proj", "gate_up_proj"), {}),
    # biases; with w8a8 all that adapters read and write is rotated
    "qwen2": (("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"), {}),
}


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [*((kind, "none") for kind in FAMILIES), ("phi3", "int8"), ("gpt2", "w8a8"), ("qwen2", "w8a8")],
)
def test_families_with_an_adapter_say_what_torch_says(
    kind: str, scheme: str, tmp_path: Path
) -> None:
    modules, config = FAMILIES[kind]
    model = save_tiny(tmp_path / "base", CONFIGS[kind]())
    tensors = factors(model, modules, 4, transposed=kind == "gpt2")
    adapter = write_adapter(tmp_path / "adapter", tensors, use_rslora=True, **config)
    out, base = tmp_path / "out", str(tmp_path / "base")
    assert main([base, "--out", str(out), "--quantise", scheme, "--adapter", f"a={adapter}"]) == 0
    manifest = read_manifest(out)
    quality = manifest.adapters[0].quality
    changed = quality.reference_perplexity / manifest.quality.reference_perplexity
    assert abs(changed - 1) > 1e-3, "an adapter that changes nothing proves nothing"
    assert quality.mean_kl < (1e-6 if scheme == "none" else 0.02)
    assert scheme == "none" or manifest.quantisation.batch_invariant


def test_an_adapter_is_as_exact_beside_a_louder_one_as_alone(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    ends = ("q_proj", "down_proj")
    quiet = write_adapter(tmp_path / "quiet", factors(model, ends, 4, seed=1))
    loud = write_adapter(tmp_path / "loud", factors(model, ends, 4, seed=2), lora_alpha=6 * 256)
    arguments = [str(tmp_path / "base"), "--quantise", "int8", "--gate", "1000"]
    beside = ("--adapter", f"loud={loud}")
    found = []
    for number, more in enumerate(((), beside)):
        out = tmp_path / str(number)
        named = ("--adapter", f"quiet={quiet}")
        assert main([*arguments, "--out", str(out), *named, *more]) == 0
        found.append(read_manifest(out).adapters[0].quality.mean_kl)
    assert found[1] == pytest.approx(found[0], rel=0.01)


def test_an_export_goes_on_with_the_adapters_that_it_began_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    a, b = (
        ("--adapter", f"{name}={write_adapter(tmp_path / name, factors(model, (end,), 4))}")
        for name, end in (("a", "q_proj"), ("b", "v_proj"))
    )
    arguments = [str(tmp_path / "base"), "--out", str(tmp_path / "out"), "--quantise", "none"]
    assert main([*arguments, *a, *b, "--keep-work"]) == 0
    for others in ((*b, *a), a, ()):
        for step in ("validate", "publish"):
            capsys.readouterr()
            assert main([*arguments, *others, "--keep-work", "--only", step]) == 1
            assert "was made with other adapters, or with these in another order: a, b" in (
                capsys.readouterr().err
            )
    assert main([*arguments, *a, *b, "--keep-work", "--only", "publish"]) == 0
    assert [one.name for one in read_manifest(tmp_path / "out").adapters] == ["a", "b"]


def test_a_folder_may_have_the_models_configuration_beside_the_adapter(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    adapter = write_adapter(tmp_path / "adapter", factors(model, ("q_proj",), 4))
    (adapter / "config.json").write_text((tmp_path / "base" / "config.json").read_text())
    arguments = [str(tmp_path / "base"), "--out", str(tmp_path / "out"), "--quantise", "none"]
    assert main([*arguments, "--adapter", f"a={adapter}"]) == 0


def test_tensors_of_several_adapters_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    tensors = {
        name.replace(".weight", f".{adapter}.weight"): tensor
        for adapter in ("x", "y")
        for name, tensor in factors(model, ("q_proj",), 4).items()
    }
    adapter = write_adapter(tmp_path / "adapter", tensors)
    more = ("--adapter", f"a={adapter}")
    said = refusal(tmp_path / "base", tmp_path / "models", capsys, *more)
    assert "has tensors of several adapters: ['x', 'y']" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latest", "the name 'latest': expected up to 64 letters"),
        ("a:b", "the name 'a:b': expected up to 64 letters"),
        ("", "the name '': expected up to 64 letters"),
    ],
)
def test_names_that_mean_something_else_are_refused(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["base", "--adapter", f"{name}={tmp_path}"])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "config", "said"),
    [
        ("lm_head", {}, "the adapter a changes lm_head, which is no inner product of its own"),
        ("q_proj", {"use_dora": True}, "use_dora is True, which can't be used; only False"),
        ("q_proj", {"init_lora_weights": "pissa"}, "which changes the model's weights too"),
        ("q_proj", {"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens is [1, 2]"),
    ],
)
def test_what_can_not_be_served_is_refused_in_a_sentence(
    module: str,
    config: dict[str, Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    adapter = write_adapter(tmp_path / "adapter", factors(model, (module,), 4), **config)
    more = ("--adapter", f"a={adapter}")
    assert said in refusal(tmp_path / "base", tmp_path / "models", capsys, *more)
