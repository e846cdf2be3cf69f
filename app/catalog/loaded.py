"""One model in memory: its manifest, tokenizer, chat template and running engine.

Knows how to open a model's folder; not which models there are, nor when to load them.
"""

import copy
import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import msgspec
from tokenizers import Tokenizer

from app.catalog.chat_template import ChatTemplate
from app.catalog.grammars import Grammars
from app.catalog.memory import check_memory, planned_size
from app.catalog.shelf import adapter_number, facts_of, split_name
from app.catalog.token_bounds import longest_token
from app.contract.models import ModelState
from app.contract.sampling import SamplingDefaults
from app.engine.thread import EngineThread
from app.errors import ModelBroken
from app.manifest import Manifest, read_manifest
from app.metrics import ModelMetrics
from app.runtime.arithmetic import check_arithmetic
from app.runtime.decoder import BLOCK_TOKENS
from app.runtime.ort_decoder import OrtDecoder, Provider, choose_provider
from app.settings import Settings

logger = logging.getLogger(__name__)

_shared: WeakValueDictionary[tuple[bytes, int, tuple[int, ...]], Grammars] = WeakValueDictionary()
"""Digest of the tokenizer's file, vocabulary, ends → the grammars of the models in memory."""


@dataclass(frozen=True, slots=True)
class ModelParts:
    """What a folder holds, opened; takes seconds, so it is made off the event loop."""

    manifest: Manifest
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    decoder: OrtDecoder
    provider: Provider
    longest_token: int | None
    """Characters that one token can stand for; None: any number."""
    special_tokens: tuple[str, ...]
    """Texts of tokens that the model was trained to take as more than text."""
    grammars: Grammars

    def close(self) -> None:
        """Give the memory back, if nobody has made a model of it."""
        self.decoder.close()


class LoadedModel:
    """A model in memory, with its engine running."""

    def __init__(self, parts: ModelParts, settings: Settings, metrics: ModelMetrics) -> None:
        self.manifest = parts.manifest
        self.model_id = parts.manifest.model_id
        """`publisher/name`, or `publisher/name:adapter`."""
        self.adapter = 0
        """The adapter that answers in this name, by its number; 0: none."""
        self.tokenizer = parts.tokenizer
        self.longest_token = parts.longest_token
        self.special_tokens = () if settings.special_tokens_in_content else parts.special_tokens
        """What stays text where a client sends it inside a conversation."""
        self.chat_template = parts.chat_template
        self.grammars = parts.grammars
        self.provider = parts.provider
        self.digest = parts.manifest.digest
        self.facts = facts_of(parts.manifest)
        self.engine = EngineThread(
            parts.decoder, settings.max_waiting, metrics, draft_tokens=settings.draft_tokens
        )

    @property
    def capacity(self) -> int:
        """Tokens of prompt and answer together that one request may have."""
        return self.engine.capacity

    @property
    def vocab_size(self) -> int:
        """Token ids that the model has logits for; perhaps more than the tokenizer knows."""
        return self.manifest.graph.vocab_size

    @property
    def bos_id(self) -> int | None:
        """Token id that begins a text."""
        return self.manifest.tokens.bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Token ids that end a text."""
        return self.manifest.tokens.eos_ids

    @property
    def sampling_defaults(self) -> SamplingDefaults:
        """What the model's makers recommend for what a request leaves open."""
        return self.manifest.sampling

    def under(self, name: str | None) -> Self:
        """This model, with its engine, under the name that was asked for.

        Args:
            name: its own or None, or that of one of its adapters.

        Raises:
            UnknownModel: it has no such adapter.
        """
        adapter = None if name is None else split_name(name)[1]
        if adapter is None:
            return self
        adapted = copy.copy(self)
        adapted.adapter = adapter_number(self.manifest, adapter)
        adapted.model_id = f"{self.model_id}:{adapter}"
        adapted.facts = msgspec.structs.replace(
            self.facts, model_id=adapted.model_id, adapter_of=self.model_id
        )
        return adapted

    def state(self) -> ModelState:
        """Say what dialects are told of it; waits for nothing."""
        engine, load = self.engine, self.engine.load
        per_slot = self.capacity * self.manifest.graph.kv_bytes_per_token
        return ModelState(
            facts=self.facts,
            capacity=self.capacity,
            provider=self.provider,
            cache_bytes=load.slots * per_slot,  # on a CPU it grows into this as it is used
            slots=load.slots,
            running=load.running,
            waiting=load.waiting,
            step_age_s=engine.step_age_s,
            failure=None if engine.failure is None else str(engine.failure),
        )


