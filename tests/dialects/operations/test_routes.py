"""Metrics and health over the real application, with tiny models and engines that stick."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from app import asgi
from app.catalog.catalog import Catalog
from app.catalog.loaded import OrtDecoder, open_model
from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingParams
from app.contract.whole import collect
from app.generation.service import GenerationService
from app.metrics import Metrics
from app.settings import Settings
from app.storage.models import Role
from tests.accounts_app import PASSWORD, Server
from tests.asgi_client import Answer
from tests.fakes import BYTES, until
from tests.hosts import CHEAP
from tests.test_metrics import parsed, samples
from tests.tiny_model import write_tiny_model

MODEL, OTHER = "tiny/a", "tiny/b"
ASK = ("POST", "/generate", {"prompt": "Hi", "max_length": 3, "temperature": 0})
READY = ("GET", "/health/ready")


class Application:
    """The real application; `catalog` and `auth` are its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
        for seed, model_id in enumerate((MODEL, OTHER)):
            write_tiny_model(folder, model_id, vocab_size=258, seed=seed, tokenizer=BYTES)
        values = {"data_dir": folder, "models_dir": folder, "model": MODEL, "slots": 1}
        self._settings = msgspec.structs.replace(CHEAP, **{**values, **settings})
        self._monkeypatch = monkeypatch

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        made = {}
        for make in (asgi.Catalog, asgi.create_auth):

            def made_and_kept(*arguments, make=make):
                made[make.__name__] = make(*arguments)
                return made[make.__name__]

            self._monkeypatch.setattr(asgi, make.__name__, made_and_kept)
        app = asgi.create_app(self._settings)
        self.catalog: Catalog = made["Catalog"]
        self.auth = made["create_auth"]
        async with app.lifespan():
            yield Server(app, auth=self.auth, database=None, service=None)


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    return lambda **settings: Application(tmp_path, monkeypatch, **settings)


async def scrape(server: Server, **options: object) -> dict[tuple[str, str], float]:
    return parsed((await server.ask("GET", "/metrics", **options)).body.decode())


def not_ready(answer: Answer) -> str:
    assert answer.status == 503
    assert answer.json.keys() == {"status", "reason"}, "and nothing that tells of the server"
    assert answer.json["status"] == "not_ready"
    return answer.json["reason"]


async def test_requests_show_in_the_metrics_of_their_model(application):
    async with application().running() as server:
        answers = [await server.ask(*ASK) for _ in range(2)]
        found = await scrape(server)
        usages = [answer.json["usage"] for answer in answers]
        for name in ("prompt", "completion"):
            shown = {"prompt": "prompt", "completion": "generation"}[name]
            asked = sum(usage[f"{name}_tokens"] for usage in usages)
            assert found[f"{shown}_tokens_total", ""] == asked > 0
        assert found["request_success_total", "finished_reason=length"] == 2
        answer = await server.ask("GET", "/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert f'llmhost_num_requests_running{{model_name="{MODEL}"}} 0.0' in answer.body.decode()


async def test_accept_asks_for_openmetrics(application):
    async with application(model="").running() as server:
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        answer = await server.ask("GET", "/metrics", headers=accept)
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1")
        assert answer.body.endswith(b"# EOF\n")


async def test_an_unloaded_model_has_no_gauges_and_keeps_its_counters(application):
    async with application().running() as server:
        await server.ask(*ASK)
        before = await scrape(server)
        assert before["slots", ""] == before["models_loaded", ""] == 1
        await server.ask("POST", "/models/unload")
        after = await scrape(server)
        assert ("slots", "") not in after
        assert after["models_loaded", ""] == 0
        for name in ("generation_tokens_total", "prompt_tokens_total"):
            assert after[name, ""] == before[name, ""] > 0, name
        # the last step is counted when it has ended, and the answer may be out before
        assert after["engine_steps_total", ""] >= before["engine_steps_total", ""] > 0
        await server.ask("POST", "/models/load", {"model_id": MODEL})
        await server.ask(*ASK)
        again = await scrape(server)
        assert again["generation_tokens_total", ""] == 2 * before["generation_tokens_total", ""]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (("POST", "/generate", {"prompt": "x" * 1000}), "context_overflow"),
        (("POST", "/generate", {"prompt": "x", "temperature": "hot"}), "invalid_parameter"),
        (("POST", "/generate", {}), "bad_request"),
        (("POST", "/generate", {"query": "x"}), "not_authenticated"),
        (("POST", "/chat", {"messages": 1}), "invalid_parameter"),
        (("POST", "/generate/batch", {"prompts": ["x"] * 99}), "batch_too_large"),
        (("POST", "/models/load", {"model_id": "a/b"}), "unknown_model"),
        (("GET", "/me"), "not_authenticated"),
        (("GET", "/api/chats"), "not_authenticated"),
    ],
)
async def test_an_error_answer_counts_once_whichever_dialect_gives_it(application, request_, code):
    async with application().running() as server:
        assert (await server.ask(*request_)).status >= 400
        found = await scrape(server)
        counted = {
            labels: v for (name, labels), v in found.items() if name == "request_errors_total"
        }
        assert {labels: v for labels, v in counted.items() if v} == {f"code={code}": 1}


