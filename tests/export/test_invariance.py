"""The manifest's word on whether logits depend on a prompt's cuts, for narrow and wide heads."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from app.manifest import Manifest, read_manifest
from export.__main__ import independence, main
from export.records import read_findings
from export.session import GraphSession
from export.validate import TEXT, cut, read_in_chunks
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


def test_manifest_says_exact_only_where_no_cut_changes_a_logit(exported: tuple[int, Path]) -> None:
    head_dim, folder = exported
    manifest = read_manifest(folder)
    assert manifest.graph.head_dim == head_dim
    assert manifest.quantisation.batch_invariant == (largest_difference(folder, manifest, 2) == 0.0)
    if head_dim <= 128:
        assert manifest.quantisation.batch_invariant
        assert manifest.quantisation.min_first_chunk == 2


def test_with_the_first_chunk_of_the_manifest_no_cut_changes_a_logit(
    exported: tuple[int, Path],
) -> None:
    _, folder = exported
    manifest = read_manifest(folder)
    first = manifest.quantisation.min_first_chunk
    assert first >= 2, "on no machine seen so far is there none"
    assert largest_difference(folder, manifest, first) == 0.0


def test_summary_says_what_was_measured(exported: tuple[int, Path]) -> None:
    _, folder = exported
    findings = read_findings(folder.parent / ".work" / "out")
    said = independence(findings)
    assert ("wherever prompts are cut" in said) == (findings.chunk_difference == 0.0)
    assert ("with the cuts of its prompt" in said) == (findings.chunk_difference > 0.0)


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
