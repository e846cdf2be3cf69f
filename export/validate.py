"""Compare an exported graph with torch from the same source, in figures.

Three questions: does the float graph choose torch's tokens one by one from its cache; how far
is the graph that will be served from torch on a page of English; and are a row's logits
bitwise the same whatever else runs. Decides nothing: `__main__` holds the gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.manifest import Quality
from export.session import GraphSession, Logits

TEXT = Path(__file__).with_name("text.txt")
TEXT_TOKENS = 2048
CHUNK_TOKENS = 256
GREEDY_TOKENS = 48
TIE = 1e-3
"""Two candidates closer than this in torch's own logits may swap places by rounding."""


@dataclass(frozen=True)
class GreedyMatch:
    """Tokens of the graph against torch's, each continued with torch's choice."""

    tokens: int
    differing: int
    ties: int
    """Different, but within `TIE` of each other in torch."""
    distinct: int
    """How many different tokens torch chose; 1 would prove nothing."""
    max_difference: float
    """Largest difference of any logit."""


@torch.no_grad()
def torch_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """float32 [S, V] in one forward pass without a cache."""
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()


def compare_greedy(
    model: PreTrainedModel,
    session: GraphSession,
    prompt: Sequence[int],
    *,
    steps: int = GREEDY_TOKENS,
    chunk: int = 7,
) -> GreedyMatch:
    """Let torch continue `prompt` greedily, and the graph follow token by token.

    The graph reads the prompt in chunks; torch runs the whole text anew for each token, so its
    cache can't share a mistake with ours.
    """
    session.reset()
    for start in range(0, len(prompt), chunk):
        ours = session.feed([prompt[start : start + chunk]])
    text = list(prompt)
    chosen, differing, ties, largest = [], 0, 0, 0.0
    for _ in range(steps):
        theirs = torch_logits(model, text)[-1].numpy()
        largest = max(largest, float(np.abs(ours[0, -1] - theirs).max()))
        token, guess = int(theirs.argmax()), int(ours[0, -1].argmax())
        if token != guess:
            tie = bool(theirs[token] - theirs[guess] < TIE)
            ties, differing = ties + tie, differing + (not tie)
        chosen.append(token)
        text.append(token)
        ours = session.feed([[token]])
    return GreedyMatch(steps, differing, ties, len(set(chosen)), largest)


def measure_quality(reference: Tensor, session: GraphSession, ids: Sequence[int]) -> Quality:
    """Kullback-Leibler divergence and the rest over a text, read chunk by chunk.

    Args:
        reference: torch's logits [S, V] over `ids`.
        session: the graph to be judged.
        ids: S tokens.
    """
    session.reset()
    kl, agree, loss, reference_loss = 0.0, 0, 0.0, 0.0
    for start in range(0, len(ids), CHUNK_TOKENS):
        part = list(ids[start : start + CHUNK_TOKENS])
        ours = torch.from_numpy(session.feed([part], all_logits=True)[0]).log_softmax(-1)
        theirs = reference[start : start + len(part)].log_softmax(-1)
        kl += float((theirs.exp() * (theirs - ours)).sum(dtype=torch.float64))
        agree += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
        following = torch.tensor(ids[start + 1 : start + len(part) + 1])
        rows = torch.arange(len(following))
        loss -= float(ours[rows, following].sum(dtype=torch.float64))
        reference_loss -= float(theirs[rows, following].sum(dtype=torch.float64))
    return Quality(
        text_tokens=len(ids),
        mean_kl=kl / len(ids),
        top1_agreement=agree / len(ids),
        perplexity=float(np.exp(loss / (len(ids) - 1))),
        reference_perplexity=float(np.exp(reference_loss / (len(ids) - 1))),
    )


def prefill(session: GraphSession, prompts: Sequence[Sequence[int]], chunk: int) -> Logits:
    """Feed prompts side by side, `chunk` tokens of each a step; logits [B, V] of the last."""
    last = np.zeros((len(prompts), session.graph.vocab_size), np.float32)
    for start in range(0, max(len(p) for p in prompts), chunk):
        parts = [p[start : start + chunk] for p in prompts]
        # A step one token wide takes another way through attention than a wider one.
        logits = session.feed(parts, min_width=2)
        for row, part in enumerate(parts):
            if part:
                last[row] = logits[row, -1]
    return last


def rows_alone_and_together(
    session: GraphSession, ids: Sequence[int], *, chunk: int = 32, steps: int = 6
) -> float:
    """Largest difference of any logit between a row alone and in a batch of 8.

    Rows have different lengths; prefill steps are two tokens wide at least and decode steps
    exactly one, as the engine keeps them apart. 0.0 means that a request's tokens can't depend
    on what else the server does.
    """
    lengths = [3, 17, 32, 33, 64, 71, 90, 130]
    rows = range(min(session.rows, len(lengths)))
    prompts = [ids[7 * i : 7 * i + lengths[i]] for i in rows]
    following = [ids[i : i + steps] for i in rows]
    together = follow(session, prompts, following, chunk)
    alone = [follow(session, prompts[i : i + 1], following[i : i + 1], chunk)[0] for i in rows]
    return float(np.abs(together - np.stack(alone)).max())


def follow(
    session: GraphSession,
    prompts: Sequence[Sequence[int]],
    following: Sequence[Sequence[int]],
    chunk: int,
) -> Logits:
    """Read prompts in chunks, then given tokens one by one; logits [B, steps + 1, V]."""
    session.reset()
    logits = [prefill(session, prompts, chunk)]
    for tokens in zip(*following, strict=True):
        logits += [session.feed([[token] for token in tokens])[:, -1].copy()]
    return np.stack(logits, axis=1)


def chunks_of_different_size(session: GraphSession, ids: Sequence[int]) -> float:
    """Largest difference of any logit between a prompt read in chunks of 64 and of 24."""
    prompt = list(ids[:150])
    results = []
    for chunk in (64, 24):
        session.reset()
        results.append(prefill(session, [prompt], chunk))
    return float(np.abs(results[0] - results[1]).max())
