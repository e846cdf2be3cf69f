"""Measure how an exported graph differs from torch with the same weights.

Does the unquantised graph choose torch's tokens one by one from its cache; how far from torch is
the graph that will be served, on a page of English; are a row's logits bitwise the same whatever
else runs, and wherever its prompt is cut? Refuses a page that shows nothing, and figures outside
the gate.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.manifest import Quality
from app.runtime.decoder import FloatArray
from export.errors import QualityRefused
from export.records import figures
from export.reference import torch_logits
from export.session import GraphSession

GATE: Final = 0.02
"""The largest mean KL from torch, nats per token, unless the command line says otherwise."""
TEXT = Path(__file__).with_name("text.txt")
TEXT_TOKENS = 2048
QUICK_TOKENS = 512
"""What a first start measures on: a quarter of the text."""
ROWS = 32
"""Tokens whose logits are compared at once."""
LEAST_TOKENS, LEAST_DISTINCT = 32, 16
"""A page that becomes fewer tokens, or fewer different ones, shows nothing about a model."""
PROMPT_TOKENS, GREEDY_TOKENS = 32, 48
CUT_PROMPT_TOKENS = 150
CHUNKS = (2, 3, 7, 16, 24, 33, 64)
FIRST_CHUNKS = (2, 17, 33, 65, 129)
"""Candidates: attention's products sum in another order up to 32 or 64 keys, see `Invariance`."""
TIE = 1e-3
"""Rounding may swap two tokens whose logits in torch are closer than this."""


@dataclass(frozen=True)
class GreedyMatch:
    """The graph's greedy tokens against those that torch chooses after the same text."""

    tokens: int
    """How many were compared."""
    differing: int
    """How many of them differ by more than a tie."""
    ties: int
    """How many differ, but are within `TIE` of each other in torch's logits."""
    distinct: int
    """How many different tokens the text was continued with; 1 would prove nothing."""
    max_difference: float
    """The largest difference of any logit."""


@dataclass(frozen=True)
class Invariance:
    """Whether a prompt's logits depend on where it is cut into chunks."""

    chunk_difference: float
    """The largest difference of any logit between a prompt read whole and cut anywhere."""
    min_first_chunk: int
    """With at least so many tokens in the first chunk there is no difference; 0: there always is.

    A head of more than 128 dimensions is summed in two parts by MLAS, but in one while there are at
    most 64 keys. So its first 64 tokens must not be fed in steps that end before the 65th.
    """


def refuse_poor_page(ids: Sequence[int], context: int) -> None:
    """Refuse a page of text that would let any model pass.

    Raises:
        QualityRefused: the tokenizer makes too few tokens of it, or too few different ones.
    """
    distinct = len(set(ids))
    if len(ids) < LEAST_TOKENS or distinct < LEAST_DISTINCT:
        raise QualityRefused(
            f"nothing can be measured: its tokenizer makes {len(ids)} tokens of the page in the "
            f"context of {context}, {distinct} of them different; at least {LEAST_TOKENS} and "
            f"{LEAST_DISTINCT} are needed"
        )


