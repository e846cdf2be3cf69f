"""Cheap stand-ins for the layers below: an engine that plays a script, and a service over it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from app.catalog.chat_template import ChatTemplate
from app.catalog.grammars import Grammars
from app.catalog.shelf import facts_of
from app.contract.models import ModelFacts, ModelRegistry, ModelState
from app.contract.sampling import FinishReason, SamplingDefaults
from app.engine.places import Places
from app.engine.sequence import EngineRequest, TokenEvent
from app.engine.stream import TokenStream
from app.engine.worker import EngineLoad
from app.errors import BatchTooLarge, NoModelLoaded, Overloaded, UnknownModel
from app.generation.models import ModelSource, TextModel
from app.generation.service import GenerationService
from app.manifest import Graph, Manifest, Quality, Quantisation, Tokens
from app.metrics import Metrics

MODEL_ID = "test/fake"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Step = str | list[int] | Exception | asyncio.Event | FinishReason
"""Text or ids arrive in one piece · the decoder fails · wait for it · the sequence ends so."""


def byte_tokenizer() -> Tokenizer:
    """A token a byte, so that any text can be scripted."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=258,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([], trainer)
    return tokenizer


BYTES = byte_tokenizer()
EOS_ID = BYTES.token_to_id("<|im_end|>")


def byte_ids(text: str) -> list[int]:
    """The ids of a text in `byte_tokenizer`."""
    ids: list[int] = BYTES.encode(text, add_special_tokens=False).ids
    return ids


def fake_manifest(model_id: str = MODEL_ID, chat: bool = True) -> Manifest:
    return Manifest(
        model_id=model_id,
        architecture="fake",
        source="tests",
        created="2026-01-01T00:00:00Z",
        graph=Graph(
            file="model.onnx",
            num_layers=1,
            num_kv_heads=1,
            head_dim=1,
            vocab_size=258,
            context_length=4096,
            kv_dtype="float32",
        ),
        tokens=Tokens(bos_id=None, eos_ids=(EOS_ID,)),
        quantisation=Quantisation(scheme="none", batch_invariant=True),
        quality=Quality(
            text_tokens=1, mean_kl=0, top1_agreement=1, perplexity=1, reference_perplexity=1
        ),
        chat=chat,
        files={},
    )


class FakeEngine:
    """The event loop's side of an `EngineThread`, answering every request by a script."""

    def __init__(
        self,
        script: Sequence[Step] | Callable[[EngineRequest], Sequence[Step]],
        *,
        capacity: int = 4096,
        max_requests: int = 8,
    ) -> None:
        self.capacity = capacity
        self.max_requests = max_requests
        self.failure: Exception | None = None
        self.submitted: list[EngineRequest] = []
        self.aborted: list[EngineRequest] = []
        self._script = script
        self._reserved = 0
        self._playing: dict[int, asyncio.Task[None]] = {}

    @property
    def in_use(self) -> int:
        """Places that are taken; 0 when all were given back."""
        return self._reserved + len(self._playing)

    @property
    def load(self) -> EngineLoad:
        return EngineLoad(self.max_requests, len(self._playing), 0, 0)

    def reserve(self, count: int = 1, client: str = "") -> Places:  # noqa: ARG002 # all are one here
        if count > self.max_requests:
            raise BatchTooLarge(count, self.max_requests)
        if self.in_use + count > self.max_requests:
            raise Overloaded(self.in_use, self.max_requests)
        self._reserved += count
        return Places(count, self._submit, self._give_back)

    def _give_back(self, count: int) -> None:
        self._reserved -= count

    def _submit(self, request: EngineRequest) -> TokenStream:
        number = len(self.submitted)
        self.submitted.append(request)
        meter = Metrics().model("").submitted(len(request.prompt_ids), 0.0)
        stream = TokenStream(lambda _: self._abort(number), meter)
        steps = self._script(request) if callable(self._script) else self._script
        self._playing[number] = asyncio.create_task(self._play(number, stream, steps))
        return stream

    def _abort(self, number: int) -> None:
        task = self._playing.pop(number, None)
        if task is not None:
            self.aborted.append(self.submitted[number])
            task.cancel()

    async def _play(self, number: int, stream: TokenStream, steps: Sequence[Step]) -> None:
        end = TokenEvent(EOS_ID, FinishReason.STOP)
        for step in steps:
            await asyncio.sleep(0)
            match step:
                case asyncio.Event():
                    await step.wait()
                case FinishReason():
                    end = TokenEvent(None, step)
                case Exception():
                    end = TokenEvent(None, FinishReason.ERROR, step)
                case str() | list():
                    for token_id in byte_ids(step) if isinstance(step, str) else step:
                        stream.put(TokenEvent(token_id))
        del self._playing[number]
        stream.put(end)


