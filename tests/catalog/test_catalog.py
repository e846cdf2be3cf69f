"""The catalog over real files: tiny random models through ONNX Runtime."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from app.catalog import catalog as catalog_module
from app.catalog import opening as opening_module
from app.catalog.catalog import Catalog
from app.catalog.loaded import ModelParts, open_model
from app.catalog.memory import AUTO_CONTEXT, MAX_AUTO_SLOTS, auto_slots
from app.catalog.shelf import Shelf
from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingParams
from app.contract.whole import collect
from app.engine.thread import EngineThread
from app.errors import (
    EngineFailure,
    ModelBroken,
    ModelTooLarge,
    NoModelLoaded,
    ShuttingDown,
    UnknownModel,
)
from app.generation.service import GenerationService
from app.manifest import read_manifest
from app.settings import Settings
from tests.fakes import BYTES, PATIENCE_S, until, until_eventually
from tests.tiny_model import write_tiny_model

A, B, C = "tiny/a", "tiny/b", "tiny/c"


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, model_id in enumerate((A, B, C)):
        write_model(folder, model_id, seed)
    return folder


def write_model(folder: Path, model_id: str, seed: int = 0) -> Path:
    return write_tiny_model(folder, model_id, vocab_size=258, seed=seed, tokenizer=BYTES)


@asynccontextmanager
async def opened(models_dir: Path, **settings: object) -> AsyncIterator[Catalog]:
    defaults = {"slots": 4, "intra_op_threads": 1, "drain_timeout_s": 0.0}
    catalog = Catalog(Settings(models_dir=models_dir, **{**defaults, **settings}))
    try:
        async with asyncio.timeout(120):
            yield catalog
    finally:
        await catalog.close()


class Opening:
    """Stands before `open_model`: counts calls and holds them while it is told to."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, folder: Path, settings: Settings) -> ModelParts:
        self.opened.append(folder.name)
        assert self.gate.wait(PATIENCE_S)
        return open_model(folder, settings)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch):
    opening = Opening()
    monkeypatch.setattr(opening_module, "open_model", opening)
    yield opening
    opening.gate.set()


async def generate(catalog: Catalog, model_id: str | None, max_tokens: int = 5) -> str:
    request = GenerationRequest(
        messages=[],
        prompt="Hello",
        max_tokens=max_tokens,
        sampling=SamplingParams(temperature=0.0),
    )
    generation = await GenerationService(catalog).start(request, model_id)
    text = (await collect(generation)).text
    return f"{generation.model_id}: {text}"


def names(catalog: Catalog) -> list[str]:
    return [model.model_id for model in catalog.loaded]


async def test_two_simultaneous_loads_load_once(models_dir, opening):
    async with opened(models_dir) as catalog:
        first, second = await asyncio.gather(catalog.get(A), catalog.get(A))
        assert first is second
        assert await catalog.get(A) is first
        assert opening.opened == ["tiny--a"]


async def test_a_request_that_names_a_model_on_disk_loads_it(models_dir):
    async with opened(models_dir, max_loaded_models=2) as catalog:
        with pytest.raises(NoModelLoaded):
            await generate(catalog, None)
        of_a, of_b = await asyncio.gather(generate(catalog, A), generate(catalog, B))
        assert of_a.startswith("tiny/a: ")
        assert of_b.startswith("tiny/b: ")
        assert of_a.partition(" ")[2] != of_b.partition(" ")[2], "weights must differ"
        await generate(catalog, A)
        assert await generate(catalog, None) == of_a, "the one used last answers who names none"


async def test_the_least_recently_used_leaves_first(models_dir):
    async with opened(models_dir, max_loaded_models=2) as catalog:
        await catalog.load(A)
        await catalog.load(B)
        assert names(catalog) == [B, A]
        await catalog.load(A)
        await catalog.load(C)
        assert names(catalog) == [C, A]


async def test_an_idle_model_leaves_rather_than_one_that_generates(models_dir):
    async with opened(models_dir, max_loaded_models=2) as catalog:
        oldest = await catalog.get(A)
        await catalog.load(B)
        with oldest.engine.reserve():
            await catalog.load(C)
            assert names(catalog) == [C, A]


async def test_one_that_generates_is_waited_for(models_dir):
    async with opened(models_dir) as catalog:
        running = await catalog.get(A)
        with running.engine.reserve():
            loading = asyncio.create_task(catalog.load(B))
            await until_eventually(lambda: catalog.loading == {B: 0.5})
            assert (await generate(catalog, A)).startswith(A), "it takes requests meanwhile"
            assert not loading.done()
            assert names(catalog) == [A]
        await loading
        assert names(catalog) == [B]
        assert catalog.loading == {}