def compare_greedy(
    model: PreTrainedModel,
    session: GraphSession,
    page: Sequence[int],
    *,
    context: int,
    chunk: int = 7,
) -> GreedyMatch:
    """Let the graph continue the beginning of `page` greedily, and compare torch at each token.

    The graph reads the prompt in chunks of `chunk` tokens and continues from its cache. Torch reads
    the finished text at once, without a cache, so that no mistake with one can be common to both.
    Where the graph repeats the last token, the text continues with the page instead: a cache of one
    token over and over would hide its mistakes. All within `context` tokens.
    """
    num_prompt = min(PROMPT_TOKENS, context // 2)
    steps = min(GREEDY_TOKENS, context - num_prompt)
    session.reset()
    for start in range(0, num_prompt, chunk):
        last = session.feed([page[start : min(start + chunk, num_prompt)]])
    text, logits = list(page[:num_prompt]), [last[0, -1].copy()]
    while len(logits) < steps:
        token = int(logits[-1].argmax())
        text.append(token if token != text[-1] else page[len(text) % len(page)])
        logits.append(session.feed([text[-1:]])[0, -1].copy())
    ours, theirs = np.stack(logits), torch_logits(model, text)[num_prompt - 1 :].numpy()
    rows, tokens, choices = np.arange(steps), theirs.argmax(-1), ours.argmax(-1)
    differing = tokens != choices
    ties = differing & (theirs[rows, tokens] - theirs[rows, choices] < TIE)
    return GreedyMatch(
        tokens=steps,
        differing=int(np.count_nonzero(differing & ~ties)),
        ties=int(np.count_nonzero(ties)),
        distinct=len(set(text[num_prompt:])),
        max_difference=float(np.abs(ours - theirs).max()),
    )


def measure_quality(
    reference: Iterable[Tensor], session: GraphSession, ids: Sequence[int]
) -> Quality:
    """Measure a graph over a text, which it reads chunk by chunk.

    Args:
        reference: torch's logits [S, V] over `ids`, in pieces.
        session: the graph to be measured.
        ids: S tokens.
    """
    session.reset()
    kl, agree, loss, reference_loss, start = 0.0, 0, 0.0, 0.0, 0
    for piece in reference:
        part = list(ids[start : start + len(piece)])
        logits = torch.from_numpy(session.feed([part], all_logits=True)[0])
        for first in range(0, len(part), ROWS):
            rows = slice(first, first + ROWS)
            ours, theirs = logits[rows].log_softmax(-1), piece[rows].log_softmax(-1)
            kl += float((theirs.exp() * (theirs - ours)).sum(dtype=torch.float64))
            agree += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
            after = start + first + 1
            following = torch.tensor(ids[after : after + len(ours)], dtype=torch.int64)
            at = torch.arange(len(following))
            loss -= float(ours[at, following].sum(dtype=torch.float64))
            reference_loss -= float(theirs[at, following].sum(dtype=torch.float64))
        start += len(part)
    with np.errstate(over="ignore"):  # an infinite perplexity is a figure too
        perplexities = np.exp(np.array([loss, reference_loss]) / (len(ids) - 1)).tolist()
    return Quality(
        text_tokens=len(ids),
        mean_kl=kl / len(ids),
        top1_agreement=agree / len(ids),
        perplexity=perplexities[0],
        reference_perplexity=perplexities[1],
    )


def judge(what: str, quality: Quality, gate: float | None) -> None:
    """Refuse a graph that is too far from torch.

    Args:
        what: was measured.
        quality: its figures.
        gate: the largest mean KL, nats per token; None: `GATE`.

    Raises:
        QualityRefused: it is beyond the gate, or not finite.
    """
    limit = GATE if gate is None else gate
    if not all(math.isfinite(figure) for figure in msgspec.structs.astuple(quality)):
        raise QualityRefused(f"{what} is not finite: {figures(quality)}")
    if quality.mean_kl > limit:
        raise QualityRefused(
            f"{what} is too far from torch: {figures(quality)}; the gate is {limit}"
        )


def prefill(session: GraphSession, prompts: Sequence[Sequence[int]], chunk: int) -> FloatArray:
    """Read prompts side by side, `chunk` tokens of each per step; logits [B, V] of their ends."""
    last = np.zeros((len(prompts), session.graph.vocab_size), np.float32)
    for start in range(0, max(len(p) for p in prompts), chunk):
        parts = [p[start : start + chunk] for p in prompts]
        # Attention runs another kernel for a step that is one token wide than for a wider one.
        logits = session.feed(parts, min_width=2)
        for row, part in enumerate(parts):
            if part:
                last[row] = logits[row, -1]
    return last


def rows_alone_and_together(
    session: GraphSession, ids: Sequence[int], *, chunk: int = 32, steps: int = 6
) -> float:
    """The largest difference of any logit between a row alone and in a batch of 8.

    Rows have different lengths. Prefill steps are at least two tokens wide and decode steps exactly
    one: the engine never mixes them. 0.0 means that the tokens of a request don't depend on what
    else the server does. The rows use the graph's adapters by turns, or none.
    """
    lengths = [3, 17, 32, 33, 64, 71, 90, 130]
    rows = range(min(session.rows, len(lengths)))
    starts = [7 * i % (len(ids) // 2) for i in rows]
    prompts = [ids[starts[i] : starts[i] + lengths[i]] for i in rows]
    following = [ids[i : i + steps] for i in rows]
    adapters = np.arange(session.rows) % (session.graph.num_adapters + 1)
    session.adapter_ids[:] = adapters
    together = follow(session, prompts, following, chunk)
    alone = []
    for i in rows:
        session.adapter_ids[0] = adapters[i]
        alone.append(follow(session, prompts[i : i + 1], following[i : i + 1], chunk)[0])
    session.adapter_ids[:] = 0
    return float(np.abs(together - np.stack(alone)).max())


def follow(
    session: GraphSession,
    prompts: Sequence[Sequence[int]],
    following: Sequence[Sequence[int]],
    chunk: int,
) -> FloatArray:
    """Read prompts in chunks, then the given tokens one by one; logits [B, steps + 1, V]."""
    session.reset()
    logits = [prefill(session, prompts, chunk)]
    for tokens in zip(*following, strict=True):
        logits += [session.feed([[token] for token in tokens])[:, -1].copy()]
    return np.stack(logits, axis=1)


def measure_invariance(session: GraphSession, ids: Sequence[int]) -> Invariance:
    """Read a prompt whole and in many chunkings, and compare the logits after it bitwise.

    No chunking leaves a lone token, for which attention runs another kernel; nor does the engine.
    """
    prompt, following = list(ids[:CUT_PROMPT_TOKENS]), list(ids[:2])
    whole = read_in_chunks(session, prompt, [len(prompt)], following)
    differences: dict[int, float] = {}
    for first in FIRST_CHUNKS:
        read = [
            read_in_chunks(session, prompt, cut(len(prompt), first, chunk), following)
            for chunk in CHUNKS
        ]
        differences[first] = max(float(np.abs(logits - whole).max()) for logits in read)
        if differences[first] == 0.0:
            break
    return Invariance(
        chunk_difference=differences[FIRST_CHUNKS[0]],
        min_first_chunk=next((n for n, d in differences.items() if d == 0.0), 0),
    )


def cut(length: int, first: int, chunk: int) -> list[int]:
    """Sizes of chunks: at least `first`, then about `chunk` each, and no lone token is left."""
    sizes = [length if length - first < 2 else first]
    while (left := length - sum(sizes)) > 0:
        size = min(left, chunk)
        if left - size == 1:
            size = size - 1 if size > 2 else left
        sizes.append(size)
    return sizes


def read_in_chunks(
    session: GraphSession, prompt: Sequence[int], sizes: Sequence[int], following: Sequence[int]
) -> FloatArray:
    """Logits [1 + len(following), V] after a prompt, and after each of the tokens fed behind it."""
    session.reset()
    start = 0
    for size in sizes:
        last = session.feed([prompt[start : start + size]])[0, -1]
        start += size
    logits = [last.copy(), *(session.feed([[token]])[0, -1].copy() for token in following)]
    return np.stack(logits)