def open_model(folder: Path, settings: Settings) -> ModelParts:
    """Read a model's folder and reserve its KV cache.

    Raises:
        ModelBroken: a file is missing or can't be used.
        ModelTooLarge: it would not fit the free memory once every slot is full.
        ProviderUnavailable: the execution provider asked for is not installed.
    """
    manifest = read_manifest(folder)
    graph = manifest.graph
    slots, capacity = planned_size(manifest, settings)
    cache_mb = settings.prefix_cache_mb
    check_arithmetic(manifest.model_id, manifest.quantisation.arithmetic)
    provider = choose_provider(settings.execution_provider)
    began_s = time.monotonic()
    logger.info("model_loading model=%s bytes=%d", manifest.model_id, manifest.size_bytes)
    if provider == "cpu":  # a GPU's memory is reserved at once: what doesn't fit shows there
        check_memory(manifest, slots, capacity, cache_mb)
    decoder = OrtDecoder(
        folder,
        manifest,
        slots=slots,
        capacity=capacity,
        provider=provider,
        intra_op_threads=settings.intra_op_threads,
        pool_blocks=cache_mb * 2**20 // (graph.kv_bytes_per_token * BLOCK_TOKENS),
    )
    logger.info(
        "model_loaded model=%s provider=%s slots=%d context=%d of=%d kv_bytes=%d "
        "seconds=%.1f changed_by=LLMHOST_SLOTS,LLMHOST_CONTEXT_LENGTH",
        manifest.model_id,
        provider,
        slots,
        capacity,
        graph.context_length,
        slots * capacity * graph.kv_bytes_per_token,
        time.monotonic() - began_s,
    )
    grammars = _grammars_of(folder, manifest)
    tokenizer = grammars.tokenizer
    template = _read_template(folder, manifest, tokenizer)
    added = tokenizer.get_added_tokens_decoder().values()
    return ModelParts(
        manifest=manifest,
        tokenizer=tokenizer,
        chat_template=template,
        decoder=decoder,
        provider=provider,
        longest_token=longest_token(tokenizer),
        special_tokens=tuple(token.content for token in added if token.special),
        grammars=grammars,
    )


def _grammars_of(folder: Path, manifest: Manifest) -> Grammars:
    """Read a model's tokenizer and make what its grammars need, or share another model's.

    Models of a family have one tokenizer, and so have a model and what was trained from it. Both
    libraries hold every thread up while they make theirs: 0.4 s at 49,152 tokens.

    Raises:
        ModelBroken: the file can't be used.
    """
    path = folder / "tokenizer.json"
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise ModelBroken(f"{path}: {error}") from error
    key = (digest, manifest.graph.vocab_size, manifest.tokens.eos_ids)
    grammars = _shared.get(key)
    if grammars is None:
        grammars = Grammars(read_tokenizer(folder), *key[1:])
        grammars.prepare()
        _shared[key] = grammars
    return grammars


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read a model's tokenizer, which neither truncates nor pads.

    Raises:
        ModelBroken: the file can't be used.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for whatever is wrong
        raise ModelBroken(f"{path}: {error}") from error
    # a file may ask for either; a prompt must not be truncated or padded unseen
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_template(folder: Path, manifest: Manifest, tokenizer: Tokenizer) -> ChatTemplate | None:
    if not manifest.chat:
        return None
    path = folder / "chat_template.jinja"
    bos_id, eos_ids = manifest.tokens.bos_id, manifest.tokens.eos_ids
    return ChatTemplate(
        path.read_text(encoding="utf-8"),
        bos_token=None if bos_id is None else tokenizer.id_to_token(bos_id),
        eos_token=tokenizer.id_to_token(eos_ids[0]) if eos_ids else None,
    )
