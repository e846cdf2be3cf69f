"""Quality, the bandwidth floor and the table."""

import numpy as np
import pytest
import torch

from bench.peers.bandwidth import floor_ms, read_bandwidth
from bench.peers.quality import quality
from bench.peers.report import markdown

RNG = np.random.default_rng(1)
IDS = RNG.integers(0, 300, 150).tolist()
REFERENCE = (RNG.standard_normal((150, 300)) * 3).astype(np.float32)
OTHER = REFERENCE + RNG.standard_normal((150, 300)).astype(np.float32)


def test_quality_equals_torchs_own_functions():
    found = quality(REFERENCE, OTHER, IDS)
    ours, theirs = (torch.from_numpy(x).double() for x in (OTHER, REFERENCE))
    kl = torch.nn.functional.kl_div(
        ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    loss = torch.nn.functional.cross_entropy(ours[:-1], torch.tensor(IDS[1:]))
    assert found.mean_kl > 0.01, "else this proves little"
    assert found.mean_kl == pytest.approx(float(kl), rel=1e-9)
    assert found.perplexity == pytest.approx(float(loss.exp()), rel=1e-9)
    same = (OTHER.argmax(1) == REFERENCE.argmax(1)).mean()
    assert found.top1_agreement == pytest.approx(same)


def test_a_library_equal_to_the_reference_is_at_zero():
    found = quality(REFERENCE, REFERENCE + 5.0, IDS)
    assert found.mean_kl == pytest.approx(0.0, abs=1e-10), "a constant changes no probability"
    assert found.top1_agreement == 1.0


@pytest.mark.parametrize("broken", [OTHER[:-1], np.where(OTHER > 9, np.nan, OTHER)])
def test_logits_that_are_not_of_the_text_are_refused(broken):
    with pytest.raises(ValueError, match=r"reference|not finite"):
        quality(REFERENCE, broken, IDS)


def test_the_floor_counts_the_weights_once_and_the_cache_of_every_row():
    assert floor_ms(100, 2, batch=3, context=10, bytes_per_s=1600) == pytest.approx(100.0)


def test_bandwidth_is_that_of_a_real_read():
    assert 1e8 < read_bandwidth(2, array_bytes=1 << 24) < 1e13


def engine(name, **changed):
    return {
        "name": name,
        "label": name.upper(),
        "cannot": "",
        "weights_bytes": 150_000_000,
        "kv_bytes_per_token": 46_080,
        "loaded_bytes": 200_000_000,
        "peak_bytes": 300_000_000,
        "quality": {"mean_kl": 0.0038, "top1_agreement": 0.96, "perplexity": 29.8},
        "no_quality": "",
        "refused": {},
        "ms": {"decode 8x128": 40.0, "prefill 128": 200.0},
        **changed,
    }


def result(*engines):
    return {
        "machine": "a processor",
        "threads": 2,
        "bytes_per_s": 10e9,
        "cells": [[8, 128]],
        "prefill": [128],
        "rounds": 3,
        "steps": 8,
        "engines": list(engines),
    }


def line(text, start):
    return next(row for row in text.splitlines() if row.startswith(f"| {start}"))


def test_the_ratio_is_our_speed_over_theirs():
    text = markdown(result(engine("ours"), engine("slow", ms={"decode 8x128": 60.0})))
    assert line(text, "decode") == (
        "| decode, 8 × 128 | 40.0 ms, 200/s | 60.0 ms, 133/s, **1.50 ×** | 19.7 ms |"
    )
    assert line(text, "prefill, 128") == "| prefill, 128 | 200.0 ms, 640/s | – |  |"


def test_who_is_missing_is_named_with_the_reason():
    text = markdown(
        result(
            engine("ours"),
            engine("absent", cannot="not installed"),
            engine("mute", quality=None, no_quality="no such output"),
            engine("small", refused={"decode 8x128": "out of memory"}, ms={}),
        )
    )
    assert "ABSENT is not measured: not installed" in text
    assert "MUTE gives no logits: no such output" in text
    assert "SMALL, decode 8x128: out of memory" in text
    assert "| ABSENT" not in text, "it has no column"