async def test_a_whole_answer_comes_from_a_model_that_has_to_go(models_dir):
    async with opened(models_dir) as catalog:
        alone = await generate(catalog, A, max_tokens=200)
        generating = asyncio.create_task(generate(catalog, A, max_tokens=200))
        await until(lambda: catalog.loaded[0].running)
        await catalog.load(B)
        assert generating.done()
        assert await generating == alone


async def test_a_broken_model_is_refused_and_the_loaded_one_stays(tmp_path):
    write_model(tmp_path, A)
    broken = write_model(tmp_path, B)
    (broken / "tokenizer.json").write_text("{")
    async with opened(tmp_path) as catalog:
        await catalog.load(A)
        with pytest.raises(ModelBroken, match=r"tokenizer\.json"):
            await catalog.load(B)
        assert [facts.model_id for facts in await catalog.available()] == [A]
        graph = broken / "model.onnx"
        sound = graph.read_bytes()
        graph.write_bytes(bytes(len(sound)))  # of the right size, so only ONNX Runtime sees it
        (broken / "tokenizer.json").write_bytes((tmp_path / "tiny--a/tokenizer.json").read_bytes())
        with pytest.raises(ModelBroken, match=r"model\.onnx"):
            await catalog.load(B)
        assert names(catalog) == [A]
        assert catalog.loading == {}
        assert (await generate(catalog, None)).startswith(A)
        graph.write_bytes(sound)
        await catalog.load(B)
        assert names(catalog) == [B]


@pytest.mark.parametrize(
    "model_id",
    ["no/such", "tiny--a", "../models/tiny--a", "..", ".", "", "/", "tiny/a/", "tiny\0a", "Tiny/A"],
)
async def test_no_other_name_reaches_a_folder(models_dir, model_id):
    async with opened(models_dir) as catalog:
        for refused in (catalog.load(model_id), catalog.describe(model_id)):
            with pytest.raises(UnknownModel):
                await refused
        assert names(catalog) == []


async def test_unload_says_what_it_unloaded(models_dir):
    async with opened(models_dir, max_loaded_models=2) as catalog:
        assert await catalog.unload() is None
        await catalog.load(A)
        await catalog.load(B)
        assert await catalog.unload(C) is None
        assert await catalog.unload(A) == A
        assert await catalog.unload() == B
        assert catalog.current is None
        await catalog.load(A)
        assert names(catalog) == [A]


async def test_unload_lets_the_model_finish(models_dir):
    async with opened(models_dir) as catalog:
        alone = await generate(catalog, A, max_tokens=200)
        generating = asyncio.create_task(generate(catalog, None, max_tokens=200))
        await until(lambda: catalog.loaded[0].running)
        assert await catalog.unload() == A
        assert await generating == alone


async def test_a_model_that_is_leaving_is_loaded_again_only_when_it_is_gone(
    models_dir, monkeypatch
):
    stopping, gone_when_opened = [], []
    stop = EngineThread.stop

    def note_and_stop(engine, drain_timeout_s):
        stopping.append(engine)
        return stop(engine, drain_timeout_s)

    def note_and_open(*arguments):
        gone_when_opened.append(leaving.engine.failure is not None)
        return open_model(*arguments)

    async with opened(models_dir) as catalog:
        leaving = await catalog.get(A)
        monkeypatch.setattr(EngineThread, "stop", note_and_stop)
        monkeypatch.setattr(opening_module, "open_model", note_and_open)
        with leaving.engine.reserve():
            unloading = asyncio.create_task(catalog.unload(A))
            await until(lambda: not catalog.loaded)
            loading = asyncio.create_task(catalog.get(A))
            await until_eventually(lambda: stopping == [leaving.engine] * 2)
            assert not loading.done()
        assert await loading is not leaving
        assert await unloading == A
        assert gone_when_opened == [True]
        assert names(catalog) == [A]


async def test_idle_models_are_unloaded_and_busy_ones_are_not(models_dir):
    async with opened(models_dir, max_loaded_models=2, idle_unload_s=0.05) as catalog:
        watch = asyncio.create_task(catalog.unload_idle())
        busy = await catalog.get(A)
        with busy.engine.reserve():
            for _ in range(2):  # whoever is idle goes, so the watch has looked at both each time
                await catalog.load(B)
                await until_eventually(lambda: B not in names(catalog))
                assert names(catalog) == [A]
        await until_eventually(lambda: names(catalog) == [])
        watch.cancel()


