"""The manifest's word on whether logits depend on a prompt's cuts, for narrow and wide heads."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer

from app.engine.engine import Engine
from app.manifest import Manifest, read_manifest
from app.runtime.ort_decoder import OrtDecoder
from export.__main__ import independence, main
from export.records import read_findings
from export.session import GraphSession
from export.validate import TEXT, cut, read_in_chunks
from tests.engine.driving import FixedPace, request, run, step
from tests.export.tiny import UNTIED, configured, save_tiny

LENGTHS = (60, 66, 100, 180)
CHUNKS = (2, 4, 5, 9, 32, 63)


@pytest.fixture(scope="module", params=[16, 128, 160, 192, 256])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path]:
    """The dimensions of a Gemma's heads, and its export."""
    folder = tmp_path_factory.mktemp("gemma")
    save_tiny(folder / "source", configured("GemmaConfig", head_dim=request.param, **UNTIED)())
    assert main([str(folder / "source"), "--out", str(folder / "out"), "--keep-work"]) == 0
    return request.param, folder / "out"


def largest_difference(folder: Path, manifest: Manifest, first: int) -> float:
    """Of any logit after a prompt read whole and cut, over prompts and chunks of several sizes."""
    session = GraphSession(folder, manifest.graph, rows=1, capacity=192)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(TEXT.read_text()[1000:]).ids
    largest = 0.0
    for length, chunk in itertools.product(LENGTHS, CHUNKS):
        whole = read_in_chunks(session, ids[:length], [length], ids[:2])
        sizes = cut(length, min(first, length), chunk)
        difference = np.abs(read_in_chunks(session, ids[:length], sizes, ids[:2]) - whole)
        largest = max(largest, float(difference.max()))
    return largest


def test_manifest_says_which_first_chunk_keeps_cuts_from_changing_a_logit(
    exported: tuple[int, Path],
) -> None:
    head_dim, folder = exported
    manifest = read_manifest(folder)
    assert manifest.graph.head_dim == head_dim
    first = manifest.quantisation.min_first_chunk
    assert (first == 2) == (largest_difference(folder, manifest, 2) == 0.0)
    assert manifest.quantisation.batch_invariant
    if head_dim <= 128:
        assert first == 2


def test_with_the_first_chunk_of_the_manifest_no_cut_changes_a_logit(
    exported: tuple[int, Path],
) -> None:
    _, folder = exported
    manifest = read_manifest(folder)
    first = manifest.quantisation.min_first_chunk
    assert first >= 2, "on no machine seen so far is there none"
    assert largest_difference(folder, manifest, first) == 0.0


@pytest.mark.parametrize("length", LENGTHS)
def test_the_engine_gives_the_same_logits_at_any_pace_and_from_the_prefix_cache(
    exported: tuple[int, Path], length: int
) -> None:
    _, folder = exported
    manifest = read_manifest(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(TEXT.read_text()[1000:]).ids
    decoder = OrtDecoder(folder, manifest, slots=3, capacity=192, pool_blocks=12)
    wanted = None
    for idle in (192, 3, 7, 33, 64):
        engine = Engine(decoder, FixedPace(busy=3, idle=idle))
        engine.add(0, request(ids[:50], 8))
        engine.add(1, request(ids[:length], 4, top_logprobs=5))
        early = [event for request_id, event in step(engine) if request_id == 1]
        engine.add(2, request(ids[:180], 1))
        events = [*early, *run(engine)[1]]
        engine.add(3, request(ids[:length], 4, top_logprobs=5))  # with what the cache has of it
        again = run(engine)[3]
        for each in (events, again):
            logprobs = [event.logprobs for event in each]
            wanted = wanted or logprobs
            assert logprobs == wanted
    decoder.close()


def test_summary_says_what_was_measured(exported: tuple[int, Path]) -> None:
    _, folder = exported
    findings = read_findings(folder.parent / ".work" / "out")
    said = independence(findings)
    assert "wherever prompts are cut" in said
    assert ("their first chunk having" in said) == (findings.chunk_difference > 0.0)
    assert "with the cuts of its prompt" in independence(
        msgspec.structs.replace(findings, min_first_chunk=0)
    )


@pytest.mark.parametrize(
    ("length", "first", "chunk", "sizes"),
    [
        (150, 150, 7, [150]),
        (10, 2, 2, [2, 2, 2, 2, 2]),
        (11, 2, 2, [2, 2, 2, 2, 3]),
        (12, 2, 3, [2, 3, 3, 2, 2]),
        (66, 65, 7, [66]),
        (67, 65, 7, [65, 2]),
        (20, 17, 7, [17, 3]),
        (30, 2, 9, [2, 9, 9, 8, 2]),
    ],
)
def test_cuts_leave_no_lone_token(length: int, first: int, chunk: int, sizes: list[int]) -> None:
    assert cut(length, first, chunk) == sizes
