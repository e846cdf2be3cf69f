"""Run an exported graph in the server's own decoder, sequence by sequence, and return its logits.

What is judged before publishing is thus what will be served. Judges nothing itself.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app import manifest as contract
from app.runtime.decoder import FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder


class GraphSession:
    """A loaded graph and the token counts of `rows` cached sequences."""

    def __init__(
        self,
        folder: Path,
        graph: contract.Graph,
        *,
        rows: int,
        capacity: int,
        prepack: bool = True,
    ) -> None:
        self.graph, self.rows = graph, rows
        self.lengths = np.zeros(rows, np.int32)
        self.adapter_ids = np.zeros(rows, np.int64)
        """The adapter of each row, from 1; 0: none."""
        self._decoder = OrtDecoder(
            folder, _draft(graph), slots=rows, capacity=capacity, prepack=prepack
        )

    def reset(self) -> None:
        """Forget all sequences."""
        self.lengths[:] = 0

    def feed(
        self, tokens: Sequence[Sequence[int]], *, all_logits: bool = False, min_width: int = 1
    ) -> FloatArray:
        """Append tokens to rows 0 … B-1; a row may get none.

        Args:
            tokens: the new tokens of each row.
            all_logits: whether logits of all positions are wanted, not only of each row's last.
            min_width: the step is padded to at least this many tokens per row.

        Returns:
            [B, 1, V], or [B, S, V] with `all_logits`; see `app.runtime.decoder.Decoder.run`. The
            memory is the decoder's: valid until the next call.
        """
        batch, width = len(tokens), max(min_width, *(len(row) for row in tokens))
        token_ids = np.zeros((batch, width), np.int64)
        for i, row in enumerate(tokens):
            token_ids[i, : len(row)] = row
        num_new = np.array([len(row) for row in tokens], np.int32)
        step = StepInput(
            first_slot=0,
            token_ids=token_ids,
            num_new=num_new,
            num_computed=self.lengths[:batch].copy(),
            all_logits=all_logits,
            adapter_ids=self.adapter_ids[:batch].copy(),
        )
        logits = self._decoder.run(step)
        self.lengths[:batch] += num_new
        return logits


def _draft(graph: contract.Graph) -> contract.Manifest:
    """A manifest for the decoder: nothing but `graph` is known yet."""
    return contract.Manifest(
        model_id="",
        architecture="",
        source="",
        created="",
        graph=graph,
        tokens=contract.Tokens(bos_id=None, eos_ids=()),
        quantisation=contract.Quantisation(scheme="none", batch_invariant=False),
        quality=contract.Quality(
            text_tokens=0,
            mean_kl=0.0,
            top1_agreement=0.0,
            perplexity=0.0,
            reference_perplexity=0.0,
        ),
        chat=False,
        files={},
    )