async def test_other_models_generate_while_one_is_loading(models_dir, opening):
    async with opened(models_dir, max_loaded_models=2) as catalog:
        await catalog.load(A)
        opening.gate.clear()
        loading = asyncio.create_task(catalog.load(B))
        await until_eventually(lambda: len(opening.opened) == 2)
        assert catalog.loading == {B: 0.0}
        assert (await generate(catalog, A)).startswith(A)
        assert not loading.done()
        opening.gate.set()
        await loading


async def test_a_client_that_goes_does_not_stop_a_load_others_wait_for(models_dir, opening):
    async with opened(models_dir) as catalog:
        opening.gate.clear()
        gone, stays = (asyncio.create_task(catalog.load(A)) for _ in range(2))
        await until_eventually(lambda: opening.opened)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        opening.gate.set()
        assert (await stays).model_id == A
        assert gone.cancelled()
        assert len(opening.opened) == 1


@pytest.mark.parametrize(("waits", "answers"), [(True, B), (False, A)])
async def test_in_the_midst_of_a_swap_a_request_without_a_model_gets_what_will_be_there(
    models_dir, monkeypatch, waits, answers
):
    monkeypatch.setattr(catalog_module, "SWAP_PATIENCE_S", 0.0)
    async with opened(models_dir) as catalog:
        going = await catalog.get(A)
        with going.engine.reserve():
            swap = asyncio.create_task(catalog.load(B))
            await until_eventually(lambda: not catalog.loaded)
            if not waits:
                swap.cancel()
                await asyncio.gather(swap, return_exceptions=True)
            generating = asyncio.create_task(generate(catalog, None))
            await asyncio.sleep(0)
        assert (await generating).startswith(answers)
        assert names(catalog) == [answers]


async def test_a_model_that_nobody_waits_for_any_more_makes_no_other_go(models_dir):
    async with opened(models_dir) as catalog:
        running = await catalog.get(A)
        with running.engine.reserve():
            unwanted = asyncio.create_task(catalog.load(B))
            await until_eventually(lambda: catalog.loading == {B: 0.5})
            unwanted.cancel()
            await asyncio.gather(unwanted, return_exceptions=True)
            assert catalog.loading == {}
            assert (await generate(catalog, None)).startswith(A)
        await until_eventually(lambda: not running.engine.num_requests)
        assert names(catalog) == [A]
        assert (await catalog.load(B)).model_id == B, "what was given up can be had later"


async def test_a_model_serves_until_its_replacement_needs_the_room(models_dir, monkeypatch):
    monkeypatch.setattr(catalog_module, "SWAP_PATIENCE_S", 2.0)
    async with opened(models_dir) as catalog:
        running = await catalog.get(A)
        with running.engine.reserve():
            loading = asyncio.create_task(catalog.load(B))
            await until_eventually(lambda: catalog.loading == {B: 0.5})
            assert (await generate(catalog, A)).startswith(A), "as long as it is there"
            await until_eventually(lambda: not catalog.loaded)
        await loading
        assert names(catalog) == [B], "a model that is never idle has to go all the same"


async def test_an_engine_that_stopped_is_started_anew_once_by_itself(models_dir, monkeypatch):
    def bug(*_: object) -> None:
        raise ZeroDivisionError("not a decoder failure")

    async with opened(models_dir) as catalog:
        alone = await generate(catalog, A)
        with monkeypatch.context() as patch:
            patch.setattr("app.runtime.ort_decoder.OrtDecoder.run", bug)
            with pytest.raises(EngineFailure):
                await generate(catalog, A)
            assert catalog.loaded[0].failure is not None
        assert await generate(catalog, None) == alone, "a request that names no model too"
        with monkeypatch.context() as patch:
            patch.setattr("app.runtime.ort_decoder.OrtDecoder.run", bug)
            with pytest.raises(EngineFailure):
                await generate(catalog, A)
        with pytest.raises(EngineFailure, match="the engine has stopped"):
            await generate(catalog, A)
        await catalog.load(A)
        assert await generate(catalog, A) == alone, "loading it is asking for it"


async def test_close_stops_engines_and_loads_and_takes_nothing_new(models_dir, opening):
    async with opened(models_dir, max_loaded_models=2) as catalog:
        model = await catalog.get(A)
        opening.gate.clear()
        loading = asyncio.create_task(catalog.load(B))
        await until_eventually(lambda: len(opening.opened) == 2)
        await catalog.close()
        opening.gate.set()
        assert isinstance(model.engine.failure, ShuttingDown)
        for refused in (loading, catalog.load(A)):
            with pytest.raises(ShuttingDown):
                await refused


