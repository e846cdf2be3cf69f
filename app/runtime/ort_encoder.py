"""An `Encoder` on ONNX Runtime: one session whose threads step back for others.

Knows nothing about requests or batches.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from app.encoder_manifest import EncoderGraph
from app.errors import EngineFailure, ModelBroken
from app.runtime.background import made_in_background
from app.runtime.encoder import Row, Vector
from app.runtime.ort_decoder import Provider, load_session, session_options


class OrtEncoder:
    """One exported model, ready to run."""

    def __init__(
        self,
        folder: Path,
        graph: EncoderGraph,
        *,
        capacity: int,
        provider: Provider = "cpu",
        intra_op_threads: int = 0,
    ) -> None:
        """Load the graph.

        Args:
            folder: holds the files that the manifest names.
            graph: of its manifest.
            capacity: tokens that a row may have; at most the model's context length.
            provider: from `choose_provider`.
            intra_op_threads: 0: one per physical core.

        Raises:
            ModelBroken: ONNX Runtime can't load the graph, or it is not the manifest's.
        """
        self.capacity, self.width, self.vocab_size = capacity, graph.width, graph.vocab_size
        self._graph = graph
        self._session = made_in_background(
            lambda: load_session(folder / graph.file, provider, session_options(intra_op_threads))
        )
        self._check(self._session)

    def run(self, rows: Sequence[Row]) -> list[Vector]:
        """Make the vectors of some rows in one run.

        Raises:
            EngineFailure: ONNX Runtime refused the inputs or ran out of memory.
        """
        graph = self._graph
        lengths = np.array([len(row) for row in rows], np.int32)
        width = int(lengths.max())
        assert 1 <= int(lengths.min()) <= width <= self.capacity, (lengths, self.capacity)
        ids = np.full((len(rows), width), graph.pad_id, np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row.ids
        inputs: dict[str, object] = {"input_ids": ids, "lengths": lengths}
        if graph.token_types:
            types = np.zeros_like(ids)
            for i, row in enumerate(rows):
                if row.first:
                    types[i, row.first : len(row)] = 1
            inputs["token_type_ids"] = types
        try:
            [vectors] = self._session.run(["vectors"], inputs)
        except Exception as error:  # onnxruntime's exception classes share no public base
            raise EngineFailure(f"encoder run of {len(rows)} x {width} tokens: {error}") from error
        if vectors.shape != (len(rows), self.width):
            raise EngineFailure(
                f"encoder run of {len(rows)} texts gave {list(vectors.shape)}, "
                f"expected {[len(rows), self.width]}"
            )
        return [array("f", row.tobytes()) for row in vectors]

    def close(self) -> None:
        """Drop the session."""
        del self._session

    def _check(self, session: ort.InferenceSession) -> None:
        graph = self._graph
        wanted = {"input_ids", "lengths"} | ({"token_type_ids"} if graph.token_types else set())
        found = {node.name for node in session.get_inputs()}
        if found != wanted:
            raise ModelBroken(
                f"{graph.file}: missing inputs {sorted(wanted - found)}, "
                f"unknown inputs {sorted(found - wanted)}"
            )
        outputs = {node.name: node.shape for node in session.get_outputs()}
        shape = outputs.get("vectors", [])
        # A dimension is a number, a name, or None; only numbers can be wrong.
        if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != graph.width):
            raise ModelBroken(
                f"{graph.file}: vectors has the shape {shape}, "
                f"the manifest says {[None, graph.width]}"
            )