async def test_what_a_limit_refuses_is_counted(application):
    async with application(rate_limit_per_minute=1, max_waiting=0).running() as server:
        assert (await server.ask(*ASK)).status == 200
        assert (await server.ask(*ASK)).status == 429
        assert (await scrape(server))["request_errors_total", "code=rate_limited"] == 1


async def test_no_path_of_a_client_becomes_a_label(application):
    async with application(model="").running() as server:
        before = set(await scrape(server))
        await server.ask("GET", "/nothing/here")
        await server.ask("POST", "/models/load", {"model_id": "made/up"})
        assert set(await scrape(server)) == before


async def test_what_ends_at_a_stop_string_is_no_abort(tmp_path: Path):
    write_tiny_model(tmp_path, MODEL, vocab_size=258, tokenizer=BYTES)
    metrics = Metrics()
    catalog = Catalog(Settings(models_dir=tmp_path, slots=1), metrics)
    service = GenerationService(catalog)

    async def ask(*stop: str) -> tuple[str, str]:
        request = GenerationRequest(
            prompt="Hi", max_tokens=20, sampling=SamplingParams(temperature=0.0), stop=stop
        )
        whole = await collect(await service.start(request, MODEL))
        return whole.text, whole.finished.reason

    text, reason = await ask()
    assert (len(text) > 1, reason) == (True, "length"), "else there is nothing to stop at"
    assert await ask(text[1]) == (text[: text.index(text[1])], "stop")
    abandoned = await service.start(
        GenerationRequest(prompt="Hi", max_tokens=20, sampling=SamplingParams()), MODEL
    )
    await abandoned.aclose()
    await catalog.close()
    ends = {key[1]: v for key, v in samples(metrics).items() if key[0] == "request_success_total"}
    assert (ends["finished_reason=abort"], ends["finished_reason=error"]) == (1, 0)
    # on a busy machine the tiny model may have said all before its text is looked at
    assert ends["finished_reason=length"] + ends["finished_reason=stop"] == 2


async def test_a_closed_server_shows_its_metrics_to_administrators_alone(application):
    closed = application(require_auth=True, model="")
    async with closed.running() as server:
        tokens = {}
        for role in Role:
            user = await closed.auth.accounts.create(f"a-{role}", PASSWORD, role)
            tokens[role] = (await closed.auth.logins.sign_in(user)).access_token
        assert (await server.ask("GET", "/metrics")).status == 401
        assert (await server.ask("GET", "/metrics", token=tokens[Role.USER])).status == 403
        assert (await server.ask("GET", "/metrics", token=tokens[Role.ADMIN])).status == 200
        admin = await closed.auth.accounts.create("scraper", PASSWORD, Role.ADMIN)
        key, _ = await closed.auth.api_keys.create(admin.id, "Prometheus")
        assert (await server.ask("GET", "/metrics", token=key)).status == 200
        assert (await server.ask("GET", "/health/live")).status == 200
        assert not_ready(await server.ask(*READY)) == "no_model_loaded"


