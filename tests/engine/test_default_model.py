"""The engine on the default model as `make` exports it; skipped where it isn't there."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.contract.sampling import SamplingParams
from app.engine.engine import Engine
from app.engine.logprobs import token_logprob
from app.engine.sequence import TokenEvent
from app.manifest import folder_name, read_manifest
from app.runtime.decoder import StepInput
from app.runtime.ort_decoder import OrtDecoder
from tests.engine.driving import FixedPace, request, run, tokens

FOLDER = Path("models") / folder_name("HuggingFaceTB/SmolLM2-135M-Instruct")
pytestmark = pytest.mark.skipif(
    not (FOLDER / "manifest.json").is_file(), reason="the default model is not exported"
)
PROMPT = np.random.default_rng(0).integers(5, 40_000, 90).tolist()
SAMPLING = SamplingParams(
    temperature=0.7, top_k=80, top_p=0.9, repetition_penalty=1.15, min_p=0.01, seed=3
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[OrtDecoder]:
    decoder = OrtDecoder(FOLDER, read_manifest(FOLDER), slots=3, capacity=128, pool_blocks=12)
    yield decoder
    decoder.close()


def test_prompt_logprobs_are_bitwise_the_same_wherever_cut_and_change_no_token(decoder):
    whole = Engine(decoder, FixedPace(busy=3, idle=128))
    whole.add(0, request(PROMPT, 6, sampling=SAMPLING, prompt_logprobs=3, top_logprobs=3))
    wanted = run(whole)[0]
    assert [one.token_id for one in wanted[0].prompt_logprobs] == PROMPT[1:]
    for idle in (3, 7, 64):
        cut = Engine(decoder, FixedPace(busy=3, idle=idle))
        cut.add(0, request(PROMPT, 6, sampling=SAMPLING, prompt_logprobs=3, top_logprobs=3))
        cut.add(1, request(PROMPT[::-1], 6, prompt_logprobs=0))
        cut.add(2, request(PROMPT, 6, sampling=SAMPLING))
        events = run(cut)
        assert events[0] == wanted
        assert tokens(events[2]) == tokens(wanted)


def test_prompt_logprobs_are_those_of_the_shorter_prompts(decoder):
    engine = Engine(decoder, FixedPace(busy=3, idle=128))
    engine.add(0, request(PROMPT, 1, prompt_logprobs=3))
    found = run(engine)[0][0].prompt_logprobs
    for length in (2, 31, 89):  # one token alone takes another kernel and rounds otherwise
        prefix = StepInput(
            0, np.array([PROMPT[:length]]), np.array([length], np.int32), np.zeros(1, np.int32)
        )
        wanted = token_logprob(decoder.run(prefix)[0, 0], PROMPT[length], 3)
        assert found[length - 1] == wanted


def test_text_is_bitwise_the_same_with_and_without_kept_blocks(decoder):
    def generate(engine: Engine, number: int, prompt: list[int]) -> list[TokenEvent]:
        engine.add(number, request(prompt, 6, sampling=SAMPLING, top_logprobs=3))
        return run(engine)[number]

    engine = Engine(decoder, FixedPace(busy=3, idle=50))
    prompts = [PROMPT, [*PROMPT[:70], 11, 12, 13], PROMPT]
    kept = [generate(engine, i, prompt) for i, prompt in enumerate(prompts)]
    assert [events[0].cached_tokens for events in kept] == [0, 64, 80]
    for prompt, events in zip(prompts, kept, strict=True):
        [first, *others] = generate(Engine(decoder, FixedPace(busy=3, idle=128)), 0, prompt)
        assert first.cached_tokens == 0, "a new engine knows of no block"
        assert [msgspec.structs.replace(events[0], cached_tokens=0), *events[1:]] == [
            first,
            *others,
        ]