@dataclass
class FakeModel:
    """A model in memory whose tokens are bytes."""

    engine: FakeEngine
    tokenizer: Tokenizer = field(default_factory=lambda: BYTES)
    longest_token: int | None = None
    special_tokens: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    chat_template: ChatTemplate | None = field(default_factory=lambda: ChatTemplate(CHATML))
    manifest: Manifest = field(default_factory=fake_manifest)
    grammars: Grammars = field(default_factory=lambda: Grammars(BYTES, 258, (EOS_ID,)))
    adapter: int = 0

    @property
    def model_id(self) -> str:
        return self.manifest.model_id

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def capacity(self) -> int:
        return self.engine.capacity

    @property
    def vocab_size(self) -> int:
        return self.manifest.graph.vocab_size

    @property
    def bos_id(self) -> int | None:
        return self.manifest.tokens.bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.manifest.tokens.eos_ids

    @property
    def sampling_defaults(self) -> SamplingDefaults:
        return self.manifest.sampling

    def state(self) -> ModelState:
        load = self.engine.load
        return ModelState(
            facts=facts_of(self.manifest),
            capacity=self.capacity,
            provider="cpu",
            cache_bytes=0,
            slots=load.slots,
            running=load.running,
            waiting=load.waiting,
            step_age_s=0.0,
            failure=None if self.engine.failure is None else str(self.engine.failure),
        )


class FakeCatalog:
    """One model, or none: what generation takes models from, and the registry of dialects."""

    closing = False

    def __init__(self, model: FakeModel | None) -> None:
        self.model = model
        self.loading: Mapping[str, float] = {}

    @property
    def current(self) -> ModelState | None:
        return None if self.model is None else self.model.state()

    @property
    def loaded(self) -> list[ModelState]:
        return [] if self.model is None else [self.model.state()]

    async def available(self) -> list[ModelFacts]:
        return [model.facts for model in self.loaded]

    async def describe(self, model_id: str) -> ModelFacts:
        return (await self.get(model_id)).state().facts

    async def load(self, model_id: str) -> ModelState:
        return (await self.get(model_id)).state()

    async def unload(self, model_id: str | None = None) -> str | None:
        if self.model is None or model_id not in (None, self.model.model_id):
            return None
        self.model = None
        return MODEL_ID

    async def get(self, model_id: str | None) -> FakeModel:
        if model_id not in (None, MODEL_ID):
            raise UnknownModel(model_id)
        if self.model is None:
            raise NoModelLoaded
        return self.model

    async def reserve(
        self, model_id: str | None, count: int, client: str = ""
    ) -> tuple[FakeModel, Places]:
        model = await self.get(model_id)
        return model, model.engine.reserve(count, client)


class FakeService(GenerationService):
    """The real service over one fake model that says what it is told to."""

    def __init__(
        self,
        *steps: Step,
        capacity: int = 4096,
        max_requests: int = 8,
        chat_template: ChatTemplate | None = None,
        script: Callable[[EngineRequest], Sequence[Step]] | None = None,
        chat: bool = True,
    ) -> None:
        self.engine = FakeEngine(script or steps, capacity=capacity, max_requests=max_requests)
        template = (chat_template or ChatTemplate(CHATML)) if chat else None
        self.catalog = FakeCatalog(FakeModel(self.engine, chat_template=template))
        super().__init__(self.catalog)

    def prompts(self) -> list[str]:
        """What the engine was asked to go on from."""
        return [
            BYTES.decode(list(request.prompt_ids), skip_special_tokens=False)
            for request in self.engine.submitted
        ]


PATIENCE_S = 60.0
"""How long anything may take that should take a moment: machines that run tests are shared."""


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop go on until something is so; it is looked at in each of its turns."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def until_eventually(condition: Callable[[], object]) -> None:
    """`until`, for what other threads do."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


if TYPE_CHECKING:  # what the fakes stand for, held by mypy
    _model: TextModel = FakeModel(FakeEngine(()))
    _source: ModelSource = FakeCatalog(None)
    _registry: ModelRegistry = FakeCatalog(None)