@pytest.mark.parametrize("max_loaded_models", [1, 2])
async def test_ten_clients_that_generate_load_and_unload_get_every_answer(
    models_dir, max_loaded_models
):
    async with opened(models_dir, max_loaded_models=max_loaded_models, slots=8) as catalog:
        expected = {model_id: await generate(catalog, model_id) for model_id in (A, B)}

        async def client(number: int) -> int:
            choose = random.Random(number)
            answers = 0
            for _ in range(8):
                model_id = choose.choice((A, B))
                match choose.choice(("generate", "generate", "load", "unload")):
                    case "generate":
                        assert await generate(catalog, model_id) == expected[model_id]
                        answers += 1
                    case "load":
                        await catalog.load(model_id)
                    case "unload":
                        await catalog.unload(model_id)
            return answers

        assert sum(await asyncio.gather(*map(client, range(10)))) > 30
        assert len(catalog.loaded) <= max_loaded_models


def test_models_with_one_tokenizer_share_what_is_made_of_it_while_one_is_there(tmp_path):
    settings = Settings(slots=1, context_length=64)
    folders = [write_model(tmp_path, model_id) for model_id in (A, B)]
    folders.append(write_tiny_model(tmp_path, C, vocab_size=260, tokenizer=BYTES))
    a, b, c = (open_model(folder, settings) for folder in folders)
    assert a.grammars is b.grammars
    assert a.tokenizer is b.tokenizer
    assert c.grammars is not a.grammars
    gone = weakref.ref(a.grammars)
    for parts in (a, b, c):
        parts.close()
    del a, b, parts
    gc.collect()
    assert gone() is None
    assert c.grammars.tokenizer is c.tokenizer


def test_auto_slots_follow_the_memory_that_files_and_prefixes_leave(models_dir, monkeypatch):
    manifest = read_manifest(models_dir / "tiny--a")
    slot_bytes = 256 * manifest.graph.kv_bytes_per_token
    for slots_free, slots in ((0, 1), (6, 3), (1000, MAX_AUTO_SLOTS)):
        available = manifest.size_bytes + 3 * 2**20 + slots_free * slot_bytes
        memory = type("Memory", (), {"available": available})
        monkeypatch.setattr("app.catalog.memory.psutil.virtual_memory", lambda m=memory: m)
        assert auto_slots(manifest, 256, prefix_cache_mb=3) == slots


def test_a_model_with_a_long_context_gets_a_useful_one_by_default(tmp_path):
    folder = write_model(tmp_path, A)
    content = msgspec.json.decode((folder / "manifest.json").read_bytes())
    content["graph"]["context_length"] = 131_072
    (folder / "manifest.json").write_bytes(msgspec.json.encode(content))
    for setting, capacity in ((0, AUTO_CONTEXT), (20_000, 20_000), (200_000, 131_072)):
        settings = Settings(models_dir=tmp_path, slots=1, context_length=setting)
        parts = open_model(folder, settings)
        assert parts.decoder.capacity == capacity
        parts.decoder.close()


async def test_settings_that_do_not_fit_the_memory_are_refused_with_the_numbers(models_dir):
    manifest = read_manifest(models_dir / "tiny--a")
    free = psutil.virtual_memory().available
    capacity = manifest.graph.context_length
    fitting = free // 2 // (capacity * manifest.graph.kv_bytes_per_token)
    async with opened(models_dir, slots=fitting) as catalog:
        await catalog.load(A)
    async with opened(models_dir, slots=4 * fitting) as catalog:
        with pytest.raises(ModelTooLarge) as refused:
            await catalog.load(A)
        assert not catalog.loaded
    for named in (f"{4 * fitting} slots (LLMHOST_SLOTS)", f"{capacity} tokens", "GB are free"):
        assert named in str(refused.value)


async def test_kv_bytes_are_those_of_every_slot_full(models_dir):
    async with opened(models_dir, slots=3, context_length=100) as catalog:
        model = await catalog.load(A)
        graph = read_manifest(models_dir / "tiny--a").graph
        a_token = 2 * graph.num_layers * graph.num_kv_heads * graph.head_dim * 4
        assert model.cache_bytes == 3 * 100 * a_token


def test_a_manifest_of_another_format_is_left_out(tmp_path, caplog):
    folder = write_model(tmp_path, A)
    manifest = folder / "manifest.json"
    content = msgspec.json.decode(manifest.read_bytes())
    manifest.write_bytes(msgspec.json.encode({**content, "format": 99}))
    assert Shelf(tmp_path).available() == []
    assert "format is 99" in caplog.text