async def test_ready_goes_with_the_model(application):
    async with application(model="").running() as server:
        assert not_ready(await server.ask(*READY)) == "no_model_loaded"
        assert (await server.ask("GET", "/health/live")).json == {"status": "alive"}
        await server.ask("POST", "/models/load", {"model_id": MODEL})
        answer = await server.ask(*READY)
        assert (answer.status, answer.json) == (200, {"status": "ready"})
        await server.ask("POST", "/models/unload")
        assert not_ready(await server.ask(*READY)) == "no_model_loaded"


async def test_a_model_on_its_way_is_not_ready(application, monkeypatch):
    opened = threading.Event()

    def wait_and_open(*arguments):
        assert opened.wait(5)
        return open_model(*arguments)

    monkeypatch.setattr("app.catalog.opening.open_model", wait_and_open)
    app = application(model="")
    async with app.running() as server:
        loading = asyncio.create_task(server.ask("POST", "/models/load", {"model_id": MODEL}))
        await until(lambda: app.catalog.loading)
        assert not_ready(await server.ask(*READY)) == "loading"
        opened.set()
        assert (await loading).status == 200
        assert (await server.ask(*READY)).status == 200


async def test_a_server_that_shuts_down_is_alive_and_not_ready(application):
    app = application()
    async with app.running() as server:
        await app.catalog.close()
        assert not_ready(await server.ask(*READY)) == "shutting_down"
        assert (await server.ask("GET", "/health/live")).status == 200


async def test_an_engine_that_broke_is_not_ready(application, monkeypatch):
    def bug(*_: object) -> None:
        raise ZeroDivisionError("not a decoder failure")

    async with application(max_loaded_models=2).running() as server:
        await server.ask("POST", "/models/load", {"model_id": OTHER})
        monkeypatch.setattr(OrtDecoder, "run", bug)
        assert (await server.ask(*ASK)).status == 500
        assert not_ready(await server.ask(*READY)) == "engine_failed", "one of two is enough"
        assert (await server.ask("GET", "/health/live")).status == 200


class Stuck:
    """A decoder whose steps don't end before they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        run = OrtDecoder.run

        def stick(decoder, step):
            self.entered.set()
            assert self.opened.wait(60)
            return run(decoder, step)

        monkeypatch.setattr(OrtDecoder, "run", stick)


async def until_ready_is(server: Server, status: int) -> Answer:
    async with asyncio.timeout(60):
        while (answer := await server.ask(*READY)).status != status:
            await asyncio.sleep(0.01)
    return answer


async def test_a_step_may_take_a_while(application, monkeypatch):
    stuck = Stuck(monkeypatch)
    async with application(stalled_after_s=1000.0).running() as server:
        asked = asyncio.create_task(server.ask(*ASK))
        await asyncio.to_thread(stuck.entered.wait)
        assert (await server.ask(*READY)).status == 200
        stuck.opened.set()
        assert (await asked).status == 200


async def test_a_step_that_does_not_end_is_not_ready_until_it_does(application, monkeypatch):
    stuck = Stuck(monkeypatch)
    async with application(stalled_after_s=0.05).running() as server:
        assert (await server.ask(*READY)).status == 200
        gone = asyncio.Event()
        asked = asyncio.create_task(server.ask(*ASK, gone=gone))
        assert not_ready(await until_ready_is(server, 503)) == "stalled"
        gone.set()  # that nobody waits any more mends nothing
        assert (await asked).status == 499
        assert not_ready(await server.ask(*READY)) == "stalled"
        assert (await server.ask("GET", "/health/live")).status == 200
        stuck.opened.set()
        await until_ready_is(server, 200)
