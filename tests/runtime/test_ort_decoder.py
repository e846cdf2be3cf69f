"""The ONNX Runtime decoder on a tiny graph with the real GroupQueryAttention."""

import os
import subprocess
import sys

import numpy as np
import pytest

from app.errors import EngineFailure, ModelBroken, ProviderUnavailable
from app.manifest import read_manifest
from app.runtime.decoder import StepInput
from app.runtime.ort_decoder import OrtDecoder, choose_provider, session_options
from tests.tiny_model import write_tiny_model

IDS = np.random.default_rng(0).integers(0, 96, 24)


@pytest.fixture
def decoder(tmp_path):
    folder = write_tiny_model(tmp_path)
    decoder = OrtDecoder(folder, read_manifest(folder), slots=4, capacity=64)
    yield decoder
    decoder.close()


def step(first_slot: int, rows: list[tuple[list[int], int]], **fields) -> StepInput:
    """Rows as (new tokens, number computed)."""
    width = max(1, *(len(new) for new, _ in rows))
    token_ids = np.zeros((len(rows), width), np.int64)
    for i, (new, _) in enumerate(rows):
        token_ids[i, : len(new)] = new
    return StepInput(
        first_slot,
        token_ids,
        np.array([len(new) for new, _ in rows], np.int32),
        np.array([computed for _, computed in rows], np.int32),
        **fields,
    )


def isolated(decoder, ids, slot: int = 3) -> np.ndarray:
    return decoder.run(step(slot, [(list(ids), 0)]))[0, 0].copy()


def test_chunked_prefill_equals_whole(decoder):
    whole = isolated(decoder, IDS)
    decoder.run(step(0, [(list(IDS[:10]), 0)]))
    decoder.run(step(0, [(list(IDS[10:11]), 10)]))
    chunked = decoder.run(step(0, [(list(IDS[11:]), 11)]))[0, 0]
    np.testing.assert_allclose(chunked, whole, atol=1e-4)


def test_rows_of_different_length_in_one_step_equal_isolated_ones(decoder):
    lengths = [5, 17, 1]
    wanted = [isolated(decoder, [*IDS[:n], 7]) for n in lengths]
    assert np.abs(wanted[0] - wanted[1]).max() > 0.1, "rows must differ or this proves nothing"
    for row, n in enumerate(lengths):
        decoder.run(step(row, [(list(IDS[:n]), 0)]))
    together = decoder.run(step(0, [([7], n) for n in lengths]))
    for row in range(3):
        np.testing.assert_allclose(together[row, 0], wanted[row], atol=1e-4)


def test_an_idle_slot_keeps_its_cache(decoder):
    wanted = isolated(decoder, [*IDS[:9], 7])
    decoder.run(step(1, [(list(IDS[:9]), 0)]))
    for _ in range(3):
        # the engine claims nothing about an idle slot's length, so neither does the step
        decoder.run(step(0, [([5], 0), ([], 0), ([6], 0)]))
    after = decoder.run(step(1, [([7], 9)]))[0, 0]
    np.testing.assert_allclose(after, wanted, atol=1e-4)


def test_a_copied_slot_continues_like_its_source(decoder):
    wanted = isolated(decoder, [*IDS[:9], 7])
    decoder.run(step(2, [(list(IDS[:9]), 0)]))
    decoder.copy_slot(2, 0, 9)
    decoder.run(step(2, [(list(IDS[9:20]), 0)]))
    np.testing.assert_allclose(decoder.run(step(0, [([7], 9)]))[0, 0], wanted, atol=1e-4)


def test_dropped_tokens_are_forgotten(decoder):
    wanted = isolated(decoder, [*IDS[:9], 7])
    decoder.run(step(0, [(list(IDS), 0)]))
    np.testing.assert_allclose(decoder.run(step(0, [([7], 9)]))[0, 0], wanted, atol=1e-4)


def test_a_slot_can_be_filled_to_its_capacity(decoder):
    ids = np.resize(IDS, 64)
    decoder.run(step(0, [(list(ids[:63]), 0)]))
    last = decoder.run(step(0, [(list(ids[63:]), 63)]))[0, 0]
    np.testing.assert_allclose(last, isolated(decoder, ids), atol=1e-4)


def test_all_logits_are_the_last_ones_of_each_shorter_prompt(decoder):
    wanted = [isolated(decoder, IDS[: n + 1]) for n in range(12)]
    decoder.run(step(0, [(list(IDS[:4]), 0), (list(IDS[:9]), 0)]))
    # two rows of different length in one run, the shorter one padded
    logits = decoder.run(step(0, [(list(IDS[4:12]), 4), (list(IDS[9:12]), 9)], all_logits=True))
    assert logits.shape == (2, 8, 96)
    np.testing.assert_allclose(logits[0], wanted[4:], atol=1e-4)
    np.testing.assert_allclose(logits[1, :3], wanted[9:], atol=1e-4)


def test_a_run_after_one_with_all_logits_leaves_these_alone_and_gets_its_own(decoder):
    wanted = isolated(decoder, [*IDS[:9], 7])
    every = decoder.run(step(0, [(list(IDS[:9]), 0)], all_logits=True))
    before = every.copy()
    after = decoder.run(step(0, [([7], 9)]))
    assert after.shape == (1, 1, 96)
    np.testing.assert_allclose(after[0, 0], wanted, atol=1e-4)
    np.testing.assert_array_equal(every, before)


def test_a_refused_input_is_an_engine_failure_and_the_next_step_works(decoder):
    wanted = isolated(decoder, IDS)
    with pytest.raises(EngineFailure, match="1 x 1 tokens"):
        decoder.run(step(0, [([10**6], 0)]))
    np.testing.assert_array_equal(isolated(decoder, IDS), wanted)


def test_asking_for_a_provider_that_is_absent_says_what_is_there():
    installed_only_cpu = choose_provider("auto") == "cpu"
    if not installed_only_cpu:
        pytest.skip("this machine has CUDA")
    assert choose_provider("cpu") == "cpu"
    with pytest.raises(ProviderUnavailable, match=r"'cuda' is not in .* CPUExecutionProvider"):
        choose_provider("cuda")


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("0", "0")])
def test_attention_takes_its_plain_kernel_unless_the_environment_says_otherwise(given, found):
    name = "ORT_GQA_DISABLE_FLASH_ATTENTION"
    environ = {key: value for key, value in os.environ.items() if key != name}
    if given is not None:
        environ[name] = given
    script = f"import app.runtime.ort_decoder, os; print(os.environ[{name!r}])"
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == found


def test_session_options_leave_the_environment_alone(monkeypatch):
    monkeypatch.delenv("ORT_GQA_DISABLE_FLASH_ATTENTION")
    before = dict(os.environ)
    session_options()
    assert dict(os.environ) == before


def test_a_broken_graph_is_named(tmp_path):
    folder = write_tiny_model(tmp_path)
    manifest = read_manifest(folder)
    graph = folder / "model.onnx"
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    with pytest.raises(ModelBroken, match=r"model\.onnx"):
        OrtDecoder(folder, manifest, slots=1, capacity=8)


def test_a_file_of_another_size_is_noticed_before_loading(tmp_path):
    folder = write_tiny_model(tmp_path)
    (folder / "model.onnx").write_bytes(b"short")
    with pytest.raises(ModelBroken, match="found 5 bytes"):
        read_manifest(folder)
