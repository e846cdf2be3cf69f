"""One encoder in memory: its manifest, tokenizer and running thread.

Knows how to open its folder; not which models there are, nor when to load them.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import psutil
from tokenizers import Tokenizer

from app.catalog.loaded import read_tokenizer
from app.catalog.memory import AUTO_CONTEXT
from app.catalog.shelf import facts_of
from app.catalog.token_bounds import longest_token
from app.contract.models import ModelState
from app.encoder_manifest import EncoderManifest
from app.encoding.thread import EncoderThread
from app.errors import ModelTooLarge
from app.metrics import ModelMetrics
from app.runtime.arithmetic import check_arithmetic
from app.runtime.ort_decoder import Provider, choose_provider
from app.runtime.ort_encoder import OrtEncoder
from app.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncoderParts:
    """What a folder holds, opened; takes seconds, so it is made off the event loop."""

    manifest: EncoderManifest
    tokenizer: Tokenizer
    encoder: OrtEncoder
    provider: Provider
    longest_token: int | None
    """Characters that one token can stand for; None: any number."""

    def close(self) -> None:
        """Give the memory back, if nobody has made a model of it."""
        self.encoder.close()


class LoadedEncoder:
    """An encoder in memory, with its thread running."""

    def __init__(self, parts: EncoderParts, settings: Settings, metrics: ModelMetrics) -> None:
        self.manifest = parts.manifest
        self.tokenizer = parts.tokenizer
        self.longest_token = parts.longest_token
        self.provider = parts.provider
        self._facts = facts_of(parts.manifest)
        self.engine = EncoderThread(
            parts.encoder, settings.max_waiting, settings.encoder_run_tokens, metrics
        )

    @property
    def model_id(self) -> str:
        """`publisher/name`."""
        return self.manifest.model_id

    @property
    def capacity(self) -> int:
        """Tokens that a text may have."""
        return self.engine.capacity

    def state(self) -> ModelState:
        """Say what dialects are told of it; waits for nothing."""
        engine, load = self.engine, self.engine.load
        return ModelState(
            facts=self._facts,
            capacity=self.capacity,
            provider=self.provider,
            cache_bytes=0,
            slots=1,
            running=load.running,
            waiting=load.waiting,
            step_age_s=engine.step_age_s,
            failure=None if engine.failure is None else str(engine.failure),
        )


def open_encoder(folder: Path, manifest: EncoderManifest, settings: Settings) -> EncoderParts:
    """Open an encoder's folder.

    Raises:
        ModelBroken: a file is missing or can't be used.
        ModelTooLarge: its longest text would not fit the free memory.
        ProviderUnavailable: the execution provider asked for is not installed.
    """
    graph = manifest.graph
    capacity = min(settings.context_length or AUTO_CONTEXT, graph.context_length)
    check_arithmetic(manifest.model_id, manifest.arithmetic)
    provider = choose_provider(settings.execution_provider)
    if provider == "cpu":
        _check_memory(manifest, capacity)
    encoder = OrtEncoder(
        folder,
        graph,
        capacity=capacity,
        provider=provider,
        intra_op_threads=settings.encoder_threads,
    )
    tokenizer = read_tokenizer(folder)
    logger.info(
        "model_loaded model=%s kind=%s provider=%s context=%d run_tokens=%d",
        manifest.model_id,
        manifest.kind,
        provider,
        capacity,
        settings.encoder_run_tokens,
    )
    return EncoderParts(manifest, tokenizer, encoder, provider, longest_token(tokenizer))


def _check_memory(manifest: EncoderManifest, capacity: int) -> None:
    attention = manifest.graph.attention_bytes(capacity)
    free = psutil.virtual_memory().available
    if manifest.size_bytes + attention > free:
        raise ModelTooLarge(
            f"{manifest.model_id} needs {(manifest.size_bytes + attention) / 1e9:.1f} GB: "
            f"{manifest.size_bytes / 1e9:.1f} of files, {attention / 1e9:.1f} for the attention of "
            f"a text of {capacity} tokens (LLMHOST_CONTEXT_LENGTH); {free / 1e9:.1f} GB are free"
        )
